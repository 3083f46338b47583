//! `quaywatch exposure`: which management endpoints are open, and who has reached them.

use std::net::IpAddr;

use anyhow::bail;
use sensor_core::engine::Output;
use sensor_core::fact::Node;

use super::print;
use super::recordings::{self, Complaints};
use crate::cli::ExposureArgs;
use crate::config::Settings;
use crate::doctor::listeners;
use crate::exit::Exit;
use crate::exposure::{Ledgers, Report, Source};
use crate::lookups::cgroupfs::Hierarchies;
use crate::lookups::runtime::Containers;
use crate::lookups::{Roots, clock};
use crate::sources::replay::{Audience, Malformed, Replay};
use crate::start;

/// Prints the endpoints of recordings, or of this host at this moment.
///
/// # Errors
/// When a recording cannot be read or the answer cannot be printed. What is wrong with the host is the answer.
pub async fn exposure(args: &ExposureArgs, settings: &Settings) -> anyhow::Result<Exit> {
    let (report, malformed) =
        if args.files.is_empty() { (host(settings).await, 0) } else { recorded(args, settings)? };
    if args.json {
        print(&(serde_json::to_string(&report)? + "\n"))?;
    } else {
        print(&report.text())?;
    }
    match report.problem {
        _ if malformed > 0 => bail!("{malformed} lines could not be read"),
        Some(_) => Ok(Exit::Unsupported),
        None => Ok(Exit::Done),
    }
}

async fn host(settings: &Settings) -> Report {
    let roots = Roots::default();
    match look(&roots, settings).await {
        Ok(ledgers) => Report::of_ledgers(Source::Host, &ledgers),
        Err(error) => {
            Report::of_procfs(format!("{error:#}"), listeners::of_procfs(&roots, &settings.policy.ports))
        }
    }
}

/// Starts as `run` does, up to the snapshot, and detaches again; at most two seconds lie between.
async fn look(roots: &Roots, settings: &Settings) -> anyhow::Result<Ledgers> {
    let hierarchies = Hierarchies::find(roots)?;
    let mut started = start::attach_briefly(roots, &hierarchies, settings).await?;
    let containers = Containers::new(roots.clone(), hierarchies.clone(), settings.sockets.clone());
    started.seed(roots, &hierarchies, &containers, &settings.policy.tools);
    started.canaries.stop();
    started.probes.detach();
    started.engine.handle_ready(clock::now());
    let mut ledgers = Ledgers::new(settings.policy.networks.clone());
    while let Some(output) = started.engine.next_output() {
        if let Output::Fact { fact, .. } = output {
            ledgers.take(&fact);
        }
    }
    Ok(ledgers)
}

/// What comes out of recordings, as the ledgers take it.
struct Reader {
    ledgers: Ledgers,
    complaints: Complaints,
}

impl Audience for Reader {
    fn output(&mut self, output: &Output) -> bool {
        if let Output::Fact { fact, .. } = output {
            self.ledgers.take(fact);
        }
        true
    }

    fn addresses(&mut self, node: &Node, addresses: &[IpAddr]) {
        self.ledgers.take_addresses(&node.name, addresses);
    }

    fn malformed(&mut self, malformed: Malformed) {
        self.complaints.tell(&malformed);
    }
}

fn recorded(args: &ExposureArgs, settings: &Settings) -> anyhow::Result<(Report, u64)> {
    let ledgers = Ledgers::new(settings.policy.networks.clone());
    let reader = Reader { ledgers, complaints: Complaints::default() };
    let mut replay = Replay::new(settings.policy.clone(), settings.cluster.clone(), reader);
    for path in &args.files {
        recordings::feed(&mut replay, path)?;
    }
    let (reader, counts) = replay.finish();
    Ok((Report::of_ledgers(Source::Recordings, &reader.ledgers), counts.malformed))
}
