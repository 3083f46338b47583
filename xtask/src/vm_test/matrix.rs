//! The matrix: kernels, machines, rows, and what each kernel owes. The only place that says so; the table in
//! `docs/kernel-hooks.md` is written from it after a run in which every row kept its promise.

use std::fmt;

/// A series of kernels, of which the newest is taken.
pub struct Kernel {
    /// Name on the command line and in the tables.
    pub name: &'static str,
    /// How its releases begin.
    pub series: &'static str,
}

/// Oldest first.
pub const KERNELS: &[Kernel] = &[
    Kernel { name: "5.10", series: "5.10." },
    Kernel { name: "6.1", series: "6.1." },
    Kernel { name: "6.12", series: "6.12." },
    Kernel { name: "6.18", series: "6.18." },
    Kernel { name: "7.x", series: "7." },
];

/// The oldest, one in the middle and the newest: what `cargo xtask test` runs, on version 2 cgroups.
const TESTED: &[&str] = &["5.10", "6.1", "7.x"];
/// The one of which it runs the machine with a disk, too.
const TESTED_WITH_DISK: &str = "6.1";

/// How the cgroup hierarchies are mounted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cgroups {
    /// Version 2 only.
    V2,
    /// Version 1 controllers and an empty version 2 hierarchy.
    Hybrid,
    /// Version 1 only.
    V1,
}

impl Cgroups {
    /// Name, as the guest has it too.
    pub const fn name(self) -> &'static str {
        match self {
            Self::V2 => "v2",
            Self::Hybrid => "hybrid",
            Self::V1 => "v1",
        }
    }
}

/// What a machine has as its root file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Root {
    /// What the kernel unpacks into memory: nothing but the sensor, the guest program and a runtime or two.
    Initramfs,
    /// A disk with an installed Debian: its service manager and its container engines.
    Disk,
}

/// What one boot does.
pub struct Machine {
    /// Name of its kernel.
    pub kernel: &'static str,
    /// How cgroups are mounted.
    pub cgroups: Cgroups,
    /// Where its programs are.
    pub root: Root,
    /// What is tried, in the order of the guest's own table.
    pub stages: &'static [&'static str],
}

const ALL: &[&str] = &[
    "sensor",
    "kinds",
    "runc",
    "crun",
    "requests",
    "flood",
    "half-open",
    "coverage",
    "time",
    "loss",
    "idle",
    "doctor",
    "rights",
    "no-btf",
    "lockdown",
];
/// Whether hooks rest depends on no kernel, and to see that takes half a minute: it is tried at both ends and once between.
const WITHOUT_IDLE: &[&str] = &[
    "sensor",
    "kinds",
    "runc",
    "crun",
    "requests",
    "flood",
    "half-open",
    "coverage",
    "time",
    "loss",
    "doctor",
    "rights",
    "no-btf",
    "lockdown",
];
const RECORDS: &[&str] =
    &["sensor", "kinds", "runc", "crun", "requests", "flood", "half-open", "coverage", "loss", "doctor"];
/// crun refuses a host whose version 2 hierarchy has controllers beside version 1 ones, as it must have where the kernel
/// does not offer all of them as version 1 any more.
const WITHOUT_CRUN: &[&str] =
    &["sensor", "kinds", "runc", "requests", "flood", "half-open", "coverage", "loss", "doctor"];

/// Everything that needs a service manager or a root file system to pivot away from, on one kernel in the middle.
const ENGINES: &[&str] =
    &["sensor", "runc", "crun", "scopes", "docker", "docker-cgroupfs", "containerd", "podman", "rootless"];
/// The same in short: starting an engine costs more than all that the sensor does.
const ENGINES_IN_SHORT: &[&str] = &["sensor", "runc", "crun", "scopes", "docker", "rootless"];
/// Another user has no cgroups of his own in a version 1 hierarchy, and his containers none to be known by.
const ENGINES_OF_ROOT: &[&str] = &["sensor", "runc", "crun", "scopes", "docker-cgroupfs"];

