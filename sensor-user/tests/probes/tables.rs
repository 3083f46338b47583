//! Maps that another program with the rights for it changes.

use std::os::fd::{AsFd as _, AsRawFd as _, RawFd};

use aya::Pod;
use aya::maps::{Array, HashMap, Map, MapData, loaded_maps};
use quaywatch::kernel::{Options, Probes};
use sensor_common::record::{CgroupId, FileId};
use sensor_common::settings::{PORTS_LEN, cgroup_class, port_flags};
use sensor_core::coverage::{Table, TableState};
use sensor_core::ids::{CgroupKey, FileKey};

/// What nobody else has in maps of these names: by it those of a test are known.
struct Keys {
    port: u16,
    file: FileKey,
    cgroup: CgroupKey,
    tool: &'static str,
}

const CHANGED: Keys = keys(21_990, "tables-changed");
const FROZEN: Keys = keys(21_997, "tables-frozen");

/// Keys beyond every number that the kernel gives.
const fn keys(port: u16, tool: &'static str) -> Keys {
    let number = u64::MAX - port as u64;
    Keys {
        port,
        file: FileKey { device: u32::MAX, inode: number },
        cgroup: CgroupKey { hierarchy: 0, id: number },
        tool,
    }
}

/// Every map of this name, of which the kernel keeps fifteen bytes.
fn maps(name: &str) -> impl Iterator<Item = MapData> {
    let name = name.get(..15).unwrap_or(name);
    let ids: Vec<u32> = loaded_maps()
        .filter_map(Result::ok)
        .filter(|info| info.name_as_str() == Some(name))
        .map(|info| info.id())
        .collect();
    // Those of other tests may go meanwhile.
    ids.into_iter().filter_map(|id| MapData::from_id(id).ok())
}

/// The map of this name that has this key.
fn with_key<K: Pod>(name: &str, key: K) -> HashMap<MapData, K, u8> {
    with_key_and_descriptor(name, key).0
}

/// The same, and its descriptor, which is its own.
fn with_key_and_descriptor<K: Pod>(name: &str, key: K) -> (HashMap<MapData, K, u8>, RawFd) {
    let typed = maps(name).map(|map| {
        let descriptor = map.fd().as_fd().as_raw_fd();
        (HashMap::try_from(Map::HashMap(map)).expect("keys of that type"), descriptor)
    });
    let is_ours = |(map, _): &(HashMap<_, K, u8>, _)| map.get(&key, 0).is_ok();
    typed.into_iter().find(is_ours).expect("the map of this test")
}

fn ports(port: u16) -> Array<MapData, [u8; PORTS_LEN]> {
    let typed = maps("PORTS").map(|map| Array::try_from(Map::Array(map)).expect("ports"));
    let is_ours = |map: &Array<MapData, [u8; PORTS_LEN]>| {
        map.get(&0, 0).is_ok_and(|flags| flags[usize::from(port)] & port_flags::WATCHED != 0)
    };
    typed.into_iter().find(is_ours).expect("the map of this test")
}

fn load(keys: &Keys) -> Probes {
    let mut probes =
        Probes::load(&Options::default()).unwrap_or_else(|error| panic!("{:#}", anyhow::Error::new(error)));
    probes.set_ports([(keys.port, port_flags::WATCHED)]).expect("ports");
    probes.set_tools([keys.tool]).expect("tools");
    probes.classify_cgroup(keys.cgroup, cgroup_class::CONTAINER).expect("cgroups");
    probes.set_runtime_sockets([(keys.file, false)]).expect("sockets");
    probes.set_credential_places([keys.file]).expect("places");
    probes
}

/// What is not as it was written.
fn changed(probes: &mut Probes) -> Vec<(Table, TableState)> {
    let mut found = probes.check_tables().expect("readable");
    found.retain(|(_, state)| *state != TableState::Same);
    found
}

#[test]
fn what_another_program_changes_is_noticed_and_written_again() {
    let mut probes = load(&CHANGED);
    assert_eq!(changed(&mut probes), [], "as written");

    let mut map = ports(CHANGED.port);
    map.set(0, [0; PORTS_LEN], 0).expect("a right");
    assert_eq!(changed(&mut probes), [(Table::Ports, TableState::Repaired)]);
    assert_eq!(
        ports(CHANGED.port).get(&0, 0).expect("readable")[usize::from(CHANGED.port)] & port_flags::WATCHED,
        1
    );

    let cgroup = CgroupId { id: CHANGED.cgroup.id, hierarchy: CHANGED.cgroup.hierarchy, reserved: 0 };
    let mut map = with_key("CGROUPS", cgroup);
    map.insert(cgroup, cgroup_class::HOST, 0).expect("a right");
    assert_eq!(changed(&mut probes), [(Table::Cgroups, TableState::Repaired)]);
    assert_eq!(map.get(&cgroup, 0).expect("it is there"), cgroup_class::CONTAINER);
    let other = CgroupId { id: 7, ..cgroup };
    map.insert(other, cgroup_class::HOST, 0).expect("a right");
    assert_eq!(changed(&mut probes), [(Table::Cgroups, TableState::Repaired)]);
    assert!(map.get(&other, 0).is_err(), "of nobody knows what");

    let file = FileId::from(CHANGED.file);
    for (name, table) in
        [("RUNTIME_SOCKETS", Table::RuntimeSockets), ("CREDENTIAL_PLACES", Table::CredentialPlaces)]
    {
        let mut map = with_key(name, file);
        map.remove(&file).expect("a right");
        assert_eq!(changed(&mut probes), [(table, TableState::Repaired)]);
        assert!(map.get(&file, 0).is_ok(), "{name}");
    }

    let mut name = [0; 16];
    name[..CHANGED.tool.len()].copy_from_slice(CHANGED.tool.as_bytes());
    let mut map = with_key("TOOLS", name);
    map.remove(&name).expect("a right");
    assert_eq!(changed(&mut probes), [(Table::Tools, TableState::Repaired)]);
    assert_eq!(changed(&mut probes), [], "as written again");

    // What is written on purpose is no change.
    probes.watch_port(CHANGED.port + 1, sensor_core::engine::Depth::Accepts).expect("ports");
    probes.set_runtime_sockets([]).expect("sockets");
    probes.forget_cgroup(CHANGED.cgroup);
    assert_eq!(changed(&mut probes), []);
}

#[test]
fn what_cannot_be_written_again_is_said() {
    /// `BPF_MAP_FREEZE`.
    const FREEZE: libc::c_long = 22;
    let mut probes = load(&FROZEN);
    let (mut map, descriptor) = with_key_and_descriptor("RUNTIME_SOCKETS", FileId::from(FROZEN.file));
    map.remove(&FileId::from(FROZEN.file)).expect("a right");
    // SAFETY: the kernel reads one number.
    let frozen = unsafe { libc::syscall(libc::SYS_bpf, FREEZE, &raw const descriptor, size_of::<i32>()) };
    assert_eq!(frozen, 0, "{}", std::io::Error::last_os_error());
    for _ in 0..2 {
        assert_eq!(changed(&mut probes), [(Table::RuntimeSockets, TableState::Stuck)]);
    }
}
