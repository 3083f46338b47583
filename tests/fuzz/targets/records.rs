//! Kernel records of any content: nothing panics, every line is sound, and the books balance.
#![no_main]

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use sensor_common::ABI_VERSION;
use sensor_common::counters::Fate;
use sensor_common::record::{
    AcceptRecord, AcceptTaskRecord, CgroupRecord, CloseRecord, ConnectRecord, ExecRecord, ExitRecord,
    FileOpenRecord, ForkRecord, HopRecord, ListenerRecord, PayloadRecord, RecordHeader, RecordKind, Ring,
    SocketConnectRecord, SocketPayloadRecord,
};
use sensor_core::decode::{decode, kind_of};
use sensor_core::engine::Output;
use sensor_core::health::KernelCounters;
use sensor_fuzz::{at, check_outputs, engine};

/// What happens to the engine.
#[derive(Arbitrary, Debug)]
enum Step<'a> {
    /// A record whose header is sound, so that its content is looked at.
    Sound { management: bool, kind: u8, boot_ns: u16, content: &'a [u8] },
    /// Bytes.
    Raw { management: bool, bytes: &'a [u8] },
    /// Time passes.
    Pass { ns: u16 },
}

/// Bytes of the fixed part of each kind.
fn fixed_len(kind: RecordKind) -> usize {
    match kind {
        RecordKind::ListenerOpened | RecordKind::ListenerClosed => size_of::<ListenerRecord>(),
        RecordKind::Accept | RecordKind::LateAccept => size_of::<AcceptRecord>(),
        RecordKind::Close => size_of::<CloseRecord>(),
        RecordKind::Connect => size_of::<ConnectRecord>(),
        RecordKind::Exec => size_of::<ExecRecord>(),
        RecordKind::Exit => size_of::<ExitRecord>(),
        RecordKind::Fork => size_of::<ForkRecord>(),
        RecordKind::CgroupMkdir | RecordKind::CgroupRmdir => size_of::<CgroupRecord>(),
        RecordKind::SocketConnect => size_of::<SocketConnectRecord>(),
        RecordKind::FileOpen => size_of::<FileOpenRecord>(),
        RecordKind::AcceptTask => size_of::<AcceptTaskRecord>(),
        RecordKind::Payload => size_of::<PayloadRecord>(),
        RecordKind::Hop => size_of::<HopRecord>(),
        RecordKind::SocketPayload => size_of::<SocketPayloadRecord>(),
    }
}

fn with_header(kind: u8, boot_ns: u64, content: &[u8]) -> Vec<u8> {
    let kind = RecordKind::ALL[usize::from(kind) % RecordKind::COUNT];
    let len = fixed_len(kind).max(size_of::<RecordHeader>() + content.len());
    let mut bytes = vec![0; len];
    bytes[..2].copy_from_slice(&(kind as u16).to_ne_bytes());
    bytes[2..4].copy_from_slice(&ABI_VERSION.to_ne_bytes());
    bytes[4..8].copy_from_slice(&(len as u32).to_ne_bytes());
    bytes[8..16].copy_from_slice(&boot_ns.to_ne_bytes());
    bytes[16..16 + content.len()].copy_from_slice(content);
    bytes
}

fuzz_target!(|steps: Vec<Step<'_>>| {
    let mut engine = engine();
    check_outputs(&mut engine);
    let mut counters = KernelCounters::default();
    let (mut now, mut undecodable) = (1_000_000, 0);
    for step in steps {
        let (management, bytes) = match step {
            Step::Pass { ns } => {
                now += u64::from(ns);
                engine.poll(at(now));
                check_outputs(&mut engine);
                continue;
            }
            Step::Sound { management, kind, boot_ns, content } => {
                (management, with_header(kind, now + u64::from(boot_ns), content))
            }
            Step::Raw { management, bytes } => (management, bytes.to_vec()),
        };
        let ring = if management { Ring::Management } else { Ring::Bulk };
        if let Some(kind) = kind_of(&bytes) {
            counters.records[ring as usize][kind as usize][Fate::Submitted as usize] += 1;
        }
        undecodable += u64::from(decode(&bytes).is_err());
        engine.handle_record(ring, &bytes);
    }
    engine.finish(at(u64::MAX / 4), &counters);
    let Some(Output::Health { health, .. }) = check_outputs(&mut engine) else { panic!("health is last") };
    assert_eq!(health.undecodable, undecodable);
    for balance in &health.balance {
        assert_eq!(balance.produced, balance.received + balance.lost + balance.suppressed);
    }
});
