//! What procfs says of one process: program and arguments of those that were there before the sensor.

use std::fs;
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::sync::Arc;

use sensor_common::record::ARGS_MAX;
use sensor_core::engine::SeedProcess;
use sensor_core::event::PROC_TICK_NS;
use sensor_core::fact::ExeFlags;
use sensor_core::ids::{FileKey, ProcessKey};
use sensor_core::namespaces::Namespaces;
use sensor_core::programs::Contents;

use super::Roots;
use super::file;
use super::mounts::{self, Mount, device_number, directory_key};

/// Most bytes of `/proc/<pid>/stat`.
const STAT_MAX: u64 = 4096;
/// Inode of the initial pid namespace: `PROC_PID_INIT_INO` in include/linux/proc_ns.h.
const INITIAL_PID_NAMESPACE: u32 = 0xefff_fffc;
/// What the kernel appends to the path of a program whose file was removed.
const SUFFIX_DELETED: &str = " (deleted)";
/// How the path of a program begins that was made in memory.
const PREFIX_MEMFD: &str = "/memfd:";

/// Processes by pid.
#[derive(Clone, Debug)]
pub struct Processes {
    root: PathBuf,
}

impl Processes {
    /// Looks at the processes of this procfs.
    #[must_use]
    pub fn new(roots: &Roots) -> Self {
        Self { root: roots.proc.clone() }
    }

    /// Adds program and arguments to a process of the task iterator; fields of a process that is gone stay unknown.
    #[must_use]
    pub fn seed(&self, item: sensor_common::record::TaskItem) -> SeedProcess {
        let key = ProcessKey { pid: item.task.pid, start_ns: item.task.start_ns };
        let (exe, args) = (self.exe(key.pid), self.args(key.pid));
        let namespaces = self.namespaces(key.pid);
        let (contents, flags) = self.program(key.pid);
        let (args, truncated) = args.map_or((None, false), |(args, cut)| (Some(args), cut));
        // Asked after reading: if it is still the same process now, it was when exe and args were read.
        if self.is_alive(key) {
            SeedProcess { item, exe, args, truncated, contents, flags, namespaces }
        } else {
            SeedProcess {
                item,
                exe: None,
                args: None,
                truncated: false,
                contents: None,
                flags: ExeFlags::default(),
                namespaces: Namespaces::default(),
            }
        }
    }

    /// The file that a process runs, by the numbers that programs are told, and what it is like.
    fn program(&self, pid: u32) -> (Option<Contents>, ExeFlags) {
        let path = self.file(pid, "exe");
        let text = fs::read_link(&path).unwrap_or_default().to_string_lossy().into_owned();
        let flags = ExeFlags {
            deleted: text.ends_with(SUFFIX_DELETED) && !text.starts_with(PREFIX_MEMFD),
            memfd: text.starts_with(PREFIX_MEMFD),
            script: false,
        };
        let contents = fs::metadata(path).ok().and_then(|status| {
            let device = device_number(libc::major(status.dev()), libc::minor(status.dev()));
            let changed_ns = status.ctime().checked_mul(1_000_000_000)?.checked_add(status.ctime_nsec())?;
            let file = FileKey { device, inode: status.ino() };
            Some(Contents { file, changed_ns: u64::try_from(changed_ns).ok()? })
        });
        (contents, flags)
    }

    /// Where a process is; what may not be looked at is unknown.
    #[must_use]
    pub fn namespaces(&self, pid: u32) -> Namespaces {
        self.namespaces_of(&pid.to_string())
    }

    fn namespaces_of(&self, process: &str) -> Namespaces {
        let directory = self.root.join(process);
        let inode = |name: &str| {
            let inode = fs::metadata(directory.join(name)).map_or(0, |status| status.ino());
            u32::try_from(inode).unwrap_or(0)
        };
        let root = directory_key(&directory.join("root/"), &[]).ok().flatten().unwrap_or_default();
        Namespaces { mnt: inode("ns/mnt"), pid: inode("ns/pid"), root }
    }

    /// Where the host's own processes are: the first of them, or this one where the first may not be looked at. Nothing is
    /// known where this procfs is not the host's.
    #[must_use]
    pub fn host_namespaces(&self, roots: &Roots) -> Namespaces {
        let of_host = |process| {
            let found = self.namespaces_of(process);
            (found.pid == INITIAL_PID_NAMESPACE).then_some(found)
        };
        let Some(found) = of_host("1").or_else(|| of_host("self")) else { return Namespaces::default() };
        let text = mounts::text(roots).unwrap_or_default();
        let mounts: Vec<Mount<'_>> = text.lines().filter_map(Mount::parse).collect();
        Namespaces { root: directory_key(&roots.host, &mounts).ok().flatten().unwrap_or_default(), ..found }
    }

    /// Inode of the host's network namespace: that of the first process, or of this one where the first may not be looked
    /// at; 0 when neither is known.
    #[must_use]
    pub fn host_network(&self) -> u32 {
        let inode = |process: &str| fs::metadata(self.root.join(process).join("ns/net")).ok();
        let status = inode("1").or_else(|| inode("self"));
        status.and_then(|status| u32::try_from(status.ino()).ok()).unwrap_or(0)
    }

    /// Whether the process with this key still runs; a pid that was given to another process does not count.
    ///
    /// The start time in procfs is cut to 10 ms, so a process that took over the pid within the same 10 ms would pass.
    #[must_use]
    pub fn is_alive(&self, key: ProcessKey) -> bool {
        self.start_ticks(key.pid).is_some_and(|ticks| ticks == key.start_ns / PROC_TICK_NS)
    }

