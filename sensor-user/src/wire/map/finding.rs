//! Signals and findings: written only, because replay derives them again.

use std::borrow::Cow;
use std::sync::Arc;

use sensor_core::chains;
use sensor_core::ids::RecordId;

use super::super::record::{Completeness, Entities, Finding, Link, Signal, Stage, Text};
use super::super::time::UtcTime;
use super::text;

fn named(name: &str) -> Text<'_> {
    Text(Cow::Borrowed(name))
}

fn ids(ids: &[RecordId]) -> Vec<Text<'_>> {
    ids.iter().map(|id| (&id.0).into()).collect()
}

fn texts(shared: &[Arc<str>]) -> Vec<Text<'_>> {
    shared.iter().map(Text::from).collect()
}

impl<'a> From<&'a chains::Signal> for Signal<'a> {
    fn from(signal: &'a chains::Signal) -> Self {
        Self {
            name: named(&signal.name),
            analytic: named(&signal.analytic),
            stage: named(&signal.stage),
            keys: signal.keys.iter().map(|(key, value)| ((*key).into(), value.into())).collect(),
        }
    }
}

impl<'a> From<&'a chains::Finding> for Finding<'a> {
    fn from(finding: &'a chains::Finding) -> Self {
        Self {
            id: (&finding.id).into(),
            analytic: named(&finding.analytic),
            strategy: named(&finding.strategy),
            techniques: finding.techniques.iter().map(|id| named(id)).collect(),
            title: named(&finding.title),
            severity: finding.severity.into(),
            state: finding.state.into(),
            confidence: finding.confidence.into(),
            stages: finding.stages.iter().map(Stage::from).collect(),
            links: finding.links.iter().map(Link::from).collect(),
            entities: (&finding.entities).into(),
            completeness: Completeness {
                complete: finding.completeness.complete,
                lost: finding.completeness.lost,
                unwatched_ns: finding.completeness.unwatched_ns,
            },
            explanation: finding.explanation.as_str().into(),
            first_ts: UtcTime(finding.first.unix_ns),
            last_ts: UtcTime(finding.last.unix_ns),
        }
    }
}

impl<'a> From<&'a chains::StageSeen> for Stage<'a> {
    fn from(stage: &'a chains::StageSeen) -> Self {
        Self {
            name: named(&stage.name),
            seen: stage.seen.is_some(),
            ts: stage.seen.map(|at| UtcTime(at.unix_ns)),
            events: ids(&stage.events),
            further: stage.further,
        }
    }
}

impl<'a> From<&'a chains::Link> for Link<'a> {
    fn from(link: &'a chains::Link) -> Self {
        let (from, to) = ((&link.from.0).into(), (&link.to.0).into());
        Self { from, to, class: link.class.into(), how: named(&link.how) }
    }
}

impl<'a> From<&'a chains::Entities> for Entities<'a> {
    fn from(entities: &'a chains::Entities) -> Self {
        let (peer, peers) = match &*entities.peers {
            [only] => (Some(only.to_canonical()), Vec::new()),
            several => (None, several.iter().map(std::net::IpAddr::to_canonical).collect()),
        };
        Self {
            peer,
            peers,
            containers: texts(&entities.containers),
            nodes: texts(&entities.nodes),
            targets: texts(&entities.targets),
            user: text(&entities.user),
            credential: text(&entities.credential),
        }
    }
}
