//! Whatever the bytes: nothing panics, and every record is accounted for.

use proptest::prelude::*;
use sensor_common::counters::Fate;
use sensor_common::record::{ConnectStage, RecordKind, Ring};
use sensor_core::decode::{decode, kind_of};
use sensor_core::engine::Output;
use sensor_core::health::KernelCounters;

use crate::records::{self, Exec, P, bound, ends, v2};
use crate::{at, ready_engine};

/// A sound record of each kind, with pids, cgroups and times from few values so that they refer to each other.
fn sound(kind: RecordKind, boot_ns: u64, small: u8) -> Vec<u8> {
    let task = P(
        u32::from(small % 5) + 1,
        ["sh", "runc", "dockerd", "containerd-shim", "conmon"][usize::from(small % 5)],
    );
    let cgroup = v2(u64::from(small % 7));
    let ends_of = ends(("10.0.0.1", 2375), ("198.18.0.9", u16::from(small)));
    let path = ["/docker", "/free", "/docker/x", "/system.slice/a-free.scope"][usize::from(small % 4)];
    let boot_ns = boot_ns + 500;
    match kind {
        RecordKind::ListenerOpened => {
            records::listener(boot_ns, true, u64::from(small % 3), task, cgroup, bound("::", 2375))
        }
        RecordKind::ListenerClosed => {
            records::listener(boot_ns, false, u64::from(small % 3), task, cgroup, bound("::", 2375))
        }
        RecordKind::Accept => records::accept(boot_ns, u64::from(small % 4), cgroup, ends_of),
        RecordKind::LateAccept => records::late_accept(boot_ns, u64::from(small % 4), cgroup, ends_of),
        RecordKind::Close => records::close(
            boot_ns,
            u64::from(small % 4),
            small.is_multiple_of(2).then_some(task),
            cgroup,
            ends_of,
        ),
        RecordKind::Connect => records::connect(
            boot_ns,
            u64::from(small % 4),
            task,
            cgroup,
            ends_of,
            ConnectStage::Established,
            0,
        ),
        RecordKind::Exec => {
            let verb = ["create", "run", "exec", "delete", "init"][usize::from(small % 5)];
            Exec {
                cgroup_name: "a-free.scope",
                ..Exec::new(boot_ns, task, cgroup, "/usr/bin/runc", &["runc", verb, "free"])
            }
            .bytes()
        }
        RecordKind::Exit => records::exit(boot_ns, task, cgroup, 0),
        RecordKind::Fork => records::fork(boot_ns, task, P(u32::from(small % 3) + 4, "sh")),
        RecordKind::CgroupMkdir => records::cgroup(boot_ns, true, cgroup, task, path),
        RecordKind::CgroupRmdir => records::cgroup(boot_ns, false, cgroup, task, path),
        RecordKind::SocketConnect => records::socket_connect(boot_ns, task, cgroup, u64::from(small % 3)),
        RecordKind::FileOpen => records::file_open(boot_ns, task, cgroup, u64::from(small % 3), path),
        RecordKind::AcceptTask => records::accept_task(boot_ns, u64::from(small % 4), task, cgroup),
        RecordKind::Hop => records::hop(boot_ns, u64::from(small % 4), task, cgroup, ends_of),
        RecordKind::Payload | RecordKind::SocketPayload => {
            let text = [
                "POST /containers/create HTTP/1.1\r\n\r\n",
                "HTTP/1.1 201 Created\r\nContent-Length: 9\r\n\r\n",
            ];
            let to_peer = small % 2 == 1;
            let (conn, offset) = (u64::from(small % 4), u64::from(small / 16));
            let text = text[usize::from(to_peer)].as_bytes();
            if kind == RecordKind::Payload {
                records::payload(boot_ns, conn, v2(10), ends_of, to_peer, offset, text)
            } else {
                records::socket_payload(boot_ns, conn, (task, cgroup), 1, to_peer, offset, text)
            }
        }
    }
}

fn sound_record() -> impl Strategy<Value = Vec<u8>> {
    let kind = proptest::sample::select(RecordKind::ALL.to_vec());
    (kind, 0_u64..10_000, any::<u8>()).prop_map(|(kind, boot_ns, small)| sound(kind, boot_ns, small))
}

