//! The table of the matrix in docs/kernel-hooks.md, and sections of documents that are written by this program.

use std::fs;

use anyhow::{Context as _, Result, ensure};

use super::Matrix;
use super::matrix::{MACHINES, Machine, Owed, ROWS, Root, Row, owed};
use super::report::{Outcome, Report};
use crate::command;

const DOCUMENT: &str = "docs/kernel-hooks.md";
const SECTION: &str = "matrix";
/// Stands for a promise that was kept by the only way there is.
const SEEN: &str = "yes";
/// Stands for a row that a machine does not try.
const NOT_TRIED: &str = "·";

/// Writes the table: what each machine of a run of the whole matrix reported.
pub fn write(matrix: &Matrix) -> Result<()> {
    let report_of = |machine: &Machine| {
        let finished = matrix.finished.iter().find(|finished| std::ptr::eq(finished.machine, machine));
        let report = finished.and_then(|finished| finished.result.as_ref().ok());
        report.with_context(|| format!("the table needs the whole matrix, there is no report of {machine}"))
    };
    let reports: Vec<&Report> = MACHINES.iter().map(report_of).collect::<Result<_>>()?;
    let mut releases: Vec<&str> = reports.iter().map(|report| report.release.as_str()).collect();
    releases.sort_unstable();
    // Some kernels are run with several layouts of cgroups.
    releases.dedup();
    let reported = rows(|index, row| cell_of_outcome(reports[index], row));
    let last =
        format!("Last run in full on {}: the machines were on for {}.\n", releases.join(", "), matrix.cost());
    write_section(DOCUMENT, SECTION, &format!("{reported}\n{last}"))
}

/// Demands that the table in the document is that of the matrix as it is.
///
/// # Errors
/// When it is another, or is not there.
pub fn check() -> Result<()> {
    let text = read(DOCUMENT)?;
    let found = section(&text, SECTION).with_context(|| format!("{DOCUMENT} has no section {SECTION}"))?;
    ensure!(
        found.trim_start().starts_with(&rows(cell_of_promise)),
        "the table in {DOCUMENT} is not that of the matrix: run `cargo xtask vm-test --write-docs`"
    );
    Ok(())
}

/// The tables: one for each kind of machines, with their rows and a column per machine. `cell` gets the index of the machine.
fn rows(cell: impl Fn(usize, &Row) -> String) -> String {
    [Root::Initramfs, Root::Disk].map(|root| rows_of(root, &cell)).join("\n")
}

fn rows_of(root: Root, cell: impl Fn(usize, &Row) -> String) -> String {
    let machines: Vec<usize> = (0..MACHINES.len()).filter(|index| MACHINES[*index].root == root).collect();
    let names: Vec<String> = machines.iter().map(|index| MACHINES[*index].to_string()).collect();
    let mut text =
        format!("| row | promises | {} |\n|---|---|{}\n", names.join(" | "), "---|".repeat(names.len()));
    let is_tried = |row: &&Row| machines.iter().any(|index| owed(&MACHINES[*index], row).is_some());
    for row in ROWS.iter().filter(is_tried) {
        let cells: Vec<String> = machines.iter().map(|index| cell(*index, row)).collect();
        text += &format!("| `{}` | {} | {} |\n", row.name, row.promise, cells.join(" | "));
    }
    text
}

/// What a machine found.
fn cell_of_outcome(report: &Report, row: &Row) -> String {
    match report.rows.iter().find(|(name, _)| name == row.name) {
        Some((_, Outcome::Seen)) => SEEN.to_owned(),
        Some((_, Outcome::SeenBy(way))) => format!("`{way}`"),
        Some((_, Outcome::Failed(_))) => "**failed**".to_owned(),
        None => NOT_TRIED.to_owned(),
    }
}

/// What the matrix says that a machine must find.
fn cell_of_promise(index: usize, row: &Row) -> String {
    match owed(&MACHINES[index], row) {
        Some(Owed::Seen) => SEEN.to_owned(),
        Some(Owed::SeenBy(way)) => format!("`{way}`"),
        None => NOT_TRIED.to_owned(),
    }
}

/// Reads a document of the repository.
pub fn read(document: &str) -> Result<String> {
    fs::read_to_string(command::repository().join(document))
        .with_context(|| format!("cannot read {document}"))
}

/// What is between the marks of a section.
pub fn section<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = text.split_once(&begin(name))?;
    Some(rest.split_once(&end(name))?.0)
}

/// Replaces what is between the marks of a section.
pub fn write_section(document: &str, name: &str, contents: &str) -> Result<()> {
    let text = read(document)?;
    let old = section(&text, name).with_context(|| format!("{document} has no section {name}"))?;
    let marked = |contents: &str| format!("{}{contents}{}", begin(name), end(name));
    let new = text.replacen(&marked(old), &marked(&format!("\n\n{contents}\n")), 1);
    fs::write(command::repository().join(document), new).with_context(|| format!("cannot write {document}"))
}

fn begin(name: &str) -> String {
    format!("<!-- {name}: written by `cargo xtask vm-test --write-docs` -->")
}

fn end(name: &str) -> String {
    format!("<!-- end of {name} -->")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sections_are_found_between_their_marks() {
        let text = format!("before{}inside{}after", begin("a"), end("a"));
        assert_eq!(section(&text, "a"), Some("inside"));
        assert_eq!(section(&text, "b"), None);
        assert_eq!(section(&text.replace(&end("a"), ""), "a"), None);
    }

    #[test]
    fn the_tables_have_a_cell_for_every_row_and_machine() {
        let mut rows_seen = Vec::new();
        for root in [Root::Initramfs, Root::Disk] {
            let machines = MACHINES.iter().filter(|machine| machine.root == root).count();
            let table = rows_of(root, cell_of_promise);
            for line in table.lines() {
                assert_eq!(line.matches('|').count(), machines + 3, "{line}");
            }
            rows_seen.extend(
                table.lines().skip(2).map(|line| line.split('`').nth(1).unwrap_or_default().to_owned()),
            );
        }
        for row in ROWS {
            assert!(rows_seen.iter().any(|name| name == row.name), "{}", row.name);
        }
    }

    #[test]
    fn cells_say_what_was_found_whatever_was_owed() {
        let row = &ROWS[0];
        let cell = |outcome: Option<Outcome>| {
            let rows = outcome.into_iter().map(|outcome| (row.name.to_owned(), outcome)).collect();
            cell_of_outcome(&Report { rows, ..Report::default() }, row)
        };
        assert_eq!(cell(Some(Outcome::Seen)), cell_of_promise(0, row));
        assert_eq!(cell(Some(Outcome::SeenBy("another".to_owned()))), "`another`");
        assert_eq!(cell(Some(Outcome::Failed("x".to_owned()))), "**failed**");
        assert_eq!(cell(None), NOT_TRIED);
    }
}
