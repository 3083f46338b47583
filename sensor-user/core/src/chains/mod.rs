//! Correlation: facts and their verdicts in, signals and findings out.
//!
//! Owns what is remembered between facts. Knows no clock and no source: windows are of event time, and live capture and
//! replay hand in the same facts in the same order. What other inputs find out for themselves, as the audit log does, is
//! told in the same types.

mod an1007;
mod finding;
mod signal;

use std::collections::VecDeque;
use std::sync::Arc;

use an1007::An1007;

pub use finding::{Completeness, Confidence, Entities, Finding, FindingState, Link, Severity, StageSeen};
pub use signal::{Signal, SignalKey};

use crate::fact::{Fact, Node, Verdict};
use crate::ids::RecordId;
use crate::time::Timestamp;

/// What came of a fact, without its place in the output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Derived {
    pub(crate) id: RecordId,
    pub(crate) at: Timestamp,
    pub(crate) node: Arc<Node>,
    pub(crate) what: What,
}

/// What it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum What {
    Signal(Box<Signal>),
}

/// All analytics.
#[derive(Debug, Default)]
pub(crate) struct Chains {
    an1007: An1007,
    sender: Sender,
}

impl Chains {
    /// Takes a fact that has its id, with what the allow-list says of it.
    pub(crate) fn handle(&mut self, fact: &Fact, verdict: Option<&Verdict>) {
        self.sender.signals = 0;
        self.an1007.handle(fact, verdict, &mut self.sender);
    }

    /// Takes the next result.
    pub(crate) fn next_derived(&mut self) -> Option<Derived> {
        self.sender.outputs.pop_front()
    }
}

/// Results on their way out.
#[derive(Debug, Default)]
struct Sender {
    /// Signals of the present fact.
    signals: u32,
    outputs: VecDeque<Derived>,
}

impl Sender {
    /// Tells what a fact is to an analytic.
    fn signal(&mut self, fact: &Fact, signal: Signal) {
        self.signals += 1;
        let id = RecordId(format!("signal-{}-{}", fact.id.0, self.signals).into());
        let what = What::Signal(Box::new(signal));
        self.outputs.push_back(Derived { id, at: fact.at, node: fact.node.clone(), what });
    }
}
