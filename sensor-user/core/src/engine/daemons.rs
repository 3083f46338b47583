//! Daemons that serve management APIs: what they were told elsewhere than in their arguments, and which ports they are
//! about to open.

use std::sync::Arc;

use super::subject::Whereabouts;
use crate::daemons;
use crate::engine::{DaemonOptions, DaemonQuery, Depth, Engine, Request};
use crate::fact::ExecRole;
use crate::ids::ProcessKey;
use crate::time::Timestamp;

/// Most daemons of which the options are kept; the one used longest ago goes first.
pub(super) const DAEMONS_MAX: usize = 256;
/// Most ports that daemons inside containers have watched: what is executed there may name any.
const PORTS_OF_CONTAINERS_MAX: usize = 64;

impl Engine {
    /// Takes what a daemon was told; tells of its listeners anew if that says more of them.
    pub fn handle_daemon_options(&mut self, now: Timestamp, process: ProcessKey, options: DaemonOptions) {
        if self.processes.peek(process).is_none() {
            return;
        }
        self.daemon_options.insert(process, options);
        for sock in self.listeners.held_by(process) {
            self.announce_if_changed(now, sock, false);
        }
    }

    /// What is to be asked of a process: only the files of the host's root speak for the host's daemons, and what a
    /// container's say is that container's own word.
    #[must_use]
    pub fn daemon_query(&self, process: ProcessKey) -> Option<DaemonQuery> {
        let entry = self.processes.peek(process)?;
        let is_hosts = self.whereabouts(entry.cgroup, process) == Whereabouts::Host
            && entry.uid() == 0
            && (self.host.mnt == 0 || entry.namespaces.mnt == self.host.mnt);
        let args = entry.image.args.as_deref().unwrap_or_default();
        let file =
            daemons::configuration_of_dockerd(entry.image.exe.as_deref(), args).filter(|_| is_hosts)?;
        Some(DaemonQuery { process, file })
    }

    /// Ports beyond the configured ones.
    pub fn learned_ports(&self) -> impl Iterator<Item = (u16, Depth)> {
        self.learned.ports()
    }

    /// A daemon was executed and has not opened its ports yet, or runs since before the sensor.
    pub(super) fn expect_daemon(&mut self, process: ProcessKey) {
        if let Some(query) = self.daemon_query(process) {
            self.outbox.request(Request::ReadDaemonOptions(query));
        }
        self.expect_ports(process);
    }

    /// Has the ports watched that a daemon inside a container names. Those of the host are known to the probes by their
    /// names; in a container anybody may have such a name.
    pub(super) fn expect_ports(&mut self, process: ProcessKey) {
        let Some(entry) = self.processes.peek(process) else { return };
        let is_daemon = entry.image.role == Some(ExecRole::Daemon);
        if !is_daemon || self.whereabouts(entry.cgroup, process) == Whereabouts::Host {
            return;
        }
        let image = Arc::clone(&entry.image);
        let args = image.args.as_deref().unwrap_or_default();
        for port in daemons::named_ports(image.exe.as_deref(), args) {
            if self.configured_service(port).is_none() && self.learned.expect(port, PORTS_OF_CONTAINERS_MAX) {
                self.outbox.request(Request::WatchPort { port, depth: Depth::Listeners });
            }
        }
    }
}
