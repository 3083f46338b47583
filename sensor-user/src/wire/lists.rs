//! The closed lists of the output: every name that a key with a fixed set of values can have.
//!
//! Each is written down here and not on the core's type, so that renaming a variant never changes the output.

use schemars::JsonSchema;
use sensor_common::record as abi;
use sensor_core::{chains, exposure, fact, health};
use serde::{Deserialize, Serialize};

/// Defines the wire form of an enum of the core and the conversions, which stop compiling when one side changes.
macro_rules! closed_list {
    ($(#[$meta:meta])* $name:ident from $core:path { $($(#[doc = $doc:literal])+ $variant:ident = $text:literal,)+ }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
        pub enum $name {
            $($(#[doc = $doc])+ #[serde(rename = $text)] $variant,)+
        }

        impl $name {
            /// The name in the output.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $text,)+ }
            }
        }

        impl From<$core> for $name {
            fn from(core: $core) -> Self {
                use $core as Core;
                match core { $(Core::$variant => Self::$variant,)+ }
            }
        }

        impl From<$name> for $core {
            fn from(wire: $name) -> Self {
                match wire { $($name::$variant => Self::$variant,)+ }
            }
        }
    };
}

closed_list! {
/// A management service, by the configured port.
Service from fact::Service {
    /// Docker API, plaintext by convention.
    Docker = "docker",
    /// Docker API over TLS.
    DockerTls = "docker-tls",
    /// Kubernetes API server.
    KubeApiserver = "kube-apiserver",
    /// kubelet API.
    Kubelet = "kubelet",
    /// Read-only kubelet port.
    KubeletReadonly = "kubelet-readonly",
    /// Any other port.
    Other = "other",
}}

closed_list! {
/// The runtime that manages a container.
Runtime from fact::Runtime {
    /// Docker.
    Docker = "docker",
    /// containerd, by another client than Docker.
    Containerd = "containerd",
    /// CRI-O.
    Crio = "cri-o",
    /// Podman.
    Podman = "podman",
    /// An OCI runtime called directly.
    Runc = "runc",
    /// It looks like a container; its runtime is not known.
    Unknown = "unknown",
}}

closed_list! {
/// Who opened the connection, from the kernel's state transition.
Direction from fact::Direction {
    /// The peer did.
    Inbound = "inbound",
    /// This side did.
    Outbound = "outbound",
}}

closed_list! {
/// Reach of a listener's bind address.
Scope from fact::Scope {
    /// 127.0.0.0/8 or ::1.
    Loopback = "loopback",
    /// One address of a private or link-local range.
    Private = "private",
    /// All addresses, or one public address.
    Any = "any",
}}

/// What the file of a program is like.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ExeFlag {
    /// It has no name any more.
    Deleted,
    /// It was made in memory and has never had one.
    Memfd,
    /// An interpreter runs it.
    Script,
}

/// A namespace that tells the host from its containers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum HostNamespace {
    /// Mounts.
    Mnt,
    /// Processes.
    Pid,
}

closed_list! {
/// How much an endpoint asks for attention.
Exposure from exposure::Exposure {
    /// Open to others, and somebody from outside has connected.
    Reached = "reached",
    /// Open to others.
    Exposed = "exposed",
    /// Reached from its own network namespace only.
    Local = "local",
    /// It listens no more.
    Closed = "closed",
}}

closed_list! {
/// What happened to a listener.
ListenerState from fact::ListenerState {
    /// It began to listen.
    Opened = "opened",
    /// It was there when the sensor started.
    Snapshot = "snapshot",
    /// Its holder changed, or a first peer from outside has reached it.
    Changed = "changed",
    /// It stopped.
    Closed = "closed",
}}

closed_list! {
/// Whether a listener speaks TLS.
ListenerTls from fact::Tls {
    /// It answers in plaintext.
    Plaintext = "plaintext",
    /// It expects TLS.
    Tls = "tls",
    /// Not seen yet.
    Unknown = "unknown",
}}

closed_list! {
/// How an outbound connect went.
ConnectResult from fact::ConnectResult {
    /// SYN sent to a lateral port; the result follows.
    Attempted = "attempted",
    /// Connected.
    Established = "established",
    /// Reset in answer to the SYN.
    Refused = "refused",
    /// Reset later.
    Reset = "reset",
    /// No answer before the kernel or the program gave up.
    Timeout = "timeout",
    /// ICMP unreachable.
    Unreachable = "unreachable",
}}

closed_list! {
/// What an executed program is to container management.
ExecRole from fact::ExecRole {
    /// OCI runtime: runc, crun, youki.
    Runtime = "runtime",
    /// containerd-shim*, conmon, docker-proxy.
    Shim = "shim",
    /// dockerd, containerd, crio, kubelet.
    Daemon = "daemon",
    /// docker, podman, ctr, crictl, nerdctl, kubectl.
    Client = "client",
    /// Named by the configuration.
    Tool = "tool",
    /// Any other program inside a container.
    Workload = "workload",
}}

