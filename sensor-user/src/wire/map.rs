//! Conversion between the core's values and the wire's: borrowing on the way out, owning on the way in.

use std::num::NonZeroU16;
use std::sync::Arc;

use sensor_core::engine::Output;
use sensor_core::fact::{self, Fact, FactKind, Reach, SocketUse};
use sensor_core::health;
use sensor_core::ids::{ConnId, RecordId};
use sensor_core::risks::Risk;
use sensor_core::time::Timestamp;

use super::DecodeError;
use super::kind::Kind;
use super::record::{
    Accept, AcceptingTask, Api, Balance, Blind, Client, Conn, Connect, Container, Coverage, End, Exec, Exit,
    File, Health, Hook, K8s, Listener, Loss, Net, Node, Process, Proto, Quality, Record, Scan, SchemaVersion,
    Socket, Text, Verdict,
};
use super::seq::List;
use super::time::UtcTime;

mod api;
mod audit;
mod escape;
mod exposure;
mod finding;
mod process;
mod reload;
mod resumed;
mod tls;

impl<'a> From<&'a Output> for Record<'a> {
    fn from(output: &'a Output) -> Self {
        match output {
            Output::Fact { seq, fact, verdict } => of_fact(Kind::of(output), *seq, fact, verdict.as_ref()),
            Output::Health { seq, id, at, node, health } => {
                let mut record = envelope(Kind::Health, *seq, id, *at, node);
                record.health = Some(health.into());
                record
            }
            Output::Signal { seq, id, at, node, signal } => {
                let mut record = envelope(Kind::Signal, *seq, id, *at, node);
                record.signal = Some((&**signal).into());
                record
            }
            Output::Finding { seq, id, at, node, finding } => {
                let mut record = envelope(Kind::Finding, *seq, id, *at, node);
                record.finding = Some((&**finding).into());
                record
            }
        }
    }
}

fn envelope<'a>(kind: Kind, seq: u64, id: &'a RecordId, at: Timestamp, node: &'a fact::Node) -> Record<'a> {
    Record {
        schema: SchemaVersion::V1,
        kind,
        id: (&id.0).into(),
        ts: UtcTime(at.unix_ns),
        boot_ns: at.boot_ns,
        seq,
        node: Node {
            name: (&node.name).into(),
            boot_id: (&node.boot_id).into(),
            cluster: text(&node.cluster),
        },
        process: None,
        container: None,
        k8s: None,
        net: None,
        verdict: None,
        quality: None,
        listener: None,
        accept: None,
        conn: None,
        connect: None,
        api: None,
        tls: None,
        scan: None,
        socket: None,
        file: None,
        exec: None,
        exit: None,
        host: None,
        origin: None,
        audit: None,
        health: None,
        signal: None,
        finding: None,
    }
}

