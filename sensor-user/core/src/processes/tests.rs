//! Tests of [`super`].

use super::*;
use crate::decode::decode;
use crate::event::Event;
use crate::records::{self, Exec, P, task_item, v2};

fn fork(processes: &mut Processes, parent: P, child: P) {
    match decode(&records::fork(1, parent, child)).expect("decodes") {
        (_, Event::Fork(event)) => processes.fork(&event),
        other => panic!("a fork, not {other:?}"),
    }
}

fn exec(processes: &mut Processes, exec: &Exec<'_>) {
    match decode(&exec.bytes()).expect("decodes") {
        (_, Event::Exec(event)) => {
            processes.exec(&event, None);
        }
        other => panic!("an exec, not {other:?}"),
    }
}

fn key(task: P) -> ProcessKey {
    Task::from(task.task()).key
}

fn seed(processes: &mut Processes, task: P, parent: Option<P>, exe: &str) {
    let item = task_item(task, parent, v2(10));
    processes.seed(SeedProcess {
        item,
        exe: Some(exe.into()),
        args: None,
        truncated: false,
        contents: None,
        flags: Default::default(),
        namespaces: Default::default(),
    });
}

const INIT: P = P(1, "init");
const SH: P = P(2, "sh");
const LS: P = P(3, "sh");

#[test]
fn seeds_know_their_ancestors_whatever_order_they_came_in() {
    let mut processes = Processes::new(8, Vec::new());
    seed(&mut processes, LS, Some(SH), "/bin/ls");
    seed(&mut processes, SH, Some(INIT), "/bin/sh");
    seed(&mut processes, INIT, None, "/sbin/init");
    processes.settle_seeds();
    let ls = processes.snapshot(key(LS)).expect("known");
    assert_eq!(
        ls.ancestors.iter().map(|one| one.exe.as_deref()).collect::<Vec<_>>(),
        [Some("/bin/sh"), Some("/sbin/init")]
    );
}

#[test]
fn seeds_whose_parents_go_in_a_circle_end() {
    let mut processes = Processes::new(8, Vec::new());
    seed(&mut processes, SH, Some(LS), "/bin/sh");
    seed(&mut processes, LS, Some(SH), "/bin/ls");
    processes.settle_seeds();
    assert_eq!(processes.snapshot(key(LS)).expect("known").ancestors.len(), LINEAGE_MAX);
}

#[test]
fn fork_runs_its_parents_image_until_it_executes() {
    let mut processes = Processes::new(8, Vec::new());
    seed(&mut processes, SH, None, "/bin/sh");
    fork(&mut processes, SH, LS);
    assert_eq!(processes.snapshot(key(LS)).expect("known").exe.as_deref(), Some("/bin/sh"));
    exec(&mut processes, &Exec::new(1, P(3, "ls"), v2(10), "/bin/ls", &["ls"]));
    let ls = processes.snapshot(key(LS)).expect("known");
    assert_eq!((ls.exe.as_deref(), &*ls.comm), (Some("/bin/ls"), "ls"));
    assert_eq!(processes.snapshot(key(SH)).expect("known").exe.as_deref(), Some("/bin/sh"));
}

#[test]
fn children_of_one_image_share_their_ancestry() {
    let mut processes = Processes::new(8, Vec::new());
    seed(&mut processes, SH, None, "/bin/sh");
    fork(&mut processes, SH, P(10, "sh"));
    fork(&mut processes, SH, P(11, "sh"));
    let [one, other] = [10, 11].map(|pid| processes.snapshot(key(P(pid, "sh"))).expect("known"));
    assert!(Arc::ptr_eq(&one.ancestors, &other.ancestors));
    exec(&mut processes, &Exec::new(1, P(2, "bash"), v2(10), "/bin/bash", &["bash"]));
    fork(&mut processes, SH, P(12, "bash"));
    let later = processes.snapshot(key(P(12, "bash"))).expect("known");
    assert_eq!(later.ancestors[0].exe.as_deref(), Some("/bin/bash"));
    assert_eq!(one.ancestors[0].exe.as_deref(), Some("/bin/sh"), "as it was when it was made");
}

#[test]
fn ancestry_is_bounded() {
    let mut processes = Processes::new(64, Vec::new());
    seed(&mut processes, INIT, None, "/sbin/init");
    for pid in 1..40 {
        fork(&mut processes, P(pid, "sh"), P(pid + 1, "sh"));
    }
    let process = processes.snapshot(key(P(40, "sh"))).expect("known");
    let pids: Vec<u32> = process.ancestors.iter().map(|ancestor| ancestor.pid).collect();
    assert_eq!(pids, [39, 38, 37, 36, 35, 34, 33, 32, 31, 30, 29, 28, 4, 3, 2, 1]);
}

#[test]
fn exited_process_is_known_for_a_while_only() {
    let mut processes = Processes::new(8192, Vec::new());
    seed(&mut processes, SH, None, "/bin/sh");
    processes.exit(key(SH));
    processes.exit(key(SH));
    assert!(processes.peek(key(SH)).is_some());
    for pid in 100..100 + EXITED_MAX as u32 {
        fork(&mut processes, SH, P(pid, "sh"));
        processes.exit(key(P(pid, "sh")));
    }
    assert!(processes.peek(key(SH)).is_none());
    assert_eq!((processes.len(), processes.evicted()), (EXITED_MAX, 0));
}

