//! Loads the embedded object: resolves offsets, completes the programs with them, sizes and creates maps.

use std::fs;
use std::path::{Path, PathBuf};

use aya::{Btf as AyaBtf, Ebpf, EbpfLoader, Endianness};
use sensor_common::offsets::{ABSENT, Offsets};
use sensor_common::record::ARGS_MAX;
use sensor_common::settings::Settings;
use zerocopy::IntoBytes as _;

use super::btf::{self, Btf};
use super::cgroup_root::CgroupRoot;
use super::constants::complete;
use super::flood::{FloodLimits, draw_salt};
use super::hooks::TABLE;
use super::lockdown::{self, Lockdown};
use super::programs::{Programs, Surroundings};
use super::{KernelError, TaskHierarchy, security_modules};

/// The probes, built by the build script.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/quaywatch-probes"));

/// First kernel with the BPF ring buffer.
pub const FIRST_KERNEL: (u32, u32) = (5, 8);
/// First kernel that does not run a program of our kind on a CPU where it is running already.
const FIRST_WITHOUT_NESTING: (u32, u32) = (6, 1);
/// Smallest ring buffer: a page.
const RING_OFF: u32 = 4096;

/// Members that not every supported kernel has; the probes test for them.
const OPTIONAL: &[&str] = &[
    "sk_v6_daddr",
    "sk_v6_rcv_saddr",
    "sk_cgroup",
    "sk_cgroup_tagged",
    "pids_subsys",
    "helper_current_task_btf",
    "helper_socket_cookie",
    "exit_args",
    "file_mode",
    "file_path",
    "file_dentry",
    "dentry_parent",
    "dentry_inode",
    "inode_number",
    "sb_device",
    "unix_dentry",
    "unix_peer",
    "sk_receive_queue",
    "sk_receive_last",
    "skb_len",
    "skb_data_len",
    "skb_data",
    "skb_sk",
    "regs_call",
    "regs_second",
    "regs_third",
    "helper_task_pt_regs",
];

/// What the probes are loaded with.
#[derive(Clone, Debug)]
pub struct Options {
    /// Bytes of the ring for management-plane records; rounded up to a power of two pages.
    pub management_bytes: u32,
    /// Bytes of the ring for all other records; likewise.
    pub bulk_bytes: u32,
    /// Most bytes of arguments per exec, at most [`ARGS_MAX`].
    pub args_max: u32,
    /// What flood control lets through.
    pub flood: FloodLimits,
    /// Lets the probes write their own debug log.
    pub debug: bool,
    /// Type information of the running kernel.
    pub btf: PathBuf,
    /// Mount point of procfs.
    pub proc: PathBuf,
    /// The kernel's list of active security modules.
    pub security_modules: PathBuf,
    /// Where the level of the kernel's lockdown is told.
    pub lockdown: PathBuf,
    /// Where the root of the version 2 cgroups is mounted, if it is.
    pub cgroups: Option<PathBuf>,
    /// Where it is not, it is mounted for the sensor only.
    pub private_cgroups: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            management_bytes: 2 << 20,
            bulk_bytes: 2 << 20,
            args_max: ARGS_MAX as u32,
            flood: FloodLimits::default(),
            debug: false,
            btf: PathBuf::from(btf::PATH),
            proc: PathBuf::from("/proc"),
            security_modules: PathBuf::from(security_modules::PATH),
            lockdown: PathBuf::from(lockdown::PATH),
            cgroups: None,
            private_cgroups: false,
        }
    }
}

/// A loaded object whose programs are not loaded yet.
pub(super) struct Loaded {
    pub(super) ebpf: Ebpf,
    pub(super) hierarchy: TaskHierarchy,
    pub(super) types: KernelTypes,
}

/// Type information of the running kernel. Large: not kept once the programs are loaded.
pub(super) struct KernelTypes(Vec<u8>);

impl KernelTypes {
    fn read(path: &Path) -> Result<Self, KernelError> {
        fs::read(path).map(Self).map_err(|source| match source.kind() {
            std::io::ErrorKind::PermissionDenied => {
                KernelError::NoPermission { what: format!("read {}", path.display()), source }
            }
            _ => KernelError::NoTypeInformation { path: path.to_owned(), source },
        })
    }

    /// Loads the programs of the object.
    pub(super) fn load_programs(&self, ebpf: Ebpf, options: &Options) -> Result<Programs, KernelError> {
        let types = Btf::parse(&self.0)?;
        // The loader reads every type, and every name for each program: what it need not find is left out.
        let names: Vec<String> = TABLE.iter().filter_map(|spec| spec.attach.type_name()).collect();
        let btf = AyaBtf::parse(&types.extract(&names), Endianness::default())
            .map_err(|error| KernelError::Object(Box::new(aya::EbpfError::BtfError(error))))?;
        let around = Surroundings {
            btf: &btf,
            parameters: &|function| types.resolve(&format!("args:{function}")),
            security_modules: &options.security_modules,
            lockdown: Lockdown::read(&options.lockdown),
            cgroups: match &options.cgroups {
                Some(path) => CgroupRoot::Mounted(path.clone()),
                None if options.private_cgroups => CgroupRoot::private(),
                None => CgroupRoot::Nowhere("nobody asked to mount it".to_owned()),
            },
        };
        Programs::load(ebpf, around)
    }
}

