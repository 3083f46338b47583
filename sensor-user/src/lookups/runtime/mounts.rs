//! What a mount brings into a container, by the type, source and options of mount(2).

use std::sync::Arc;

use sensor_core::risks::{Mount, MountKind};

/// Most layers of an overlay; the kernel takes 500.
const LAYERS_MAX: usize = 512;
/// File systems on a device, whose source is a path even if it is a relative one.
const ON_DEVICE: &[&str] = &[
    "btrfs", "erofs", "exfat", "ext2", "ext3", "ext4", "f2fs", "hfsplus", "iso9660", "jfs", "msdos", "ntfs",
    "ntfs3", "squashfs", "udf", "vfat", "xfs",
];
/// File systems that have no device, whatever their source is called.
const WITHOUT_DEVICE: &[&str] = &["devpts", "devtmpfs", "mqueue", "proc", "ramfs", "tmpfs"];

/// The mount in the core's terms; nothing when it tells nothing, several for an overlay of several directories.
pub(super) fn read(
    kind: &str,
    source: &str,
    options: &[&str],
    destination: &str,
    place: &dyn Fn(&str) -> Arc<str>,
) -> Vec<Mount> {
    let mode = options.iter().rev().find(|option| matches!(**option, "ro" | "rw" | "rro"));
    let writable = mode.is_none_or(|mode| *mode == "rw");
    let mount = |kind, source, writable| Mount { kind, source, destination: destination.into(), writable };
    let is_bind = kind == "bind" || options.iter().any(|option| matches!(*option, "bind" | "rbind"));
    match kind {
        _ if is_bind && source.is_empty() => Vec::new(),
        _ if is_bind => vec![mount(MountKind::Bind, place(source), writable)],
        "sysfs" => vec![mount(MountKind::Sysfs, Arc::from(""), writable)],
        "cgroup" | "cgroup2" => vec![mount(MountKind::Cgroup, Arc::from(""), writable)],
        // Directories of the host show through it; what is written goes to the upper one.
        "overlay" => {
            let layers =
                options.iter().flat_map(|option| option.split(',')).flat_map(layers).take(LAYERS_MAX);
            layers.map(|(path, upper)| mount(MountKind::Bind, place(path), writable && upper)).collect()
        }
        _ if WITHOUT_DEVICE.contains(&kind) => Vec::new(),
        _ if source.starts_with('/') || ON_DEVICE.contains(&kind) && !source.is_empty() => {
            vec![mount(MountKind::Block, place(source), writable)]
        }
        _ => Vec::new(),
    }
}

/// Directories that an option of an overlay names, and whether what is written goes there.
fn layers(option: &str) -> impl Iterator<Item = (&str, bool)> {
    let (name, paths) = option.split_once('=').unwrap_or_default();
    let upper = name == "upperdir";
    let is_layer = upper || name.starts_with("lowerdir") || name.starts_with("datadir");
    paths.split(':').filter(move |path| is_layer && !path.is_empty()).map(move |path| (path, upper))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_as_text(kind: &str, source: &str, options: &[&str]) -> Vec<String> {
        let found = read(kind, source, options, "/x", &|path| Arc::from(path));
        let text = |mount: &Mount| {
            format!("{:?} {}{}", mount.kind, mount.source, if mount.writable { " rw" } else { "" })
        };
        found.iter().map(text).collect()
    }

    #[test]
    fn binds_are_the_hosts_tree_whatever_their_type() {
        assert_eq!(read_as_text("bind", "/etc", &["ro"]), ["Bind /etc"]);
        assert_eq!(read_as_text("none", "/etc", &["ro", "rbind", "rw"]), ["Bind /etc rw"]);
        assert_eq!(read_as_text("bind", "", &[]), [""; 0]);
    }

    #[test]
    fn file_systems_of_a_device_are_the_devices() {
        assert_eq!(read_as_text("ext4", "/dev/vda1", &["ro"]), ["Block /dev/vda1"]);
        assert_eq!(read_as_text("xfs", "/srv/node", &[]), ["Block /srv/node rw"]);
        assert_eq!(read_as_text("ext4", "node", &[]), ["Block node rw"]);
        assert_eq!(read_as_text("ext4", "", &[]), [""; 0]);
        for (kind, source) in [("tmpfs", "/x"), ("tmpfs", "tmpfs"), ("proc", "proc"), ("nfs", "host:/x")] {
            assert_eq!(read_as_text(kind, source, &["nosuid"]), [""; 0], "{kind}");
        }
    }

    #[test]
    fn every_directory_of_an_overlay_shows_through() {
        let options = ["index=off,lowerdir=/etc:/root", "lowerdir+=/srv", "upperdir=/home/u", "workdir=/w"];
        let expected = ["Bind /etc", "Bind /root", "Bind /srv", "Bind /home/u rw"];
        assert_eq!(read_as_text("overlay", "overlay", &options), expected);
    }
}
