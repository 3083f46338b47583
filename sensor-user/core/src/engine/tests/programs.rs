//! Clients by whatever name.

use super::*;
use crate::fact::{ExeFlags, ExecRole, Program};
use crate::ids::{FileKey, ProcessKey};
use crate::programs::Contents;
use crate::records::{Exec, P, cgroup, exit, fork, v2};
use sensor_common::record::exec_flags;

const RENAMED: P = P(500, "x");
const CONTENTS: Contents = Contents { file: FileKey { device: 1, inode: 77 }, changed_ns: 0 };

fn run(sensor: &mut Sensor, task: P, group: u64, args: &[&str], flags: u32) {
    sensor.see(|now| {
        let mut exec = Exec::new(now, task, v2(group), args[0], args);
        exec.exe = CONTENTS.file.inode;
        exec.flags |= flags;
        exec.bytes()
    });
}

fn answer(sensor: &mut Sensor, client: Option<&str>) {
    let answer = ProgramAnswer::Read { contents: CONTENTS, client: client.map(Into::into) };
    sensor.engine.handle_program(at(sensor.now), answer);
}

fn asked(sensor: &mut Sensor) -> Vec<u32> {
    let asked = sensor.requests().into_iter().filter_map(|request| match request {
        Request::ReadProgram { process, contents, .. } if contents == CONTENTS => Some(process.pid),
        _ => None,
    });
    asked.collect()
}

/// Process, role, tool and whether it is renamed, of the execs among facts.
fn execs(facts: &[Fact]) -> Vec<(u32, ExecRole, Option<&str>, bool)> {
    let execs = facts.iter().filter_map(|fact| match fact.kind {
        FactKind::Exec { role } => {
            let process = fact.process.as_ref()?;
            Some((process.pid, role, process.program.tool.as_deref(), process.program.renamed))
        }
        _ => None,
    });
    execs.collect()
}

#[test]
fn a_renamed_client_of_the_host_is_told_of_when_its_contents_are_known() {
    let mut sensor = Sensor::ready();
    run(&mut sensor, RENAMED, HOST, &["/tmp/x", "get", "pods"], 0);
    assert_eq!(execs(&sensor.facts()), [], "an ordinary program of the host");
    assert_eq!(asked(&mut sensor), [500]);
    answer(&mut sensor, Some("kubectl"));
    assert_eq!(execs(&sensor.read_facts()), [(500, ExecRole::Client, Some("kubectl"), true)]);
    // The next one is known at once, and nobody has to look.
    run(&mut sensor, P(501, "x"), HOST, &["/tmp/y"], 0);
    assert_eq!(execs(&sensor.facts()), [(501, ExecRole::Client, Some("kubectl"), true)]);
    assert_eq!(asked(&mut sensor), [0u32; 0]);
    sensor.see(|now| exit(now, RENAMED, v2(HOST), 0));
    let facts = sensor.facts();
    assert!(facts[0].process.as_ref().is_some_and(|process| process.program.renamed), "{facts:?}");
}

#[test]
fn a_renamed_client_in_a_container_is_told_of_once_more() {
    let mut sensor = Sensor::ready();
    let id = long_id("ab");
    sensor.see(|now| cgroup(now, true, v2(50), RUNC, &format!("/docker/{id}")));
    sensor.metadata(&id, "web");
    run(&mut sensor, RENAMED, 50, &["/tmp/x", "ps"], 0);
    assert_eq!(execs(&sensor.facts()), [(500, ExecRole::Workload, None, false)]);
    answer(&mut sensor, Some("docker"));
    let facts = sensor.read_facts();
    assert_eq!(execs(&facts), [(500, ExecRole::Client, Some("docker"), true)]);
    assert_eq!(container_id(&facts[0]), Some(&*id));
}

#[test]
fn a_client_by_its_own_name_is_told_of_once() {
    let mut sensor = Sensor::ready();
    run(&mut sensor, RENAMED, HOST, &["/usr/bin/docker", "ps"], 0);
    assert_eq!(execs(&sensor.facts()), [(500, ExecRole::Client, Some("docker"), false)]);
    answer(&mut sensor, Some("docker"));
    assert_eq!(sensor.read_facts(), []);
}

#[test]
fn interpreters_other_programs_and_the_gone_are_no_clients() {
    let mut sensor = Sensor::ready();
    run(&mut sensor, RENAMED, HOST, &["/tmp/script"], exec_flags::SCRIPT);
    sensor.facts();
    answer(&mut sensor, Some("kubectl"));
    assert_eq!(sensor.read_facts(), [], "a script is what interprets it");
    let mut sensor = Sensor::ready();
    run(&mut sensor, RENAMED, HOST, &["/tmp/x"], 0);
    sensor.facts();
    answer(&mut sensor, None);
    assert_eq!(sensor.read_facts(), []);
    sensor.engine.handle_program(at(1), ProgramAnswer::Gone { contents: CONTENTS });
    assert_eq!(sensor.engine.statistics().unread_programs, 1);
}

#[test]
fn a_program_that_has_been_replaced_meanwhile_is_left_alone() {
    let mut sensor = Sensor::ready();
    run(&mut sensor, RENAMED, HOST, &["/tmp/x"], 0);
    sensor.see(|now| Exec::new(now, RENAMED, v2(HOST), "/bin/true", &["true"]).bytes());
    sensor.facts();
    answer(&mut sensor, Some("kubectl"));
    assert_eq!(sensor.read_facts(), []);
}

