//! Coverage and canaries, in virtual time.

use std::net::IpAddr;

use sensor_common::counters::{Event as ProbeEvent, Fate};
use sensor_common::flood::{Counts, Port, PortKey};
use sensor_common::record::{ConnectStage, RecordKind};

use super::*;
use crate::canary::{Act, Canary, CanaryNotice, Connection, Sign};
use crate::coverage::Gap;
use crate::fact::End;
use crate::health::{
    Blind, Capability, Coverage, CoverageState, HealthState, Hook, HookState, KernelCounters,
};
use crate::ids::FileKey;
use crate::records::{
    Exec, accept, accept_task, bound, cgroup, close, connect, ends, exit, file_open, fork, listener, payload,
    socket_connect, socket_payload, v2,
};

mod attempts;
mod detached;
mod files;
mod resting;
mod stale;
mod strangers;
mod tables;

/// The sensor itself.
const OWN: P = P(500, "quaywatch");
const CHILD: P = P(501, "quaywatch");
pub(super) const PORT: u16 = 40_001;
pub(super) const CLIENT: u16 = 40_002;
const TOKEN: &str = "00c0ffee";
const NAME: &str = "quaywatch-canary-1";
/// Inodes of the file of the sensor's unix socket, and of the directory of its file.
const SOCKET: u64 = 91;
const PLACE: u64 = 92;
pub(super) const SECOND: u64 = 1_000_000_000;
const INTERVAL_NS: u64 = 10 * SECOND;

const PROGRAMS: [&str; 14] = [
    "lsm_unix_connect",
    "unix_requests",
    "lsm_file_open",
    "accept_task",
    "sched_process_fork",
    "sched_process_exec",
    "sched_process_exit",
    "cgroup_mkdir",
    "cgroup_rmdir",
    "packets_in",
    "packets_out",
    "inet_sock_set_state",
    "walk_tasks",
    "walk_listeners",
];

fn hooks(without: &[&str]) -> Vec<Hook> {
    let hook = |program: &str| Hook {
        name: program.into(),
        program: program.into(),
        state: if without.contains(&program) { HookState::Unavailable } else { HookState::Attached },
        reason: None,
    };
    PROGRAMS.map(hook).into()
}

/// A sensor with all hooks and canaries every ten seconds, and what the kernel's counters say.
pub(super) struct Proving {
    pub(super) sensor: Sensor,
    counters: KernelCounters,
    round: u64,
    attempts: u64,
}

impl Proving {
    fn start() -> Self {
        let mut sensor = Sensor::seeded();
        sensor.engine = Engine::new(Settings { canary_interval_ns: Some(INTERVAL_NS), ..settings() });
        sensor.engine.handle_clock(ClockMap::from_sample(at(0)));
        sensor.engine.handle_hooks(at(1), hooks(&[]));
        sensor.now = SECOND;
        Self { sensor, counters: KernelCounters::default(), round: 0, attempts: 0 }
    }

    /// Proved by a first round and ready.
    pub(super) fn ready() -> Self {
        let mut proving = Self::start();
        proving.round(&[]);
        assert!(proving.sensor.engine.is_settled());
        proving.sensor.engine.handle_ready(at(proving.sensor.now));
        let ready = proving.healths();
        assert!(ready[0].coverage.iter().all(|entry| entry.state == CoverageState::Live), "{ready:#?}");
        assert!(ready[0].coverage.iter().all(|entry| entry.reason.is_none()), "{ready:#?}");
        proving
    }

    fn notice(&mut self, notice: CanaryNotice) {
        let now = at(self.sensor.tick());
        self.sensor.engine.handle_canary(now, notice);
    }

    fn connection(&self) -> Connection {
        let end = |port| End { ip: IpAddr::from([127, 0, 0, 1]), port };
        Connection { server: end(PORT), client: end(CLIENT), netns: 1 }
    }

    /// A whole round, of which the probes report all but some.
    pub(super) fn round(&mut self, without: &[Sign]) {
        self.notice(CanaryNotice::Begins(Canary::Connection(self.connection())));
        self.notice(CanaryNotice::Begins(Canary::Process { token: TOKEN.into() }));
        self.notice(CanaryNotice::Begins(Canary::Cgroup { name: NAME.into() }));
        self.notice(CanaryNotice::Begins(Canary::Socket { key: key(SOCKET) }));
        self.notice(CanaryNotice::Begins(Canary::File { place: key(PLACE) }));
        self.signs(without);
        self.notice(CanaryNotice::Ended);
        self.look_at_attempts();
    }

