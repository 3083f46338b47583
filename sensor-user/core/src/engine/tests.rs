//! The engine from record bytes to output.

mod accepts;
mod audit;
mod bursts;
mod connects;
mod containers;
mod credentials;
mod escapes;
mod execs;
mod health;
mod late;
mod listening;
mod programs;
mod proving;
mod recorded;
mod requests;
mod risks;
mod scans;
mod socket_requests;

use std::sync::Arc;

use sensor_common::record::Ring;

use crate::allow_list::{AllowEntry, AllowList, IMPLIED_LOCAL, Schedule, Source, Target};
use crate::chains::Limits;
use crate::engine::{
    Cluster, ContainerMetadata, Engine, Output, Policy, ProgramAnswer, Request, SeedCgroup, SeedProcess,
    Settings,
};
use crate::fact::{ContainerAction, Fact, FactKind, Node, Runtime, Service, Verdict};
use crate::health::{Health, HealthState};
use crate::ids::{CgroupKey, RunId};
use crate::records::{P, task_item};
use crate::risks::Risks;
use crate::time::{ClockMap, Timestamp};

const RUN: u64 = 0xabc;
const WINDOW_NS: u64 = 5_000_000;
const HOLD_NS: u64 = 50_000_000;

const INIT: P = P(1, "systemd");
const DOCKERD: P = P(100, "dockerd");
const CONTAINERD: P = P(101, "containerd");
const SHIM: P = P(102, "containerd-shim");
const RUNC: P = P(200, "runc");
const CURL: P = P(300, "curl");

/// Cgroup of everything on the host that the tests speak of.
const HOST: u64 = 10;

fn at(boot_ns: u64) -> Timestamp {
    Timestamp { boot_ns, unix_ns: boot_ns + 1_000_000_000_000 }
}

fn long_id(digits: &str) -> String {
    digits.repeat(64 / digits.len())
}

/// An engine with Docker on the host, and the clock of the test.
struct Sensor {
    engine: Engine,
    now: u64,
}

impl Sensor {
    /// Seeded and ready; what start-up sends is already read.
    fn ready() -> Self {
        let mut sensor = Self::seeded();
        sensor.engine.handle_ready(at(1000));
        sensor.outputs();
        sensor.requests();
        sensor
    }

    /// Seeded, not yet ready.
    fn seeded() -> Self {
        let mut engine = Engine::new(settings());
        engine.handle_clock(ClockMap::from_sample(at(0)));
        let host = |id| CgroupKey { hierarchy: 0, id };
        for (task, parent, exe) in [
            (INIT, None, "/usr/lib/systemd/systemd"),
            (DOCKERD, Some(INIT), "/usr/bin/dockerd"),
            (CONTAINERD, Some(INIT), "/usr/bin/containerd"),
        ] {
            let args: Arc<[Arc<str>]> = Arc::from([exe.into()]);
            let item = task_item(task, parent, crate::records::v2(HOST));
            engine.handle_process(seed_process(item, exe, Some(args)));
        }
        let path = "/system.slice/docker.service".into();
        engine.handle_cgroups(vec![SeedCgroup { key: host(HOST), path }]);
        Self { engine, now: 1_000_000 }
    }

    /// A time after everything before.
    fn tick(&mut self) -> u64 {
        self.now += 1000;
        self.now
    }

    fn record(&mut self, ring: Ring, bytes: &[u8]) {
        self.engine.handle_record(ring, bytes);
    }

    /// Hands in a record of the present tick on the management ring.
    fn see(&mut self, record: impl FnOnce(u64) -> Vec<u8>) {
        let now = self.tick();
        self.record(Ring::Management, &record(now));
    }

    /// Lets the merge window pass, then reads the facts.
    fn facts(&mut self) -> Vec<Fact> {
        self.pass(WINDOW_NS + 1000);
        self.read_facts()
    }

