//! Which endpoint of an API a path is, and what the endpoint is good for.

use std::sync::Arc;

/// What a request does; a closed list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ApiClass {
    /// Asks whether something is there.
    Probe,
    /// Asks what is there.
    Discovery,
    /// Makes a container or a service.
    Create,
    /// Starts one, or changes one that runs.
    Start,
    /// Runs something in a container, or attaches to what runs there.
    Exec,
    /// Brings in or makes an image or a plugin.
    Build,
    /// Takes files or images out.
    Collection,
    /// Gets or uses a credential.
    Credential,
    /// Ends or deletes something.
    Destructive,
    /// Takes the cluster over, or joins the node to another one.
    Takeover,
    /// Anything else.
    Other,
}

impl ApiClass {
    /// Every class.
    pub const ALL: [Self; 11] = [
        Self::Probe,
        Self::Discovery,
        Self::Create,
        Self::Start,
        Self::Exec,
        Self::Build,
        Self::Collection,
        Self::Credential,
        Self::Destructive,
        Self::Takeover,
        Self::Other,
    ];
}

/// What a request asks of an API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// The path with its variable parts collapsed; [`UNKNOWN_ROUTE`] for one that is in no table.
    pub route: &'static str,
    /// What it is good for.
    pub class: ApiClass,
    /// Version of the API that the path names, without the `v`.
    pub version: Option<Arc<str>>,
    /// The first variable part: which container, exec or image.
    pub reference: Option<Arc<str>>,
}

/// In place of the route of a path that is in no table: whatever somebody may ask for, the routes are a closed list.
pub const UNKNOWN_ROUTE: &str = "/{path}";

/// A row of a table of endpoints.
pub(super) struct Row {
    /// The method; empty = any.
    pub(super) method: &'static str,
    /// Parts in braces are variable: `{id}` stands for one part, `{name}` and `{path}` for one or more.
    pub(super) route: &'static str,
    pub(super) class: ApiClass,
}

pub(super) const fn row(method: &'static str, route: &'static str, class: ApiClass) -> Row {
    Row { method, route, class }
}

/// Most parts of a path that are looked at.
const PARTS_MAX: usize = 32;

/// The parts of a path as a server sees them: escapes decoded, empty parts and dots gone.
pub(super) fn parts(path: &str) -> Vec<String> {
    let mut parts: Vec<String> = Vec::new();
    let decoded = decode(path);
    for part in decoded.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part if parts.len() < PARTS_MAX => parts.push(part.to_owned()),
            _ => break,
        }
    }
    parts
}

/// Finds the first row that matches.
pub(super) fn find(
    table: &'static [Row],
    method: &str,
    parts: &[String],
) -> Option<(&'static Row, Option<Arc<str>>)> {
    table.iter().find_map(|row| {
        let reference = matches(row.route, parts)?;
        (row.method.is_empty() || row.method == method).then_some((row, reference.map(Arc::from)))
    })
}

/// Whether the parts match a route; with its first variable part, if it has any.
fn matches(route: &str, parts: &[String]) -> Option<Option<String>> {
    let mut pattern = route.split('/').filter(|part| !part.is_empty());
    let mut reference: Option<String> = None;
    let mut rest = parts;
    while let Some(expected) = pattern.next() {
        let count = match expected {
            "{name}" | "{path}" => {
                rest.len().checked_sub(pattern.clone().count()).filter(|count| *count > 0)?
            }
            _ => 1,
        };
        if rest.len() < count {
            return None;
        }
        let (found, others) = rest.split_at(count);
        if expected.starts_with('{') {
            reference.get_or_insert_with(|| found.join("/"));
        } else if found[0] != expected {
            return None;
        }
        rest = others;
    }
    rest.is_empty().then_some(reference)
}

fn decode(path: &str) -> String {
    let bytes = path.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let digit = |offset: usize| bytes.get(at + offset).and_then(|byte| char::from(*byte).to_digit(16));
        match (bytes[at], digit(1), digit(2)) {
            (b'%', Some(high), Some(low)) => {
                decoded.push((high << 4 | low) as u8);
                at += 3;
            }
            (byte, ..) => {
                decoded.push(byte);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&decoded).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_what_a_server_sees() {
        assert_eq!(parts("//v1.41/./x/../containers/%63reate/"), ["v1.41", "containers", "create"]);
        assert_eq!(parts("/%"), ["%"]);
        assert!(parts("*").len() == 1 && parts("").is_empty());
        assert_eq!(parts(&"/x".repeat(1000)).len(), PARTS_MAX);
    }

    #[test]
    fn a_variable_part_is_one_and_a_name_is_several() {
        let found = |route, path: &str| matches(route, &parts(path));
        assert_eq!(found("/images/{name}/json", "/images/a/b/json"), Some(Some("a/b".into())));
        assert_eq!(found("/images/{name}/json", "/images/json"), None);
        assert_eq!(found("/containers/{id}/json", "/containers/a/b/json"), None);
        assert_eq!(found("/info", "/info"), Some(None));
        assert_eq!(found("/info", "/info/x"), None);
    }
}
