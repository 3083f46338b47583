//! What the command lines of tools ask for.

use std::sync::Arc;

use crate::text::basename;

/// How the command line of a tool is read.
struct Tool {
    name: &'static str,
    /// Options before the command whose value is an argument of its own.
    valued: &'static [&'static str],
    /// Commands that ask what there is.
    asks: &'static [&'static str],
    /// Commands that do so by one of [`LISTING`] behind them.
    groups: &'static [&'static str],
}

/// What asks behind the name of a group.
const LISTING: &[&str] =
    &["ls", "list", "ps", "inspect", "info", "df", "top", "stats", "logs", "history", "events", "metrics"];

const DOCKER_VALUED: &[&str] = &[
    "-H",
    "--host",
    "-c",
    "--context",
    "--config",
    "-l",
    "--log-level",
    "--tlscacert",
    "--tlscert",
    "--tlskey",
    "--url",
    "--connection",
    "--root",
    "--runroot",
    "--identity",
    "-a",
    "--address",
    "-n",
    "--namespace",
];
const DOCKER_ASKS: &[&str] = &[
    "ps", "images", "inspect", "info", "stats", "top", "logs", "events", "history", "search", "port", "diff",
];
const DOCKER_GROUPS: &[&str] = &[
    "container",
    "image",
    "network",
    "volume",
    "node",
    "service",
    "stack",
    "swarm",
    "system",
    "plugin",
    "secret",
    "config",
    "context",
    "compose",
    "pod",
    "namespace",
];

const TOOLS: &[Tool] = &[
    Tool { name: "docker", valued: DOCKER_VALUED, asks: DOCKER_ASKS, groups: DOCKER_GROUPS },
    Tool { name: "podman", valued: DOCKER_VALUED, asks: DOCKER_ASKS, groups: DOCKER_GROUPS },
    Tool { name: "nerdctl", valued: DOCKER_VALUED, asks: DOCKER_ASKS, groups: DOCKER_GROUPS },
    Tool {
        name: "kubectl",
        valued: &[
            "-n",
            "--namespace",
            "--context",
            "--cluster",
            "--user",
            "--kubeconfig",
            "-s",
            "--server",
            "--token",
            "--as",
            "--as-group",
            "--as-uid",
            "--certificate-authority",
            "--client-certificate",
            "--client-key",
            "--tls-server-name",
            "--request-timeout",
            "--cache-dir",
            "-v",
            "--v",
        ],
        asks: &["get", "describe", "api-resources", "api-versions", "cluster-info", "top", "logs", "events"],
        groups: &["auth", "config"],
    },
    Tool {
        name: "crictl",
        valued: &["-r", "--runtime-endpoint", "-i", "--image-endpoint", "-c", "--config", "-t", "--timeout"],
        asks: &[
            "ps",
            "pods",
            "images",
            "image",
            "img",
            "inspect",
            "inspecti",
            "inspectp",
            "info",
            "stats",
            "statsp",
            "logs",
            "imagefsinfo",
            "events",
        ],
        groups: &[],
    },
    Tool {
        name: "ctr",
        valued: &["-n", "--namespace", "-a", "--address", "--timeout", "--connect-timeout"],
        asks: &["events", "info"],
        groups: &[
            "containers",
            "container",
            "c",
            "images",
            "image",
            "i",
            "tasks",
            "task",
            "t",
            "namespaces",
            "namespace",
            "ns",
            "snapshots",
            "snapshot",
            "content",
            "plugins",
            "plugin",
            "pods",
            "sandboxes",
        ],
    },
];

/// What asks behind `kubectl auth` and `kubectl config`.
const KUBECTL_LISTING: &[&str] = &["can-i", "whoami", "view", "get-contexts", "get-clusters", "get-users"];

/// Programs that look for open ports.
const SCANNERS: &[&str] = &["masscan", "nmap", "zmap", "zgrab", "zgrab2", "pnscan", "rustscan", "naabu"];

/// Where management services listen.
const MANAGEMENT_PORTS: [u16; 5] = [2375, 2376, 6443, 10250, 10255];

