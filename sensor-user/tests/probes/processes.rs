//! Forks, execs and exits.

use std::collections::HashSet;
use std::fs;
use std::io::{Read as _, Write as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use quaywatch::kernel::{Options, Probes};
use sensor_common::record::{
    ARGS_MAX, ExecRecord, ExitRecord, FILENAME_MAX, FileId, ForkRecord, RecordKind, Ring, exec_flags,
};
use sensor_common::settings::cgroup_class;

use crate::cgroups::Cgroup;
use crate::watch::{
    Outcome, Record, Watch, assert_cgroup, assert_task, key, namespace, own_cgroup, own_comm, start_ticks,
    stat_field, task_mount, text, ticks,
};

/// Starts `cat` and lets it copy a byte: then its exec is over. It waits for more, so that procfs can be read.
fn cat(args: &[&str]) -> Child {
    let mut command = Command::new("/bin/cat");
    command.arg0("the cat").args(args).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().expect("cat");
    child.stdin.as_mut().expect("a pipe").write_all(b"m").expect("write");
    child.stdout.as_mut().expect("a pipe").read_exact(&mut [0]).expect("read");
    child
}

/// The three parts behind an exec record.
fn tail<'a>(record: &'a Record, exec: &ExecRecord) -> (&'a str, &'a str, &'a [u8]) {
    let tail = record.tail::<ExecRecord>();
    let (name, tail) = tail.split_at(usize::from(exec.cgroup_name_len));
    let (file, args) = tail.split_at(usize::from(exec.filename_len));
    assert_eq!(args.len(), usize::from(exec.args_len));
    (text(name), text(file), args)
}

fn exec_of(outcome: &Outcome, pid: u32) -> (&Record, ExecRecord) {
    outcome.one::<ExecRecord>(RecordKind::Exec, |exec| exec.task.pid == pid)
}

/// Tells the probes that our own cgroup is the host's.
fn own_cgroup_is_host(probes: &mut Probes) {
    let hierarchy = probes.task_hierarchy();
    let (_, cgroup) = own_cgroup(&task_mount(hierarchy), hierarchy.id());
    probes.classify_cgroup(key(cgroup), cgroup_class::HOST).expect("classified");
}

#[test]
fn an_exec_says_what_procfs_says() {
    let watch = Watch::start(&[]);
    let hierarchy = watch.probes.task_hierarchy();
    let (_, cgroup) = own_cgroup(&task_mount(hierarchy), hierarchy.id());
    let mut child = cat(&["-", "-"]);
    let pid = child.id();
    let proc = PathBuf::from(format!("/proc/{pid}"));
    let cmdline = fs::read(proc.join("cmdline")).expect("arguments");
    let namespaces = (namespace(&proc, "pid"), namespace(&proc, "mnt"));
    let seen = watch.finish();

    let (record, exec) = exec_of(&seen, pid);
    assert_task(&exec.task, pid, "cat");
    assert_cgroup(exec.cgroup, cgroup);
    assert_eq!((exec.pid_ns, exec.mnt_ns), namespaces);
    assert_eq!(exec.ns_pid.to_string(), nspid(&proc));
    let (_, file, args) = tail(record, &exec);
    assert_eq!(file, "/bin/cat");
    assert_eq!(args, cmdline);
    assert_eq!(args, b"the cat\0-\0-\0");
    assert_eq!(exec.args_total, cmdline.len() as u64);
    assert_eq!(exec.flags & (exec_flags::TOOL | exec_flags::RUNTIME_LINEAGE), 0);
    assert!(exec.ancestors_len >= 1);
    assert_eq!(exec.ancestors[0].pid, std::process::id());
    drop(child.stdin.take());
    child.wait().expect("cat ends");
}

/// A file as the kernel knows it, from what it tells programs.
fn file_id(path: &Path) -> FileId {
    let status = fs::metadata(path).expect("it is there");
    let device = rustix::fs::major(status.dev()) << 20 | rustix::fs::minor(status.dev());
    FileId { inode: status.ino(), device, reserved: 0 }
}

/// Executes a file to its end and returns its process id.
fn run_to_end(path: &Path) -> u32 {
    let mut child = Command::new(path).spawn().expect("it can be executed");
    child.wait().expect("it ends");
    child.id()
}

