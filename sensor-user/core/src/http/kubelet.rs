//! The kubelet's API, as far as it is read in plaintext.

use super::route::{ApiClass, Endpoint, Row, UNKNOWN_ROUTE, find, parts, row};
use ApiClass::{Discovery, Exec, Other};

/// The endpoints; the first that matches counts.
const TABLE: &[Row] = &[
    row("GET", "/pods", Discovery),
    row("GET", "/runningpods", Discovery),
    row("GET", "/stats", Discovery),
    row("", "/stats/{path}", Discovery),
    row("GET", "/spec", Discovery),
    row("GET", "/metrics", Discovery),
    row("GET", "/metrics/{path}", Discovery),
    row("GET", "/configz", Discovery),
    row("GET", "/flagz", Discovery),
    row("GET", "/statusz", Discovery),
    row("GET", "/logs", Discovery),
    row("GET", "/logs/{path}", Discovery),
    row("GET", "/containerLogs/{path}", Discovery),
    row("GET", "/healthz", Discovery),
    row("GET", "/healthz/{path}", Discovery),
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
            ("GET", "/stats/summary", "/stats/{path}", Discovery),
            ("POST", "/stats/container", "/stats/{path}", Discovery),
            ("GET", "/spec/", "/spec", Discovery),
            ("GET", "/metrics", "/metrics", Discovery),
            ("GET", "/metrics/cadvisor", "/metrics/{path}", Discovery),
            ("GET", "/configz", "/configz", Discovery),
            ("GET", "/statusz", "/statusz", Discovery),
            ("GET", "/flagz", "/flagz", Discovery),
            ("GET", "/logs/kubelet.log", "/logs/{path}", Discovery),
            ("GET", "/containerLogs/ns/pod/c", "/containerLogs/{path}", Discovery),
            ("GET", "/healthz/ping", "/healthz/{path}", Discovery),
            ("GET", "/debug/pprof/heap", "/debug/pprof/{path}", Discovery),
            ("POST", "/run/ns/pod/c", "/run/{path}", Exec),
            ("GET", "/exec/ns/pod/c", "/exec/{path}", Exec),
            ("POST", "/exec/ns/pod/c", "/exec/{path}", Exec),
            ("GET", "/attach/ns/pod/c", "/attach/{path}", Exec),
            ("POST", "/portForward/ns/pod", "/portForward/{path}", Exec),
            ("POST", "/checkpoint/ns/pod/c", "/checkpoint/{path}", Other),
            ("PUT", "/debug/flags/v", "/debug/flags/v", Other),
            ("GET", "/run/ns/pod/c", UNKNOWN_ROUTE, Other),
            ("POST", "/pods", UNKNOWN_ROUTE, Other),
        ] {
            let found = endpoint(method, path);
            assert_eq!((found.route, found.class), (route, class), "{method} {path}");
        }
    }
}
