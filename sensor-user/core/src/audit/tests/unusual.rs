//! AN1352 and single requests: what is unusual for whom.

use super::*;

fn controller() -> Who {
    Who::pod("tools/sync", "sync-0", "red", "172.16.5.1")
}

fn person() -> Who {
    Who::person("eva", "192.168.40.9")
}

#[test]
fn a_program_that_is_refused_everywhere_looks_around() {
    let mut cluster = Cluster::configured();
    let pod = controller();
    for namespace in ["a", "b", "c", "d", "e"] {
        assert_eq!(cluster.ask(&pod, &format!("list pods {namespace}"), 403), NOTHING);
    }
    assert_eq!(cluster.ask(&pod, "list pods a", 403), NOTHING, "asked before");
    assert_eq!(cluster.ask(&pod, "list secrets f", 403), ["discovery-burst"]);
}

#[test]
fn questions_far_apart_are_no_burst() {
    let mut cluster = Cluster::configured();
    for number in 0..20 {
        assert_eq!(cluster.ask(&controller(), &format!("list pods n{number}"), 403), NOTHING);
        cluster.wait(60);
    }
}

#[test]
fn a_controller_that_starts_is_no_intruder() {
    let mut cluster = Cluster::configured();
    for number in 0..40 {
        assert_eq!(cluster.ask(&controller(), &format!("list kind{number}?limit=500 x"), 200), NOTHING);
        assert_eq!(cluster.ask(&controller(), &format!("list kind{number}?resourceVersion=0"), 200), NOTHING);
    }
}

#[test]
fn new_lists_of_a_program_that_is_known_are_a_burst() {
    let mut cluster = Cluster::configured();
    cluster.routine(&controller(), "list pods?limit=5 x", 30);
    let answers: Vec<_> =
        (0..6).flat_map(|number| cluster.ask(&controller(), &format!("list kind{number} x"), 200)).collect();
    assert_eq!(answers, ["discovery-burst"]);
}

#[test]
fn a_person_where_expected_is_only_noted() {
    let mut cluster = Cluster::configured();
    let look = |cluster: &mut Cluster, who: &Who| -> Vec<_> {
        (0..8).flat_map(|number| cluster.ask(who, &format!("list kind{number} x"), 200)).collect()
    };
    assert_eq!(look(&mut cluster, &person()), ["listed-discovery"]);
    assert_eq!(look(&mut cluster, &Who::person("eva", "192.168.77.1")), ["discovery-burst"]);
}

#[test]
fn walking_around_without_credentials_is_a_finding() {
    let mut cluster = Cluster::configured();
    let nobody = Who::new("system:anonymous", "198.18.0.9");
    let probes = ["/healthz", "/livez", "/readyz", "/healthz/etcd", "/livez/ping", "/readyz/x", "/livez/y"];
    assert!(probes.iter().all(|path| cluster.ask(&nobody, &format!("get {path}"), 200).is_empty()));
    let paths = ["/", "/api", "/apis", "/version", "/metrics", "/openapi/v2"];
    let answers: Vec<_> =
        paths.iter().flat_map(|path| cluster.ask(&nobody, &format!("get {path}"), 403)).collect();
    assert_eq!(answers, ["anonymous-discovery"]);
}

#[test]
fn refused_credentials_are_counted_by_address() {
    let mut cluster = Cluster::configured();
    let nobody = |number: u32| Who::new("", &format!("198.18.0.{number}"));
    for number in 1..20 {
        assert_eq!(cluster.ask(&nobody(number), "list pods", 401), NOTHING);
    }
    let answers: Vec<_> = (0..4).flat_map(|_| cluster.ask(&nobody(9), "list pods", 401)).collect();
    assert_eq!(answers, ["credential-guessing"]);
}

#[test]
fn a_program_that_begins_to_exec_is_told_and_people_where_expected_are_not() {
    let mut cluster = Cluster::configured();
    let command = "get pods/exec?command=id shop/web-0";
    assert_eq!(cluster.ask(&person(), command, 101), NOTHING);
    assert_eq!(cluster.ask(&Who::person("eva", "192.168.77.1"), command, 101), ["pod-exec"]);
    assert_eq!(cluster.ask(&controller(), command, 403), NOTHING);
    assert_eq!(
        cluster.ask(&Who::pod("tools/runner", "r-0", "red", "172.16.5.1"), command, 101),
        ["pod-exec"]
    );
    for way in ["attach", "portforward"] {
        assert_eq!(cluster.ask(&controller(), &format!("create pods/{way} shop/web-0"), 200), ["pod-exec"]);
    }
}

