//! The lives of containers against a model that knows nothing of records, holds and tables.

use std::collections::BTreeMap;

use proptest::prelude::*;
use sensor_common::record::{CgroupId, Ring};
use sensor_core::engine::{ContainerMetadata, Engine};
use sensor_core::fact::{ContainerAction, FactKind};
use sensor_core::risks::Risks;

use crate::records::{self, Exec, P, v1, v2};
use crate::{HOLD_NS, WINDOW_NS, at, facts, ready_engine};

#[derive(Clone, Copy, Debug)]
enum Step {
    /// The cgroup of a container is made in the version 1 or 2 hierarchy.
    Make { container: usize, legacy: bool },
    /// A program is executed in it.
    Run { container: usize },
    /// Its first process exits.
    ExitInit { container: usize },
    /// Another process of it exits.
    ExitOther { container: usize },
    /// Its oldest cgroup goes.
    Remove { container: usize },
    /// Its metadata is read.
    Read { container: usize },
    /// The runtime drops its state.
    Drop { container: usize },
    /// Time passes.
    Wait { span_ns: u64 },
}

const CONTAINERS: usize = 3;

fn step() -> impl Strategy<Value = Step> {
    let container = || 0..CONTAINERS;
    prop_oneof![
        4 => (container(), any::<bool>()).prop_map(|(container, legacy)| Step::Make { container, legacy }),
        4 => container().prop_map(|container| Step::Run { container }),
        2 => container().prop_map(|container| Step::ExitInit { container }),
        1 => container().prop_map(|container| Step::ExitOther { container }),
        3 => container().prop_map(|container| Step::Remove { container }),
        2 => container().prop_map(|container| Step::Read { container }),
        2 => container().prop_map(|container| Step::Drop { container }),
        2 => (0..2 * HOLD_NS).prop_map(|span_ns| Step::Wait { span_ns }),
    ]
}

/// What a container should have been told to do.
#[derive(Debug, Default)]
struct Model {
    alive: bool,
    stopped: bool,
    init: Option<P>,
    other: Option<P>,
    cgroups: Vec<CgroupId>,
    told: Vec<ContainerAction>,
}

impl Model {
    fn make(&mut self, cgroup: CgroupId) {
        let same_life = self.alive && self.cgroups.iter().all(|own| own.hierarchy != cgroup.hierarchy);
        if !same_life {
            *self = Self { told: std::mem::take(&mut self.told), alive: true, ..Self::default() };
            self.told.push(ContainerAction::Created);
        }
        self.cgroups.push(cgroup);
    }

    fn run(&mut self, task: P) {
        if self.alive && self.init.is_none() {
            self.init = Some(task);
            self.told.push(ContainerAction::Started);
        } else {
            self.other = Some(task);
        }
    }

    fn stop(&mut self) {
        if self.alive {
            self.alive = false;
            self.stopped = true;
            self.told.push(ContainerAction::Stopped);
        }
    }

    fn drop_state(&mut self) {
        if self.stopped {
            *self = Self { told: std::mem::take(&mut self.told), ..Self::default() };
            self.told.push(ContainerAction::Removed);
        }
    }
}

struct World {
    engine: Engine,
    models: Vec<Model>,
    now: u64,
    unique: u32,
    told: BTreeMap<String, Vec<ContainerAction>>,
}

fn id_of(container: usize) -> String {
    ["aa", "bb", "cc"][container].repeat(32)
}

impl World {
    fn new() -> Self {
        let models = (0..CONTAINERS).map(|_| Model::default()).collect();
        Self { engine: ready_engine(), models, now: 10_000, unique: 100, told: BTreeMap::new() }
    }

    fn see(&mut self, record: impl FnOnce(u64) -> Vec<u8>) {
        self.now += 10;
        let bytes = record(self.now);
        self.engine.handle_record(Ring::Management, &bytes);
    }

    fn settle(&mut self, span_ns: u64) {
        self.now += span_ns;
        self.engine.poll(at(self.now));
        for fact in facts(&mut self.engine) {
            let FactKind::Container { action, .. } = fact.kind else { continue };
            if action != ContainerAction::Enriched {
                let id = fact.container.expect("a container record names its container").id.to_string();
                self.told.entry(id).or_default().push(action);
            }
        }
    }

    fn unique(&mut self) -> u32 {
        self.unique += 1;
        self.unique
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Make { container, legacy } => {
                let key = u64::from(self.unique());
                let cgroup = if legacy { v1(key) } else { v2(key) };
                let path = format!("/docker/{}", id_of(container));
                self.see(|now| records::cgroup(now, true, cgroup, P(2, "runc"), &path));
                self.models[container].make(cgroup);
            }
            Step::Run { container } => {
                let Some(cgroup) = self.models[container].cgroups.last().copied() else { return };
                let task = P(self.unique(), "sh");
                self.see(|now| {
                    Exec { mnt_ns: 2, ..Exec::new(now, task, cgroup, "/bin/sh", &["sh"]) }.bytes()
                });
                self.models[container].run(task);
            }
            Step::ExitInit { container } => {
                let model = &self.models[container];
                let (Some(init), Some(cgroup)) = (model.init, model.cgroups.last().copied()) else { return };
                self.see(|now| records::exit(now, init, cgroup, 0));
                self.models[container].stop();
            }
            Step::ExitOther { container } => {
                let model = &self.models[container];
                let (Some(other), Some(cgroup)) = (model.other, model.cgroups.last().copied()) else {
                    return;
                };
                self.see(|now| records::exit(now, other, cgroup, 0));
            }
            Step::Remove { container } => {
                if self.models[container].cgroups.is_empty() {
                    return;
                }
                let cgroup = self.models[container].cgroups.remove(0);
                let path = format!("/docker/{}", id_of(container));
                self.see(|now| records::cgroup(now, false, cgroup, P(2, "runc"), &path));
                self.models[container].stop();
            }
            Step::Read { container } => {
                self.settle(WINDOW_NS + 10);
                let name = Some("web".into());
                let id = id_of(container).into();
                let risks = Some(Risks::default());
                let metadata = ContainerMetadata { id, name, risks, ..ContainerMetadata::default() };
                self.engine.handle_container_metadata(at(self.now), metadata);
            }
            Step::Drop { container } => {
                self.settle(WINDOW_NS + 10);
                self.engine.handle_container_removed(at(self.now), &id_of(container));
                self.models[container].drop_state();
            }
            Step::Wait { span_ns } => self.settle(span_ns),
        }
    }
}

proptest! {
    #[test]
    fn every_step_of_every_life_is_told_once_and_in_order(steps in proptest::collection::vec(step(), 0..60)) {
        let mut world = World::new();
        for step in steps {
            world.take(step);
        }
        world.settle(WINDOW_NS + 10);
        world.settle(HOLD_NS + 10);
        for (container, model) in world.models.iter().enumerate() {
            let told = world.told.remove(&id_of(container)).unwrap_or_default();
            prop_assert_eq!(&told, &model.told, "container {}", container);
        }
    }
}
