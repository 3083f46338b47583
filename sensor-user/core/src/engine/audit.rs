//! Audit logs of the Kubernetes API server: every request becomes a fact, and what it signals follows it.

use std::sync::Arc;

use crate::audit::{AuditOutput, ParseError};
use crate::engine::Engine;
use crate::fact::{Fact, FactKind, Node, Quality, Verdict};
use crate::health::AuditInput;
use crate::ids::RecordId;
use crate::time::Timestamp;

impl Engine {
    /// Takes a line of an audit log that is read long after. `node` stands for the log: an API server tells no boot, and
    /// what its clock says is the only time there is, so both times of the records count from 1970.
    ///
    /// # Errors
    /// Why the line is no event; nothing follows from it but that findings of that time say that something is missing.
    pub fn handle_audit_line(&mut self, node: &Arc<Node>, line: &[u8]) -> Result<(), ParseError> {
        if let Err(error) = self.auditor.handle_line(line) {
            self.outbox.note_audit_loss(1);
            return Err(error);
        }
        while let Some(output) = self.auditor.next_output() {
            match output {
                AuditOutput::Request(request, entry) => {
                    let at = Timestamp { boot_ns: request.at_ns, unix_ns: request.at_ns };
                    let fact = self.audit_fact(None, at, node, FactKind::Audit(request));
                    self.note_replayed(&fact);
                    self.send_audited(fact, entry);
                }
                AuditOutput::Signal(signal) => self.outbox.send_audit_signal(&signal),
            }
        }
        Ok(())
    }

    /// Takes a line of an audit log that is being written. Its records are of this node, where it is read; the time that
    /// the API server wrote is taken for one of this node's clock. Returns the time of the request, nanoseconds since 1970,
    /// unless an earlier event told of it.
    ///
    /// # Errors
    /// Why the line is no event; to be counted among the [`AuditInput`] by whoever read it.
    pub fn handle_live_audit_line(&mut self, line: &[u8]) -> Result<Option<u64>, ParseError> {
        self.auditor.handle_line(line)?;
        let mut at_ns = None;
        while let Some(output) = self.auditor.next_output() {
            match output {
                AuditOutput::Request(request, entry) => {
                    at_ns = Some(request.at_ns);
                    let at = self.clock.at_unix(request.at_ns);
                    let node = self.outbox.node().clone();
                    let fact = self.audit_fact(None, at, &node, FactKind::Audit(request));
                    self.send_audited(fact, entry);
                }
                AuditOutput::Signal(signal) => self.outbox.send_audit_signal(&signal),
            }
        }
        Ok(at_ns)
    }

    /// Takes how the inputs of audit events are and what became of them since the start; empty where there are none. What
    /// was lost is reported with the next comparison of the counters.
    pub fn handle_audit_inputs(&mut self, now: Timestamp, inputs: Vec<AuditInput>) {
        if inputs.is_empty() {
            return;
        }
        self.coverage.set_audit(&inputs);
        self.loss.set_audit(&inputs);
        self.audit_inputs = inputs;
        self.report_coverage(now, false);
    }

    /// Takes a recorded request, which keeps its id and its times.
    pub(super) fn handle_recorded_audit(&mut self, fact: Fact) {
        let Fact { id, at, node, kind: FactKind::Audit(request), .. } = fact else { return };
        self.auditor.handle_request(*request);
        let mut id = Some(id);
        while let Some(output) = self.auditor.next_output() {
            match output {
                AuditOutput::Request(request, entry) => {
                    let fact = self.audit_fact(id.take(), at, &node, FactKind::Audit(request));
                    self.note_replayed(&fact);
                    self.send_audited(fact, entry);
                }
                AuditOutput::Signal(signal) => self.outbox.send_audit_signal(&signal),
            }
        }
    }

    fn audit_fact(&mut self, id: Option<RecordId>, at: Timestamp, node: &Arc<Node>, kind: FactKind) -> Fact {
        let truncated = matches!(&kind, FactKind::Audit(request) if request.truncated);
        Fact {
            id: id.unwrap_or_else(|| self.outbox.next_id()),
            at,
            node: node.clone(),
            process: None,
            container: None,
            k8s: None,
            net: None,
            quality: Quality { truncated, ..Quality::default() },
            kind,
        }
    }

    fn send_audited(&mut self, fact: Fact, entry: Option<Arc<str>>) {
        self.outbox.send_recorded(fact, Some(entry.map_or(Verdict::Unlisted, Verdict::Listed)));
    }
}