#[test]
fn forks_of_a_renamed_client_are_recognised_with_it() {
    let mut sensor = Sensor::ready();
    let child = P(501, "x");
    run(&mut sensor, RENAMED, HOST, &["/tmp/x"], 0);
    sensor.see(|now| fork(now, RENAMED, child));
    sensor.facts();
    answer(&mut sensor, Some("kubectl"));
    let pids: Vec<_> = execs(&sensor.read_facts()).into_iter().map(|(pid, ..)| pid).collect();
    assert_eq!(pids, [500, 501]);
    for task in [RENAMED, child] {
        sensor.see(|now| exit(now, task, v2(HOST), 0));
    }
    assert_eq!(sensor.facts().len(), 2);
}

#[test]
fn the_file_of_a_program_is_told_as_the_kernel_says() {
    let mut sensor = Sensor::ready();
    let all = exec_flags::DELETED | exec_flags::MEMFD | exec_flags::SCRIPT | exec_flags::TOOL;
    run(&mut sensor, RENAMED, HOST, &["/usr/bin/runc"], all);
    let facts = sensor.facts();
    let program = &facts[0].process.as_ref().expect("a process").program;
    let flags = ExeFlags { deleted: true, memfd: true, script: true };
    let expected = Program { file: Some(CONTENTS.file), flags, tool: Some("runc".into()), renamed: false };
    assert_eq!(*program, expected);
    assert_eq!(
        asked(&mut sensor),
        [0u32; 0],
        "a runtime's sealed copy of itself has other contents each time"
    );
}

#[test]
fn programs_that_were_gone_too_soon_are_told_of_once_a_minute_and_at_the_end() {
    const MINUTE: u64 = 60_000_000_000;
    let mut sensor = Sensor::ready();
    let counters = crate::health::KernelCounters::default();
    let unread = |sensor: &mut Sensor| -> Vec<(&'static str, u64)> {
        let healths = healths(sensor.outputs());
        healths.iter().flat_map(|health| &health.loss).map(|loss| (loss.kind, loss.lost)).collect()
    };
    let start = sensor.now + MINUTE;
    sensor.engine.handle_counters(at(start), &counters);
    assert_eq!(unread(&mut sensor), []);
    for _ in 0..2 {
        sensor.engine.handle_program(at(start), ProgramAnswer::Gone { contents: CONTENTS });
    }
    sensor.engine.handle_counters(at(start + 1), &counters);
    assert_eq!(unread(&mut sensor), [], "not yet");
    sensor.engine.handle_counters(at(start + MINUTE), &counters);
    let reported = healths(sensor.outputs());
    assert_eq!(reported.len(), 1);
    assert_eq!((reported[0].state, reported[0].loss[0].kind), (HealthState::Running, "program-files"));
    assert_eq!(reported[0].loss[0].lost, 2);
    sensor.engine.handle_program(at(start), ProgramAnswer::Gone { contents: CONTENTS });
    sensor.engine.finish(at(start + MINUTE + 1), &counters);
    assert_eq!(unread(&mut sensor), [("program-files", 3)]);
}

#[test]
fn a_renamed_client_that_was_there_before_is_told_of_when_its_contents_are_known() {
    let mut sensor = Sensor::seeded();
    let item = crate::records::task_item(RENAMED, Some(INIT), v2(HOST));
    let args = Some(Arc::from(["updater".into(), "get".into()]));
    sensor.engine.handle_process(SeedProcess {
        contents: Some(CONTENTS),
        flags: ExeFlags { deleted: true, ..ExeFlags::default() },
        ..seed_process(item, "/tmp/updater", args)
    });
    sensor.engine.handle_ready(at(1000));
    assert_eq!(execs(&sensor.read_facts()), [], "nobody has executed anything");
    assert_eq!(asked(&mut sensor), [500]);
    answer(&mut sensor, Some("kubectl"));
    let facts = sensor.read_facts();
    assert_eq!(execs(&facts), [(500, ExecRole::Client, Some("kubectl"), true)]);
    assert!(facts[0].process.as_ref().is_some_and(|process| process.program.flags.deleted));
}

#[test]
fn what_a_loader_runs_is_each_process_own() {
    let mut sensor = Sensor::ready();
    let loader = |process: u32, client: Option<&str>| ProgramAnswer::Loader {
        contents: CONTENTS,
        process: ProcessKey { pid: process, start_ns: P(process, "x").start_ns() },
        client: client.map(Into::into),
    };
    for process in [500, 501] {
        run(&mut sensor, P(process, "x"), HOST, &["/lib64/ld-linux-x86-64.so.2", "/tmp/x"], 0);
    }
    assert_eq!(execs(&sensor.facts()), []);
    assert_eq!(asked(&mut sensor), [500], "as for any file");
    sensor.engine.handle_program(at(sensor.now), loader(500, Some("docker")));
    assert_eq!(execs(&sensor.read_facts()), [(500, ExecRole::Client, Some("docker"), true)]);
    assert_eq!(asked(&mut sensor), [501], "it may have loaded something else");
    sensor.engine.handle_program(at(sensor.now), loader(501, None));
    assert_eq!(execs(&sensor.read_facts()), []);
    // From now on everybody is asked for, and nobody is taken for the one before.
    run(&mut sensor, P(502, "x"), HOST, &["/lib64/ld-linux-x86-64.so.2", "/tmp/y"], 0);
    assert_eq!(execs(&sensor.facts()), []);
    assert_eq!(asked(&mut sensor), [502]);
    sensor.see(|now| exit(now, P(502, "x"), v2(HOST), 0));
    sensor.facts();
    sensor.engine.handle_program(at(sensor.now), loader(502, Some("docker")));
    assert_eq!(execs(&sensor.read_facts()), [], "it has gone");
}
