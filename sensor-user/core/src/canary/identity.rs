//! Which records are a canary's.

use std::sync::Arc;

use sensor_common::record::ConnectStage;

use super::{Canary, Connection, Sign};
use crate::event::{CgroupEvent, CloseEvent, ConnectEvent, Ends, Event, ExecEvent};
use crate::fact::Direction;
use crate::ids::{CgroupKey, ProcessKey};

/// What the present canaries have that nobody else can.
#[derive(Debug, Default)]
pub(crate) struct Identity {
    /// The sensor's own process as the kernel names it, learned from its own socket or exec.
    own: Option<ProcessKey>,
    connection: Option<Connection>,
    /// Taken by the first exec that bears it.
    token: Option<Arc<str>>,
    child: Option<ProcessKey>,
    cgroup_name: Option<Arc<str>>,
    cgroup: Option<CgroupKey>,
}

impl Identity {
    /// Takes what is about to be done.
    pub(super) fn announce(&mut self, canary: Canary) {
        match canary {
            Canary::Connection(connection) => self.connection = Some(connection),
            Canary::Process { token } => {
                self.token = Some(token);
                self.child = None;
            }
            Canary::Cgroup { name } => {
                self.cgroup_name = Some(name);
                self.cgroup = None;
            }
        }
    }

    /// Whether the sensor's own process is known, by which its forks and cgroups are told from those of others.
    pub(super) const fn knows_itself(&self) -> bool {
        self.own.is_some()
    }

    /// The sign that a record is; `Some(None)` for one that is a canary's and no sign.
    pub(super) fn sign_of(&mut self, event: &Event) -> Option<Option<Sign>> {
        match event {
            Event::Listener(event) if self.is_own_listener(&event.ends) => {
                if event.opened {
                    self.own = Some(event.task.key);
                }
                Some(Some(if event.opened { Sign::ListenerOpened } else { Sign::ListenerClosed }))
            }
            // A late one is the packet hook's, and proves nothing of the one that should have told it.
            Event::Accept(event) => {
                self.is_inbound(&event.ends).then_some((!event.late).then_some(Sign::Accept))
            }
            Event::Payload(event) if self.is_inbound(&event.ends) => {
                Some(Some(if event.to_peer { Sign::Answer } else { Sign::Request }))
            }
            Event::Connect(event) => self.sign_of_connect(event),
            Event::Close(event) => self.sign_of_close(event).map(Some),
            Event::Fork(event) if self.token.is_some() && self.own == Some(event.parent) => {
                self.child = Some(event.child.key);
                Some(Some(Sign::Fork))
            }
            Event::Exec(event) => self.is_own_exec(event).then_some(Some(Sign::Exec)),
            Event::Exit(event) if self.child == Some(event.task.key) => {
                self.child = None;
                Some(Some(Sign::Exit))
            }
            Event::Cgroup(event) => self.sign_of_cgroup(event).map(Some),
            _ => None,
        }
    }

    /// Whether these are the ends of the canary's listener.
    pub(crate) fn is_own_listener(&self, ends: &Ends) -> bool {
        self.connection.is_some_and(|own| (ends.local, ends.netns) == (own.server, own.netns))
    }

    /// The port of the canary's listener.
    pub(crate) fn port(&self) -> Option<u16> {
        self.connection.map(|connection| connection.server.port)
    }

    fn is_inbound(&self, ends: &Ends) -> bool {
        self.is_own_listener(ends) && self.connection.is_some_and(|own| ends.peer == own.client)
    }

    fn is_outbound(&self, ends: &Ends) -> bool {
        self.connection
            .is_some_and(|own| (ends.local, ends.peer, ends.netns) == (own.client, own.server, own.netns))
    }

    fn sign_of_connect(&self, event: &ConnectEvent) -> Option<Option<Sign>> {
        let established = event.stage == ConnectStage::Established;
        self.is_outbound(&event.ends).then_some(established.then_some(Sign::Connect))
    }

    fn sign_of_close(&self, event: &CloseEvent) -> Option<Sign> {
        match event.direction {
            Direction::Inbound => self.is_inbound(&event.ends).then_some(Sign::InboundClose),
            Direction::Outbound => self.is_outbound(&event.ends).then_some(Sign::OutboundClose),
        }
    }

    /// By its fork, which only the sensor can have called; where that record was lost, by its token, which nobody can
    /// have known before the first exec with it.
    fn is_own_exec(&mut self, event: &ExecEvent) -> bool {
        let Some(token) = &self.token else { return false };
        if self.child != Some(event.task.key) {
            let parent = event.ancestors().first().map(|parent| parent.key);
            let last =
                event.args().and_then(|args| args.strip_suffix(b"\0")?.rsplit(|byte| *byte == 0).next());
            if last != Some(token.as_bytes()) || (self.own.is_some() && parent != self.own) {
                return false;
            }
            self.child = Some(event.task.key);
            self.own = parent;
        }
        self.token = None;
        true
    }

    /// Only the sensor's own process counts as the maker: a name can be seen and given once more by anybody.
    fn sign_of_cgroup(&mut self, event: &CgroupEvent) -> Option<Sign> {
        if !event.made {
            let own = self.cgroup.take_if(|own| *own == event.cgroup);
            return own.map(|_| Sign::CgroupRemoved);
        }
        let name = self.cgroup_name.as_deref()?;
        let last = event.path.rsplit(|byte| *byte == b'/').next();
        if last != Some(name.as_bytes()) || self.own != Some(event.task.key) {
            return None;
        }
        self.cgroup_name = None;
        self.cgroup = Some(event.cgroup);
        Some(Sign::CgroupMade)
    }
}
