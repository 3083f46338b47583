//! What the engine and the shell hand each other: settings and seeds in, output and requests out.
//!
//! Values only. The shell answers a [`Request`] through the `handle_*` function its doc names; none of them has to be
//! answered for the engine to go on.

use std::sync::Arc;

use ipnetwork::IpNetwork;
use sensor_common::flood::PortKey;
use sensor_common::record::TaskItem;

use crate::allow_list::AllowList;
use crate::chains::{Finding, Limits, Signal};
use crate::fact::{ExeFlags, Fact, Node, Published, Runtime, Service, Verdict};
use crate::health::Health;
use crate::ids::{CgroupKey, ProcessKey, RecordId, RunId};
use crate::namespaces::Namespaces;
use crate::programs::Contents;
use crate::risks::Risks;
use crate::time::Timestamp;

/// What the engine needs to know before the first event.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Identity of this run.
    pub run: RunId,
    /// Where the events come from.
    pub node: Arc<Node>,
    /// The operator's policy.
    pub policy: Policy,
    /// How long a record waits for earlier ones of the other ring, nanoseconds.
    pub merge_window_ns: u64,
    /// How long a container record waits for its metadata, nanoseconds.
    pub hold_ns: u64,
    /// Distance between two rounds of canaries, nanoseconds; `None`: there are none, and hooks are taken at their word.
    pub canary_interval_ns: Option<u64>,
    /// How long the hooks on packets outlast the last reason for them, nanoseconds.
    pub packets_rest_ns: u64,
}

/// The part of the configuration that a reload replaces.
#[derive(Clone, Debug, Default)]
pub struct Policy {
    /// Watched ports and their services.
    pub ports: Vec<(u16, Service)>,
    /// Names of further runtimes or tools.
    pub tools: Vec<Arc<str>>,
    /// Every named network: what is in none of them is outside.
    pub networks: Vec<IpNetwork>,
    /// Expected access.
    pub allow: AllowList,
    /// What tunes the analytics.
    pub limits: Limits,
    /// What requests of an audit log are judged by; the allow-list and the networks are those above.
    pub cluster: Cluster,
}

/// What the operator says of a Kubernetes cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cluster {
    /// Its nodes by name, with their addresses.
    pub nodes: Vec<(Arc<str>, Vec<IpNetwork>)>,
    /// Ranges of its pods.
    pub pods: Vec<IpNetwork>,
    /// Proxies in front of its API server that are believed when they say whom they speak for.
    pub trusted_proxies: Vec<IpNetwork>,
}

/// A process that was there before the sensor.
#[derive(Clone, Debug)]
pub struct SeedProcess {
    /// What the kernel says.
    pub item: TaskItem,
    /// `/proc/<pid>/exe`.
    pub exe: Option<Arc<str>>,
    /// `/proc/<pid>/cmdline`.
    pub args: Option<Arc<[Arc<str>]>>,
    /// The arguments were cut at their bound.
    pub truncated: bool,
    /// The file that it runs, and what that is like.
    pub contents: Option<Contents>,
    /// Likewise.
    pub flags: ExeFlags,
    /// `/proc/<pid>/ns` and `/proc/<pid>/root`, as far as they could be read.
    pub namespaces: Namespaces,
}

/// A cgroup that was there before the sensor.
#[derive(Clone, Debug)]
pub struct SeedCgroup {
    /// Key.
    pub key: CgroupKey,
    /// Path from the root of its hierarchy, with a leading slash.
    pub path: Arc<str>,
}

/// Where to look for a container's metadata.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerQuery {
    /// By which the core tells it from others, also from those that bear the same id.
    pub key: Arc<str>,
    /// Full id.
    pub id: Arc<str>,
    /// Runtime as far as known.
    pub runtime: Runtime,
    /// containerd namespace, when known from the cgroup path or from arguments.
    pub namespace: Option<Arc<str>>,
    /// OCI bundle directory, when the runtime's arguments name it.
    pub bundle: Option<Arc<str>>,
    /// Directory of the OCI runtime's own state (`--root`), when its arguments name it.
    pub root: Option<Arc<str>>,
    /// Host uid of the runtime process, for rootless state directories.
    pub uid: Option<u32>,
    /// When it was made, nanoseconds since 1970, as far as known: what the bundle has been given since is not what it was
    /// made from.
    pub made_unix_ns: Option<u64>,
}

/// The process that a runtime is about to put into a container, in a file that is gone soon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProcessQuery {
    /// Tells this query from others.
    pub number: u64,
    /// The file, as the runtime was told.
    pub file: Arc<str>,
    /// Host uid of the runtime process: whose file it must be, unless that is root.
    pub uid: Option<u32>,
}

/// A dockerd of the host, of which more is to be known than its arguments say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DaemonQuery {
    /// Which.
    pub process: ProcessKey,
    /// Its `--config-file`, as it was told; else the default one.
    pub file: Option<Arc<str>>,
}

/// What a dockerd was told elsewhere than in its arguments: in `daemon.json`, and by its environment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DaemonOptions {
    /// `hosts`.
    pub hosts: Vec<Arc<str>>,
    /// `tls`.
    pub tls: Option<bool>,
    /// `tlsverify`, or `DOCKER_TLS_VERIFY`.
    pub tls_verify: Option<bool>,
}

