//! Programs whose purpose is to leave a container: `nsenter`, `chroot`, `unshare`, and scripts that use them.
//!
//! Arguments are data from outside: every walk is over what is there, once.

use super::spec::Mount;
use crate::text::basename;

/// Directories that hosts are mounted at by convention; counts where the mounts are not known.
const HOST_ROOTS: &[&str] = &["/host", "/host-root", "/hostfs", "/mnt/host", "/node", "/rootfs"];
/// Files by which a script leaves, wherever they occur in it.
const WAYS_OUT: &[&str] = &["/proc/1/root", "/proc/1/ns/", "release_agent", "core_pattern"];
/// Programs that run the rest of their arguments.
const WRAPPERS: &[&str] = &[
    "busybox",
    "catatonit",
    "command",
    "doas",
    "dumb-init",
    "env",
    "exec",
    "nice",
    "nohup",
    "setsid",
    "stdbuf",
    "sudo",
    "time",
    "tini",
    "toybox",
];
const SHELLS: &[&str] = &["ash", "bash", "dash", "ksh", "sh", "zsh"];
/// Words of the shell after which a command begins.
const KEYWORDS: &[&str] = &["!", "do", "elif", "else", "if", "then", "until", "while", "{"];

/// Whether a process with these arguments leaves the container it is put into. `mounts` are the container's; a chroot to
/// one of them that comes from the host's root counts.
pub(super) fn is_escape(args: &[impl AsRef<str>], mounts: &[Mount]) -> bool {
    let args: Vec<&str> = args.iter().map(AsRef::as_ref).collect();
    let Some(command) = unwrap(&args, WRAPPERS) else { return false };
    if is_way_out(command, mounts) {
        return true;
    }
    let is_shell = SHELLS.contains(&basename(command[0]));
    is_shell && script(command).is_some_and(|script| script_escapes(script, mounts))
}

/// The script of `sh -c SCRIPT`, options in between.
fn script<'a>(command: &[&'a str]) -> Option<&'a str> {
    let flag = command.iter().position(|word| {
        let is_short = word.starts_with('-') && !word.starts_with("--");
        is_short && word.contains('c')
    })?;
    command[flag + 1..].iter().find(|word| !word.starts_with(['-', '+'])).copied()
}

fn script_escapes(script: &str, mounts: &[Mount]) -> bool {
    // Within a script a shell is one more wrapper: its own script has lost its quotes.
    let wrappers = [WRAPPERS, SHELLS].concat();
    let escapes =
        |words: &Vec<&str>| unwrap(words, &wrappers).is_some_and(|command| is_way_out(command, mounts));
    WAYS_OUT.iter().any(|way| script.contains(way)) || commands(script).iter().any(escapes)
}

/// Simple commands of a script, as far as words and separators tell; quotes are left out, so that the script of a shell
/// within the script is looked at as well.
fn commands(script: &str) -> Vec<Vec<&str>> {
    let separators = [';', '&', '|', '\n', '(', ')', '`'];
    script
        .split(separators)
        .map(|command| {
            let quotes = |c: char| c.is_whitespace() || matches!(c, '"' | '\'' | '\\');
            command.split(quotes).filter(|word| !word.is_empty()).collect()
        })
        .collect()
}

/// The command behind wrappers, assignments and words of the shell.
fn unwrap<'a, 'w>(words: &'w [&'a str], wrappers: &[&str]) -> Option<&'w [&'a str]> {
    let mut rest = words;
    let mut wrapped = false;
    loop {
        let word = *rest.first()?;
        let is_assignment = word.split_once('=').is_some_and(|(name, _)| {
            !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
        });
        let is_wrapper = wrappers.contains(&basename(word));
        // Options of a wrapper; the value of one is taken for the command at worst.
        let is_option = wrapped && word.starts_with('-');
        if !(is_assignment || is_wrapper || is_option || KEYWORDS.contains(&word)) {
            return Some(rest);
        }
        wrapped |= is_wrapper;
        rest = &rest[1..];
    }
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

fn is_way_out(command: &[&str], mounts: &[Mount]) -> bool {
    let Some((program, args)) = command.split_first() else { return false };
    match basename(program) {
        "nsenter" => enters_other_process(args),
        "chroot" => first_operand(args).is_some_and(|root| is_host_root(root, mounts)),
        "unshare" => args.iter().any(|arg| is_unsharing(arg)),
        _ => false,
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

/// Whether a directory of a container is the host's root.
fn is_host_root(directory: &str, mounts: &[Mount]) -> bool {
    let directory = normal(directory);
    let is_mounted =
        mounts.iter().any(|mount| &*mount.source == "/" && normal(&mount.destination) == directory);
    let by_proc = directory.strip_prefix("/proc/").is_some_and(|rest| rest.ends_with("/root"));
    is_mounted || by_proc || HOST_ROOTS.contains(&directory.as_str())
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
        ] {
            assert!(is_escape(args, &host_at("/elsewhere")), "{args:?}");
        }
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
        ] {
            assert!(!is_escape(args, &host_at("/elsewhere")), "{args:?}");
        }
        let none: &[Mount] = &[];
        assert!(!is_escape(&["chroot", "/elsewhere"], none), "nothing of the host is there");
    }
}