    fn signs(&mut self, without: &[Sign]) {
        self.round += 1;
        for sign in Sign::ALL.into_iter().filter(|sign| !without.contains(sign)) {
            let now = self.sensor.tick();
            match self.record(sign, now) {
                Some(record) => self.sensor.record(Ring::Bulk, &record),
                None => self.attempts += 1,
            }
        }
        self.sensor.tick();
    }

    /// What the kernel has counted of attempts, as the shell hands it in.
    fn look_at_attempts(&mut self) {
        let counts = Counts { attempts: self.attempts, ..Counts::default() };
        let place = PortKey { netns: 1, port: u32::from(PORT) };
        self.sensor
            .engine
            .handle_attempts(at(self.sensor.now), &[(place, Port { counts, ..Port::default() })]);
    }

    /// The record that a sign is; one is none.
    fn record(&self, sign: Sign, now: u64) -> Option<Vec<u8>> {
        let inbound = ends(("127.0.0.1", PORT), ("127.0.0.1", CLIENT));
        let outbound = ends(("127.0.0.1", CLIENT), ("127.0.0.1", PORT));
        // Every round has a process and a cgroup of its own.
        let child = P(CHILD.0 + self.round as u32, CHILD.1);
        let made = v2(7000 + self.round);
        Some(match sign {
            Sign::Attempt => return None,
            Sign::ListenerOpened => listener(now, true, 77, OWN, v2(HOST), bound("127.0.0.1", PORT)),
            Sign::ListenerClosed => listener(now, false, 77, OWN, v2(HOST), bound("127.0.0.1", PORT)),
            Sign::Accept => accept(now, 9, v2(HOST), inbound),
            Sign::InboundClose => close(now, 9, None, v2(HOST), inbound),
            Sign::Connect => connect(now, 8, OWN, v2(HOST), outbound, ConnectStage::Established, 0),
            Sign::OutboundClose => close(now, 8, Some(OWN), v2(HOST), outbound),
            Sign::Request => payload(now, 9, v2(HOST), inbound, false, 0, b"?"),
            Sign::Answer => payload(now, 9, v2(HOST), inbound, true, 0, b"?"),
            Sign::Fork => fork(now, OWN, child),
            Sign::Exec => {
                let args = ["quaywatch", "canary", TOKEN];
                let mut exec = Exec::new(now, child, v2(HOST), "/proc/self/exe", &args);
                exec.ancestors = &[OWN, INIT];
                exec.bytes()
            }
            Sign::Exit => exit(now, child, v2(HOST), 0),
            Sign::CgroupMade => cgroup(now, true, made, OWN, &format!("/{NAME}")),
            Sign::CgroupRemoved => cgroup(now, false, made, OWN, &format!("/{NAME}")),
            Sign::AcceptTask => accept_task(now, 9, OWN, v2(HOST)),
            Sign::SocketConnect => socket_connect(now, OWN, v2(HOST), SOCKET),
            Sign::SocketRequest => socket_payload(now, 11, (OWN, v2(HOST)), SOCKET, false, 0, b"?"),
            Sign::SocketAnswer => socket_payload(now, 11, (OWN, v2(HOST)), SOCKET, true, 0, b"?"),
            Sign::FileOpen => file_open(now, OWN, v2(HOST), PLACE, "/canary"),
        })
    }

    /// Lets time pass and looks at the counters, as the shell does twice a second.
    pub(super) fn pass(&mut self, span_ns: u64) {
        let end = self.sensor.now + span_ns;
        while self.sensor.now < end {
            self.sensor.pass(SECOND / 2);
            self.sensor.engine.handle_counters(at(self.sensor.now), &self.counters);
            self.look_at_attempts();
        }
    }

    pub(super) fn healths(&mut self) -> Vec<Health> {
        healths(self.sensor.outputs())
    }

    /// Two rounds without these signs, and the time until that is noticed.
    fn miss(&mut self, without: &[Sign]) {
        for _ in 0..2 {
            self.round(without);
            self.pass(2 * SECOND);
        }
    }

    fn is_asked_to_run(&mut self) -> bool {
        self.sensor.requests().contains(&Request::RunCanaries)
    }
}

