//! What the arguments of a daemon say of one of its listening ports: which service, TLS or not, where it leads.
//!
//! Arguments are what the holder of a socket was started with: a statement of that program about itself, and the only
//! one that can be had without a connection. What a configuration file says is not seen here; then the answer is
//! `Unknown`, never a guess.

use std::net::IpAddr;
use std::sync::Arc;

use crate::fact::{Service, Tls};
use crate::text::basename;

/// What is known of one port of a daemon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Port {
    /// The management service, when the arguments name the port for it.
    pub(crate) service: Option<Service>,
    pub(crate) tls: Tls,
    /// Address and port inside the container, of a port that docker-proxy publishes.
    pub(crate) leads_to: Option<(IpAddr, u16)>,
}

/// Nothing is known.
pub(crate) const UNKNOWN: Port = Port { service: None, tls: Tls::Unknown, leads_to: None };

/// Reads the arguments of a program for one port.
pub(crate) fn port(exe: Option<&str>, args: &[Arc<str>], port: u16) -> Port {
    let names = [exe, args.first().map(|arg| &**arg)];
    let read = names.into_iter().flatten().map(basename).find_map(reader_of);
    read.map_or(UNKNOWN, |read| read(&Arguments(args.get(1..).unwrap_or_default()), port))
}

type Reader = fn(&Arguments<'_>, u16) -> Port;

fn reader_of(program: &str) -> Option<Reader> {
    Some(match program {
        "dockerd" => dockerd,
        "podman" => podman,
        "kubelet" => kubelet,
        "kube-apiserver" => kube_apiserver,
        "docker-proxy" => docker_proxy,
        _ => return None,
    })
}

/// `-H tcp://ADDRESS:PORT`, and `--tls`, `--tlsverify`. `--tlsverify=false` turned TLS on in older versions and off in
/// newer ones. Without any of them `daemon.json` decides.
fn dockerd(args: &Arguments<'_>, port: u16) -> Port {
    let hosts = ["host", "H"].into_iter().flat_map(|name| args.values(name));
    if !hosts.into_iter().any(|host| tcp_port(host) == Some(port)) {
        return UNKNOWN;
    }
    let tls = match (args.switch("tlsverify"), args.switch("tls")) {
        (Some(true), _) | (None, Some(true)) => Tls::Tls,
        (None, Some(false)) => Tls::Plaintext,
        _ => Tls::Unknown,
    };
    let service = if tls == Tls::Tls { Service::DockerTls } else { Service::Docker };
    Port { service: Some(service), tls, ..UNKNOWN }
}

/// The port of `tcp://ADDRESS:PORT`.
fn tcp_port(address: &str) -> Option<u16> {
    let rest = address.strip_prefix("tcp://")?.split('/').next()?;
    rest.rsplit_once(':')?.1.parse().ok()
}

/// `podman system service tcp://ADDRESS:PORT` serves the Docker API, with TLS only where `--tls-cert` says so.
fn podman(args: &Arguments<'_>, port: u16) -> Port {
    let serves = args.plain().skip_while(|word| *word != "system").nth(1) == Some("service");
    if !serves || !args.plain().any(|word| tcp_port(word) == Some(port)) {
        return UNKNOWN;
    }
    let with_tls = args.values("tls-cert").next().is_some();
    let tls = if with_tls { Tls::Tls } else { Tls::Plaintext };
    Port { service: Some(Service::Docker), tls, ..UNKNOWN }
}

/// The API is served over TLS only, with a certificate of the kubelet's own if it has no other; the read-only port and
/// the health check have none. A configuration file can name other ports.
fn kubelet(args: &Arguments<'_>, port: u16) -> Port {
    let is = |name: &str, default: u16| args.number(name).unwrap_or(default) == port;
    if is("port", 10250) {
        Port { service: Some(Service::Kubelet), tls: Tls::Tls, ..UNKNOWN }
    } else if is("read-only-port", 10255) {
        Port { service: Some(Service::KubeletReadonly), tls: Tls::Plaintext, ..UNKNOWN }
    } else if is("healthz-port", 10248) {
        Port { tls: Tls::Plaintext, ..UNKNOWN }
    } else {
        UNKNOWN
    }
}

/// The secure port is served over TLS only; the insecure one, which is gone since Kubernetes 1.24, without.
fn kube_apiserver(args: &Arguments<'_>, port: u16) -> Port {
    if args.number("secure-port").unwrap_or(6443) == port {
        Port { service: Some(Service::KubeApiserver), tls: Tls::Tls, ..UNKNOWN }
    } else if args.number("insecure-port") == Some(port) {
        Port { service: Some(Service::KubeApiserver), tls: Tls::Plaintext, ..UNKNOWN }
    } else {
        UNKNOWN
    }
}

/// `-host-port PORT -container-ip ADDRESS -container-port PORT`; it passes bytes on as they are.
fn docker_proxy(args: &Arguments<'_>, port: u16) -> Port {
    let address = args.values("container-ip").next().and_then(|ip| ip.parse::<IpAddr>().ok());
    match (args.number("host-port"), address, args.number("container-port")) {
        (Some(host), Some(ip), Some(inner)) if host == port => {
            Port { leads_to: Some((ip.to_canonical(), inner)), ..UNKNOWN }
        }
        _ => UNKNOWN,
    }
}

/// The arguments after the program's own name: `--name value`, `--name=value`, `-n value`, `-nvalue`.
struct Arguments<'a>(&'a [Arc<str>]);

impl<'a> Arguments<'a> {
    /// Values of an option, in order. A single letter may have its value attached.
    fn values(&self, name: &str) -> impl Iterator<Item = &'a str> {
        let args = self.0;
        args.iter().enumerate().filter_map(move |(index, arg)| {
            let rest = option(arg)?.strip_prefix(name)?;
            match rest.strip_prefix('=') {
                Some(value) => Some(value),
                None if rest.is_empty() => args.get(index + 1).map(|value| &**value),
                None if name.len() == 1 && !arg.starts_with("--") => Some(rest),
                None => None,
            }
        })
    }

    /// The last value of an option that takes a port.
    fn number(&self, name: &str) -> Option<u16> {
        self.values(name).last().and_then(|value| value.parse().ok())
    }

    /// The last setting of an option that is on or off.
    fn switch(&self, name: &str) -> Option<bool> {
        let mut settings = self.0.iter().filter_map(|arg| match option(arg)?.strip_prefix(name)? {
            "" => Some(true),
            rest => rest
                .strip_prefix('=')
                .map(|value| matches!(value, "1" | "t" | "T" | "true" | "True" | "TRUE")),
        });
        settings.next_back()
    }

    /// What is no option. The value of an option is taken for one of these: good for words that no option has.
    fn plain(&self) -> impl Iterator<Item = &'a str> {
        self.0.iter().map(|arg| &**arg).filter(|arg| option(arg).is_none())
    }
}

/// An option without its dashes.
fn option(arg: &str) -> Option<&str> {
    let arg = arg.strip_prefix('-')?;
    Some(arg.strip_prefix('-').unwrap_or(arg))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str, at: u16) -> (Option<Service>, Tls, Option<(IpAddr, u16)>) {
        let args: Vec<Arc<str>> = line.split(' ').map(Arc::from).collect();
        let Port { service, tls, leads_to } = port(None, &args, at);
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
        assert_eq!(port(Some("/usr/sbin/dockerd"), &args, 1).service, Some(Service::Docker));
        assert_eq!(port(None, &[], 1), UNKNOWN);
    }
}
