//! Facts: what the sensor saw, with the subject it belongs to.
//!
//! A fact is what the enrich step hands to policy and what a recording holds. Live capture builds it from a kernel
//! record, replay from a line; from here on both are the same.

use std::net::IpAddr;
use std::sync::Arc;

use crate::audit::AuditRequest;
use crate::containers::key_of_namesake;
use crate::ids::{ConnId, RecordId};
use crate::namespaces::HostSide;
use crate::risks::Risk;
use crate::time::Timestamp;

mod access;
mod api;
mod exposure;
mod hello;
mod program;
mod service;

pub use access::{AcceptingTask, Client, CredentialClass};
pub use api::{ApiRequest, Origin, OriginClass, Protocol, SocketUse};
pub use exposure::{LeadsTo, PeerSeen, Published, Reach};
pub use hello::{Flaw, Stack, TlsHello};
pub use program::{ExeFlags, Program};
pub use service::Service;

/// What the allow-list says of a peer; the sensor observes, it does not allow or deny.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The named entry expects this access.
    Listed(Arc<str>),
    /// No entry does.
    Unlisted,
}

/// Where a record comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Configured name or host name.
    pub name: Arc<str>,
    /// `/proc/sys/kernel/random/boot_id`.
    pub boot_id: Arc<str>,
    /// Configured cluster.
    pub cluster: Option<Arc<str>>,
}

impl Node {
    /// Stands for a node that is not known yet.
    pub(crate) fn unknown() -> Arc<Self> {
        Arc::new(Self { name: "".into(), boot_id: "".into(), cluster: None })
    }
}

/// A process as printed. Unknown fields are `None`, never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    /// Thread group id in the initial pid namespace.
    pub pid: u32,
    /// Parent's.
    pub ppid: Option<u32>,
    /// Start of the process, boot clock, nanoseconds.
    pub start_ns: u64,
    /// Name, at most 15 bytes.
    pub comm: Arc<str>,
    /// Path of the executable.
    pub exe: Option<Arc<str>>,
    /// Arguments, the program's own name first.
    pub args: Option<Arc<[Arc<str>]>>,
    /// Real user id.
    pub uid: Option<u32>,
    /// What is known of the program beyond its path.
    pub program: Program,
    /// Parent first.
    pub ancestors: Arc<[Ancestor]>,
    /// The arguments or the path were cut.
    pub truncated: bool,
}

/// One ancestor of a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ancestor {
    /// Thread group id.
    pub pid: u32,
    /// Name.
    pub comm: Arc<str>,
    /// Path of the executable, when known.
    pub exe: Option<Arc<str>>,
}

/// The runtime that manages a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Runtime {
    /// Docker (moby).
    Docker,
    /// containerd, by another client than Docker.
    Containerd,
    /// CRI-O.
    Crio,
    /// Podman.
    Podman,
    /// An OCI runtime called directly.
    Runc,
    /// The cgroup looks like a container's, the runtime is not known.
    Unknown,
}

impl Runtime {
    /// Every runtime.
    pub const ALL: [Self; 6] =
        [Self::Docker, Self::Containerd, Self::Crio, Self::Podman, Self::Runc, Self::Unknown];

    /// The name in the output.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Docker => "docker",
            Self::Containerd => "containerd",
            Self::Crio => "cri-o",
            Self::Podman => "podman",
            Self::Runc => "runc",
            Self::Unknown => "unknown",
        }
    }

    /// The runtime with this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|runtime| runtime.name() == name)
    }
}

/// A container as printed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Container {
    /// The runtime's full id: 64 hex digits for most, free text for ctr and runc.
    pub id: Arc<str>,
    /// Tells it from others that live under the same free-text id, which several namespaces or root directories of a runtime
    /// may give; 0 = the first of them. Counted anew by each run.
    pub namesake: u64,
    /// The runtime.
    pub runtime: Runtime,
    /// Its name, from the runtime's state on disk.
    pub name: Option<Arc<str>>,
    /// Its image reference, from the runtime's state on disk.
    pub image: Option<Arc<str>>,
    /// Creation time as RFC 3339 UTC, from the runtime's state on disk.
    pub created: Option<Arc<str>>,
    /// What tells of it, the heaviest first; empty: it was looked at and nothing does.
    pub risks: Option<Arc<[Risk]>>,
    /// Path of its cgroup from the root of the hierarchy.
    pub cgroup: Option<Arc<str>>,
}

