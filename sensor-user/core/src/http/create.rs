//! What the body of a request that makes a container, or a volume, asks for, as far as it bears on what a container may do
//! to its host.
//!
//! Reads Docker's body and podman's own. Environment values, labels and everything else is passed over.

use std::sync::Arc;

use super::docker;
use super::json::{Value, scan};
use crate::risks::{Namespace, Risk, Risks, normal, of_asked_capability, of_asked_device, of_asked_mount};

/// Most arguments kept of a command.
pub const COMMAND_MAX: usize = 32;
/// Most bytes kept of a body.
pub const BODY_MAX: usize = 16 << 10;

/// What a body asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CreateBody {
    /// What it asks for that makes a container one that can leave.
    pub risks: Arc<[Risk]>,
    /// Image reference.
    pub image: Option<Arc<str>>,
    /// Entry point and command.
    pub command: Vec<Arc<str>>,
    /// Some of it was not seen.
    pub truncated: bool,
}

/// What reads the body of a request for this route; nothing where bodies are passed over.
#[must_use]
pub fn reader(route: &str) -> Option<fn(&[u8]) -> CreateBody> {
    match route {
        docker::CREATE => Some(CreateBody::read),
        docker::VOLUME_CREATE => Some(CreateBody::read_volume),
        _ => None,
    }
}

impl CreateBody {
    /// Reads the body of a request for a container, or the beginning of one.
    #[must_use]
    pub fn read(body: &[u8]) -> Self {
        let mut found = Self::default();
        let mut risks = Asked::default();
        let mut entrypoint: Vec<Arc<str>> = Vec::new();
        let is_whole = scan(body, |keys, value| {
            let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
            match keys.as_slice() {
                ["image"] => found.image = value.text().map(Arc::from),
                ["cmd" | "command", ..] => push(&mut found.command, value),
                ["entrypoint", ..] => push(&mut entrypoint, value),
                ["hostconfig", rest @ ..] => risks.docker(rest, value),
                rest => risks.libpod(rest, value),
            }
        });
        risks.end_mount();
        let risks = Risks::new(risks.found);
        found.command.splice(0..0, entrypoint);
        found.truncated |= !is_whole || risks.truncated || found.command.len() > COMMAND_MAX;
        found.command.truncate(COMMAND_MAX);
        found.risks = risks.list;
        found
    }

    /// Reads the body of a request for a volume, or the beginning of one: what the driver `local` is to mount there, whoever
    /// mounts the volume has.
    #[must_use]
    pub fn read_volume(body: &[u8]) -> Self {
        let mut asked = DriverOptions::default();
        let is_whole = scan(body, |keys, value| {
            // Docker's name for them, and podman's.
            if let [options, key] = keys
                && matches!(options.as_str(), "driveropts" | "options")
            {
                asked.take(key, value);
            }
        });
        let risks = Risks::new(asked.risks(true));
        Self { truncated: !is_whole || risks.truncated, risks: risks.list, ..Self::default() }
    }
}

/// The risks of a body, as they are read.
#[derive(Debug, Default)]
struct Asked {
    found: Vec<Risk>,
    /// The one whose fields come now.
    mount: Mount,
}

impl Asked {
    fn docker(&mut self, keys: &[&str], value: &Value) {
        match (keys, value.text()) {
            (["privileged"], _) if value.is_true() => self.found.push(Risk::Privileged),
            (["pidmode"], Some("host")) => self.host(Namespace::Pid),
            (["networkmode"], Some("host")) => self.host(Namespace::Net),
            (["ipcmode"], Some("host")) => self.host(Namespace::Ipc),
            (["utsmode"], Some("host")) => self.host(Namespace::Uts),
            (["usernsmode"], Some("host")) => self.host(Namespace::User),
            (["cgroupnsmode"], Some("host")) => self.host(Namespace::Cgroup),
            (["capadd", ..], Some(name)) => self.found.extend(of_asked_capability(name)),
            (["securityopt", ..], Some(option)) => self.security_option(option),
            (["devices", "", "pathonhost"], Some(path)) => self.found.extend(of_asked_device(path)),
            (["binds", ..], Some(bind)) => self.bind(bind),
            (["mounts", rest @ ..], _) => self.mount(rest, value),
            _ => {}
        }
    }

