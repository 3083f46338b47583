//! AN1007: an exposed container service is used, an abnormal container comes of it, and that reaches for other nodes.
//!
//! Nothing waits for anything: a fact is judged when it comes, and what comes late is put where it belongs by its own time.
//! Steps of containers are judged again when an access of an earlier time is told, or when their risks become known; what
//! a container did is kept until it is known whether it matters.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

mod access;
mod case;
mod excuse;
mod lateral;
mod restore;
mod step;

use access::Accesses;
use case::{Case, Key};
use lateral::Lateral;
pub(super) use restore::Rest;
use step::{Cause, Judgement, Step, risk_names};

use super::analytic::{
    ABNORMAL_CONTAINER, AN1007, CONTAINER_AFTER_UNLISTED, CONTAINER_BY_UNLISTED, UNLISTED_ACCEPT,
    UNLISTED_REQUEST,
};
use super::loss_log::LossLog;
use super::{FindingState, REORDER_NS, Sender, Signal, SignalKey};
use crate::bounded::Index;
use crate::fact::{Container, ContainerAction, Fact, FactKind, Origin, Verdict};
use crate::http::route::ApiClass;
use crate::state::kept::Kept;
use crate::state::{STATE_BYTES, Table};
use crate::time::Timestamp;

/// Most chains from their second stage on; the one that grew longest ago is closed first.
const CASES_MAX: usize = 16_384;
/// Most containers whose steps are remembered, in case that more becomes known; likewise.
const STEPS_MAX: usize = 8192;
/// Most steps of one container, the latest ones.
const STEPS_OF_ONE: usize = 4;
/// Most containers whose acts are remembered, in case that it becomes known where they come from.
const LOOSE_MAX: usize = 4096;
/// Most acts of one container, the latest ones.
const LOOSE_OF_ONE: usize = 8;
/// Most steps that an access of an earlier time can change.
const RECENT_MAX: usize = 256;

/// What tunes the analytic: ATT&CK's mutable elements.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct An1007Limits {
    /// How long after an access a container may come of it, nanoseconds of event time.
    pub access_window_ns: u64,
    /// How long after the last stage lateral activity counts, likewise.
    pub lateral_window_ns: u64,
    /// Ports that lateral activity aims at.
    pub lateral_ports: Vec<u16>,
    /// Whether the metadata services of clouds are a target, whatever the port.
    pub metadata: bool,
}

impl Default for An1007Limits {
    fn default() -> Self {
        Self {
            access_window_ns: 600_000_000_000,
            lateral_window_ns: 3_600_000_000_000,
            lateral_ports: vec![22, 2375, 2376, 2379, 2380, 6443, 10250, 10255],
            metadata: true,
        }
    }
}

/// The analytic on one node.
#[derive(Debug)]
pub(super) struct An1007 {
    accesses: Accesses,
    steps: Kept<Arc<str>, Vec<Step>>,
    /// Steps of lately, by time of arrival.
    recent: VecDeque<(u64, Arc<str>)>,
    loose: Kept<Arc<str>, VecDeque<Lateral>>,
    cases: Kept<u64, Case>,
    by_key: Index<Key, u64>,
    by_container: Index<Arc<str>, u64>,
    deadlines: BTreeSet<(u64, u64)>,
    opened: u64,
    /// The latest time of any fact.
    now_ns: u64,
}

impl Default for An1007 {
    fn default() -> Self {
        Self {
            accesses: Accesses::default(),
            steps: Kept::new(Table::Steps, STEPS_MAX, STATE_BYTES),
            recent: VecDeque::new(),
            loose: Kept::new(Table::Loose, LOOSE_MAX, STATE_BYTES),
            cases: Kept::new(Table::Cases, CASES_MAX, STATE_BYTES),
            by_key: Index::default(),
            by_container: Index::default(),
            deadlines: BTreeSet::new(),
            opened: 0,
            now_ns: 0,
        }
    }
}

/// What a fact is judged with.
pub(super) struct Context<'a> {
    pub(super) limits: &'a An1007Limits,
    /// Entries of the allow-list that expect a peer by what he shows, each time anew.
    pub(super) narrowed: &'a BTreeSet<Arc<str>>,
    pub(super) losses: &'a LossLog,
    pub(super) sender: &'a mut Sender,
}

impl An1007 {
    pub(super) fn handle(&mut self, fact: &Fact, verdict: Option<&Verdict>, context: &mut Context<'_>) {
        self.pass(fact.at.boot_ns, context);
        self.on_fact(fact, verdict, context);
        self.shrink(context);
    }

