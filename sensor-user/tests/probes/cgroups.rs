//! Cgroups, and connects that are selected by them.

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::Duration;

use quaywatch::kernel::Options;
use sensor_common::record::{
    CgroupId, CgroupRecord, CloseRecord, ConnectRecord, ConnectStage, Direction, RecordKind, Ring,
};
use sensor_common::settings::{cgroup_class, port_flags};

use crate::watch::{Watch, assert_cgroup, cgroup_id, key, own_cgroup, own_network, task_mount, text};

/// A cgroup of a test, removed at its end.
pub struct Cgroup(PathBuf);

impl Cgroup {
    /// Creates one below the root of a hierarchy.
    pub fn create(mount: &Path, test: &str) -> Self {
        let path = mount.join(format!("quaywatch-{test}-{}", std::process::id()));
        fs::create_dir(&path).expect("a cgroup");
        Self(path)
    }

    /// Its own name.
    pub fn name(&self) -> &str {
        self.0.file_name().and_then(|name| name.to_str()).expect("a name")
    }

    /// Its directory.
    pub fn path(&self) -> &Path {
        &self.0
    }

    pub fn id(&self, hierarchy: u32) -> CgroupId {
        cgroup_id(&self.0, hierarchy)
    }

    /// Starts a shell that enters the cgroup before it does anything.
    pub fn shell(&self, script: &str) -> Child {
        let script = format!("echo $$ > {}/cgroup.procs && {{ {script}\n}}", self.0.display());
        Command::new("/bin/bash").args(["-c", &script]).spawn().expect("bash")
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.0);
    }
}

#[test]
fn a_cgroup_is_reported_with_its_path_when_it_comes_and_goes() {
    let watch = Watch::start(&[]);
    let hierarchy = watch.probes.task_hierarchy();
    let mount = task_mount(hierarchy);
    let cgroup = Cgroup::create(&mount, "life");
    let id = cgroup.id(hierarchy.id());
    let path = format!("/{}", cgroup.0.strip_prefix(&mount).expect("below the mount").display());
    drop(cgroup);
    let outcome = watch.finish();
    for kind in [RecordKind::CgroupMkdir, RecordKind::CgroupRmdir] {
        let (record, changed) = outcome.one::<CgroupRecord>(kind, |it| key(it.cgroup) == key(id));
        assert_eq!(record.ring, Ring::Management);
        assert_eq!(changed.task.pid, std::process::id());
        assert_eq!(changed.path_len as usize, record.tail::<CgroupRecord>().len());
        assert_eq!(text(record.tail::<CgroupRecord>()), path);
    }
    let others = outcome.all::<CgroupRecord>(RecordKind::CgroupMkdir, |it| {
        it.cgroup.hierarchy != 0 && it.cgroup.hierarchy != hierarchy.id()
    });
    assert!(others.is_empty(), "only two hierarchies are reported");
}

#[test]
fn connects_are_reported_by_cgroup_with_their_result() {
    let netns = own_network();
    let lateral = 2379;
    let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
    let open = listener.local_addr().expect("address").port();
    let watch = Watch::with(Options::default(), &[], Duration::from_millis(1), |probes| {
        probes.set_ports([(lateral, port_flags::LATERAL)]).expect("ports");
    });
    let hierarchy = watch.probes.task_hierarchy();
    let cgroup = Cgroup::create(&task_mount(hierarchy), "connect");
    let id = cgroup.id(hierarchy.id());
    // Refused, then established: 5 bytes out, none in.
    let script =
        format!("exec 3<>/dev/tcp/127.0.0.1/{lateral}; exec 4<>/dev/tcp/127.0.0.1/{open}; printf hello >&4");
    let mut child = cgroup.shell(&script);
    let pid = child.id();
    let stream = listener.accept().expect("accept").0;
    child.wait().expect("bash ends");
    drop(stream);
    let outcome = watch.finish();

    let of_child = |stage: ConnectStage, port: u16| {
        let (record, connect) = outcome.one::<ConnectRecord>(RecordKind::Connect, |connect| {
            connect.ends.netns == netns && connect.stage == stage as u32 && connect.ends.peer_port == port
        });
        assert_eq!(record.ring, Ring::Bulk);
        assert_eq!((connect.task.pid, text(&connect.task.comm)), (pid, "bash"));
        assert_cgroup(connect.cgroup, id);
        connect
    };
    let attempted = of_child(ConnectStage::Attempted, lateral);
    assert_eq!((attempted.ends.local_port, attempted.started_ns), (0, attempted.header.boot_ns));
    let failed = of_child(ConnectStage::Failed, lateral);
    assert_eq!(failed.error, libc::ECONNREFUSED as u32);
    assert_eq!((failed.conn, failed.started_ns), (attempted.conn, attempted.started_ns));

    let established = of_child(ConnectStage::Established, open);
    assert_ne!(established.conn, failed.conn);
    assert_eq!(established.error, 0);
    assert_ne!(established.ends.local_port, 0);
    assert!(established.started_ns < established.header.boot_ns);
    let (record, close) =
        outcome.one::<CloseRecord>(RecordKind::Close, |close| close.conn == established.conn);
    assert_eq!((record.ring, close.direction), (Ring::Bulk, Direction::Outbound as u32));
    assert_eq!((close.bytes_in, close.bytes_out), (0, 5));
    assert_eq!(close.opened_ns, established.header.boot_ns);
    assert_eq!((close.task.pid, close.ends.local_port), (pid, established.ends.local_port));
    assert_cgroup(close.cgroup, id);
}

#[test]
fn connects_of_the_host_are_silent_and_those_of_its_runtimes_are_not() {
    let netns = own_network();
    let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
    let target = listener.local_addr().expect("address");
    let mut watch = Watch::with(Options::default(), &[], Duration::from_millis(1), |probes| {
        let hierarchy = probes.task_hierarchy();
        let (_, own) = own_cgroup(&task_mount(hierarchy), hierarchy.id());
        probes.classify_cgroup(key(own), cgroup_class::HOST).expect("classified");
    });
    let connect =
        || drop((std::net::TcpStream::connect(target).expect("connect"), listener.accept().expect("accept")));
    connect();
    watch.probes.mark_runtime_process(std::process::id()).expect("marked");
    connect();
    let outcome = watch.finish();
    let (_, connect) =
        outcome.one::<ConnectRecord>(RecordKind::Connect, |connect| connect.ends.netns == netns);
    assert_eq!((connect.stage, connect.task.pid), (ConnectStage::Established as u32, std::process::id()));
    outcome.one::<CloseRecord>(RecordKind::Close, |close| close.conn == connect.conn);
}

#[test]
fn a_forgotten_cgroup_is_unknown_again() {
    let netns = own_network();
    let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
    let port = listener.local_addr().expect("address").port();
    let mut watch = Watch::start(&[]);
    let hierarchy = watch.probes.task_hierarchy();
    let cgroup = Cgroup::create(&task_mount(hierarchy), "forget");
    let id = key(cgroup.id(hierarchy.id()));
    watch.probes.classify_cgroup(id, cgroup_class::HOST).expect("classified");
    let script = format!("exec 4<>/dev/tcp/127.0.0.1/{port}");
    cgroup.shell(&script).wait().expect("bash ends");
    watch.probes.forget_cgroup(id);
    watch.probes.forget_cgroup(id);
    cgroup.shell(&script).wait().expect("bash ends");
    let outcome = watch.finish();
    outcome.one::<ConnectRecord>(RecordKind::Connect, |connect| connect.ends.netns == netns);
}
