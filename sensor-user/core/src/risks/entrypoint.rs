//! Programs whose purpose is to leave a container: `nsenter`, `chroot`, `unshare`, and scripts that use them.
//!
//! Arguments are data from outside: every walk is over what is there, once.

use super::path;
use super::spec::{Mount, ProcessSpec};
use super::wrappers;
use crate::text::basename;

/// Directories that hosts are mounted at by convention; counts where the mounts are not known.
const HOST_ROOTS: &[&str] = &["/host", "/host-root", "/hostfs", "/mnt/host", "/node", "/rootfs"];
/// Files by which a script leaves, wherever they occur in it.
const WAYS_OUT: &[&str] = &["/proc/1/root", "/proc/1/ns/", "release_agent", "core_pattern"];
/// Programs that take a script by `-c`.
const SHELLS: &[&str] = &["ash", "bash", "dash", "ksh", "runuser", "sh", "su", "zsh"];
/// Whether this process leaves the container it is put into. `mounts` are the container's; a chroot to one of them that
/// comes from the host's root counts.
pub(super) fn is_escape(process: &ProcessSpec, mounts: &[Mount]) -> bool {
    let args: Vec<&str> = process.args.iter().map(AsRef::as_ref).collect();
    let place = Place { directory: process.cwd.as_deref().unwrap_or("/").to_owned(), mounts };
    let commands = wrappers::commands(&args, &[]);
    let mut scripts =
        commands.iter().filter(|command| SHELLS.contains(&basename(command[0]))).filter_map(script);
    commands.iter().any(|command| place.is_left_by(command))
        || scripts.any(|script| script_escapes(script, place.clone()))
}

/// The script of `sh -c SCRIPT`, options in between.
fn script<'a>(command: &Vec<&'a str>) -> Option<&'a str> {
    let flag = command.iter().position(|word| match word.strip_prefix("--") {
        Some(long) => matches!(long, "command" | "session-command"),
        None => word.starts_with('-') && word.contains('c'),
    })?;
    command[flag + 1..].iter().find(|word| !word.starts_with(['-', '+'])).copied()
}

fn script_escapes(script: &str, mut place: Place<'_>) -> bool {
    let escapes = |words: Vec<&str>| {
        let commands = wrappers::commands(&words, SHELLS);
        if let Some(["cd" | "pushd", operands @ ..]) = commands.first().map(Vec::as_slice) {
            place.enter(first_operand(operands).unwrap_or("/"));
        }
        commands.iter().any(|command| place.is_left_by(command))
    };
    WAYS_OUT.iter().any(|way| script.contains(way)) || simple_commands(script).any(escapes)
}

/// Simple commands of a script, as far as words and separators tell; quotes are left out, so that the script of a shell
/// within the script is looked at as well.
fn simple_commands(script: &str) -> impl Iterator<Item = Vec<&str>> {
    script.split([';', '&', '|', '\n', '(', ')', '`']).map(wrappers::words_of)
}

/// Whether a path leads through the runtime's own links in procfs, which are resolved before it lets go of the host.
pub(super) fn is_of_runtime(path: &str) -> bool {
    let path = normal(path);
    let below = match path.strip_prefix("/dev/fd/") {
        Some(_) => return true,
        None => path.strip_prefix("/proc/"),
    };
    let mut names = below.unwrap_or_default().split('/').skip(1);
    names.any(|name| matches!(name, "fd" | "exe" | "cwd" | "root"))
}

/// Where a command is run.
#[derive(Clone)]
struct Place<'a> {
    /// Working directory in the container.
    directory: String,
    mounts: &'a [Mount],
}

impl Place<'_> {
    fn enter(&mut self, directory: &str) {
        self.directory = self.absolute(directory);
    }

    fn absolute(&self, path: &str) -> String {
        if path.starts_with('/') { path.to_owned() } else { format!("{}/{path}", self.directory) }
    }

    /// Whether a command that is run here leaves the container.
    fn is_left_by(&self, command: &[&str]) -> bool {
        let Some((program, args)) = command.split_first() else { return false };
        match basename(program) {
            "nsenter" => enters_other_process(args),
            "chroot" => first_operand(args).is_some_and(|root| self.is_host_root(root)),
            "unshare" => args.iter().any(|arg| is_unsharing(arg)),
            _ => false,
        }
    }

    /// Whether a directory of the container is the host's root.
    fn is_host_root(&self, directory: &str) -> bool {
        let written = self.absolute(directory);
        let directory = path::normal(&written);
        let is_of_host =
            |mount: &Mount| &*mount.source == "/" && path::normal(&mount.destination) == directory;
        // What follows a link of procfs is the host's, `..` included.
        let by_proc = normal(&written).strip_prefix("/proc/").is_some_and(|rest| rest.ends_with("/root"));
        by_proc || HOST_ROOTS.contains(&directory.as_str()) || self.mounts.iter().any(is_of_host)
    }
}

