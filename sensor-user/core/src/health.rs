//! What the sensor says of itself: coverage, loss, start and stop.

use std::net::IpAddr;
use std::sync::Arc;

use sensor_common::counters::{Event, Fate};
use sensor_common::record::{RecordKind, Ring};

use crate::state::Resumed;
use crate::time::Timestamp;

/// Where the sensor is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HealthState {
    /// Hooks are attached and tables seeded: from here on no event can be missed silently.
    Ready,
    /// Something changed that is no loss of coverage.
    Running,
    /// Records were lost, a core capability is not live, or another one is worse than it was on this host.
    Degraded,
    /// The configuration was replaced.
    Reloaded,
    /// The last record of a run, with its totals.
    Stopping,
}

/// How well a capability is covered, from best to worst.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum CoverageState {
    /// Everything is seen.
    Live,
    /// Something is missing; the reason says what.
    Degraded,
    /// Nothing is seen; the reason says why.
    Blind,
}

/// Names of what is lost of audit logs: lines that are no events, lines that are too long, and parts of unknown length.
pub const AUDIT_LOSSES: [&str; 3] = ["audit-invalid", "audit-oversize", "audit-gaps"];

/// Whether loss of this kind is of audit logs.
#[must_use]
pub fn is_audit_loss(kind: &str) -> bool {
    AUDIT_LOSSES.contains(&kind)
}

/// What can be covered or blind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Capability {
    /// Management listeners.
    Listeners,
    /// Accepts on watched ports and their ends.
    Accepts,
    /// Outbound connects of containers and runtime processes.
    Connects,
    /// Execs and exits.
    Execs,
    /// Container identity and life cycle.
    Containers,
    /// Floods, and attempts to connect that come to nothing.
    Scans,
    /// Connects to the unix sockets of runtimes.
    RuntimeSockets,
    /// Opens of credential files.
    CredentialFiles,
    /// Who takes an accepted connection.
    AcceptTasks,
    /// Requests on plaintext ports.
    Requests,
    /// `api_request` of what is asked on the unix sockets of runtimes.
    SocketRequests,
    /// What is known of open chains outlives a restart.
    ChainState,
    /// Requests to the Kubernetes API server, out of its audit log. Owed by whoever is told to read one.
    Audit,
}

impl Capability {
    /// Every capability that hooks serve, which an audit log is not.
    pub const ALL: [Self; 12] = [
        Self::Listeners,
        Self::Accepts,
        Self::Connects,
        Self::Execs,
        Self::Containers,
        Self::Scans,
        Self::RuntimeSockets,
        Self::CredentialFiles,
        Self::AcceptTasks,
        Self::Requests,
        Self::SocketRequests,
        Self::ChainState,
    ];

    /// Whether the sensor owes it to every host. The others depend on what the kernel of a host has.
    #[must_use]
    pub const fn is_core(self) -> bool {
        match self {
            Self::Listeners | Self::Accepts | Self::Connects | Self::Execs | Self::Containers => true,
            Self::Scans
            | Self::RuntimeSockets
            | Self::CredentialFiles
            | Self::AcceptTasks
            | Self::Requests
            | Self::SocketRequests
            | Self::ChainState
            | Self::Audit => false,
        }
    }

    /// The key in the output.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Listeners => "listeners",
            Self::Accepts => "accepts",
            Self::Connects => "connects",
            Self::Execs => "execs",
            Self::Containers => "containers",
            Self::Scans => "scans",
            Self::RuntimeSockets => "runtime-sockets",
            Self::CredentialFiles => "credential-files",
            Self::AcceptTasks => "accept-tasks",
            Self::Requests => "requests",
            Self::SocketRequests => "socket-requests",
            Self::ChainState => "chain-state",
            Self::Audit => "audit",
        }
    }
}

/// Coverage of one capability.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Coverage {
    /// Which.
    pub capability: Capability,
    /// How well.
    pub state: CoverageState,
    /// Why it is not live, or which part of it no canary has tested.
    pub reason: Option<Arc<str>>,
    /// Since when it is in this state. Where a canary told: the last moment at which its sign was seen.
    pub since: Timestamp,
}

