//! Tests of [`super`]: command lines as the managers of containers write them.

use super::*;

fn words(line: &str) -> Vec<Arc<str>> {
    line.split_whitespace().map(Arc::from).collect()
}

fn oci(line: &str) -> OciCall {
    let args = words(line);
    match parse(&args[0], &args) {
        Some(RuntimeCall::Oci(call)) => call,
        other => panic!("{line} calls a runtime, not {other:?}"),
    }
}

#[test]
fn calls_of_oci_runtimes_are_read() {
    use OciCommand::{Create, Delete, Exec, Init, Other, Run, Start};
    let log = "--log /run/l.json --log-format json";
    for (line, command, id) in [
        (format!("runc --root /r {log} create --bundle /b --pid-file /p abc"), Create, Some("abc")),
        ("runc create abc".into(), Create, Some("abc")),
        ("runc --root=/r --debug run -d --bundle=/b my-box".into(), Run, Some("my-box")),
        ("runc --systemd-cgroup run -b /b --no-pivot my-box".into(), Run, Some("my-box")),
        (format!("runc --root /r {log} start abc"), Start, Some("abc")),
        (format!("runc --root /r {log} exec --process /f --detach --pid-file /p abc"), Exec, Some("abc")),
        ("runc exec -t -e A=b --env C=d -u 0:0 --cwd / abc sh -c ls".into(), Exec, Some("abc")),
        ("runc delete --force abc".into(), Delete, Some("abc")),
        ("crun delete -f abc".into(), Delete, Some("abc")),
        (
            "crun --root=/run/crun --cgroup-manager=cgroupfs create -b/b --console-socket /c abc".into(),
            Create,
            Some("abc"),
        ),
        ("crun --systemd-cgroup --log=x create --config /c.json -f /c.json abc".into(), Create, Some("abc")),
        ("youki -r /run/youki create -b /b abc".into(), Create, Some("abc")),
        ("runc exec -- abc sh".into(), Exec, Some("abc")),
        ("runc init".into(), Init, None),
        ("runc state abc".into(), Other, None),
        ("runc --version".into(), Other, None),
        ("runc create".into(), Create, None),
        ("runc create --bundle".into(), Create, None),
        ("runc".into(), Other, None),
    ] {
        let call = oci(&line);
        assert_eq!((call.command, call.id.as_deref()), (command, id), "{line}");
    }
}

#[test]
fn what_exec_puts_into_a_container_is_read() {
    let file = |path: &str| Some(ExecSpec::File(path.into()));
    let said = |args: &str, capabilities: &str| {
        Some(ExecSpec::Words { args: words(args), cwd: None, capabilities: words(capabilities) })
    };
    for (line, expected) in [
        ("runc exec --process /tmp/p --detach --pid-file /f abc", file("/tmp/p")),
        ("crun exec --process=/tmp/p abc", file("/tmp/p")),
        ("runc exec -p /tmp/p abc", file("/tmp/p")),
        ("runc exec --cap CAP_BPF -c SYS_ADMIN abc nsenter -t 1", said("nsenter -t 1", "CAP_BPF SYS_ADMIN")),
        ("runc exec abc sh -c ls", said("sh -c ls", "")),
        (
            "runc exec --cwd /proc/self/fd/7 abc ls",
            Some(ExecSpec::Words {
                args: words("ls"),
                cwd: Some("/proc/self/fd/7".into()),
                capabilities: Vec::new(),
            }),
        ),
        ("runc run --process /tmp/p abc", None),
        ("runc create -b /b abc", None),
    ] {
        assert_eq!(oci(line).exec, expected, "{line}");
    }
}

#[test]
fn bundle_and_root_are_read_in_every_style() {
    for line in [
        "runc --root /r create --bundle /b abc",
        "runc --root=/r create --bundle=/b abc",
        "crun --root=/r create -b /b abc",
        "crun --root=/r create -b/b abc",
        "youki -r /r create -b /b abc",
    ] {
        let call = oci(line);
        assert_eq!((call.root.as_deref(), call.bundle.as_deref()), (Some("/r"), Some("/b")), "{line}");
    }
}

#[test]
fn shims_are_read() {
    let line = "containerd-shim-runc-v2 -namespace moby -id abc -bundle /b -address /run/c.sock start";
    let args = words(line);
    let Some(RuntimeCall::Shim(shim)) = parse(&args[0], &args) else { panic!("a shim") };
    assert_eq!(shim.namespace.as_deref(), Some("moby"));
    assert_eq!((shim.id.as_deref(), shim.bundle.as_deref()), (Some("abc"), Some("/b")));
}

#[test]
fn monitors_are_read_and_told_apart() {
    let podman = "conmon --api-version 1 -c abc -u abc -r /usr/bin/crun -b /b/userdata -p /p -n web \
                  --exit-dir /run/libpod/exits --full-attach -s -l journald --exit-command /usr/bin/podman";
    let crio =
        "conmon -b /b/userdata -c abc --exit-dir /var/run/crio/exits -l /log -r /usr/bin/runc --syslog";
    for (line, from_crio) in [(podman, false), (crio, true)] {
        let args = words(line);
        let Some(RuntimeCall::Conmon(conmon)) = parse("conmon", &args) else { panic!("a monitor") };
        assert_eq!((conmon.id.as_deref(), conmon.crio), (Some("abc"), from_crio));
        assert_eq!(conmon.bundle.as_deref(), Some("/b/userdata"));
    }
}

#[test]
fn other_programs_are_not_read() {
    assert_eq!(parse("docker", &words("docker run busybox")), None);
    assert_eq!(parse("sh", &[]), None);
}