/// The command by which a tool asks what there is, of a closed list; `None`: it asks for something else.
///
/// `args` begin with the program's own name.
pub(super) fn discovery_of(tool: &str, args: &[Arc<str>]) -> Option<String> {
    let tool = TOOLS.iter().find(|known| known.name == tool)?;
    let mut words = args.iter().skip(1).map(|arg| &**arg);
    let mut command = words.next()?;
    while command.starts_with('-') {
        if tool.valued.contains(&command) {
            words.next()?;
        }
        command = words.next()?;
    }
    if tool.asks.contains(&command) {
        return Some(format!("{} {command}", tool.name));
    }
    if !tool.groups.contains(&command) {
        return None;
    }
    let listing = if tool.name == "kubectl" { KUBECTL_LISTING } else { LISTING };
    let what = words.find(|word| !word.starts_with('-'))?;
    listing.contains(&what).then(|| format!("{} {command} {what}", tool.name))
}

/// The name of a port scanner that is aimed at a management port.
pub(super) fn scanner_of(exe: Option<&str>, args: &[Arc<str>]) -> Option<&'static str> {
    let names = [exe, args.first().map(|arg| &**arg)];
    let names = names.into_iter().flatten().map(basename);
    let scanner = names.filter_map(|name| SCANNERS.iter().find(|known| **known == name)).next()?;
    args.iter().skip(1).any(|arg| names_a_management_port(arg)).then_some(*scanner)
}

/// Whether an argument is a list of ports with one of those in it: `10250`, `-p2375,2376`, `--ports=1-65535`, `T:6443`.
fn names_a_management_port(arg: &str) -> bool {
    let bare =
        ["--ports=", "--port=", "--target-ports=", "-p"].iter().find_map(|option| arg.strip_prefix(option));
    let list = bare.unwrap_or(arg);
    let span = |item: &str| -> Option<std::ops::RangeInclusive<u16>> {
        let item = item.strip_prefix("T:").unwrap_or(item);
        match item.split_once('-') {
            None => item.parse().ok().map(|port: u16| port..=port),
            Some((from, to)) => {
                let from = if from.is_empty() { 0 } else { from.parse().ok()? };
                let to = if to.is_empty() { u16::MAX } else { to.parse().ok()? };
                Some(from..=to)
            }
        }
    };
    let spans: Option<Vec<_>> = list.split(',').map(span).collect();
    spans
        .is_some_and(|spans| MANAGEMENT_PORTS.iter().any(|port| spans.iter().any(|span| span.contains(port))))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<Arc<str>> {
        line.split(' ').map(Arc::from).collect()
    }

    #[test]
    fn tools_ask_what_there_is_whatever_comes_before_the_command() {
        let check = |tool: &str, line: &str, expected: Option<&str>| {
            assert_eq!(discovery_of(tool, &words(line)).as_deref(), expected, "{line}");
        };
        check("docker", "docker ps -a", Some("docker ps"));
        check("docker", "docker -H tcp://10.0.0.12:2375 images", Some("docker images"));
        check("docker", "docker --host=tcp://10.0.0.12:2375 inspect x", Some("docker inspect"));
        check("docker", "docker container ls", Some("docker container ls"));
        check("docker", "docker run ps", None);
        check("docker", "docker container rm ls", None);
        check("docker", "docker", None);
        check("docker", "docker -H", None);
        check("kubectl", "./k -n kube-system get pods -o wide", Some("kubectl get"));
        check("kubectl", "k auth can-i --list", Some("kubectl auth can-i"));
        check("kubectl", "k -n get delete pod", None);
        check("crictl", "crictl -r unix:///run/containerd/containerd.sock pods", Some("crictl pods"));
        check("ctr", "ctr -n k8s.io containers ls", Some("ctr containers ls"));
        check("ctr", "ctr -n k8s.io run docker.io/library/x ls", None);
        check("runc", "runc list", None);
    }

    #[test]
    fn scanners_count_when_they_are_aimed_at_management_ports() {
        let check = |line: &str, expected: Option<&str>| {
            assert_eq!(scanner_of(None, &words(line)), expected, "{line}");
        };
        check("/tmp/masscan 10.0.0.0/24 -p10250 --rate=1000", Some("masscan"));
        check("masscan 10.0.0.0/8 -p 2375,2376,4243", Some("masscan"));
        check("nmap -p- 10.0.0.1", Some("nmap"));
        check("nmap --ports=U:53,T:6443 10.0.0.1", None);
        check("nmap -p T:6443,22 10.0.0.1", Some("nmap"));
        check("pnscan 10.0.0.0/24 2375", Some("pnscan"));
        check("masscan 10.0.0.0/24 -p80,443", None);
        check("masscan 10.0.0.0/24 -p99999999", None);
        check("sh -c 10250", None);
        assert_eq!(scanner_of(Some("/usr/bin/masscan"), &words("x -p10255")), Some("masscan"));
    }
}