#[test]
fn an_exec_says_which_file_is_loaded_and_what_is_the_root() {
    const NAME_FLAGS: u32 = exec_flags::DELETED | exec_flags::MEMFD | exec_flags::SCRIPT;
    let own = PathBuf::from(format!("/proc/{}/fd", std::process::id()));
    let directory = tempfile::tempdir().expect("a directory");
    let script = directory.path().join("script");
    fs::write(&script, "#!/bin/true\n").expect("written");
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).expect("made executable");
    let gone = directory.path().join("gone");
    fs::copy("/bin/true", &gone).expect("copied");
    let gone_file = fs::File::open(&gone).expect("opened");
    fs::remove_file(&gone).expect("removed");
    let sealed = rustix::fs::memfd_create("sealed", rustix::fs::MemfdFlags::CLOEXEC).expect("made");
    let mut sealed = fs::File::from(sealed);
    sealed.write_all(&fs::read("/bin/true").expect("read")).expect("written");
    // A file that is open for writing cannot be executed.
    let sealed_path = own.join(sealed.as_raw_fd().to_string());
    let sealed_file = fs::File::open(&sealed_path).expect("opened");
    drop(sealed);

    let watch = Watch::start(&[]);
    let plain = run_to_end(Path::new("/bin/true"));
    let scripted = run_to_end(&script);
    let deleted = run_to_end(&own.join(gone_file.as_raw_fd().to_string()));
    let in_memory = run_to_end(&own.join(sealed_file.as_raw_fd().to_string()));
    let seen = watch.finish();

    let program = file_id(Path::new("/bin/true"));
    let status = fs::metadata("/bin/true").expect("it is there");
    let changed_ns = (status.ctime() * 1_000_000_000 + status.ctime_nsec()) as u64;
    for (pid, flags) in [(plain, 0), (scripted, exec_flags::SCRIPT)] {
        let (_, exec) = exec_of(&seen, pid);
        assert_eq!((exec.exe, exec.exe_changed_ns, exec.flags & NAME_FLAGS), (program, changed_ns, flags));
        assert_eq!(exec.root, file_id(Path::new("/")));
    }
    for (pid, file, flags) in
        [(deleted, &gone_file, exec_flags::DELETED), (in_memory, &sealed_file, exec_flags::MEMFD)]
    {
        let (_, exec) = exec_of(&seen, pid);
        assert_eq!(exec.exe.inode, file.metadata().expect("it is there").ino());
        assert_eq!(exec.flags & NAME_FLAGS, flags);
    }
}

/// The pid of a process in its own pid namespace.
fn nspid(proc: &Path) -> String {
    let status = fs::read_to_string(proc.join("status")).expect("status");
    let line = status.lines().find_map(|line| line.strip_prefix("NSpid:")).expect("NSpid");
    line.split_whitespace().last().expect("a pid").to_owned()
}

#[test]
fn long_arguments_and_names_are_cut_and_their_length_is_told() {
    let watch = Watch::start(&[]);
    let long = "x".repeat(3 * ARGS_MAX);
    let deep = format!("/{}bin/true", "./".repeat(FILENAME_MAX));
    let mut child = Command::new(&deep).arg(&long).spawn().expect("true");
    let pid = child.id();
    child.wait().expect("true ends");
    let exact = "y".repeat(ARGS_MAX - "/bin/true".len() - 2);
    let mut fitting = Command::new("/bin/true").arg(&exact).spawn().expect("true");
    let fitting_pid = fitting.id();
    fitting.wait().expect("true ends");
    let outcome = watch.finish();

    let (record, exec) = exec_of(&outcome, pid);
    let whole = format!("{deep}\0{long}\0");
    let (_, file, args) = tail(record, &exec);
    assert_eq!(exec.args_total, whole.len() as u64);
    assert_eq!(args, &whole.as_bytes()[..ARGS_MAX]);
    assert_eq!(file, &deep[..FILENAME_MAX]);

    let (record, exec) = exec_of(&outcome, fitting_pid);
    let (_, _, args) = tail(record, &exec);
    assert_eq!(args, format!("/bin/true\0{exact}\0").as_bytes());
    assert_eq!((exec.args_total, args.len()), (ARGS_MAX as u64, ARGS_MAX));
}

