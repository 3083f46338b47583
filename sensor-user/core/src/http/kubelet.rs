//! The kubelet's API, as far as it is read in plaintext.

use super::route::{ApiClass, Endpoint, Row, UNKNOWN_ROUTE, find, parts, row};
use ApiClass::{Discovery, Exec, Other};

/// The endpoints; the first that matches counts.
const TABLE: &[Row] = &[
    row("GET", "/pods", Discovery),
    row("GET", "/runningpods", Discovery),
    row("GET", "/stats", Discovery),
    row("GET", "/stats/summary", Discovery),
    row("GET", "/spec", Discovery),
    row("GET", "/metrics", Discovery),
    row("GET", "/metrics/{path}", Discovery),
    row("GET", "/configz", Discovery),
    row("GET", "/logs", Discovery),
    row("GET", "/logs/{path}", Discovery),
    row("GET", "/containerLogs/{path}", Discovery),
    row("GET", "/healthz", Discovery),
    row("GET", "/healthz/{path}", Discovery),
    row("GET", "/statusz", Discovery),
    row("GET", "/flagz", Discovery),
    row("GET", "/debug/pprof", Discovery),
    row("GET", "/debug/pprof/{path}", Discovery),
    row("POST", "/run/{path}", Exec),
    row("", "/exec/{path}", Exec),
    row("", "/attach/{path}", Exec),
    row("", "/portForward/{path}", Exec),
    row("POST", "/checkpoint/{path}", Other),
    row("PUT", "/debug/flags/v", Other),
];

/// The endpoint that a request is for.
#[must_use]
pub fn endpoint(method: &str, path: &str) -> Endpoint {
    match find(TABLE, method, &parts(path)) {
        Some((row, _)) => Endpoint { route: row.route, class: row.class, version: None, reference: None },
        None => Endpoint { route: UNKNOWN_ROUTE, class: Other, version: None, reference: None },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_classed_by_method_and_path() {
        for (method, path, route, class) in [
            ("GET", "/pods", "/pods", Discovery),
            ("GET", "/runningpods/", "/runningpods", Discovery),
            ("GET", "/metrics/cadvisor", "/metrics/{path}", Discovery),
            ("GET", "/exec/ns/pod/c", "/exec/{path}", Exec),
            ("POST", "/run/ns/pod/c", "/run/{path}", Exec),
            ("GET", "/run/ns/pod/c", UNKNOWN_ROUTE, Other),
            ("POST", "/checkpoint/ns/pod/c", "/checkpoint/{path}", Other),
        ] {
            let found = endpoint(method, path);
            assert_eq!((found.route, found.class), (route, class), "{method} {path}");
        }
    }
}
