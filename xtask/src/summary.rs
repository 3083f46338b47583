//! Test runners' own summary lines, added up.

use std::fmt;
use std::ops::AddAssign;

/// Tests by outcome.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Passed.
    pub passed: u64,
    /// Failed.
    pub failed: u64,
    /// Not run, which the runner said.
    pub skipped: u64,
    /// Machines that had to be booted more than once.
    pub repeated: u64,
}

impl Tally {
    /// Number of tests that were run.
    pub fn executed(self) -> u64 {
        self.passed + self.failed
    }

    /// Reads a summary line of libtest or libtest-mimic; `None` for any other line.
    pub fn from_line(line: &str) -> Option<Self> {
        let counts = line.strip_prefix("test result: ")?.split_once(". ")?.1;
        let mut tally = Self::default();
        for count in counts.split("; ") {
            let (number, name) = count.split_once(' ')?;
            match name {
                "passed" => tally.passed = number.parse().ok()?,
                "failed" => tally.failed = number.parse().ok()?,
                "ignored" => tally.skipped = number.parse().ok()?,
                _ => {}
            }
        }
        Some(tally)
    }
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
        self.repeated += other.repeated;
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} passed, {} failed", self.passed, self.failed)?;
        if self.skipped > 0 {
            write!(f, ", {} skipped", self.skipped)?;
        }
        if self.repeated > 0 {
            write!(f, ", {} machines booted again", self.repeated)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn summary_lines_of_both_runners_are_read() {
        let libtest = "test result: FAILED. 3 passed; 1 failed; 2 ignored; 0 measured; 7 filtered out; finished in 0.02s";
        assert_eq!(
            Tally::from_line(libtest),
            Some(Tally { passed: 3, failed: 1, skipped: 2, ..Tally::default() })
        );
        let mimic =
            "test result: ok. 12 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 1.20s";
        assert_eq!(Tally::from_line(mimic), Some(Tally { passed: 12, ..Tally::default() }));
    }

    #[test]
    fn other_lines_are_not_summaries() {
        for line in [
            "",
            "test engine::tests::x ... ok",
            "test result: ok",
            "running 3 tests",
            "test result: ok. x passed",
        ] {
            assert_eq!(Tally::from_line(line), None, "{line}");
        }
    }

    #[test]
    fn what_is_out_of_the_ordinary_is_printed_only_when_there_is_some() {
        let tally = Tally { passed: 4, ..Tally::default() };
        assert_eq!(tally.to_string(), "4 passed, 0 failed");
        let tally = Tally { passed: 4, failed: 1, skipped: 2, repeated: 1 };
        assert_eq!(tally.to_string(), "4 passed, 1 failed, 2 skipped, 1 machines booted again");
    }
}