#[test]
fn table_is_bounded_in_entries() {
    let mut processes = Processes::new(4, Vec::new());
    for pid in 1..10 {
        fork(&mut processes, INIT, P(pid + 1, "init"));
    }
    assert_eq!((processes.len(), processes.evicted()), (4, 5));
}

#[test]
fn table_is_bounded_in_bytes() {
    let mut processes = Processes::new(PROCESSES_MAX, Vec::new());
    let long = "x".repeat(4000);
    let args = [&*long];
    for pid in 1..=7_000 {
        exec(&mut processes, &Exec::new(1, P(pid, "sh"), v2(10), "/bin/sh", &args));
    }
    assert!(processes.image_bytes <= IMAGE_BYTES_MAX);
    assert_eq!(processes.len() as u64 + processes.evicted(), 7_000);
    assert!(processes.evicted() > 500, "{}", processes.evicted());
}

#[test]
fn bytes_of_a_shared_image_are_counted_once_and_given_back() {
    let mut processes = Processes::new(64, Vec::new());
    exec(&mut processes, &Exec::new(1, SH, v2(10), "/bin/sh", &["sh", "-c", "loop"]));
    let one = processes.image_bytes;
    assert!(one > 0);
    for pid in 10..20 {
        fork(&mut processes, SH, P(pid, "sh"));
    }
    assert_eq!(processes.image_bytes, one);
    processes.remove(key(SH));
    assert_eq!(processes.image_bytes, one, "its forks run it still");
    for pid in 10..20 {
        processes.remove(key(P(pid, "sh")));
    }
    assert_eq!(processes.image_bytes, 0);
}

#[test]
fn latest_user_of_a_process_is_the_one_printed() {
    let mut processes = Processes::new(8, Vec::new());
    seed(&mut processes, SH, None, "/bin/sh");
    assert_eq!(processes.snapshot(key(SH)).expect("known").uid, Some(0));
    let task = Task { uid: 33, comm: Comm::from("worker-thread"), ..Task::from(SH.task()) };
    let described = processes.describe(&task);
    assert_eq!((described.uid, &*described.comm), (Some(33), "sh"));
}

#[test]
fn fork_that_comes_after_the_childs_exec_fills_in_its_ancestry_only() {
    let mut processes = Processes::new(8, Vec::new());
    seed(&mut processes, INIT, None, "/sbin/init");
    seed(&mut processes, SH, Some(INIT), "/bin/sh");
    processes.settle_seeds();
    // Given to init by the time of its exec.
    let ancestors = [INIT];
    exec(
        &mut processes,
        &Exec { ancestors: &ancestors, ..Exec::new(1, P(3, "ls"), v2(10), "/bin/ls", &["ls", "-l"]) },
    );
    fork(&mut processes, SH, LS);
    let ls = processes.snapshot(key(LS)).expect("known");
    assert_eq!((ls.exe.as_deref(), &*ls.comm, ls.ppid), (Some("/bin/ls"), "ls", Some(1)));
    assert_eq!(ls.args.as_ref().map(|args| args.len()), Some(2));
    assert_eq!(ls.ancestors.iter().map(|one| one.pid).collect::<Vec<_>>(), [2, 1]);
    assert_eq!(processes.peek(key(LS)).expect("known").parent, Some(key(SH)));
}

#[test]
fn program_that_executes_itself_anew_is_known_by_its_file() {
    let mut processes = Processes::new(8, Vec::new());
    let again = |processes: &mut Processes, file| {
        exec(processes, &Exec::new(1, SH, v2(10), file, &["runc", "init"]));
        processes.snapshot(key(SH)).expect("known").exe.clone()
    };
    assert_eq!(
        again(&mut processes, "/proc/self/exe").as_deref(),
        Some("/proc/self/exe"),
        "not known before"
    );
    assert_eq!(again(&mut processes, "/usr/sbin/runc").as_deref(), Some("/usr/sbin/runc"));
    assert_eq!(again(&mut processes, "/proc/self/exe").as_deref(), Some("/usr/sbin/runc"));
    assert_eq!(again(&mut processes, "./runc").as_deref(), Some("./runc"));
    assert_eq!(
        again(&mut processes, "/proc/self/exe").as_deref(),
        Some("/proc/self/exe"),
        "relative to what?"
    );
}

#[test]
fn cut_arguments_of_a_seed_are_said_to_be_cut() {
    let mut processes = Processes::new(8, Vec::new());
    let item = task_item(SH, None, v2(10));
    let args: Arc<[Arc<str>]> = Arc::from(["sh".into()]);
    processes.seed(SeedProcess {
        item,
        exe: None,
        args: Some(args),
        truncated: true,
        contents: None,
        flags: Default::default(),
        namespaces: Default::default(),
    });
    assert!(processes.snapshot(key(SH)).expect("known").truncated);
}
