//! The loads whose slowdown is measured. Each runs for a fixed time on one processor.

use std::fmt;
use std::fs::File;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use rustix::net::{AddressFamily, SocketType, connect, socket, sockopt};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use crate::statistics::median;

/// The time of one iteration is the mean over a block of this length, so that the clock is read seldom.
const BLOCK: Duration = Duration::from_millis(5);
/// Longer than the programs on packets take to be attached when the first management listener opens.
const PACKETS_PAUSE: Duration = Duration::from_millis(50);

/// A load.
pub struct Load {
    /// Column title.
    pub name: &'static str,
    /// What the load's speed with the sensor should be, where there is an aim.
    pub aim: Aim,
    run: fn(Duration) -> anyhow::Result<Sample>,
}

/// A share of another speed.
#[derive(Clone, Copy, Debug)]
pub enum Aim {
    None,
    /// Of the speed without any program.
    OfBare(f64),
    /// Of the speed with empty programs on the same hooks.
    OfEmpty(f64),
}

impl fmt::Display for Aim {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self {
            Self::None => String::new(),
            Self::OfBare(aim) => format!(">={aim}"),
            Self::OfEmpty(aim) => format!(">={aim} of empty"),
        };
        out.pad(&text)
    }
}

/// What a load did.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    /// Nanoseconds per iteration: the median over blocks of some milliseconds.
    pub iteration_ns: f64,
    /// Iterations.
    pub count: u64,
}

impl Load {
    /// Runs the load for about `time`.
    pub fn run(&self, time: Duration) -> anyhow::Result<Sample> {
        (self.run)(time).with_context(|| format!("load `{}`", self.name))
    }
}

/// The port of the watched loop: the Docker API's.
pub const WATCHED: u16 = 2375;
/// A port nobody watches.
pub const UNWATCHED: u16 = 12_375;

/// Connections to a watched port.
pub const WATCHED_TCP: Load = Load {
    name: "connect+accept+close, watched port",
    aim: Aim::OfBare(0.95),
    run: |time| tcp(WATCHED, time),
};
/// Connections to another port.
pub const UNWATCHED_TCP: Load = Load {
    name: "connect+accept+close, other port",
    aim: Aim::OfBare(0.97),
    run: |time| tcp(UNWATCHED, time),
};
/// Words back and forth on a connection to another port, while a management listener has all packets looked at.
pub const UNWATCHED_TALK: Load =
    Load { name: "request+response, other port", aim: Aim::OfEmpty(0.99), run: tcp_talk };
/// Words back and forth between two unix sockets, one of which is bound to a path that nobody watches.
pub const UNIX_TALK: Load = Load { name: "unix request+response", aim: Aim::None, run: unix_talk };
/// Processes.
pub const FORK_EXEC: Load = Load { name: "fork+exec /bin/true", aim: Aim::OfBare(0.98), run: fork_exec };
/// Files.
pub const OPEN_CLOSE: Load = Load { name: "open+close", aim: Aim::OfBare(0.995), run: open_close };
/// A system call that does nothing.
pub const GETPPID: Load = Load { name: "getppid", aim: Aim::OfBare(0.995), run: getppid };

/// The thread on one processor while this lives: otherwise the loops' times depend on where the scheduler puts the two
/// ends of a connection.
struct Pinned(CpuSet);

impl Pinned {
    fn to_first() -> anyhow::Result<Self> {
        let before = sched_getaffinity(None)?;
        let mut one = CpuSet::new();
        one.set((0..CpuSet::MAX_CPU).find(|cpu| before.is_set(*cpu)).context("no processor to run on")?);
        sched_setaffinity(None, &one)?;
        Ok(Self(before))
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        if let Err(error) = sched_setaffinity(None, &self.0) {
            eprintln!("giving the thread its processors back: {error}");
        }
    }
}