fn of_fact<'a>(kind: Kind, seq: u64, fact: &'a Fact, verdict: Option<&'a fact::Verdict>) -> Record<'a> {
    let mut record = envelope(kind, seq, &fact.id, fact.at, &fact.node);
    record.process = fact.process.as_deref().map(Process::from);
    record.container = fact.container.as_deref().map(Container::from);
    record.k8s = fact.k8s.as_deref().map(K8s::from);
    record.net = fact.net.as_ref().map(Net::from);
    record.verdict = verdict.map(|verdict| match verdict {
        fact::Verdict::Listed(entry) => Verdict { listed: true, entry: Some(entry.into()) },
        fact::Verdict::Unlisted => Verdict { listed: false, entry: None },
    });
    record.quality = Some(Quality {
        enrichment: fact.quality.enrichment.into(),
        truncated: fact.quality.truncated || fact.process.as_ref().is_some_and(|process| process.truncated),
        lost: fact.quality.lost,
    });
    match &fact.kind {
        FactKind::Accept { task: None, client: None, late: false } => {}
        FactKind::Accept { task, client, late } => {
            let task = task.as_deref().map(Into::into);
            record.accept = Some(Accept { task, client: client.as_deref().map(Into::into), late: *late });
        }
        FactKind::AcceptTask => {}
        FactKind::SocketConnect { path, inode, service } => {
            let service = service.map(Into::into);
            record.socket = Some(Socket { path: text(path), inode: *inode, service, conn: None });
        }
        FactKind::FileRead { path, class } => {
            record.file = Some(File { path: text(path), class: (*class).into() });
        }
        &FactKind::Listener { state, scope, tls, netns, leads_to, ref reach } => {
            let service = fact.net.as_ref().map_or(fact::Service::Other, |net| net.service);
            let reach = reach.as_deref().copied().unwrap_or_default();
            record.listener = Some(Listener {
                service: service.into(),
                scope: scope.into(),
                tls: tls.into(),
                state: state.into(),
                netns,
                leads_to: leads_to.map(Into::into),
                accepts: reach.accepts,
                outside_peers: reach.outside_peers,
                first_peer: reach.first.map(Into::into),
                last_peer: reach.last.map(Into::into),
            });
        }
        &FactKind::Close { duration_ns, bytes_in, bytes_out } => {
            record.conn = Some(Conn { duration_ns, bytes_in, bytes_out });
        }
        &FactKind::Connect { result } => record.connect = Some(Connect { result: result.into() }),
        &FactKind::Scan { shape, targets, peers, count, suppressed, resumed, window_ns } => {
            let shape = shape.into();
            record.scan = Some(Scan { shape, targets, peers, count, suppressed, resumed, window_ns });
        }
        &FactKind::Exec { role } => record.exec = Some(Exec { role: role.into() }),
        &FactKind::Exit { code, signal } => record.exit = Some(Exit { code, signal }),
        &FactKind::Escape(side) => record.host = Some(side.into()),
        FactKind::ApiRequest(api) => {
            let service = api.service(fact.net.as_ref());
            record.socket = api.socket.as_deref().map(Into::into);
            record.api = Some(Api::of(service, api));
        }
        FactKind::Audit(request) => record.audit = Some(Box::new((&**request).into())),
        FactKind::TlsHello(hello) => record.tls = Some((&**hello).into()),
        FactKind::Container { action, origin } => {
            record.origin = Some(origin.into());
            if let Some(container) = &mut record.container {
                container.action = Some((*action).into());
            }
        }
    }
    record
}

fn text(shared: &Option<Arc<str>>) -> Option<Text<'_>> {
    shared.as_ref().map(Text::from)
}

fn shared(text: Option<Text<'_>>) -> Option<Arc<str>> {
    text.map(Arc::from)
}

impl<'a> From<&'a fact::AcceptingTask> for AcceptingTask<'a> {
    fn from(task: &'a fact::AcceptingTask) -> Self {
        Self { pid: task.pid, start_ns: task.start_ns, comm: (&task.comm).into(), exe: text(&task.exe) }
    }
}

impl<'a> From<&'a fact::Client> for Client<'a> {
    fn from(client: &'a fact::Client) -> Self {
        Self { peer: client.end.into(), conn: client.conn.as_ref().map(Into::into) }
    }
}

impl From<Client<'_>> for fact::Client {
    fn from(client: Client<'_>) -> Self {
        Self { end: client.peer.into(), conn: client.conn.map(|conn| ConnId(conn.into())) }
    }
}

impl From<AcceptingTask<'_>> for fact::AcceptingTask {
    fn from(task: AcceptingTask<'_>) -> Self {
        Self { pid: task.pid, start_ns: task.start_ns, comm: task.comm.into(), exe: shared(task.exe) }
    }
}

impl<'a> From<&'a fact::Container> for Container<'a> {
    fn from(container: &'a fact::Container) -> Self {
        Self {
            action: None,
            id: (&container.id).into(),
            namesake: (container.namesake != 0).then_some(container.namesake),
            runtime: container.runtime.into(),
            name: text(&container.name),
            image: text(&container.image),
            created: text(&container.created),
            risks: container.risks.as_deref().map(List::Core),
            cgroup: text(&container.cgroup),
        }
    }
}

impl<'a> From<&'a fact::K8s> for K8s<'a> {
    fn from(k8s: &'a fact::K8s) -> Self {
        Self {
            namespace: text(&k8s.namespace),
            pod: text(&k8s.pod),
            pod_uid: text(&k8s.pod_uid),
            container: text(&k8s.container),
            service_account: text(&k8s.service_account),
        }
    }
}

impl<'a> From<&'a fact::Net> for Net<'a> {
    fn from(net: &'a fact::Net) -> Self {
        Self {
            direction: net.direction.map(Into::into),
            proto: Proto::Tcp,
            peer: net.peer.map(Into::into),
            local: net.local.map(Into::into),
            service: net.service.into(),
            conn: net.conn.as_ref().map(|conn| (&conn.0).into()),
        }
    }
}

impl From<fact::End> for End {
    fn from(end: fact::End) -> Self {
        Self { ip: end.ip.to_canonical(), port: NonZeroU16::new(end.port) }
    }
}

