//! Tables for people: three columns, aligned, safe for a terminal.

use std::fmt::{self, Write};

/// Width of the first column.
const NAME: usize = 24;
/// Width of the second column.
const STATE: usize = 12;

/// Writes a row.
pub fn row(out: &mut impl Write, name: &str, state: &str, found: &str) -> fmt::Result {
    let line = format!("  {:NAME$} {:STATE$} {}", clean(name), clean(state), clean(found));
    writeln!(out, "{}", line.trim_end())
}

/// Writes more of the last column of the row before.
pub fn continued(out: &mut impl Write, found: &str) -> fmt::Result {
    row(out, "", "", found)
}

/// Names and paths are chosen by others; a terminal must not obey them.
pub fn clean(text: &str) -> String {
    text.chars().map(|char| if char.is_control() { char::REPLACEMENT_CHARACTER } else { char }).collect()
}
