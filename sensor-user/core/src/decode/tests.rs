//! Tests of [`super`]: what the probes write is read, what they cannot have written is refused.

use sensor_common::record::Ring;

use super::*;
use crate::ids::CgroupKey;
use crate::records::{self, Exec, P, bound, ends, v1, v2};

const RUNC: P = P(200, "runc");

fn refused(bytes: &[u8]) -> DecodeError {
    decode(bytes).expect_err("refused")
}

fn with_u16(mut bytes: Vec<u8>, at: usize, value: u16) -> Vec<u8> {
    bytes[at..at + 2].copy_from_slice(&value.to_ne_bytes());
    bytes
}

fn with_u32(mut bytes: Vec<u8>, at: usize, value: u32) -> Vec<u8> {
    bytes[at..at + 4].copy_from_slice(&value.to_ne_bytes());
    bytes
}

#[test]
fn accept_is_read_with_mapped_addresses_as_ipv4() {
    let bytes = records::accept(77, 5, v2(9), ends(("10.0.0.1", 2375), ("2001:db8::1", 4)));
    let (boot_ns, Event::Accept(accept)) = decode(&bytes).expect("decodes") else { panic!("an accept") };
    assert_eq!((boot_ns, accept.conn, accept.cgroup), (77, 5, CgroupKey { hierarchy: 0, id: 9 }));
    assert_eq!(accept.ends.local.ip.to_string(), "10.0.0.1");
    assert_eq!(accept.ends.peer.ip.to_string(), "2001:db8::1");
    assert_eq!((accept.ends.local.port, accept.ends.netns), (2375, 1));
}

#[test]
fn exec_is_read_with_its_tail() {
    let ancestors = [P(1, "systemd"), P(2, "x")];
    let exec = Exec {
        cgroup_name: "docker.service",
        ancestors: &ancestors,
        ns_pid: 7,
        ..Exec::new(1, RUNC, v1(3), "/usr/sbin/runc", &["runc", "list"])
    };
    let (_, Event::Exec(event)) = decode(&exec.bytes()).expect("decodes") else { panic!("an exec") };
    assert_eq!(event.cgroup_name(), b"docker.service");
    assert_eq!(event.filename(), b"/usr/sbin/runc");
    assert_eq!(event.args(), Some(&b"runc\0list\0"[..]));
    assert_eq!(event.ancestors().iter().map(|one| one.key.pid).collect::<Vec<_>>(), [1, 2]);
    assert_eq!((event.ns_pid, event.cgroup.hierarchy, event.truncated()), (7, 8, false));
    assert_eq!(event.task.comm.text(), "runc");
}

#[test]
fn cut_path_of_a_cgroup_is_known_to_be_cut() {
    for (len, truncated) in [(CGROUP_PATH_MAX - 1, false), (CGROUP_PATH_MAX, true)] {
        let bytes = records::cgroup(1, true, v2(9), RUNC, &"a".repeat(len));
        let (_, Event::Cgroup(cgroup)) = decode(&bytes).expect("decodes") else { panic!("a cgroup") };
        assert_eq!((cgroup.made, cgroup.path.len(), cgroup.truncated), (true, len, truncated));
    }
}

#[test]
fn closes_know_who_opened_the_connection() {
    let ends = ends(("10.0.0.1", 1), ("10.0.0.2", 2));
    let read = |task| match decode(&records::close(900, 1, task, v2(1), ends)).expect("decodes") {
        (_, Event::Close(close)) => (close.direction, close.task.map(|task| task.key.pid)),
        other => panic!("a close, not {other:?}"),
    };
    assert_eq!(read(None), (Direction::Inbound, None));
    assert_eq!(read(Some(RUNC)), (Direction::Outbound, Some(200)));
}

#[test]
fn other_abi_version_is_refused() {
    let bytes = with_u16(records::exit(1, RUNC, v2(1), 0), 2, ABI_VERSION + 1);
    assert_eq!(refused(&bytes), DecodeError::Version { found: ABI_VERSION + 1 });
}

#[test]
fn unknown_kind_is_refused_and_not_counted_as_one() {
    let bytes = with_u16(records::exit(1, RUNC, v2(1), 0), 0, 99);
    assert_eq!(refused(&bytes), DecodeError::Kind { code: 99 });
    assert_eq!(kind_of(&bytes), None);
}

