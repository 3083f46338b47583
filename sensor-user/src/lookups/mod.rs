//! Answers of the file system: which container, which process, which node.
//!
//! Every root path is injected through [`Roots`]. Nothing here connects to a socket or waits for anybody: state files
//! are opened, checked to be regular and of a bounded size, and read. What is asked of the file system is on behalf of
//! the core, which never touches it.

use std::path::{Path, PathBuf};

pub mod addresses;
pub mod cgroupfs;
pub mod clock;
pub mod confinement;
pub mod credential_files;
pub mod file;
pub mod json;
pub mod mounts;
pub mod node;
pub mod paths;
pub mod procfs;
pub mod program_file;
pub mod runtime;
pub mod runtime_sockets;

/// Where the host's file systems are, as seen by this process.
#[derive(Clone, Debug)]
pub struct Roots {
    /// The host's root directory: `/`, or where it is mounted in a container.
    pub host: PathBuf,
    /// The host's procfs: `/proc`, or where it is mounted in a container.
    pub proc: PathBuf,
}

impl Roots {
    /// Returns the place of an absolute path of the host.
    ///
    /// Components that climb (`..`) are left out, so that the result is always below the root.
    #[must_use]
    pub fn host_path(&self, path: impl AsRef<Path>) -> PathBuf {
        let mut place = self.host.clone();
        place.extend(path.as_ref().components().filter_map(|component| match component {
            std::path::Component::Normal(name) => Some(name),
            _ => None,
        }));
        place
    }
}

impl Default for Roots {
    fn default() -> Self {
        Self { host: PathBuf::from("/"), proc: PathBuf::from("/proc") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_paths_stay_below_the_root() {
        let roots = Roots { host: "/host".into(), ..Roots::default() };
        assert_eq!(roots.host_path("/var/lib/docker"), Path::new("/host/var/lib/docker"));
        assert_eq!(roots.host_path("/../../etc/shadow"), Path::new("/host/etc/shadow"));
        assert_eq!(Roots::default().host_path("/run"), Path::new("/run"));
    }
}
