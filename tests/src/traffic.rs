//! Traffic as an attacker makes it: connections and packets from addresses of his choice.

use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::net::{
    AddressFamily, Protocol, SendFlags, SocketFlags, SocketType, bind, connect, ipproto, sendto, socket_with,
    sockopt,
};

/// Opens a TCP connection from this address; port 0 lets the kernel choose one. When the result is dropped the connection
/// is reset, so that nothing of it stays behind on either side.
///
/// # Errors
/// When the kernel refuses, or the server.
pub fn connect_from(source: SocketAddrV4, server: SocketAddrV4) -> io::Result<OwnedFd> {
    let socket = socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    sockopt::set_socket_linger(&socket, Some(Duration::ZERO))?;
    sockopt::set_socket_reuseaddr(&socket, true)?;
    bind(&socket, &source)?;
    connect(&socket, &server)?;
    Ok(socket)
}

/// Sends the first packets of connections, and nothing else.
pub struct SynSender {
    socket: OwnedFd,
    server: SocketAddrV4,
}

impl SynSender {
    /// Opens a raw socket in the network namespace of this thread.
    ///
    /// # Errors
    /// Without the right to.
    pub fn new(server: SocketAddrV4) -> io::Result<Self> {
        let raw: Option<Protocol> = Some(ipproto::RAW);
        let socket = socket_with(AddressFamily::INET, SocketType::RAW, SocketFlags::CLOEXEC, raw)?;
        Ok(Self { socket, server })
    }

    /// Sends one from this address; the same source and sequence number again make a repetition.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn send(&self, source: SocketAddrV4, sequence: u32) -> io::Result<()> {
        let packet = syn(source, self.server, sequence);
        let to = SocketAddrV4::new(*self.server.ip(), 0);
        sendto(&self.socket, &packet, SendFlags::empty(), &to)?;
        Ok(())
    }
}

const TCP: u8 = 6;

/// An IPv4 packet with a TCP SYN. The kernel fills in identification, length and checksum of the IPv4 header.
fn syn(source: SocketAddrV4, server: SocketAddrV4, sequence: u32) -> Vec<u8> {
    const SYN: u8 = 2;
    /// Words of the header, in the upper half.
    const OFFSET: u8 = 5 << 4;
    let mut segment = Vec::with_capacity(20);
    segment.extend(source.port().to_be_bytes());
    segment.extend(server.port().to_be_bytes());
    segment.extend(sequence.to_be_bytes());
    segment.extend([0, 0, 0, 0, OFFSET, SYN, 0xff, 0xff, 0, 0, 0, 0]);
    let checksum = checksum(*source.ip(), *server.ip(), &segment);
    segment[16..18].copy_from_slice(&checksum.to_be_bytes());

    let mut packet = vec![0x45, 0, 0, 40, 0, 0, 0, 0, 64, TCP, 0, 0];
    packet.extend(source.ip().octets());
    packet.extend(server.ip().octets());
    packet.extend(segment);
    packet
}

/// The checksum of a TCP segment of even length whose checksum field is 0.
fn checksum(source: Ipv4Addr, destination: Ipv4Addr, segment: &[u8]) -> u16 {
    let len = (segment.len() as u16).to_be_bytes();
    let pseudo = [&source.octets()[..], &destination.octets(), &[0, TCP], &len, segment].concat();
    let words = pseudo.chunks_exact(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])));
    let sum: u32 = words.sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    !(((folded & 0xffff) + (folded >> 16)) as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_syn_adds_up_to_all_ones_with_its_checksum() {
        let end = |last, port| SocketAddrV4::new(Ipv4Addr::new(198, 18, 0, last), port);
        let packet = syn(end(2, 40_000), end(1, 2375), 0xfedc_ba98);
        assert_eq!((packet.len(), packet[20 + 13]), (40, 2));
        assert_eq!(checksum(*end(2, 0).ip(), *end(1, 0).ip(), &packet[20..]), 0);
    }
}