impl<'a> From<&'a health::Health> for Health<'a> {
    fn from(health: &'a health::Health) -> Self {
        let hook = |hook: &'a health::Hook| Hook {
            name: (&hook.name).into(),
            program: (&hook.program).into(),
            state: hook.state.into(),
            reason: text(&hook.reason),
        };
        let loss = |loss: &health::Loss| Loss {
            ring: loss.ring.map(Into::into),
            kind: loss.kind.into(),
            lost: loss.lost,
            suppressed: loss.suppressed,
            evicted: loss.evicted,
        };
        let coverage = |coverage: &'a health::Coverage| {
            let value = Coverage {
                state: coverage.state.into(),
                reason: text(&coverage.reason),
                since: UtcTime(coverage.since.unix_ns),
            };
            (coverage.capability.into(), value)
        };
        let balance = |balance: &health::Balance| Balance {
            ring: balance.ring.into(),
            kind: balance.kind.into(),
            produced: balance.produced,
            received: balance.received,
            canaries: balance.canaries,
            lost: balance.lost,
            suppressed: balance.suppressed,
        };
        Self {
            state: health.state.into(),
            hooks: health.hooks.iter().map(hook).collect(),
            loss: health.loss.iter().map(loss).collect(),
            coverage: health.coverage.iter().map(coverage).collect(),
            blind: health.blind.map(|blind| Blind {
                capability: blind.capability.into(),
                from: UtcTime(blind.from.unix_ns),
                to: UtcTime(blind.to.unix_ns),
            }),
            resumed: health.resumed.as_deref().map(Into::into),
            reload: health.reload.as_deref().map(Into::into),
            addresses: health.addresses.iter().map(std::net::IpAddr::to_canonical).collect(),
            audit: health.audit.iter().map(audit::input).collect(),
            balance: health.balance.iter().map(balance).collect(),
            emitted: health.emitted,
            undecodable: health.undecodable,
        }
    }
}

/// Takes the object that records of this kind must have.
fn required<T>(object: Option<T>, kind: Kind, key: &'static str) -> Result<T, DecodeError> {
    object.ok_or(DecodeError::Missing { kind: kind.name(), key })
}

