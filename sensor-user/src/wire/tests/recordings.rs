//! Whatever can be a fact survives a recording, and no damage to one makes its reader panic.

use sensor_core::fact::SocketUse;

use super::*;

mod audit;

fn text() -> impl Strategy<Value = Arc<str>> {
    ".{0,20}".prop_map(Arc::from)
}

fn maybe_text() -> impl Strategy<Value = Option<Arc<str>>> {
    prop::option::of(text())
}

fn any_program() -> impl Strategy<Value = Program> {
    (any::<Option<(u32, u64)>>(), any::<[bool; 4]>(), maybe_text()).prop_map(
        |(file, [deleted, memfd, script, renamed], tool)| Program {
            file: file.map(|(device, inode)| FileKey { device, inode }),
            flags: ExeFlags { deleted, memfd, script },
            tool,
            renamed,
        },
    )
}

fn any_process() -> impl Strategy<Value = Process> {
    let ancestor =
        (any::<u32>(), text(), maybe_text()).prop_map(|(pid, comm, exe)| Ancestor { pid, comm, exe });
    let ids = (any::<u32>(), any::<Option<u32>>(), any::<u64>(), any::<Option<u32>>(), any::<bool>());
    let texts = (text(), maybe_text(), prop::option::of(prop::collection::vec(text(), 0..4)));
    let ancestors = prop::collection::vec(ancestor, 0..4);
    (ids, texts, any_program(), ancestors).prop_map(
        |((pid, ppid, start_ns, uid, truncated), (comm, exe, args), program, ancestors)| Process {
            pid,
            ppid,
            start_ns,
            comm,
            exe,
            args: args.map(Into::into),
            uid,
            program,
            ancestors: ancestors.into(),
            truncated,
        },
    )
}

fn any_container() -> impl Strategy<Value = Container> {
    let runtime = prop::sample::select(&Runtime::ALL[..]);
    let risks = prop::option::of(prop::collection::vec(any_risk(), 0..4));
    (text(), 0..3_u64, runtime, maybe_text(), maybe_text(), maybe_text(), risks, maybe_text()).prop_map(
        |(id, namesake, runtime, name, image, created, risks, cgroup)| {
            let risks = risks.map(Arc::from);
            Container { id, namesake, runtime, name, image, created, risks, cgroup }
        },
    )
}

fn any_risk() -> impl Strategy<Value = Risk> {
    let plain: Vec<_> = Risk::plain_names().filter_map(Risk::from_name).collect();
    let path = || text().prop_map(|text| Arc::from(format!("/{}", text.trim_end_matches('/'))));
    prop_oneof![
        prop::sample::select(plain),
        prop::sample::select(vec!["cap:SYS_ADMIN", "cap:BPF"])
            .prop_map(|name| Risk::from_name(name).unwrap()),
        (path(), any::<bool>()).prop_map(|(path, writable)| Risk::Mount { path, writable }),
        path().prop_map(Risk::Socket),
        path().prop_map(Risk::Device),
    ]
}

fn any_k8s() -> impl Strategy<Value = K8s> {
    (maybe_text(), maybe_text(), maybe_text(), maybe_text(), maybe_text()).prop_map(
        |(namespace, pod, pod_uid, container, service_account)| K8s {
            namespace,
            pod,
            pod_uid,
            container,
            service_account,
        },
    )
}

fn any_end() -> impl Strategy<Value = End> {
    (any::<IpAddr>(), any::<u16>()).prop_map(|(ip, port)| End { ip, port })
}

fn any_net() -> impl Strategy<Value = Net> {
    let end = any_end;
    let direction = prop::sample::select(vec![Direction::Inbound, Direction::Outbound]);
    (end(), end(), direction, prop::sample::select(&Service::ALL[..]), text()).prop_map(
        |(peer, local, direction, service, conn)| Net {
            direction: Some(direction),
            peer: Some(peer),
            local: Some(local),
            service,
            conn: Some(ConnId(conn)),
        },
    )
}

