//! A connection to ourselves.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddrV4};
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt as _;
use std::time::{Duration, Instant};

use rustix::io::{read, write};
use rustix::net::sockopt::{Timeout, set_socket_linger, set_socket_timeout};
use rustix::net::{
    AddressFamily, Shutdown, SocketAddrAny, SocketFlags, SocketType, acceptfrom_with, bind, connect,
    getsockname, listen, shutdown, socket_with,
};
use sensor_core::canary::Connection;
use sensor_core::fact::End;

use crate::lookups::Roots;

/// Longest wait for a step that takes microseconds.
const STEP_LIMIT: Duration = Duration::from_secs(1);
/// Attempts to find a port that nobody uses and nobody watches.
const ATTEMPTS: u32 = 16;
/// Connections that wait at our port: whoever knocks there all the time must not keep ours out.
const BACKLOG: i32 = 4096;

/// A port on loopback that is ours for the whole run: the socket stays bound to it between the rounds, so that nobody else
/// in this network namespace can listen there.
#[derive(Debug)]
pub struct Loopback {
    listener: OwnedFd,
    server: SocketAddrV4,
    netns: u32,
}

/// The connecting end, bound and not connected.
pub struct Client {
    socket: OwnedFd,
    address: SocketAddrV4,
}

impl Loopback {
    /// Takes a port that is none of those to avoid.
    ///
    /// # Errors
    /// When there is none.
    pub fn reserve(roots: &Roots, avoid: &[u16]) -> io::Result<Self> {
        let inode = std::fs::metadata(roots.proc.join("self/ns/net"))?.ino();
        let netns = u32::try_from(inode).map_err(io::Error::other)?;
        let mut last = io::Error::from(io::ErrorKind::AddrInUse);
        for _ in 0..ATTEMPTS {
            let (probe, free) = bound(0)?;
            if avoid.contains(&free.port()) {
                continue;
            }
            drop(probe);
            // Bound by its number, the socket keeps its port when it ceases to listen.
            match bound(free.port()) {
                Ok((listener, server)) => return Ok(Self { listener, server, netns }),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// The port.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.server.port()
    }

    /// Makes the connecting end, so that both ends are known before anything happens.
    ///
    /// # Errors
    /// When there is no port for it.
    pub fn client(&self) -> io::Result<Client> {
        let (socket, address) = bound(0)?;
        // Closed with a reset: nothing of it stays behind, on either side.
        set_socket_linger(&socket, Some(Duration::ZERO))?;
        Ok(Client { socket, address })
    }

    /// What tells the records of this connection from all others.
    #[must_use]
    pub fn identity(&self, client: &Client) -> Connection {
        Connection { server: end(self.server), client: end(client.address), netns: self.netns }
    }

    /// Listens, connects, accepts, lets a byte go each way and closes everything.
    ///
    /// # Errors
    /// When a step is refused or takes too long. Nothing listens afterwards in any case.
    pub fn connect(&self, client: Client) -> io::Result<()> {
        listen(&self.listener, BACKLOG)?;
        let connected = self.meet(client);
        let stopped = shutdown(&self.listener, Shutdown::Read);
        connected?;
        Ok(stopped?)
    }

    fn meet(&self, client: Client) -> io::Result<()> {
        connect(&client.socket, &self.server)?;
        let until = Instant::now() + STEP_LIMIT;
        while Instant::now() < until {
            let (accepted, peer) = acceptfrom_with(&self.listener, SocketFlags::CLOEXEC)?;
            if peer.and_then(v4) == Some(client.address) {
                say(&client.socket, &accepted)?;
                say(&accepted, &client.socket)?;
                drop(client);
                drop(accepted);
                return Ok(());
            }
        }
        Err(io::Error::other("others connect to it"))
    }
}

/// Lets a byte go from one end to the other.
pub(super) fn say(from: &OwnedFd, to: &OwnedFd) -> io::Result<()> {
    let mut heard = [0];
    write(from, b"?")?;
    read(to, &mut heard)?;
    Ok(())
}

/// A socket bound to loopback.
fn bound(port: u16) -> io::Result<(OwnedFd, SocketAddrV4)> {
    let socket = socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    for step in [Timeout::Send, Timeout::Recv] {
        set_socket_timeout(&socket, step, Some(STEP_LIMIT))?;
    }
    bind(&socket, &SocketAddrV4::new(Ipv4Addr::LOCALHOST, port))?;
    let address = v4(getsockname(&socket)?).ok_or(io::ErrorKind::AddrNotAvailable)?;
    Ok((socket, address))
}

fn v4(address: SocketAddrAny) -> Option<SocketAddrV4> {
    SocketAddrV4::try_from(address).ok()
}

const fn end(address: SocketAddrV4) -> End {
    End { ip: IpAddr::V4(*address.ip()), port: address.port() }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn the_port_is_ours_between_the_rounds_and_listens_only_during_one() {
        let loopback = Loopback::reserve(&Roots::default(), &[]).unwrap();
        for _ in 0..3 {
            let client = loopback.client().unwrap();
            let identity = loopback.identity(&client);
            assert_eq!(
                (identity.server.port, identity.client.port),
                (loopback.port(), client.address.port())
            );
            loopback.connect(client).unwrap();
            assert!(TcpStream::connect(loopback.server).is_err(), "nothing listens");
            assert!(TcpListener::bind(loopback.server).is_err(), "nobody else can");
        }
    }

    #[test]
    fn strangers_are_put_aside() {
        let loopback = Loopback::reserve(&Roots::default(), &[]).unwrap();
        listen(&loopback.listener, BACKLOG).unwrap();
        // Fewer than the smallest net.core.somaxconn that kernels come with, 128.
        let _strangers = [(); 100].map(|()| TcpStream::connect(loopback.server).unwrap());
        loopback.connect(loopback.client().unwrap()).unwrap();
    }

    #[test]
    fn watched_ports_are_avoided() {
        let every_port: Vec<u16> = (1..=u16::MAX).collect();
        assert!(Loopback::reserve(&Roots::default(), &every_port).is_err());
    }
}
