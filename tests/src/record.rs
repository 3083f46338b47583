//! One line of the sensor's output, with short ways to look into it.

use std::fmt;

use serde_json::Value;

/// One record.
#[derive(Clone, PartialEq)]
pub struct Record {
    /// The line as written.
    pub line: String,
    value: Value,
}

impl Record {
    /// Reads a line.
    ///
    /// # Errors
    /// When it is not a JSON object.
    pub fn parse(line: &str) -> Result<Self, String> {
        match serde_json::from_str(line) {
            Ok(value @ Value::Object(_)) => Ok(Self { line: line.to_owned(), value }),
            Ok(_) => Err(format!("not a JSON object: {line}")),
            Err(error) => Err(format!("{error}: {line}")),
        }
    }

    /// The value at a path of keys and indices, as in `net.peer.ip`; `Null` when there is none.
    #[must_use]
    pub fn at(&self, path: &str) -> &Value {
        path.split('.').fold(&self.value, |value, key| match key.parse::<usize>() {
            Ok(index) if value.is_array() => &value[index],
            _ => &value[key],
        })
    }

    /// The text at a path; empty when there is none, which no text of a record is.
    #[must_use]
    pub fn text(&self, path: &str) -> &str {
        self.at(path).as_str().unwrap_or_default()
    }

    /// The number at a path.
    #[must_use]
    pub fn number(&self, path: &str) -> Option<u64> {
        self.at(path).as_u64()
    }

    /// The list at a path; empty when there is none.
    #[must_use]
    pub fn list(&self, path: &str) -> &[Value] {
        self.at(path).as_array().map_or(&[], Vec::as_slice)
    }

    /// Its kind.
    #[must_use]
    pub fn kind(&self) -> &str {
        self.text("kind")
    }

    /// Whether it is of this kind and has these values at these paths.
    #[must_use]
    pub fn is(&self, kind: &str, fields: &[(&str, &str)]) -> bool {
        self.kind() == kind
            && fields.iter().all(|(path, expected)| match self.at(path) {
                Value::String(text) => text == expected,
                Value::Number(number) => number.to_string() == *expected,
                Value::Bool(flag) => flag.to_string() == *expected,
                _ => false,
            })
    }

    /// Whether a container record says that this happened to this container.
    #[must_use]
    pub fn is_container(&self, action: &str, id: &str) -> bool {
        self.is("container", &[("container.action", action), ("container.id", id)])
    }

    /// Whether it is about this container; name and image count unless the record says that it lacks something.
    #[must_use]
    pub fn is_about(&self, id: &str, name: Option<&str>, image: &str) -> bool {
        let known = || {
            name.is_none_or(|name| self.text("container.name") == name)
                && self.text("container.image") == image
        };
        self.text("container.id") == id && (self.text("quality.enrichment") == "partial" || known())
    }

    /// Names of the ancestors of its process, parent first.
    #[must_use]
    pub fn ancestors(&self) -> Vec<&str> {
        self.list("process.ancestors").iter().filter_map(|ancestor| ancestor["comm"].as_str()).collect()
    }

    /// Arguments of its process.
    #[must_use]
    pub fn args(&self) -> Vec<&str> {
        self.list("process.args").iter().filter_map(Value::as_str).collect()
    }

    /// Last part of the path of its process's program.
    #[must_use]
    pub fn program(&self) -> &str {
        self.text("process.exe").rsplit('/').next().unwrap_or_default()
    }
}

impl fmt::Debug for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.line)
    }
}

impl fmt::Display for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.line)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_lead_into_objects_and_lists() {
        let line = r#"{"kind":"accept","net":{"peer":{"ip":"::1","port":7}},"process":{"args":["a","b"]},"verdict":{"listed":false}}"#;
        let record = Record::parse(line).unwrap();
        assert!(
            record
                .is("accept", &[("net.peer.ip", "::1"), ("net.peer.port", "7"), ("verdict.listed", "false")])
        );
        assert!(!record.is("accept", &[("net.peer.port", "8")]));
        assert!(!record.is("close", &[]));
        assert_eq!((record.text("process.args.1"), record.text("process.args.2")), ("b", ""));
        assert_eq!(record.args(), ["a", "b"]);
    }

    #[test]
    fn partial_records_need_no_name() {
        let record = |enrichment: &str, name: &str| {
            Record::parse(&format!(
                r#"{{"container":{{"id":"x","name":"{name}","image":"i"}},"quality":{{"enrichment":"{enrichment}"}}}}"#
            ))
            .unwrap()
        };
        assert!(record("ok", "n").is_about("x", Some("n"), "i"));
        assert!(record("ok", "n").is_about("x", None, "i"));
        assert!(!record("ok", "m").is_about("x", Some("n"), "i"));
        assert!(record("partial", "m").is_about("x", Some("n"), "i"));
        assert!(!record("partial", "n").is_about("y", Some("n"), "i"));
    }

    #[test]
    fn lines_that_are_no_records_are_refused() {
        for line in ["", "{", "[]", "7"] {
            assert!(Record::parse(line).is_err(), "{line}");
        }
    }
}
