//! Compile-time proof that the layouts are what the other side expects.

use crate::flood::{Counts, Peer, Port, PortKey};
use crate::record::{
    AcceptRecord, AcceptTaskRecord, Ancestor, CgroupId, CgroupRecord, CloseRecord, ConnectRecord, Endpoints,
    ExecRecord, ExitRecord, FILE_PATH_MAX, FileId, FileOpenRecord, ForkRecord, HopRecord, ListenerItem,
    ListenerRecord, PayloadRecord, RecordHeader, SocketConnectRecord, TaskId, TaskItem,
};

macro_rules! assert_size {
    ($($ty:ty = $size:expr),* $(,)?) => { $(const _: () = assert!(size_of::<$ty>() == $size && align_of::<$ty>() <= 8);)* };
}

assert_size! {
    RecordHeader = 16,
    CgroupId = 16,
    TaskId = 32,
    Ancestor = 32,
    Endpoints = 40,
    ListenerRecord = 16 + 8 + 16 + 32 + 16 + 40,
    AcceptRecord = 16 + 8 + 16 + 40,
    CloseRecord = 16 + 8 * 4 + 16 + 32 + 40 + 8,
    ConnectRecord = 16 + 16 + 32 + 16 + 40 + 8,
    ExecRecord = 16 + 32 + 16 + 16 + 8 + 8 + 16 + 8 + 16 + 6 * 32,
    ExitRecord = 16 + 32 + 16 + 8,
    ForkRecord = 16 + 32 + 16,
    CgroupRecord = 16 + 16 + 32 + 8,
    FileId = 16,
    SocketConnectRecord = 16 + 32 + 16 + 16,
    FileOpenRecord = 16 + 32 + 16 + 16 + 8 + FILE_PATH_MAX,
    AcceptTaskRecord = 16 + 8 + 32 + 16,
    HopRecord = 16 + 8 + 32 + 16 + 40,
    PayloadRecord = 16 + 3 * 8 + 16 + 40 + 16,
    ListenerItem = 8 + 16 + 32 + 16 + 40,
    TaskItem = 32 + 16 + 16,
    PortKey = 8,
    Counts = 4 * 8,
    Peer = 16 + 8 + 3 * 8 + 32,
    Port = 16 + 2 * 8 + 32 + 2 * 8,
}
