//! Development commands of quaywatch: `cargo xtask run`, `cargo xtask test` and what they are made of.
//!
//! One subcommand is one file with one `Options` struct. Nothing here compiles the probes (the build script of
//! `sensor-user` does); these commands install what that needs and call cargo.

use std::process::ExitCode;

use clap::{Parser, Subcommand};

mod bench;
mod bless;
mod command;
#[path = "../../sensor-user/build/toolchain.rs"]
mod detection;
mod duties;
mod exit;
mod fuzz;
mod lint;
mod packages;
mod run;
mod schema;
mod setup;
mod source_tree;
mod summary;
mod system;
mod test;
mod tidy;
mod toolchain;
mod vm_test;

/// Development commands of quaywatch.
#[derive(Parser)]
#[command(bin_name = "cargo xtask", after_help = exit::HELP)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Setup(setup::Options),
    Run(run::Options),
    Test(test::Options),
    Lint(lint::Options),
    Tidy(tidy::Options),
    Bench(bench::Options),
    Bless(bless::Options),
    Schema(schema::Options),
    VmTest(vm_test::Options),
    Fuzz(fuzz::Options),
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Setup(options) => setup::run(&options),
        Command::Run(options) => run::run(&options),
        Command::Test(options) => test::run(&options),
        Command::Lint(options) => lint::run(&options),
        Command::Tidy(options) => tidy::run(&options),
        Command::Bench(options) => bench::run(&options),
        Command::Bless(options) => bless::run(&options),
        Command::Schema(options) => schema::run(&options),
        Command::VmTest(options) => vm_test::run(&options),
        Command::Fuzz(options) => fuzz::run(&options),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => exit::report(&error),
    }
}
