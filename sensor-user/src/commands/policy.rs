//! `quaywatch policy test`: what another policy would make of what was recorded.

use std::path::PathBuf;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

use anyhow::{anyhow, bail};
use sensor_core::engine::Output;

use super::recordings::{Complaints, feed};
use super::{environment, load, overrides, print};
use crate::cli::{PolicyArgs, PolicyCommand, PolicyTestArgs};
use crate::comparison::{Comparison, Step};
use crate::config::{self, Settings};
use crate::exit::Exit;
use crate::sources::replay::{Audience, Counts, Malformed, Replay};

/// Steps by which one replay may be ahead of the other.
const AHEAD_MAX: usize = 4096;

/// Hands on what one policy makes of each fact.
struct Listener {
    step: Step,
    sender: SyncSender<Step>,
    /// Of the lines that cannot be read one of the two tells.
    complaints: Option<Complaints>,
}

impl Audience for Listener {
    fn output(&mut self, output: &Output) -> bool {
        self.step.take(output).is_none_or(|step| self.sender.send(step).is_ok())
    }

    fn malformed(&mut self, malformed: Malformed) {
        if let Some(complaints) = &mut self.complaints {
            complaints.tell(&malformed);
        }
    }
}

/// Does what the arguments say.
///
/// # Errors
/// When a configuration is invalid, a recording cannot be read, or the answer cannot be printed.
pub fn policy(args: &PolicyArgs) -> anyhow::Result<Exit> {
    let PolicyCommand::Test(args) = &args.command;
    test(args)
}

fn test(args: &PolicyTestArgs) -> anyhow::Result<Exit> {
    let present = load(&args.config)?.settings;
    // As it would be in effect here, by the same environment.
    let other = config::load(Some(&args.file), environment(), &overrides(&args.config))?.settings;
    let files = &args.against;
    let mut comparison = Comparison::default();
    let counts = thread::scope(|scope| -> anyhow::Result<Counts> {
        let (sender, presents) = sync_channel(AHEAD_MAX);
        let step = Step::of(present.policy.allow.clone());
        let listener = Listener { step, sender, complaints: Some(Complaints::default()) };
        let first = scope.spawn(move || replay(present, files, listener));
        let (sender, others) = sync_channel(AHEAD_MAX);
        let step = Step::of(other.policy.allow.clone());
        let listener = Listener { step, sender, complaints: None };
        let second = scope.spawn(move || replay(other, files, listener));
        let compared = compare(&mut comparison, presents, others);
        let panicked = || anyhow!("a replay has panicked");
        let counts = first.join().map_err(|_| panicked())??;
        second.join().map_err(|_| panicked())??;
        compared.map(|()| counts)
    })?;
    let against = files.iter().map(|file| file.display().to_string()).collect();
    let report = comparison.report(args.file.display().to_string(), against);
    if args.json {
        print(&(serde_json::to_string(&report)? + "\n"))?;
    } else {
        print(&report.text())?;
    }
    match counts.malformed {
        0 if report.differs() => Ok(Exit::Found),
        0 => Ok(Exit::Done),
        malformed => bail!("{malformed} lines could not be read"),
    }
}

fn replay(settings: Settings, files: &[PathBuf], listener: Listener) -> anyhow::Result<Counts> {
    let mut replay = Replay::new(settings.policy, settings.cluster, listener);
    for file in files {
        feed(&mut replay, file)?;
    }
    let (listener, counts) = replay.finish();
    // Nobody takes it when the other one has failed, which is told there.
    let _ = listener.sender.send(listener.step);
    Ok(counts)
}

/// The receivers are dropped with an error, so that neither replay waits for ever.
fn compare(
    comparison: &mut Comparison,
    presents: Receiver<Step>,
    others: Receiver<Step>,
) -> anyhow::Result<()> {
    loop {
        match (presents.recv(), others.recv()) {
            (Ok(present), Ok(other)) => comparison.take(present, other)?,
            // Where one has ended before the other, it has failed and says why, or does so now.
            (Err(_), Err(_)) => return Ok(()),
            _ => bail!("the two replays do not see the same facts; has a recording changed meanwhile?"),
        }
    }
}
