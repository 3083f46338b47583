//! `quaywatch show-config`: the configuration in effect, in a form that is a configuration file itself.

use super::{load, print};
use crate::cli::ShowConfigArgs;
use crate::exit::Exit;

/// Prints defaults, file, environment and flags together.
///
/// # Errors
/// When the configuration is invalid.
pub fn show_config(args: &ShowConfigArgs) -> anyhow::Result<Exit> {
    let file = load(&args.config)?.file;
    if args.json {
        print(&(serde_json::to_string_pretty(&file)? + "\n"))
    } else {
        print(&serde_saphyr::to_string(&file)?)
    }
}
