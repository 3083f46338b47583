//! What the probes owe for a canary, records all but one, and which programs can make each.

use sensor_common::counters::{Event, Fate};
use sensor_common::record::{RecordKind, Ring};

use super::Act;
use crate::coverage::FANOTIFY;
use crate::health::KernelCounters;

/// Something that the probes owe for a canary.
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
    /// The attempt to connect was counted. The only one that is no record: of attempts none is made.
    Attempt,
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
    /// The task was told that took the connection.
    AcceptTask,
    /// The unix socket was connected to.
    SocketConnect,
    /// What was said to it was captured.
    SocketRequest,
    /// What was answered was captured.
    SocketAnswer,
    /// The file was opened.
    FileOpen,
}

impl Sign {
    /// Number of signs.
    pub const COUNT: usize = 19;
    /// Every sign, in index order.
    pub const ALL: [Self; Self::COUNT] = [
        Self::ListenerOpened,
        Self::ListenerClosed,
        Self::Accept,
        Self::InboundClose,
        Self::Connect,
        Self::OutboundClose,
        Self::Attempt,
        Self::Request,
        Self::Answer,
        Self::Fork,
        Self::Exec,
        Self::Exit,
        Self::CgroupMade,
        Self::CgroupRemoved,
        Self::AcceptTask,
        Self::SocketConnect,
        Self::SocketRequest,
        Self::SocketAnswer,
        Self::FileOpen,
    ];

    /// The act it is a sign of.
    #[must_use]
    pub const fn act(self) -> Act {
        self.origin().0
    }

    /// The programs that can make the record. Of several, no more than one is in place at a time: which one depends on what
    /// the kernel takes.
    #[must_use]
    pub const fn programs(self) -> &'static [&'static str] {
        self.origin().1
    }

    /// The act, and the programs that see it.
    const fn origin(self) -> (Act, &'static [&'static str]) {
        match self {
            Self::ListenerOpened
            | Self::ListenerClosed
            | Self::Accept
            | Self::InboundClose
            | Self::Connect
            | Self::OutboundClose => (Act::Connection, &["inet_sock_set_state"]),
            Self::Attempt | Self::Request => (Act::Connection, &["packets_in"]),
            Self::Answer => (Act::Connection, &["packets_out"]),
            Self::AcceptTask => (Act::Connection, &["accept_task", "accept_task_of_four"]),
            Self::Fork => (Act::Process, &["sched_process_fork"]),
            Self::Exec => (Act::Process, &["sched_process_exec"]),
            Self::Exit => (Act::Process, &["sched_process_exit"]),
            Self::CgroupMade => (Act::Cgroup, &["cgroup_mkdir"]),
            Self::CgroupRemoved => (Act::Cgroup, &["cgroup_rmdir"]),
            Self::SocketConnect => {
                (Act::Socket, &["lsm_unix_connect", "fentry_unix_connect", "unix_data_ready"])
            }
            Self::SocketRequest | Self::SocketAnswer => {
                (Act::Socket, &["unix_data_ready", "unix_requests", "fentry_unix_requests"])
            }
            Self::FileOpen => (Act::File, &["lsm_file_open", "fentry_file_open", FANOTIFY]),
        }
    }

    /// Whether a program can make the record.
    pub(super) fn is_made_by(self, program: &str) -> bool {
        self.programs().contains(&program)
    }

    const fn kind(self) -> Option<RecordKind> {
        Some(match self {
            Self::Attempt => return None,
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
            Self::AcceptTask => RecordKind::AcceptTask,
            Self::SocketConnect => RecordKind::SocketConnect,
            Self::SocketRequest | Self::SocketAnswer => RecordKind::SocketPayload,
            Self::FileOpen => RecordKind::FileOpen,
        })
    }

    /// Connections that the probes could not enter in their table because it was full, where the record depends on that.
    pub(super) const fn untracked(self, tallies: &Tallies<'_>) -> u64 {
        match self {
            Self::InboundClose | Self::Connect | Self::OutboundClose | Self::AcceptTask => {
                tallies.counters.events[Event::UntrackedConnection as usize]
            }
            _ => 0,
        }
    }

    /// Records of this kind that did not come through although they were made.
    pub(super) fn dropped(self, tallies: &Tallies<'_>) -> u64 {
        let Some(kind) = self.kind() else { return 0 };
        let of_ring = |ring: Ring| tallies.counters.records[ring as usize][kind as usize];
        let dropped =
            |fates: [u64; Fate::COUNT]| fates[Fate::Lost as usize] + fates[Fate::Suppressed as usize];
        let of_probes: u64 = Ring::ALL.into_iter().map(|ring| dropped(of_ring(ring))).sum();
        of_probes + if self == Self::FileOpen { tallies.file_opens } else { 0 }
    }
}

/// What was lost so far, as far as it can be a canary's.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tallies<'a> {
    /// By the probes.
    pub(crate) counters: &'a KernelCounters,
    /// Opens of files on their way from fanotify.
    pub(crate) file_opens: u64,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::coverage::programs_of;
    use crate::health::Capability;

    #[test]
    fn whatever_program_serves_an_optional_capability_owes_a_sign_of_it() {
        for (capability, sign) in [
            (Capability::AcceptTasks, Sign::AcceptTask),
            (Capability::RuntimeSockets, Sign::SocketConnect),
            (Capability::SocketRequests, Sign::SocketRequest),
            (Capability::SocketRequests, Sign::SocketAnswer),
            (Capability::CredentialFiles, Sign::FileOpen),
        ] {
            assert_eq!(programs_of(capability), sign.programs(), "{capability:?}");
        }
    }

    #[test]
    fn an_open_that_fanotify_lost_is_dropped_and_no_other_record_is() {
        let counters = KernelCounters::default();
        let tallies = Tallies { counters: &counters, file_opens: 2 };
        let dropped: u64 = Sign::ALL.iter().map(|sign| sign.dropped(&tallies)).sum();
        assert_eq!((Sign::FileOpen.dropped(&tallies), dropped), (2, 2));
    }
}
