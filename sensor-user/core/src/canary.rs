//! Canaries: what the sensor does in order to see itself, and what of it came back.
//!
//! Owns the identity of the acts that the shell announces, and the verdict on each sign that the probes owe for them. A
//! record is a canary's by what only the sensor can have: the socket pair it holds, the process it forked, a token drawn
//! for one exec, a cgroup made by its own process. A record that merely looks alike is an event like any other. Knows
//! nothing of what a missing sign costs; that is [`crate::coverage`].

mod identity;
mod rounds;

use std::sync::Arc;

use sensor_common::counters::{Event, Fate};
use sensor_common::record::{RecordKind, Ring};

use crate::fact::End;
use crate::health::KernelCounters;

pub(crate) use rounds::{Canaries, Standing};

/// What is done, as far as it can fail by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// A listener is opened on loopback, connected to, a byte goes each way, and everything is closed again.
    Connection,
    /// A program is executed that ends at once.
    Process,
    /// A cgroup is made and removed.
    Cgroup,
}

impl Act {
    /// Every act, in the order in which a round does them.
    pub const ALL: [Self; 3] = [Self::Connection, Self::Process, Self::Cgroup];
}

/// Both ends of the connection of one round; the sensor holds both sockets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connection {
    /// The listening end. Its port belongs to the sensor for the whole run.
    pub server: End,
    /// The connecting end.
    pub client: End,
    /// Inode of the network namespace of both.
    pub netns: u32,
}

/// An act that is about to be done, and what tells its records from all others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Canary {
    /// See [`Act::Connection`].
    Connection(Connection),
    /// See [`Act::Process`].
    Process {
        /// Last argument of the program: drawn for this one exec, so that nobody can know it before.
        token: Arc<str>,
    },
    /// See [`Act::Cgroup`].
    Cgroup {
        /// Its own name.
        name: Arc<str>,
    },
}

impl Canary {
    /// What is done.
    #[must_use]
    pub const fn act(&self) -> Act {
        match self {
            Self::Connection(_) => Act::Connection,
            Self::Process { .. } => Act::Process,
            Self::Cgroup { .. } => Act::Cgroup,
        }
    }
}

/// What the shell says of a round of canaries. Said before the act, so that no record can be faster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CanaryNotice {
    /// This is about to be done.
    Begins(Canary),
    /// It could not be done, and why; nothing follows from its records.
    Failed(Act, Arc<str>),
    /// The round is over: what the probes make of it is on the rings, or will be in a moment.
    Ended,
}

/// A record that the probes owe for a canary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sign {
    /// The listener opened.
    ListenerOpened,
    /// It closed.
    ListenerClosed,
    /// The connection was accepted.
    Accept,
    /// Its accepted end closed.
    InboundClose,
    /// The connection was made.
    Connect,
    /// Its connecting end closed.
    OutboundClose,
    /// What the connecting end said was captured.
    Request,
    /// What the accepted end said was captured.
    Answer,
    /// The process was made.
    Fork,
    /// It executed its program.
    Exec,
    /// It ended.
    Exit,
    /// The cgroup was made.
    CgroupMade,
    /// It was removed.
    CgroupRemoved,
}

impl Sign {
    /// Number of signs.
    pub const COUNT: usize = 13;
    /// Every sign, in index order.
    pub const ALL: [Self; Self::COUNT] = [
        Self::ListenerOpened,
        Self::ListenerClosed,
        Self::Accept,
        Self::InboundClose,
        Self::Connect,
        Self::OutboundClose,
        Self::Request,
        Self::Answer,
        Self::Fork,
        Self::Exec,
        Self::Exit,
        Self::CgroupMade,
        Self::CgroupRemoved,
    ];

    /// The act it is a sign of.
    #[must_use]
    pub const fn act(self) -> Act {
        match self {
            Self::ListenerOpened
            | Self::ListenerClosed
            | Self::Accept
            | Self::InboundClose
            | Self::Connect
            | Self::OutboundClose
            | Self::Request
            | Self::Answer => Act::Connection,
            Self::Fork | Self::Exec | Self::Exit => Act::Process,
            Self::CgroupMade | Self::CgroupRemoved => Act::Cgroup,
        }
    }

    /// The program that makes the record.
    #[must_use]
    pub const fn program(self) -> &'static str {
        match self {
            Self::ListenerOpened
            | Self::ListenerClosed
            | Self::Accept
            | Self::InboundClose
            | Self::Connect
            | Self::OutboundClose => "inet_sock_set_state",
            Self::Request => "packets_in",
            Self::Answer => "packets_out",
            Self::Fork => "sched_process_fork",
            Self::Exec => "sched_process_exec",
            Self::Exit => "sched_process_exit",
            Self::CgroupMade => "cgroup_mkdir",
            Self::CgroupRemoved => "cgroup_rmdir",
        }
    }

    const fn kind(self) -> RecordKind {
        match self {
            Self::ListenerOpened => RecordKind::ListenerOpened,
            Self::ListenerClosed => RecordKind::ListenerClosed,
            Self::Accept => RecordKind::Accept,
            Self::InboundClose | Self::OutboundClose => RecordKind::Close,
            Self::Connect => RecordKind::Connect,
            Self::Request | Self::Answer => RecordKind::Payload,
            Self::Fork => RecordKind::Fork,
            Self::Exec => RecordKind::Exec,
            Self::Exit => RecordKind::Exit,
            Self::CgroupMade => RecordKind::CgroupMkdir,
            Self::CgroupRemoved => RecordKind::CgroupRmdir,
        }
    }

    /// Connections that the probes could not enter in their table because it was full, where the record depends on that.
    const fn untracked(self, counters: &KernelCounters) -> u64 {
        match self {
            Self::InboundClose | Self::Connect | Self::OutboundClose => {
                counters.events[Event::UntrackedConnection as usize]
            }
            _ => 0,
        }
    }

    /// Records of this kind that did not come through although they were made.
    fn dropped(self, counters: &KernelCounters) -> u64 {
        let of_ring = |ring: Ring| counters.records[ring as usize][self.kind() as usize];
        let dropped =
            |fates: [u64; Fate::COUNT]| fates[Fate::Lost as usize] + fates[Fate::Suppressed as usize];
        Ring::ALL.into_iter().map(|ring| dropped(of_ring(ring))).sum()
    }
}
