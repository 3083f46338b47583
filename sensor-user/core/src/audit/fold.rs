//! Several events, one request: stages and repetitions are folded by the request's id.

use std::sync::Arc;

use super::request::Stage;
use crate::bounded::Bounded;

/// Requests remembered: the API server's webhook backend sends a batch again until it is taken, and a watch ends an hour
/// after it began.
const REQUESTS_MAX: usize = 65_536;

/// The requests that were answered lately.
#[derive(Clone, Debug)]
pub(super) struct Fold {
    seen: Bounded<Arc<str>, ()>,
    folded: u64,
}

impl Fold {
    pub(super) fn new() -> Self {
        Self { seen: Bounded::new(REQUESTS_MAX), folded: 0 }
    }

    /// Whether this event is the one that a request is judged by: the first that knows the answer.
    pub(super) fn admits(&mut self, stage: Stage, audit_id: &Arc<str>) -> bool {
        let admitted = stage != Stage::RequestReceived && !self.seen.contains(audit_id);
        if admitted {
            self.seen.insert(audit_id.clone(), ());
        } else {
            self.folded += 1;
        }
        admitted
    }

    /// Events that said nothing new.
    pub(super) fn folded(&self) -> u64 {
        self.folded
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_answer_counts_and_nothing_after_it() {
        let mut fold = Fold::new();
        let id = Arc::from("a");
        assert!(!fold.admits(Stage::RequestReceived, &id));
        assert!(fold.admits(Stage::ResponseStarted, &id));
        assert!(!fold.admits(Stage::ResponseComplete, &id));
        assert!(!fold.admits(Stage::ResponseComplete, &id));
        assert!(fold.admits(Stage::ResponseComplete, &Arc::from("b")));
        assert_eq!(fold.folded(), 3);
    }

    #[test]
    fn memory_is_bounded() {
        let mut fold = Fold::new();
        for number in 0..2 * REQUESTS_MAX {
            assert!(fold.admits(Stage::ResponseComplete, &number.to_string().into()));
        }
        assert_eq!(fold.seen.len(), REQUESTS_MAX);
    }
}