    fn libpod(&mut self, keys: &[&str], value: &Value) {
        match (keys, value.text()) {
            (["privileged"], _) if value.is_true() => self.found.push(Risk::Privileged),
            (["pidns", "nsmode"], Some("host")) => self.host(Namespace::Pid),
            (["netns", "nsmode"], Some("host")) => self.host(Namespace::Net),
            (["ipcns", "nsmode"], Some("host")) => self.host(Namespace::Ipc),
            (["utsns", "nsmode"], Some("host")) => self.host(Namespace::Uts),
            (["userns", "nsmode"], Some("host")) => self.host(Namespace::User),
            (["cgroupns", "nsmode"], Some("host")) => self.host(Namespace::Cgroup),
            (["cap_add", ..], Some(name)) => self.found.extend(of_asked_capability(name)),
            (["seccomp_profile_path"], Some("unconfined")) => self.found.push(Risk::SeccompOff),
            (["apparmor_profile"], Some("unconfined")) => self.found.push(Risk::ApparmorOff),
            (["selinux_opts", ..], Some("disable")) => self.found.push(Risk::SelinuxOff),
            (["devices", "", "path"], Some(path)) => self.found.extend(of_asked_device(path)),
            (["mounts", rest @ ..], _) => self.mount(rest, value),
            _ => {}
        }
    }

    fn host(&mut self, namespace: Namespace) {
        self.found.push(Risk::HostNamespace(namespace));
    }

    fn security_option(&mut self, option: &str) {
        // Docker takes a colon too.
        match option.replacen(':', "=", 1).as_str() {
            "seccomp=unconfined" => self.found.push(Risk::SeccompOff),
            "apparmor=unconfined" => self.found.push(Risk::ApparmorOff),
            "label=disable" => self.found.push(Risk::SelinuxOff),
            _ => {}
        }
    }

    /// `source:target[:options]`; a source that is no path is a volume of the runtime's.
    fn bind(&mut self, bind: &str) {
        let mut parts = bind.split(':');
        let source = parts.next().unwrap_or_default();
        let read_only = parts.nth(1).is_some_and(|options| options.split(',').any(|option| option == "ro"));
        self.found.extend(of_asked_mount(source, !read_only));
    }

    /// Part of an array of mounts.
    fn mount(&mut self, keys: &[&str], value: &Value) {
        let mount = &mut self.mount;
        match (keys, value) {
            ([""], Value::Object) => self.end_mount(),
            (["", "source"], Value::Text(source)) => mount.source = Some(source.clone()),
            // A volume that is made on the way.
            (["", "volumeoptions", "driverconfig", "options", key], value) => mount.driver.take(key, value),
            (["", "readonly"], value) if value.is_true() => mount.read_only = true,
            // Podman's.
            (["", "options", ""], Value::Text(option)) if option == "ro" => mount.read_only = true,
            _ => {}
        }
    }

    fn end_mount(&mut self) {
        let Mount { source, driver, read_only } = std::mem::take(&mut self.mount);
        self.found.extend(source.and_then(|source| of_asked_mount(&source, !read_only)));
        self.found.extend(driver.risks(!read_only));
    }
}

/// A mount of which the fields come one by one.
#[derive(Debug, Default)]
struct Mount {
    source: Option<String>,
    driver: DriverOptions,
    read_only: bool,
}

/// What the driver `local` is to mount, as it would be given to mount(8).
#[derive(Debug, Default)]
struct DriverOptions {
    device: String,
    options: String,
}

impl DriverOptions {
    fn take(&mut self, key: &str, value: &Value) {
        match (key, value.text()) {
            ("device", Some(device)) => device.clone_into(&mut self.device),
            ("o", Some(options)) => options.clone_into(&mut self.options),
            _ => {}
        }
    }

