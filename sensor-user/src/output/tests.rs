use std::io;
use std::net::Ipv4Addr;
use std::sync::{Arc, mpsc};

use sensor_core::fact::{
    Container, ContainerAction, End, ListenerState, Net, Node, Origin, Process, Quality, Runtime, Scope,
    Service, Tls,
};
use sensor_core::health::{Health, HealthState};
use sensor_core::ids::RecordId;
use sensor_core::time::Timestamp;
use serde_json::Value;

use super::*;

const QUEUE: usize = 1 << 20;

/// A reader that takes nothing before it is told to.
struct Reader {
    lines: mpsc::Receiver<Vec<u8>>,
    go: mpsc::Sender<()>,
}

struct Held {
    lines: mpsc::Sender<Vec<u8>>,
    go: mpsc::Receiver<()>,
    waited: bool,
}

impl Write for Held {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if !std::mem::replace(&mut self.waited, true) {
            let _ = self.go.recv();
        }
        self.lines.send(bytes.to_vec()).map_err(|_| io::ErrorKind::BrokenPipe)?;
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn held_queue() -> (OutputQueue, Reader) {
    let (sender, lines) = mpsc::channel();
    let (go, wait) = mpsc::channel();
    let mut queue = OutputQueue::default();
    let out = Held { lines: sender, go: wait, waited: false };
    queue.add_with(Stream(out), KindFilter::ANY, Overflow::Shed, QUEUE).expect("a thread");
    (queue, Reader { lines, go })
}

impl Reader {
    /// Everything that is written from now to the end, by kind and `seq`.
    fn read(self) -> Vec<(String, u64)> {
        let bytes: Vec<u8> = self.lines.iter().flatten().collect();
        bytes
            .split_inclusive(|byte| *byte == b'\n')
            .map(|line| {
                let record: Value = serde_json::from_slice(line).expect("a whole line");
                (
                    record["kind"].as_str().expect("a kind").to_owned(),
                    record["seq"].as_u64().expect("a number"),
                )
            })
            .collect()
    }
}

fn node() -> Arc<Node> {
    Arc::new(Node { name: "n".into(), boot_id: "b".into(), cluster: None })
}

fn fact(kind: FactKind) -> Fact {
    let process = Process {
        pid: 42,
        ppid: Some(1),
        start_ns: 1,
        comm: "sh".into(),
        exe: Some("/bin/sh".into()),
        args: Some(["x".repeat(4096).into()].into()),
        uid: Some(0),
        program: Default::default(),
        ancestors: [].into(),
        truncated: false,
    };
    Fact {
        id: RecordId("0123456789ab-1".into()),
        at: Timestamp::default(),
        node: node(),
        process: Some(Arc::new(process)),
        container: None,
        k8s: None,
        net: None,
        quality: Quality::default(),
        kind,
    }
}

fn in_container(kind: FactKind) -> Fact {
    let container = Container {
        id: "c".into(),
        namesake: 0,
        runtime: Runtime::Runc,
        name: None,
        image: None,
        created: None,
        risks: None,
        cgroup: None,
    };
    Fact { container: Some(Arc::new(container)), ..fact(kind) }
}

fn output(seq: u64, fact: Fact) -> Output {
    Output::Fact { seq, fact, verdict: None }
}

fn stopping(seq: u64) -> Output {
    let health = Health::new(HealthState::Stopping);
    Output::Health { seq, id: RecordId("health-1".into()), at: Timestamp::default(), node: node(), health }
}

#[test]
fn a_flood_of_execs_in_a_container_does_not_crowd_out_an_accept() {
    let (mut queue, reader) = held_queue();
    for seq in 0..1000 {
        let kind = if seq % 20 == 19 {
            FactKind::Accept { task: None, client: None, late: false }
        } else {
            FactKind::Exec { role: ExecRole::Workload }
        };
        queue.push(&output(seq, in_container(kind)));
        if seq % 7 == 0 {
            queue.flush();
        }
    }
    let shed = queue.shed();
    reader.go.send(()).expect("it waits");
    queue.finish().expect("the reader reads");
    let lines = reader.read();
    assert_eq!(lines.len() as u64 + shed, 1000);
    assert_eq!(lines.iter().filter(|(kind, _)| kind == "accept").count(), 50);
    let execs = lines.iter().filter(|(kind, _)| kind == "exec").count();
    assert!((50..200).contains(&execs), "{execs} lines of 4 KiB in one half of {QUEUE} bytes");
    assert!(lines.is_sorted_by(|(_, earlier), (_, later)| earlier < later), "{lines:?}");
}

#[test]
fn a_flood_of_execs_in_a_container_does_not_crowd_out_those_of_another() {
    let (mut queue, reader) = held_queue();
    let exec = || in_container(FactKind::Exec { role: ExecRole::Workload });
    let mut flood = 0;
    while queue.shed() < 100 {
        queue.push(&output(flood, exec()));
        flood += 1;
    }
    let other = Container { id: "other".into(), ..Container::clone(exec().container.as_ref().expect("one")) };
    queue.push(&output(flood, Fact { container: Some(Arc::new(other)), ..exec() }));
    reader.go.send(()).expect("it waits");
    queue.finish().expect("the reader reads");
    assert_eq!(reader.read().last(), Some(&("exec".to_owned(), flood)));
}

#[test]
fn a_loop_of_listeners_does_not_crowd_out_accepts_or_listeners_of_others() {
    let (mut queue, reader) = held_queue();
    let listener = |netns| {
        let state = ListenerState::Opened;
        let (scope, tls) = (Scope::Any, Tls::Unknown);
        fact(FactKind::Listener { state, scope, tls, netns, leads_to: None, reach: None })
    };
    let mut loops = 0;
    while queue.shed() < 100 {
        queue.push(&output(loops, listener(1)));
        loops += 1;
    }
    queue.push(&output(loops, fact(FactKind::Accept { task: None, client: None, late: false })));
    queue.push(&output(loops + 1, listener(2)));
    reader.go.send(()).expect("it waits");
    queue.finish().expect("the reader reads");
    let last = [("accept".to_owned(), loops), ("listener".to_owned(), loops + 1)];
    assert!(reader.read().ends_with(&last));
}

#[test]
fn bulk_lines_have_room_again_when_the_reader_has_caught_up() {
    let (mut queue, reader) = held_queue();
    let exec = || in_container(FactKind::Exec { role: ExecRole::Workload });
    let mut seq = 0;
    while queue.shed() == 0 {
        queue.push(&output(seq, exec()));
        seq += 1;
    }
    reader.go.send(()).expect("it waits");
    // Far longer than a reader in the same process takes; the loop ends with the first line that finds room.
    let deadline = Instant::now() + FINISH_LIMIT;
    loop {
        let before = queue.shed();
        queue.push(&output(seq, exec()));
        if queue.shed() == before {
            break;
        }
        assert!(Instant::now() < deadline, "no room after the reader has caught up");
        std::thread::yield_now();
    }
    queue.finish().expect("the reader reads");
    assert_eq!(reader.read().last(), Some(&("exec".to_owned(), seq)));
}

#[test]
fn the_last_lines_wait_for_a_reader_that_is_behind() {
    let (mut queue, reader) = held_queue();
    let mut seq = 0;
    while queue.shed() == 0 {
        queue.push(&output(seq, fact(FactKind::Accept { task: None, client: None, late: false })));
        seq += 1;
    }
    queue.flush();
    let shed = queue.shed();
    queue.begin_finish();
    let reading = std::thread::spawn(|| {
        // It reads on only after the writer has found its queue full.
        std::thread::sleep(std::time::Duration::from_millis(20));
        reader.go.send(()).expect("it waits");
        reader.read()
    });
    for _ in 0..1000 {
        queue.push(&output(seq, in_container(FactKind::Exec { role: ExecRole::Workload })));
        seq += 1;
    }
    queue.push(&stopping(seq));
    queue.flush();
    assert_eq!(queue.shed(), shed);
    queue.finish().expect("the reader reads");
    let lines = reading.join().expect("no panic");
    assert_eq!(lines.last(), Some(&("health".to_owned(), seq)));
    assert_eq!(lines.len() as u64 + shed, seq + 1);
}

#[test]
fn what_a_container_can_make_many_of_is_bulk() {
    let bulk = |fact: Fact| is_bulk(&output(0, fact));
    let close = |direction| {
        let end = End { ip: Ipv4Addr::LOCALHOST.into(), port: 2375 };
        let (peer, local) = (Some(end), Some(end));
        let net = Net { direction: Some(direction), peer, local, service: Service::Docker, conn: None };
        let kind = FactKind::Close { duration_ns: Some(1), bytes_in: 1, bytes_out: 1 };
        Fact { net: Some(net), ..fact(kind) }
    };
    let exec = |role| FactKind::Exec { role };
    let exit = FactKind::Exit { code: Some(0), signal: None };
    let nowhere =
        |kind| Fact { quality: Quality { enrichment: Enrichment::None, ..Quality::default() }, ..fact(kind) };
    let step = FactKind::Container { action: ContainerAction::Created, origin: Origin::none() };
    for management in [
        fact(exec(ExecRole::Runtime)),
        fact(exit.clone()),
        close(Direction::Inbound),
        in_container(FactKind::Accept { task: None, client: None, late: false }),
        in_container(step),
    ] {
        assert!(!bulk(management.clone()), "{management:?}");
    }
    for many in [
        in_container(exec(ExecRole::Workload)),
        // Anybody in a container can name a program so.
        in_container(exec(ExecRole::Runtime)),
        in_container(exit.clone()),
        nowhere(exec(ExecRole::Client)),
        nowhere(exit),
        close(Direction::Outbound),
    ] {
        assert!(bulk(many.clone()), "{many:?}");
    }
    assert!(!is_bulk(&stopping(0)));
}