#[test]
fn a_process_is_reported_from_fork_to_exit() {
    let watch = Watch::start(&[]);
    let mut child = Command::new("/bin/sh").args(["-c", "exit 7"]).spawn().expect("sh");
    let pid = child.id();
    child.wait().expect("sh ends");
    let mut killed = cat(&[]);
    let killed_pid = killed.id();
    killed.kill().expect("killed");
    killed.wait().expect("cat ends");
    // A thread is no process.
    std::thread::spawn(|| {}).join().expect("a thread");
    let outcome = watch.finish();

    let (_, fork) = outcome.one::<ForkRecord>(RecordKind::Fork, |fork| fork.child.pid == pid);
    assert_eq!(fork.parent_pid, std::process::id());
    assert_eq!(ticks(fork.parent_start_ns), start_ticks(std::process::id()));
    assert_eq!(text(&fork.child.comm), own_comm());
    let (_, exec) = exec_of(&outcome, pid);
    let (_, exit) = outcome.one::<ExitRecord>(RecordKind::Exit, |exit| exit.task.pid == pid);
    assert_eq!(exit.exit_code, 7 << 8);
    assert_eq!(text(&exit.task.comm), "sh");
    assert_eq!((fork.child.start_ns, exec.task.start_ns), (exit.task.start_ns, exit.task.start_ns));
    assert!(fork.header.boot_ns < exec.header.boot_ns && exec.header.boot_ns < exit.header.boot_ns);

    let (_, exit) = outcome.one::<ExitRecord>(RecordKind::Exit, |exit| exit.task.pid == killed_pid);
    assert_eq!(exit.exit_code, libc::SIGKILL as u32);
    let own = std::process::id();
    assert!(outcome.all::<ExitRecord>(RecordKind::Exit, |exit| exit.task.pid == own).is_empty());
}

#[test]
fn every_process_is_walked_with_its_parent() {
    let mut watch = Watch::start(&[]);
    let mut child = cat(&[]);
    let before = inspectable_processes();
    let items = watch.probes.tasks().expect("an iterator");
    let after = inspectable_processes();
    let mine = items.iter().find(|item| item.task.pid == child.id()).expect("the child");
    assert_task(&mine.task, child.id(), "cat");
    assert_eq!(mine.parent_pid, std::process::id());
    assert_eq!(ticks(mine.parent_start_ns), start_ticks(mine.parent_pid));
    assert!(items.iter().any(|item| item.parent_pid == 0), "the first processes have no parent");
    let pids: HashSet<_> = items.iter().map(|item| item.task.pid).collect();
    assert_eq!(pids.len(), items.len(), "threads are left out");
    let missing: Vec<_> = before.intersection(&after).filter(|pid| !pids.contains(pid)).collect();
    assert!(missing.is_empty(), "{missing:?}");
    drop(child.stdin.take());
    child.wait().expect("cat ends");
    watch.finish();
}

/// The processes that procfs lets us look into; some systems hide their first one even from root.
fn inspectable_processes() -> HashSet<u32> {
    let entries = fs::read_dir("/proc").expect("procfs").filter_map(|entry| entry.ok());
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter(|pid| fs::read_link(format!("/proc/{pid}/ns/pid")).is_ok()).collect()
}

/// A shell under the name of a runtime.
fn runtime(dir: &Path) -> PathBuf {
    let path = dir.join("qw-runtime");
    fs::copy("/bin/sh", &path).expect("a copy of the shell");
    path
}