const fn machine(kernel: &'static str, cgroups: Cgroups, stages: &'static [&'static str]) -> Machine {
    Machine { kernel, cgroups, root: Root::Initramfs, stages }
}

const fn installed(kernel: &'static str, cgroups: Cgroups, stages: &'static [&'static str]) -> Machine {
    Machine { kernel, cgroups, root: Root::Disk, stages }
}

/// Every machine.
pub static MACHINES: &[Machine] = &[
    machine("5.10", Cgroups::V2, ALL),
    machine("6.1", Cgroups::V2, ALL),
    machine("6.12", Cgroups::V2, WITHOUT_IDLE),
    machine("6.18", Cgroups::V2, WITHOUT_IDLE),
    machine("7.x", Cgroups::V2, ALL),
    machine("5.10", Cgroups::Hybrid, RECORDS),
    machine("7.x", Cgroups::Hybrid, WITHOUT_CRUN),
    machine("5.10", Cgroups::V1, RECORDS),
    machine("7.x", Cgroups::V1, RECORDS),
    installed("5.10", Cgroups::V2, ENGINES_IN_SHORT),
    installed("6.1", Cgroups::V2, ENGINES),
    installed("7.x", Cgroups::V2, ENGINES_IN_SHORT),
    installed("5.10", Cgroups::Hybrid, ENGINES_OF_ROOT),
];

/// The machine that prepares the disk of the others, in a stage that is no part of the matrix.
pub static PREPARATION: Machine = installed(TESTED_WITH_DISK, Cgroups::V2, &["stores"]);

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kernel, self.cgroups.name())?;
        if self.root == Root::Disk { f.write_str(" disk") } else { Ok(()) }
    }
}

impl Machine {
    /// Name for files.
    pub fn slug(&self) -> String {
        self.to_string().replace(' ', "-")
    }
}

/// Whether `cargo xtask test` boots it.
pub fn is_tested(machine: &Machine) -> bool {
    let kernel = match machine.root {
        Root::Initramfs => TESTED.contains(&machine.kernel),
        Root::Disk => machine.kernel == TESTED_WITH_DISK,
    };
    kernel && machine.cgroups == Cgroups::V2
}

/// What a row owes on a kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owed {
    /// It is seen, by the only way there is.
    Seen,
    /// It is seen in this one of several ways.
    SeenBy(&'static str),
}

/// A row: one thing that is provoked in a machine and found in the sensor's output, or an honest refusal.
pub struct Row {
    /// Name, as the guest has it too.
    pub name: &'static str,
    /// Stage of the guest that tries it.
    pub stage: &'static str,
    /// What is provoked and demanded, for the table.
    pub promise: &'static str,
    /// What is owed on most kernels.
    usually: Owed,
    /// What is owed on others, by the name of the kernel or of the machine.
    but: &'static [(&'static str, Owed)],
}

const fn row(stage: &'static str, name: &'static str, promise: &'static str) -> Row {
    Row { name, stage, promise, usually: Owed::Seen, but: &[] }
}

impl Row {
    const fn by(mut self, way: &'static str) -> Self {
        self.usually = Owed::SeenBy(way);
        self
    }

    const fn but(mut self, but: &'static [(&'static str, Owed)]) -> Self {
        self.but = but;
        self
    }
}

