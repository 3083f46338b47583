//! AN1547: where credentials are used.

use super::*;

const ELSEWHERE: [&str; 1] = ["bound-token-elsewhere"];
const NODE: [&str; 1] = ["node-credential-elsewhere"];
const NEW: [&str; 1] = ["credential-new-source"];
const ISSUED: [&str; 1] = ["issued-token-elsewhere"];

#[test]
fn a_bound_token_belongs_on_its_node() {
    let mut cluster = Cluster::configured();
    for (source, expected) in [
        ("172.16.5.2", &NOTHING[..]),
        ("fd00:5::2", &NOTHING),
        ("172.16.5.1", &ELSEWHERE),
        ("192.168.40.9", &ELSEWHERE),
        ("198.18.0.9", &ELSEWHERE),
        ("127.0.0.1", &NOTHING),
    ] {
        let pod = Who::pod("shop/web", "web-0", "blue", source);
        assert_eq!(cluster.ask(&pod, "get configmaps shop/a", 200), expected, "{source}");
    }
}

#[test]
fn a_forged_forwarding_header_changes_nothing() {
    let mut cluster = Cluster::configured();
    let pod = Who::pod("shop/web", "web-0", "blue", r#"172.16.5.2","198.18.0.9"#);
    assert_eq!(cluster.ask(&pod, "get configmaps shop/a", 200), ELSEWHERE);
    let at = cluster.auditor.places.of("198.18.0.9".parse().expect("an address"));
    assert_eq!(at, Place::Outside);
    let behind = Who::pod("shop/web", "web-1", "blue", r#"172.16.5.2","172.16.5.250"#);
    assert_eq!(cluster.ask(&behind, "get configmaps shop/a", 200), NOTHING);
    let forged = Who::pod("shop/web", "web-1", "blue", r#"172.16.5.2","198.18.0.9","172.16.5.250"#);
    assert_eq!(cluster.ask(&forged, "get configmaps shop/a", 200), ELSEWHERE);
}

#[test]
fn nodes_are_learned_from_their_kubelets() {
    let mut cluster = Cluster::unknown();
    cluster.routine(&Who::kubelet("red", "10.0.0.1"), "update nodes/status red", 2);
    cluster.routine(&Who::kubelet("blue", "10.0.0.2"), "update nodes/status blue", 2);
    let pod = Who::pod("shop/web", "web-0", "blue", "10.0.0.2");
    assert_eq!(cluster.ask(&pod, "get configmaps shop/a", 200), NOTHING);
    assert_eq!(cluster.ask(&pod.clone().at("10.0.0.1"), "get configmaps shop/a", 200), ELSEWHERE);
    assert_eq!(cluster.ask(&pod.at("10.77.0.1"), "get configmaps shop/a", 200), ELSEWHERE);
    assert_eq!(cluster.ask(&Who::kubelet("blue", "10.0.0.1"), "list secrets", 403), NODE);
    assert_eq!(cluster.ask(&Who::kubelet("blue", "10.77.0.1"), "list secrets", 403), NODE);
}

#[test]
fn a_node_that_comes_back_may_have_moved() {
    let mut cluster = Cluster::unknown();
    cluster.routine(&Who::kubelet("red", "10.0.0.1"), "update nodes/status red", 2);
    assert_eq!(cluster.ask(&Who::kubelet("red", "10.0.0.9"), "create nodes", 201), NOTHING);
    assert_eq!(cluster.ask(&Who::kubelet("red", "10.0.0.9"), "get nodes red", 200), NOTHING);
    assert_eq!(cluster.ask(&Who::kubelet("red", "10.0.0.1"), "get nodes red", 200), NODE);
}

#[test]
fn a_node_does_not_move_by_failing_to_register() {
    let mut cluster = Cluster::unknown();
    cluster.routine(&Who::kubelet("red", "10.0.0.1"), "update nodes/status red", 2);
    assert_eq!(cluster.ask(&Who::kubelet("red", "10.0.0.9"), "create nodes x/red", 409), NODE);
    assert_eq!(cluster.ask(&Who::kubelet("red", "10.0.0.9"), "create nodes x/blue", 201), NOTHING);
    assert_eq!(cluster.ask(&Who::kubelet("red", "10.0.0.1"), "get nodes red", 200), NOTHING);
}

#[test]
fn node_objects_outweigh_what_was_learned() {
    let mut cluster = Cluster::unknown();
    let red = Who::kubelet("red", "10.0.0.1");
    cluster.routine(&red, "get nodes x/red", 1);
    let body = r#""responseObject":{"spec":{"podCIDRs":["10.9.1.0/24"]},"status":{"addresses":[{"address":"10.0.0.1"},{"address":"10.0.8.1"}]}},"#;
    assert_eq!(cluster.ask_with(&red, "patch nodes/status x/red", 200, body), NOTHING);
    for (source, expected) in [("10.0.8.1", &NOTHING[..]), ("10.9.1.77", &NOTHING), ("10.9.2.77", &ELSEWHERE)]
    {
        let pod = Who::pod("shop/web", "web-0", "red", source);
        assert_eq!(cluster.ask(&pod, "get configmaps shop/a", 200), expected, "{source}");
    }
}

#[test]
fn one_address_for_all_nodes_proves_nothing() {
    let mut cluster = Cluster::unknown();
    for node in ["red", "blue", "green"] {
        cluster.routine(&Who::kubelet(node, "10.0.0.100"), "update nodes/status x", 2);
    }
    for node in ["red", "blue"] {
        let pod = Who::pod("shop/web", &format!("web-{node}"), node, "10.0.0.100");
        assert_eq!(cluster.ask(&pod, "get configmaps shop/a", 200), NOTHING);
    }
}

#[test]
fn pods_may_leave_through_another_address_than_their_nodes() {
    let mut cluster = Cluster::unknown();
    cluster.routine(&Who::kubelet("red", "10.0.0.1"), "update nodes/status red", 2);
    let pod = Who::pod("shop/web", "web-0", "red", "10.1.0.1");
    cluster.routine(&pod, "get configmaps shop/a", 3);
    assert_eq!(cluster.ask(&pod.at("10.3.0.1"), "get configmaps shop/a", 200), ELSEWHERE);
    assert_eq!(cluster.ask(&Who::kubelet("red", "10.1.0.1"), "get nodes red", 200), NODE);
}

#[test]
fn where_pods_are_not_translated_their_own_addresses_count() {
    let mut cluster = Cluster::configured();
    let one = Who::pod("shop/web", "web-0", "red", "100.64.1.5");
    let two = Who::pod("shop/api", "api-0", "blue", "100.64.2.6");
    cluster.routine(&one, "get configmaps shop/a", 2);
    cluster.routine(&two, "get configmaps shop/b", 2);
    assert_eq!(cluster.ask(&one.clone().at("100.64.2.6"), "get configmaps shop/a", 200), ELSEWHERE);
    // A pod on the host's network has its node's address.
    assert_eq!(cluster.ask(&one.at("172.16.5.1"), "get configmaps shop/a", 200), NOTHING);
}

#[test]
fn ranges_of_pods_are_learned_by_node() {
    let mut cluster = Cluster::configured();
    cluster.routine(&Who::pod("shop/api", "api-0", "blue", "100.64.2.6"), "get configmaps shop/b", 25);
    let elsewhere = Who::pod("shop/web", "web-0", "red", "100.64.2.77");
    assert_eq!(cluster.ask(&elsewhere, "get configmaps shop/a", 200), ELSEWHERE);
    cluster.wait(700);
    assert_eq!(
        cluster.ask(&Who::pod("shop/web", "web-1", "red", "100.64.2.78"), "get configmaps shop/a", 200),
        NOTHING
    );
}

#[test]
fn addresses_that_are_not_given_by_node_prove_nothing() {
    let mut cluster = Cluster::configured();
    for number in 0..60 {
        let node = ["red", "blue"][number % 2];
        let pod = Who::pod("shop/web", &format!("web-{number}"), node, &format!("100.64.2.{number}"));
        assert_eq!(cluster.ask(&pod, "get configmaps shop/a", 200), NOTHING, "{number}");
    }
}

#[test]
fn tokens_that_do_not_say_their_node_belong_where_they_were_issued() {
    let mut cluster = Cluster::configured();
    let issue = r#""annotations":{"authentication.kubernetes.io/issued-credential-id":"JTI=old"},"#;
    let kubelet = Who::kubelet("red", "172.16.5.1");
    assert_eq!(cluster.ask_with(&kubelet, "create serviceaccounts/token shop/web", 201, issue), NOTHING);
    let token = Who::new("system:serviceaccount:shop:web", "172.16.5.1")
        .with("credential-id", "JTI=old")
        .with("pod-name", "web-0");
    assert_eq!(cluster.ask(&token, "get configmaps shop/a", 200), NOTHING);
    assert_eq!(cluster.ask(&token.at("172.16.5.2"), "get configmaps shop/a", 200), ELSEWHERE);
}

#[test]
fn or_where_a_kubelet_has_reported_their_pod() {
    let mut cluster = Cluster::configured();
    assert_eq!(cluster.ask(&Who::kubelet("red", "172.16.5.1"), "patch pods/status shop/web-0", 200), NOTHING);
    let token = Who::new("system:serviceaccount:shop:web", "172.16.5.1").with("pod-name", "web-0");
    assert_eq!(cluster.ask(&token, "get configmaps shop/a", 200), NOTHING);
    assert_eq!(cluster.ask(&token.at("172.16.5.2"), "get configmaps shop/a", 200), ELSEWHERE);
}

#[test]
fn what_a_program_had_issued_for_itself_is_used_there() {
    let mut cluster = Cluster::configured();
    let issue = r#""annotations":{"authentication.kubernetes.io/issued-credential-id":"JTI=cm"},"#;
    let manager =
        Who::new("system:kube-controller-manager", "172.16.5.1").with("credential-id", "X509SHA256=cm");
    assert_eq!(
        cluster.ask_with(&manager, "create serviceaccounts/token kube-system/job-controller", 201, issue),
        NOTHING
    );
    let token = Who::new("system:serviceaccount:kube-system:job-controller", "172.16.5.1")
        .with("credential-id", "JTI=cm");
    assert_eq!(cluster.ask(&token, "list jobs", 200), NOTHING);
    assert_eq!(cluster.ask(&token.at("172.16.5.2"), "list pods x", 200), ISSUED);
}

#[test]
fn a_token_a_person_had_issued_may_be_used_where_it_is_expected() {
    let mut cluster = Cluster::configured();
    let issue = r#""annotations":{"authentication.kubernetes.io/issued-credential-id":"JTI=ci"},"#;
    let person = Who::person("eva", "192.168.40.9");
    assert_eq!(cluster.ask_with(&person, "create serviceaccounts/token ci/deployer", 201, issue), NOTHING);
    let token = Who::new("system:serviceaccount:ci:deployer", "192.168.41.7").with("credential-id", "JTI=ci");
    cluster.routine(&token, "get deployments shop", 25);
    assert_eq!(cluster.ask(&token.clone().at("192.168.41.8"), "get deployments shop", 200), NOTHING);
    assert_eq!(cluster.ask(&token.clone().at("192.168.99.8"), "get deployments shop", 200), NEW);
    assert_eq!(cluster.ask(&token.at("198.18.0.9"), "get deployments shop", 200), NEW);
}

#[test]
fn certificates_and_legacy_tokens_have_a_baseline() {
    for who in [Who::person("eva", "10.3.3.3"), Who::new("system:serviceaccount:ci:legacy", "10.3.3.3")] {
        let mut cluster = Cluster::unknown();
        let stranger = who.clone().at("10.4.4.4");
        cluster.routine(&who, "get pods shop", 25);
        assert_eq!(cluster.ask(&stranger, "get pods shop", 200), NEW, "{who:?}");
        // What was out of place once is not learned.
        cluster.wait(601);
        assert_eq!(cluster.ask(&stranger, "get pods shop", 200), NEW);
        assert_eq!(cluster.ask(&who, "get pods shop", 200), NOTHING);
    }
}

#[test]
fn an_allow_list_expects_whom_it_lists_wherever_they_were_before() {
    let mut cluster = Cluster::configured();
    cluster.routine(&Who::person("eva", "192.168.55.3"), "get pods shop", 25);
    assert_eq!(cluster.ask(&Who::person("eva", "192.168.40.3"), "get pods shop", 200), NOTHING);
    assert_eq!(cluster.ask(&Who::person("eva", "192.168.66.3"), "get pods shop", 200), NEW);
}

#[test]
fn a_credential_never_seen_before_is_out_of_place_outside() {
    let mut cluster = Cluster::configured();
    assert_eq!(cluster.ask(&Who::person("new", "198.18.0.9"), "get pods shop", 200), NEW);
    assert_eq!(cluster.ask(&Who::person("newer", "192.168.77.1"), "get pods shop", 200), NOTHING);
    let mut cluster = Cluster::unknown();
    assert_eq!(cluster.ask(&Who::person("new", "198.18.0.9"), "get pods shop", 200), NOTHING);
}

#[test]
fn anonymous_requests_are_told_when_they_are_answered() {
    let mut cluster = Cluster::configured();
    let nobody = Who::new("system:anonymous", "198.18.0.9");
    assert_eq!(cluster.ask(&nobody, "get /version", 200), NOTHING);
    assert_eq!(cluster.ask(&nobody, "get configmaps kube-public/cluster-info", 200), NOTHING);
    assert_eq!(cluster.ask(&nobody, "list pods shop", 403), NOTHING);
    assert_eq!(cluster.ask(&nobody, "list pods shop", 200), ["anonymous-access"]);
}
