//! Which records are a canary's.

use std::sync::Arc;

use sensor_common::flood::PortKey;
use sensor_common::record::ConnectStage;

use super::{Canary, Connection, Sign};
use crate::credentials::PlaceKind;
use crate::event::{
    Actor, CgroupEvent, CloseEvent, ConnectEvent, Ends, Event, ExecEvent, FileOpenEvent, FilePlace,
};
use crate::fact::Direction;
use crate::ids::{CgroupKey, FileKey, ProcessKey};

/// What the present canaries have that nobody else can.
#[derive(Debug, Default)]
pub(crate) struct Identity {
    /// The sensor's own process as the kernel names it, learned from its own socket or exec.
    own: Option<ProcessKey>,
    connection: Option<Connection>,
    /// Number of that connection, once it was accepted.
    accepted: Option<u64>,
    /// Taken by the first exec that bears it.
    token: Option<Arc<str>>,
    child: Option<ProcessKey>,
    cgroup_name: Option<Arc<str>>,
    cgroup: Option<CgroupKey>,
    /// The file that the sensor's unix socket is bound to.
    socket: Option<FileKey>,
    /// The directory of its file.
    place: Option<FileKey>,
    /// The kinds of places as which fanotify has told of the file; it has a queue for each.
    told_as: Vec<PlaceKind>,
}

impl Identity {
    /// Takes what is about to be done.
    pub(super) fn announce(&mut self, canary: Canary) {
        match canary {
            Canary::Connection(connection) => {
                self.connection = Some(connection);
                self.accepted = None;
            }
            Canary::Process { token } => {
                self.token = Some(token);
                self.child = None;
            }
            Canary::Cgroup { name } => {
                self.cgroup_name = Some(name);
                self.cgroup = None;
            }
            Canary::Socket { key } => self.socket = Some(key),
            Canary::File { place } => {
                self.place = Some(place);
                self.told_as.clear();
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
            Event::Accept(event) if self.is_inbound(&event.ends) => {
                self.accepted = Some(event.conn);
                Some((!event.late).then_some(Sign::Accept))
            }
            // The accept may be on its way still. Whom else the sensor accepts came to the port of the canaries.
            Event::AcceptTask(event) => {
                let is_ours =
                    self.is_own(event.task.key) && self.accepted.is_none_or(|own| own == event.conn);
                is_ours.then_some(Some(Sign::AcceptTask))
            }
            Event::SocketConnect(event) if self.socket == Some(event.socket) => {
                self.is_own(event.task.key).then_some(Some(Sign::SocketConnect))
            }
            Event::SocketPayload(event) if self.socket == Some(event.socket) => {
                let sign = if event.to_peer { Sign::SocketAnswer } else { Sign::SocketRequest };
                self.is_own(event.task.key).then_some(Some(sign))
            }
            Event::FileOpen(event) => self.sign_of_open(event),
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

    fn is_own(&self, process: ProcessKey) -> bool {
        self.own == Some(process)
    }

    /// Whether this is the file that the sensor's unix socket is bound to.
    pub(crate) fn is_own_socket(&self, socket: FileKey) -> bool {
        self.socket == Some(socket)
    }

    /// Whether these are the ends of the canary's listener.
    pub(crate) fn is_own_listener(&self, ends: &Ends) -> bool {
        self.connection.is_some_and(|own| (ends.local, ends.netns) == (own.server, own.netns))
    }

    /// The port of the canary's listener.
    pub(crate) fn port(&self) -> Option<u16> {
        self.connection.map(|connection| connection.server.port)
    }

    /// Where the probes may count attempts at the canary's port: at its own place, or at the one of all that have found none.
    pub(super) fn places(&self) -> Option<[PortKey; 2]> {
        let Connection { server, netns, .. } = self.connection?;
        Some([netns, 0].map(|netns| PortKey { netns, port: u32::from(server.port) }))
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

    /// From fanotify it is a sign when all its queues have told of it: each serves places of one kind.
    fn sign_of_open(&mut self, event: &FileOpenEvent) -> Option<Option<Sign>> {
        match (event.place, event.actor) {
            (FilePlace::Own(kind), _) => {
                if !self.told_as.contains(&kind) {
                    self.told_as.push(kind);
                }
                Some((self.told_as.len() == PlaceKind::ALL.len()).then_some(Sign::FileOpen))
            }
            (FilePlace::Key(place), Actor::Task(task, _)) if self.place == Some(place) => {
                self.is_own(task.key).then_some(Some(Sign::FileOpen))
            }
            _ => None,
        }
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
