//! End-to-end tests: the released sensor against real runtimes on the running kernel.
//!
//! They need root and share one laboratory, so they run one after the other. A part of the machine that is missing is a
//! failure: a run that could not look at something has not shown that it works.

use std::process::ExitCode;
use std::sync::{Arc, OnceLock};

use anyhow::{Result, anyhow};
use libtest_mimic::{Arguments, Failed, Trial};
use sensor_tests::lab::Lab;

mod abuse;
mod attack;
mod audit;
mod chains;
mod container;
mod coverage;
mod credentials;
mod docker;
mod escapes;
mod exposure;
mod flood;
mod forwarders;
mod hellos;
mod lifecycle;
mod loss;
mod processes;
mod reload;
mod replay;
mod requests;
mod risks;
mod runtimes;
mod scans;
mod socket_requests;
mod sockets;
mod state;

/// A test: a name that states behaviour, and what proves it.
type Test = (&'static str, fn(&Lab) -> Result<()>);

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    arguments.test_threads = Some(1);
    let lab: Arc<OnceLock<Result<Lab, String>>> = Arc::default();
    let tests = [
        docker::TESTS,
        container::TESTS,
        credentials::TESTS,
        sockets::TESTS,
        exposure::TESTS,
        escapes::TESTS,
        runtimes::TESTS,
        lifecycle::TESTS,
        loss::TESTS,
        flood::TESTS,
        forwarders::TESTS,
        scans::TESTS,
        hellos::TESTS,
        coverage::TESTS,
        abuse::TESTS,
        processes::TESTS,
        replay::TESTS,
        reload::TESTS,
        risks::TESTS,
        requests::TESTS,
        socket_requests::TESTS,
        chains::TESTS,
        state::TESTS,
        audit::TESTS,
    ];
    let trials = tests.into_iter().flatten().map(|(name, test)| {
        let lab = Arc::clone(&lab);
        Trial::test(*name, move || in_lab(&lab, *test).map_err(|error| Failed::from(format!("{error:#}"))))
    });
    let conclusion = libtest_mimic::run(&arguments, trials.collect());
    // Drops the laboratory, and with it everything that was started, before the process ends.
    drop(lab);
    conclusion.exit_code()
}

fn in_lab(lab: &OnceLock<Result<Lab, String>>, test: fn(&Lab) -> Result<()>) -> Result<()> {
    // Built by the first test that runs, so that `--list` and a filter without a match need no right at all.
    let lab = lab
        .get_or_init(|| Lab::build().map_err(|error| format!("{error:#}")))
        .as_ref()
        .map_err(|problem| anyhow!("no laboratory: {problem}"))?;
    let result = test(lab);
    lab.dockerd.remove_containers();
    result
}