#[test]
fn a_runner_that_execs_all_day_has_a_habit() {
    let mut cluster = Cluster::configured();
    let command = "get pods/exec?command=id shop/web-0";
    assert_eq!(cluster.ask(&controller(), command, 101), ["pod-exec"]);
    cluster.wait(3600);
    cluster.routine(&controller(), command, 3);
}

#[test]
fn secrets_listed_as_never_before_are_told() {
    let mut cluster = Cluster::configured();
    let cache = "list secrets?limit=500&resourceVersion=0";
    cluster.routine(&controller(), cache, 30);
    assert_eq!(cluster.ask(&controller(), "list secrets", 200), ["secrets-read"]);
    assert_eq!(cluster.ask(&controller(), "list secrets shop", 200), ["secrets-read"]);
    assert_eq!(cluster.ask(&person(), "list secrets", 200), NOTHING);
}

#[test]
fn a_kubelet_asked_for_more_than_metrics_is_told() {
    let mut cluster = Cluster::configured();
    let monitor = controller();
    cluster.routine(&monitor, "get nodes/proxy/metrics/cadvisor", 3);
    cluster.routine(&monitor, "get nodes/proxy/stats/summary", 3);
    for path in ["pods", "runningpods/", "run/shop/web/c"] {
        assert_eq!(
            cluster.ask(&monitor, &format!("get nodes/proxy/{path}"), 403),
            ["kubelet-proxy"],
            "{path}"
        );
    }
}

#[test]
fn a_kubelets_review_names_who_connected_to_it() {
    let mut cluster = Cluster::configured();
    let kubelet = Who::kubelet("red", "172.16.5.1");
    let review = |user: &str, subresource: &str| {
        format!(
            r#""requestObject":{{"spec":{{"user":"{user}","resourceAttributes":{{"resource":"nodes","subresource":"{subresource}"}}}}}},"#
        )
    };
    let ask = |cluster: &mut Cluster, user: &str, subresource: &str| {
        cluster.ask_with(&kubelet, "create subjectaccessreviews", 201, &review(user, subresource))
    };
    assert_eq!(ask(&mut cluster, "kube-apiserver-kubelet-client", "proxy"), NOTHING);
    assert_eq!(ask(&mut cluster, "system:serviceaccount:tools:sync", "metrics"), NOTHING);
    assert_eq!(ask(&mut cluster, "system:serviceaccount:tools:sync", "pods"), ["kubelet-review"]);
    assert_eq!(ask(&mut cluster, "system:anonymous", "proxy"), ["kubelet-review"]);
}

#[test]
fn without_bodies_many_reviews_at_once_tell() {
    let mut cluster = Cluster::configured();
    let kubelet = Who::kubelet("red", "172.16.5.1");
    let review = "create subjectaccessreviews";
    let answers: Vec<_> = (0..4).flat_map(|_| cluster.ask(&kubelet, review, 201)).collect();
    assert_eq!(answers, ["kubelet-review"]);
    cluster.routine(&Who::kubelet("blue", "172.16.5.2"), review, 8);
}

#[test]
fn privileged_pods_are_told_whoever_makes_them() {
    let mut cluster = Cluster::configured();
    let annotated =
        r#""annotations":{"pod-security.kubernetes.io/audit-violations":"host namespaces (hostPID=true)"},"#;
    assert_eq!(cluster.ask_with(&person(), "create pods shop/a", 201, annotated), ["privileged-pod"]);
    assert_eq!(cluster.ask_with(&person(), "create pods shop/b", 403, annotated), NOTHING);
    let mounted = r#""requestObject":{"spec":{"template":{"spec":{"volumes":[{"name":"r","hostPath":{"path":"/"}}]}}}},"#;
    assert_eq!(cluster.ask_with(&person(), "create deployments shop/c", 201, mounted), ["privileged-pod"]);
    let harmless = r#""requestObject":{"spec":{"containers":[{"securityContext":{"privileged":false}}]}},"#;
    assert_eq!(cluster.ask_with(&person(), "create pods shop/d", 201, harmless), NOTHING);
}

#[test]
fn binding_everybody_is_told_whoever_does_it() {
    let mut cluster = Cluster::configured();
    let everybody =
        r#""requestObject":{"roleRef":{"name":"view"},"subjects":[{"name":"system:unauthenticated"}]},"#;
    assert_eq!(
        cluster.ask_with(&person(), "create clusterrolebindings", 201, everybody),
        ["anonymous-bound"]
    );
    let somebody = r#""requestObject":{"roleRef":{"name":"view"},"subjects":[{"name":"max"}]},"#;
    assert_eq!(cluster.ask_with(&person(), "create clusterrolebindings", 201, somebody), NOTHING);
    assert_eq!(cluster.ask_with(&controller(), "create clusterrolebindings", 201, somebody), ["role-bound"]);
    let server = Who::new("system:apiserver", "::1").with("credential-id", "X509SHA256=self");
    assert_eq!(cluster.ask_with(&server, "create clusterrolebindings", 201, everybody), NOTHING);
}