/// A sound record with some bytes overwritten or cut off.
fn damaged_record() -> impl Strategy<Value = Vec<u8>> {
    let damage = proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..8);
    (sound_record(), damage, any::<prop::sample::Index>(), any::<bool>()).prop_map(
        |(mut bytes, damage, end, cut)| {
            for (position, value) in damage {
                let position = position.index(bytes.len());
                bytes[position] = value;
            }
            if cut {
                bytes.truncate(end.index(bytes.len() + 1));
            }
            bytes
        },
    )
}

fn any_record() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        4 => sound_record(),
        4 => damaged_record(),
        1 => proptest::collection::vec(any::<u8>(), 0..600),
    ]
}

fn ring() -> impl Strategy<Value = Ring> {
    proptest::sample::select(Ring::ALL.to_vec())
}

proptest! {
    #[test]
    fn decoding_never_panics_and_reads_what_the_header_says(bytes in any_record()) {
        if decode(&bytes).is_ok() {
            prop_assert!(kind_of(&bytes).is_some());
            let len = u32::from_ne_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]) as usize;
            prop_assert!(len <= bytes.len());
            // Nothing beyond the length in the header is read.
            prop_assert_eq!(decode(&bytes), decode(&bytes[..len]));
        }
    }

    #[test]
    fn engine_survives_any_records_and_balances(
        records in proptest::collection::vec((ring(), any_record(), any::<bool>()), 0..200),
        lost in proptest::collection::vec((ring(), 0..RecordKind::COUNT, 0_u64..9, 0_u64..9), 0..8),
    ) {
        let mut engine = ready_engine();
        let mut counters = KernelCounters::default();
        let mut undecodable = 0;
        for (now, (ring, bytes, poll)) in records.iter().enumerate() {
            if let Some(kind) = kind_of(bytes) {
                counters.records[*ring as usize][kind as usize][Fate::Submitted as usize] += 1;
            }
            undecodable += u64::from(decode(bytes).is_err());
            engine.handle_record(*ring, bytes);
            if *poll {
                engine.poll(at(now as u64 * 100));
            }
        }
        for (ring, kind, lost, suppressed) in lost {
            let fates = &mut counters.records[ring as usize][kind];
            fates[Fate::Lost as usize] += lost;
            fates[Fate::Suppressed as usize] += suppressed;
        }
        engine.finish(at(u64::MAX / 4), &counters);

        let outputs: Vec<_> = std::iter::from_fn(|| engine.next_output()).collect();
        for (index, output) in outputs.iter().enumerate() {
            let (Output::Fact { seq, .. }
            | Output::Health { seq, .. }
            | Output::Signal { seq, .. }
            | Output::Finding { seq, .. }) = output;
            prop_assert_eq!(*seq, index as u64 + 1, "no gaps after the ready record");
        }
        let Some(Output::Health { health, .. }) = outputs.last() else { panic!("health is last") };
        prop_assert_eq!(health.undecodable, undecodable);
        prop_assert_eq!(health.emitted, Some(outputs.len() as u64 + 1));
        for balance in &health.balance {
            prop_assert_eq!(balance.produced, balance.received + balance.lost + balance.suppressed);
        }
        let received: u64 = health.balance.iter().map(|balance| balance.received).sum();
        prop_assert_eq!(received, records.iter().filter(|(_, bytes, _)| kind_of(bytes).is_some()).count() as u64);
    }

    #[test]
    fn same_records_give_the_same_output(
        records in proptest::collection::vec((ring(), any_record()), 0..100),
    ) {
        let run = || {
            let mut engine = ready_engine();
            for (now, (ring, bytes)) in records.iter().enumerate() {
                engine.handle_record(*ring, bytes);
                engine.poll(at(now as u64 * 200));
            }
            engine.finish(at(u64::MAX / 4), &KernelCounters::default());
            let outputs: Vec<_> = std::iter::from_fn(|| engine.next_output()).collect();
            let requests: Vec<_> = std::iter::from_fn(|| engine.next_request()).collect();
            (outputs, requests)
        };
        prop_assert_eq!(run(), run());
    }
}
