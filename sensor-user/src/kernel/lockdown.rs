//! Kernel lockdown.
//!
//! At the level `confidentiality` the kernel refuses every program that reads its memory through a helper, as strings can
//! only be read; programs that only follow typed pointers load. The level `integrity` forbids nothing of ours.

use std::path::Path;

/// Where securityfs tells the level: all levels in a line, the one in force in brackets.
pub const PATH: &str = "/sys/kernel/security/lockdown";

/// Whether programs may not read kernel memory; `false` when the level cannot be read.
pub(super) fn is_confidential(path: &Path) -> bool {
    std::fs::read_to_string(path).is_ok_and(|levels| levels.contains("[confidentiality]"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_level_in_brackets_is_in_force() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("lockdown");
        let in_force = |levels: &str| {
            std::fs::write(&path, levels).expect("writable");
            is_confidential(&path)
        };
        assert!(in_force("none integrity [confidentiality]\n"));
        assert!(!in_force("none [integrity] confidentiality\n"));
        assert!(!in_force("[none] integrity confidentiality\n"));
        assert!(!is_confidential(Path::new("/nonexistent/lockdown")));
    }
}
