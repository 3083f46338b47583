//! The kernel, the rights of this process, mounts and cgroups, as files tell.

use std::fs;
use std::path::Path;

use super::Check;
use crate::kernel::{FIRST_KERNEL, security_modules};
use crate::lookups::cgroupfs::Hierarchies;
use crate::lookups::confinement::Confinement;
use crate::lookups::{Roots, file};

/// Most bytes of a kernel file with a line or two.
const LINE_FILE_MAX: u64 = 64 << 10;
/// First kernel that accounts the memory of maps to the cgroup instead of `RLIMIT_MEMLOCK`.
const FIRST_WITHOUT_MEMLOCK: (u32, u32) = (5, 11);
/// What the maps and rings take where that limit counts.
const MEMLOCK_WANTED: u64 = 64 << 20;

/// A capability, what it is for, and whether nothing works without it.
struct Right {
    bit: u32,
    name: &'static str,
    purpose: &'static str,
    required: bool,
}

const fn right(bit: u32, name: &'static str, purpose: &'static str, required: bool) -> Right {
    Right { bit, name, purpose, required }
}

/// Includes [`RIGHTS`] `CAP_BPF` and `CAP_PERFMON`, which were split off it.
const CAP_SYS_ADMIN: u32 = 21;
/// With it the sensor raises its own limit of locked memory.
const CAP_SYS_RESOURCE: u32 = 24;

const RIGHTS: &[Right] = &[
    right(39, "CAP_BPF", "loads the probes and their maps", true),
    right(38, "CAP_PERFMON", "attaches them to tracepoints and reads what they point to", true),
    right(12, "CAP_NET_ADMIN", "attaches programs to the packets of a cgroup", true),
    right(19, "CAP_SYS_PTRACE", "reads program and arguments of processes that were there before", false),
    right(2, "CAP_DAC_READ_SEARCH", "reads the state directories of the runtimes", false),
];

/// Looks at everything that files tell.
#[must_use]
pub fn checks(roots: &Roots) -> Vec<Check> {
    let release = line(&roots.proc.join("sys/kernel/osrelease")).unwrap_or_default();
    let mut checks = vec![
        kernel(&release),
        type_information(&roots.host_path("sys/kernel/btf/vmlinux")),
        lockdown(line(&roots.host_path("sys/kernel/security/lockdown")).as_deref()),
        modules(line(&roots.host_path(security_modules::PATH)).as_deref()),
        confinement(Confinement::find(roots)),
    ];
    let effective = effective_capabilities(&text(&roots.proc.join("self/status")));
    checks.extend(user_namespace(line(&roots.proc.join("self/uid_map")).as_deref()));
    checks.extend(capabilities(effective));
    if version(&release) < FIRST_WITHOUT_MEMLOCK {
        checks.push(memlock(&text(&roots.proc.join("self/limits")), effective));
    }
    let mounts = text(&roots.proc.join("self/mountinfo"));
    checks.extend(file_systems(&mounts));
    checks.push(cgroups(&Hierarchies::find(roots).unwrap_or_default(), &mounts));
    checks
}

fn text(path: &Path) -> String {
    const MOUNTS_MAX: u64 = 4 << 20;
    let content = file::read(path, MOUNTS_MAX, None).unwrap_or_default();
    String::from_utf8_lossy(&content).into_owned()
}

fn line(path: &Path) -> Option<String> {
    let content = file::read(path, LINE_FILE_MAX, None).ok()?;
    Some(String::from_utf8_lossy(&content).trim().to_owned())
}