impl Container {
    /// What it is known by in tables: its id, and which of those it is that bear it.
    pub(crate) fn key(&self) -> Arc<str> {
        if self.namesake == 0 { self.id.clone() } else { key_of_namesake(&self.id, self.namesake) }
    }
}

/// Kubernetes identity of a container.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct K8s {
    /// Namespace.
    pub namespace: Option<Arc<str>>,
    /// Pod name.
    pub pod: Option<Arc<str>>,
    /// Pod uid.
    pub pod_uid: Option<Arc<str>>,
    /// Container name within the pod.
    pub container: Option<Arc<str>>,
    /// Service account.
    pub service_account: Option<Arc<str>>,
}

/// One end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct End {
    /// Address; an IPv4-mapped address is kept as IPv4.
    pub ip: IpAddr,
    /// Port; 0 = not chosen yet (printed as absent).
    pub port: u16,
}

/// Who opened the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    /// The peer did.
    Inbound,
    /// This side did.
    Outbound,
}

/// The connection (or listener) a fact is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Net {
    /// Who opened it; `None` for a listener.
    pub direction: Option<Direction>,
    /// Remote end; `None` for a listener.
    pub peer: Option<End>,
    /// Local end; `None` for a connect that has none yet.
    pub local: Option<End>,
    /// Service by the port on the serving side.
    pub service: Service,
    /// Joins the records of one connection; `None` for a listener.
    pub conn: Option<ConnId>,
}

/// Reach of a listener's bind address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scope {
    /// 127.0.0.0/8 or ::1.
    Loopback,
    /// One address of a private or link-local range.
    Private,
    /// All addresses, or one public address.
    Any,
}

impl Scope {
    /// The reach of a socket bound to this address.
    #[must_use]
    pub fn of(ip: IpAddr) -> Self {
        let private = match ip {
            ip if ip.is_loopback() => return Self::Loopback,
            IpAddr::V4(ip) => ip.is_private() || ip.is_link_local(),
            IpAddr::V6(ip) => ip.is_unique_local() || ip.is_unicast_link_local(),
        };
        if private { Self::Private } else { Self::Any }
    }
}

/// What happened to a listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ListenerState {
    /// It began to listen.
    Opened,
    /// It was there when the sensor started.
    Snapshot,
    /// Its holder changed, or a first peer from outside has reached it.
    Changed,
    /// It stopped.
    Closed,
}

/// Whether a listener speaks TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Tls {
    /// It answers in plaintext.
    Plaintext,
    /// It expects TLS.
    Tls,
    /// Not seen yet.
    Unknown,
}

/// How an outbound connect went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ConnectResult {
    /// SYN sent to a lateral port; the result follows.
    Attempted,
    /// Connected.
    Established,
    /// Reset in answer to the SYN.
    Refused,
    /// Reset later.
    Reset,
    /// No answer before the kernel or the program gave up.
    Timeout,
    /// ICMP unreachable.
    Unreachable,
}

/// What an executed program is to container management.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ExecRole {
    /// OCI runtime: runc, crun, youki.
    Runtime,
    /// containerd-shim*, conmon, docker-proxy.
    Shim,
    /// dockerd, containerd, crio, kubelet.
    Daemon,
    /// docker, podman, ctr, crictl, nerdctl, kubectl.
    Client,
    /// Named by the configuration.
    Tool,
    /// Any other program inside a container.
    Workload,
}

/// A step in a container's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ContainerAction {
    /// Its cgroup or its bundle was set up by the runtime.
    Created,
    /// Its first process was executed.
    Started,
    /// A further process was put into it by the runtime.
    Exec,
    /// Its first process exited or its cgroup went.
    Stopped,
    /// The runtime dropped its state.
    Removed,
    /// Metadata that earlier records lacked.
    Enriched,
}

/// What a number of connections or attempts has in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ScanShape {
    /// So many connections that the accepts of some were withheld.
    Flood,
    /// Attempts that were never completed.
    HalfOpen,
    /// A peer connected to several endpoints of this node.
    Connect,
    /// Connections on which the peer sent nothing.
    NoData,
    /// A container, or a runtime, connected to management endpoints of several others.
    Sweep,
}

