//! `quaywatch check`: is this configuration file usable, and does it mean what was meant?

use serde::Serialize;

use super::print;
use crate::cli::CheckArgs;
use crate::config::{self, Overrides, ProblemJson, Severity};
use crate::exit::Exit;

#[derive(Serialize)]
struct Report<'a> {
    file: String,
    valid: bool,
    problems: Vec<ProblemJson<'a>>,
}

/// Checks one file as it stands: without the environment, which may be another one where it is used.
///
/// # Errors
/// When the result cannot be printed.
pub fn check(args: &CheckArgs) -> anyhow::Result<Exit> {
    let problems = match config::load(Some(&args.file), std::iter::empty(), &Overrides::default()) {
        Ok(loaded) => loaded.warnings,
        Err(invalid) => invalid.problems,
    };
    let valid = problems.iter().all(|problem| problem.severity == Severity::Warning);
    let file = args.file.display().to_string();
    if args.json {
        let report = Report { file, valid, problems: problems.iter().map(ProblemJson::from).collect() };
        print(&(serde_json::to_string(&report)? + "\n"))?;
    } else {
        for problem in &problems {
            eprintln!("{problem}");
        }
        let verdict = match (valid, problems.len()) {
            (true, 0) => "valid",
            (true, _) => "valid, with warnings",
            (false, _) => "invalid",
        };
        print(&format!("{file}: {verdict}\n"))?;
    }
    Ok(match (valid, problems.is_empty()) {
        (true, true) => Exit::Done,
        (true, false) => Exit::Found,
        (false, _) => Exit::Usage,
    })
}
