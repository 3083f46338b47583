//! Connects to the sockets of runtimes and opens of credential files.

use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use quaywatch::kernel::hooks::Feature;
use quaywatch::kernel::{Options, Probes};
use quaywatch::lookups::credential_files::{self, Found};
use quaywatch::lookups::{Roots, runtime_sockets};
use quaywatch::sources::fanotify::{FileOpens, Groups};
use sensor_common::record::{FileId, FileOpenRecord, RecordKind, Ring, SocketConnectRecord};
use sensor_core::credentials::PlaceKind;
use sensor_core::event::{Actor, FilePlace, PROC_TICK_NS};
use sensor_core::fact::Runtime;
use sensor_core::ids::FileKey;

use crate::watch::{Watch, assert_task, boot_ns, own_comm};

/// The file that a socket is bound to, as the agent finds it.
pub fn socket_key(path: &Path) -> FileKey {
    let configured = [(Arc::from(path.to_str().expect("UTF-8")), Runtime::Docker)];
    let sockets = runtime_sockets::find(&Roots::default(), &configured).found;
    sockets.iter().find(|socket| Path::new(&*socket.path) == path).expect("a socket").key
}

/// The directory of credentials below `host`, as the agent finds it.
fn kube_home(host: &Path) -> Found {
    fs::create_dir_all(host.join("root/.kube")).expect("a directory");
    let roots = Roots { host: host.into(), ..Roots::default() };
    let places = credential_files::find(&roots).expect("mounts").found;
    places.into_iter().find(|found| found.path.starts_with(host)).expect("the directory")
}

fn watch_with(prepare: impl FnOnce(&mut Probes)) -> Watch {
    Watch::with(Options::default(), &[], Duration::from_millis(1), prepare)
}

#[test]
fn a_connect_is_reported_by_the_file_of_the_socket_and_once() {
    let directory = tempfile::tempdir().expect("a directory");
    let [path, other, link] = ["d.sock", "other.sock", "link"].map(|name| directory.path().join(name));
    let listener = UnixListener::bind(&path).expect("a socket");
    let _unwatched = UnixListener::bind(&other).expect("a socket");
    fs::hard_link(&path, &link).expect("another name of the same socket");
    let key = socket_key(&path);
    let watch = watch_with(|probes| probes.set_runtime_sockets([(key, false)]).expect("set"));
    assert!(watch.probes.serves(Feature::SocketConnects), "{:?}", watch.probes.hooks());

    let before = boot_ns();
    drop(UnixStream::connect(&other).expect("connect"));
    let mut client = UnixStream::connect(&link).expect("connect");
    let (mut server, _) = listener.accept().expect("accept");
    for _ in 0..10 {
        client.write_all(b"question").expect("send");
        server.read_exact(&mut [0; 8]).expect("receive");
        server.write_all(b"answer").expect("send");
        client.read_exact(&mut [0; 6]).expect("receive");
    }
    let after = boot_ns();

    let outcome = watch.finish();
    let ours = std::process::id();
    let connects =
        outcome.all::<SocketConnectRecord>(RecordKind::SocketConnect, |record| record.task.pid == ours);
    let [(_, connect)] = &connects[..] else { panic!("one connect, not {connects:?}") };
    assert_eq!(connect.socket, FileId::from(key));
    assert!((before..=after).contains(&connect.header.boot_ns));
    assert_task(&connect.task, ours, &own_comm());
}