impl TryFrom<Record<'_>> for Fact {
    type Error = DecodeError;

    /// Reads a fact back; the sequence number and the verdict are the engine's to give again.
    fn try_from(record: Record<'_>) -> Result<Self, DecodeError> {
        let of = record.kind;
        let action = record.container.as_ref().and_then(|container| container.action);
        let mut is_on_socket = false;
        let kind = match of {
            Kind::Listener => {
                let listener = required(record.listener, of, "listener")?;
                let reach = Reach {
                    accepts: listener.accepts,
                    outside_peers: listener.outside_peers,
                    first: listener.first_peer.map(Into::into),
                    last: listener.last_peer.map(Into::into),
                };
                FactKind::Listener {
                    state: listener.state.into(),
                    scope: listener.scope.into(),
                    tls: listener.tls.into(),
                    netns: listener.netns,
                    leads_to: listener.leads_to.map(Into::into),
                    reach: (reach != Reach::default()).then(|| Arc::new(reach)),
                }
            }
            Kind::Accept => {
                let Accept { task, client, late } = record.accept.unwrap_or_default();
                FactKind::Accept {
                    task: task.map(|task| Arc::new(task.into())),
                    client: client.map(|client| Box::new(client.into())),
                    late,
                }
            }
            Kind::AcceptTask => FactKind::AcceptTask,
            Kind::SocketConnect => {
                let Socket { path, inode, service, conn: _ } = required(record.socket, of, "socket")?;
                FactKind::SocketConnect { path: shared(path), inode, service: service.map(Into::into) }
            }
            Kind::FileRead => {
                let File { path, class } = required(record.file, of, "file")?;
                FactKind::FileRead { path: shared(path), class: class.into() }
            }
            Kind::Close => {
                let Conn { duration_ns, bytes_in, bytes_out } = required(record.conn, of, "conn")?;
                FactKind::Close { duration_ns, bytes_in, bytes_out }
            }
            Kind::Connect => {
                FactKind::Connect { result: required(record.connect, of, "connect")?.result.into() }
            }
            Kind::Scan => {
                let Scan { shape, targets, peers, count, suppressed, resumed, window_ns } =
                    required(record.scan, of, "scan")?;
                let shape = shape.into();
                FactKind::Scan { shape, targets, peers, count, suppressed, resumed, window_ns }
            }
            Kind::Exec => FactKind::Exec { role: required(record.exec, of, "exec")?.role.into() },
            Kind::Exit => {
                let Exit { code, signal } = required(record.exit, of, "exit")?;
                FactKind::Exit { code, signal }
            }
            Kind::Escape => FactKind::Escape(required(record.host, of, "host")?.into()),
            Kind::Container => FactKind::Container {
                action: required(action, of, "container.action")?.into(),
                origin: required(record.origin, of, "origin")?.into(),
            },
            Kind::TlsHello => FactKind::TlsHello(Arc::new(required(record.tls, of, "tls")?.into())),
            Kind::ApiRequest => {
                let api = required(record.api, of, "api")?.into();
                let socket = record.socket.map(SocketUse::try_from).transpose()?.map(Box::new);
                is_on_socket = socket.is_some();
                FactKind::ApiRequest(Box::new(fact::ApiRequest { socket, ..api }))
            }
            Kind::Audit => {
                let truncated = record.quality.is_some_and(|quality| quality.truncated);
                let request = audit::request(*required(record.audit, of, "audit")?, record.ts.0, truncated);
                FactKind::Audit(Box::new(request))
            }
            Kind::Health | Kind::Signal | Kind::Finding => {
                return Err(DecodeError::Missing { kind: of.name(), key: "a fact" });
            }
        };
        let net = record.net.map(fact::Net::from);
        let needs_net = matches!(
            of,
            Kind::Listener
                | Kind::Accept
                | Kind::AcceptTask
                | Kind::Close
                | Kind::Connect
                | Kind::ApiRequest
                | Kind::TlsHello
                | Kind::Scan
        );
        if needs_net && !is_on_socket {
            let ends = required(net.as_ref(), of, "net")?;
            if !matches!(of, Kind::Connect | Kind::Scan) {
                required(ends.local, of, "net.local")?;
            }
            if !matches!(of, Kind::Listener | Kind::Scan) {
                required(ends.peer, of, "net.peer")?;
            }
        }
        if matches!(of, Kind::Exec | Kind::Exit | Kind::Escape | Kind::AcceptTask) {
            required(record.process.as_ref(), of, "process")?;
        }
        let quality = required(record.quality, of, "quality")?;
        Ok(Self {
            id: RecordId(record.id.into()),
            at: Timestamp { boot_ns: record.boot_ns, unix_ns: record.ts.0 },
            node: Arc::new(record.node.into()),
            process: record.process.map(|process| Arc::new(process.into())),
            container: record.container.map(|container| Arc::new(container.into())),
            k8s: record.k8s.map(|k8s| Arc::new(k8s.into())),
            net,
            quality: fact::Quality {
                enrichment: quality.enrichment.into(),
                truncated: quality.truncated,
                lost: quality.lost,
            },
            kind,
        })
    }
}

impl From<Node<'_>> for fact::Node {
    fn from(node: Node<'_>) -> Self {
        Self { name: node.name.into(), boot_id: node.boot_id.into(), cluster: shared(node.cluster) }
    }
}

impl From<Container<'_>> for fact::Container {
    fn from(container: Container<'_>) -> Self {
        Self {
            id: container.id.into(),
            namesake: container.namesake.unwrap_or(0),
            runtime: container.runtime.into(),
            name: shared(container.name),
            image: shared(container.image),
            created: shared(container.created),
            risks: container.risks.map(|risks| risks.into_read().into_iter().map(Risk::from).collect()),
            cgroup: shared(container.cgroup),
        }
    }
}

impl From<K8s<'_>> for fact::K8s {
    fn from(k8s: K8s<'_>) -> Self {
        Self {
            namespace: shared(k8s.namespace),
            pod: shared(k8s.pod),
            pod_uid: shared(k8s.pod_uid),
            container: shared(k8s.container),
            service_account: shared(k8s.service_account),
        }
    }
}

impl From<Net<'_>> for fact::Net {
    fn from(net: Net<'_>) -> Self {
        Self {
            direction: net.direction.map(Into::into),
            peer: net.peer.map(Into::into),
            local: net.local.map(Into::into),
            service: net.service.into(),
            conn: net.conn.map(|conn| ConnId(conn.into())),
        }
    }
}

impl From<End> for fact::End {
    fn from(end: End) -> Self {
        Self { ip: end.ip.to_canonical(), port: end.port.map_or(0, NonZeroU16::get) }
    }
}
