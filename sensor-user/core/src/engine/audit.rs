//! Audit logs of the Kubernetes API server: every request becomes a fact, and what it signals follows it.

use std::sync::Arc;

use crate::audit::{AuditOutput, ParseError};
use crate::engine::Engine;
use crate::fact::{Fact, FactKind, Node, Quality, Verdict};
use crate::ids::RecordId;
use crate::time::Timestamp;

impl Engine {
    /// Takes a line of an audit log. `node` stands for the log: an API server tells no boot, and what its clock says is
    /// the only time there is, so both times of the records count from 1970.
    ///
    /// # Errors
    /// Why the line is no event; nothing follows from it.
    pub fn handle_audit_line(&mut self, node: &Arc<Node>, line: &[u8]) -> Result<(), ParseError> {
        self.auditor.handle_line(line)?;
        self.send_audited(node, None);
        Ok(())
    }

    /// Takes a recorded request, which keeps its id.
    pub(super) fn handle_recorded_audit(&mut self, fact: Fact) {
        let Fact { id, node, kind: FactKind::Audit(request), .. } = fact else { return };
        self.auditor.handle_request(*request);
        self.send_audited(&node, Some(id));
    }

    fn send_audited(&mut self, node: &Arc<Node>, mut recorded: Option<RecordId>) {
        while let Some(output) = self.auditor.next_output() {
            match output {
                AuditOutput::Request(request, entry) => {
                    let id = recorded.take().unwrap_or_else(|| self.outbox.next_id());
                    let fact = Fact {
                        id,
                        at: Timestamp { boot_ns: request.at_ns, unix_ns: request.at_ns },
                        node: node.clone(),
                        process: None,
                        container: None,
                        k8s: None,
                        net: None,
                        quality: Quality { truncated: request.truncated, ..Quality::default() },
                        kind: FactKind::Audit(request),
                    };
                    self.note_replayed(&fact);
                    self.outbox.send_recorded(fact, Some(entry.map_or(Verdict::Unlisted, Verdict::Listed)));
                }
                AuditOutput::Signal(signal) => self.outbox.send_audit_signal(&signal),
            }
        }
    }
}
