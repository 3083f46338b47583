//! Takes another configuration, or says why not.

use std::sync::Arc;

use tracing::{error, info, warn};

use super::Pipeline;
use crate::config::Problem;
use crate::lookups::clock;
use crate::sources::config_file::Outcome;

/// Problems of a configuration that one record tells.
const PROBLEMS_TOLD: usize = 15;
/// Characters of each.
const PROBLEM_CHARS: usize = 500;

impl Pipeline {
    /// Judges by another configuration from now on, or says why not. What has been read from the rings so far is judged by the
    /// one before as far as it can be: what waits for records that may be older is not.
    pub(super) fn reload(&mut self, outcome: Outcome) {
        let now = clock::now();
        match outcome {
            Ok(loaded) => {
                let (policy, restart) = self.settings.reloaded(&loaded.settings);
                for warning in &loaded.warnings {
                    warn!(place = %warning.place, "{}", warning.message);
                }
                if !restart.is_empty() {
                    warn!(
                        keys = restart.join(", "),
                        "these have changed and are taken at the next start only"
                    );
                }
                info!(entries = policy.allow.entries.len(), "the configuration was reloaded");
                self.settings.policy.clone_from(&policy);
                self.engine.handle_policy(now, policy, restart);
            }
            Err(invalid) => {
                error!("the configuration was refused, and the one before stays in effect:\n{invalid}");
                self.engine.handle_refused_policy(now, told(&invalid.problems));
            }
        }
    }
}

/// As many problems of a configuration as belong into a record; standard error has them all.
fn told(problems: &[Problem]) -> Vec<Arc<str>> {
    let mut told: Vec<Arc<str>> =
        problems.iter().take(PROBLEMS_TOLD).map(|problem| shortened(&problem.to_string())).collect();
    if problems.len() > PROBLEMS_TOLD {
        told.push(format!("and {} more", problems.len() - PROBLEMS_TOLD).into());
    }
    told
}

fn shortened(text: &str) -> Arc<str> {
    match text.char_indices().nth(PROBLEM_CHARS) {
        None => text.into(),
        Some((end, _)) => format!("{}…", &text[..end]).into(),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::{Place, Severity};

    #[test]
    fn a_record_tells_no_more_than_it_may_and_says_so() {
        let place = || Place::file(Path::new("q.yaml"), Some((1, 2)));
        let problem = |text: String| Problem { severity: Severity::Error, place: place(), message: text };
        let few = told(&[problem("x".into())]);
        assert_eq!(few, ["q.yaml:1:2: error: x".into()]);
        let many = told(&vec![problem("ä".repeat(600)); PROBLEMS_TOLD + 3]);
        assert_eq!(many.len(), PROBLEMS_TOLD + 1);
        assert_eq!(many[0].chars().count(), PROBLEM_CHARS + 1);
        assert_eq!(&*many[PROBLEMS_TOLD], "and 3 more");
    }
}
