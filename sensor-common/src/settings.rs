//! What the agent tells the probes.

/// Flags of one port in the `PORTS` map.
pub mod port_flags {
    /// Listeners and accepts on this port are reported.
    pub const WATCHED: u8 = 1;
    /// Connect attempts towards this port are reported before their result is known.
    pub const LATERAL: u8 = 1 << 1;
    /// The port was watched at some time of this run: connections accepted on it may still be open. Set by the loader.
    pub const TRACKED: u8 = 1 << 2;
    /// The agent connects to itself on this port, to see whether it sees itself: connects towards it are reported whoever
    /// makes them.
    pub const CANARY: u8 = 1 << 3;
    /// Listeners on this port are reported whoever opens them, but not what comes to them: a daemon has listened there.
    pub const LISTENERS: u8 = 1 << 4;
    /// What is said on this port is read: it is watched, and spoken in plaintext.
    pub const PLAINTEXT: u8 = 1 << 5;
    /// What is said first on this port is read: it is watched, and spoken in TLS.
    pub const ENCRYPTED: u8 = 1 << 6;
}

/// The value of the `PORTS` map: [`port_flags`] indexed by port.
pub const PORTS_LEN: usize = 65536;

/// Class of a cgroup in the `CGROUPS` map. A cgroup that is not in the map is treated as a container's, so that nothing
/// of a container is missed before the agent has seen it.
pub mod cgroup_class {
    /// Belongs to the host: its connects are of no interest unless a runtime process makes them.
    pub const HOST: u8 = 1;
    /// Belongs to a container.
    pub const CONTAINER: u8 = 2;
}

/// Values of the `RUNTIME_PROCESSES` map, which is keyed by tgid.
pub mod runtime_process {
    /// Executes a program of the `TOOLS` map, or the agent says that it is a runtime process.
    pub const TOOL: u8 = 1;
    /// Forked by a runtime process and has not executed another program yet.
    pub const FORKED: u8 = 2;
}

/// Values of the `RUNTIME_SOCKETS` map.
pub mod runtime_socket {
    /// Connects are reported.
    pub const WATCHED: u8 = 1;
    /// And what is said is read: requests to an API over HTTP.
    pub const REQUESTS: u8 = 2;
}

/// Most sockets in the `RUNTIME_SOCKETS` map, beside [`OWN_FILES`].
pub const RUNTIME_SOCKETS_MAX: u32 = 256;
/// Most places in the `CREDENTIAL_PLACES` map, beside [`OWN_FILES`]: several tokens for each pod that a node can hold.
pub const CREDENTIAL_PLACES_MAX: u32 = 4096;
/// Files of the agent's own in each of these maps, by which it sees whether it sees them.
pub const OWN_FILES: u32 = 1;

/// The filter in front of the `CREDENTIAL_PLACES` map: nearly all files that are opened on a node are no credentials, and
/// this says so without a lookup.
pub mod place_filter {
    use crate::record::FileId;

    /// Words in the value of the `CREDENTIAL_FILTER` map.
    pub const WORDS: usize = 64;

    /// Returns word and bit of a place; both are set when the place is entered in the map.
    #[must_use]
    #[inline(always)]
    pub const fn bit(place: &FileId) -> (usize, u64) {
        // Inode numbers and device numbers are small and close to each other; multiplied, they differ in the upper bits.
        let mixed = (place.inode ^ (place.device as u64) << 40).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        ((mixed >> 58) as usize % WORDS, 1 << (mixed >> 52 & 63))
    }
}

/// Id of the root cgroup in every hierarchy (`kernfs_create_root` gives its first node this number). It belongs to the
/// host, whether the agent has said so or not.
pub const ROOT_CGROUP: u64 = 1;

/// Value of [`Settings::task_hierarchy`] for the version 2 hierarchy.
pub const HIERARCHY_V2: u32 = u32::MAX;

/// Constants set before load.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Which hierarchy names a task's cgroup: [`HIERARCHY_V2`] or the index of a version 1 controller in
    /// `css_set.subsys`.
    pub task_hierarchy: u32,
    /// The same hierarchy as `cgroup_root.hierarchy_id`; cgroup records of other version 1 hierarchies are not sent.
    pub task_hierarchy_id: u32,
    /// Bytes of arguments to copy, at most [`crate::record::ARGS_MAX`].
    pub args_max: u32,
    /// Not zero where the kernel lets a program interrupt itself on a CPU, before 6.1: the probes then count with atomic
    /// instructions, which wait for every store before them.
    pub programs_nest: u32,
    /// Accepts in a row that are reported of one peer at one port, see [`crate::flood`].
    pub flood_burst: u32,
    /// Nanoseconds after which one more is reported.
    pub flood_interval_ns: u32,
    /// Drawn for each run, so that nobody can choose which places in the tables of flood control he gets; the lower half.
    pub flood_salt: u32,
    /// Its upper half.
    pub flood_salt_upper: u32,
    /// Not zero where helpers may read memory of the kernel, which lockdown can forbid: who connects to a watched port is then
    /// looked at more closely, see [`crate::record::HopRecord`].
    pub reads_kernel: u32,
}

impl Settings {
    /// The settings of a version 2 host.
    pub const DEFAULT: Self = Self {
        task_hierarchy: HIERARCHY_V2,
        task_hierarchy_id: 0,
        args_max: crate::record::ARGS_MAX as u32,
        programs_nest: 1,
        flood_burst: 64,
        flood_interval_ns: 1_000_000_000 / 32,
        flood_salt: 0,
        flood_salt_upper: 0,
        reads_kernel: 1,
    };

    /// The settings as [`crate::placeholder`] numbers them.
    #[must_use]
    pub const fn words(&self) -> [u32; crate::placeholder::SETTINGS_LEN] {
        let Self {
            task_hierarchy,
            task_hierarchy_id,
            args_max,
            programs_nest,
            flood_burst,
            flood_interval_ns,
            flood_salt,
            flood_salt_upper,
            reads_kernel,
        } = *self;
        [
            task_hierarchy,
            task_hierarchy_id,
            args_max,
            programs_nest,
            flood_burst,
            flood_interval_ns,
            flood_salt,
            flood_salt_upper,
            reads_kernel,
        ]
    }
}
