//! A dockerd of its own, with its own state, in the node's network namespace.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use crate::netns::{NODE_INSIDE, NODE_OUTSIDE, NODE_V6, NODE_V6_OUTSIDE, Netns, Network};
use crate::oci;
use crate::process::{Process, read_log, run, wait_until};

/// The one image there is: a static busybox.
pub const IMAGE: &str = "quaywatch.test/busybox:1";
/// Its runtime for privileged containers on machines that lack a capability.
pub const TOLERANT: &str = "tolerant";
/// The port it listens on.
pub const PORT: u16 = 2375;

/// Its unix socket, in its directory.
const SOCKET: &str = "docker.sock";
const START_TIMEOUT: Duration = Duration::from_secs(60);
const STOP_TIMEOUT: Duration = Duration::from_secs(30);

/// A certificate that is nobody's, and its key.
#[derive(Debug)]
pub struct Certificate {
    /// The certificate, which is its own authority.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
}

impl Certificate {
    /// Makes both in a directory.
    ///
    /// # Errors
    /// When `openssl` fails.
    pub fn make(directory: &Path) -> Result<Self> {
        let made = Self { certificate: directory.join("cert.pem"), key: directory.join("key.pem") };
        let mut openssl = Command::new("openssl");
        openssl.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]);
        openssl.args(["-subj", "/CN=localhost", "-keyout"]).arg(&made.key).arg("-out").arg(&made.certificate);
        run(&mut openssl)?;
        Ok(made)
    }
}

/// A running dockerd.
pub struct Dockerd {
    process: Process,
    directory: PathBuf,
}

impl Dockerd {
    /// Starts dockerd in the network namespace of the node, with its state below `directory`, and imports [`IMAGE`]
    /// from a root file system.
    ///
    /// # Errors
    /// When it does not answer in time; with its log.
    pub fn start(node: &Netns, directory: &Path, rootfs: &Path) -> Result<Self> {
        let hosts = [NODE_OUTSIDE, NODE_INSIDE, NODE_V6, NODE_V6_OUTSIDE].map(endpoint);
        let dockerd = Self::start_at(node, directory.join("docker"), &hosts, &["--tls=false"])?;
        dockerd.import(rootfs)?;
        Ok(dockerd)
    }

    /// Starts a dockerd that serves these endpoints beside its unix socket, while another one serves containers: it uses
    /// the bridge of that one. Without any bridge of its own it would remove it.
    ///
    /// # Errors
    /// When it does not answer in time; with its log.
    pub fn start_bare(node: &Netns, directory: PathBuf, hosts: &[String]) -> Result<Self> {
        Self::start_at(node, directory, hosts, &["--tls=false", "--bridge=docker0"])
    }

    /// As [`Dockerd::start_bare`], with these endpoints in its configuration file and nothing of TLS anywhere, and without
    /// proxies for published ports. It has [`IMAGE`].
    ///
    /// # Errors
    /// When it does not answer in time; with its log.
    pub fn start_configured(
        node: &Netns,
        directory: PathBuf,
        rootfs: &Path,
        hosts: &[String],
    ) -> Result<Self> {
        let socket = format!("unix://{}", directory.join(SOCKET).display());
        let hosts: Vec<&String> = hosts.iter().chain([&socket]).collect();
        let configuration = json!({"hosts": hosts, "userland-proxy": false, "bridge": "docker0"});
        let dockerd = Self::start_with(node, directory, configuration, &[])?;
        dockerd.import(rootfs)?;
        Ok(dockerd)
    }

    /// Starts a dockerd that serves these endpoints over TLS, for any client.
    ///
    /// # Errors
    /// When it does not answer in time; with its log.
    pub fn start_tls(
        node: &Netns,
        directory: PathBuf,
        hosts: &[String],
        certificate: &Certificate,
    ) -> Result<Self> {
        let text = |path: &Path| path.to_str().map(str::to_owned).context("path is not text");
        let (certificate, key) = (text(&certificate.certificate)?, text(&certificate.key)?);
        // The authority is not asked for, and all the same it must be there.
        let authority = ["--tls=true", "--tlscacert", &certificate];
        let options =
            [&["--bridge=docker0", "--tlscert", &certificate, "--tlskey", &key][..], &authority].concat();
        Self::start_at(node, directory, hosts, &options)
    }