/// A file on the device of the records.
fn key(inode: u64) -> FileKey {
    FileKey { device: 7, inode }
}

pub(super) fn entry(health: &Health, capability: Capability) -> &Coverage {
    health.coverage.iter().find(|entry| entry.capability == capability).expect("all are there")
}

fn states_of(health: &Health) -> Vec<(Capability, CoverageState)> {
    let covered = health.coverage.iter().filter(|entry| entry.state != CoverageState::Live);
    covered.map(|entry| (entry.capability, entry.state)).collect()
}

#[test]
fn canaries_are_counted_and_never_shown() {
    let mut proving = Proving::ready();
    let received = proving.sensor.engine.statistics().received;
    proving.round(&[]);
    proving.pass(SECOND);
    assert_eq!(proving.sensor.outputs(), []);
    let statistics = proving.sensor.engine.statistics();
    assert_eq!(
        statistics.received - received,
        Sign::COUNT as u64 - 1,
        "produced = received + lost + suppressed"
    );
    assert_eq!((statistics.listeners, statistics.connections, statistics.waiting), (0, 0, 0));
    assert!(!proving.sensor.requests().contains(&Request::RefreshListeners), "no holder is looked for");
}

#[test]
fn the_ready_record_says_what_is_not_proved_yet() {
    let mut proving = Proving::start();
    proving.round(&[Sign::Exec]);
    proving.sensor.engine.handle_ready(at(proving.sensor.now));
    let ready = proving.healths();
    let execs = entry(&ready[0], Capability::Execs);
    assert_eq!((execs.state, execs.reason.as_deref()), (CoverageState::Degraded, Some("not proved yet")));
    assert_eq!(entry(&ready[0], Capability::Accepts).reason, None);
    proving.round(&[]);
    let proved = proving.healths();
    let execs = entry(&proved[0], Capability::Execs);
    assert_eq!((execs.state, execs.reason.as_deref()), (CoverageState::Live, None));
}

#[test]
fn a_canary_that_does_not_come_back_twice_makes_blind_since_it_was_seen_last() {
    let mut proving = Proving::ready();
    let seen = proving.sensor.now;
    proving.pass(INTERVAL_NS);
    assert!(proving.is_asked_to_run());
    proving.round(&[Sign::Exec]);
    proving.pass(2 * SECOND);
    assert_eq!(proving.healths(), [], "once may be chance");
    assert!(proving.is_asked_to_run(), "so it is asked for again at once");
    proving.round(&[Sign::Exec]);
    proving.pass(2 * SECOND);
    let blind = proving.healths();
    assert_eq!(blind.len(), 1);
    assert_eq!(blind[0].state, HealthState::Degraded);
    let expected =
        [(Capability::Execs, CoverageState::Blind), (Capability::Containers, CoverageState::Degraded)];
    assert_eq!(states_of(&blind[0]), expected);
    let execs = entry(&blind[0], Capability::Execs);
    assert!(execs.since.boot_ns <= seen, "{execs:?}");
    assert_eq!(
        execs.reason.as_deref(),
        Some("no exec is seen; the hook is in place and does not report the sensor's own canary")
    );
    assert!(proving.sensor.requests().contains(&Request::Reattach("sched_process_exec")));

    let since = execs.since;
    proving.round(&[]);
    let back = proving.healths();
    assert_eq!((back[0].state, states_of(&back[0])), (HealthState::Running, Vec::new()));
    let Some(Blind { capability: Capability::Execs, from, to }) = back[0].blind else { panic!("{back:#?}") };
    assert!(from == since && to.boot_ns > from.boot_ns, "{back:#?}");
}