fn any_scan() -> impl Strategy<Value = FactKind> {
    let shape = prop::sample::select(vec![
        ScanShape::Flood,
        ScanShape::HalfOpen,
        ScanShape::Connect,
        ScanShape::NoData,
        ScanShape::Sweep,
    ]);
    (shape, any::<[u64; 6]>()).prop_map(|(shape, [targets, peers, count, suppressed, resumed, window_ns])| {
        FactKind::Scan { shape, targets, peers, count, suppressed, resumed, window_ns }
    })
}

fn any_listener() -> impl Strategy<Value = FactKind> {
    let leads_to = (any::<IpAddr>(), any::<u16>(), prop::sample::select(&Service::ALL[..]))
        .prop_map(|(ip, port, service)| LeadsTo { ip: ip.to_canonical(), port, service });
    let seen = any::<(IpAddr, u64)>().prop_map(|(ip, unix_ns)| PeerSeen { ip: ip.to_canonical(), unix_ns });
    let reach = (1..u64::MAX, any::<u32>(), prop::option::of(seen))
        .prop_map(|(accepts, outside_peers, first)| Reach { accepts, outside_peers, first, last: first });
    let reach = prop::option::of(reach.prop_map(Arc::new));
    (any::<u32>(), prop::option::of(leads_to), reach).prop_map(|(netns, leads_to, reach)| {
        let (state, scope, tls) = (ListenerState::Changed, Scope::Private, Tls::Plaintext);
        FactKind::Listener { state, scope, tls, netns, leads_to, reach }
    })
}

fn any_hello() -> impl Strategy<Value = TlsHello> {
    let texts = || prop::collection::vec(text(), 0..3);
    let flaws = prop::sample::select(vec![Flaw::Cut, Flaw::Malformed, Flaw::Oversized]);
    let stacks = prop::sample::select(vec![Stack::First, Stack::Known, Stack::New]);
    (maybe_text(), texts(), texts(), maybe_text(), prop::option::of(flaws), prop::option::of(stacks))
        .prop_map(|(sni, alpn, versions, ja4, flaw, stack)| TlsHello {
            sni,
            alpn: alpn.into(),
            versions: versions.into(),
            ja4,
            flaw,
            stack,
        })
}

fn any_request() -> impl Strategy<Value = ApiRequest> {
    let texts = || prop::collection::vec(text(), 0..3);
    let target = (maybe_text(), maybe_text(), maybe_text(), maybe_text());
    let body = (prop::collection::vec(any_risk(), 0..4), maybe_text(), texts());
    let protocol = prop::option::of(prop::sample::select(vec![Protocol::Http2, Protocol::Unknown]));
    let runtime = prop::option::of(prop::sample::select(&Runtime::ALL[..]));
    let socket = (maybe_text(), any::<u64>(), runtime, text()).prop_map(|(path, inode, service, conn)| {
        Box::new(SocketUse { path, inode, service, conn: ConnId(conn) })
    });
    let spoken = (protocol, prop::option::of(socket), prop::option::of(any_client()));
    (target, prop::sample::select(&ApiClass::ALL[..]), any::<Option<u16>>(), maybe_text(), body, spoken)
        .prop_map(
            |(
                (method, path, route, version),
                class,
                status,
                user_agent,
                (body_flags, image, command),
                (protocol, socket, client),
            )| {
                let (body_flags, command) = (body_flags.into(), command.into());
                ApiRequest {
                    method,
                    path,
                    route,
                    class,
                    version,
                    status,
                    user_agent,
                    body_flags,
                    image,
                    command,
                    protocol,
                    client,
                    socket,
                }
            },
        )
}

fn any_client() -> impl Strategy<Value = Box<Client>> {
    (maybe_text(), any_end()).prop_map(|(conn, end)| {
        Box::new(Client { end: End { ip: end.ip.to_canonical(), ..end }, conn: conn.map(ConnId) })
    })
}