/// What the runtime's state on disk says of a container. Absent = not found there (yet).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ContainerMetadata {
    /// That of the question; `None` for a container that nobody asked for.
    pub key: Option<Arc<str>>,
    /// The container's full id.
    pub id: Arc<str>,
    /// Directory of the OCI runtime's own state where it was found, unless that is a default one.
    pub root: Option<Arc<str>>,
    /// The runtime, when the place where the state was found proves it.
    pub runtime: Option<Runtime>,
    /// Name.
    pub name: Option<Arc<str>>,
    /// Image reference.
    pub image: Option<Arc<str>>,
    /// RFC 3339 UTC.
    pub created: Option<Arc<str>>,
    /// Paths of its cgroups, from the root of their hierarchies.
    pub cgroups: Vec<Arc<str>>,
    /// Kubernetes identity from annotations or labels.
    pub k8s: Option<Arc<crate::fact::K8s>>,
    /// TCP ports that are published for it, with their addresses in it, as far as these are there.
    pub published: Vec<Published>,
    /// More of them are to come.
    pub awaits_ports: bool,
    /// What tells of it, once what was asked for has been read.
    pub risks: Option<Risks>,
    /// What was asked for is there and cannot be used: too long, or not what it should be.
    pub spec_refused: bool,
    /// Nobody looks again: no answer to this question follows.
    pub is_last: bool,
}

/// How soon a question is to be answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Urgency {
    /// Before what it is about is gone.
    Now,
    /// When there is nothing else to do.
    Later,
}

/// What the contents of a program's file say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProgramAnswer {
    /// They were read.
    Read {
        /// Whose.
        contents: Contents,
        /// The client that they are, if they are one.
        client: Option<Arc<str>>,
    },
    /// They are a dynamic loader's, which runs whatever it is told to.
    Loader {
        /// Whose.
        contents: Contents,
        /// A process that runs it.
        process: ProcessKey,
        /// The client that it has loaded, if it has loaded one.
        client: Option<Arc<str>>,
    },
    /// The process that ran it was gone, or the file had changed.
    Gone {
        /// Whose.
        contents: Contents,
    },
}

/// How far a daemon's port is looked into, each more than the one before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Depth {
    /// Who listens there.
    Listeners,
    /// And who comes to it.
    Accepts,
    /// And what clients say first, over TLS.
    Hellos,
    /// And all that is said, in plaintext.
    Requests,
}

/// Something the core wants from outside; answers come back through the `handle_*` functions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// Read the state of a container; answered by [`crate::engine::Engine::handle_container_metadata`], also when nothing was found.
    ReadContainer(ContainerQuery),
    /// A runtime was called to make this container: read now what may be gone before the container is known, and keep it for
    /// the question that follows; not answered.
    ReadAhead(ContainerQuery),
    /// Read a process to be put into a container; answered by [`crate::engine::Engine::handle_process_risks`].
    ReadProcess(ProcessQuery),
    /// Read what a daemon was told; answered by [`crate::engine::Engine::handle_daemon_options`] if it can be read.
    ReadDaemonOptions(DaemonQuery),
    /// Tell when the runtime has dropped its state of this container; answered by [`crate::engine::Engine::handle_container_removed`].
    WatchRemoval(ContainerQuery),
    /// Stop watching the container of this key; it runs again or was evicted.
    ForgetRemoval(Arc<str>),
    /// Tell the probes what a cgroup is: [`sensor_common::settings::cgroup_class`].
    ClassifyCgroup(CgroupKey, u8),
    /// The cgroup is gone.
    ForgetCgroup(CgroupKey),
    /// Take a port that nobody connects to out of the probes' table, which is filling up.
    ForgetFloodPort(PortKey),
    /// Run the listener iterator; answered by [`crate::engine::Engine::handle_listeners`].
    RefreshListeners,
    /// Report listeners at a port of a daemon that no configuration names, and what comes to it if asked for.
    WatchPort {
        /// The port.
        port: u16,
        /// What of it.
        depth: Depth,
    },
    /// Look what a program is by its contents; answered by [`crate::engine::Engine::handle_program`].
    ReadProgram {
        /// A process that runs it.
        process: ProcessKey,
        /// Which contents.
        contents: Contents,
        /// The absolute path that it was executed by, in the mount namespace of the process: programs outlive processes that
        /// are gone at once.
        path: Option<Arc<str>>,
        /// How soon.
        urgency: Urgency,
    },
    /// Attach the programs on packets, or let them rest because there is nothing for them to see; answered by
    /// [`crate::engine::Engine::handle_hooks`].
    WatchPackets(bool),
    /// Do a round of canaries; answered by [`crate::engine::Engine::handle_canary`].
    RunCanaries,
    /// This program does not report what it should: attach it anew; answered by
    /// [`crate::engine::Engine::handle_hooks`].
    Reattach(&'static str),
}

/// One line of output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// A fact and, for accepts, what the allow-list says of it.
    Fact {
        /// Position in this run's output.
        seq: u64,
        /// The fact.
        fact: Fact,
        /// For accepts.
        verdict: Option<Verdict>,
    },
    /// A health record.
    Health {
        /// Position in this run's output.
        seq: u64,
        /// Identity.
        id: RecordId,
        /// When.
        at: Timestamp,
        /// Where.
        node: Arc<Node>,
        /// What.
        health: Health,
    },
    /// What a fact is to an analytic.
    Signal {
        /// Position in this run's output.
        seq: u64,
        /// Identity, made from that of the fact.
        id: RecordId,
        /// When the fact was.
        at: Timestamp,
        /// Where.
        node: Arc<Node>,
        /// What.
        signal: Box<Signal>,
    },
    /// A chain.
    Finding {
        /// Position in this run's output.
        seq: u64,
        /// Identity of this record, made from that of the chain's first evidence.
        id: RecordId,
        /// When it became so.
        at: Timestamp,
        /// Where.
        node: Arc<Node>,
        /// What.
        finding: Box<Finding>,
    },
}