/// Every row. Each is owed by every machine that has its stage.
pub const ROWS: &[Row] = &[
    row("sensor", "start", "the sensor is ready"),
    row("kinds", "listener", "opened and closed, with process, scope and network namespace"),
    row("kinds", "listener-snapshot", "one from before the start, with its holder"),
    row("kinds", "accept", "both ends, holder with start time, listed and unlisted"),
    row("kinds", "accept-ipv6", "IPv6"),
    row("kinds", "accept-mapped", "an IPv4 peer of an IPv6 listener"),
    row("kinds", "accept-container", "a listener inside a container is the container's"),
    row("kinds", "close", "exact bytes in and out, duration"),
    row("kinds", "connect", "established from a container, both ends, and its close"),
    row("kinds", "connect-ipv6", "IPv6"),
    row("kinds", "connect-lateral", "attempted, towards a management port"),
    row("kinds", "refused", "nobody listens there"),
    row("kinds", "exec", "in a container: arguments, parents, cgroup"),
    row("kinds", "exec-runtime", "`runc` called on the host"),
    row("kinds", "exit", "code and signal"),
    row("kinds", "container", "created, started and stopped, from its cgroup"),
    row("kinds", "socket-connect", "a container connects to a runtime's socket: path, inode, process")
        .but(&[("5.10", Owed::SeenBy("fentry_unix_connect"))])
        .by("lsm_unix_connect"),
    row(
        "kinds",
        "socket-requests",
        "a container has another made on a runtime's socket: route, status, flags, process; else the connect, and why not more",
    )
    .but(&[("5.10", Owed::SeenBy("socket_connect")), ("6.1", Owed::SeenBy("fentry_unix_requests"))])
    .by("unix_requests"),
    row("kinds", "file-read", "a container reads a token: path, class, process")
        .but(&[("5.10", Owed::SeenBy("fentry_file_open"))])
        .by("lsm_file_open"),
    row("kinds", "accept-task", "the process that takes a connection")
        .but(&[("5.10", Owed::SeenBy("accept_task_of_four")), ("6.1", Owed::SeenBy("accept_task_of_four"))])
        .by("accept_task"),
    row(
        "sensor",
        "stop",
        "exit code 0, no gap in the sequence, every balance even, canaries of every kind in it",
    ),
    row("runc", "runc", "a container of real `runc`: created, started, stopped, its exec"),
    row("crun", "crun", "the same of `crun`"),
    row("scopes", "runc-scope", "`runc --systemd-cgroup`: the scope is the container"),
    row("scopes", "crun-scope", "the same of `crun`"),
    row(
        "docker",
        "docker-scope",
        "`docker run` over TCP, systemd driver: accept, shim and runtime, container",
    ),
    row("docker-cgroupfs", "docker-cgroupfs", "the same with the cgroupfs driver, from a listed peer"),
    row("containerd", "ctr", "`ctr run` in containerd's default namespace"),
    row("containerd", "kubernetes", "`ctr run` in `k8s.io` as the CRI plug-in has it, in the slice of a pod"),
    row("podman", "podman-scope", "`podman run` of root with `crun`, systemd manager"),
    row("podman", "podman-cgroupfs", "the same with `runc`, cgroupfs manager"),
    row("rootless", "rootless-scope", "`podman run` of another user with `crun`, its own service manager"),
    row("rootless", "rootless-cgroupfs", "the same with `runc`, cgroupfs manager"),
    row("loss", "loss", "tiny rings: what is lost is counted and reported"),
    row(
        "flood",
        "flood",
        "200 connections of one peer: each has a record or is counted in a summary, one with a request has a record",
    ),
    row("half-open", "half-open", "40 attempts that are never completed: counted in a summary"),
    row(
        "half-open",
        "flood-request",
        "20 requests on connections beyond the budget: each is read, with its answer, while its connection is open",
    ),
    row(
        "requests",
        "requests",
        "a request in single bytes and another after it: method, route, class, flags of the body, status",
    ),
    row("requests", "requests-ipv6", "the same over IPv6"),
    row(
        "requests",
        "requests-cause",
        "the id in the answer to a create request proves the cause of a container",
    ),
    row("requests", "requests-foreign", "TLS on a plaintext port is said"),
    row(
        "idle",
        "requests-idle",
        "without a management listener the hooks on packets rest; one calls them, and what was missed is said",
    ),
    row(
        "coverage",
        "coverage",
        "every canary comes back; a hook that is silenced is found out; what is `live`",
    )
    .but(WITHOUT_SOCKET_REQUESTS)
    .by("all"),
    row(
        "coverage",
        "silenced-functions",
        "hooks of functions that the kernel is told not to call are found out, and their return; else the kernel does not take that",
    )
    .but(&[("5.10", Owed::SeenBy("refused: busy")), ("7.x", Owed::SeenBy("refused: unsupported"))])
    .by("silenced"),
    row("doctor", "doctor", "the same verdict before anything is installed; exit code 3 as another user")
        .but(WITHOUT_SOCKET_REQUESTS)
        .by("all"),
    row("time", "clock-step", "the wall clock set ahead and back: order and durations stay"),
    row("time", "pid-reuse", "a process id that comes again inherits nothing"),
    row("time", "suspend", "5 seconds asleep: they count, and nothing is in doubt for them").by("mem"),
    row("rights", "capabilities", "works as another user with BPF, PERFMON and NET_ADMIN alone"),
    row("rights", "no-capabilities", "refuses in one sentence, exit code 3"),
    row("rights", "no-perfmon", "the same with BPF and NET_ADMIN only"),
    row("rights", "no-bpf", "the same with PERFMON only"),
    row("no-btf", "no-btf", "refuses in one sentence, exit code 3"),
    row("lockdown", "lockdown-integrity", "works"),
    row(
        "lockdown",
        "lockdown-confidentiality",
        "says what is lost; sockets are seen, or it refuses with exit code 3",
    )
    .by("sockets")
    .but(&[("5.10", Owed::SeenBy("refusal"))]),
    row("lockdown", "lockdown-unknown", "the same without securityfs; both causes are named")
        .by("sockets")
        .but(&[("5.10", Owed::SeenBy("refusal"))]),
];