#[test]
fn certificates_of_programs_are_told() {
    let mut cluster = Cluster::configured();
    assert_eq!(
        cluster.ask(&controller(), "create certificatesigningrequests", 201),
        ["certificate-approved"]
    );
    assert_eq!(
        cluster.ask(&controller(), "update certificatesigningrequests/approval", 200),
        ["certificate-approved"]
    );
    assert_eq!(
        cluster.ask(&Who::kubelet("red", "172.16.5.1"), "create certificatesigningrequests", 201),
        NOTHING
    );
    assert_eq!(cluster.ask(&person(), "update certificatesigningrequests/approval", 200), NOTHING);
}

#[test]
fn impersonation_is_told_once_for_each_pair() {
    let mut cluster = Cluster::configured();
    let masters = r#""impersonatedUser":{"username":"x","groups":["system:masters"]},"#;
    assert_eq!(cluster.ask_with(&person(), "list pods shop", 200, masters), ["impersonation"]);
    cluster.wait(700);
    assert_eq!(cluster.ask_with(&person(), "list pods shop", 200, masters), NOTHING);
    let other = r#""impersonatedUser":{"username":"y"},"#;
    assert_eq!(cluster.ask_with(&person(), "list pods shop", 200, other), ["impersonation"]);
}

#[test]
fn webhooks_that_lead_out_are_told_whoever_registers_them() {
    let mut cluster = Cluster::configured();
    let hook = |config: &str| format!(r#""requestObject":{{"webhooks":[{{"clientConfig":{{{config}}}}}]}},"#);
    let kind = "create mutatingwebhookconfigurations";
    assert_eq!(cluster.ask_with(&person(), kind, 201, &hook(r#""service":{"name":"a"}"#)), NOTHING);
    for url in
        ["https://a.shop.svc/x", "https://localhost:9443/x", "https://[::1]:1/x", "https://127.0.0.2/x"]
    {
        assert_eq!(
            cluster.ask_with(&person(), kind, 201, &hook(&format!(r#""url":"{url}""#))),
            NOTHING,
            "{url}"
        );
    }
    for url in [
        "https://198.18.0.9/x",
        "https://evil.example/a.svc",
        "https://a.svc@evil.example/",
        "https://a.svc.evil.example/",
    ] {
        let told = cluster.ask_with(&person(), kind, 201, &hook(&format!(r#""url":"{url}""#)));
        assert_eq!(told, ["webhook-registered"], "{url}");
    }
    assert_eq!(
        cluster.ask(&controller(), "patch validatingwebhookconfigurations", 200),
        ["webhook-registered"]
    );
}

#[test]
fn tokens_of_other_accounts_are_told() {
    let mut cluster = Cluster::configured();
    assert_eq!(cluster.ask(&person(), "create serviceaccounts/token ci/deployer", 201), NOTHING);
    assert_eq!(cluster.ask(&person(), "create serviceaccounts/token kube-system/x", 201), ["token-issued"]);
    assert_eq!(cluster.ask(&controller(), "create serviceaccounts/token ci/deployer", 201), ["token-issued"]);
    assert_eq!(
        cluster.ask(&Who::kubelet("red", "172.16.5.1"), "create serviceaccounts/token ci/deployer", 201),
        NOTHING
    );
}

#[test]
fn schedules_ephemeral_containers_and_proxies_of_programs_are_told() {
    let mut cluster = Cluster::configured();
    assert_eq!(cluster.ask(&controller(), "create cronjobs shop/x", 201), ["implant-scheduled"]);
    assert_eq!(
        cluster.ask(&controller(), "patch pods/ephemeralcontainers shop/x", 200),
        ["ephemeral-container"]
    );
    assert_eq!(cluster.ask(&controller(), "get services/proxy/ui dashboards/ui", 200), ["service-proxy"]);
    for what in [
        "create cronjobs shop/x",
        "patch pods/ephemeralcontainers shop/x",
        "get services/proxy/ui dashboards/ui",
    ] {
        assert_eq!(cluster.ask(&person(), what, 200), NOTHING, "{what}");
    }
}

#[test]
fn what_an_intruder_does_becomes_no_habit() {
    let mut cluster = Cluster::configured();
    let thief = controller().at("198.18.0.9");
    let told = cluster.ask(&thief, "create cronjobs shop/x", 201);
    assert_eq!(told, ["bound-token-elsewhere", "implant-scheduled"]);
    assert_eq!(cluster.ask(&controller(), "create cronjobs shop/x", 201), ["implant-scheduled"]);
}
