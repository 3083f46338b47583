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
    /// Id and time of arrival: a client may choose the id, and choose that of another request.
    seen: Bounded<(Arc<str>, u64), ()>,
    folded: u64,
}

impl Fold {
    pub(super) fn new() -> Self {
        Self { seen: Bounded::new(REQUESTS_MAX), folded: 0 }
    }

    /// Whether this event is the one that a request is judged by: the first that knows the answer.
    pub(super) fn admits(&mut self, stage: Stage, audit_id: &Arc<str>, at_ns: u64) -> bool {
        let key = (audit_id.clone(), at_ns);
        let admitted = stage != Stage::RequestReceived && !self.seen.contains(&key);
        if admitted {
            self.seen.insert(key, ());
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
        assert!(!fold.admits(Stage::RequestReceived, &id, 7));
        assert!(fold.admits(Stage::ResponseStarted, &id, 7));
        assert!(!fold.admits(Stage::ResponseComplete, &id, 7));
        assert!(!fold.admits(Stage::ResponseComplete, &id, 7));
        assert!(fold.admits(Stage::ResponseComplete, &Arc::from("b"), 7));
        assert_eq!(fold.folded(), 3);
    }

    #[test]
    fn a_client_that_chooses_the_id_of_another_request_hides_nothing() {
        let mut fold = Fold::new();
        let id = Arc::from("a");
        assert!(fold.admits(Stage::ResponseComplete, &id, 7));
        assert!(fold.admits(Stage::ResponseComplete, &id, 8));
    }

    #[test]
    fn memory_is_bounded() {
        let mut fold = Fold::new();
        for number in 0..2 * REQUESTS_MAX {
            assert!(fold.admits(Stage::ResponseComplete, &number.to_string().into(), 7));
        }
        assert_eq!(fold.seen.len(), REQUESTS_MAX);
    }
}
