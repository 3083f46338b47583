//! What was there before the sensor: cgroups, containers, processes, listening sockets.

use std::sync::Arc;

use sensor_core::coverage::Gap;
use sensor_core::engine::Engine;
use sensor_core::health::Capability;
use sensor_core::ids::{CgroupKey, ProcessKey};
use sensor_core::role;
use sensor_core::time::ClockMap;
use tracing::{debug, warn};

use crate::kernel::hooks::{WALK_LISTENERS, WALK_TASKS};
use crate::kernel::{KernelError, Probes};
use crate::lookups::cgroupfs::Hierarchies;
use crate::lookups::procfs::Processes;
use crate::lookups::runtime::Containers;
use crate::lookups::{Roots, addresses, clock};

/// Tells the engine what was there before the sensor, and what of that could not be listed.
pub(super) fn seed(
    engine: &mut Engine,
    probes: &mut Probes,
    roots: &Roots,
    hierarchies: &Hierarchies,
    containers: &Containers,
    tools: &[Arc<str>],
) {
    let now = clock::now();
    engine.handle_clock(ClockMap::from_sample(now));
    match addresses::local(roots) {
        Ok(addresses) => engine.handle_addresses(now, addresses),
        Err(error) => {
            let reason = "the node's own addresses are unknown, so that the allow-list does not imply them";
            warn!(%error, "{reason}");
            engine.handle_gap(now, Gap::new(Capability::Accepts, reason));
        }
    }
    let walk = hierarchies.walk();
    if walk.truncated {
        let reason = "more cgroups than can be listed; the rest is learned as it is used";
        warn!(cgroups = walk.cgroups.len(), "{reason}");
        engine.handle_gap(now, Gap::new(Capability::Containers, reason));
    }
    for metadata in containers.existing() {
        engine.handle_container_metadata(now, metadata);
    }
    engine.handle_cgroups(walk.cgroups);
    let processes = Processes::new(roots);
    engine.handle_host_namespaces(processes.host_namespaces(roots));
    engine.handle_host_network(processes.host_network());
    let mut unmarked = 0_u32;
    // Without an iterator the sensor runs on and its coverage says so.
    for item in listed(probes.tasks(), engine, WALK_TASKS).unwrap_or_default() {
        let process = processes.seed(item);
        let arg0 = process.args.as_deref().and_then(|args| args.first()).map(|arg| &**arg);
        // The name alone would let whoever is in a container choose the ring of his children's execs.
        let is_tool = engine.is_host_cgroup(CgroupKey::from(item.cgroup))
            && role::of_program(process.exe.as_deref(), arg0, tools).is_some();
        if is_tool && let Err(error) = probes.mark_runtime_process(item.task.pid) {
            debug!(%error, pid = item.task.pid, "not marked");
            unmarked += 1;
        }
        let key = ProcessKey { pid: item.task.pid, start_ns: item.task.start_ns };
        engine.handle_process(process);
        if let Some(query) = engine.daemon_query(key)
            && let Some(options) = containers.read_daemon(&query)
        {
            engine.handle_daemon_options(now, key, options);
        }
    }
    // Ports of daemons inside of containers, before it is listed what listens.
    for (port, depth) in engine.learned_ports().collect::<Vec<_>>() {
        if let Err(error) = probes.watch_port(port, depth) {
            warn!(%error, port, "a daemon's port is not watched: its connections and its end are not seen");
        }
    }
    if unmarked > 0 {
        let reason = "more runtime processes than the probes can mark; connects of some are not reported";
        warn!(unmarked, "{reason}");
        engine.handle_gap(now, Gap::new(Capability::Connects, reason));
    }
    // An empty answer would say that nobody listens, and what a later walk finds would count as new.
    if let Some(listeners) = listed(probes.listeners(), engine, WALK_LISTENERS) {
        engine.handle_listeners(clock::now(), &listeners);
    }
}

/// What an iterator listed; when it failed, its hook says so until it succeeds.
fn listed<T>(walk: Result<Vec<T>, KernelError>, engine: &mut Engine, program: &str) -> Option<Vec<T>> {
    match walk {
        Ok(items) => {
            engine.handle_walk(clock::now(), program, None);
            Some(items)
        }
        Err(error) => {
            let reason = format!("{:#}", anyhow::Error::new(error));
            warn!(program, reason, "what was there before the start is not listed");
            engine.handle_walk(clock::now(), program, Some(&reason));
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use sensor_core::engine::{Output, Settings as EngineSettings};
    use sensor_core::fact::Node;
    use sensor_core::health::{CoverageState, Hook, HookState};

    use super::*;

    #[test]
    fn an_iterator_that_fails_is_no_empty_answer_and_degrades_the_coverage() {
        let program = WALK_LISTENERS;
        let hook = Hook {
            name: "iter/task_file".into(),
            program: program.into(),
            state: HookState::Attached,
            reason: None,
        };
        let mut engine = Engine::new(EngineSettings {
            run: sensor_core::ids::RunId(1),
            node: Arc::new(Node { name: "n".into(), boot_id: "b".into(), cluster: None }),
            policy: sensor_core::engine::Policy::default(),
            merge_window_ns: 0,
            hold_ns: 0,
            canary_interval_ns: None,
            packets_rest_ns: 0,
        });
        engine.handle_hooks(clock::now(), vec![hook]);
        assert_eq!(listed(Ok(vec![1]), &mut engine, program), Some(vec![1]));
        let failure =
            KernelError::Read { what: "iter/task_file".to_owned(), source: io::ErrorKind::Other.into() };
        assert_eq!(listed::<u32>(Err(failure), &mut engine, program), None);
        engine.handle_ready(clock::now());
        let Some(Output::Health { health, .. }) = engine.next_output() else { panic!("the ready record") };
        assert_eq!(health.hooks[0].state, HookState::Unavailable);
        assert!(health.hooks[0].reason.as_deref().is_some_and(|reason| reason.contains("iter/task_file")));
        let listeners = health
            .coverage
            .iter()
            .find(|entry| entry.capability == Capability::Listeners)
            .expect("it is there");
        assert_ne!(listeners.state, CoverageState::Live);
    }
}
