//! One subcommand each. `run`, `doctor` and `exposure` alone touch the kernel.

use std::io::{self, Write};

use crate::cli::{Command, ConfigArgs};
use crate::config::{self, Invalid, Loaded, Overrides};
use crate::exit::Exit;

pub mod check;
pub mod completions;
pub mod doctor;
pub mod exposure;
pub mod man;
pub mod policy;
mod recordings;
pub mod replay;
pub mod rules;
pub mod run;
pub mod schema;
pub mod show_config;
pub mod version;

/// Runs a command to its end.
///
/// # Errors
/// Whatever ended it; [`crate::exit::of_error`] knows the exit code.
pub fn dispatch(command: Command) -> anyhow::Result<Exit> {
    match command {
        Command::Run(args) => {
            let loaded = load(&args.config)?;
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(run::run(args, loaded)).map(|()| Exit::Done)
        }
        Command::Doctor(args) => {
            let settings = load(&args.config)?.settings;
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(doctor::doctor(&args, &settings))
        }
        Command::Exposure(args) => {
            let settings = load(&args.config)?.settings;
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(exposure::exposure(&args, &settings))
        }
        Command::Check(args) => check::check(&args),
        Command::ShowConfig(args) => show_config::show_config(&args),
        Command::Replay(args) => replay::replay(&args),
        Command::Policy(args) => policy::policy(&args),
        Command::Rules(args) => rules::rules(&args),
        Command::Schema(args) => schema::schema(&args),
        Command::Completions(args) => completions::completions(&args),
        Command::Man => man::man(),
        Command::Version(args) => version::version(&args),
    }
}

/// Loads the configuration that the arguments name and logs its warnings.
fn load(args: &ConfigArgs) -> Result<Loaded, Invalid> {
    let loaded = config::load(args.config.as_deref(), environment(), &overrides(args))?;
    for warning in &loaded.warnings {
        tracing::warn!(place = %warning.place, "{}", warning.message);
    }
    Ok(loaded)
}

/// What the arguments override.
fn overrides(args: &ConfigArgs) -> Overrides {
    Overrides { node_name: args.node_name.clone() }
}

/// The environment as far as it is text; our variables are.
fn environment() -> impl Iterator<Item = (String, String)> {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
}

/// Writes a document to standard output. A reader that closed its end has what it wanted.
fn print(text: &str) -> anyhow::Result<Exit> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(Exit::Done),
    }
}