#[test]
fn length_must_be_that_of_the_struct() {
    let bytes = records::fork(1, RUNC, P(201, "runc"));
    let len = bytes.len();
    assert!(matches!(refused(&bytes[..len - 1]), DecodeError::Length { .. }));
    assert!(matches!(refused(&with_u32(bytes.clone(), 4, 20)), DecodeError::TooShort { .. }));
    let mut long = bytes.clone();
    long.extend_from_slice(&[0; 8]);
    assert!(decode(&long).is_ok(), "a ring may pad, the header's length counts");
    let claims_more = with_u32(long, 4, len as u32 + 8);
    assert_eq!(refused(&claims_more), DecodeError::Length { found: len + 8, expected: len });
}

#[test]
fn tail_lengths_must_add_up() {
    let bytes = Exec::new(1, RUNC, v2(1), "/bin/runc", &["runc"]).bytes();
    let lengths_at = 16 + 32 + 16 + 16;
    for field in 0..3 {
        let grown = with_u16(bytes.clone(), lengths_at + field * 2, 100);
        assert!(matches!(refused(&grown), DecodeError::Length { .. }), "field {field}");
        let beyond = with_u16(bytes.clone(), lengths_at + field * 2, u16::MAX);
        assert!(matches!(refused(&beyond), DecodeError::Bound { .. }), "field {field}");
    }
    let ancestors = with_u16(bytes, lengths_at + 6, ANCESTORS_MAX as u16 + 1);
    let bound = DecodeError::Bound { field: "ancestors", found: ANCESTORS_MAX + 1, most: ANCESTORS_MAX };
    assert_eq!(refused(&ancestors), bound);
}

#[test]
fn unknown_codes_are_refused() {
    let ends = ends(("10.0.0.1", 1), ("10.0.0.2", 2));
    let close = records::close(900, 1, None, v2(1), ends);
    let at = close.len() - 8;
    assert_eq!(refused(&with_u32(close, at, 9)), DecodeError::Code { field: "direction", code: 9 });
    let connect = records::connect(1, 1, RUNC, v2(1), ends, ConnectStage::Attempted, 0);
    let at = connect.len() - 8;
    assert_eq!(refused(&with_u32(connect, at, 9)), DecodeError::Code { field: "connect stage", code: 9 });
}

#[test]
fn every_kind_has_a_decoder() {
    let ends = ends(("10.0.0.1", 1), ("10.0.0.2", 2));
    let every = [
        records::listener(1, true, 1, RUNC, v2(1), bound("::", 1)),
        records::listener(1, false, 1, RUNC, v2(1), bound("::", 1)),
        records::accept(1, 1, v2(1), ends),
        records::close(900, 1, None, v2(1), ends),
        records::connect(1, 1, RUNC, v2(1), ends, ConnectStage::Failed, 111),
        Exec::new(1, RUNC, v2(1), "/bin/runc", &["runc"]).bytes(),
        records::exit(1, RUNC, v2(1), 0),
        records::fork(1, RUNC, P(201, "runc")),
        records::cgroup(1, true, v2(1), RUNC, "/a"),
        records::cgroup(1, false, v2(1), RUNC, "/a"),
        records::socket_connect(1, RUNC, v2(1), 2),
        records::file_open(1, RUNC, v2(1), 2, "/a"),
        records::accept_task(1, 1, RUNC, v2(1)),
        records::payload(1, 1, v2(10), ends, true, 0, b"x"),
        records::late_accept(1, 1, v2(1), ends),
        records::socket_payload(1, 1, (RUNC, v2(1)), 2, true, 0, b"x"),
        records::hop(1, 1, RUNC, v2(1), ends),
    ];
    for (kind, bytes) in RecordKind::ALL.into_iter().zip(&every) {
        assert_eq!(kind_of(bytes), Some(kind));
        assert!(decode(bytes).is_ok(), "{kind:?}");
    }
    assert_eq!(every.len(), RecordKind::COUNT);
    assert_eq!(Ring::ALL.len(), Ring::COUNT);
}
