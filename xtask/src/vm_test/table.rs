//! The table of the matrix in docs/kernel-hooks.md, and sections of documents that are written by this program.

use std::fs;

use anyhow::{Context as _, Result, ensure};

use super::Finished;
use super::matrix::{MACHINES, Owed, ROWS, owed};
use crate::command;

const DOCUMENT: &str = "docs/kernel-hooks.md";
const SECTION: &str = "matrix";

/// Writes the table after a run of the whole matrix in which every row kept its promise.
pub fn write(results: &[Finished]) -> Result<()> {
    ensure!(results.len() == MACHINES.len(), "the table needs the whole matrix");
    let reports = results.iter().filter_map(|finished| finished.result.as_ref().ok());
    let mut releases: Vec<&str> = reports.map(|report| report.release.as_str()).collect();
    releases.sort_unstable();
    // Some kernels are run with several layouts of cgroups.
    releases.dedup();
    write_section(DOCUMENT, SECTION, &format!("{}\nLast run in full on {}.\n", rows(), releases.join(", ")))
}

/// Demands that the table in the document is that of the matrix as it is.
///
/// # Errors
/// When it is another, or is not there.
pub fn check() -> Result<()> {
    let text = read(DOCUMENT)?;
    let found = section(&text, SECTION).with_context(|| format!("{DOCUMENT} has no section {SECTION}"))?;
    ensure!(
        found.trim_start().starts_with(&rows()),
        "the table in {DOCUMENT} is not that of the matrix: run `cargo xtask vm-test --write-docs`"
    );
    Ok(())
}

/// The table: a column per machine.
fn rows() -> String {
    let names: Vec<String> = MACHINES.iter().map(ToString::to_string).collect();
    let mut text =
        format!("| row | promises | {} |\n|---|---|{}\n", names.join(" | "), "---|".repeat(names.len()));
    for row in ROWS {
        let cells: Vec<String> = MACHINES
            .iter()
            .map(|machine| match owed(machine, row) {
                Some(Owed::Seen) => "yes".to_owned(),
                Some(Owed::SeenBy(way)) => format!("`{way}`"),
                None => "·".to_owned(),
            })
            .collect();
        text += &format!("| `{}` | {} | {} |\n", row.name, row.promise, cells.join(" | "));
    }
    text
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
    fn the_table_has_a_cell_for_every_row_and_machine() {
        for line in rows().lines() {
            assert_eq!(line.matches('|').count(), MACHINES.len() + 3, "{line}");
        }
        assert_eq!(rows().lines().count(), ROWS.len() + 2);
    }
}