fn any_kind() -> impl Strategy<Value = FactKind> {
    prop_oneof![
        Just(FactKind::Accept { task: None, client: None, late: false }),
        any_client().prop_map(|client| FactKind::Accept { task: None, client: Some(client), late: false }),
        (any::<(u32, u64)>(), text(), maybe_text()).prop_map(|((pid, start_ns), comm, exe)| {
            FactKind::Accept {
                task: Some(Arc::new(AcceptingTask { pid, start_ns, comm, exe })),
                client: None,
                late: pid % 2 == 1,
            }
        }),
        Just(FactKind::AcceptTask),
        (maybe_text(), any::<u64>(), prop::option::of(prop::sample::select(&Runtime::ALL[..])))
            .prop_map(|(path, inode, service)| FactKind::SocketConnect { path, inode, service }),
        (maybe_text(), prop::sample::select(&CredentialClass::ALL[..]))
            .prop_map(|(path, class)| FactKind::FileRead { path, class }),
        any::<(Option<u64>, u64, u64)>().prop_map(|(duration_ns, bytes_in, bytes_out)| FactKind::Close {
            duration_ns,
            bytes_in,
            bytes_out
        }),
        Just(FactKind::Connect { result: ConnectResult::Unreachable }),
        any_scan(),
        Just(FactKind::Exec { role: ExecRole::Workload }),
        any::<(Option<u8>, Option<u8>)>().prop_map(|(code, signal)| FactKind::Exit { code, signal }),
        (maybe_text(), maybe_text(), prop::collection::vec(text(), 0..3)).prop_map(
            |(conn, request, others)| {
                let origin = Origin {
                    class: OriginClass::Inferred,
                    conn: conn.map(ConnId),
                    request: request.map(RecordId),
                    candidates: others.into_iter().map(ConnId).collect(),
                };
                FactKind::Container { action: ContainerAction::Enriched, origin }
            }
        ),
        any_request().prop_map(|request| FactKind::ApiRequest(Box::new(request))),
        any_hello().prop_map(|hello| FactKind::TlsHello(Arc::new(hello))),
        any_listener(),
        audit::any_request().prop_map(|request| FactKind::Audit(Box::new(request))),
        any::<(bool, bool, bool)>().prop_map(|(mnt, pid, root)| FactKind::Escape(HostSide {
            mnt,
            pid,
            root
        })),
    ]
}

fn any_fact() -> impl Strategy<Value = Fact> {
    let quality = (any::<bool>(), any::<u64>());
    let subject = (any_process(), any_container(), prop::option::of(any_k8s()), any_net());
    (text(), any::<(u64, u64)>(), subject, quality, any_kind()).prop_map(
        |(id, (boot_ns, unix_ns), (process, container, k8s, net), (truncated, lost), kind)| Fact {
            // What a request says of itself is written in the envelope.
            kind: audit::in_envelope(kind, unix_ns, truncated),
            id: RecordId(id),
            at: Timestamp { boot_ns, unix_ns },
            node: node(),
            process: Some(Arc::new(process)),
            container: Some(Arc::new(container)),
            k8s: k8s.map(Arc::new),
            net: Some(net),
            quality: Quality { enrichment: Enrichment::None, truncated, lost },
        },
    )
}

proptest! {
    #[test]
    fn every_fact_survives_a_recording(fact in any_fact(), entry in text()) {
        let judged = matches!(fact.kind, FactKind::Accept { .. } | FactKind::ApiRequest(_) | FactKind::TlsHello(_) | FactKind::Audit(_));
        let verdict = judged.then_some(Verdict::Listed(entry));
        let written = line_of(fact.clone(), verdict);
        prop_assert!(!written.contains('\n'));
        prop_assert_eq!(schema::fits_schema(&written), None);
        prop_assert_eq!(decode(written.as_bytes()), Ok(Recorded::Fact(Box::new(as_read(fact)))));
    }

    #[test]
    fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = decode(&bytes);
    }

    #[test]
    fn no_damage_to_a_line_makes_it_panic(at in 0_usize..1000, byte: u8, cut in any::<bool>()) {
        let mut line = line_of(full_accept(), Some(Verdict::Unlisted)).into_bytes();
        let at = at % line.len();
        line[at] = byte;
        if cut {
            line.truncate(at);
        }
        let _ = decode(&line);
    }
}

#[test]
fn verdicts_are_not_taken_from_the_recording() {
    let listed = line_of(full_accept(), Some(fact::Verdict::Listed("a".into())));
    let unlisted = line_of(full_accept(), Some(fact::Verdict::Unlisted));
    assert_ne!(listed, unlisted);
    assert_eq!(decode(listed.as_bytes()), decode(unlisted.as_bytes()));
}
