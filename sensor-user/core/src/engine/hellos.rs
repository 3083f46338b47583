//! TLS clients: what each says first becomes a record, and what an address is known to use is remembered.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::Arc;

use crate::allow_list::Shown;
use crate::engine::Engine;
use crate::event::Ends;
use crate::fact::{FactKind, Stack, TlsHello};
use crate::ids::CgroupKey;
use crate::state::kept::{Keep, Kept};
use crate::state::{STATE_BYTES, Table, Unreadable};
use crate::text::shared;
use crate::time::Timestamp;
use crate::tls::hello::ClientHello;
use crate::tls::ja4::{SOFTWARE, ja4};

/// Most addresses whose software is known; the one that was seen longest ago goes first.
const ADDRESSES_MAX: usize = 16_384;
/// Most kinds of software known of one address; many are behind one that translates.
const STACKS_MAX: usize = 8;
/// Most bytes of a host name, as DNS has it.
const SNI_MAX: usize = 255;
/// Most bytes of the name of a protocol; it may be 255.
const PROTOCOL_MAX: usize = 64;
/// Most protocols, and most versions, that are told.
const LIST_MAX: usize = 16;

/// The software that addresses use: of a fingerprint the part that does not change with the name that is asked for.
#[derive(Debug)]
pub(super) struct Stacks {
    known: Kept<IpAddr, VecDeque<Box<str>>>,
    /// Kinds of software that gave way to newer ones of the same address.
    forgotten: u64,
}

impl Default for Stacks {
    fn default() -> Self {
        Self { known: Kept::new(Table::Stacks, ADDRESSES_MAX, STATE_BYTES), forgotten: 0 }
    }
}

impl Stacks {
    /// What is no longer known.
    pub(super) fn evicted(&self) -> u64 {
        self.known.evicted() + self.forgotten
    }

    /// All of it is kept.
    pub(super) fn table(&mut self) -> &mut dyn Keep {
        &mut self.known
    }

    /// Takes what an earlier run has left. Returns how much of it could not be read.
    pub(super) fn restore(&mut self, known: &[&[u8]]) -> u64 {
        self.known
            .restore(known, |_, stacks| if stacks.len() <= STACKS_MAX { Ok(()) } else { Err(Unreadable) })
    }

    fn note(&mut self, peer: IpAddr, fingerprint: &str) -> Stack {
        let software = &fingerprint[SOFTWARE];
        let Some(known) = self.known.get_mut(&peer) else {
            self.known.insert(peer, VecDeque::from([software.into()]));
            self.known.shrink();
            return Stack::First;
        };
        let place = known.iter().position(|known| **known == *software);
        let stack = if place.is_some() { Stack::Known } else { Stack::New };
        let newest = place.and_then(|place| known.remove(place)).unwrap_or_else(|| software.into());
        known.push_back(newest);
        if known.len() > STACKS_MAX {
            known.pop_front();
            self.forgotten += 1;
        }
        stack
    }
}

impl Engine {
    /// Tells what a client said first.
    pub(super) fn tell_hello(
        &mut self,
        at: Timestamp,
        conn: u64,
        cgroup: CgroupKey,
        ends: &Ends,
        hello: &ClientHello,
    ) {
        let (mut server, net) = self.served(at, conn, cgroup, ends);
        let ja4 = ja4(hello);
        let stack = ja4.as_deref().map(|fingerprint| self.stacks.note(ends.peer.ip, fingerprint));
        let is_longer = |name: &Vec<u8>, most| name.len() > most;
        server.truncated |= hello.server_name.as_ref().is_some_and(|name| is_longer(name, SNI_MAX))
            || hello.alpn.iter().any(|name| is_longer(name, PROTOCOL_MAX))
            || hello.alpn.len().max(hello.versions.len()) > LIST_MAX;
        let text = |bytes: &[u8], most| shared(&bytes[..bytes.len().min(most)]);
        let told = TlsHello {
            sni: hello.server_name.as_deref().map(|name| text(name, SNI_MAX)),
            alpn: hello.alpn.iter().take(LIST_MAX).map(|name| text(name, PROTOCOL_MAX)).collect(),
            versions: hello.versions.iter().take(LIST_MAX).map(|version| version_name(*version)).collect(),
            ja4: ja4.map(Arc::from),
            flaw: hello.flaw,
            stack,
        };
        let kind = FactKind::TlsHello(Arc::new(told));
        // Whom the connection is passed on for, its accept says.
        let verdict = self.verdict_on(at, Some(&net), None, Shown::by(&kind));
        self.send(at, server, Some(net), kind, verdict);
    }
}

/// The name of a version, or its number.
fn version_name(version: u16) -> Arc<str> {
    match version {
        0x0304 => "1.3".into(),
        0x0303 => "1.2".into(),
        0x0302 => "1.1".into(),
        0x0301 => "1.0".into(),
        0x0300 => "ssl3".into(),
        other => format!("0x{other:04x}").into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CURL: &str = "t13d3112h2_e8f1e7e78f70_b26ce05bbdd6";
    const CURL_NO_NAME: &str = "t13i3111h1_e8f1e7e78f70_b26ce05bbdd6";
    const PEER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(198, 18, 0, 9));

    fn other(number: usize) -> String {
        format!("t13d190900_{number:012x}_97f8aa674fd9")
    }

    #[test]
    fn software_is_new_when_its_address_is_known_to_use_another() {
        let mut stacks = Stacks::default();
        assert_eq!(stacks.note(PEER, CURL), Stack::First);
        assert_eq!(stacks.note(PEER, CURL_NO_NAME), Stack::Known, "the name asked for does not matter");
        assert_eq!(stacks.note(PEER, &other(0)), Stack::New);
        assert_eq!(stacks.note(PEER, &other(0)), Stack::Known);
        assert_eq!(stacks.note([198, 18, 0, 10].into(), &other(0)), Stack::First);
    }

    #[test]
    fn tables_are_bounded_and_count_what_they_forget() {
        let mut stacks = Stacks::default();
        stacks.note(PEER, CURL);
        for number in 0..STACKS_MAX {
            assert_eq!(stacks.note(PEER, &other(number)), Stack::New);
        }
        assert_eq!(stacks.evicted(), 1);
        assert_eq!(stacks.note(PEER, CURL), Stack::New, "it was used longest ago");
        for number in 0..u32::try_from(ADDRESSES_MAX).unwrap() {
            stacks.note(std::net::Ipv4Addr::from(0x0a00_0000 + number).into(), CURL);
        }
        assert_eq!((stacks.evicted(), stacks.known.len()), (3, ADDRESSES_MAX));
    }
}
