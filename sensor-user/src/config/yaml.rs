//! The only file that knows the YAML library: bytes to [`ConfigFile`], its errors to [`Problem`]s.

use std::borrow::Cow;
use std::path::Path;

use serde_saphyr::{
    Error, Localizer, Location, RenderOptions, SnippetMode, UserMessageFormatter, ValidationIssue,
};

use super::file::ConfigFile;
use super::nearest::did_you_mean;
use super::problem::{Place, Problem, Severity};

/// Most bytes of a configuration file; a thousand entries take a tenth of it.
pub const FILE_MAX: usize = 4 << 20;

/// Reads a configuration file's text.
///
/// # Errors
/// Everything that is wrong, with line and column; syntax and types end at the first error.
pub fn parse(path: &Path, bytes: &[u8]) -> Result<ConfigFile, Vec<Problem>> {
    let error = |position, message: String| Problem {
        severity: Severity::Error,
        place: Place::file(path, position),
        message,
    };
    if bytes.len() > FILE_MAX {
        let message = format!("the file has {} bytes; at most {FILE_MAX} are read, shorten it", bytes.len());
        return Err(vec![error(None, message)]);
    }
    let text = std::str::from_utf8(bytes).map_err(|utf8| {
        let position = position_of(&bytes[..utf8.valid_up_to()]);
        vec![error(Some(position), "not UTF-8; save the file as UTF-8".to_owned())]
    })?;
    let options = serde_saphyr::options! { with_snippet: false, strict_booleans: true };
    serde_saphyr::from_str_with_options_valid::<ConfigFile>(text, options).map_err(|cause| {
        let mut problems = Vec::new();
        explain(&cause, &mut |position, message| problems.push(error(position, message)));
        problems
    })
}

/// Line and column of the byte after this text.
fn position_of(before: &[u8]) -> (u64, u64) {
    let line_start = before.iter().rposition(|byte| *byte == b'\n').map_or(0, |newline| newline + 1);
    let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
    let column = String::from_utf8_lossy(&before[line_start..]).chars().count() + 1;
    (line as u64, column as u64)
}

fn position(location: Location) -> Option<(u64, u64)> {
    (location.line() > 0).then(|| (location.line(), location.column()))
}

/// Turns the library's error into problems with our words for what operators get wrong most.
fn explain(error: &Error, report: &mut dyn FnMut(Option<(u64, u64)>, String)) {
    let at = error.location().and_then(position);
    match error.without_snippet() {
        Error::ValidationErrors { errors, .. } => errors.iter().for_each(|error| explain(error, report)),
        Error::ValidationError { issues, locations, .. } => {
            for issue in issues {
                let found = locations.locations_for(&issue.path).and_then(|found| found.primary_location());
                report(found.and_then(position), issue_text(issue));
            }
        }
        Error::AliasError { error: inner, .. } => {
            explain(inner, &mut |inner_at, message| report(at.or(inner_at), message));
        }
        Error::SerdeUnknownField { field, expected, .. } => {
            report(at, format!("unknown key {field:?}; {}", did_you_mean(field, expected)));
        }
        Error::SerdeUnknownVariant { variant, expected, .. } => {
            report(at, format!("unknown value {variant:?}; {}", did_you_mean(variant, expected)));
        }
        Error::SerdeMissingField { field, .. } => {
            report(at, format!("the key {field:?} is missing; add it"));
        }
        Error::DuplicateMappingKey { key, .. } => {
            let key = key.as_ref().map_or_else(|| "a key".to_owned(), |key| format!("the key {key:?}"));
            report(at, format!("{key} is given twice; keep one of them"));
        }
        Error::NullIntoString { .. } => {
            report(at, "no value is written here; write one or leave the key out".to_owned());
        }
        Error::InvalidScalar { ty: "boolean", .. } | Error::InvalidBooleanStrict { .. } => {
            report(at, "a yes or no belongs here; write true or false".to_owned());
        }
        Error::Unexpected { expected, .. } if expected.contains("mapping") => {
            report(at, "a mapping belongs here; write `key: value` lines, or {} for none".to_owned());
        }
        Error::Unexpected { expected, .. } if expected.contains("sequence") => {
            report(at, "a list belongs here; write [one, two], or [] for none".to_owned());
        }
        Error::Message { msg, .. } => report(at, msg.clone()),
        other => report(at, format!("{}; see `quaywatch schema config` for the form", bare_text(other))),
    }
}

fn issue_text(issue: &ValidationIssue) -> String {
    let mut path = String::new();
    for (kind, name) in issue.path.segments() {
        match kind {
            serde_saphyr::path_map::PathKind::Index => path.push_str(&format!("[{name}]")),
            // The content of an optional value has a segment of its own, without a name.
            _ if name.is_empty() => {}
            _ if path.is_empty() => path.push_str(name),
            _ => path.push_str(&format!(".{name}")),
        }
    }
    let message = issue.message.as_deref().unwrap_or(&issue.code);
    match (message.strip_prefix("length is lower than "), message.strip_prefix("length is greater than ")) {
        (Some(min), _) => format!("{path} is too short; write at least {min}"),
        (_, Some(max)) => format!("{path} is too long; write at most {max}"),
        _ => format!("{path}: {message}"),
    }
}

/// The library's own words without the position, which we print in front.
fn bare_text(error: &Error) -> String {
    struct NoPosition;
    impl Localizer for NoPosition {
        fn attach_location<'a>(&self, base: Cow<'a, str>, _: Location) -> Cow<'a, str> {
            base
        }
    }
    let formatter = UserMessageFormatter.with_localizer(&NoPosition);
    let mut options = RenderOptions::new(&formatter);
    options.snippets = SnippetMode::Off;
    error.render_with_options(options).replace('\n', " ")
}
