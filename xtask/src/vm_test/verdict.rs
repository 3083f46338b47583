//! What was reported against what was owed.

use std::fmt;

use super::matrix::{Machine, Owed, ROWS, owed};
use super::report::{Outcome, Report};

/// Verdict on one row, or on one program.
#[derive(Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Of what.
    pub name: String,
    /// What is wrong, if something is.
    pub problem: Option<String>,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.problem {
            None => write!(f, "{}: ok", self.name),
            Some(problem) => write!(f, "{}: FAILED: {problem}", self.name),
        }
    }
}

/// Verdicts on all rows that a machine owes, and on those that it reported without owing them. A row that was left out is
/// a failure like any other.
pub fn of_rows(machine: &Machine, report: &Report) -> Vec<Verdict> {
    let mut verdicts = Vec::new();
    for row in ROWS {
        let reported: Vec<&Outcome> =
            report.rows.iter().filter(|(name, _)| name == row.name).map(|(_, outcome)| outcome).collect();
        let problem = match (owed(machine, row), &reported[..]) {
            (None, []) => continue,
            (None, _) => Some("the matrix does not have it here".to_owned()),
            (Some(_), []) => Some("it was not tried".to_owned()),
            (Some(owed), [outcome]) => problem(owed, outcome),
            (Some(_), _) => Some("it was tried more than once".to_owned()),
        };
        verdicts.push(Verdict { name: row.name.to_owned(), problem });
    }
    for (name, _) in report.rows.iter().filter(|(name, _)| ROWS.iter().all(|row| row.name != name)) {
        verdicts.push(Verdict { name: name.clone(), problem: Some("the matrix has no such row".to_owned()) });
    }
    verdicts
}

fn problem(owed: Owed, outcome: &Outcome) -> Option<String> {
    match (owed, outcome) {
        (Owed::Seen, Outcome::Seen) => None,
        (Owed::SeenBy(owed), Outcome::SeenBy(found)) if owed == found => None,
        (_, Outcome::Failed(what)) => Some(what.clone()),
        (owed, other) => Some(format!("owed {owed:?}, found {other:?}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vm_test::matrix::{Cgroups, MACHINES};

    fn problems(machine: &Machine, rows: &[(&str, Outcome)]) -> Vec<String> {
        let rows = rows.iter().map(|(name, outcome)| ((*name).to_owned(), outcome.clone())).collect();
        let report = Report { rows, complete: true, ..Report::default() };
        of_rows(machine, &report).into_iter().filter(|v| v.problem.is_some()).map(|v| v.name).collect()
    }

    fn kept(owed: Option<Owed>) -> Outcome {
        match owed.expect("it is owed") {
            Owed::Seen => Outcome::Seen,
            Owed::SeenBy(way) => Outcome::SeenBy(way.to_owned()),
        }
    }

    fn all(machine: &Machine) -> Vec<(&'static str, Outcome)> {
        let owing = ROWS.iter().filter(|row| owed(machine, row).is_some());
        owing.map(|row| (row.name, kept(owed(machine, row)))).collect()
    }

    #[test]
    fn a_machine_that_keeps_every_promise_has_no_problem() {
        for machine in MACHINES {
            assert_eq!(problems(machine, &all(machine)), Vec::<String>::new(), "{machine}");
        }
    }

    #[test]
    fn what_is_missing_or_otherwise_is_a_problem() {
        let machine = &MACHINES[0];
        let mut rows = all(machine);
        rows.retain(|(name, _)| *name != "accept");
        assert_eq!(problems(machine, &rows), ["accept"]);
        rows.push(("accept", Outcome::SeenBy("another".to_owned())));
        assert_eq!(problems(machine, &rows), ["accept"]);
        rows.pop();
        rows.push(("accept", Outcome::Failed("another port".to_owned())));
        assert_eq!(problems(machine, &rows), ["accept"]);
        assert_eq!(problems(machine, &[]).len(), all(machine).len());
    }

    #[test]
    fn what_is_unknown_not_owed_or_twice_is_a_problem() {
        let machine = MACHINES.iter().find(|machine| machine.cgroups == Cgroups::V1).expect("there is one");
        let mut rows = all(machine);
        for extra in ["accept", "no-btf", "something"] {
            rows.push((extra, Outcome::Seen));
        }
        assert_eq!(problems(machine, &rows), ["accept", "no-btf", "something"]);
    }
}
