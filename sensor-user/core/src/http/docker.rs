//! The Docker API, and podman's on the same paths and below `/libpod`.

use std::sync::Arc;

use super::route::{ApiClass, Endpoint, Row, UNKNOWN_ROUTE, find, parts, row};
use ApiClass::{Build, Collection, Create, Destructive, Discovery, Exec, Other, Probe, Start, Takeover};

/// Route of the request that makes a container.
pub const CREATE: &str = "/containers/create";
/// Route of the request that makes a volume.
pub const VOLUME_CREATE: &str = "/volumes/create";
/// Route of the request that starts a container.
pub const START: &str = "/containers/{id}/start";
/// Route of the request that starts an exec.
pub const EXEC_START: &str = "/exec/{id}/start";

/// The endpoints; the first that matches counts.
const TABLE: &[Row] = &[
    row("", "/_ping", Probe),
    row("", "/version", Probe),
    row("GET", "/info", Discovery),
    row("GET", "/events", Discovery),
    row("GET", "/system/df", Discovery),
    row("GET", "/containers/json", Discovery),
    row("GET", "/containers/stats", Discovery),
    row("GET", "/containers/{id}/json", Discovery),
    row("GET", "/containers/{id}/top", Discovery),
    row("GET", "/containers/{id}/stats", Discovery),
    row("GET", "/containers/{id}/logs", Discovery),
    row("GET", "/containers/{id}/changes", Discovery),
    row("GET", "/containers/{id}/exists", Discovery),
    row("GET", "/images/json", Discovery),
    row("GET", "/images/search", Discovery),
    row("GET", "/images/get", Collection),
    row("GET", "/images/{name}/json", Discovery),
    row("GET", "/images/{name}/history", Discovery),
    row("GET", "/images/{name}/exists", Discovery),
    row("GET", "/images/{name}/get", Collection),
    row("GET", "/networks", Discovery),
    row("GET", "/networks/json", Discovery),
    row("GET", "/networks/{id}", Discovery),
    row("GET", "/networks/{id}/json", Discovery),
    row("GET", "/volumes", Discovery),
    row("GET", "/volumes/json", Discovery),
    row("GET", "/volumes/{id}", Discovery),
    row("GET", "/volumes/{id}/json", Discovery),
    row("GET", "/plugins", Discovery),
    row("GET", "/plugins/privileges", Discovery),
    row("GET", "/plugins/{name}/json", Discovery),
    row("GET", "/nodes", Discovery),
    row("GET", "/nodes/{id}", Discovery),
    row("GET", "/services", Discovery),
    row("GET", "/services/{id}", Discovery),
    row("GET", "/services/{id}/logs", Discovery),
    row("GET", "/tasks", Discovery),
    row("GET", "/tasks/{id}", Discovery),
    row("GET", "/tasks/{id}/logs", Discovery),
    row("GET", "/secrets", Discovery),
    row("GET", "/secrets/json", Discovery),
    row("GET", "/secrets/{id}", Discovery),
    row("GET", "/configs", Discovery),
    row("GET", "/configs/{id}", Discovery),
    row("GET", "/swarm", Discovery),
    row("GET", "/distribution/{name}/json", Discovery),
    row("GET", "/exec/{id}/json", Discovery),
    row("GET", "/pods/json", Discovery),
    row("GET", "/pods/{id}/json", Discovery),
    row("POST", CREATE, Create),
    row("POST", "/services/create", Create),
    row("POST", "/pods/create", Create),
    row("POST", "/play/kube", Create),
    row("POST", "/kube/play", Create),
    row("POST", START, Start),
    row("POST", "/containers/{id}/restart", Start),
    row("POST", "/containers/{id}/unpause", Start),
    row("POST", "/containers/{id}/update", Start),
    row("POST", "/containers/{id}/rename", Start),
    row("POST", "/services/{id}/update", Start),
    row("POST", "/pods/{id}/start", Start),
    row("POST", "/pods/{id}/restart", Start),
    row("POST", "/containers/{id}/exec", Exec),
    row("POST", EXEC_START, Exec),
    row("POST", "/exec/{id}/resize", Exec),
    row("POST", "/containers/{id}/attach", Exec),
    row("GET", "/containers/{id}/attach/ws", Exec),
    row("PUT", "/containers/{id}/archive", Exec),
    row("POST", "/session", Exec),
    row("POST", "/grpc", Exec),
    row("POST", "/build", Build),
    row("POST", "/build/prune", Destructive),
    row("POST", "/images/create", Build),
    row("POST", "/images/load", Build),
    row("POST", "/images/pull", Build),
    row("POST", "/images/import", Build),
    row("POST", "/images/prune", Destructive),
    row("POST", "/images/{name}/tag", Build),
    row("POST", "/images/{name}/push", Build),
    row("POST", "/commit", Build),
    row("POST", "/plugins/pull", Build),
    row("POST", "/plugins/create", Build),
    row("POST", "/auth", Build),
    row("GET", "/containers/{id}/export", Collection),
    row("GET", "/containers/{id}/archive", Collection),
    row("HEAD", "/containers/{id}/archive", Collection),
    row("POST", "/containers/prune", Destructive),
    row("POST", "/networks/prune", Destructive),
    row("POST", "/volumes/prune", Destructive),
    row("POST", "/pods/prune", Destructive),
    row("POST", "/containers/{id}/kill", Destructive),
    row("POST", "/containers/{id}/stop", Destructive),
    row("POST", "/containers/{id}/pause", Destructive),
    row("DELETE", "/containers/{id}", Destructive),
    row("DELETE", "/images/{name}", Destructive),
    row("DELETE", "/volumes/{id}", Destructive),
    row("DELETE", "/networks/{id}", Destructive),
    row("DELETE", "/services/{id}", Destructive),
    row("DELETE", "/nodes/{id}", Destructive),
    row("DELETE", "/secrets/{id}", Destructive),
    row("DELETE", "/configs/{id}", Destructive),
    row("DELETE", "/pods/{id}", Destructive),
    row("POST", "/swarm/init", Takeover),
    row("POST", "/swarm/join", Takeover),
    row("POST", "/swarm/leave", Takeover),
    row("POST", "/swarm/update", Takeover),
    row("POST", "/nodes/{id}/update", Takeover),
    row("POST", "/secrets/create", Takeover),
    row("POST", "/configs/create", Takeover),
    row("POST", "/containers/{id}/wait", Other),
    row("POST", "/containers/{id}/resize", Other),
    row("POST", "/networks/create", Other),
    row("POST", "/networks/{id}/connect", Other),
    row("POST", "/networks/{id}/disconnect", Other),
    row("POST", VOLUME_CREATE, Other),
];

