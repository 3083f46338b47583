//! What the kernels' verifiers have to do for each program, kept in docs/verifier.md.

use anyhow::{Context as _, Result, ensure};

use super::Finished;
use super::matrix::{Cgroups, KERNELS, Machine, Root};
use super::table::{read, section, write_section};
use super::verdict::Verdict;

const DOCUMENT: &str = "docs/verifier.md";
const SECTION: &str = "verifier";
/// A count may exceed the recorded one by this many per cent.
const TOLERANCE: u64 = 10;
/// Stands for a program that a kernel does not load.
const ABSENT: &str = "·";

/// Recorded counts by program and kernel.
#[derive(Debug, Default)]
pub struct Budgets(Vec<(String, &'static str, u64)>);

impl Budgets {
    /// Reads the document.
    ///
    /// # Errors
    /// When it has no table, or another than this program writes.
    pub fn read() -> Result<Self> {
        let text = read(DOCUMENT)?;
        let table =
            section(&text, SECTION).with_context(|| format!("{DOCUMENT} has no section {SECTION}"))?;
        Self::parse(table).with_context(|| format!("reading the table in {DOCUMENT}"))
    }

    fn parse(table: &str) -> Result<Self> {
        let mut budgets = Vec::new();
        for line in table.lines().filter(|line| line.starts_with("| `")) {
            let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
            let [program, counts @ ..] = &cells[..] else { continue };
            ensure!(counts.len() == KERNELS.len(), "not a cell per kernel: {line}");
            for (kernel, count) in KERNELS.iter().zip(counts).filter(|(_, count)| **count != ABSENT) {
                let count = count.parse().with_context(|| format!("not a number: {line}"))?;
                budgets.push((program.trim_matches('`').to_owned(), kernel.name, count));
            }
        }
        Ok(Self(budgets))
    }

    /// Verdicts on the programs of a machine: each must be recorded and not have grown beyond the tolerance, and where the
    /// counts are recorded from none may be missing.
    pub fn judge(&self, machine: &Machine, programs: &[(String, u64)]) -> Vec<Verdict> {
        let kernel = machine.kernel;
        let judge = |(program, count): &(String, u64)| {
            let recorded = self.0.iter().find(|(name, of, _)| name == program && *of == kernel);
            let problem = match recorded {
                None => Some(format!("{count} instructions, none recorded in {DOCUMENT}")),
                Some((_, _, recorded)) if *count > recorded + recorded * TOLERANCE / 100 => Some(format!(
                    "{count} instructions, {recorded} recorded in {DOCUMENT}: more than {TOLERANCE} % growth"
                )),
                Some(_) => None,
            };
            Verdict { name: format!("verifier {program}"), problem }
        };
        let is_missing = |(name, of, _): &&(String, &str, u64)| {
            // Elsewhere there may be nothing to attach one to.
            is_recorded(machine) && *of == kernel && programs.iter().all(|(program, _)| program != name)
        };
        let missing = self.0.iter().filter(is_missing).map(|(name, ..)| Verdict {
            name: format!("verifier {name}"),
            problem: Some(format!("it is in {DOCUMENT}, and this kernel did not load it")),
        });
        programs.iter().map(judge).chain(missing).collect()
    }
}

/// Whether the counts of its kernel are recorded from this machine.
fn is_recorded(machine: &Machine) -> bool {
    machine.cgroups == Cgroups::V2 && machine.root == Root::Initramfs
}

/// Writes the counts of a run of the whole matrix.
pub fn write(results: &[Finished]) -> Result<()> {
    let reports: Vec<_> = KERNELS
        .iter()
        .map(|kernel| {
            let of_kernel = |finished: &&Finished| {
                finished.machine.kernel == kernel.name && is_recorded(finished.machine)
            };
            let report = results.iter().find(of_kernel).and_then(|finished| finished.result.as_ref().ok());
            report.with_context(|| format!("no report of {}", kernel.name))
        })
        .collect::<Result<_>>()?;
    let mut programs: Vec<&str> =
        reports.iter().flat_map(|report| report.programs.iter().map(|(name, _)| name.as_str())).collect();
    programs.sort_unstable();
    programs.dedup();
    let names: Vec<&str> = KERNELS.iter().map(|kernel| kernel.name).collect();
    let mut text = format!("| program | {} |\n|---|{}\n", names.join(" | "), "--:|".repeat(names.len()));
    for program in programs {
        let count = |report: &&super::Report| {
            let found = report.programs.iter().find(|(name, _)| name == program);
            found.map_or(ABSENT.to_owned(), |(_, count)| count.to_string())
        };
        let counts: Vec<String> = reports.iter().map(count).collect();
        text += &format!("| `{program}` | {} |\n", counts.join(" | "));
    }
    write_section(DOCUMENT, SECTION, &text)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str =
        "\n| program | a | b | c | d | e |\n|---|--:|--:|--:|--:|--:|\n| `one` | 100 | · | 3 | 4 | 5 |\n";

    fn machine(kernel: &'static str) -> Machine {
        Machine { kernel, cgroups: Cgroups::V2, root: Root::Initramfs, stages: &[] }
    }

    fn judge(kernel: &'static str, count: u64) -> Option<String> {
        let budgets = Budgets::parse(TABLE).expect("sound");
        budgets.judge(&machine(kernel), &[("one".to_owned(), count)]).remove(0).problem
    }

    #[test]
    fn growth_beyond_the_tolerance_is_a_problem() {
        let kernel = KERNELS[0].name;
        assert_eq!(judge(kernel, 90), None);
        assert_eq!(judge(kernel, 110), None);
        assert!(judge(kernel, 111).is_some_and(|problem| problem.contains("growth")));
    }

    #[test]
    fn a_count_that_is_not_recorded_is_a_problem() {
        assert!(judge(KERNELS[1].name, 1).is_some_and(|problem| problem.contains("none recorded")));
    }

    #[test]
    fn a_program_that_is_recorded_and_not_loaded_is_a_problem() {
        let budgets = Budgets::parse(TABLE).expect("sound");
        let problems = |machine: &Machine| {
            let verdicts = budgets.judge(machine, &[]);
            verdicts.into_iter().filter(|verdict| verdict.problem.is_some()).count()
        };
        let [first, second] = [0, 1].map(|kernel| machine(KERNELS[kernel].name));
        assert_eq!((problems(&first), problems(&second)), (1, 0));
        // There are no packets to look at without version 2 cgroups.
        assert_eq!(problems(&Machine { cgroups: Cgroups::V1, ..first }), 0);
    }

    #[test]
    fn another_table_is_an_error() {
        assert!(Budgets::parse("| `one` | 1 |\n").is_err());
        assert!(Budgets::parse("| `one` | 1 | 2 | x | 4 | 5 |\n").is_err());
    }
}
