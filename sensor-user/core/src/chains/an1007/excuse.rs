//! What entries of the allow-list about containers excuse, and what they do not.

use std::sync::Arc;

use super::An1007;
use super::step::Step;
use crate::fact::{ContainerAction, Origin};

impl An1007 {
    /// Whether a container is part of a chain.
    pub(in crate::chains) fn holds(&self, container: &Arc<str>) -> bool {
        self.by_container.contains_key(container)
    }

    /// Whether a step that an entry expects is not looked at for that: where nothing tells who asked for the container. An
    /// entry says nothing against what is known of connections, nor of a container that is part of a chain.
    pub(super) fn is_excused(
        &mut self,
        container: &Arc<str>,
        action: ContainerAction,
        origin: &Origin,
    ) -> bool {
        let is_known = origin.conn.is_some() || !origin.candidates.is_empty();
        if is_known || self.holds(container) {
            return false;
        }
        if action == ContainerAction::Enriched {
            // Its steps were told when nobody knew what it is called.
            let steps = self.steps.peek(container);
            if steps.is_some_and(|steps| steps.iter().any(Step::has_origin)) {
                return false;
            }
            self.steps.remove(container);
        }
        true
    }
}
