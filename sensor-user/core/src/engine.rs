//! The spine: decode, merge, enrich, judge; read this first.
//!
//! The engine owns every table and no IO. Records, seeds and answers come in through `handle_*` with the time they
//! belong to, [`Engine::poll`] releases what is due in kernel-time order, results leave through
//! [`Engine::next_output`] and [`Engine::next_request`]. Same input, same output: no clock, no randomness and no hash
//! order reaches a result.
//!
//! ```text
//! handle_record -> decode -> Merge -> poll -> apply --+-- tasks       fork, exec, exit
//!                    |                                +-- sockets     listener, accept, connect, close
//!                    +-- proving                      +-- lifecycle   cgroup made/removed, container steps
//!                        our own canaries      subject: process + container of each -> Outbox -> next_output
//! ```

mod audit;
mod bursts;
mod callers;
mod cgroups;
mod credentials;
mod daemons;
mod entering;
mod escapes;
mod hellos;
mod hops;
mod keeping;
mod lifecycle;
mod listening;
mod namesakes;
mod packets;
mod programs;
mod proving;
mod publishing;
mod replay;
mod report;
mod requests;
mod scanning;
mod seeds;
mod socket_requests;
mod sockets;
mod subject;
mod tasks;

use std::net::IpAddr;
use std::sync::Arc;

use sensor_common::record::Ring;

use crate::allow_list::AllowList;
use crate::audit::{AuditPolicy, Auditor, DiscoveryLimits};
use crate::bounded::Bounded;
use crate::calls::{CALLS_MAX, Calls};
use crate::canary::Canaries;
use crate::containers::{CONTAINERS_MAX, Containers};
use crate::coverage::CoverageLedger;
use crate::decode;
use crate::event::{AcceptTaskEvent, Event};
pub use crate::exchange::{
    Cluster, ContainerMetadata, ContainerQuery, DaemonOptions, DaemonQuery, Depth, Output, Policy,
    ProcessQuery, ProgramAnswer, Request, SeedCgroup, SeedProcess, Settings, Urgency,
};
use crate::exposure::{Inside, Ledger};
use crate::fact::{End, Service};
use crate::health::{AuditInput, Health, HealthState, Reload};
use crate::holds::Holds;
use crate::ids::ProcessKey;
use crate::inventory::{CGROUPS_MAX, Inventory};
use crate::listeners::{LISTENERS_MAX, Listeners};
use crate::loss::LossLedger;
use crate::merge::Merge;
use crate::namespaces::Namespaces;
use crate::origins::Origins;
use crate::outbox::Outbox;
use crate::processes::{PROCESSES_MAX, Processes};
use crate::programs::{PROGRAMS_MAX, Programs};
use crate::scans::Scans;
use crate::state::Resumed;
use crate::time::{ClockMap, Timestamp};
use bursts::Bursts;
use callers::Callers;
use credentials::Files;
use daemons::DAEMONS_MAX;
use entering::{LATE_MAX, LateEntrant};
use hellos::Stacks;
use hops::Hops;
pub use keeping::Occasion;
use listening::{LearnedPorts, Refresh};
use packets::Packets;
use publishing::{Lead, PUBLISHED_MAX};
use replay::Replay;
use report::Condition;
pub use report::Statistics;
use requests::Requests;
use sockets::{CONNECTIONS_MAX, Connection, TAKERS_MAX};

/// Everything the sensor knows, and the rules by which it learns more.
#[derive(Debug)]
pub struct Engine {
    clock: ClockMap,
    merge_window_ns: u64,
    hold_ns: u64,
    /// Sorted by port.
    ports: Vec<(u16, Service)>,
    allow: AllowList,
    merge: Merge,
    /// Boot-clock time up to which the rings are known to have been read.
    drained_ns: u64,
    /// Records released before their turn because too many waited.
    released_early: u64,
    processes: Processes,
    programs: Programs,
    inventory: Inventory,
    containers: Containers,
    calls: Calls,
    listeners: Listeners,
    refresh: Refresh,
    learned: LearnedPorts,
    daemon_options: Bounded<ProcessKey, DaemonOptions>,
    published: Bounded<End, Lead>,
    /// Network namespace of the host; 0 = not known.
    host_netns: u32,
    exposure: Ledger,
    inside: Inside,
    host: Namespaces,
    connections: Bounded<u64, Connection>,
    takers: Bounded<u64, AcceptTaskEvent>,
    requests: Requests,
    origins: Origins,
    callers: Callers,
    hops: Hops,
    files: Files,
    holds: Holds,
    late_entrants: Bounded<u64, LateEntrant>,
    /// Queries for processes that are put into containers, so far.
    process_queries: u64,
    scans: Scans,
    bursts: Bursts,
    stacks: Stacks,
    loss: LossLedger,
    condition: Condition,
    coverage: CoverageLedger,
    canaries: Canaries,
    packets: Packets,
    /// Judges requests of audit logs.
    auditor: Auditor,
    /// Where they come from, as was told last.
    audit_inputs: Vec<AuditInput>,
    replay: Replay,
    /// The run that this one goes on from.
    resumed: Option<Resumed>,
    outbox: Outbox,
}

