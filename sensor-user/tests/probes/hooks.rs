//! Which programs are attached, and that somebody else detaching them does not go unnoticed.

use std::fs::{self, File};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsRawFd as _;

use sensor_common::record::{ListenerRecord, RecordKind};
use sensor_core::health::HookState;

use crate::watch::{Watch, own_network};

/// Gives this thread and those it starts file descriptors of their own.
fn own_descriptors() {
    // SAFETY: from here on this thread has a table of its own, without what the threads of other tests have open.
    let closed = unsafe { libc::close_range(3, u32::MAX, libc::CLOSE_RANGE_UNSHARE as i32) };
    assert_eq!(closed, 0, "close_range: Linux 5.9");
}

/// Makes every link of this thread something else, which detaches its program; returns how many there were.
fn detach_behind_the_back() -> usize {
    let nothing = File::open("/dev/null").expect("it is there");
    let entries = fs::read_dir("/proc/thread-self/fd").expect("procfs").flatten();
    let links = entries.filter(|entry| {
        let target = fs::read_link(entry.path()).unwrap_or_default();
        let target = target.to_string_lossy();
        target.contains("bpf_link") || target.contains("bpf-raw-tracepoint")
    });
    let descriptors: Vec<i32> =
        links.map(|entry| entry.file_name().to_string_lossy().parse().expect("a number")).collect();
    for descriptor in &descriptors {
        // SAFETY: replaces a descriptor of this thread's table; its owner closes whatever is behind the number.
        assert_eq!(unsafe { libc::dup2(nothing.as_raw_fd(), *descriptor) }, *descriptor);
    }
    descriptors.len()
}

#[test]
fn required_hooks_are_attached_and_every_other_says_why_it_is_not() {
    let watch = Watch::start(&[2375]);
    for hook in watch.probes.hooks() {
        match hook.state {
            HookState::Attached | HookState::Standby => assert_eq!(hook.reason, None, "{hook:?}"),
            HookState::Unavailable => {
                let reason = hook.reason.as_deref().unwrap_or_default();
                assert!(reason.len() > 20, "a reason that explains: {hook:?}");
            }
        }
    }
    let attached = watch.probes.attached_state();
    for program in ["inet_sock_set_state", "sched_process_exec", "cgroup_mkdir"] {
        assert!(attached.contains(&(program, true)), "{program}: {attached:?}");
    }
    watch.finish();
}

#[test]
fn a_program_that_somebody_detaches_is_noticed_and_attached_again() {
    own_network();
    own_descriptors();
    let mut watch = Watch::start(&[2375, 2376]);
    let programs = watch.probes.attached_state();
    assert!(programs.iter().all(|(_, attached)| *attached), "{programs:?}");
    assert_eq!(detach_behind_the_back(), programs.len());
    let gone = watch.probes.attached_state();
    assert!(gone.iter().all(|(_, attached)| !attached), "{gone:?}");
    let unseen = TcpListener::bind("127.0.0.1:2375").expect("bind");

    for (program, _) in &programs {
        watch.probes.reattach(program).expect("attached again");
    }
    assert_eq!(watch.probes.attached_state(), programs);
    let seen = TcpListener::bind("127.0.0.1:2376").expect("bind");
    drop(TcpStream::connect(seen.local_addr().expect("address")).expect("connect"));
    let ours = std::process::id();
    let outcome = watch.finish();
    let opened = outcome.all::<ListenerRecord>(RecordKind::ListenerOpened, |record| record.task.pid == ours);
    let ports: Vec<u16> = opened.iter().map(|(_, record)| record.ends.local_port).collect();
    assert!(ports.contains(&2376) && !ports.contains(&2375), "{ports:?}");
    drop((unseen, seen));
}