closed_list! {
/// A step in a container's life.
ContainerAction from fact::ContainerAction {
    /// Its cgroup was set up.
    Created = "created",
    /// Its first process was executed.
    Started = "started",
    /// A further process was put into it by the runtime.
    Exec = "exec",
    /// Its first process exited or its cgroup went.
    Stopped = "stopped",
    /// The runtime dropped its state.
    Removed = "removed",
    /// Metadata that earlier records lacked.
    Enriched = "enriched",
}}

closed_list! {
/// How sure the sensor is of a container's cause.
OriginClass from fact::OriginClass {
    /// The cause was read.
    Proved = "proved",
    /// The cause was concluded from order and time.
    Inferred = "inferred",
    /// No cause is known.
    None = "none",
}}

closed_list! {
/// What a request to a management API does.
ApiClass from sensor_core::http::route::ApiClass {
    /// Asks whether something is there.
    Probe = "probe",
    /// Asks what is there.
    Discovery = "discovery",
    /// Makes a container or a service.
    Create = "create",
    /// Starts one, or changes one that runs.
    Start = "start",
    /// Runs something in a container, or attaches to what runs there.
    Exec = "exec",
    /// Brings in or makes an image or a plugin.
    Build = "build",
    /// Takes files or images out.
    Collection = "collection",
    /// Gets or uses a credential.
    Credential = "credential",
    /// Ends or deletes something.
    Destructive = "destructive",
    /// Takes the cluster over, or joins the node to another one.
    Takeover = "takeover",
    /// Anything else.
    Other = "other",
}}

closed_list! {
/// What is spoken instead of HTTP/1 and TLS.
Protocol from fact::Protocol {
    /// HTTP/2 without TLS.
    Http2 = "http2",
    /// Something else, or HTTP that two readers might read differently.
    Unknown = "unknown",
}}

closed_list! {
/// What is wrong with the first message of a TLS client.
HelloFlaw from fact::Flaw {
    /// Its end did not come, or was not captured.
    Cut = "cut",
    /// A length in it is not that of what follows, or it begins as TLS and goes on as something else.
    Malformed = "malformed",
    /// It is longer than 16 KiB.
    Oversized = "oversized",
}}

closed_list! {
/// What is known of the software that an address uses.
Stack from fact::Stack {
    /// Nothing was known of this address.
    First = "first",
    /// It has used this before.
    Known = "known",
    /// It is known to use something else.
    New = "new",
}}

closed_list! {
/// What a number of connections or attempts has in common.
ScanShape from fact::ScanShape {
    /// So many connections that the accepts of some were withheld.
    Flood = "flood",
    /// Attempts that were never completed.
    HalfOpen = "half-open",
    /// A peer connected to several endpoints of this node.
    Connect = "connect",
    /// Connections on which the peer sent nothing.
    NoData = "no-data",
    /// A container, or a runtime, connected to management endpoints of several others.
    Sweep = "sweep",
}}

closed_list! {
/// What a credential file is good for.
CredentialClass from fact::CredentialClass {
    /// A token of a Kubernetes service account, as pods have it.
    ServiceAccountToken = "service-account-token",
    /// A kubeconfig.
    Kubeconfig = "kubeconfig",
    /// Keys and certificates of the cluster's own authority.
    ClusterPki = "cluster-pki",
    /// The client certificate of the kubelet.
    KubeletCertificate = "kubelet-certificate",
    /// Keys and certificates for the Docker API.
    DockerCertificate = "docker-certificate",
    /// The Docker client's configuration, which holds the logins of registries.
    DockerConfig = "docker-config",
}}

closed_list! {
/// How much of the subject is known.
Enrichment from fact::Enrichment {
    /// All that there is to know.
    Ok = "ok",
    /// Some of it is still missing.
    Partial = "partial",
    /// The subject is unknown.
    None = "none",
}}

closed_list! {
/// What a signal can be joined by.
SignalKey from chains::SignalKey {
    /// A connection: `net.conn` of its records.
    Conn = "conn",
    /// A container: its full id.
    Container = "container",
    /// The id of a credential, or what stands for one.
    Credential = "credential",
    /// The fact: `id` of its record.
    Event = "event",
    /// An address.
    Peer = "peer",
    /// A management service.
    Service = "service",
    /// Where a connection went: address and port.
    Target = "target",
    /// A user of a cluster.
    User = "user",
}}

closed_list! {
/// How much a finding matters.
Severity from chains::Severity {
    /// Worth knowing.
    Low = "low",
    /// Worth a look today.
    Medium = "medium",
    /// Worth a look now.
    High = "high",
    /// Worth waking somebody.
    Critical = "critical",
}}