impl Engine {
    /// An engine that knows nothing yet.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        let Settings { run, node, policy, merge_window_ns, hold_ns, canary_interval_ns, packets_rest_ns } =
            settings;
        let mut engine = Self {
            clock: ClockMap::default(),
            merge_window_ns,
            hold_ns,
            ports: Vec::new(),
            allow: AllowList::default(),
            merge: Merge::default(),
            drained_ns: u64::MAX,
            released_early: 0,
            processes: Processes::new(PROCESSES_MAX, policy.tools.clone()),
            programs: Programs::new(PROGRAMS_MAX),
            inventory: Inventory::new(CGROUPS_MAX),
            containers: Containers::new(CONTAINERS_MAX),
            calls: Calls::new(CALLS_MAX),
            listeners: Listeners::new(LISTENERS_MAX),
            refresh: Refresh::default(),
            learned: LearnedPorts::default(),
            daemon_options: Bounded::new(DAEMONS_MAX),
            published: Bounded::new(PUBLISHED_MAX),
            host_netns: 0,
            exposure: Ledger::default(),
            inside: Inside::default(),
            host: Namespaces::default(),
            connections: Bounded::new(CONNECTIONS_MAX),
            takers: Bounded::new(TAKERS_MAX),
            requests: Requests::default(),
            origins: Origins::default(),
            callers: Callers::default(),
            hops: Hops::default(),
            files: Files::default(),
            holds: Holds::default(),
            late_entrants: Bounded::new(LATE_MAX),
            process_queries: 0,
            scans: Scans::default(),
            bursts: Bursts::default(),
            stacks: Stacks::default(),
            loss: LossLedger::default(),
            condition: Condition::default(),
            coverage: CoverageLedger::default(),
            canaries: Canaries::new(canary_interval_ns),
            packets: Packets::new(packets_rest_ns),
            auditor: Auditor::new(AuditPolicy::default(), DiscoveryLimits::default()),
            audit_inputs: Vec::new(),
            replay: Replay::new(node.clone()),
            resumed: None,
            outbox: Outbox::new(run, node),
        };
        engine.allow.local.clone_from(&policy.allow.local);
        engine.set_policy(policy);
        engine
    }

    /// Takes a record from a ring. Bad bytes are counted and change nothing else.
    pub fn handle_record(&mut self, ring: Ring, bytes: &[u8]) {
        let kind = decode::kind_of(bytes);
        self.loss.count_received(ring, kind);
        match decode::decode(bytes) {
            // The sensor's own acts are told apart before they wait for anything or reach any table.
            Ok((boot_ns, event)) if self.is_canary(boot_ns, &event) => self.loss.count_canary(ring, kind),
            Ok((_, event)) if self.is_unwatched(&event) => {}
            Ok((boot_ns, event)) => {
                self.note_packets_wanted(boot_ns, &event);
                if let Event::AcceptTask(event) = &event {
                    self.expect_taker(event);
                }
                self.merge.push(ring, boot_ns, event);
            }
            Err(_) => self.loss.count_undecodable(),
        }
        self.shrink_merge();
    }

    fn shrink_merge(&mut self) {
        while self.merge.is_over_full() {
            self.released_early += 1;
            self.release_next();
        }
    }

    /// Takes the time up to which both rings have been read and their records handed in. A source that never says it is
    /// taken to hand in everything at once.
    pub fn handle_drained(&mut self, boot_ns: u64) {
        self.drained_ns = boot_ns;
    }

    /// Takes a new distance between the clocks; applies to records released from now on.
    pub fn handle_clock(&mut self, clock: ClockMap) {
        self.clock = clock;
    }

    /// Replaces the policy for what is judged from now on. Everything else stays: the node's own addresses, tables, and what
    /// is remembered of open chains. `restart`: keys that have changed and are not taken.
    pub fn handle_policy(&mut self, now: Timestamp, policy: Policy, restart: Vec<&'static str>) {
        self.set_policy(policy);
        let reload = Some(Box::new(Reload { applied: true, problems: Vec::new(), restart }));
        self.outbox.send_health(now, Health { reload, ..Health::new(HealthState::Reloaded) });
        // The last word is how it is: a sensor that sees less than it should does not look well for having been reloaded.
        if self.covered_state() != HealthState::Running {
            self.outbox.send_health(now, Health::new(self.covered_state()));
        }
    }

    /// Takes note that another policy was refused, and why; the present one stays.
    pub fn handle_refused_policy(&mut self, now: Timestamp, problems: Vec<Arc<str>>) {
        let reload = Some(Box::new(Reload { applied: false, problems, restart: Vec::new() }));
        self.outbox.send_health(now, Health { reload, ..Health::new(self.covered_state()) });
    }

    /// Takes the node's own addresses, which count as local.
    pub fn handle_addresses(&mut self, now: Timestamp, addresses: Vec<IpAddr>) {
        if !self.set_addresses(addresses) || self.outbox.is_early() {
            return;
        }
        let addresses = self.allow.local.clone();
        self.outbox.send_health(now, Health { addresses, ..Health::new(self.covered_state()) });
    }

    /// Releases the records that no earlier one can overtake any more and does whatever else is due.
    ///
    /// Does nothing before [`Self::handle_ready`]: the tables are not seeded yet.
    pub fn poll(&mut self, now: Timestamp) {
        if self.outbox.is_early() {
            return;
        }
        // A backlog in the rings may hold older records than those that are here, however old these are.
        let horizon = now.boot_ns.saturating_sub(self.merge_window_ns).min(self.drained_ns);
        while let Some((boot_ns, event)) = self.merge.peek() {
            if boot_ns > horizon || (matches!(event, Event::Accept(_)) && self.wait_for_holders(boot_ns, now))
            {
                break;
            }
            self.release_next();
        }
        self.expire_holds(now);
        self.expire_bursts(now);
        self.expire_socket_requests(now);
        self.outbox.pass(horizon);
    }

    /// Boot-clock time at which [`Self::poll`] has something to do next.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<u64> {
        let record = self.merge.peek().map(|(boot_ns, _)| boot_ns.saturating_add(self.merge_window_ns));
        [record, self.holds.next_due(), self.bursts.next_due(), self.requests.sockets.next_due()]
            .into_iter()
            .flatten()
            .min()
    }

    /// Takes the next line of output.
    pub fn next_output(&mut self) -> Option<Output> {
        self.outbox.next_output()
    }

    /// Takes the next thing the core wants from outside.
    pub fn next_request(&mut self) -> Option<Request> {
        self.outbox.next_request()
    }

    fn set_policy(&mut self, policy: Policy) {
        let Policy { mut ports, tools, networks, mut allow, limits, cluster } = policy;
        self.origins.table().set_bytes(limits.state_bytes);
        self.stacks.table().set_bytes(limits.state_bytes);
        self.outbox.set_limits(limits);
        self.outbox.set_narrowed(allow.narrowed());
        let audit = AuditPolicy {
            allow: AllowList { local: Vec::new(), ..allow.clone() },
            nodes: cluster.nodes,
            pods: cluster.pods,
            networks: networks.clone(),
            trusted_proxies: cluster.trusted_proxies,
        };
        self.auditor.set_policy(audit);
        self.inside.networks = networks;
        self.outbox.set_inside(self.inside.clone());
        ports.sort_unstable_by_key(|(port, _)| *port);
        self.ports = ports;
        self.processes.set_tools(tools);
        allow.local = std::mem::take(&mut self.allow.local);
        self.allow = allow;
    }

    /// Returns whether they differ from those known.
    fn set_addresses(&mut self, mut addresses: Vec<IpAddr>) -> bool {
        for address in &mut addresses {
            *address = address.to_canonical();
        }
        addresses.sort_unstable();
        addresses.dedup();
        let changed = self.allow.local != addresses;
        self.inside.own.clone_from(&addresses);
        self.outbox.set_inside(self.inside.clone());
        self.allow.local = addresses;
        changed
    }

    fn service_of(&self, port: u16) -> Service {
        self.configured_service(port).unwrap_or(Service::Other)
    }

    fn configured_service(&self, port: u16) -> Option<Service> {
        let index = self.ports.binary_search_by_key(&port, |(port, _)| *port).ok()?;
        Some(self.ports[index].1)
    }

    fn release_next(&mut self) {
        if let Some((boot_ns, event)) = self.merge.pop() {
            let at = self.clock.at(boot_ns);
            self.apply(at, event);
        }
    }

    fn apply(&mut self, at: Timestamp, event: Event) {
        match event {
            Event::Listener(event) => self.on_listener(at, &event),
            Event::Accept(event) => self.on_accept(at, &event),
            Event::Close(event) => self.on_close(at, &event),
            Event::Connect(event) => self.on_connect(at, &event),
            Event::Exec(event) => self.on_exec(at, &event),
            Event::Exit(event) => self.on_exit(at, &event),
            Event::Fork(event) => self.processes.fork(&event),
            Event::Cgroup(event) => self.on_cgroup(at, &event),
            Event::SocketConnect(event) => self.on_socket_connect(at, &event),
            Event::FileOpen(event) => self.on_file_open(at, &event),
            Event::AcceptTask(event) => self.on_accept_task(at, &event),
            Event::Payload(event) => self.on_payload(at, event),
            Event::SocketPayload(event) => self.on_socket_payload(at, &event),
            Event::Hop(event) => self.on_hop(&event),
        }
    }
}

#[cfg(test)]
mod tests;