/// How much of the subject is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum Enrichment {
    /// All that there is to know.
    #[default]
    Ok,
    /// Some of it is still missing.
    Partial,
    /// The subject is unknown.
    None,
}

/// Quality of one fact.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Quality {
    /// How much of the subject is known.
    pub enrichment: Enrichment,
    /// Some string was cut at its bound.
    pub truncated: bool,
    /// Management records lost in the second around this one.
    pub lost: u64,
}

/// What a fact says, beside its subject.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FactKind {
    /// A management endpoint.
    Listener {
        /// What happened.
        state: ListenerState,
        /// Reach of the bind address.
        scope: Scope,
        /// TLS or not.
        tls: Tls,
        /// Inode of its network namespace.
        netns: u32,
        /// Where it leads, when a runtime publishes it for a container.
        leads_to: Option<LeadsTo>,
        /// Who has reached it; absent while nobody has.
        reach: Option<Arc<Reach>>,
    },
    /// A connection completed for a management listener.
    Accept {
        /// The task that took it, where the kernel tells and it did so at once.
        task: Option<Arc<AcceptingTask>>,
        /// Who is behind it, when a program of the node passes on what that one says.
        client: Option<Box<Client>>,
        /// Told by the first data of the connection and with their time, because the kernel has called no program when it
        /// was completed.
        late: bool,
    },
    /// The process took a connection that was reported as `Accept` without a task.
    AcceptTask,
    /// It ended.
    Close {
        /// From establishment to the end; absent when the record of the establishment was lost.
        duration_ns: Option<u64>,
        /// Payload received.
        bytes_in: u64,
        /// Payload sent.
        bytes_out: u64,
    },
    /// An outbound connect.
    Connect {
        /// How it went.
        result: ConnectResult,
    },
    /// The unix socket of a runtime was connected to.
    SocketConnect {
        /// Path that its listener is bound to, when it is known still.
        path: Option<Arc<str>>,
        /// Inode number of that path.
        inode: u64,
        /// The runtime that serves it, likewise.
        service: Option<Runtime>,
    },
    /// A credential file was opened.
    FileRead {
        /// Path as the process sees it; `None` when it is longer than can be told.
        path: Option<Arc<str>>,
        /// What it is good for.
        class: CredentialClass,
    },
    /// A program was executed.
    Exec {
        /// What it is to container management.
        role: ExecRole,
    },
    /// A program of a container is executed on the host's side.
    Escape(HostSide),
    /// A process reported by `Exec` exited.
    Exit {
        /// Exit code, when it exited by itself.
        code: Option<u8>,
        /// Signal number, when a signal ended it.
        signal: Option<u8>,
    },
    /// Many connections or attempts in one.
    Scan {
        /// What they have in common.
        shape: ScanShape,
        /// Endpoints they came to.
        targets: u64,
        /// Peers they came from, about.
        peers: u64,
        /// How many there were in the window.
        count: u64,
        /// Of these, accepts that were withheld.
        suppressed: u64,
        /// Accepts withheld in this window or an earlier one that were reported after all.
        resumed: u64,
        /// From the last look at the counts to this one.
        window_ns: u64,
    },
    /// What a TLS client said first.
    TlsHello(Arc<TlsHello>),
    /// A request on a management connection.
    ApiRequest(Box<ApiRequest>),
    /// A request to the API server, of its audit log.
    Audit(Box<AuditRequest>),
    /// A container's life.
    Container {
        /// The step.
        action: ContainerAction,
        /// Its cause.
        origin: Origin,
    },
}

/// One thing seen, with its subject.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fact {
    /// Identity; kept through recording and replay.
    pub id: RecordId,
    /// Event time.
    pub at: Timestamp,
    /// Where.
    pub node: Arc<Node>,
    /// Who.
    pub process: Option<Arc<Process>>,
    /// In which container.
    pub container: Option<Arc<Container>>,
    /// In which pod.
    pub k8s: Option<Arc<K8s>>,
    /// On which connection.
    pub net: Option<Net>,
    /// How good the record is.
    pub quality: Quality,
    /// What.
    pub kind: FactKind,
}
