//! Which security modules are active.
//!
//! A kernel without `bpf` among them loads and attaches LSM programs all the same, and never runs them.

use std::path::Path;
use std::sync::Arc;

/// Where securityfs lists the active security modules.
pub const PATH: &str = "/sys/kernel/security/lsm";

/// Tells why an LSM program would not run, or might not, as far as the list at `path` says.
pub(super) fn check(path: &Path) -> Result<(), Arc<str>> {
    match std::fs::read_to_string(path) {
        Ok(list) => check_list(&list),
        Err(error) => Err(format!(
            "{} cannot be read ({error}), so that nobody knows whether the kernel would run the program: mount securityfs",
            path.display()
        )
        .into()),
    }
}

fn check_list(list: &str) -> Result<(), Arc<str>> {
    let list = list.trim();
    if list.split(',').any(|name| name == "bpf") {
        Ok(())
    } else {
        Err(format!("the kernel would never run the program: bpf is not among the active security modules ({list}), boot with lsm={list},bpf").into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_decides() {
        assert_eq!(check_list("lockdown,capability,yama,apparmor,bpf\n"), Ok(()));
        assert_eq!(check_list("bpf"), Ok(()));
        for list in ["lockdown,capability,yama", "", "capability,notbpf,bpfx"] {
            let reason = check_list(list).expect_err(list);
            assert!(reason.contains("not among the active security modules"), "{reason}");
        }
    }

    #[test]
    fn an_unreadable_list_is_no_yes() {
        let reason = check(Path::new("/nonexistent/lsm")).expect_err("there is none");
        assert!(reason.contains("mount securityfs"), "{reason}");
    }
}