#[test]
fn connects_beyond_the_budget_of_a_cgroup_are_counted_and_hide_no_other_socket() {
    const CONNECTS: u64 = 2000;
    let directory = tempfile::tempdir().expect("a directory");
    let paths = ["flooded.sock", "other.sock"].map(|name| directory.path().join(name));
    let listeners = paths.each_ref().map(|path| UnixListener::bind(path).expect("a socket"));
    let [flooded, other] = paths.each_ref().map(|path| socket_key(path));
    let watch =
        watch_with(|probes| probes.set_runtime_sockets([(flooded, false), (other, false)]).expect("set"));
    let begun = Instant::now();
    for _ in 0..CONNECTS {
        drop((UnixStream::connect(&paths[0]).expect("connect"), listeners[0].accept().expect("accept")));
    }
    let seconds = begun.elapsed().as_secs() + 1;
    drop((UnixStream::connect(&paths[1]).expect("connect"), listeners[1].accept().expect("accept")));

    let outcome = watch.finish();
    let ours = std::process::id();
    let connects = |socket: FileKey| {
        let is_ours =
            |record: &SocketConnectRecord| (record.task.pid, record.socket) == (ours, FileId::from(socket));
        outcome.all::<SocketConnectRecord>(RecordKind::SocketConnect, is_ours).len() as u64
    };
    let (reported, fates) = (connects(flooded), outcome.counters.records[Ring::Bulk as usize]);
    assert!((256..=256 + 64 * seconds).contains(&reported), "{reported} reported in {seconds} s");
    assert_eq!(connects(other), 1);
    let expected = [reported + 1, 0, CONNECTS - reported];
    assert_eq!(fates[RecordKind::SocketConnect as usize], expected, "submitted, lost, suppressed");
}

#[test]
fn an_open_is_reported_by_the_directory_of_the_file_or_the_kernel_has_no_such_hook() {
    let host = tempfile::tempdir().expect("a directory");
    let found = kube_home(host.path());
    let [file, write_only] = ["config", "written"].map(|name| found.path.join(name));
    let elsewhere = host.path().join("elsewhere");
    fs::write(&elsewhere, "nothing").expect("a file");
    let watch = watch_with(|probes| probes.set_credential_places([found.place.key]).expect("set"));
    if !watch.probes.serves(Feature::CredentialFiles) {
        let hooks = watch.probes.hooks();
        let of_files = hooks.iter().filter(|hook| hook.program.ends_with("file_open"));
        assert!(of_files.into_iter().all(|hook| hook.reason.is_some()), "{hooks:?}");
        return;
    }
    // A file that was not there when the directory was found.
    fs::write(&file, "secret").expect("a file");
    fs::write(&write_only, "secret").expect("a file");
    for path in [&file, &elsewhere] {
        fs::read(path).expect("read");
    }
    let outcome = watch.finish();
    let ours = std::process::id();
    let opens = outcome.all::<FileOpenRecord>(RecordKind::FileOpen, |record| record.task.pid == ours);
    let [(_, open)] = &opens[..] else { panic!("one open, not {}", opens.len()) };
    assert_eq!(open.place, FileId::from(found.place.key));
    assert_eq!(&open.path[..open.path_len as usize], file.as_os_str().as_encoded_bytes());
    assert_task(&open.task, ours, &own_comm());
}

#[test]
fn fanotify_tells_who_opened_what() {
    let host = tempfile::tempdir().expect("a directory");
    let found = kube_home(host.path());
    let file = found.path.join("config");
    fs::write(&file, "secret").expect("a file");
    let groups = Arc::new(Groups::new().expect("fanotify: needs CAP_SYS_ADMIN"));
    groups.mark(std::slice::from_ref(&found)).expect("marked");
    let mut opens = FileOpens::start(groups, &Roots::default(), None).expect("a thread");

    let mut reader = Command::new("sh")
        .args(["-c", "exec 3<\"$0\"; read _"])
        .arg(&file)
        .stdin(std::process::Stdio::piped())
        .spawn()
        .expect("a shell");
    let deadline = Instant::now() + Duration::from_secs(5);
    let open = loop {
        match opens.try_recv() {
            Some(open) => break open,
            None if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(1)),
            None => panic!("no open was told"),
        }
    };
    let stat = fs::read_to_string(format!("/proc/{}/stat", reader.id())).expect("it still runs");
    drop(reader.stdin.take());
    reader.wait().expect("it ends");
    let (_, numbers) = stat.rsplit_once(')').expect("a name");
    let started: u64 = numbers.split_whitespace().nth(19).expect("a start time").parse().expect("a number");
    assert!(started * PROC_TICK_NS < open.boot_ns);
    assert_eq!(open.event.actor, Actor::Pid { pid: reader.id(), started: Some(started) });
    assert_eq!(open.event.place, FilePlace::Kind(PlaceKind::KubeHome));
    assert_eq!(&*open.event.path, file.as_os_str().as_encoded_bytes());
    assert_eq!(opens.lost(), 0);
}
