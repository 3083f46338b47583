//! Correlation: recorded facts in, signals and findings out, with few and with many chains open.
//!
//! The facts of each round are made before its time is taken. What is measured is judging, the chains, and the numbering
//! of what comes of them; not decoding and not JSON. Rounds with few and with many chains alternate, so that a machine that
//! changes its speed changes both.

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::sync::Arc;

use sensor_core::engine::{Engine, Output};
use sensor_core::fact::{
    ConnectResult, Container, ContainerAction, Direction, End, Fact, FactKind, Net, Node, Origin,
    OriginClass, Quality, Runtime, Service,
};
use sensor_core::ids::{ConnId, RecordId};
use sensor_core::risks::Risk;
use sensor_core::time::Timestamp;

use crate::statistics::{median, median_ratio};
use crate::tables::resident;
use crate::throughput::{engine, processor_time};

const FEW: u64 = 1_000;
const MANY: u64 = 100_000;
/// Chains beyond their first stage: these hold containers, evidence and links.
const GROWN: u64 = 10_000;
const ROUNDS: usize = 15;
/// Facts of a round.
const BATCH: u64 = 20_000;
const START_NS: u64 = 1_000_000_000_000;
/// All facts lie within the shortest window, so that no chain ends meanwhile.
const STEP_NS: u64 = 100_000;

/// Measures and prints the table.
pub fn print(_scratch: &Path) -> anyhow::Result<()> {
    let before = resident()?;
    let mut many = Scene::with_open(MANY, GROWN);
    let taken = resident()?.saturating_sub(before);
    let mut few = Scene::with_open(FEW, FEW / 10);
    let (mut with_many, mut with_few) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        with_few.push(few.round()?);
        with_many.push(many.round()?);
    }
    let (open, told) = (many.engine.statistics().chains, many.findings);
    anyhow::ensure!(open as u64 >= MANY, "{open} chains are open only");
    anyhow::ensure!(told >= GROWN, "{told} findings only");

    println!(
        "correlation, one thread's processor time; accept : close : connect : container = 4 : 3 : 2 : 1"
    );
    println!("  {:8.0} facts/s with {FEW} open chains", 1e9 / median(&with_few));
    println!("  {:8.0} facts/s with {open} open chains   aim >= 300000", 1e9 / median(&with_many));
    println!("  {:8.2} of the speed with few", median_ratio(&with_few, &with_many));
    let kib = taken as f64 / 1024.0 / (MANY + GROWN) as f64;
    println!("  {kib:8.2} KiB per open chain, one in ten beyond its first stage\n");
    Ok(())
}

/// A core with chains, and what goes on around it.
struct Scene {
    engine: Engine,
    node: Arc<Node>,
    peers: u64,
    grown: u64,
    now_ns: u64,
    number: u64,
    findings: u64,
}

impl Scene {
    /// Unlisted peers have connected, and by the requests of some of them containers were made.
    fn with_open(peers: u64, grown: u64) -> Self {
        let mut engine = engine(Vec::new());
        while engine.next_output().is_some() {}
        let node = Arc::new(Node { name: "node-a".into(), boot_id: "recorded".into(), cluster: None });
        let mut scene = Self { engine, node, peers, grown, now_ns: START_NS, number: 0, findings: 0 };
        for peer in 0..peers {
            let fact = scene.accept(peer);
            scene.take(fact);
            if peer < grown {
                let fact = scene.created(peer, Some(peer));
                scene.take(fact);
            }
        }
        scene
    }

    /// Nanoseconds of a fact.
    fn round(&mut self) -> anyhow::Result<f64> {
        let facts: Vec<Fact> = (0..BATCH).map(|number| self.fact(number)).collect();
        let start = processor_time();
        for fact in facts {
            self.take(fact);
        }
        let spent = processor_time() - start;
        anyhow::ensure!(self.now_ns < START_NS + 600_000_000_000, "the facts outlast a window");
        Ok(spent.as_nanos() as f64 / BATCH as f64)
    }

    /// What a busy node tells: known peers come again, connections end, containers connect, ordinary ones are made.
    fn fact(&mut self, number: u64) -> Fact {
        // Apart from each other, so that no two in a row are of the same chain.
        let far = self.number.wrapping_mul(7_919);
        match number % 10 {
            0 | 3 | 5 | 8 => self.accept(far % self.peers),
            1 | 4 | 7 => self.close(far % self.peers),
            2 => self.connect(far % self.grown, 22),
            6 => self.connect(far % self.grown, 443),
            _ => self.created(self.number + MANY, None),
        }
    }

    fn take(&mut self, fact: Fact) {
        self.engine.handle_fact(fact);
        while let Some(output) = self.engine.next_output() {
            self.findings += u64::from(matches!(output, Output::Finding { .. }));
            black_box(output);
        }
    }

    fn accept(&mut self, peer: u64) -> Fact {
        let net = inbound(peer);
        self.told(FactKind::Accept { task: None, client: None, late: false }, None, Some(net))
    }

    fn close(&mut self, peer: u64) -> Fact {
        let kind = FactKind::Close { duration_ns: Some(1_000), bytes_in: 1, bytes_out: 1 };
        self.told(kind, None, Some(inbound(peer)))
    }

    fn created(&mut self, container: u64, by: Option<u64>) -> Fact {
        let (origin, risks): (_, &[Risk]) = match by {
            Some(peer) => (Origin::of_conn(OriginClass::Proved, conn(peer), None), &[Risk::Privileged]),
            None => (Origin::none(), &[]),
        };
        let kind = FactKind::Container { action: ContainerAction::Created, origin };
        self.told(kind, Some(container_of(container, Some(risks.into()))), None)
    }

    fn connect(&mut self, container: u64, port: u16) -> Fact {
        let net = Net {
            direction: Some(Direction::Outbound),
            peer: Some(End { ip: IpAddr::V4(Ipv4Addr::new(10, 0, 0, 2)), port }),
            local: None,
            service: Service::Other,
            conn: Some(ConnId("out".into())),
        };
        let kind = FactKind::Connect { result: ConnectResult::Established };
        self.told(kind, Some(container_of(container, None)), Some(net))
    }

    fn told(&mut self, kind: FactKind, container: Option<Arc<Container>>, net: Option<Net>) -> Fact {
        self.number += 1;
        self.now_ns += STEP_NS;
        Fact {
            id: RecordId(format!("0123456789ab-{:x}", self.number).into()),
            at: Timestamp { boot_ns: self.now_ns, unix_ns: self.now_ns },
            node: self.node.clone(),
            process: None,
            container,
            k8s: None,
            net,
            quality: Quality::default(),
            kind,
        }
    }
}

fn conn(peer: u64) -> ConnId {
    ConnId(format!("0123456789ab-c{peer:x}").into())
}

/// Each number is an address of its own in 198.18.0.0/15.
fn inbound(peer: u64) -> Net {
    let address = u32::from(Ipv4Addr::new(198, 18, 0, 0)) + peer as u32;
    Net {
        direction: Some(Direction::Inbound),
        peer: Some(End { ip: IpAddr::V4(address.into()), port: 40_000 }),
        local: Some(End { ip: IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1)), port: 2375 }),
        service: Service::Docker,
        conn: Some(conn(peer)),
    }
}

fn container_of(number: u64, risks: Option<Arc<[Risk]>>) -> Arc<Container> {
    Arc::new(Container {
        id: format!("{number:016x}").repeat(4).into(),
        namesake: 0,
        runtime: Runtime::Docker,
        name: None,
        image: None,
        created: None,
        risks,
        cgroup: None,
    })
}
