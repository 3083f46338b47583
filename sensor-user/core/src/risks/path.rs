//! Paths that nobody has looked up.

/// Where `/var/run` leads on every system that has it.
const RUN: (&str, &str) = ("/var/run", "/run");

/// An absolute path without empty, `.` and `..` components.
#[must_use]
pub fn normal(path: &str) -> String {
    let mut names: Vec<&str> = Vec::new();
    for name in path.split('/') {
        match name {
            "" | "." => {}
            ".." => {
                names.pop();
            }
            name => names.push(name),
        }
    }
    format!("/{}", names.join("/"))
}

/// The same without the one link that every system has.
pub(super) fn without_links(path: &str) -> String {
    let normal = normal(path);
    match normal.strip_prefix(RUN.0) {
        Some(rest) if rest.is_empty() || rest.starts_with('/') => format!("{}{rest}", RUN.1),
        _ => normal,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn detours_lead_to_the_same_place() {
        for (path, expected) in [
            ("/", "/"),
            ("//", "/"),
            ("/srv/..", "/"),
            ("/../../etc/", "/etc"),
            ("/./etc//kubernetes/.", "/etc/kubernetes"),
            ("/var/run/docker.sock", "/run/docker.sock"),
            ("/var/run", "/run"),
            ("/var/running", "/var/running"),
        ] {
            assert_eq!(without_links(path), expected, "{path}");
        }
    }
}
