//! The loads whose slowdown is measured. Each runs for a fixed time and returns nanoseconds per iteration.

use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener};
use std::os::fd::{AsFd, OwnedFd};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use rustix::net::{AddressFamily, SocketType, connect, socket, sockopt};

/// A load.
pub struct Load {
    /// Column title.
    pub name: &'static str,
    /// The aim for the ratio bare / with sensor, where there is one.
    pub aim: Option<f64>,
    run: fn(Duration) -> anyhow::Result<f64>,
}

impl Load {
    /// Runs the load for about `time`. Units of the result: nanoseconds per iteration.
    pub fn run(&self, time: Duration) -> anyhow::Result<f64> {
        (self.run)(time).with_context(|| format!("load `{}`", self.name))
    }
}

/// The port of the watched loop: the Docker API's.
pub const WATCHED: u16 = 2375;
/// A port nobody watches.
pub const UNWATCHED: u16 = 12_375;

/// Every load, in table order.
pub const LOADS: [Load; 5] = [
    Load { name: "connect+accept+close, watched port", aim: Some(0.95), run: |time| tcp(WATCHED, time) },
    Load { name: "connect+accept+close, other port", aim: Some(0.97), run: |time| tcp(UNWATCHED, time) },
    Load { name: "fork+exec /bin/true", aim: Some(0.98), run: fork_exec },
    Load { name: "open+close", aim: Some(0.995), run: open_close },
    Load { name: "getppid", aim: Some(0.995), run: getppid },
];

fn timed(time: Duration, mut iteration: impl FnMut() -> anyhow::Result<()>) -> anyhow::Result<f64> {
    let start = Instant::now();
    let mut count = 0_u32;
    loop {
        iteration()?;
        count += 1;
        let elapsed = start.elapsed();
        if elapsed >= time {
            return Ok(elapsed.as_nanos() as f64 / f64::from(count));
        }
    }
}

/// One connection per iteration. The client resets it, so that no TIME_WAIT uses up the ports.
pub fn tcp(port: u16, time: Duration) -> anyhow::Result<f64> {
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

fn fork_exec(time: Duration) -> anyhow::Result<f64> {
    timed(time, || {
        let status = Command::new("/bin/true").status()?;
        anyhow::ensure!(status.success(), "/bin/true failed");
        Ok(())
    })
}

fn open_close(time: Duration) -> anyhow::Result<f64> {
    timed_in_blocks(time, || {
        File::open("/dev/null")?;
        Ok(())
    })
}

fn getppid(time: Duration) -> anyhow::Result<f64> {
    timed_in_blocks(time, || {
        std::hint::black_box(rustix::process::getppid());
        Ok(())
    })
}

/// For iterations so short that reading the clock around each would hide them.
fn timed_in_blocks(time: Duration, mut iteration: impl FnMut() -> anyhow::Result<()>) -> anyhow::Result<f64> {
    const BLOCK: u32 = 1_000;
    let per_block = timed(time, || (0..BLOCK).try_for_each(|_| iteration()))?;
    Ok(per_block / f64::from(BLOCK))
}