#[test]
fn every_sign_is_missed_by_the_capability_it_proves() {
    use Capability::{
        AcceptTasks, Accepts, Connects, Containers, CredentialFiles, Execs, Listeners, Requests,
        RuntimeSockets, Scans, SocketRequests,
    };
    for (sign, capability, state) in [
        (Sign::ListenerOpened, Listeners, CoverageState::Blind),
        (Sign::ListenerClosed, Listeners, CoverageState::Degraded),
        (Sign::Accept, Accepts, CoverageState::Blind),
        (Sign::InboundClose, Accepts, CoverageState::Degraded),
        (Sign::Connect, Connects, CoverageState::Blind),
        (Sign::OutboundClose, Connects, CoverageState::Degraded),
        (Sign::Attempt, Scans, CoverageState::Degraded),
        (Sign::Request, Requests, CoverageState::Blind),
        (Sign::Answer, Requests, CoverageState::Degraded),
        (Sign::Fork, Execs, CoverageState::Degraded),
        (Sign::Exec, Execs, CoverageState::Blind),
        (Sign::Exit, Execs, CoverageState::Degraded),
        (Sign::CgroupMade, Containers, CoverageState::Blind),
        (Sign::CgroupRemoved, Containers, CoverageState::Degraded),
        (Sign::AcceptTask, AcceptTasks, CoverageState::Blind),
        (Sign::SocketConnect, RuntimeSockets, CoverageState::Blind),
        (Sign::SocketRequest, SocketRequests, CoverageState::Blind),
        (Sign::SocketAnswer, SocketRequests, CoverageState::Degraded),
        (Sign::FileOpen, CredentialFiles, CoverageState::Blind),
    ] {
        let mut proving = Proving::ready();
        let mut without = vec![sign];
        // What was not seen to be made is not known when it goes.
        match sign {
            Sign::CgroupMade => without.push(Sign::CgroupRemoved),
            Sign::Fork => without.push(Sign::Exit),
            _ => {}
        }
        proving.miss(&without);
        let health = proving.healths().pop().expect("a change");
        assert_eq!(entry(&health, capability).state, state, "{sign:?}");
    }
}

#[test]
fn blindness_is_not_dated_by_a_sign_that_costs_less() {
    let mut proving = Proving::ready();
    proving.pass(INTERVAL_NS);
    // The end of an accepted connection is missed from the start, accepts only later.
    proving.miss(&[Sign::InboundClose]);
    let seen = proving.sensor.now;
    proving.round(&[Sign::InboundClose]);
    proving.pass(INTERVAL_NS);
    proving.healths();
    proving.miss(&[Sign::Accept, Sign::InboundClose]);
    let blind = proving.healths().pop().expect("a change");
    let accepts = entry(&blind, Capability::Accepts);
    assert_eq!(accepts.state, CoverageState::Blind);
    assert!(accepts.since.boot_ns >= seen, "{accepts:?}");
}

#[test]
fn nothing_is_owed_by_a_program_that_is_not_attached() {
    let mut proving = Proving::ready();
    proving.sensor.engine.handle_hooks(at(proving.sensor.now), hooks(&["cgroup_rmdir"]));
    proving.healths();
    proving.sensor.requests();
    proving.miss(&[Sign::CgroupRemoved]);
    assert_eq!(proving.healths(), []);
    assert!(!proving.sensor.requests().contains(&Request::Reattach("cgroup_rmdir")));
}

#[test]
fn loss_and_suppression_are_no_blindness() {
    for fate in [Fate::Lost, Fate::Suppressed] {
        let mut proving = Proving::ready();
        for _ in 0..5 {
            proving.notice(CanaryNotice::Begins(Canary::Connection(proving.connection())));
            proving.signs(&[Sign::Accept]);
            proving.notice(CanaryNotice::Ended);
            proving.counters.records[0][RecordKind::Accept as usize][fate as usize] += 1;
            proving.pass(2 * SECOND);
        }
        assert!(proving.healths().iter().all(|health| health.coverage.is_empty()), "{fate:?}");
    }
}

#[test]
fn a_record_on_its_way_is_not_missing() {
    let mut proving = Proving::ready();
    // The rings are not read, as while the process was stopped.
    proving.sensor.engine.handle_drained(proving.sensor.now);
    proving.miss(&[Sign::Accept]);
    assert_eq!(proving.healths(), []);
    let now = proving.sensor.tick();
    let late = proving.record(Sign::Accept, now).expect("a record");
    proving.sensor.record(Ring::Management, &late);
    proving.sensor.engine.handle_drained(u64::MAX);
    proving.pass(2 * SECOND);
    assert_eq!(proving.healths(), []);
}

