//! quaywatch: parse, start the log, dispatch, map the error to an exit code.

use std::process::ExitCode;

use clap::Parser as _;
use quaywatch::{canary, cli::Cli, commands, config::Invalid, exit, memory, telemetry};

fn main() -> ExitCode {
    if canary::is_this_process() {
        return ExitCode::SUCCESS;
    }
    memory::share_heap();
    let cli = Cli::parse();
    telemetry::start(cli.log_level, cli.log_format);
    let exit = commands::dispatch(cli.command).unwrap_or_else(|error| {
        match error.downcast_ref::<Invalid>() {
            // Lines of the form file:line:column, which editors and scripts understand.
            Some(invalid) => eprintln!("{invalid}"),
            None => eprintln!("error: {error:#}"),
        }
        exit::of_error(&error)
    });
    exit.into()
}