/// What is said on the sockets of runtimes is seen from 5.16 on.
const WITHOUT_SOCKET_REQUESTS: &[(&str, Owed)] = &[("5.10", Owed::SeenBy("all but socket-requests"))];

/// What a machine owes for a row; `None` when it does not try it.
pub fn owed(machine: &Machine, row: &Row) -> Option<Owed> {
    let slug = machine.slug();
    let but = row.but.iter().find(|(name, _)| *name == machine.kernel || *name == slug);
    machine.stages.contains(&row.stage).then(|| but.map_or(row.usually, |(_, owed)| *owed))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn machines_and_tested_kernels_name_kernels() {
        let is_kernel = |name: &str| KERNELS.iter().any(|kernel| kernel.name == name);
        assert!(MACHINES.iter().all(|machine| is_kernel(machine.kernel)));
        assert!(TESTED.iter().chain([&TESTED_WITH_DISK]).all(|name| is_kernel(name)));
        let is_machine = |name: &str| MACHINES.iter().any(|machine| machine.slug() == name);
        assert!(ROWS.iter().flat_map(|row| row.but).all(|(name, _)| is_kernel(name) || is_machine(name)));
    }

    #[test]
    fn every_stage_has_a_row_and_every_row_a_machine() {
        for machine in MACHINES {
            for stage in machine.stages {
                assert!(ROWS.iter().any(|row| row.stage == *stage), "{stage}");
            }
        }
        for row in ROWS {
            assert!(MACHINES.iter().any(|machine| owed(machine, row).is_some()), "{}", row.name);
        }
    }

    #[test]
    fn every_kernel_runs_on_version_2_and_each_other_layout_is_run() {
        let has = |wanted: &dyn Fn(&Machine) -> bool| MACHINES.iter().any(wanted);
        for (kernel, machine) in KERNELS.iter().zip(MACHINES) {
            assert_eq!((machine.kernel, machine.cgroups), (kernel.name, Cgroups::V2));
            assert_eq!(machine.root, Root::Initramfs);
        }
        for cgroups in [Cgroups::Hybrid, Cgroups::V1] {
            assert!(has(&|machine| machine.cgroups == cgroups));
        }
    }

    #[test]
    fn tests_boot_both_kinds_of_machines() {
        let tested: Vec<String> =
            MACHINES.iter().filter(|machine| is_tested(machine)).map(ToString::to_string).collect();
        assert_eq!(tested, ["5.10 v2", "6.1 v2", "7.x v2", "6.1 v2 disk"]);
    }
}
