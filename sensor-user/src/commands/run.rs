//! `quaywatch run`.

use std::io;

use anyhow::{Context as _, bail};
use tokio::signal::unix::{SignalKind, signal};
use tracing::info;

use crate::cli::RunArgs;
use crate::config::{OutputPlace, Settings};
use crate::lookups::cgroupfs::Hierarchies;
use crate::lookups::runtime::Containers;
use crate::lookups::{Roots, clock};
use crate::output::OutputQueue;
use crate::pipeline::{End, Pipeline};
use crate::sinks::{LineFile, Overflow, Reopen};
use crate::sources::container_state::ContainerState;
use crate::sources::programs::Programs;
use crate::start::{self, Keeping, Started};
use crate::state::Keeper;
use crate::telemetry::LogLevel;

/// Watches this machine until SIGINT or SIGTERM.
///
/// # Errors
/// Whatever ended it; [`Unsupported`] when this system lacks something.
pub async fn run(args: RunArgs, settings: Settings) -> anyhow::Result<()> {
    // Registered first: a signal during the start must end the program in order, too.
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hangup = signal(SignalKind::hangup())?;

    let roots = Roots::default();
    let hierarchies = Hierarchies::find(&roots).context("finding the cgroup hierarchies")?;
    let mut output = OutputQueue::default();
    let reopen = Reopen::default();
    for destination in &settings.outputs {
        match &destination.place {
            OutputPlace::Stdout => output.add(io::stdout(), destination.kinds, Overflow::Shed)?,
            OutputPlace::File(path) => {
                let file = LineFile::open(path.clone(), reopen.clone());
                let file =
                    file.with_context(|| format!("cannot write the output file {}", path.display()))?;
                output.add_file(file, destination.kinds)?;
            }
        }
    }

    let debug = args.probe_log != LogLevel::Off;
    // Opened while the probes are loaded.
    let state = settings.state.clone();
    let keeper = state.map(|state| Keeper::start(state.path, state.max)).transpose();
    let mut keeper = keeper.context("starting the thread that keeps open chains")?;
    let keeping = keeper.as_mut().map_or(Keeping::TurnedOff, Keeping::By);
    let mut started = start::attach(&roots, &hierarchies, &settings, debug, keeping).await?;

    let containers = Containers::new(roots.clone(), hierarchies.clone(), settings.sockets.clone());
    started.seed(&roots, &hierarchies, &containers, &settings.policy.tools);
    let Started { mut engine, probes, rings, files, canaries } = started;
    engine.handle_ready(clock::now());
    info!("ready");

    let containers = ContainerState::start(containers)?;
    let programs = Programs::start(&roots, &settings.policy.tools)?;
    let pipeline =
        Pipeline { engine, probes, rings, containers, programs, files, canaries, keeper, output, roots };
    let end = pipeline
        .run(async {
            loop {
                tokio::select! {
                    _ = interrupt.recv() => break info!("SIGINT"),
                    _ = terminate.recv() => break info!("SIGTERM"),
                    _ = hangup.recv() => {
                        info!("SIGHUP: output files are opened anew");
                        reopen.ask();
                    }
                }
            }
        })
        .await?;
    match end {
        End::Signal => Ok(()),
        End::OutputClosed => bail!("nobody reads the output any more"),
    }
}