    /// Path of the program, without the note of the kernel that it was deleted.
    #[must_use]
    pub fn exe(&self, pid: u32) -> Option<Arc<str>> {
        let path = fs::read_link(self.file(pid, "exe")).ok()?;
        let path = path.to_string_lossy();
        Some(path.strip_suffix(SUFFIX_DELETED).unwrap_or(&path).into())
    }

    /// Arguments, at most as many bytes as an exec record carries, and whether they were cut there; `None` for kernel
    /// threads and zombies.
    #[must_use]
    pub fn args(&self, pid: u32) -> Option<(Arc<[Arc<str>]>, bool)> {
        let mut content = Vec::new();
        let file = fs::File::open(self.file(pid, "cmdline")).ok()?;
        // One byte beyond the bound tells whether there is more.
        file.take(ARGS_MAX as u64 + 1).read_to_end(&mut content).ok()?;
        let cut = content.len() > ARGS_MAX;
        content.truncate(ARGS_MAX);
        if content.is_empty() {
            return None;
        }
        let text = content.strip_suffix(b"\0").unwrap_or(&content);
        let args =
            text.split(|byte| *byte == 0).map(|argument| String::from_utf8_lossy(argument).into()).collect();
        Some((args, cut))
    }

    /// When a process was started, boot clock, in units of [`PROC_TICK_NS`]; `None` when it is gone.
    #[must_use]
    pub fn start_ticks(&self, pid: u32) -> Option<u64> {
        let content = file::read(&self.file(pid, "stat"), STAT_MAX, None).ok()?;
        // The name may hold anything, parentheses included; the numbers start after the last one. Field 22 is the 20th
        // of them.
        let end_of_name = content.iter().rposition(|byte| *byte == b')')?;
        str::from_utf8(&content[end_of_name + 1..]).ok()?.split_ascii_whitespace().nth(19)?.parse().ok()
    }

    fn file(&self, pid: u32, name: &str) -> PathBuf {
        self.root.join(format!("{pid}/{name}"))
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn fixture(stat: &str, cmdline: &[u8], exe: &str) -> (tempfile::TempDir, Processes) {
        let directory = tempfile::tempdir().unwrap();
        let process = directory.path().join("7");
        fs::create_dir(&process).unwrap();
        fs::write(process.join("stat"), stat).unwrap();
        fs::write(process.join("cmdline"), cmdline).unwrap();
        symlink(exe, process.join("exe")).unwrap();
        let processes = Processes { root: directory.path().into() };
        (directory, processes)
    }

    const STAT: &str = "7 (a) b (c) S 1 7 7 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 205502 1 2";

    #[test]
    fn program_and_arguments_are_read() {
        let (_keep, processes) = fixture(STAT, b"dockerd\0--data-root\0\0x\0", "/usr/sbin/dockerd (deleted)");
        assert_eq!(processes.exe(7).as_deref(), Some("/usr/sbin/dockerd"));
        let (args, cut) = processes.args(7).unwrap();
        assert_eq!(args.iter().map(|arg| &**arg).collect::<Vec<_>>(), ["dockerd", "--data-root", "", "x"]);
        assert!(!cut);
        assert_eq!(processes.exe(8), None);
        assert_eq!(processes.args(8), None);
    }

    #[test]
    fn arguments_are_bounded_and_never_invalid_text() {
        let (_keep, processes) = fixture(STAT, &[0xff; ARGS_MAX + 100], "/x");
        let (args, cut) = processes.args(7).unwrap();
        assert_eq!((args.len(), args[0].chars().count(), cut), (1, ARGS_MAX, true));
        let (_keep, processes) = fixture(STAT, &[b'x'; ARGS_MAX], "/x");
        assert!(!processes.args(7).unwrap().1, "exactly at the bound");
        let (_keep, processes) = fixture(STAT, b"", "/x");
        assert_eq!(processes.args(7), None);
    }

    #[test]
    fn a_reused_pid_is_another_process() {
        let (_keep, processes) = fixture(STAT, b"x", "/x");
        let key = |start_ns| ProcessKey { pid: 7, start_ns };
        assert!(processes.is_alive(key(205_502 * PROC_TICK_NS + 4_321)));
        assert!(!processes.is_alive(key(205_501 * PROC_TICK_NS)));
        let (_keep, processes) = fixture("7 (x", b"x", "/x");
        assert!(!processes.is_alive(key(0)));
    }

    #[test]
    fn namespaces_are_those_of_the_process_and_of_nobody_else() {
        let roots = Roots::default();
        let processes = Processes::new(&roots);
        let own = processes.namespaces(std::process::id());
        let inode = |name: &str| fs::metadata(format!("/proc/self/ns/{name}")).unwrap().ino();
        assert_eq!((u64::from(own.mnt), u64::from(own.pid)), (inode("mnt"), inode("pid")));
        assert_eq!(own.root.inode, fs::metadata("/").unwrap().ino());
        assert_eq!(processes.namespaces(u32::MAX), Namespaces::default());
        let (_keep, elsewhere) = fixture(STAT, b"x", "/x");
        assert_eq!(elsewhere.host_namespaces(&roots), Namespaces::default());
    }

    #[test]
    fn the_running_process_is_found() {
        let processes = Processes::new(&Roots::default());
        let pid = std::process::id();
        let start_ns = processes.start_ticks(pid).unwrap() * PROC_TICK_NS;
        assert!(processes.is_alive(ProcessKey { pid, start_ns }));
        assert_eq!(processes.exe(pid).as_deref(), std::env::current_exe().unwrap().to_str());
    }
}