/// A time in which nothing was seen of a capability.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Blind {
    /// Which.
    pub capability: Capability,
    /// Its beginning, or the last moment at which it is proved to have been seen.
    pub from: Timestamp,
    /// Its end.
    pub to: Timestamp,
}

/// Whether a hook is in place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HookState {
    /// Attached.
    Attached,
    /// Loaded, and not attached: a better hook is, or there is nothing to see, which the reason says then.
    Standby,
    /// The kernel lacks it or refused it.
    Unavailable,
}

/// One hook.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hook {
    /// Kernel hook, for example `tp_btf/sched_process_exec`.
    pub name: Arc<str>,
    /// Our program on it.
    pub program: Arc<str>,
    /// Whether it is in place.
    pub state: HookState,
    /// Why it is not.
    pub reason: Option<Arc<str>>,
}

/// The kernel's counters, summed over CPUs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KernelCounters {
    /// Records by `[ring][kind][fate]`.
    pub records: [[[u64; Fate::COUNT]; RecordKind::COUNT]; Ring::COUNT],
    /// Other events.
    pub events: [u64; Event::COUNT],
    /// Runs of our programs that the kernel skipped because one was already running on that CPU.
    pub recursion_misses: u64,
}

impl Default for KernelCounters {
    fn default() -> Self {
        Self {
            records: [[[0; Fate::COUNT]; RecordKind::COUNT]; Ring::COUNT],
            events: [0; Event::COUNT],
            recursion_misses: 0,
        }
    }
}

/// The name of a record kind in loss and balance entries.
#[must_use]
pub const fn record_kind_name(kind: RecordKind) -> &'static str {
    match kind {
        RecordKind::ListenerOpened => "listener-opened",
        RecordKind::ListenerClosed => "listener-closed",
        RecordKind::Accept => "accept",
        RecordKind::Close => "close",
        RecordKind::Connect => "connect",
        RecordKind::Exec => "exec",
        RecordKind::Exit => "exit",
        RecordKind::Fork => "fork",
        RecordKind::CgroupMkdir => "cgroup-mkdir",
        RecordKind::CgroupRmdir => "cgroup-rmdir",
        RecordKind::SocketConnect => "socket-connect",
        RecordKind::FileOpen => "file-open",
        RecordKind::AcceptTask => "accept-task",
        RecordKind::Payload => "payload",
        RecordKind::LateAccept => "late-accept",
        RecordKind::SocketPayload => "socket-payload",
        RecordKind::Hop => "hop",
    }
}

/// What the shell around the core could not do, counted since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ShellLosses {
    /// Lines that found no room in the queue of an output.
    pub output_lines: u64,
    /// Questions about containers that found no room, so that their metadata stays unknown.
    pub container_questions: u64,
    /// Containers whose spec is there and cannot be used, so that their risks stay unknown.
    pub container_specs: u64,
    /// Opens of credential files that fanotify told of and that found no room.
    pub file_opens: u64,
    /// Attempts to write what is known of open chains that have failed.
    pub state_writes: u64,
}

/// Where audit events come from, how well, and what became of them since the start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AuditInput {
    /// Path of the file, or `<stdin>`.
    pub name: Arc<str>,
    /// What keeps its events from being seen, or some of them; `None`: nothing.
    pub lack: Option<AuditLack>,
    /// Lines that were events.
    pub events: u64,
    /// Bytes of lines that were handed on.
    pub bytes: u64,
    /// Lines that were no events.
    pub invalid: u64,
    /// Lines that were too long to be read.
    pub oversize: u64,
    /// Times that some of the input could not be read any more, nobody knows how much.
    pub gaps: u64,
    /// Bytes that are there and not handed on yet, where that is known.
    pub behind_bytes: Option<u64>,
    /// When the latest request was made that it told of, nanoseconds since 1970.
    pub latest_unix_ns: Option<u64>,
}

