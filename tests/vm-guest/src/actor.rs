//! Programs that the stages start as processes of their own.
//!
//! - `within ID PROGRAM [ARGUMENT…]` moves into the cgroups of a container, then executes the program.
//! - `as-nobody CAPABILITIES PROGRAM [ARGUMENT…]` executes the program as user 65534 with these capabilities
//!   (comma-separated, perhaps none) and no other.
//! - `connect ADDRESS` connects, sends four bytes, says from where, and closes when its standard input ends.
//! - `ask-unix PATH` connects to a unix socket, asks for a container with [`ASKED`] at once, reads until the answer is there,
//!   says so, and closes when its standard input ends.
//! - `connect-unix PATH` connects to a unix socket, says so, and closes when its standard input ends.
//! - `listen ADDRESS` listens, says so, and accepts until its standard input ends.

use std::ffi::{OsStr, OsString};
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use rustix::thread::{
    CapabilitySet, CapabilitySets, configure_capability_in_ambient_set, set_capabilities,
    set_keep_capabilities,
};

use crate::cgroups;

/// Bytes that `connect` sends.
pub const SENT: &[u8] = b"ping";
/// The user that owns nothing.
const NOBODY: u32 = 65_534;

/// Plays a role.
pub fn run(role: &OsStr, mut arguments: impl Iterator<Item = OsString>) -> Result<()> {
    let mut next = || arguments.next().context("an argument is missing");
    match role.to_str() {
        Some("within") => {
            let id = next()?;
            cgroups::join(id.to_str().context("the id is not text")?)?;
            execute(&next()?, arguments)
        }
        Some("as-nobody") => {
            let capabilities = next()?;
            become_nobody(capabilities.to_str().context("the capabilities are not text")?)?;
            execute(&next()?, arguments)
        }
        Some("connect") => connect(address(&next()?)?),
        Some("ask-unix") => ask_unix(&next()?),
        Some("connect-unix") => connect_unix(&next()?),
        Some("listen") => listen(address(&next()?)?),
        _ => bail!("unknown role"),
    }
}

fn address(argument: &OsStr) -> Result<SocketAddr> {
    argument.to_str().context("the address is not text")?.parse().context("not an address with a port")
}

fn execute(program: &OsStr, arguments: impl Iterator<Item = OsString>) -> Result<()> {
    let error = Command::new(program).args(arguments).exec();
    Err(error).with_context(|| format!("cannot execute {}", program.display()))
}

fn become_nobody(names: &str) -> Result<()> {
    let wanted = names
        .split(',')
        .filter(|name| !name.is_empty())
        .map(|name| CapabilitySet::from_name(name).with_context(|| format!("unknown capability {name}")))
        .collect::<Result<Vec<_>>>()?;
    let all = wanted.iter().copied().collect::<CapabilitySet>();
    set_keep_capabilities(true)?;
    // SAFETY: setgroups and setresuid take numbers; this process has one thread.
    let changed = unsafe {
        libc::setgroups(0, std::ptr::null()) == 0
            && libc::setresgid(NOBODY, NOBODY, NOBODY) == 0
            && libc::setresuid(NOBODY, NOBODY, NOBODY) == 0
    };
    if !changed {
        return Err(std::io::Error::last_os_error()).context("cannot become another user");
    }
    set_capabilities(None, CapabilitySets { effective: all, permitted: all, inheritable: all })?;
    for capability in wanted {
        configure_capability_in_ambient_set(capability, true)?;
    }
    Ok(())
}

fn connect(server: SocketAddr) -> Result<()> {
    let mut stream = TcpStream::connect_timeout(&server, Duration::from_secs(10))?;
    println!("{}", stream.local_addr()?);
    stream.write_all(SENT)?;
    wait_for_end_of_input()
}

/// Bytes of a request: more than the kernel keeps in one piece.
pub const ASKED: usize = 8000;
/// The end of an answer.
pub const ANSWERED: &str = "}";

/// A request of [`ASKED`] bytes, most of which say nothing.
fn request() -> String {
    let body = r#"{"Image":"alpine","Env":["KEY=secret"],"HostConfig":{"Privileged":true}}"#;
    let head = |length: usize| {
        let line = "POST /v1.41/containers/create HTTP/1.1";
        format!("{line}\r\nHost: h\r\nUser-Agent: guest/1\r\nContent-Length: {length:04}\r\n\r\n")
    };
    let length = ASKED - head(0).len();
    head(length) + &format!("{body:length$}")
}

fn ask_unix(path: &OsStr) -> Result<()> {
    let mut stream = UnixStream::connect(path)?;
    stream.write_all(request().as_bytes())?;
    let mut answer = Vec::new();
    while !answer.ends_with(ANSWERED.as_bytes()) {
        let mut byte = [0];
        stream.read_exact(&mut byte)?;
        answer.push(byte[0]);
    }
    println!("answered");
    wait_for_end_of_input()
}

fn connect_unix(path: &OsStr) -> Result<()> {
    let _stream = UnixStream::connect(path)?;
    println!("connected");
    wait_for_end_of_input()
}

fn listen(at: SocketAddr) -> Result<()> {
    let listener = TcpListener::bind(at)?;
    println!("listening");
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            std::thread::spawn(move || stream.read_to_end(&mut Vec::new()));
        }
    });
    wait_for_end_of_input()
}

fn wait_for_end_of_input() -> Result<()> {
    std::io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}