    /// As [`Dockerd::start_tls`], with all of it in its configuration file.
    ///
    /// # Errors
    /// When it does not answer in time; with its log.
    pub fn start_tls_configured(
        node: &Netns,
        directory: PathBuf,
        hosts: &[String],
        certificate: &Certificate,
    ) -> Result<Self> {
        let Certificate { certificate, key } = certificate;
        let socket = format!("unix://{}", directory.join(SOCKET).display());
        let hosts: Vec<&String> = hosts.iter().chain([&socket]).collect();
        let configuration = json!({
            "hosts": hosts, "bridge": "docker0", "tls": true,
            "tlscacert": certificate, "tlscert": certificate, "tlskey": key
        });
        Self::start_with(node, directory, configuration, &[])
    }

    fn start_at(node: &Netns, directory: PathBuf, hosts: &[String], options: &[&str]) -> Result<Self> {
        let socket = format!("unix://{}", directory.join(SOCKET).display());
        let hosts = hosts.iter().chain([&socket]).flat_map(|host| ["--host", host]);
        let options: Vec<&str> = hosts.chain(options.iter().copied()).collect();
        Self::start_with(node, directory, json!({}), &options)
    }

    fn start_with(
        node: &Netns,
        directory: PathBuf,
        mut configuration: Value,
        options: &[&str],
    ) -> Result<Self> {
        std::fs::create_dir_all(&directory)?;
        let log = directory.join("log");
        let mut command = node.command("dockerd");
        for (option, name) in [("--data-root", "data"), ("--exec-root", "exec"), ("--pidfile", "pid")] {
            command.arg(option).arg(directory.join(name));
        }
        // Without a configuration file of the machine, and without touching packet filters: containers reach the node
        // over the bridge, which is all the tests need.
        let tolerant = oci::write_tolerant_runc(&directory)?;
        configuration["runtimes"] = json!({TOLERANT: {"path": tolerant}});
        std::fs::write(directory.join("daemon.json"), configuration.to_string())?;
        command.arg("--config-file").arg(directory.join("daemon.json"));
        command.args(["--iptables=false", "--ip6tables=false"]).args(options);
        let output = File::options().create(true).append(true).open(&log)?;
        command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);
        let dockerd = Self { process: Process::start(&mut command)?, directory };
        wait_until("dockerd answers", START_TIMEOUT, || dockerd.docker(&["version"]).ok())
            .with_context(|| format!("log of dockerd:\n{}", read_log(&log)))?;
        Ok(dockerd)
    }

    /// Its process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// Its unix socket.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.directory.join(SOCKET)
    }

    /// Runs `docker` over the unix socket, as a local administrator does.
    ///
    /// # Errors
    /// When it fails.
    pub fn docker(&self, arguments: &[&str]) -> Result<String> {
        run(self.client().args(arguments))
    }

    /// The command that does that.
    #[must_use]
    pub fn client(&self) -> Command {
        let mut docker = Command::new("docker");
        client(&mut docker, &format!("unix://{}", self.socket().display()));
        docker
    }

    /// Writes the image to a file in the format that other tools load.
    ///
    /// # Errors
    /// When docker fails.
    pub fn save_image(&self, file: &Path) -> Result<()> {
        self.docker(&["save", "--output", file.to_str().context("path is not text")?, IMAGE]).map(drop)
    }

    fn import(&self, rootfs: &Path) -> Result<()> {
        let archive = self.directory.join("rootfs.tar");
        run(Command::new("tar")
            .arg("--directory")
            .arg(rootfs)
            .args(["--create", "--file"])
            .arg(&archive)
            .arg("."))?;
        self.docker(&["import", archive.to_str().context("path is not text")?, IMAGE]).map(drop)
    }

    /// Removes containers that a failed test left.
    pub fn remove_containers(&self) {
        let Ok(ids) = self.docker(&["ps", "--all", "--quiet", "--no-trunc"]) else { return };
        let ids: Vec<&str> = ids.split_whitespace().collect();
        if !ids.is_empty()
            && let Err(error) = self.docker(&[&["rm", "--force", "--volumes"], ids.as_slice()].concat())
        {
            eprintln!("{error:#}");
        }
    }
}

impl Drop for Dockerd {
    fn drop(&mut self) {
        self.remove_containers();
        self.process.stop(STOP_TIMEOUT);
    }
}

/// Runs `docker` in the client's network namespace against an address of the node.
///
/// # Errors
/// When it fails.
pub fn remote(network: &Network, address: &str, arguments: &[&str]) -> Result<String> {
    run(client(&mut network.client.command("docker"), &endpoint(address)).args(arguments))
}

fn client<'a>(command: &'a mut Command, endpoint: &str) -> &'a mut Command {
    command.env_remove("DOCKER_HOST").env_remove("DOCKER_CONTEXT").args(["--host", endpoint])
}

fn endpoint(address: &str) -> String {
    if address.contains(':') {
        format!("tcp://[{address}]:{PORT}")
    } else {
        format!("tcp://{address}:{PORT}")
    }
}
