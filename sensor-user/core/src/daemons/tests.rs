use super::*;

fn read(line: &str, at: u16) -> (Option<Service>, Tls, Option<(IpAddr, u16)>) {
    let args: Vec<Arc<str>> = line.split(' ').map(Arc::from).collect();
    let question = Question { port: at, configured: None, options: None };
    let Port { service, tls, leads_to } = port(None, &args, &question);
    (service, tls, leads_to)
}

#[test]
fn dockerd_says_by_its_arguments_whether_a_tcp_endpoint_has_tls() {
    let (docker, docker_tls) = (Some(Service::Docker), Some(Service::DockerTls));
    for (line, service, tls) in [
        ("dockerd -H tcp://0.0.0.0:4243 --tls=false", docker, Tls::Plaintext),
        ("/usr/bin/dockerd -H unix:///x -Htcp://[::]:4243 --tls=0", docker, Tls::Plaintext),
        ("dockerd --host=tcp://:4243 --tlsverify", docker_tls, Tls::Tls),
        ("dockerd --host tcp://10.0.0.1:4243/ --tls --tlscert x", docker_tls, Tls::Tls),
        ("dockerd -H tcp://:4243 --tls=false --tlsverify=true", docker_tls, Tls::Tls),
        ("dockerd -H tcp://:4243 --tlsverify=false", docker, Tls::Unknown),
        ("dockerd -H tcp://:4243", docker, Tls::Unknown),
        ("dockerd -H tcp://:4243 --tlscacert x", docker, Tls::Unknown),
        ("dockerd -H tcp://:4244 --tls=false", None, Tls::Unknown),
        ("dockerd -H tcp://nonsense --tls=false -H", None, Tls::Unknown),
        ("docker -H tcp://:4243 --tls=false", None, Tls::Unknown),
    ] {
        assert_eq!(read(line, 4243), (service, tls, None), "{line}");
    }
}

#[test]
fn ports_of_kubernetes_have_the_tls_that_their_programs_know_no_other_way_for() {
    let kubelet = (Some(Service::Kubelet), Tls::Tls, None);
    let readonly = (Some(Service::KubeletReadonly), Tls::Plaintext, None);
    assert_eq!(read("kubelet", 10250), kubelet);
    assert_eq!(read("/usr/bin/kubelet --port=1250", 1250), kubelet);
    assert_eq!(read("kubelet --port 1250", 10250), (None, Tls::Unknown, None));
    assert_eq!(read("kubelet --read-only-port=10255", 10255), readonly);
    assert_eq!(read("kubelet", 10248), (None, Tls::Plaintext, None));
    assert_eq!(read("kube-apiserver", 6443), (Some(Service::KubeApiserver), Tls::Tls, None));
    assert_eq!(
        read("kube-apiserver --secure-port=443 --insecure-port 8080", 8080),
        (Some(Service::KubeApiserver), Tls::Plaintext, None)
    );
}

#[test]
fn podman_serves_the_docker_api_when_it_is_told_to() {
    let line = "podman --log-level debug system service --time 0 tcp://0.0.0.0:8888";
    assert_eq!(read(line, 8888), (Some(Service::Docker), Tls::Plaintext, None));
    let with_tls = format!("{line} --tls-cert=x");
    assert_eq!(read(&with_tls, 8888), (Some(Service::Docker), Tls::Tls, None));
    assert_eq!(read("podman run tcp://0.0.0.0:8888", 8888), (None, Tls::Unknown, None));
}

#[test]
fn docker_proxy_says_where_it_leads() {
    let line = "docker-proxy -proto tcp -host-ip 0.0.0.0 -host-port 12375 -container-ip 172.17.0.2 -container-port 2375";
    let inner = Some(("172.17.0.2".parse().expect("address"), 2375));
    assert_eq!(read(line, 12375), (None, Tls::Unknown, inner));
    assert_eq!(read(line, 12376), (None, Tls::Unknown, None));
    let broken = "docker-proxy -host-port 12375 -container-ip x -container-port 99999";
    assert_eq!(read(broken, 12375), (None, Tls::Unknown, None));
}

#[test]
fn the_file_counts_before_the_name_that_a_program_gives_itself() {
    let args = ["x".into(), "-H".into(), "tcp://:1".into()];
    let question = Question { port: 1, configured: None, options: None };
    assert_eq!(port(Some("/usr/sbin/dockerd"), &args, &question).service, Some(Service::Docker));
    assert_eq!(port(None, &[], &question), UNKNOWN);
}

#[test]
fn what_dockerd_was_not_told_in_its_arguments_is_in_its_configuration() {
    let options = |hosts: &[&str], tls, tls_verify| DaemonOptions {
        hosts: hosts.iter().map(|host| Arc::from(*host)).collect(),
        tls,
        tls_verify,
    };
    let at_4243 = &["tcp://0.0.0.0:4243"][..];
    for (line, options, expected) in [
        ("dockerd -H tcp://:4243", options(&[], None, None), Some(Tls::Plaintext)),
        ("dockerd -H tcp://:4243", options(&[], Some(true), None), Some(Tls::Tls)),
        ("dockerd -H tcp://:4243", options(&[], Some(false), Some(true)), Some(Tls::Tls)),
        ("dockerd -H tcp://:4243", options(&[], None, Some(false)), Some(Tls::Unknown)),
        ("dockerd -H tcp://:4243 --tls=false", options(&[], None, Some(true)), Some(Tls::Tls)),
        ("dockerd -H tcp://:4243 --tls", options(&[], None, None), Some(Tls::Tls)),
        ("dockerd", options(at_4243, None, None), Some(Tls::Plaintext)),
        ("dockerd --tlsverify", options(at_4243, None, None), Some(Tls::Tls)),
        ("dockerd", options(&["tcp://0.0.0.0:4244", "unix:///x"], None, None), None),
        ("dockerd -H fd://", options(&[], None, None), None),
    ] {
        let args: Vec<Arc<str>> = line.split(' ').map(Arc::from).collect();
        let told = port(None, &args, &Question { port: 4243, configured: None, options: Some(&options) });
        assert_eq!(told.service.map(|_| told.tls), expected, "{line} {options:?}");
    }
}

#[test]
fn the_ports_that_docker_takes_by_itself_need_not_be_named() {
    let options = DaemonOptions::default();
    for (line, configured, serves) in [
        ("dockerd -H tcp://0.0.0.0", None, true),
        ("dockerd -H fd://", Some(Service::Docker), true),
        ("dockerd -H fd://", Some(Service::Kubelet), false),
        ("dockerd -H unix:///x", Some(Service::Docker), false),
    ] {
        let args: Vec<Arc<str>> = line.split(' ').map(Arc::from).collect();
        let told = port(None, &args, &Question { port: 2375, configured, options: Some(&options) });
        assert_eq!(told.service.is_some(), serves, "{line}");
        assert_eq!(told.tls == Tls::Plaintext, serves, "{line}");
    }
}

#[test]
fn ports_are_known_before_they_are_opened() {
    let ports = |line: &str| {
        let args: Vec<Arc<str>> = line.split(' ').map(Arc::from).collect();
        named_ports(None, &args)
    };
    assert_eq!(ports("dockerd --host=tcp://0.0.0.0:4243 -H unix:///x -H tcp://[::]:4244"), [4243, 4244]);
    assert_eq!(ports("podman system service tcp://:8888"), [8888]);
    assert_eq!(ports("kubelet --port=1250"), [1250]);
    assert_eq!(ports("kube-apiserver --secure-port 443"), [443]);
    assert_eq!(ports("nginx -H tcp://0.0.0.0:4243"), [0_u16; 0]);
}