closed_list! {
/// How sure a link is.
Confidence from chains::Confidence {
    /// It was concluded from order and time, or from what was learned.
    Inferred = "inferred",
    /// It was read.
    Proved = "proved",
}}

closed_list! {
/// Where a finding is in its life.
FindingState from chains::FindingState {
    /// It is told for the first time.
    Open = "open",
    /// It has grown.
    Update = "update",
    /// Its window has ended.
    Closed = "closed",
}}

closed_list! {
/// Where the sensor is in its life.
HealthState from health::HealthState {
    /// Hooks are attached and tables filled: from here on no event is missed silently.
    Ready = "ready",
    /// Something changed that is no loss of coverage.
    Running = "running",
    /// Records were lost or a capability is not live.
    Degraded = "degraded",
    /// The configuration was replaced.
    Reloaded = "reloaded",
    /// The last record of a run, with its totals.
    Stopping = "stopping",
}}

closed_list! {
/// Whether a hook is in place.
HookState from health::HookState {
    /// Attached.
    Attached = "attached",
    /// Loaded, and not attached: a better hook is, or there is nothing to see, which `reason` says then.
    Standby = "standby",
    /// The kernel lacks it or refused it.
    Unavailable = "unavailable",
}}

closed_list! {
/// How well a capability is covered.
CoverageState from health::CoverageState {
    /// Everything is seen.
    Live = "live",
    /// Something is missing; the reason says what.
    Degraded = "degraded",
    /// Nothing is seen; the reason says why.
    Blind = "blind",
}}

closed_list! {
/// What can be covered or blind.
Capability from health::Capability {
    /// Management listeners.
    Listeners = "listeners",
    /// Accepts on watched ports and their ends.
    Accepts = "accepts",
    /// Outbound connects of containers and runtime processes.
    Connects = "connects",
    /// Execs and exits.
    Execs = "execs",
    /// Container identity and life cycle.
    Containers = "containers",
    /// Floods, and attempts to connect that come to nothing.
    Scans = "scans",
    /// Connects to the unix sockets of runtimes.
    RuntimeSockets = "runtime-sockets",
    /// Opens of credential files.
    CredentialFiles = "credential-files",
    /// Who takes an accepted connection.
    AcceptTasks = "accept-tasks",
    /// Requests on plaintext ports.
    Requests = "requests",
    /// Requests on the unix sockets of runtimes.
    SocketRequests = "socket-requests",
    /// What is known of open chains outlives a restart.
    ChainState = "chain-state",
    /// Requests to the Kubernetes API server, out of its audit log; there only where one is to be read.
    Audit = "audit",
}}

closed_list! {
/// A ring buffer between kernel and agent.
Ring from abi::Ring {
    /// Listeners, accepts and their ends, runtime execs, cgroup changes.
    Management = "management",
    /// Everything else.
    Bulk = "bulk",
}}

closed_list! {
/// A kind of kernel record, for counters.
KernelRecord from abi::RecordKind {
    /// A listener opened.
    ListenerOpened = "listener-opened",
    /// A listener closed.
    ListenerClosed = "listener-closed",
    /// A connection completed.
    Accept = "accept",
    /// A connection ended.
    Close = "close",
    /// An outbound connect.
    Connect = "connect",
    /// An exec.
    Exec = "exec",
    /// An exit.
    Exit = "exit",
    /// A new process.
    Fork = "fork",
    /// A cgroup was created.
    CgroupMkdir = "cgroup-mkdir",
    /// A cgroup was removed.
    CgroupRmdir = "cgroup-rmdir",
    /// A connect to the socket of a runtime.
    SocketConnect = "socket-connect",
    /// An open of a credential file.
    FileOpen = "file-open",
    /// A task took a connection.
    AcceptTask = "accept-task",
    /// What is said on a plaintext port.
    Payload = "payload",
    /// A connection completed, told by its first data.
    LateAccept = "late-accept",
    /// What is said on a connection to the socket of a runtime.
    SocketPayload = "socket-payload",
    /// A program of the host that has a connection connects to a management port.
    Hop = "hop",
}}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(value: impl Serialize) -> String {
        serde_json::to_value(value).expect("a string").as_str().expect("a string").to_owned()
    }

    #[test]
    fn names_in_configuration_and_output_are_the_same() {
        for service in fact::Service::ALL {
            assert_eq!(name(Service::from(service)), service.name());
        }
        for runtime in fact::Runtime::ALL {
            assert_eq!(name(Runtime::from(runtime)), runtime.name());
        }
        for kind in abi::RecordKind::ALL {
            assert_eq!(name(KernelRecord::from(kind)), health::record_kind_name(kind));
        }
        for capability in health::Capability::ALL {
            assert_eq!(name(Capability::from(capability)), capability.name());
        }
        for key in chains::SignalKey::ALL {
            assert_eq!(name(SignalKey::from(key)), key.name());
        }
    }
}