fn timed(time: Duration, mut iteration: impl FnMut() -> anyhow::Result<()>) -> anyhow::Result<Sample> {
    let _pinned = Pinned::to_first()?;
    let start = Instant::now();
    let (mut blocks, mut total) = (Vec::new(), 0);
    while start.elapsed() < time {
        let block = Instant::now();
        let mut count = 0_u32;
        while block.elapsed() < BLOCK {
            iteration()?;
            count += 1;
        }
        blocks.push(block.elapsed().as_nanos() as f64 / f64::from(count));
        total += u64::from(count);
    }
    Ok(Sample { iteration_ns: median(&blocks), count: total })
}

/// One connection per iteration. The client resets it, so that no TIME_WAIT uses up the ports.
fn tcp(port: u16, time: Duration) -> anyhow::Result<Sample> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port))
        .with_context(|| format!("port {port} is needed for the benchmark"))?;
    timed(time, || tcp_once(&listener))
}

/// Connects to the listener, accepts, and closes both ends.
pub fn tcp_once(listener: &TcpListener) -> anyhow::Result<()> {
    let client: OwnedFd = socket(AddressFamily::INET, SocketType::STREAM, None)?;
    sockopt::set_socket_linger(&client, Some(Duration::ZERO))?;
    let SocketAddr::V4(address) = listener.local_addr()? else {
        anyhow::bail!("an IPv4 listener is expected")
    };
    connect(client.as_fd(), &SocketAddrV4::new(*address.ip(), address.port()))?;
    let (server, _) = listener.accept()?;
    drop(client);
    drop(server);
    Ok(())
}

fn tcp_talk(time: Duration) -> anyhow::Result<Sample> {
    let management = TcpListener::bind((Ipv4Addr::LOCALHOST, WATCHED))
        .with_context(|| format!("port {WATCHED} is needed for the benchmark"))?;
    // Until the programs on packets are in place.
    std::thread::sleep(PACKETS_PAUSE);
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, UNWATCHED))?;
    let client = TcpStream::connect((Ipv4Addr::LOCALHOST, UNWATCHED))?;
    let (server, _) = listener.accept()?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let sample = talk(client, server, time);
    drop(management);
    sample
}

fn unix_talk(time: Duration) -> anyhow::Result<Sample> {
    let path = std::env::temp_dir().join(format!("quaywatch-bench-{}.sock", std::process::id()));
    let listener = UnixListener::bind(&path)?;
    let client = UnixStream::connect(&path)?;
    std::fs::remove_file(&path)?;
    let (server, _) = listener.accept()?;
    talk(client, server, time)
}

/// One word there and one back per iteration.
fn talk<S: Read + Write>(mut client: S, mut server: S, time: Duration) -> anyhow::Result<Sample> {
    let mut word = [0; 16];
    timed(time, || {
        client.write_all(&word)?;
        server.read_exact(&mut word)?;
        server.write_all(&word)?;
        client.read_exact(&mut word)?;
        Ok(())
    })
}

fn fork_exec(time: Duration) -> anyhow::Result<Sample> {
    timed(time, || {
        let status = Command::new("/bin/true").status()?;
        anyhow::ensure!(status.success(), "/bin/true failed");
        Ok(())
    })
}

fn open_close(time: Duration) -> anyhow::Result<Sample> {
    timed_many(time, || {
        File::open("/dev/null")?;
        Ok(())
    })
}

fn getppid(time: Duration) -> anyhow::Result<Sample> {
    timed_many(time, || {
        std::hint::black_box(rustix::process::getppid());
        Ok(())
    })
}

/// For iterations so short that reading the clock around each would hide them.
fn timed_many(time: Duration, mut iteration: impl FnMut() -> anyhow::Result<()>) -> anyhow::Result<Sample> {
    const MANY: u32 = 1_000;
    let sample = timed(time, || (0..MANY).try_for_each(|_| iteration()))?;
    Ok(Sample { iteration_ns: sample.iteration_ns / f64::from(MANY), count: sample.count * u64::from(MANY) })
}
