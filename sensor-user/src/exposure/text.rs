//! The report for people: what was reached first, then what can be.

use std::fmt::{self, Write};

use super::{Endpoint, Report, Source};
use crate::table::{clean, continued, row};
use crate::wire::Exposure;

/// Digits of a container id that people tell containers apart by.
const SHORT_ID: usize = 12;

pub(super) fn write(report: &Report, out: &mut impl Write) -> fmt::Result {
    if let Some(problem) = &report.problem {
        writeln!(out, "the probes cannot look; this is what procfs shows of one network namespace")?;
        writeln!(out, "  {}\n", clean(problem))?;
    }
    for (exposure, title) in [
        (Exposure::Reached, "Reached from outside"),
        (Exposure::Exposed, "Exposed"),
        (Exposure::Local, "Loopback only"),
        (Exposure::Closed, "Closed"),
    ] {
        let mut endpoints =
            report.endpoints.iter().filter(|endpoint| endpoint.exposure == exposure).peekable();
        if endpoints.peek().is_some() {
            writeln!(out, "{title}")?;
        }
        endpoints.try_for_each(|endpoint| write_endpoint(endpoint, out))?;
    }
    if report.endpoints.is_empty() {
        writeln!(out, "no management endpoint was found")?;
    }
    if report.evicted > 0 {
        writeln!(out, "\n{} more found no room in the ledger", report.evicted)?;
    }
    if report.source == Source::Host {
        writeln!(out, "\nWho has connected is in the records of a running sensor: quaywatch exposure FILE")?;
    }
    Ok(())
}

fn write_endpoint(endpoint: &Endpoint, out: &mut impl Write) -> fmt::Result {
    let mut found = format!("{}, tls {}", endpoint.scope.name(), endpoint.tls.name());
    match &endpoint.process {
        Some(process) => write!(found, ", {} (pid {})", process.comm, process.pid)?,
        None => write!(found, ", holder not known")?,
    }
    if let Some(container) = &endpoint.container {
        let id: String = container.id.chars().take(SHORT_ID).collect();
        write!(found, ", container {}", container.name.as_ref().unwrap_or(&id))?;
    }
    row(out, &endpoint.address.to_string(), endpoint.service.name(), &found)?;
    if let Some(to) = endpoint.leads_to {
        continued(
            out,
            &format!("leads to {} ({})", std::net::SocketAddr::new(to.ip, to.port), to.service.name()),
        )?;
    }
    let mut times = endpoint.node.iter().map(|node| format!("on {node}")).collect::<Vec<_>>();
    if let Some(since) = endpoint.since {
        times.push(format!("since {since}{}", if endpoint.or_before { " or before" } else { "" }));
    }
    times.extend(endpoint.closed.map(|closed| format!("closed {closed}")));
    if !times.is_empty() {
        continued(out, &times.join(", "))?;
    }
    if let (Some(first), Some(last)) = (endpoint.first_peer, endpoint.last_peer) {
        let Endpoint { accepts, outside_peers, .. } = endpoint;
        continued(out, &format!("{accepts} connections, {outside_peers} peers from outside"))?;
        continued(out, &format!("first {} at {}, last {} at {}", first.ip, first.ts, last.ip, last.ts))?;
    } else if endpoint.accepts > 0 {
        continued(out, &format!("{} connections, none from outside", endpoint.accepts))?;
    }
    Ok(())
}
