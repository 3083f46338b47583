//! The Kubernetes API, as far as it is read in plaintext: behind the insecure port of old servers, behind `kubectl proxy`, and
//! where somebody speaks plaintext to the secure one.
//!
//! Who may list much finds out what is there, so that lists of the resources that matter have rows of their own.

use super::route::{ApiClass, Endpoint, Row, UNKNOWN_ROUTE, find, parts, row};
use ApiClass::{Create, Credential, Destructive, Discovery, Exec, Probe, Start, Takeover};

/// The endpoints; the first that matches counts.
const TABLE: &[Row] = &[
    row("GET", "/version", Probe),
    row("GET", "/healthz", Probe),
    row("GET", "/healthz/{path}", Probe),
    row("GET", "/livez", Probe),
    row("GET", "/livez/{path}", Probe),
    row("GET", "/readyz", Probe),
    row("GET", "/readyz/{path}", Probe),
    // What runs in a container or passes through to one, whatever the method: a WebSocket begins with GET.
    row("", "/api/v1/namespaces/{id}/pods/{id}/exec", Exec),
    row("", "/api/v1/namespaces/{id}/pods/{id}/attach", Exec),
    row("", "/api/v1/namespaces/{id}/pods/{id}/portforward", Exec),
    row("", "/api/v1/namespaces/{id}/pods/{id}/proxy", Exec),
    row("", "/api/v1/namespaces/{id}/pods/{id}/proxy/{path}", Exec),
    row("", "/api/v1/namespaces/{id}/services/{id}/proxy", Exec),
    row("", "/api/v1/namespaces/{id}/services/{id}/proxy/{path}", Exec),
    row("", "/api/v1/nodes/{id}/proxy", Exec),
    row("", "/api/v1/nodes/{id}/proxy/{path}", Exec),
    row("PUT", "/api/v1/namespaces/{id}/pods/{id}/ephemeralcontainers", Exec),
    row("PATCH", "/api/v1/namespaces/{id}/pods/{id}/ephemeralcontainers", Exec),
    row("POST", "/api/v1/namespaces/{id}/serviceaccounts/{id}/token", Credential),
    row("GET", "/api/v1/namespaces/{id}/secrets/{id}", Credential),
    row("POST", "/apis/certificates.k8s.io/{id}/certificatesigningrequests", Credential),
    row("PUT", "/apis/certificates.k8s.io/{id}/certificatesigningrequests/{id}/approval", Credential),
    row("PATCH", "/apis/certificates.k8s.io/{id}/certificatesigningrequests/{id}/approval", Credential),
    row("POST", "/apis/authorization.k8s.io/{id}/selfsubjectaccessreviews", Discovery),
    row("POST", "/apis/authorization.k8s.io/{id}/selfsubjectrulesreviews", Discovery),
    row("POST", "/apis/authentication.k8s.io/{id}/selfsubjectreviews", Discovery),
    row("POST", "/apis/rbac.authorization.k8s.io/{id}/clusterroles", Takeover),
    row("POST", "/apis/rbac.authorization.k8s.io/{id}/clusterrolebindings", Takeover),
    row("POST", "/apis/rbac.authorization.k8s.io/{id}/namespaces/{id}/roles", Takeover),
    row("POST", "/apis/rbac.authorization.k8s.io/{id}/namespaces/{id}/rolebindings", Takeover),
    row("POST", "/apis/admissionregistration.k8s.io/{id}/{id}", Takeover),
    row("POST", "/api/v1/namespaces/{id}/pods/{id}/eviction", Destructive),
    row("POST", "/api/v1/namespaces/{id}/pods", Create),
    row("POST", "/api/v1/namespaces/{id}/replicationcontrollers", Create),
    row("POST", "/apis/apps/{id}/namespaces/{id}/{id}", Create),
    row("POST", "/apis/batch/{id}/namespaces/{id}/{id}", Create),
    row("PUT", "/apis/apps/{id}/namespaces/{id}/{path}", Start),
    row("PATCH", "/apis/apps/{id}/namespaces/{id}/{path}", Start),
    row("PUT", "/apis/batch/{id}/namespaces/{id}/{path}", Start),
    row("PATCH", "/apis/batch/{id}/namespaces/{id}/{path}", Start),
    row("PUT", "/api/v1/namespaces/{id}/pods/{id}", Start),
    row("PATCH", "/api/v1/namespaces/{id}/pods/{id}", Start),
    row("DELETE", "/api/v1/{path}", Destructive),
    row("DELETE", "/apis/{path}", Destructive),
    row("GET", "/api", Discovery),
    row("GET", "/api/v1", Discovery),
    row("GET", "/apis", Discovery),
    row("GET", "/openapi/v2", Discovery),
    row("GET", "/openapi/v3", Discovery),
    row("GET", "/openapi/v3/{path}", Discovery),
    row("GET", "/.well-known/openid-configuration", Discovery),
    row("GET", "/openid/v1/jwks", Discovery),
    row("GET", "/metrics", Discovery),
    row("GET", "/logs/{path}", Discovery),
    row("GET", "/api/v1/nodes", Discovery),
    row("GET", "/api/v1/namespaces", Discovery),
    row("GET", "/api/v1/pods", Discovery),
    row("GET", "/api/v1/services", Discovery),
    row("GET", "/api/v1/secrets", Discovery),
    row("GET", "/api/v1/configmaps", Discovery),
    row("GET", "/api/v1/serviceaccounts", Discovery),
    row("GET", "/api/v1/namespaces/{id}/pods", Discovery),
    row("GET", "/api/v1/namespaces/{id}/services", Discovery),
    row("GET", "/api/v1/namespaces/{id}/secrets", Discovery),
    row("GET", "/api/v1/namespaces/{id}/configmaps", Discovery),
    row("GET", "/api/v1/namespaces/{id}/serviceaccounts", Discovery),
    row("GET", "/api/v1/namespaces/{id}/pods/{id}/log", Discovery),
    row("GET", "/apis/apps/{id}/deployments", Discovery),
    row("GET", "/apis/apps/{id}/daemonsets", Discovery),
    row("GET", "/apis/apps/{id}/namespaces/{id}/deployments", Discovery),
    row("GET", "/apis/apps/{id}/namespaces/{id}/daemonsets", Discovery),
    row("GET", "/apis/rbac.authorization.k8s.io/{id}/clusterroles", Discovery),
    row("GET", "/apis/rbac.authorization.k8s.io/{id}/clusterrolebindings", Discovery),
    row("GET", "/apis/rbac.authorization.k8s.io/{id}/roles", Discovery),
    row("GET", "/apis/rbac.authorization.k8s.io/{id}/rolebindings", Discovery),
    row("GET", "/apis/rbac.authorization.k8s.io/{id}/namespaces/{id}/roles", Discovery),
    row("GET", "/apis/rbac.authorization.k8s.io/{id}/namespaces/{id}/rolebindings", Discovery),
    row("GET", "/api/v1/{path}", Discovery),
    row("GET", "/apis/{path}", Discovery),
];