/// The endpoint that a request is for.
#[must_use]
pub fn endpoint(method: &str, path: &str) -> Endpoint {
    let parts = parts(path);
    let mut rest = parts.as_slice();
    let version = rest.first().and_then(|part| version_of(part));
    if version.is_some() {
        rest = &rest[1..];
    }
    if rest.first().is_some_and(|part| part == "libpod") {
        rest = &rest[1..];
    }
    match find(TABLE, method, rest) {
        Some((row, reference)) => Endpoint { route: row.route, class: row.class, version, reference },
        None => Endpoint { route: UNKNOWN_ROUTE, class: Other, version, reference: None },
    }
}

/// Whether what follows the request on its connection is HTTP only if the answer does not change the protocol.
#[must_use]
pub fn may_hijack(route: &str) -> bool {
    matches!(
        route,
        EXEC_START | "/containers/{id}/attach" | "/containers/{id}/attach/ws" | "/session" | "/grpc"
    )
}

fn version_of(part: &str) -> Option<Arc<str>> {
    let number = part.strip_prefix('v')?;
    let sound = !number.is_empty()
        && number.len() <= 16
        && number.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    sound.then(|| number.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_classed_by_method_and_path() {
        for (method, path, route, class) in [
            ("HEAD", "/_ping", "/_ping", Probe),
            ("GET", "/v1.41/containers/json", "/containers/json", Discovery),
            ("GET", "/v1.41/containers/deadbeef/json", "/containers/{id}/json", Discovery),
            ("POST", "/v1.41/containers/create", CREATE, Create),
            ("POST", "/v5.4.2/libpod/containers/create", CREATE, Create),
            ("POST", "/containers/%63reate", CREATE, Create),
            ("POST", "/v1.24//containers/x/start", START, Start),
            ("POST", "/exec/abc/start", EXEC_START, Exec),
            ("GET", "/containers/x/attach/ws", "/containers/{id}/attach/ws", Exec),
            ("PUT", "/containers/x/archive", "/containers/{id}/archive", Exec),
            ("GET", "/containers/x/archive", "/containers/{id}/archive", Collection),
            ("POST", "/images/registry:5000/a/b/push", "/images/{name}/push", Build),
            ("DELETE", "/v1.41/images/a/b", "/images/{name}", Destructive),
            ("POST", "/volumes/prune", "/volumes/prune", Destructive),
            ("POST", "/swarm/join", "/swarm/join", Takeover),
            ("POST", "/secrets/create", "/secrets/create", Takeover),
            ("GET", "/containers/create", UNKNOWN_ROUTE, Other),
            ("GET", "/../../etc/passwd", UNKNOWN_ROUTE, Other),
        ] {
            let found = endpoint(method, path);
            assert_eq!((found.route, found.class), (route, class), "{method} {path}");
        }
    }

    #[test]
    fn version_and_reference_are_kept_apart() {
        let found = endpoint("GET", "/v1.41/images/a/b/json");
        assert_eq!((found.version.as_deref(), found.reference.as_deref()), (Some("1.41"), Some("a/b")));
        let found = endpoint("GET", "/vx/info");
        assert_eq!((found.version, found.route), (None, UNKNOWN_ROUTE));
    }
}
