//! Facts to lines, by hand: less than half the time of the general serializer, and every record passes here.
//!
//! The format is defined by [`super::record`]. What is written here is the same byte for byte, which every test of a line
//! and a property test over all facts compare.

use std::sync::Arc;

use sensor_core::fact::{self, Fact, FactKind};
use sensor_core::risks::Risk;

use super::kind::Kind;
use super::lists::{
    ApiClass, ConnectResult, ContainerAction, CredentialClass, Direction, Enrichment, ExecRole, HelloFlaw,
    ListenerState, ListenerTls, OriginClass, Protocol, Runtime, ScanShape, Scope, Service, Stack,
};
use super::record::Audit;
use super::text::{push_ip, push_number, push_text};
use super::time::{TEXT_LEN, UtcTime};

/// Appends a fact as one JSON object.
pub fn push_fact(out: &mut Vec<u8>, seq: u64, fact: &Fact, verdict: Option<&fact::Verdict>) {
    push_envelope(out, seq, fact);
    if let Some(process) = &fact.process {
        push_process(out, process);
    }
    if let Some(container) = &fact.container {
        let action = match fact.kind {
            FactKind::Container { action, .. } => Some(action),
            _ => None,
        };
        push_container(out, container, action);
    }
    if let Some(k8s) = &fact.k8s {
        push_k8s(out, k8s);
    }
    if let Some(net) = &fact.net {
        push_net(out, net);
    }
    match verdict {
        Some(fact::Verdict::Listed(entry)) => {
            push(out, br#","verdict":{"listed":true,"entry":"#);
            push_text(out, entry);
            push(out, b"}");
        }
        Some(fact::Verdict::Unlisted) => push(out, br#","verdict":{"listed":false}"#),
        None => {}
    }
    push_quality(out, fact);
    push_kind(out, fact);
    push(out, b"}");
}

/// Appends what needs no escape. Inlined, so that the copy of a literal is a few moves.
#[inline(always)]
fn push(out: &mut Vec<u8>, literal: &[u8]) {
    out.extend_from_slice(literal);
}

/// Appends a key and a name of a closed list.
fn push_name(out: &mut Vec<u8>, key: &[u8], name: &str) {
    push(out, key);
    push(out, name.as_bytes());
    push(out, b"\"");
}

/// Appends a key and a number.
#[inline]
fn push_count(out: &mut Vec<u8>, key: &[u8], value: u64) {
    push(out, key);
    push_number(out, value);
}

/// Appends a key and a text, if there is one.
#[inline]
fn push_known(out: &mut Vec<u8>, key: &[u8], text: &Option<Arc<str>>) {
    if let Some(text) = text {
        push(out, key);
        push_text(out, text);
    }
}

fn push_envelope(out: &mut Vec<u8>, seq: u64, fact: &Fact) {
    push_name(out, br#"{"schema":"quaywatch/1","kind":""#, Kind::of_fact(fact).name());
    push(out, br#","id":"#);
    push_text(out, &fact.id.0);
    push_name(out, br#","ts":""#, UtcTime(fact.at.unix_ns).write(&mut [0; TEXT_LEN]));
    push_count(out, br#","boot_ns":"#, fact.at.boot_ns);
    push_count(out, br#","seq":"#, seq);
    push(out, br#","node":{"name":"#);
    push_text(out, &fact.node.name);
    push(out, br#","boot_id":"#);
    push_text(out, &fact.node.boot_id);
    push_known(out, br#","cluster":"#, &fact.node.cluster);
    push(out, b"}");
}

fn push_process(out: &mut Vec<u8>, process: &fact::Process) {
    push_count(out, br#","process":{"pid":"#, process.pid.into());
    if let Some(ppid) = process.ppid {
        push_count(out, br#","ppid":"#, ppid.into());
    }
    push_count(out, br#","start_ns":"#, process.start_ns);
    push(out, br#","comm":"#);
    push_text(out, &process.comm);
    push_known(out, br#","exe":"#, &process.exe);
    if let Some(args) = &process.args {
        push(out, br#","args":["#);
        for (index, arg) in args.iter().enumerate() {
            push(out, if index == 0 { b"" } else { b"," });
            push_text(out, arg);
        }
        push(out, b"]");
    }
    if let Some(uid) = process.uid {
        push_count(out, br#","uid":"#, uid.into());
    }
    push_program(out, &process.program);
    if !process.ancestors.is_empty() {
        push(out, br#","ancestors":["#);
        for (index, ancestor) in process.ancestors.iter().enumerate() {
            push(out, if index == 0 { b"{" } else { b",{" });
            push_count(out, br#""pid":"#, ancestor.pid.into());
            push(out, br#","comm":"#);
            push_text(out, &ancestor.comm);
            push_known(out, br#","exe":"#, &ancestor.exe);
            push(out, b"}");
        }
        push(out, b"]");
    }
    push(out, b"}");
}

fn push_program(out: &mut Vec<u8>, program: &fact::Program) {
    if let Some(file) = program.file {
        push_count(out, br#","exe_file":{"device":"#, file.device.into());
        push_count(out, br#","inode":"#, file.inode);
        push(out, b"}");
    }
    if program.flags.is_any() {
        let fact::ExeFlags { deleted, memfd, script } = program.flags;
        push(out, br#","exe_flags":["#);
        let start = out.len();
        for (is_so, flag) in
            [(deleted, &br#","deleted""#[..]), (memfd, br#","memfd""#), (script, br#","script""#)]
        {
            if is_so {
                push(out, flag);
            }
        }
        drop_first_comma(out, start);
        push(out, b"]");
    }
    push_known(out, br#","tool":"#, &program.tool);
    if program.renamed {
        push(out, br#","renamed":true"#);
    }
}

fn push_container(out: &mut Vec<u8>, container: &fact::Container, action: Option<fact::ContainerAction>) {
    push(out, br#","container":{"#);
    if let Some(action) = action {
        push_name(out, br#""action":""#, ContainerAction::from(action).name());
        push(out, b",");
    }
    push(out, br#""id":"#);
    push_text(out, &container.id);
    if container.namesake != 0 {
        push_count(out, br#","namesake":"#, container.namesake);
    }
    push_name(out, br#","runtime":""#, Runtime::from(container.runtime).name());
    push_known(out, br#","name":"#, &container.name);
    push_known(out, br#","image":"#, &container.image);
    push_known(out, br#","created":"#, &container.created);
    if let Some(risks) = &container.risks {
        push_list(out, br#","risks":["#, risks.iter().map(Risk::name));
    }
    push_known(out, br#","cgroup":"#, &container.cgroup);
    push(out, b"}");
}

fn push_k8s(out: &mut Vec<u8>, k8s: &fact::K8s) {
    push(out, br#","k8s":{"#);
    let start = out.len();
    push_known(out, br#","namespace":"#, &k8s.namespace);
    push_known(out, br#","pod":"#, &k8s.pod);
    push_known(out, br#","pod_uid":"#, &k8s.pod_uid);
    push_known(out, br#","container":"#, &k8s.container);
    push_known(out, br#","service_account":"#, &k8s.service_account);
    drop_first_comma(out, start);
    push(out, b"}");
}

/// Every key brings its comma; the first one of an object must not have it.
fn drop_first_comma(out: &mut Vec<u8>, start: usize) {
    if out.len() > start {
        out.remove(start);
    }
}

fn push_net(out: &mut Vec<u8>, net: &fact::Net) {
    push(out, br#","net":{"#);
    if let Some(direction) = net.direction {
        push_name(out, br#""direction":""#, Direction::from(direction).name());
        push(out, b",");
    }
    push(out, br#""proto":"tcp""#);
    push_end(out, br#","peer":{"ip":"#, net.peer);
    push_end(out, br#","local":{"ip":"#, net.local);
    push_name(out, br#","service":""#, Service::from(net.service).name());
    if let Some(conn) = &net.conn {
        push(out, br#","conn":"#);
        push_text(out, &conn.0);
    }
    push(out, b"}");
}

fn push_end(out: &mut Vec<u8>, key: &[u8], end: Option<fact::End>) {
    if let Some(end) = end {
        push(out, key);
        push_ip(out, end.ip.to_canonical());
        if end.port != 0 {
            push_count(out, br#","port":"#, end.port.into());
        }
        push(out, b"}");
    }
}

fn push_quality(out: &mut Vec<u8>, fact: &Fact) {
    push_name(out, br#","quality":{"enrichment":""#, Enrichment::from(fact.quality.enrichment).name());
    if fact.quality.truncated || fact.process.as_ref().is_some_and(|process| process.truncated) {
        push(out, br#","truncated":true"#);
    }
    if fact.quality.lost != 0 {
        push_count(out, br#","lost":"#, fact.quality.lost);
    }
    push(out, b"}");
}

fn push_reach(out: &mut Vec<u8>, reach: &fact::Reach) {
    for (key, count) in
        [(&br#","accepts":"#[..], reach.accepts), (br#","outside_peers":"#, reach.outside_peers.into())]
    {
        if count != 0 {
            push_count(out, key, count);
        }
    }
    for (key, peer) in
        [(&br#","first_peer":{"ip":"#[..], reach.first), (br#","last_peer":{"ip":"#, reach.last)]
    {
        if let Some(peer) = peer {
            push(out, key);
            push_ip(out, peer.ip.to_canonical());
            push_name(out, br#","ts":""#, UtcTime(peer.unix_ns).write(&mut [0; TEXT_LEN]));
            push(out, b"}");
        }
    }
}

fn push_kind(out: &mut Vec<u8>, fact: &Fact) {
    match &fact.kind {
        FactKind::Accept { task: None, client: None, late: false } | FactKind::AcceptTask => return,
        FactKind::Accept { task, client, late } => {
            push(out, br#","accept":{"#);
            let start = out.len();
            if let Some(task) = task {
                push_count(out, br#","task":{"pid":"#, task.pid.into());
                push_count(out, br#","start_ns":"#, task.start_ns);
                push(out, br#","comm":"#);
                push_text(out, &task.comm);
                push_known(out, br#","exe":"#, &task.exe);
                push(out, b"}");
            }
            push_client(out, client.as_deref());
            if *late {
                push(out, br#","late":true"#);
            }
            drop_first_comma(out, start);
        }
        FactKind::SocketConnect { path, inode, service } => push_socket(out, path, *inode, *service),
        FactKind::FileRead { path, class } => {
            push(out, br#","file":{"#);
            let start = out.len();
            push_known(out, br#","path":"#, path);
            push_name(out, br#","class":""#, CredentialClass::from(*class).name());
            drop_first_comma(out, start);
        }
        &FactKind::Listener { state, scope, tls, netns, leads_to, ref reach } => {
            let service = fact.net.as_ref().map_or(fact::Service::Other, |net| net.service);
            push_name(out, br#","listener":{"service":""#, Service::from(service).name());
            push_name(out, br#","scope":""#, Scope::from(scope).name());
            push_name(out, br#","tls":""#, ListenerTls::from(tls).name());
            push_name(out, br#","state":""#, ListenerState::from(state).name());
            push_count(out, br#","netns":"#, netns.into());
            if let Some(to) = leads_to {
                push(out, br#","leads_to":{"ip":"#);
                push_ip(out, to.ip.to_canonical());
                push_count(out, br#","port":"#, to.port.into());
                push_name(out, br#","service":""#, Service::from(to.service).name());
                push(out, b"}");
            }
            if let Some(reach) = reach {
                push_reach(out, reach);
            }
        }
        &FactKind::Close { duration_ns, bytes_in, bytes_out } => {
            push(out, br#","conn":{"#);
            if let Some(duration_ns) = duration_ns {
                push_count(out, br#""duration_ns":"#, duration_ns);
                push(out, b",");
            }
            push_count(out, br#""bytes_in":"#, bytes_in);
            push_count(out, br#","bytes_out":"#, bytes_out);
        }
        &FactKind::Connect { result } => {
            push_name(out, br#","connect":{"result":""#, ConnectResult::from(result).name());
        }
        &FactKind::Scan { shape, targets, peers, count, suppressed, resumed, window_ns } => {
            push_name(out, br#","scan":{"shape":""#, ScanShape::from(shape).name());
            push_count(out, br#","targets":"#, targets);
            push_count(out, br#","peers":"#, peers);
            push_count(out, br#","count":"#, count);
            push_count(out, br#","suppressed":"#, suppressed);
            if resumed != 0 {
                push_count(out, br#","resumed":"#, resumed);
            }
            push_count(out, br#","window_ns":"#, window_ns);
        }
        &FactKind::Exec { role } => push_name(out, br#","exec":{"role":""#, ExecRole::from(role).name()),
        &FactKind::Exit { code, signal } => {
            push(out, br#","exit":{"#);
            let start = out.len();
            if let Some(code) = code {
                push_count(out, br#","code":"#, code.into());
            }
            if let Some(signal) = signal {
                push_count(out, br#","signal":"#, signal.into());
            }
            drop_first_comma(out, start);
        }
        &FactKind::Escape(side) => {
            push(out, br#","host":{"namespaces":["#);
            push(
                out,
                match (side.mnt, side.pid) {
                    (true, true) => br#""mnt","pid"]"#,
                    (true, false) => br#""mnt"]"#,
                    (false, true) => br#""pid"]"#,
                    (false, false) => b"]",
                },
            );
            if side.root {
                push(out, br#","root":true"#);
            }
        }
        FactKind::Audit(request) => {
            // No other kind has this many keys, and the texts of most are long: the general serializer does for it.
            push(out, br#","audit":"#);
            return serde_json::to_writer(out, &Audit::from(&**request))
                .expect("invariant: memory can be written and every key is a string");
        }
        FactKind::ApiRequest(api) => {
            push_api(out, fact, api);
            if let Some(used) = &api.socket {
                push(out, b"}");
                push_socket(out, &used.path, used.inode, used.service);
                push(out, br#","conn":"#);
                push_text(out, &used.conn.0);
            }
        }
        FactKind::TlsHello(hello) => push_hello(out, hello),
        FactKind::Container { origin, .. } => {
            push(out, br#","origin":{"#);
            let start = out.len();
            push_known(out, br#","conn":"#, &origin.conn.as_ref().map(|conn| conn.0.clone()));
            push_known(out, br#","request":"#, &origin.request.as_ref().map(|id| id.0.clone()));
            if !origin.candidates.is_empty() {
                push_list(out, br#","candidates":["#, origin.candidates.iter().map(|conn| &*conn.0));
            }
            push_name(out, br#","class":""#, OriginClass::from(origin.class).name());
            drop_first_comma(out, start);
        }
    }
    push(out, b"}");
}

/// Appends the object of a request, but for its last brace.
fn push_api(out: &mut Vec<u8>, fact: &Fact, api: &fact::ApiRequest) {
    let service = api.service(fact.net.as_ref());
    push_name(out, br#","api":{"service":""#, Service::from(service).name());
    push_known(out, br#","method":"#, &api.method);
    push_known(out, br#","path":"#, &api.path);
    push_known(out, br#","route":"#, &api.route);
    push_name(out, br#","class":""#, ApiClass::from(api.class).name());
    push_known(out, br#","version":"#, &api.version);
    if let Some(status) = api.status {
        push_count(out, br#","status":"#, status.into());
    }
    push_known(out, br#","user_agent":"#, &api.user_agent);
    if !api.body_flags.is_empty() {
        push_list(out, br#","body_flags":["#, api.body_flags.iter().map(Risk::name));
    }
    push_known(out, br#","image":"#, &api.image);
    if !api.command.is_empty() {
        push_list(out, br#","command":["#, api.command.iter());
    }
    if let Some(protocol) = api.protocol {
        push_name(out, br#","protocol":""#, Protocol::from(protocol).name());
    }
    push_client(out, api.client.as_deref());
}

/// Appends who is behind a connection, if that is known.
fn push_client(out: &mut Vec<u8>, client: Option<&fact::Client>) {
    let Some(client) = client else { return };
    push(out, br#","client":{"#);
    let start = out.len();
    push_end(out, br#","peer":{"ip":"#, Some(client.end));
    push_known(out, br#","conn":"#, &client.conn.as_ref().map(|conn| conn.0.clone()));
    drop_first_comma(out, start);
    push(out, b"}");
}

/// Appends the object of a runtime's socket, but for its last brace.
fn push_socket(out: &mut Vec<u8>, path: &Option<Arc<str>>, inode: u64, service: Option<fact::Runtime>) {
    push(out, br#","socket":{"#);
    let start = out.len();
    push_known(out, br#","path":"#, path);
    push_count(out, br#","inode":"#, inode);
    if let Some(service) = service {
        push_name(out, br#","service":""#, Runtime::from(service).name());
    }
    drop_first_comma(out, start);
}

/// Appends the object of a TLS client, but for its last brace.
fn push_hello(out: &mut Vec<u8>, hello: &fact::TlsHello) {
    push(out, br#","tls":{"#);
    let start = out.len();
    push_known(out, br#","sni":"#, &hello.sni);
    if !hello.alpn.is_empty() {
        push_list(out, br#","alpn":["#, hello.alpn.iter());
    }
    if !hello.versions.is_empty() {
        push_list(out, br#","versions":["#, hello.versions.iter());
    }
    push_known(out, br#","ja4":"#, &hello.ja4);
    if let Some(flaw) = hello.flaw {
        push_name(out, br#","flaw":""#, HelloFlaw::from(flaw).name());
    }
    if let Some(stack) = hello.stack {
        push_name(out, br#","stack":""#, Stack::from(stack).name());
    }
    drop_first_comma(out, start);
}

/// Appends a key and a list of texts.
fn push_list(out: &mut Vec<u8>, key: &[u8], texts: impl Iterator<Item = impl AsRef<str>>) {
    push(out, key);
    for (index, text) in texts.enumerate() {
        push(out, if index == 0 { b"" } else { b"," });
        push_text(out, text.as_ref());
    }
    push(out, b"]");
}