/// The endpoint that a request is for.
#[must_use]
pub fn endpoint(method: &str, path: &str) -> Endpoint {
    let mut parts = parts(path);
    // The path of a watch, as old clients ask for it, is that of the list but for this word.
    if let [api, _, word, ..] = &parts[..]
        && api == "api"
        && word == "watch"
    {
        parts.remove(2);
    }
    match find(TABLE, method, &parts) {
        Some((row, _)) => Endpoint { route: row.route, class: row.class, version: None, reference: None },
        None => Endpoint { route: UNKNOWN_ROUTE, class: ApiClass::Other, version: None, reference: None },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ApiClass::Other;

    #[test]
    fn requests_are_classed_by_method_and_path() {
        for (method, path, route, class) in [
            ("GET", "/version", "/version", Probe),
            ("GET", "/livez/ping", "/livez/{path}", Probe),
            ("GET", "/apis", "/apis", Discovery),
            ("GET", "/apis/apps/v1", "/apis/{path}", Discovery),
            ("GET", "/api/v1/pods", "/api/v1/pods", Discovery),
            ("GET", "/api/v1/watch/pods", "/api/v1/pods", Discovery),
            ("GET", "/api/v1/namespaces/kube-system/pods", "/api/v1/namespaces/{id}/pods", Discovery),
            ("GET", "/api/v1/namespaces/a/pods/b", "/api/v1/{path}", Discovery),
            ("GET", "/api/v1/secrets", "/api/v1/secrets", Discovery),
            ("GET", "/api/v1/namespaces/a/secrets/b", "/api/v1/namespaces/{id}/secrets/{id}", Credential),
            (
                "POST",
                "/api/v1/namespaces/a/serviceaccounts/b/token",
                "/api/v1/namespaces/{id}/serviceaccounts/{id}/token",
                Credential,
            ),
            (
                "POST",
                "/apis/authorization.k8s.io/v1/selfsubjectrulesreviews",
                "/apis/authorization.k8s.io/{id}/selfsubjectrulesreviews",
                Discovery,
            ),
            ("GET", "/api/v1/namespaces/a/pods/b/exec", "/api/v1/namespaces/{id}/pods/{id}/exec", Exec),
            ("GET", "/api/v1/nodes/a/proxy/pods", "/api/v1/nodes/{id}/proxy/{path}", Exec),
            (
                "PATCH",
                "/api/v1/namespaces/a/pods/b/ephemeralcontainers",
                "/api/v1/namespaces/{id}/pods/{id}/ephemeralcontainers",
                Exec,
            ),
            ("POST", "/api/v1/namespaces/a/pods", "/api/v1/namespaces/{id}/pods", Create),
            ("POST", "/apis/apps/v1/namespaces/a/daemonsets", "/apis/apps/{id}/namespaces/{id}/{id}", Create),
            (
                "PATCH",
                "/apis/apps/v1/namespaces/a/deployments/b/scale",
                "/apis/apps/{id}/namespaces/{id}/{path}",
                Start,
            ),
            ("DELETE", "/api/v1/namespaces/a/pods/b", "/api/v1/{path}", Destructive),
            (
                "POST",
                "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings",
                "/apis/rbac.authorization.k8s.io/{id}/clusterrolebindings",
                Takeover,
            ),
            ("POST", "/api/v1/namespaces", UNKNOWN_ROUTE, Other),
            ("GET", "/", UNKNOWN_ROUTE, Other),
        ] {
            let found = endpoint(method, path);
            assert_eq!((found.route, found.class), (route, class), "{method} {path}");
        }
    }
}
