//! The command line: types only.

use std::path::PathBuf;

use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use sensor_core::chains::Analytic;

use crate::commands::rules::analytic;
use crate::exit;
use crate::telemetry::{LogFormat, LogLevel};

/// Kernel-level sensor for the container management plane.
///
/// Watches who reaches the Docker API, the Kubernetes API server and the kubelet, what containers come out of that and
/// what those connect to, and writes one JSON object per line to standard output.
#[derive(Debug, Parser)]
#[command(name = "quaywatch", version, after_help = exit::HELP, after_long_help = exit::HELP)]
#[command(disable_help_subcommand = true, subcommand_required = true, arg_required_else_help = true)]
pub struct Cli {
    /// How much the program says of itself on stderr.
    #[arg(long, global = true, value_name = "LEVEL", default_value = "info", env = "QUAYWATCH_LOG_LEVEL")]
    pub log_level: LogLevel,
    /// In which form it does.
    #[arg(long, global = true, value_name = "FORMAT", default_value = "text", env = "QUAYWATCH_LOG_FORMAT")]
    pub log_format: LogFormat,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Watch this machine and write records until SIGINT or SIGTERM.
    Run(RunArgs),
    /// Say what this host lets the sensor see, and what to do about the rest.
    Doctor(DoctorArgs),
    /// Print the management endpoints that are open, and who has reached them.
    Exposure(ExposureArgs),
    /// Check a configuration file without touching the kernel.
    Check(CheckArgs),
    /// Print the configuration in effect: defaults, file, environment and flags together.
    ShowConfig(ShowConfigArgs),
    /// Judge recorded output again, with the configuration of today.
    Replay(ReplayArgs),
    /// Try a changed policy before it is in effect.
    Policy(PolicyArgs),
    /// Print the analytics that make findings of facts.
    Rules(RulesArgs),
    /// Print a JSON Schema.
    Schema(SchemaArgs),
    /// Print the completion script of a shell.
    Completions(CompletionsArgs),
    /// Print the manual page.
    Man,
    /// Print the version and what belongs to it.
    Version(VersionArgs),
}

/// Where the configuration comes from.
#[derive(Clone, Debug, Default, Args)]
pub struct ConfigArgs {
    /// Configuration file [default: /etc/quaywatch/quaywatch.yaml, which need not exist].
    #[arg(long, value_name = "FILE", env = "QUAYWATCH_CONFIG")]
    pub config: Option<PathBuf>,
    /// Name of this node in the output, instead of the configured one.
    #[arg(long, value_name = "NAME")]
    pub node_name: Option<String>,
}

/// Arguments of `run`.
#[derive(Clone, Debug, Args)]
pub struct RunArgs {
    /// Where the configuration comes from.
    #[command(flatten)]
    pub config: ConfigArgs,
    /// Log of the probes themselves, for development; costs time in the kernel.
    #[arg(long, value_name = "LEVEL", default_value = "off")]
    pub probe_log: LogLevel,
}

/// Arguments of `doctor`.
#[derive(Clone, Debug, Args)]
pub struct DoctorArgs {
    /// Where the configuration comes from.
    #[command(flatten)]
    pub config: ConfigArgs,
    /// Print the result as JSON.
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `exposure`.
#[derive(Clone, Debug, Args)]
pub struct ExposureArgs {
    /// Recorded output, read in this order; `-` is standard input [default: look at this host].
    #[arg(value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// Where the configuration comes from.
    #[command(flatten)]
    pub config: ConfigArgs,
    /// Print the result as JSON.
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `check`.
#[derive(Clone, Debug, Args)]
pub struct CheckArgs {
    /// Configuration file.
    pub file: PathBuf,
    /// Print the result as JSON.
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `show-config`.
#[derive(Clone, Debug, Args)]
pub struct ShowConfigArgs {
    /// Where the configuration comes from.
    #[command(flatten)]
    pub config: ConfigArgs,
    /// Print JSON instead of YAML.
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `replay`.
#[derive(Clone, Debug, Args)]
pub struct ReplayArgs {
    /// Recorded output, read in this order; `-` is standard input.
    #[arg(required = true, value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// Where the configuration comes from.
    #[command(flatten)]
    pub config: ConfigArgs,
    /// The output is JSON in any case; accepted for scripts.
    #[arg(long, hide = true, action = ArgAction::SetTrue)]
    pub json: bool,
}

/// Arguments of `policy`.
#[derive(Clone, Debug, Args)]
pub struct PolicyArgs {
    /// What to do with it.
    #[command(subcommand)]
    pub command: PolicyCommand,
}

/// What to do with a policy.
#[derive(Clone, Debug, Subcommand)]
pub enum PolicyCommand {
    /// Say which verdicts, signals and findings of a recording would be others.
    Test(PolicyTestArgs),
}

/// Arguments of `policy test`.
#[derive(Clone, Debug, Args)]
pub struct PolicyTestArgs {
    /// Configuration file with the changed policy.
    pub file: PathBuf,
    /// Recorded output, read in this order.
    #[arg(long, required = true, num_args = 1.., value_name = "RECORDING", value_parser = recording)]
    pub against: Vec<PathBuf>,
    /// Where the configuration to compare with comes from.
    #[command(flatten)]
    pub config: ConfigArgs,
    /// Print the result as JSON.
    #[arg(long)]
    pub json: bool,
}

/// A recording that can be read twice.
fn recording(path: &str) -> Result<PathBuf, String> {
    match path {
        "-" => Err("standard input can be read only once; name a file".to_owned()),
        path => Ok(path.into()),
    }
}

/// Arguments of `rules`.
#[derive(Clone, Debug, Args)]
pub struct RulesArgs {
    /// What to print of them.
    #[command(subcommand)]
    pub command: RulesCommand,
}

/// What to print of the analytics.
#[derive(Clone, Debug, Subcommand)]
pub enum RulesCommand {
    /// Print id, techniques and title of each.
    List {
        /// Print the result as JSON.
        #[arg(long)]
        json: bool,
    },
    /// Print one: stages, what joins them, windows in effect, signals and severities.
    Show {
        /// Id, as in AN1007.
        #[arg(value_name = "ANALYTIC", value_parser = analytic)]
        analytic: &'static Analytic,
        /// Where the configuration comes from.
        #[command(flatten)]
        config: ConfigArgs,
        /// Print the result as JSON, else YAML.
        #[arg(long)]
        json: bool,
    },
}

/// Arguments of `schema`.
#[derive(Clone, Debug, Args)]
pub struct SchemaArgs {
    /// Of what.
    pub of: SchemaOf,
}

/// What there are schemas of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum SchemaOf {
    /// One line of output.
    Event,
    /// The configuration file.
    Config,
    /// The answer of `doctor`.
    Doctor,
    /// The answer of `exposure`.
    Exposure,
}

/// Arguments of `completions`.
#[derive(Clone, Debug, Args)]
pub struct CompletionsArgs {
    /// The shell.
    pub shell: Shell,
}

/// Arguments of `version`.
#[derive(Clone, Debug, Args)]
pub struct VersionArgs {
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