/// Loads the object and creates its maps.
pub(super) fn load(options: &Options) -> Result<Loaded, KernelError> {
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    let version = check_release(&release)?;
    let types = KernelTypes::read(&options.btf)?;
    let offsets = resolve(&Btf::parse(&types.0)?)?;
    let hierarchy = TaskHierarchy::detect(&options.proc)?;
    let salt = draw_salt().map_err(|source| KernelError::Read { what: "random bytes".to_owned(), source })?;
    let settings = Settings {
        task_hierarchy: hierarchy.controller(offsets.pids_subsys),
        task_hierarchy_id: hierarchy.id(),
        args_max: options.args_max.min(ARGS_MAX as u32),
        programs_nest: u32::from(version < FIRST_WITHOUT_NESTING),
        flood_burst: options.flood.burst,
        flood_interval_ns: options.flood.interval_ns(),
        flood_salt: salt as u32,
        flood_salt_upper: (salt >> 32) as u32,
        reads_kernel: u32::from(lockdown::may_read_kernel(&options.lockdown)),
    };
    // Level 0 is below every level: the verifier removes the lines.
    let log_level = if options.debug { aya_log::Level::Debug as u8 } else { 0 };

    let mut loader = EbpfLoader::new();
    loader
        // The object has no relocations against the kernel's types, so the loader need not read them.
        .btf(None)
        .override_global(aya_log::LEVEL, &log_level, false)
        .map_max_entries("RING_MANAGEMENT", options.management_bytes)
        .map_max_entries("RING_BULK", options.bulk_bytes);
    if offsets.helper_socket_cookie != ABSENT {
        // Sockets have numbers of their own: the table is not used.
        loader.map_max_entries("ACCEPTED", 1);
    }
    if !options.debug {
        loader.map_max_entries("AYA_LOGS", RING_OFF);
    }
    let object = complete(OBJECT, &offsets, &settings)?;
    let ebpf = loader.load(object.as_bytes()).map_err(KernelError::from_object)?;
    Ok(Loaded { ebpf, hierarchy, types })
}

/// Returns major and minor version of a kernel that has all that the probes are made of.
fn check_release(release: &str) -> Result<(u32, u32), KernelError> {
    let mut numbers =
        release.split(|char: char| !char.is_ascii_digit()).map_while(|number| number.parse().ok());
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    if version < FIRST_KERNEL { Err(KernelError::TooOld { found: release.to_owned() }) } else { Ok(version) }
}

/// Resolves every offset, and insists on those the probes cannot do without.
fn resolve(btf: &Btf<'_>) -> Result<Offsets, KernelError> {
    let mut missing = None;
    let offsets = Offsets::resolve(|field, question| {
        btf.resolve(question).unwrap_or_else(|| {
            if !OPTIONAL.contains(&field) {
                missing = missing.or(Some(question));
            }
            ABSENT
        })
    });
    if offsets.sk_cgroup == ABSENT && offsets.sk_cgroup_tagged == ABSENT {
        missing = missing.or(Some("sock.sk_cgrp_data"));
    }
    match missing {
        Some(member) => Err(KernelError::NoMember { member }),
        None => Ok(offsets),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernels_before_the_ring_buffer_are_refused_by_name() {
        for release in ["5.7.19", "4.19.0-26-amd64", "3.10.0-1160.el7", "nonsense"] {
            let error = check_release(release).expect_err(release);
            assert!(error.is_unsupported() && error.to_string().contains(release), "{error}");
        }
        for release in ["5.8.0", "5.10.0-30-cloud-amd64", "6.18.44-fc", "7.3.4", "10.0"] {
            check_release(release).expect(release);
        }
    }

    #[test]
    fn missing_type_information_names_the_remedy() {
        let error = KernelTypes::read(Path::new("/nonexistent/vmlinux")).err().expect("no file");
        assert!(error.is_unsupported());
        assert!(error.to_string().contains("CONFIG_DEBUG_INFO_BTF"), "{error}");
    }

    #[test]
    fn optional_members_are_members() {
        for name in OPTIONAL {
            assert!(Offsets::TABLE.iter().any(|(field, _)| field == name), "{name}");
        }
    }

    #[test]
    fn a_kernel_whose_structures_changed_is_refused_with_the_member() {
        let types = btf::PATH;
        let Ok(types) = fs::read(types) else { panic!("this test needs {types}") };
        let offsets = resolve(&Btf::parse(&types).expect("sound")).expect("a supported kernel");
        assert_ne!(offsets.task_tgid, ABSENT);

        let empty = [0x9f, 0xeb, 1, 0, 24, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0];
        let error = resolve(&Btf::parse(&empty).expect("sound")).expect_err("nothing in it");
        assert!(matches!(error, KernelError::NoMember { member: "sock_common.skc_family" }), "{error}");
    }
}