fn version(release: &str) -> (u32, u32) {
    let mut numbers =
        release.split(|char: char| !char.is_ascii_digit()).map_while(|digits| digits.parse().ok());
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

fn kernel(release: &str) -> Check {
    let (major, minor) = FIRST_KERNEL;
    match release {
        "" => Check::note("kernel", "its release cannot be read", Some("mount procfs")),
        _ if version(release) >= FIRST_KERNEL => Check::ok("kernel", format!("Linux {release}")),
        _ => Check::missing(
            "kernel",
            format!("Linux {release}, older than {major}.{minor}"),
            "update the kernel: older ones have no BPF ring buffer",
        ),
    }
}

fn type_information(path: &Path) -> Check {
    match fs::metadata(path) {
        Ok(metadata) => {
            Check::ok("type information", format!("{} ({} bytes)", path.display(), metadata.len()))
        }
        Err(error) => Check::missing(
            "type information",
            format!("{}: {error}", path.display()),
            "use a kernel built with CONFIG_DEBUG_INFO_BTF=y; in a container, mount /sys of the host",
        ),
    }
}

/// The file lists all levels and puts the present one in brackets.
fn lockdown(levels: Option<&str>) -> Check {
    let present = levels.and_then(|levels| Some(levels.split_once('[')?.1.split_once(']')?.0));
    match present {
        Some("confidentiality") => Check::missing(
            "lockdown",
            "confidentiality: the kernel lets no program read its memory, nor that of processes",
            "boot with lockdown=integrity",
        ),
        Some(level) => Check::ok("lockdown", level),
        None => Check::note("lockdown", "not known: securityfs cannot be read, or the kernel has none", None),
    }
}

fn modules(list: Option<&str>) -> Check {
    let name = "security modules";
    match list {
        Some(list) if list.split(',').any(|module| module == "bpf") => Check::ok(name, list),
        Some(list) => {
            let remedy = format!("boot with lsm={list},bpf where a hook asks for it");
            Check::note(name, format!("{list}; without bpf, programs on them never run"), Some(&remedy))
        }
        None => Check::note(
            name,
            format!("{} cannot be read", security_modules::PATH),
            Some("mount securityfs: mount -t securityfs none /sys/kernel/security"),
        ),
    }
}

/// The bits of the effective capabilities; `status` is `/proc/self/status`.
/// What `apparmor-off` and `selinux-off` can be told by.
fn confinement(confinement: Confinement) -> Check {
    let name = "confinement";
    match confinement {
        Confinement { apparmor: true, selinux: true } => Check::ok(name, "AppArmor and SELinux"),
        Confinement { apparmor: true, .. } => Check::ok(name, "AppArmor"),
        Confinement { selinux: true, .. } => Check::ok(name, "SELinux"),
        _ => Check::note(
            name,
            "neither AppArmor nor SELinux is on: no container is told as apparmor-off or selinux-off",
            None,
        ),
    }
}

fn effective_capabilities(status: &str) -> Option<u64> {
    let digits = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
    u64::from_str_radix(digits.trim(), 16).ok()
}

/// `uid_map` has a line per range: first id here, first id outside, length. `None` when it cannot be read, as on kernels
/// without user namespaces.
fn user_namespace(uid_map: Option<&str>) -> Option<Check> {
    let name = "user namespace";
    let is_initial = |map: &str| map.split_ascii_whitespace().eq(["0", "0", "4294967295"]);
    uid_map.map(|map| match is_initial(map) {
        true => Check::ok(name, "the initial one"),
        false => Check::missing(
            name,
            "not the initial one: capabilities held here count for nothing in the kernel's eyes",
            "run outside of it: as root of the host, or in a container that is not rootless",
        ),
    })
}

/// `effective` is `None` when it cannot be read.
fn capabilities(effective: Option<u64>) -> Vec<Check> {
    let Some(effective) = effective else {
        return vec![Check::note("capabilities", "not known: procfs cannot be read", Some("mount procfs"))];
    };
    let has = |bit: u32| effective & (1 << bit) != 0;
    let check = |right: &Right| {
        let replaced = matches!(right.name, "CAP_BPF" | "CAP_PERFMON") && has(CAP_SYS_ADMIN);
        if has(right.bit) || replaced {
            return Check::ok(right.name, right.purpose);
        }
        let remedy = "run as root or add it, as with AmbientCapabilities= of systemd";
        match right.required {
            true => Check::missing(right.name, right.purpose, remedy),
            false => Check::note(right.name, format!("not held; {}", right.purpose), Some(remedy)),
        }
    };
    RIGHTS.iter().map(check).collect()
}

/// `limits` is `/proc/self/limits`: the name, then soft and hard limit.
fn memlock(limits: &str, effective: Option<u64>) -> Check {
    let name = "locked memory";
    if effective.is_some_and(|effective| effective & (1 << CAP_SYS_RESOURCE) != 0) {
        return Check::ok(name, "CAP_SYS_RESOURCE raises the limit");
    }
    let soft = limits.lines().find_map(|line| {
        line.strip_prefix("Max locked memory")?.split_ascii_whitespace().next().map(str::to_owned)
    });
    match soft.as_deref() {
        Some("unlimited") => Check::ok(name, "unlimited"),
        Some(soft) if soft.parse::<u64>().is_ok_and(|bytes| bytes >= MEMLOCK_WANTED) => {
            Check::ok(name, format!("{soft} bytes"))
        }
        Some(soft) => Check::missing(
            name,
            format!("{soft} bytes; kernels before 5.11 count maps against it"),
            "set LimitMEMLOCK=infinity, or add CAP_SYS_RESOURCE",
        ),
        None => Check::note(name, "the limit cannot be read", None),
    }
}

fn file_systems(mounts: &str) -> Vec<Check> {
    let mounted = |kind: &str| {
        mounts.lines().find_map(|line| {
            let (left, right) = line.split_once(" - ")?;
            (right.split(' ').next() == Some(kind)).then(|| left.split(' ').nth(4)).flatten()
        })
    };
    let check = |kind: &str, purpose: &str, remedy: &str| match mounted(kind) {
        Some(place) => Check::ok(kind, place),
        None => Check::note(kind, format!("not mounted; {purpose}"), Some(remedy)),
    };
    vec![
        check(
            "securityfs",
            "tells lockdown and the security modules",
            "mount -t securityfs none /sys/kernel/security",
        ),
        check("tracefs", "only classic tracepoints need it", "mount -t tracefs none /sys/kernel/tracing"),
        check("bpf", "the sensor pins nothing there", "nothing to do"),
    ]
}

/// The layout, and who names the cgroups of containers.
fn cgroups(hierarchies: &Hierarchies, mounts: &str) -> Check {
    let name = "cgroups";
    let has_v1 = mounts.lines().any(|line| line.contains(" - cgroup "));
    let layout = match (&hierarchies.unified, has_v1) {
        (Some(_), false) => "version 2",
        (Some(_), true) => "hybrid: version 1 beside version 2",
        (None, true) => "version 1",
        (None, false) => {
            let remedy = "mount /sys/fs/cgroup of the host";
            return Check::missing(name, "no hierarchy is mounted: containers cannot be told apart", remedy);
        }
    };
    let places = hierarchies.pids.iter().chain(&hierarchies.unified);
    let driver = places.map(|hierarchy| driver(&hierarchy.mount_point)).find(|driver| driver.is_some());
    let found = format!("{layout}; driver: {}", driver.flatten().unwrap_or("no container to tell it by"));
    match hierarchies.unified {
        Some(_) => Check::ok(name, found),
        None => Check::note(
            name,
            format!("{found}; the cgroup of a socket is not known, only that of its holder"),
            Some(
                "nothing with CAP_SYS_ADMIN, by which the sensor mounts version 2 for itself; else mount -t cgroup2 none /sys/fs/cgroup/unified",
            ),
        ),
    }
}

/// Which driver made the cgroups of the containers that run now, by their names.
fn driver(mount_point: &Path) -> Option<&'static str> {
    let names = |directory: &Path| {
        let entries = fs::read_dir(directory).into_iter().flatten().flatten();
        entries.filter_map(|entry| entry.file_name().into_string().ok()).collect::<Vec<_>>()
    };
    let top = names(mount_point);
    let scopes = names(&mount_point.join("system.slice"));
    let is_scope = |name: &String| name.starts_with("docker-") && name.ends_with(".scope");
    if top.iter().any(|name| name == "kubepods.slice") || scopes.iter().any(is_scope) {
        Some("systemd")
    } else {
        top.iter().any(|name| name == "docker" || name == "kubepods").then_some("cgroupfs")
    }
}

