//! What a daemon was told of one of its listening ports: which service, TLS or not, where it leads.
//!
//! Arguments are what the holder of a socket was started with: a statement of that program about itself, and with the
//! configuration of dockerd the only one that can be had without a connection. What neither says is `Unknown`, never a
//! guess.

use std::net::IpAddr;
use std::sync::Arc;

use crate::exchange::DaemonOptions;
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

/// A listening port of a program.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Question<'a> {
    pub(crate) port: u16,
    /// The service that the configuration of the sensor names the port for.
    pub(crate) configured: Option<Service>,
    /// What the program was told elsewhere than in its arguments, where that is known.
    pub(crate) options: Option<&'a DaemonOptions>,
}

/// Reads the arguments of a program for one port.
pub(crate) fn port(exe: Option<&str>, args: &[Arc<str>], question: &Question<'_>) -> Port {
    let read = name_of(exe, args).and_then(reader_of);
    read.map_or(UNKNOWN, |read| read(&Arguments::of(args), question))
}

/// TCP ports that the arguments of a daemon name, in their order.
pub(crate) fn named_ports(exe: Option<&str>, args: &[Arc<str>]) -> Vec<u16> {
    let name = name_of(exe, args);
    let args = Arguments::of(args);
    let numbers = |names: &[&'static str]| names.iter().filter_map(|name| args.number(name)).collect();
    match name {
        Some("dockerd") => hosts(&args).filter_map(tcp_port).collect(),
        Some("podman") => args.plain().filter_map(tcp_port).collect(),
        Some("kubelet") => numbers(&["port", "read-only-port"]),
        Some("kube-apiserver") => numbers(&["secure-port", "insecure-port"]),
        _ => Vec::new(),
    }
}

/// Whether a program is dockerd, which has options elsewhere than in its arguments; if so, the file that `--config-file`
/// names.
pub(crate) fn configuration_of_dockerd(exe: Option<&str>, args: &[Arc<str>]) -> Option<Option<Arc<str>>> {
    let is_dockerd = name_of(exe, args) == Some("dockerd");
    is_dockerd.then(|| Arguments::of(args).values("config-file").last().map(Arc::from))
}

/// The name of a program that is known here: that of its file, else the one it gives itself.
fn name_of<'a>(exe: Option<&'a str>, args: &'a [Arc<str>]) -> Option<&'a str> {
    let names = [exe, args.first().map(|arg| &**arg)];
    names.into_iter().flatten().map(basename).find(|name| reader_of(name).is_some())
}

type Reader = fn(&Arguments<'_>, &Question<'_>) -> Port;

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

/// `-H tcp://ADDRESS:PORT`, and `--tls`, `--tlsverify`; each may be in `daemon.json` instead. With `-H fd://` systemd opens
/// the ports: those that are configured as Docker's are taken for them, since dockerd has others, too.
fn dockerd(args: &Arguments<'_>, question: &Question<'_>) -> Port {
    let told = question.options.map_or(&[][..], |options| &options.hosts);
    let is_docker = matches!(question.configured, Some(Service::Docker | Service::DockerTls));
    let serves = hosts(args).chain(told.iter().map(|host| &**host)).any(|host| {
        let is_default = matches!(question.port, 2375 | 2376);
        let by_default = is_default && host.starts_with("tcp://") && tcp_port(host).is_none();
        tcp_port(host) == Some(question.port) || by_default || (is_docker && host.starts_with("fd://"))
    });
    if !serves {
        return UNKNOWN;
    }
    let tls = tls_of_dockerd(args, question.options);
    let service = if tls == Tls::Tls { Service::DockerTls } else { Service::Docker };
    Port { service: Some(service), tls, ..UNKNOWN }
}

/// `tlsverify` turns TLS on, whatever `tls` says; set to false, it turned it on in older versions and off in newer ones.
fn tls_of_dockerd(args: &Arguments<'_>, options: Option<&DaemonOptions>) -> Tls {
    let told = |option: fn(&DaemonOptions) -> Option<bool>| options.and_then(option);
    let verify = args.switch("tlsverify").or_else(|| told(|options| options.tls_verify));
    let tls = args.switch("tls").or_else(|| told(|options| options.tls));
    match (verify, tls) {
        (Some(true), _) | (None, Some(true)) => Tls::Tls,
        (None, Some(false)) => Tls::Plaintext,
        // Nobody turned it on, if all is known that could have.
        (None, None) if options.is_some() => Tls::Plaintext,
        _ => Tls::Unknown,
    }
}

fn hosts<'a>(args: &Arguments<'a>) -> impl Iterator<Item = &'a str> {
    args.values("host").chain(args.values("H"))
}

/// The port of `tcp://ADDRESS:PORT`.
fn tcp_port(address: &str) -> Option<u16> {
    let rest = address.strip_prefix("tcp://")?.split('/').next()?;
    rest.rsplit_once(':')?.1.parse().ok()
}

/// `podman system service tcp://ADDRESS:PORT` serves the Docker API, with TLS only where `--tls-cert` says so.
fn podman(args: &Arguments<'_>, &Question { port, .. }: &Question<'_>) -> Port {
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
fn kubelet(args: &Arguments<'_>, &Question { port, .. }: &Question<'_>) -> Port {
    let is = |name: &'static str, default: u16| args.number(name).unwrap_or(default) == port;
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
fn kube_apiserver(args: &Arguments<'_>, &Question { port, .. }: &Question<'_>) -> Port {
    if args.number("secure-port").unwrap_or(6443) == port {
        Port { service: Some(Service::KubeApiserver), tls: Tls::Tls, ..UNKNOWN }
    } else if args.number("insecure-port") == Some(port) {
        Port { service: Some(Service::KubeApiserver), tls: Tls::Plaintext, ..UNKNOWN }
    } else {
        UNKNOWN
    }
}

/// `-host-port PORT -container-ip ADDRESS -container-port PORT`; it passes bytes on as they are.
fn docker_proxy(args: &Arguments<'_>, &Question { port, .. }: &Question<'_>) -> Port {
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
    /// Without the program's own name.
    fn of(args: &'a [Arc<str>]) -> Self {
        Self(args.get(1..).unwrap_or_default())
    }

    /// Values of an option, in order. A single letter may have its value attached.
    fn values(&self, name: &'static str) -> impl Iterator<Item = &'a str> + use<'a> {
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
    fn number(&self, name: &'static str) -> Option<u16> {
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
mod tests;