    fn pass(&mut self, span_ns: u64) {
        self.now += span_ns;
        self.engine.poll(at(self.now));
    }

    fn read_facts(&mut self) -> Vec<Fact> {
        let facts = self.outputs().into_iter().filter_map(|output| match output {
            Output::Fact { fact, .. } => Some(fact),
            _ => None,
        });
        facts.collect()
    }

    fn verdicts(&mut self) -> Vec<Option<Verdict>> {
        self.pass(WINDOW_NS);
        let verdicts = self.outputs().into_iter().filter_map(|output| match output {
            Output::Fact { verdict, .. } => Some(verdict),
            _ => None,
        });
        verdicts.collect()
    }

    fn outputs(&mut self) -> Vec<Output> {
        std::iter::from_fn(|| self.engine.next_output()).collect()
    }

    fn requests(&mut self) -> Vec<Request> {
        std::iter::from_fn(|| self.engine.next_request()).collect()
    }

    fn metadata(&mut self, id: &str, name: &str) {
        let metadata = ContainerMetadata {
            id: id.into(),
            name: Some(name.into()),
            image: Some("busybox".into()),
            risks: Some(Risks::default()),
            ..ContainerMetadata::default()
        };
        self.engine.handle_container_metadata(at(self.now), metadata);
    }
}

fn seed_process(
    item: sensor_common::record::TaskItem,
    exe: &str,
    args: Option<Arc<[Arc<str>]>>,
) -> SeedProcess {
    SeedProcess {
        item,
        exe: Some(exe.into()),
        args,
        truncated: false,
        contents: None,
        flags: Default::default(),
        namespaces: Default::default(),
    }
}

fn settings() -> Settings {
    let from_vpn = Source { networks: vec!["198.18.1.0/24".parse().expect("network")], ..Source::default() };
    let local = Source { local: true, ..Source::default() };
    let entry = |name: &str, from| AllowEntry {
        name: name.into(),
        from,
        to: Target::default(),
        when: Schedule::default(),
        until_unix_ns: None,
    };
    let entries = vec![entry("vpn", from_vpn), entry(IMPLIED_LOCAL, local)];
    Settings {
        run: RunId(RUN),
        node: Arc::new(Node { name: "node-a".into(), boot_id: "boot".into(), cluster: None }),
        policy: Policy {
            ports: vec![(10250, Service::Kubelet), (2375, Service::Docker)],
            tools: Vec::new(),
            networks: vec!["198.18.0.0/23".parse().expect("network")],
            allow: AllowList { entries, ..AllowList::default() },
            limits: Limits::default(),
            cluster: Cluster::default(),
        },
        merge_window_ns: WINDOW_NS,
        hold_ns: HOLD_NS,
        canary_interval_ns: None,
        packets_rest_ns: 30_000_000_000,
    }
}

/// The steps of containers' lives among facts.
fn actions(facts: &[Fact]) -> Vec<(ContainerAction, &str)> {
    let actions = facts.iter().filter_map(|fact| match fact.kind {
        FactKind::Container { action, .. } => Some((action, container_id(fact)?)),
        _ => None,
    });
    actions.collect()
}

fn container_id(fact: &Fact) -> Option<&str> {
    fact.container.as_ref().map(|container| &*container.id)
}

fn comm(fact: &Fact) -> Option<&str> {
    fact.process.as_ref().map(|process| &*process.comm)
}

fn runtime(fact: &Fact) -> Option<Runtime> {
    fact.container.as_ref().map(|container| container.runtime)
}

/// The health records among outputs.
fn healths(outputs: Vec<Output>) -> Vec<Health> {
    let healths = outputs.into_iter().filter_map(|output| match output {
        Output::Health { health, .. } => Some(health),
        _ => None,
    });
    healths.collect()
}

fn states(outputs: Vec<Output>) -> Vec<HealthState> {
    healths(outputs).into_iter().map(|health| health.state).collect()
}
