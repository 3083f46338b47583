//! Which cgroup hierarchy names a task's cgroup.
//!
//! Runtimes put a container into every hierarchy there is. On a host with version 1 hierarchies the version 2 one may
//! hold all tasks in its root, while the pids controller is used by every runtime; so that one names tasks where it is
//! mounted as version 1. The cgroup of a socket is always one of the version 2 hierarchy.

use std::fs;
use std::path::Path;

use sensor_common::settings::HIERARCHY_V2;

use super::KernelError;

/// The hierarchy that names a task's cgroup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TaskHierarchy {
    /// The version 2 hierarchy.
    V2,
    /// The version 1 hierarchy of the pids controller.
    V1Pids {
        /// Its `hierarchy_id`.
        id: u32,
    },
}

impl TaskHierarchy {
    /// Finds out on this host; `proc` is the mount point of procfs.
    ///
    /// # Errors
    /// When the list of controllers cannot be read.
    pub fn detect(proc: &Path) -> Result<Self, KernelError> {
        let path = proc.join("cgroups");
        match fs::read_to_string(&path) {
            Ok(text) => Ok(Self::from_controllers(&text)),
            // A kernel without version 1 may leave the list out.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Self::V2),
            Err(source) => Err(KernelError::Read { what: path.display().to_string(), source }),
        }
    }

    /// Reads the list of controllers: name, hierarchy, number of cgroups, enabled. Hierarchy 0 is version 2.
    #[must_use]
    pub fn from_controllers(text: &str) -> Self {
        let pids = text.lines().find_map(|line| {
            let mut fields = line.split_whitespace();
            (fields.next() == Some("pids")).then(|| fields.next()?.parse().ok()).flatten()
        });
        match pids {
            None | Some(0) => Self::V2,
            Some(id) => Self::V1Pids { id },
        }
    }

    /// The `hierarchy_id`; 0 is version 2.
    #[must_use]
    pub const fn id(self) -> u32 {
        match self {
            Self::V2 => 0,
            Self::V1Pids { id } => id,
        }
    }

    /// What the probes are told: the controller's index in `css_set.subsys`, or that it is version 2.
    pub(super) const fn controller(self, pids_index: u32) -> u32 {
        match self {
            Self::V2 => HIERARCHY_V2,
            Self::V1Pids { .. } => pids_index,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pids_controller_of_version_1_names_tasks() {
        let hybrid = "#subsys_name\thierarchy\tnum_cgroups\tenabled\nmemory\t4\t10\t1\npids\t8\t61\t1\n";
        assert_eq!(TaskHierarchy::from_controllers(hybrid), TaskHierarchy::V1Pids { id: 8 });
    }

    #[test]
    fn version_2_names_tasks_everywhere_else() {
        for text in ["pids\t0\t61\t1\n", "memory\t4\t10\t1\n", "", "pids\n", "pids\tx\n"] {
            assert_eq!(TaskHierarchy::from_controllers(text), TaskHierarchy::V2, "{text:?}");
        }
    }

    #[test]
    fn a_missing_list_means_version_2() {
        let empty = tempfile::tempdir().expect("a directory");
        assert_eq!(TaskHierarchy::detect(empty.path()).expect("no error"), TaskHierarchy::V2);
    }
}
