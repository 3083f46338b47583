//! What a machine reported: lines of fields separated by tabs, written by `tests/vm-guest/src/report.rs`.

use std::fmt;
use std::time::Duration;

use anyhow::{Result, bail};

/// What a row found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// What it promises was seen, by the only way there is.
    Seen,
    /// It was seen in this one of several ways.
    SeenBy(String),
    /// It was not as it should be.
    Failed(String),
}

/// All that a machine said.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Release of its kernel.
    pub release: String,
    /// Rows of the matrix in the order in which they were tried.
    pub rows: Vec<(String, Outcome)>,
    /// Instructions the verifier went through, per program.
    pub programs: Vec<(String, u64)>,
    /// How long each stage took.
    pub stages: Vec<(String, Duration)>,
    /// Whether it came to the end of its stages.
    pub complete: bool,
    /// From power on to power off.
    pub duration: Duration,
    /// Processor time of its emulator in that time.
    pub work: Duration,
    /// Which boot of the machine this was; those before did not come as far as their first word.
    pub attempts: u32,
}

impl Report {
    /// Reads the lines of a machine. A last line without an end is left out: the machine died in it.
    ///
    /// # Errors
    /// When a line means nothing.
    pub fn parse(text: &str, duration: Duration) -> Result<Self> {
        let mut report = Self { duration, ..Self::default() };
        let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
        for line in whole.split('\n').filter(|line| !line.is_empty()) {
            // A terminal's line ends.
            match line.trim_end_matches('\r').split('\t').collect::<Vec<_>>()[..] {
                ["kernel", release] => release.clone_into(&mut report.release),
                ["row", name, outcome, detail] => {
                    report.rows.push((name.to_owned(), read_outcome(outcome, detail)?));
                }
                ["program", name, count] => report.programs.push((name.to_owned(), count.parse()?)),
                ["stage", name, milliseconds] => {
                    report.stages.push((name.to_owned(), Duration::from_millis(milliseconds.parse()?)));
                }
                ["end"] => report.complete = true,
                _ => bail!("a report has the line {line:?}"),
            }
        }
        Ok(report)
    }

    /// Whether the machine came as far as its guest: what happens from there on is told of the sensor, too, and no other
    /// attempt takes it back.
    #[must_use]
    pub fn has_begun(&self) -> bool {
        !self.release.is_empty()
    }
}

/// How long it took, as a whole and in its stages.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.0} s ({:.0} s of work)", self.duration.as_secs_f32(), self.work.as_secs_f32())?;
        for (name, duration) in &self.stages {
            write!(f, ", {name} {:.1} s", duration.as_secs_f32())?;
        }
        Ok(())
    }
}

fn read_outcome(name: &str, detail: &str) -> Result<Outcome> {
    Ok(match name {
        "seen" => Outcome::Seen,
        "seen-by" => Outcome::SeenBy(detail.to_owned()),
        // Escaped, to be one line on the way; a person reads it now.
        "failed" => Outcome::Failed(detail.replace("\\n", "\n").replace("\\\"", "\"")),
        _ => bail!("a report has the outcome {name:?}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Report> {
        Report::parse(text, Duration::ZERO)
    }

    #[test]
    fn reports_are_read() {
        let text = "kernel\t5.10.0-46\r\nrow\taccept\tseen\t\r\nrow\tfile\tseen-by\tfentry/x\nprogram\tp\t12\nstage\tkinds\t2500\nend\r\n";
        let report = parse(text).expect("sound");
        assert_eq!((report.release.as_str(), report.complete), ("5.10.0-46", true));
        let rows = [
            ("accept".to_owned(), Outcome::Seen),
            ("file".to_owned(), Outcome::SeenBy("fentry/x".to_owned())),
        ];
        assert_eq!(report.rows, rows);
        assert_eq!(report.programs, [("p".to_owned(), 12)]);
        assert_eq!(report.stages, [("kinds".to_owned(), Duration::from_millis(2500))]);
    }

    #[test]
    fn a_machine_that_died_is_not_complete() {
        assert!(!parse("kernel\t5.10\nrow\taccept\tseen\t\nrow\tclo").expect("sound").complete);
        assert!(!parse("kernel\t5.10\nend").expect("sound").complete);
        assert!(!parse("").expect("sound").complete);
    }

    #[test]
    fn a_machine_has_begun_with_the_first_word_of_its_guest() {
        assert!(parse("kernel\t5.10\nrow\tacc").expect("sound").has_begun());
        assert!(!parse("kernel\t5.1").expect("sound").has_begun());
    }

    #[test]
    fn what_is_no_report_is_an_error() {
        for text in [
            "row\taccept\tskipped\t\n",
            "row\taccept\n",
            "program\tp\tmany\n",
            "stage\tkinds\n",
            "nonsense\n",
        ] {
            assert!(parse(text).is_err(), "{text:?}");
        }
    }
}
