//! docs/detections/duties.md: what the detection material asks for, and where that is, is tested, and ends.
//!
//! The table is code, so that a file, an item or a test that is renamed or removed fails `cargo xtask tidy`, and the document is
//! written from it by `cargo xtask bless`.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};

mod table;

use table::{DUTIES, Duty};

/// The document, relative to the repository.
pub const DOCUMENT: &str = "docs/detections/duties.md";

const HEAD: &str = "\
# What the detection material asks for

Written by `cargo xtask bless` from `xtask/src/duties/table.rs`; `cargo xtask tidy` fails when a file, an item or a test named
here is not there. *Partly* and *not yet* are what they say; what a part that is there cannot see is in the last column.

| asked for by | duty | | code | test | blind |
|---|---|---|---|---|---|
";

/// A place in a file of the repository: its path, and a text that is in it.
type Place = (&'static str, &'static str);

/// How much of a duty is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Extent {
    /// All of it, live and in replay.
    Live,
    /// Some of it; the duty's text says which.
    Partly,
    /// Nothing of it.
    NotYet,
}

impl Extent {
    fn name(self) -> &'static str {
        match self {
            Self::Live => "live",
            Self::Partly => "*partly*",
            Self::NotYet => "*not yet*",
        }
    }
}

/// The document as it should be.
pub fn document() -> String {
    let mut text = HEAD.to_owned();
    for Duty { by, duty, extent, code, tests, blind } in DUTIES {
        let _ = writeln!(
            text,
            "| {by} | {duty} | {} | {} | {} | {blind} |",
            extent.name(),
            links(code),
            links(tests)
        );
    }
    text
}

/// What is wrong: places that are not there, duties that name none, and a document that is not what it should be.
pub fn problems(root: &Path) -> Vec<String> {
    let mut problems: Vec<String> = DUTIES
        .iter()
        .flat_map(|duty| duty.problems(|path| fs::read_to_string(root.join(path)).ok()))
        .collect();
    if fs::read_to_string(root.join(DOCUMENT)).ok().as_deref() != Some(&*document()) {
        problems.push(format!("{DOCUMENT}: out of date, run `cargo xtask bless`"));
    }
    problems
}

/// Writes the document.
pub fn write(root: &Path) -> Result<()> {
    let path = root.join(DOCUMENT);
    fs::write(&path, document()).with_context(|| format!("cannot write {}", path.display()))
}

impl Duty {
    fn problems(&self, read: impl Fn(&str) -> Option<String>) -> Vec<String> {
        let named = format!("xtask/src/duties/table.rs: \"{}\"", self.duty);
        let is_there = self.extent != Extent::NotYet;
        let mut problems = Vec::new();
        if is_there && (self.code.is_empty() || self.tests.is_empty()) {
            problems.push(format!("{named}: what is there has code and a test"));
        }
        if self.blind.is_empty() {
            problems.push(format!("{named}: nothing sees everything; say what it cannot see"));
        }
        for (path, text) in self.code.iter().chain(self.tests) {
            match read(path) {
                None => problems.push(format!("{named}: there is no {path}")),
                Some(content) if !content.contains(text) => {
                    problems.push(format!("{named}: there is no `{text}` in {path}"));
                }
                Some(_) => {}
            }
        }
        problems
    }
}

/// Links from the document's directory, each under the text that is looked for.
fn links(places: &[Place]) -> String {
    let links: Vec<String> = places.iter().map(|(path, text)| format!("[`{text}`](../../{path})")).collect();
    links.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    const DUTY: Duty = Duty {
        by: "AN1007",
        duty: "see it",
        extent: Extent::Live,
        code: &[("a.rs", "fn see")],
        tests: &[("b.rs", "sees")],
        blind: "the rest",
    };

    fn check(duty: &Duty, expected: &[&str]) {
        let read = |path: &str| match path {
            "a.rs" => Some("fn see() {}".to_owned()),
            "b.rs" => Some("fn hears() {}".to_owned()),
            _ => None,
        };
        let found = duty.problems(read);
        assert_eq!(found.len(), expected.len(), "{found:?}");
        for (found, expected) in found.iter().zip(expected) {
            assert!(found.ends_with(expected), "{found}");
        }
    }

    #[test]
    fn places_that_are_not_there_are_reported() {
        check(&DUTY, &["there is no `sees` in b.rs"]);
        check(&Duty { tests: &[("c.rs", "sees")], ..DUTY }, &["there is no c.rs"]);
    }

    #[test]
    fn a_duty_that_is_there_has_code_a_test_and_a_limit() {
        check(&Duty { tests: &[], ..DUTY }, &["what is there has code and a test"]);
        check(&Duty { tests: &[], code: &[], extent: Extent::NotYet, ..DUTY }, &[]);
        let unlimited = Duty { tests: &[("a.rs", "see")], blind: "", ..DUTY };
        check(&unlimited, &["say what it cannot see"]);
    }
}