impl AuditInput {
    /// Lines, and times that nobody knows how many, of which nothing is known.
    #[must_use]
    pub const fn lost(&self) -> u64 {
        self.invalid + self.oversize + self.gaps
    }
}

/// What an input of audit events lacks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditLack {
    /// Nothing is read, else not everything or not in time.
    pub is_blind: bool,
    /// Why.
    pub reason: Arc<str>,
}

/// Records of one ring and kind that did not reach the output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Loss {
    /// Ring; `None` for tables of the agent.
    pub ring: Option<Ring>,
    /// Kind of record, as a name of the closed list in docs/output.md.
    pub kind: &'static str,
    /// No room in the ring.
    pub lost: u64,
    /// Withheld by flood control.
    pub suppressed: u64,
    /// Dropped from a bounded table.
    pub evicted: u64,
}

/// Produced = received + lost + suppressed, per ring and kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Balance {
    /// Ring.
    pub ring: Ring,
    /// Kind.
    pub kind: RecordKind,
    /// What the probes made.
    pub produced: u64,
    /// What the agent took from the ring.
    pub received: u64,
    /// Of these, what the sensor made itself to see whether it sees; not shown.
    pub canaries: u64,
    /// What found no room.
    pub lost: u64,
    /// What flood control withheld.
    pub suppressed: u64,
}

/// What came of a configuration that was to replace the one in effect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reload {
    /// It has; else the one before stays as it is.
    pub applied: bool,
    /// Why it has not, each with its place.
    pub problems: Vec<Arc<str>>,
    /// Keys that have changed and are taken at the next start only.
    pub restart: Vec<&'static str>,
}

/// One health record's own object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Health {
    /// Where the sensor is in its life.
    pub state: HealthState,
    /// All hooks, on `Ready` and whenever one changed; else empty.
    pub hooks: Vec<Hook>,
    /// Loss since the previous health record; on `Stopping` since the start. Only entries that are not zero.
    pub loss: Vec<Loss>,
    /// All capabilities, on `Ready` and whenever one changed; else empty.
    pub coverage: Vec<Coverage>,
    /// A time of blindness that has come to its end.
    pub blind: Option<Blind>,
    /// On `Ready`: the run that this one goes on from.
    pub resumed: Option<Box<Resumed>>,
    /// Another configuration has come; `Reloaded` only if it was taken.
    pub reload: Option<Box<Reload>>,
    /// The node's own addresses, on `Ready` and whenever they changed; replay judges with them.
    pub addresses: Vec<IpAddr>,
    /// All inputs of audit events, wherever coverage or loss is told, and on `Stopping`; empty where there are none.
    pub audit: Vec<AuditInput>,
    /// On `Stopping`: the balance of the run, entries with something produced only.
    pub balance: Vec<Balance>,
    /// On `Stopping`: output records written, this one included.
    pub emitted: Option<u64>,
    /// Records the agent could not decode, since the previous health record; on `Stopping` since the start.
    pub undecodable: u64,
}

impl Health {
    /// A record that says nothing but the state.
    #[must_use]
    pub fn new(state: HealthState) -> Self {
        Self {
            state,
            hooks: Vec::new(),
            loss: Vec::new(),
            coverage: Vec::new(),
            blind: None,
            resumed: None,
            reload: None,
            addresses: Vec::new(),
            audit: Vec::new(),
            balance: Vec::new(),
            emitted: None,
            undecodable: 0,
        }
    }

    /// Management records that it says were lost.
    #[must_use]
    pub fn lost_management(&self) -> u64 {
        let management = self.loss.iter().filter(|loss| loss.ring == Some(Ring::Management));
        management.map(|loss| loss.lost).sum()
    }

    /// Lines of audit logs that it says were lost.
    #[must_use]
    pub fn lost_audit(&self) -> u64 {
        self.loss.iter().filter(|loss| is_audit_loss(loss.kind)).map(|loss| loss.lost).sum()
    }
}