#[test]
fn an_act_that_cannot_be_done_is_untested_and_nothing_follows_from_it() {
    let mut proving = Proving::ready();
    for _ in 0..3 {
        proving.notice(CanaryNotice::Begins(Canary::Cgroup { name: NAME.into() }));
        proving.notice(CanaryNotice::Failed(Act::Cgroup, "no cgroup can be made".into()));
        proving.notice(CanaryNotice::Ended);
        proving.pass(INTERVAL_NS);
    }
    let told = proving.healths();
    let containers = entry(&told[0], Capability::Containers);
    assert_eq!(
        (containers.state, containers.reason.as_deref()),
        (CoverageState::Live, Some("not tested: no cgroup can be made"))
    );
    assert_eq!(told.len(), 1, "told once: {told:#?}");
    assert_eq!(told[0].state, HealthState::Running);
}

#[test]
fn a_round_that_hangs_is_untested_and_asked_for_again() {
    let mut proving = Proving::ready();
    proving.notice(CanaryNotice::Begins(Canary::Process { token: TOKEN.into() }));
    proving.pass(21 * SECOND);
    let hanging = proving.healths();
    let execs = entry(&hanging[0], Capability::Execs);
    assert_eq!(
        (execs.state, execs.reason.as_deref()),
        (CoverageState::Live, Some("not tested: the canary hangs"))
    );
    assert!(proving.is_asked_to_run());
    proving.notice(CanaryNotice::Ended);
    proving.pass(INTERVAL_NS);
    assert!(proving.is_asked_to_run());
}

#[test]
fn rounds_are_asked_for_at_the_interval() {
    let mut proving = Proving::ready();
    proving.pass(9 * SECOND);
    assert!(!proving.is_asked_to_run());
    proving.pass(2 * SECOND);
    assert!(proving.is_asked_to_run());
    proving.pass(5 * SECOND);
    assert!(!proving.is_asked_to_run(), "the one that was asked for has not begun");
}

#[test]
fn the_end_of_the_run_ends_a_time_of_blindness() {
    let mut proving = Proving::ready();
    proving.sensor.engine.handle_hooks(at(proving.sensor.now), hooks(&["sched_process_exec"]));
    proving.healths();
    proving.sensor.engine.finish(at(proving.sensor.now), &KernelCounters::default());
    let last = proving.healths();
    assert_eq!(last[0].blind.map(|blind| blind.capability), Some(Capability::Execs));
    assert_eq!(last.last().map(|health| health.state), Some(HealthState::Stopping));
}

#[test]
fn a_reload_does_not_hide_that_less_is_seen() {
    let mut proving = Proving::ready();
    proving.sensor.engine.handle_hooks(at(proving.sensor.now), hooks(&["sched_process_exec"]));
    proving.healths();
    proving.sensor.engine.handle_policy(at(proving.sensor.now), settings().policy, Vec::new());
    let states: Vec<HealthState> = proving.healths().iter().map(|health| health.state).collect();
    assert_eq!(states, [HealthState::Reloaded, HealthState::Degraded]);
}

#[test]
fn before_the_ready_record_nothing_is_told() {
    let mut proving = Proving::start();
    proving.sensor.engine.handle_hooks(at(900), hooks(&["walk_tasks"]));
    proving.sensor.engine.handle_gap(at(901), Gap::new(Capability::Accepts, "unknown"));
    proving.sensor.engine.handle_walk(at(902), "walk_listeners", Some("cannot be read"));
    assert_eq!(proving.sensor.outputs(), []);
    proving.round(&[]);
    proving.sensor.engine.handle_ready(at(1000));
    let ready = proving.healths();
    assert_eq!((ready.len(), ready[0].state), (1, HealthState::Ready));
    let degraded = [Capability::Listeners, Capability::Accepts, Capability::Execs];
    assert_eq!(states_of(&ready[0]), degraded.map(|capability| (capability, CoverageState::Degraded)));
    assert_eq!(
        entry(&ready[0], Capability::Accepts).reason.as_deref(),
        Some("the holder of a listening socket is not refreshed; unknown")
    );
}

#[test]
fn a_sensor_that_is_blind_is_not_in_order_again_when_nothing_is_lost() {
    let mut proving = Proving::ready();
    proving.sensor.engine.handle_hooks(at(proving.sensor.now), hooks(&["sched_process_exec"]));
    proving.counters.records[0][RecordKind::Exec as usize][Fate::Lost as usize] = 3;
    proving.pass(SECOND / 2);
    proving.pass(11 * SECOND);
    assert_eq!(states(proving.sensor.outputs()), [HealthState::Degraded; 3]);
}
