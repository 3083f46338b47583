//! Configuration: the file as written, what overrides it, and the validated settings.
//!
//! Order: built-in defaults, then the file, then `QUAYWATCH_<SECTION>_<KEY>`, then flags. Nothing here touches the
//! kernel, and nothing outside sees a value that was not validated.

use std::io::{self, Read};
use std::path::{Path, PathBuf};

mod actors;
mod allow;
mod audit;
mod detect;
mod environment;
mod file;
mod nearest;
mod problem;
mod reload;
mod review;
mod settings;
mod shown;
mod state;
mod validate;
mod values;
mod when;
mod yaml;

#[cfg(test)]
mod tests;

pub use environment::{VARIABLES, Variable};
pub use file::{ConfigFile, OutputType};
pub use problem::{Invalid, Place, Problem, ProblemJson, Severity};
pub use settings::{AuditSettings, OutputPlace, OutputSettings, RingSettings, Settings, StateSettings};

use crate::lookups::clock;

/// Read when no file is named; it need not exist.
pub const DEFAULT_PATH: &str = "/etc/quaywatch/quaywatch.yaml";

/// What the command line overrides.
#[derive(Clone, Debug, Default)]
pub struct Overrides {
    /// `--node-name`.
    pub node_name: Option<String>,
}

/// A configuration that can be used.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// Everything as it is in effect, in the form of the file.
    pub file: ConfigFile,
    /// The same for the rest of the program.
    pub settings: Settings,
    /// What probably does not mean what was meant.
    pub warnings: Vec<Problem>,
}

/// Loads the configuration: the named file, or the default one if it exists, then environment and flags.
///
/// # Errors
/// A named file that cannot be read, and everything that is wrong with the configuration.
pub fn load(
    named: Option<&Path>,
    environment: impl Iterator<Item = (String, String)>,
    overrides: &Overrides,
) -> Result<Loaded, Invalid> {
    let path = named.map_or_else(|| PathBuf::from(DEFAULT_PATH), Path::to_owned);
    let bytes = match read(&path) {
        Ok(bytes) => bytes,
        Err(error) if named.is_none() && error.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(error) => return Err(unreadable(&path, &error)),
    };
    let mut loaded = load_bytes(&path, &bytes, environment, overrides)?;
    let expired = review::expired(&loaded.file, clock::now().unix_ns);
    loaded.warnings.extend(expired.into_iter().map(|finding| place(&path, finding)));
    sort(&mut loaded.warnings);
    Ok(loaded)
}

/// Loads a configuration from bytes; `path` is only for messages. What time it is does not matter.
///
/// # Errors
/// Everything that is wrong with the configuration.
pub fn load_bytes(
    path: &Path,
    bytes: &[u8],
    environment: impl Iterator<Item = (String, String)>,
    overrides: &Overrides,
) -> Result<Loaded, Invalid> {
    let mut file = yaml::parse(path, bytes).map_err(|problems| Invalid { problems })?;
    let mut problems = environment::apply(&mut file, environment);
    if let Some(name) = &overrides.node_name
        && let Err(error) = environment::name(&mut file.node.name, name)
    {
        let place = Place::Flag("--node-name");
        problems.push(Problem { severity: Severity::Error, place, message: error.to_string() });
    }
    problems.extend(validate::validate(&file).into_iter().map(|finding| place(path, finding)));
    if problems.iter().any(|problem| problem.severity == Severity::Error) {
        return Err(Invalid { problems });
    }
    problems.extend(review::review(&file).into_iter().map(|finding| place(path, finding)));
    sort(&mut problems);
    let settings = Settings::new(&file);
    Ok(Loaded { file, settings, warnings: problems })
}

/// Puts what is wrong in the order of the file; what is not about a place in it comes first.
fn sort(problems: &mut [Problem]) {
    problems.sort_by_key(|problem| match problem.place {
        Place::File { position, .. } => position,
        Place::Environment(_) | Place::Flag(_) => None,
    });
}

/// A value without a position in the file came from the variable of its key.
fn place(path: &Path, finding: validate::Finding) -> Problem {
    let variable = VARIABLES.iter().find(|variable| variable.key == finding.key);
    let place = match (finding.position, variable) {
        (None, Some(variable)) => Place::Environment(variable.name),
        (position, _) => Place::file(path, position),
    };
    Problem { severity: finding.severity, place, message: finding.message }
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    // One byte more than is accepted, so that a longer file is refused and not cut.
    std::fs::File::open(path)?.take(yaml::FILE_MAX as u64 + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// What is wrong with loading a configuration again that came through a pipe or the like.
#[must_use]
pub fn read_once(path: &Path) -> Invalid {
    let message =
        "is no regular file and was read at the start; restart the sensor to change the configuration";
    let place = Place::file(path, None);
    Invalid { problems: vec![Problem { severity: Severity::Error, place, message: message.to_owned() }] }
}

fn unreadable(path: &Path, error: &io::Error) -> Invalid {
    let remedy = match error.kind() {
        io::ErrorKind::NotFound => "create it, or leave --config out to use the defaults",
        io::ErrorKind::PermissionDenied => "let this user read it",
        _ => "name a readable file",
    };
    let message = format!("cannot be read ({error}); {remedy}");
    Invalid { problems: vec![Problem { severity: Severity::Error, place: Place::file(path, None), message }] }
}