#[cfg(test)]
mod tests {
    use super::super::CheckState::{Missing, Note, Ok as Good};
    use super::super::{CheckState, Verdict};
    use super::*;

    /// A host made of files.
    fn host(files: &[(&str, &str)]) -> (tempfile::TempDir, Roots) {
        let directory = tempfile::tempdir().unwrap();
        for (path, content) in files {
            let path = directory.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
        let roots = Roots { host: directory.path().into(), proc: directory.path().join("proc") };
        (directory, roots)
    }

    const ROOT: &str = "Name:\tx\nCapEff:\t000001ffffffffff\n";
    const HEALTHY: &[(&str, &str)] = &[
        ("proc/sys/kernel/osrelease", "6.1.0-30-amd64\n"),
        ("proc/self/status", ROOT),
        ("proc/self/uid_map", "         0          0 4294967295\n"),
        (
            "proc/self/mountinfo",
            "1 2 0:3 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n4 2 0:5 / /s rw - securityfs x rw\n",
        ),
        ("sys/kernel/btf/vmlinux", "x"),
        ("sys/kernel/security/lockdown", "[none] integrity confidentiality\n"),
        ("sys/kernel/security/lsm", "lockdown,capability,bpf\n"),
        ("sys/module/apparmor/parameters/enabled", "Y\n"),
    ];

    /// A healthy host with one file replaced, or taken away.
    fn but(path: &str, content: Option<&str>) -> Vec<Check> {
        let mut files: Vec<_> = HEALTHY.iter().filter(|(known, _)| *known != path).copied().collect();
        files.extend(content.map(|content| (path, content)));
        let (_keep, roots) = host(&files);
        checks(&roots)
    }

    #[track_caller]
    fn expect(checks: &[Check], name: &str, state: CheckState, remedy: &str) {
        let check = checks.iter().find(|check| check.name == name).expect("it was looked at");
        assert_eq!(check.state, state, "{check:?}");
        assert!(check.remedy.as_deref().unwrap_or_default().contains(remedy), "{check:?}");
    }

    #[test]
    fn a_healthy_host_misses_nothing() {
        let (_keep, roots) = host(HEALTHY);
        let checks = checks(&roots);
        assert!(checks.iter().all(|check| check.state != Missing), "{checks:#?}");
        for name in [
            "kernel",
            "type information",
            "lockdown",
            "security modules",
            "confinement",
            "CAP_BPF",
            "cgroups",
        ] {
            expect(&checks, name, Good, "");
        }
    }

    #[test]
    fn what_is_broken_is_named_with_its_remedy() {
        expect(&but("sys/kernel/btf/vmlinux", None), "type information", Missing, "CONFIG_DEBUG_INFO_BTF");
        let confidential = "none integrity [confidentiality]\n";
        expect(
            &but("sys/kernel/security/lockdown", Some(confidential)),
            "lockdown",
            Missing,
            "lockdown=integrity",
        );
        expect(&but("proc/sys/kernel/osrelease", Some("4.19.0\n")), "kernel", Missing, "update the kernel");
        let lsm = but("sys/kernel/security/lsm", Some("lockdown,capability\n"));
        expect(&lsm, "security modules", Note, "lsm=lockdown,capability,bpf");
        expect(&but("sys/kernel/security/lsm", None), "security modules", Note, "mount securityfs");
        expect(&but("sys/module/apparmor/parameters/enabled", Some("N\n")), "confinement", Note, "");
        let v1 = but("proc/self/mountinfo", Some("1 2 0:3 / /sys/fs/cgroup/pids rw - cgroup x rw,pids\n"));
        expect(&v1, "cgroups", Note, "cgroup2");
        expect(&v1, "securityfs", Note, "mount -t securityfs");
        expect(&but("proc/self/mountinfo", None), "cgroups", Missing, "/sys/fs/cgroup");
    }

    #[test]
    fn rights_within_a_user_namespace_are_none() {
        for map in ["0 1000 1\n", "0 1000 1\n1 100000 65536\n", "0 0 65536\n", ""] {
            expect(&but("proc/self/uid_map", Some(map)), "user namespace", Missing, "outside");
        }
        expect(&but("proc/self/uid_map", Some("0 0 4294967295\n")), "user namespace", Good, "");
        let unknown = but("proc/self/uid_map", None);
        assert!(unknown.iter().all(|check| check.name != "user namespace"));
    }

    #[test]
    fn rights_are_told_one_by_one() {
        let nobody = but("proc/self/status", Some("CapEff:\t0000000000000000\n"));
        expect(&nobody, "CAP_BPF", Missing, "AmbientCapabilities");
        expect(&nobody, "CAP_SYS_PTRACE", Note, "AmbientCapabilities");
        let old_root = but("proc/self/status", Some("CapEff:\t0000000000201000\n"));
        for name in ["CAP_BPF", "CAP_PERFMON", "CAP_NET_ADMIN"] {
            expect(&old_root, name, Good, "");
        }
    }

    #[test]
    fn locked_memory_counts_on_old_kernels_only() {
        let mut files = HEALTHY.to_vec();
        files[0].1 = "5.10.0-30-amd64";
        files.push((
            "proc/self/limits",
            "Max locked memory         65536                65536                bytes\n",
        ));
        let (_keep, roots) = host(&files);
        expect(&checks(&roots), "locked memory", Good, "");
        let without_resource = "CapEff:\t000001fffeffffff\n";
        files[1].1 = without_resource;
        let (_keep, roots) = host(&files);
        expect(&checks(&roots), "locked memory", Missing, "LimitMEMLOCK");
        let (_keep, roots) = host(HEALTHY);
        assert!(checks(&roots).iter().all(|check| check.name != "locked memory"));
    }

    #[test]
    fn the_driver_shows_in_the_names() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(driver(directory.path()), None);
        fs::create_dir_all(directory.path().join("docker/abc")).unwrap();
        assert_eq!(driver(directory.path()), Some("cgroupfs"));
        fs::create_dir_all(directory.path().join("system.slice/docker-abc.scope")).unwrap();
        assert_eq!(driver(directory.path()), Some("systemd"));
    }

    #[test]
    fn hostile_or_absent_files_are_answers() {
        let nonsense = "\u{0}\u{fffd} - - - [[\n]x[ CapEff: zz\nCapEff:\tzz\nMax locked memory\n1 - cgroup\n";
        for content in ["", nonsense, "[", "]", " - ", "CapEff:", "999999999999999999999.1"] {
            let files: Vec<_> = HEALTHY.iter().map(|(path, _)| (*path, content)).collect();
            let (_keep, roots) = host(&files);
            let report = super::super::Report::new(
                checks(&roots),
                &super::super::Trial::Refused("x".to_owned()),
                Vec::new(),
                Vec::new(),
            );
            assert_eq!(report.verdict, Verdict::CannotRun);
            assert!(report.text().contains("cgroups"), "{content:?}");
        }
        let (_keep, roots) = host(&[]);
        assert!(!checks(&roots).is_empty());
    }
}