/// `nsenter` with a target, or with the namespace files of one.
fn enters_other_process(args: &[&str]) -> bool {
    args.iter().any(|arg| match arg.strip_prefix("--") {
        Some(long) => {
            let name = long.split_once('=').map_or(long, |(name, _)| name);
            name == "target" || long.contains("/ns/")
        }
        None => match arg.strip_prefix('-') {
            Some(short) => short.starts_with('t') || short.contains("/ns/") || short.ends_with('t'),
            None => arg.contains("/ns/"),
        },
    })
}

/// The first argument that is no option.
fn first_operand<'a>(args: &[&'a str]) -> Option<&'a str> {
    args.iter().find(|arg| !arg.starts_with('-')).copied()
}

/// A path without empty and `.` components.
fn normal(path: &str) -> String {
    let mut out = String::new();
    for name in path.split('/').filter(|name| !matches!(*name, "" | ".")) {
        out.push('/');
        out.push_str(name);
    }
    if out.is_empty() { "/".to_owned() } else { out }
}

/// Namespaces in which somebody without rights in the container gets them, or gets at mounts.
fn is_unsharing(arg: &str) -> bool {
    match arg.strip_prefix("--") {
        Some(long) => {
            let name = long.split_once('=').map_or(long, |(name, _)| name);
            matches!(name, "mount" | "user" | "cgroup" | "map-root-user" | "map-current-user" | "map-auto")
        }
        None => arg.strip_prefix('-').is_some_and(|short| short.contains(['m', 'U', 'C', 'r', 'c'])),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::risks::spec::MountKind;

    fn is_escape_from(cwd: &str, args: &[&str], mounts: &[Mount]) -> bool {
        let args = args.iter().map(|arg| (*arg).into()).collect();
        is_escape(&ProcessSpec { args, cwd: Some(cwd.into()), ..ProcessSpec::default() }, mounts)
    }

    fn host_at(destination: &str) -> Vec<Mount> {
        vec![Mount {
            kind: MountKind::Bind,
            source: "/".into(),
            destination: destination.into(),
            writable: true,
        }]
    }

    #[test]
    fn ways_out_are_recognised() {
        for args in [
            &["nsenter", "-t", "1", "-m", "-u", "sh"][..],
            &["nsenter", "-t1", "-m"],
            &["/usr/bin/nsenter", "--target", "1", "--all"],
            &["nsenter", "--target=1", "--mount"],
            &["nsenter", "-at", "1"],
            &["nsenter", "--mount=/proc/1/ns/mnt", "--", "sh"],
            &["nsenter", "--mount=/host/proc/1/ns/mnt"],
            &["busybox", "nsenter", "-t", "1", "-m"],
            &["chroot", "/host"],
            &["chroot", "/host/", "sh"],
            &["chroot", "//host/."],
            &["chroot", "/proc/1/root", "sh"],
            &["chroot", "/elsewhere", "sh"],
            &["/bin/sh", "-c", "chroot /host sh -c id"],
            &["sh", "-ec", "set -x; exec nsenter -t 1 -m -- id"],
            &["sh", "-c", "if true; then nsenter --target 1 -m; fi"],
            &["sh", "-c", "echo x && sh -c 'chroot /host id'"],
            &["sh", "-c", "X=1 nsenter -t 1 -m"],
            &["sh", "-c", "echo x > /proc/1/root/etc/cron.d/x"],
            &["sh", "-c", "echo /cmd > /tmp/cgrp/release_agent"],
            &["bash", "-l", "-c", "unshare -UrmC bash"],
            &["env", "A=b", "chroot", "/host"],
            &["tini", "--", "sh", "-c", "chroot /host"],
            &["unshare", "--mount", "--map-root-user", "sh"],
            &["nice", "-n", "5", "nsenter", "-t", "1", "-m"],
            &["timeout", "-s", "KILL", "5", "nsenter", "-t", "1", "-m"],
            &["env", "-u", "X", "nsenter", "-t", "1", "-m"],
            &["env", "-u", "X", "A=b", "timeout", "5", "sh", "-c", "chroot /host"],
            &["su", "-c", "nsenter -t 1 -m"],
            &["su", "root", "-c", "chroot /host"],
            &["su", "--command", "chroot /host", "-"],
            &["xargs", "-a", "/dev/null", "nsenter", "-t", "1", "-m"],
            &["setsid", "-w", "chroot", "/host"],
            &["flock", "/tmp/x", "unshare", "-Ur"],
            &["env", "-S", "chroot /host"],
            &["env", "-u", "echo", "nsenter", "-t", "1"],
            &["env", "--split-string=sh -c", "chroot /host"],
            &["sh", "-c", "env -S 'A=b chroot' /host"],
            &["sh", "-c", "nice -n 5 nsenter -t 1 -m"],
            &["sh", "-c", "timeout 5 su -c 'nsenter -t 1 -m'"],
            &["sh", "-c", "cd /elsewhere && chroot . /bin/true"],
            &["sh", "-c", "cd /elsewhere/etc; chroot .. sh"],
            &["sh", "-c", "if cd -P /; then cd elsewhere; chroot ./; fi"],
            &["chroot", "/srv/../elsewhere"],
        ] {
            assert!(is_escape_from("/", args, &host_at("/elsewhere")), "{args:?}");
        }
    }

    #[test]
    fn a_relative_root_counts_from_the_working_directory() {
        let mounts = host_at("/elsewhere");
        assert!(is_escape_from("/elsewhere", &["chroot", "."], &mounts));
        assert!(is_escape_from("/elsewhere/etc", &["sh", "-c", "chroot .."], &mounts));
        assert!(!is_escape_from("/srv", &["chroot", "."], &mounts));
    }

    #[test]
    fn links_of_the_runtime_are_told_from_other_files() {
        for path in [
            "/proc/self/fd/7",
            "/proc/self/fd/8/../../..",
            "//proc/./self//fd/8",
            "/proc/thread-self/fd/9",
            "/proc/1/task/1/cwd",
            "/proc/1/root/etc",
            "/proc/self/exe",
            "/dev/fd/7",
        ] {
            assert!(is_of_runtime(path), "{path}");
        }
        for path in
            ["", "/", "/proc", "/proc/self", "/proc/self/status", "/srv/proc/self/fd/7", "fd", "/dev/fd"]
        {
            assert!(!is_of_runtime(path), "{path}");
        }
    }

    #[test]
    fn ordinary_programs_are_not() {
        for args in [
            &[][..],
            &["sleep", "600"],
            &["sh"],
            &["sh", "-c", "echo chroot /host"],
            &["sh", "-c", "grep -c nsenter /etc/services"],
            &["chroot", "--userspec=nobody", "/", "id"],
            &["chroot", "/var/empty", "sshd"],
            &["nsenter"],
            &["nsenter", "--net=/run/netns/blue", "ip", "link"],
            &["unshare", "--net", "true"],
            &["echo", "nsenter", "-t", "1"],
            &["nginx", "-g", "daemon off;"],
            &["busybox"],
            &["env"],
            &["sh", "-c"],
            &["sh", "-c", ""],
            &["timeout", "5", "sleep", "chroot"],
            &["timeout", "5", "echo", "nsenter", "-t", "1"],
            &["sh", "-c", "timeout 5 grep -r nsenter /proc/self/ns/x"],
            &["env", "-u", "nsenter", "echo", "-t", "1"],
            &["env", "-S"],
            &["env", "-u", "X", "nginx", "-t", "/host"],
            &["su", "-c", "ls /host"],
            &["sh", "-c", "cd /elsewhere/etc && chroot . true"],
            &["sh", "-c", "cd /srv && chroot . true"],
            &["sh", "-c", "chroot . true; cd /elsewhere"],
        ] {
            assert!(!is_escape_from("/", args, &host_at("/elsewhere")), "{args:?}");
        }
        let none: &[Mount] = &[];
        assert!(!is_escape_from("/", &["chroot", "/elsewhere"], none), "nothing of the host is there");
    }
}
