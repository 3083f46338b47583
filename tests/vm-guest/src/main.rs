//! The whole user space of a virtual machine of `cargo xtask vm-test`, beside the sensor that it tests.
//!
//! As the first process it prepares the system, runs the stages that the kernel command line names, writes one line per
//! verdict to the second serial port, and powers off; of a machine with a disk it hands over to the service manager there,
//! which runs the stages. Called with arguments it is one of the programs that the stages
//! watch the sensor watch.

use std::process::ExitCode;

mod actor;
mod cgroups;
mod disk;
mod init;
mod report;
mod stages;

/// Where this program is in the machine.
pub const PROGRAM: &str = "/bin/vm-guest";

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    match arguments.next() {
        None if std::process::id() == 1 => init::run(),
        None => {
            eprintln!("vm-guest is the first process of a virtual machine: run `cargo xtask vm-test`");
            ExitCode::from(2)
        }
        Some(role) => match if role == "work" { init::work() } else { actor::run(&role, arguments) } {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("vm-guest {}: {error:#}", role.display());
                ExitCode::FAILURE
            }
        },
    }
}
