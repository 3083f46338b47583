//! `quaywatch run`.

use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context as _, bail};
use tokio::signal::unix::{SignalKind, signal};
use tracing::{error, info};

use super::{environment, overrides};
use crate::cli::{ConfigArgs, RunArgs};
use crate::config::{self, AuditSettings, ConfigFile, DEFAULT_PATH, Loaded, OutputPlace};
use crate::lookups::cgroupfs::Hierarchies;
use crate::lookups::runtime::Containers;
use crate::lookups::{Roots, clock};
use crate::output::OutputQueue;
use crate::pipeline::{End, Pipeline};
use crate::sinks::{LineFile, Overflow, Reopen};
use crate::sources::audit_log::{AuditLogs, Positions, Store};
use crate::sources::config_file::ConfigWatch;
use crate::sources::container_state::ContainerState;
use crate::sources::programs::Programs;
use crate::start::{self, Keeping, Started};
use crate::state::Keeper;
use crate::telemetry::LogLevel;

/// Watches this machine until SIGINT or SIGTERM.
///
/// # Errors
/// Whatever ended it; [`Unsupported`] when this system lacks something.
pub async fn run(args: RunArgs, loaded: Loaded) -> anyhow::Result<()> {
    let Loaded { file, settings, .. } = loaded;
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
    let (mut audit, positions) = audit_logs(&settings.audit)?;
    engine.handle_audit_inputs(clock::now(), audit.look(None));
    engine.handle_ready(clock::now());
    info!("ready");

    let containers = ContainerState::start(containers)?;
    let programs = Programs::start(&roots, &settings.policy.tools)?;
    let configuration = watch_configuration(args.config, file).context("watching the configuration")?;
    let reload = configuration.asker();
    let pipeline = Pipeline {
        engine,
        probes,
        rings,
        containers,
        programs,
        files,
        audit,
        positions,
        canaries,
        keeper,
        settings,
        configuration,
        output,
        roots,
    };
    let end = pipeline
        .run(async {
            loop {
                tokio::select! {
                    _ = interrupt.recv() => break info!("SIGINT"),
                    _ = terminate.recv() => break info!("SIGTERM"),
                    _ = hangup.recv() => {
                        info!("SIGHUP: output files are opened anew, and the configuration is loaded again");
                        reopen.ask();
                        reload.ask();
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

/// Loads the configuration again whenever its file has changed or somebody asks.
fn watch_configuration(args: ConfigArgs, in_effect: ConfigFile) -> io::Result<ConfigWatch> {
    let path = args.config.clone().unwrap_or_else(|| DEFAULT_PATH.into());
    // A default file that was there once may be written anew at this moment: that it is gone is no wish for the defaults.
    let was_there = AtomicBool::new(args.config.is_none() && path.exists());
    let is_pipe = |path: &Path| path.exists() && !path.is_file();
    let watched = (!is_pipe(&path)).then(|| path.clone());
    if watched.is_none() {
        info!(path = %path.display(), "the configuration is no regular file: it is read once, and not again on SIGHUP");
    }
    ConfigWatch::start(watched, in_effect, move || {
        // Nothing is left in it, which would be taken for a wish for the defaults, or it never answers.
        if is_pipe(&path) {
            return Err(config::read_once(&path));
        }
        was_there.fetch_or(path.exists(), Ordering::Relaxed);
        let config = was_there.load(Ordering::Relaxed).then(|| path.clone()).or_else(|| args.config.clone());
        config::load(config.as_deref(), environment(), &overrides(&args))
    })
}

/// Starts to read audit logs from where the last run ended.
fn audit_logs(settings: &AuditSettings) -> anyhow::Result<(AuditLogs, Positions)> {
    let path = settings.positions.clone();
    let store = if settings.files.is_empty() {
        Store::empty(path)
    } else {
        Store::open(path.clone()).unwrap_or_else(|error| {
            let error = format!("{:#}", anyhow::Error::new(error));
            error!(error, "audit logs are read from their beginning, and what was told before is told again");
            Store::empty(path)
        })
    };
    let logs = AuditLogs::start(&settings.files, &store).context("starting to read audit logs")?;
    Ok((logs, Positions::start(store)?))
}