    fn on_fact(&mut self, fact: &Fact, verdict: Option<&Verdict>, context: &mut Context<'_>) {
        match (&fact.kind, &fact.container) {
            (FactKind::Accept { .. } | FactKind::ApiRequest(_) | FactKind::TlsHello(_), _) => {
                self.on_access(fact, verdict, context);
            }
            (FactKind::Container { action, origin }, Some(container)) => {
                let is_listed = matches!(verdict, Some(Verdict::Listed(_)));
                if is_listed && self.is_excused(&container.key(), *action, origin) {
                    return;
                }
                self.on_container(fact, container, *action, origin, context);
            }
            (
                FactKind::Connect { .. } | FactKind::Scan { .. } | FactKind::SocketConnect { .. },
                Some(container),
            ) => {
                if let Some(lateral) = Lateral::of(fact, context.limits) {
                    self.on_lateral(fact, &container.key(), lateral, context);
                }
            }
            (FactKind::Escape(_), Some(container)) => {
                let key = container.key();
                let case = self.by_container.get(&key).and_then(|number| self.cases.get_mut(number));
                if let Some(case) = case {
                    case.add_escape(&key, &fact.id, fact.at);
                }
            }
            _ => {}
        }
    }

    /// Time has passed, whether or not anything happened in it: closes the chains whose window has ended, at the time of
    /// that end.
    pub(super) fn pass(&mut self, boot_ns: u64, context: &mut Context<'_>) {
        self.now_ns = self.now_ns.max(boot_ns);
        while let Some(&(deadline_ns, number)) = self.deadlines.first() {
            if deadline_ns.saturating_add(REORDER_NS) >= self.now_ns {
                break;
            }
            self.close(number, context);
        }
    }

