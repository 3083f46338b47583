//! The files of the repository that checks look at.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

/// Directories that hold nothing written by hand.
const SKIPPED: &[&str] = &["target", ".git", "corpus", "artifacts"];

/// Every file below `root` with one of the extensions, in a fixed order, as paths relative to `root`.
pub fn files(root: &Path, extensions: &[&str]) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut directories = vec![root.to_path_buf()];
    while let Some(directory) = directories.pop() {
        let entries =
            fs::read_dir(&directory).with_context(|| format!("cannot read {}", directory.display()))?;
        for entry in entries {
            let entry = entry?;
            let path = entry.path();
            let kind = entry.file_type()?;
            if kind.is_dir() && !SKIPPED.iter().any(|name| entry.file_name() == *name) {
                directories.push(path);
            } else if kind.is_file()
                && path.extension().is_some_and(|have| extensions.iter().any(|want| have == *want))
            {
                found.push(path.strip_prefix(root).expect("invariant: found below root").to_path_buf());
            }
        }
    }
    found.sort();
    Ok(found)
}