#[test]
fn a_runtime_and_what_it_starts_are_management_records() {
    let dir = tempfile::tempdir().expect("a directory");
    let runtime = runtime(dir.path());
    let watch = Watch::with(Options::default(), &[], Duration::from_millis(1), |probes| {
        own_cgroup_is_host(probes);
        probes.set_tools(["qw-runtime"]).expect("tools");
    });
    // The runtime executes itself once more and starts a program, which starts another one.
    let script = "exec /proc/self/exe -c '/bin/sh -c \"/bin/true; :\"; :'";
    let mut child = Command::new(&runtime).args(["-c", script]).spawn().expect("the runtime");
    let pid = child.id();
    child.wait().expect("the runtime ends");
    let outcome = watch.finish();

    let tools = exec_flags::TOOL | exec_flags::RUNTIME_LINEAGE | exec_flags::NOT_HOST_CGROUP;
    let own = outcome.all::<ExecRecord>(RecordKind::Exec, |exec| exec.task.pid == pid);
    let found: Vec<_> =
        own.iter().map(|(record, exec)| (text(&exec.task.comm), record.ring, exec.flags & tools)).collect();
    assert_eq!(
        found,
        [
            ("qw-runtime", Ring::Management, exec_flags::TOOL),
            ("exe", Ring::Management, exec_flags::RUNTIME_LINEAGE),
        ]
    );
    assert!(own[0].1.ancestors_len > 1, "of a runtime all ancestors are told");
    assert_eq!(ancestors(&own[0].1), expected_ancestors(own[0].1.ancestors_len));

    let (record, started) = outcome.one::<ExecRecord>(RecordKind::Exec, |exec| exec.ancestors[0].pid == pid);
    assert_eq!((text(&started.task.comm), record.ring), ("sh", Ring::Management));
    assert_eq!(started.flags & tools, exec_flags::RUNTIME_LINEAGE);
    let (record, next) =
        outcome.one::<ExecRecord>(RecordKind::Exec, |exec| exec.ancestors[0].pid == started.task.pid);
    assert_eq!(
        (text(&next.task.comm), record.ring),
        ("true", Ring::Bulk),
        "a program of a program is its own affair"
    );
    assert_eq!(next.flags & tools, 0);

    let (record, _) = outcome.one::<ExitRecord>(RecordKind::Exit, |exit| exit.task.pid == pid);
    assert_eq!(record.ring, Ring::Management);
    let (record, _) = outcome.one::<ForkRecord>(RecordKind::Fork, |fork| fork.child.pid == started.task.pid);
    assert_eq!((record.ring, record.fixed::<ForkRecord>().parent_pid), (Ring::Management, pid));
}

fn ancestors(exec: &ExecRecord) -> Vec<(u32, u64)> {
    let known = &exec.ancestors[..usize::from(exec.ancestors_len)];
    known.iter().map(|ancestor| (ancestor.pid, ticks(ancestor.start_ns))).collect()
}

/// Ourselves and our ancestors, from procfs.
fn expected_ancestors(len: u16) -> Vec<(u32, u64)> {
    let parent = |pid: &u32| stat_field(*pid, 4).parse().ok().filter(|pid| *pid != 0);
    let chain = std::iter::successors(Some(std::process::id()), parent);
    chain.take(usize::from(len)).map(|pid| (pid, start_ticks(pid))).collect()
}

#[test]
fn a_container_has_no_say_on_the_management_ring() {
    let dir = tempfile::tempdir().expect("a directory");
    let runtime = runtime(dir.path());
    let mut watch = Watch::with(Options::default(), &[], Duration::from_millis(1), |probes| {
        probes.set_tools(["qw-runtime"]).expect("tools");
    });
    let hierarchy = watch.probes.task_hierarchy();
    let mount = task_mount(hierarchy);
    let cgroup = Cgroup::create(&mount, "say");
    watch
        .probes
        .classify_cgroup(key(cgroup.id(hierarchy.id())), cgroup_class::CONTAINER)
        .expect("classified");
    let mut child = cgroup.shell(&format!("{} -c '/bin/true; :'; :", runtime.display()));
    let shell = child.id();
    child.wait().expect("the shell ends");
    let outcome = watch.finish();

    let (record, exec) = outcome.one::<ExecRecord>(RecordKind::Exec, |exec| {
        text(&exec.task.comm) == "qw-runtime" && exec.ancestors[0].pid == shell
    });
    assert_eq!(record.ring, Ring::Bulk);
    assert_eq!(exec.flags, exec_flags::TOOL | exec_flags::NOT_HOST_CGROUP);
    let (record, started) =
        outcome.one::<ExecRecord>(RecordKind::Exec, |next| next.ancestors[0].pid == exec.task.pid);
    assert_eq!((record.ring, started.flags), (Ring::Bulk, exec_flags::NOT_HOST_CGROUP));
    assert!(started.ancestors_len > 2);
    assert_eq!(tail(record, &started).0, cgroup.name(), "the cgroup's name comes with the exec");
}
