//! AN1007: an exposed container service is used, an abnormal container comes of it, and that reaches for other nodes.

use std::borrow::Cow;
use std::sync::Arc;

use super::{Sender, Signal, SignalKey};
use crate::fact::{Direction, Fact, FactKind, Net, Verdict};

const ID: &str = "AN1007";
const ACCESS: &str = "exposed-service-access";

/// The analytic.
#[derive(Debug, Default)]
pub(super) struct An1007 {}

impl An1007 {
    pub(super) fn handle(&mut self, fact: &Fact, verdict: Option<&Verdict>, sender: &mut Sender) {
        if let (FactKind::Accept { .. }, Some(Verdict::Unlisted), Some(net)) =
            (&fact.kind, verdict, &fact.net)
        {
            self.on_access(fact, net, sender);
        }
    }

    /// Somebody whom no entry of the allow-list expects has connected to a management service.
    fn on_access(&self, fact: &Fact, net: &Net, sender: &mut Sender) {
        let (Some(Direction::Inbound), Some(peer)) = (net.direction, net.peer) else { return };
        let mut keys = Vec::with_capacity(4);
        keys.extend(net.conn.as_ref().map(|conn| (SignalKey::Conn, conn.0.clone())));
        keys.push((SignalKey::Event, fact.id.0.clone()));
        keys.push((SignalKey::Peer, Arc::from(peer.ip.to_canonical().to_string())));
        keys.push((SignalKey::Service, Arc::from(net.service.name())));
        let name = Cow::Borrowed("unlisted-accept");
        sender.signal(fact, Signal { name, analytic: ID.into(), stage: ACCESS.into(), keys });
    }
}
