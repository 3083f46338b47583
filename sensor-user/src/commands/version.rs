//! `quaywatch version`.

use serde_json::json;

use super::print;
use crate::cli::VersionArgs;
use crate::exit::Exit;
use crate::wire::SchemaVersion;

/// Prints the version of the program, of its output and of the interface to its probes.
///
/// # Errors
/// When it cannot be printed.
pub fn version(args: &VersionArgs) -> anyhow::Result<Exit> {
    let version = env!("CARGO_PKG_VERSION");
    if !args.json {
        return print(&format!("quaywatch {version}\n"));
    }
    let target = format!("{}-{}", std::env::consts::ARCH, std::env::consts::OS);
    let document = json!({
        "version": version,
        "schema": SchemaVersion::CURRENT,
        "abi": sensor_common::ABI_VERSION,
        "target": target,
    });
    print(&format!("{document}\n"))
}