    /// What tells of it: the device or directory, and the directories of an overlay.
    fn risks(&self, writable: bool) -> impl Iterator<Item = Risk> + '_ {
        let writable = writable && !self.options.split(',').any(|option| option == "ro");
        let device = match normal(&self.device).starts_with("/dev/") {
            true => of_asked_device(&self.device),
            false => of_asked_mount(&self.device, writable),
        };
        let layers = self.options.split(',').filter_map(|option| option.split_once('=')).flat_map(
            move |(name, directories)| {
                let upper = name == "upperdir";
                let is_layer = upper || name == "lowerdir";
                let directories = directories.split(':').filter(move |_| is_layer);
                directories.filter_map(move |directory| of_asked_mount(directory, writable && upper))
            },
        );
        device.into_iter().chain(layers)
    }
}

fn push(words: &mut Vec<Arc<str>>, value: &Value) {
    if let Some(word) = value.text()
        && words.len() <= COMMAND_MAX
    {
        words.push(word.into());
    }
}

/// The id that the answer to a create request gives.
#[must_use]
pub fn created_id(body: &[u8]) -> Option<Arc<str>> {
    let mut id = None;
    scan(body, |keys, value| {
        if let ([key], Some(text)) = (keys, value.text())
            && key == "id"
        {
            id = Some(Arc::from(text));
        }
    });
    id.filter(|id: &Arc<str>| crate::cgroup_path::is_long_id(id))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flags(body: &str) -> Vec<String> {
        CreateBody::read(body.as_bytes()).risks.iter().map(|risk| risk.name().into_owned()).collect()
    }

    #[test]
    fn a_docker_body_is_read_without_its_environment() {
        let body = CreateBody::read(
            br#"{"Image":"alpine","Cmd":["sh","-c","id"],"Entrypoint":["/e"],"Env":["TOKEN=secret"],"Labels":{"image":"no"},
            "HostConfig":{"Privileged":true,"PidMode":"host","CapAdd":["cap_sys_admin","NET_ADMIN"],
            "Binds":["/:/host","/etc:/etc:ro","volume:/x","/var/run/docker.sock:/s"],
            "SecurityOpt":["seccomp=unconfined","label:disable"],"Devices":[{"PathOnHost":"/dev/sda"}]}}"#,
        );
        let mut names: Vec<_> = body.risks.iter().map(|risk| risk.name()).collect();
        names.sort();
        let expected = [
            "cap:NET_ADMIN",
            "cap:SYS_ADMIN",
            "device:/dev/sda",
            "host-pid",
            "mount:/:rw",
            "mount:/etc",
            "privileged",
            "seccomp-off",
            "selinux-off",
            "socket:/run/docker.sock",
        ];
        assert_eq!(names, expected);
        assert_eq!((body.image.as_deref(), body.truncated), (Some("alpine"), false));
        assert_eq!(body.command.iter().map(|word| &**word).collect::<Vec<_>>(), ["/e", "sh", "-c", "id"]);
        assert!(!format!("{body:?}").contains("secret"));
    }

    #[test]
    fn keys_that_go_takes_for_the_same_are_the_same() {
        assert_eq!(flags(r#"{"hostconfig":{"\u0070RIVILEGED":true,"privileged":false}}"#), ["privileged"]);
        assert_eq!(flags(r#"{"HostConfig":{},"HostConfig":{"IpcMode":"host"}}"#), ["host-ipc"]);
    }

    #[test]
    fn mounts_are_kept_apart() {
        let body = r#"{"HostConfig":{"Mounts":[{"Type":"bind","Source":"/root","Target":"/x","ReadOnly":true},
            {"Source":"/srv/../etc","Type":"bind"},{"Type":"volume","Source":"v","Target":"/z"}]}}"#;
        assert_eq!(flags(body), ["mount:/etc:rw", "mount:/root"]);
    }

    #[test]
    fn volumes_made_of_the_hosts_tree_are_mounts_of_it() {
        let volume = |device: &str| {
            format!(
                r#"{{"HostConfig":{{"Mounts":[{{"Type":"volume","Target":"/x","VolumeOptions":{{"DriverConfig":
                {{"Name":"local","Options":{{"type":"none","o":"bind","device":"{device}"}}}}}}}}]}}}}"#
            )
        };
        assert_eq!(flags(&volume("/etc")), ["mount:/etc:rw"]);
        assert_eq!(flags(&volume("/srv/data")), [""; 0]);
        assert_eq!(flags(&volume("/dev/vda1")), ["device:/dev/vda1"]);
    }

    #[test]
    fn a_volume_is_what_it_is_to_be_mounted_on() {
        let flags = |options: &str| -> Vec<String> {
            let body = format!(r#"{{"Name":"v","Driver":"local","Labels":{{"device":"/etc"}},{options}}}"#);
            let body = CreateBody::read_volume(body.as_bytes());
            assert!(!body.truncated && body.image.is_none() && body.command.is_empty(), "{body:?}");
            body.risks.iter().map(|risk| risk.name().into_owned()).collect()
        };
        for (options, expected) in [
            (r#""DriverOpts":{"type":"none","o":"bind","device":"/"}"#, &["mount:/:rw"][..]),
            (r#""DriverOpts":{"device":"/etc/","o":"bind,ro","type":"none"}"#, &["mount:/etc"]),
            (r#""Options":{"type":"none","o":"bind","device":"/root"}"#, &["mount:/root:rw"]),
            (r#""DriverOpts":{"type":"ext4","device":"/dev/../dev/vda1"}"#, &["device:/dev/vda1"]),
            (
                r#""DriverOpts":{"type":"overlay","device":"overlay","o":"lowerdir=/srv:/root,upperdir=/etc,workdir=/w"}"#,
                &["mount:/etc:rw", "mount:/root"],
            ),
            (r#""DriverOpts":{"type":"nfs","o":"addr=10.0.0.1,rw","device":":/etc"}"#, &[]),
            (r#""DriverOpts":{"type":"tmpfs","device":"tmpfs","o":"size=1m"}"#, &[]),
            (r#""DriverOpts":{}"#, &[]),
        ] {
            assert_eq!(flags(options), expected, "{options}");
        }
        assert!(CreateBody::read_volume(br#"{"DriverOpts":{"device":"/"#).truncated);
    }

    #[test]
    fn what_tells_nothing_is_no_risk() {
        let body = r#"{"HostConfig":{"Privileged":false,"CapAdd":["CHOWN","nonsense"],"PidMode":"container:x",
            "Binds":["/srv/data:/data","/etc/localtime:/etc/localtime:ro"],"Devices":[{"PathOnHost":"/dev/null"}]}}"#;
        assert!(flags(body).is_empty(), "{:?}", flags(body));
        let all = flags(r#"{"HostConfig":{"CapAdd":["ALL"]}}"#);
        assert!(all.len() > 10 && all.iter().any(|risk| risk == "cap:SYS_MODULE"), "{all:?}");
    }

    #[test]
    fn podmans_own_body_is_read() {
        let body = r#"{"image":"x","command":["sh"],"privileged":true,"pidns":{"nsmode":"host"},"cap_add":["SYS_PTRACE"],
            "mounts":[{"destination":"/h","source":"/root","type":"bind"}]}"#;
        assert_eq!(flags(body), ["privileged", "mount:/root:rw", "cap:SYS_PTRACE", "host-pid"]);
    }

    #[test]
    fn a_body_that_is_cut_off_says_so() {
        let body = CreateBody::read(br#"{"Image":"a","HostConfig":{"Privileged":true,"Bin"#);
        assert!(body.truncated && body.risks.len() == 1);
    }

    #[test]
    fn an_id_is_sixty_four_digits() {
        let id = "0123456789abcdef".repeat(4);
        assert_eq!(
            created_id(format!("{{\"Id\":\"{id}\",\"Warnings\":[]}}\n").as_bytes()).as_deref(),
            Some(&*id)
        );
        assert_eq!(created_id(br#"{"Id":"short"}"#), None);
        assert_eq!(created_id(b"nonsense"), None);
    }
}