    pub(super) fn evicted(&self) -> [(&'static str, u64); 3] {
        [
            ("chain-accesses", self.accesses.evicted()),
            ("chain-containers", self.steps.evicted() + self.loose.evicted()),
            ("chains", self.cases.evicted()),
        ]
    }

    /// Chains of which something was seen: connections of unlisted peers, and those that went further.
    pub(super) fn open(&self) -> usize {
        self.accesses.len() + self.cases.len()
    }

    fn on_access(&mut self, fact: &Fact, verdict: Option<&Verdict>, context: &mut Context<'_>) {
        let Some((peer, service, conn)) = fact.access() else { return };
        if verdict != Some(&Verdict::Unlisted) {
            // A hello does not say whom its connection is passed on for.
            let is_last_hop = matches!(fact.kind, FactKind::TlsHello(_));
            let is_request = matches!(fact.kind, FactKind::ApiRequest(_));
            if is_request
                && matches!(verdict, Some(Verdict::Listed(entry)) if context.narrowed.contains(entry))
            {
                self.accesses.forget_opening(&conn.0);
            } else if !is_last_hop || !self.accesses.is_behind(&conn.0, peer) {
                self.accesses.forget(&conn.0);
            }
            return;
        }
        let is_veiled = match &fact.kind {
            FactKind::ApiRequest(api) => api.protocol.is_some(),
            FactKind::TlsHello(_) => true,
            _ => !service.is_plaintext(),
        };
        let window_ns = context.limits.access_window_ns;
        let is_request = matches!(fact.kind, FactKind::ApiRequest(_));
        let veiled = is_veiled.then_some(window_ns);
        self.accesses.note(&conn.0, (peer, service), &fact.id, fact.at, is_request, veiled);
        let signal = match &fact.kind {
            FactKind::Accept { .. } => Some(UNLISTED_ACCEPT),
            FactKind::ApiRequest(api) => is_act(api.class).then_some(UNLISTED_REQUEST),
            _ => None,
        };
        if let Some(name) = signal {
            let keys = vec![
                (SignalKey::Conn, conn.0.clone()),
                (SignalKey::Event, fact.id.0.clone()),
                (SignalKey::Peer, Arc::from(peer.to_string())),
                (SignalKey::Service, Arc::from(service.name())),
            ];
            context.sender.signal(fact, signal_of(name, 0, keys));
        }
        if fact.at.boot_ns < self.now_ns {
            let affected = self.affected(&conn.0, is_veiled, fact.at.boot_ns);
            for container in affected {
                self.judge_again(&container, fact, context);
            }
        }
    }

    /// Containers of which a step is later than an access that is told now, and may come of it.
    fn affected(&mut self, conn: &str, is_veiled: bool, boot_ns: u64) -> Vec<Arc<str>> {
        let horizon = self.now_ns.saturating_sub(REORDER_NS);
        while self.recent.front().is_some_and(|(then, _)| *then < horizon) {
            self.recent.pop_front();
        }
        let may_come_of = |container: &&Arc<str>| {
            let steps = self.steps.peek(*container);
            steps.is_some_and(|steps| steps.iter().any(|step| step.may_change_by(conn, is_veiled, boot_ns)))
        };
        let mut affected: Vec<Arc<str>> =
            self.recent.iter().map(|(_, container)| container).filter(may_come_of).cloned().collect();
        affected.dedup();
        affected
    }

    fn on_container(
        &mut self,
        fact: &Fact,
        container: &Container,
        action: ContainerAction,
        origin: &Origin,
        context: &mut Context<'_>,
    ) {
        let key = container.key();
        if action == ContainerAction::Enriched {
            let risks = risk_names(container);
            let Some(steps) = self.steps.get_mut(&key) else { return };
            let is_news = steps.iter_mut().filter(|step| step.risks != risks).count() > 0;
            if is_news {
                steps.iter_mut().for_each(|step| step.risks.clone_from(&risks));
                self.judge_again(&key, fact, context);
            }
            return;
        }
        let Some(step) = Step::of(fact, container, action, origin) else { return };
        if self.recent.len() == RECENT_MAX {
            self.recent.pop_front();
        }
        self.recent.push_back((fact.at.boot_ns, key.clone()));
        match self.steps.get_mut(&key) {
            Some(steps) => {
                if steps.len() == STEPS_OF_ONE {
                    steps.remove(0);
                }
                steps.push(step.clone());
            }
            None => {
                self.steps.insert(key.clone(), vec![step.clone()]);
            }
        }
        let judgement = step.judge(&self.accesses, context.limits.access_window_ns);
        let signal = match &judgement {
            Judgement::Seen(cause) => Some((CONTAINER_BY_UNLISTED, &*cause.peers)),
            Judgement::Ordinary(peers) => Some((CONTAINER_AFTER_UNLISTED, &**peers)),
            Judgement::Unexplained if action == ContainerAction::Created && !step.risks.is_empty() => {
                Some((ABNORMAL_CONTAINER, &[][..]))
            }
            Judgement::Unexplained => None,
        };
        if let Some((name, peers)) = signal {
            let mut keys = vec![(SignalKey::Container, key), (SignalKey::Event, fact.id.0.clone())];
            if let [only] = peers {
                keys.push((SignalKey::Peer, Arc::from(only.to_string())));
            }
            context.sender.signal(fact, signal_of(name, 1, keys));
        }
        if let Judgement::Seen(cause) = judgement {
            self.join(&step, &cause, fact, context);
        }
    }

    fn judge_again(&mut self, container: &Arc<str>, fact: &Fact, context: &mut Context<'_>) {
        for step in self.steps.peek(container).cloned().unwrap_or_default() {
            if let Judgement::Seen(cause) = step.judge(&self.accesses, context.limits.access_window_ns) {
                self.join(&step, &cause, fact, context);
            }
        }
    }

    /// Puts a step into the chain that it belongs to, which may be a new one.
    fn join(&mut self, step: &Step, cause: &Cause, fact: &Fact, context: &mut Context<'_>) {
        let key = Key { class: cause.class, peers: cause.peers.clone() };
        let number = match self.known_case(step, &key, context) {
            Some(number) => number,
            None => self.open_case(Case::new(key.clone(), fact.node.clone(), cause.service), context),
        };
        let Some(case) = self.cases.get_mut(&number) else { return };
        case.add_step(step, cause);
        if case.has(&step.container) {
            self.by_container.insert(step.container.clone(), number);
        }
        let since = step.at.boot_ns;
        let until = since.saturating_add(context.limits.lateral_window_ns);
        for lateral in self.loose.remove(&step.container).unwrap_or_default() {
            if case.has(&step.container) && (since..=until).contains(&lateral.at.boot_ns) {
                case.add_lateral(&step.container, &lateral);
            }
        }
        self.settle(number, fact.at, context);
    }

    /// The chain that a step belongs to, if there is one: that of its container, else that of the same peers.
    fn known_case(&mut self, step: &Step, key: &Key, context: &mut Context<'_>) -> Option<u64> {
        let of_container = self.by_container.get(&step.container).copied();
        if let Some((number, case)) =
            of_container.and_then(|number| Some((number, self.cases.get_mut(&number)?)))
        {
            if !case.may_become(key) {
                return Some(number);
            }
            // More is known of whom it is held against than before.
            match self.by_key.get(key).copied() {
                None => {
                    self.by_key.remove(&case.key);
                    self.by_key.insert(key.clone(), number);
                    case.become_of(key.clone());
                    return Some(number);
                }
                Some(other) => self.absorb(number, other, context),
            }
        }
        let number = *self.by_key.get(key)?;
        let last_ns = self.cases.peek(&number)?.last().boot_ns;
        if step.at.boot_ns > last_ns.saturating_add(context.limits.lateral_window_ns) {
            self.close(number, context);
            return None;
        }
        Some(number)
    }

    /// Puts a chain into another one, where the same is held against the same peers.
    fn absorb(&mut self, number: u64, into: u64, context: &mut Context<'_>) {
        let Some(mut case) = self.cases.remove(&number) else { return };
        if let Some(other) = self.cases.get_mut(&into) {
            case.move_into(other);
        }
        self.end(number, case, context);
    }

    fn open_case(&mut self, case: Case, context: &mut Context<'_>) -> u64 {
        self.opened += 1;
        self.by_key.insert(case.key.clone(), self.opened);
        if let Some((number, mut evicted)) = self.cases.insert(self.opened, case) {
            evicted.forget();
            self.end(number, evicted, context);
        }
        self.opened
    }

    fn on_lateral(&mut self, fact: &Fact, container: &Arc<str>, lateral: Lateral, context: &mut Context<'_>) {
        let number = self.by_container.get(container).copied();
        let Some((number, case)) = number.and_then(|number| Some((number, self.cases.get_mut(&number)?)))
        else {
            return self.keep_loose(container, lateral);
        };
        let until = case.last().boot_ns.saturating_add(context.limits.lateral_window_ns);
        if !(case.since(container)..=until).contains(&lateral.at.boot_ns) {
            return;
        }
        let keys = vec![
            (SignalKey::Container, container.clone()),
            (SignalKey::Event, fact.id.0.clone()),
            (SignalKey::Target, lateral.target.clone()),
        ];
        case.add_lateral(container, &lateral);
        context.sender.signal(fact, signal_of(lateral.signal.0, 2, keys));
        self.settle(number, fact.at, context);
    }

    /// Records of containers wait for files, and those of what the containers do meanwhile do not.
    fn keep_loose(&mut self, container: &Arc<str>, lateral: Lateral) {
        match self.loose.get_mut(container) {
            Some(acts) => {
                if acts.len() == LOOSE_OF_ONE {
                    acts.pop_front();
                }
                acts.push_back(lateral);
            }
            None => {
                self.loose.insert(container.clone(), VecDeque::from([lateral]));
            }
        }
    }

    /// Forgets what is too much. Chains are told of when that happens.
    fn shrink(&mut self, context: &mut Context<'_>) {
        self.steps.shrink();
        self.loose.shrink();
        while let Some((number, mut evicted)) = self.cases.evict_excess() {
            evicted.forget();
            self.end(number, evicted, context);
        }
    }

    /// Tells of a chain what is new, and moves its end.
    fn settle(&mut self, number: u64, at: Timestamp, context: &mut Context<'_>) {
        let Some(case) = self.cases.get_mut(&number) else { return };
        let deadline_ns = case.last().boot_ns.saturating_add(context.limits.lateral_window_ns);
        if let Some(before) = case.deadline_ns.replace(deadline_ns)
            && before != deadline_ns
        {
            self.deadlines.remove(&(before, number));
        }
        self.deadlines.insert((deadline_ns, number));
        if let Some(state) = case.news() {
            tell(case, state, at, context);
        }
    }

    fn close(&mut self, number: u64, context: &mut Context<'_>) {
        match self.cases.remove(&number) {
            Some(case) => self.end(number, case, context),
            None => self.deadlines.retain(|(_, other)| *other != number),
        }
    }

    fn end(&mut self, number: u64, mut case: Case, context: &mut Context<'_>) {
        if self.by_key.get(&case.key) == Some(&number) {
            self.by_key.remove(&case.key);
        }
        for container in case.containers() {
            if self.by_container.get(container) == Some(&number) {
                self.by_container.remove(container);
            }
        }
        let last = case.last();
        let deadline_ns = case.deadline_ns.unwrap_or(last.boot_ns);
        self.deadlines.remove(&(deadline_ns, number));
        // An escape may be seen after the end of its chain and before that is told.
        let deadline_ns = deadline_ns.max(last.boot_ns);
        let unix_ns = last.unix_ns.saturating_add(deadline_ns - last.boot_ns);
        let at = Timestamp { boot_ns: deadline_ns, unix_ns };
        tell(&mut case, FindingState::Closed, at, context);
    }
}

fn tell(case: &mut Case, state: FindingState, at: Timestamp, context: &mut Context<'_>) {
    let Some(evidence) = case.first_evidence().cloned() else { return };
    let record = context.sender.finding_id("an1007", &evidence);
    let id = case.id.get_or_insert_with(|| record.0.clone()).clone();
    let finding = case.finding(id, state, |first, last| context.losses.missed(first, last, at));
    context.sender.finding(record, at, case.node.clone(), finding);
}

fn signal_of(name: &'static str, stage: usize, keys: Vec<(SignalKey, Arc<str>)>) -> Signal {
    Signal { name: name.into(), analytic: AN1007.id.into(), stage: AN1007.stages[stage].name.into(), keys }
}

/// Whether a request does more than look around, which is another analytic's business.
const fn is_act(class: ApiClass) -> bool {
    !matches!(class, ApiClass::Probe | ApiClass::Discovery | ApiClass::Other)
}

#[cfg(test)]
mod tests;
