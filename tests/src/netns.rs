//! Two network namespaces joined by a pair of virtual interfaces: the node that serves, and the client outside.

use std::fs::File;
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::AsFd as _;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::process::run;

/// The node's address that clients outside reach; the client's own is `198.18.0.2`.
pub const NODE_OUTSIDE: &str = "198.18.0.1";
/// The client's address there, in the range that is set aside for such tests.
pub const CLIENT_OUTSIDE: &str = "198.18.0.2";
/// The node's address in the network that the allow-list of the tests expects.
pub const NODE_INSIDE: &str = "10.77.0.1";
/// The client's address there.
pub const CLIENT_INSIDE: &str = "10.77.0.2";
/// The node's IPv6 address, in a network that the allow-list expects.
pub const NODE_V6: &str = "fd00:77::1";
/// The client's address there.
pub const CLIENT_V6: &str = "fd00:77::2";
/// The node's IPv6 address in a network that no entry expects.
pub const NODE_V6_OUTSIDE: &str = "fd00:99::1";
/// The client's address there.
pub const CLIENT_V6_OUTSIDE: &str = "fd00:99::2";

/// A named network namespace; deleted when dropped.
#[derive(Debug)]
pub struct Netns {
    name: String,
}

impl Netns {
    /// Makes a namespace with loopback up.
    ///
    /// # Errors
    /// When `ip` fails.
    pub fn create(name: &str) -> Result<Self> {
        run(ip().args(["netns", "add", name]))?;
        let netns = Self { name: name.to_owned() };
        netns.ip(&["link", "set", "lo", "up"])?;
        Ok(netns)
    }

    /// A command that runs a program in the namespace.
    ///
    /// `ip netns exec` would also give it another mount namespace with a /sys of its own, without cgroups; this changes
    /// the network only, and the program keeps the id of the process that is started.
    #[must_use]
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", self.path().display())).arg(program);
        command
    }

    /// Runs a closure on a thread in the namespace; sockets it makes belong there wherever they are used later.
    ///
    /// # Errors
    /// When the namespace cannot be entered, or the closure fails.
    pub fn within<T: Send>(&self, action: impl FnOnce() -> io::Result<T> + Send) -> Result<T> {
        let namespace = File::open(self.path()).with_context(|| format!("cannot open {}", self.name))?;
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))?;
                action()
            });
            thread.join().expect("the action panicked")
        })
        .with_context(|| format!("in network namespace {}", self.name))
    }

    /// Connections that listeners of the namespace have completed so far, as the kernel counts them. A client that finds
    /// the queue of a listener full believes in one more.
    ///
    /// # Errors
    /// When the kernel does not tell.
    pub fn completed_connections(&self) -> Result<u64> {
        self.tcp_counter("PassiveOpens")
    }

    /// Connections that are open in the namespace, whoever made them.
    ///
    /// # Errors
    /// When the kernel does not tell.
    pub fn open_connections(&self) -> Result<u64> {
        self.tcp_counter("CurrEstab")
    }

    /// One of the kernel's counters of TCP (RFC 4022), by its name in /proc/net/snmp.
    fn tcp_counter(&self, wanted: &'static str) -> Result<u64> {
        let text = self.within(|| std::fs::read_to_string("/proc/thread-self/net/snmp"))?;
        let mut lines = text.lines().filter_map(|line| line.strip_prefix("Tcp: "));
        let (names, values) = (lines.next().context("no names")?, lines.next().context("no values")?);
        let mut columns = names.split(' ').zip(values.split(' '));
        let value = columns.find_map(|(name, value)| (name == wanted).then_some(value));
        Ok(value.with_context(|| format!("no {wanted}"))?.parse()?)
    }

    fn ip(&self, arguments: &[&str]) -> Result<String> {
        run(self.command("ip").args(arguments))
    }

    fn path(&self) -> PathBuf {
        PathBuf::from("/run/netns").join(&self.name)
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        if let Err(error) = run(ip().args(["netns", "delete", &self.name])) {
            eprintln!("{error:#}");
        }
    }
}

/// Node and client.
#[derive(Debug)]
pub struct Network {
    /// Where daemons run.
    pub node: Netns,
    /// Where clients run.
    pub client: Netns,
}

impl Network {
    /// Makes both namespaces and the link between them; `suffix` keeps names apart from those of other runs.
    ///
    /// # Errors
    /// When `ip` fails.
    pub fn create(suffix: u32) -> Result<Self> {
        let node = Netns::create(&format!("qw-node-{suffix}"))?;
        let client = Netns::create(&format!("qw-client-{suffix}"))?;
        // Made inside one namespace and pushed into the other: nothing appears in the host's own network.
        node.ip(&["link", "add", "uplink", "type", "veth", "peer", "name", "uplink", "netns", &client.name])?;
        for (netns, addresses) in [
            (&node, [NODE_OUTSIDE, NODE_INSIDE, NODE_V6, NODE_V6_OUTSIDE]),
            (&client, [CLIENT_OUTSIDE, CLIENT_INSIDE, CLIENT_V6, CLIENT_V6_OUTSIDE]),
        ] {
            netns.ip(&["link", "set", "uplink", "up"])?;
            for address in addresses {
                if address.contains(':') {
                    // Without duplicate address detection it can be used at once.
                    netns.ip(&[
                        "-6",
                        "address",
                        "add",
                        &format!("{address}/64"),
                        "dev",
                        "uplink",
                        "nodad",
                    ])?;
                } else {
                    netns.ip(&["address", "add", &format!("{address}/24"), "dev", "uplink"])?;
                }
            }
        }
        Ok(Self { node, client })
    }
}

/// More addresses of the client, in the range that is set aside for such tests.
pub const CROWD: Ipv4Addr = Ipv4Addr::new(198, 19, 0, 0);
/// How many of them there are.
pub const CROWD_LEN: u32 = 1 << 16;

/// Makes [`CROWD`] addresses of the client, and one of them the source of what it sends to the node without a choice of its
/// own; undone when dropped.
#[derive(Debug)]
pub struct Crowd<'a>(&'a Network);

impl<'a> Crowd<'a> {
    /// Sets the routes.
    ///
    /// # Errors
    /// When `ip` fails.
    pub fn gather(network: &'a Network, default: Ipv4Addr) -> Result<Self> {
        let crowd = Self(network);
        network.client.ip(&["route", "add", "local", CROWD_NETWORK, "dev", "lo"])?;
        network.node.ip(&["route", "add", CROWD_NETWORK, "via", CLIENT_OUTSIDE])?;
        let source = default.to_string();
        network.client.ip(&["route", "add", NODE_OUTSIDE, "dev", "uplink", "src", &source])?;
        Ok(crowd)
    }

    /// One of the addresses.
    #[must_use]
    pub fn address(number: u32) -> Ipv4Addr {
        Ipv4Addr::from(u32::from(CROWD) + number % CROWD_LEN)
    }
}

impl Drop for Crowd<'_> {
    fn drop(&mut self) {
        let Network { node, client } = self.0;
        // What was not set, because an earlier command failed, cannot be taken back.
        let _ = client.ip(&["route", "delete", NODE_OUTSIDE, "dev", "uplink"]);
        let _ = node.ip(&["route", "delete", CROWD_NETWORK]);
        let _ = client.ip(&["route", "delete", "local", CROWD_NETWORK, "dev", "lo"]);
    }
}

const CROWD_NETWORK: &str = "198.19.0.0/16";

fn ip() -> Command {
    Command::new("ip")
}
