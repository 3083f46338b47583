//! `cargo xtask tidy`: what neither rustfmt nor clippy sees.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use clap::Args;

use crate::{command, duties, source_tree, vm_test};

/// Checks file lengths, links between documents, that nothing is left to do or switched off, and that what documents say of
/// the code is so.
#[derive(Args)]
pub struct Options {}

/// Most lines of a source file, its tests at the end not counted.
const MAX_LINES: usize = 500;

/// What may not be in a source file, and why.
const FORBIDDEN: &[(&str, &str)] = &[
    (concat!("todo", "!("), "unfinished code"),
    (concat!("unimplemented", "!("), "unfinished code"),
    (concat!("#[ig", "nore"), "a test that is never run"),
    (concat!("TO", "DO"), "unfinished code; open an issue instead"),
    (concat!("FIX", "ME"), "unfinished code; open an issue instead"),
];

/// Runs the subcommand.
pub fn run(_: &Options) -> Result<()> {
    let root = command::repository();
    let mut problems = Vec::new();
    for file in source_tree::files(&root, &["rs"])? {
        let text = read(&root, &file)?;
        // A file of tests beside the code they are about may be as long as they are many.
        let cap = if file.ends_with("tests.rs") { usize::MAX } else { MAX_LINES };
        problems.extend(
            source_problems(&text, cap).into_iter().map(|problem| format!("{}{problem}", file.display())),
        );
    }
    for file in source_tree::files(&root, &["md"])? {
        let text = read(&root, &file)?;
        let directory = file.parent().unwrap_or(Path::new(""));
        for (line, target) in links(&text) {
            if !root.join(directory).join(target).exists() {
                problems.push(format!("{}:{line}: link to {target}, which does not exist", file.display()));
            }
        }
    }
    problems.extend(duties::problems(&root));
    problems.extend(vm_test::check_documents().err().map(|error| format!("{error:#}")));
    if !problems.is_empty() {
        bail!("{} problems:\n{}", problems.len(), problems.join("\n"));
    }
    command::say("tidy: nothing to complain about");
    Ok(())
}

fn read(root: &Path, file: &Path) -> Result<String> {
    fs::read_to_string(root.join(file)).with_context(|| format!("cannot read {}", file.display()))
}

/// Problems of one source file, each starting with `:line: `.
fn source_problems(text: &str, cap: usize) -> Vec<String> {
    let mut problems = Vec::new();
    // Tests are the module at the end of a file; a test module in a file of its own is counted there.
    let code = text.split("\n#[cfg(test)]\nmod tests {\n").next().unwrap_or_default().lines().count();
    if code > cap {
        problems.push(format!(":{cap}: {code} lines without tests, the cap is {cap}"));
    }
    for (index, line) in text.lines().enumerate() {
        for (pattern, why) in FORBIDDEN {
            if line.contains(pattern) {
                problems.push(format!(":{}: {pattern} is {why}", index + 1));
            }
        }
    }
    problems
}

/// Targets of relative links in a Markdown text, with their line numbers; code blocks are skipped.
fn links(text: &str) -> Vec<(usize, &str)> {
    let mut found = Vec::new();
    let mut in_code = false;
    for (index, line) in text.lines().enumerate() {
        if line.trim_start().starts_with("```") {
            in_code = !in_code;
        }
        if in_code {
            continue;
        }
        let mut rest = line;
        while let Some((_, after)) = rest.split_once("](") {
            let Some((target, tail)) = after.split_once(')') else { break };
            rest = tail;
            let path = target.split(['#', ' ']).next().unwrap_or_default();
            if !path.is_empty() && !path.contains(':') {
                found.push((index + 1, path));
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_files_are_reported_without_counting_their_tests() {
        let short = "\n".repeat(MAX_LINES) + "#[cfg(test)]\nmod tests {\n" + &"\n".repeat(MAX_LINES);
        assert_eq!(source_problems(&short, MAX_LINES), Vec::<String>::new());
        let long = "\n".repeat(MAX_LINES + 1);
        assert_eq!(source_problems(&long, MAX_LINES).len(), 1);
    }

    #[test]
    fn unfinished_code_and_ignored_tests_are_reported() {
        let text = format!("fn f() {{\n    {}\"x\")\n}}\n{}]\n", FORBIDDEN[0].0, FORBIDDEN[2].0);
        let problems = source_problems(&text, MAX_LINES);
        assert!(problems[0].starts_with(":2: ") && problems[1].starts_with(":4: "), "{problems:?}");
    }

    #[test]
    fn relative_links_are_found_outside_code() {
        let text = "[a](docs/a.md#part) [b](https://example.org) [c](#here)\n```\n[d](no.md)\n```\n![e](e.png \"t\")\n";
        assert_eq!(links(text), [(1, "docs/a.md"), (5, "e.png")]);
    }
}
