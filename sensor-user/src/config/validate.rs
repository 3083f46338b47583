//! What the file's grammar cannot say: references between keys, ranges, and entries that cannot mean what was meant.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use sensor_core::allow_list::IMPLIED_LOCAL;
use sensor_core::fact::Service;

use super::actors;
use super::allow::AllowSection;
use super::file::{ConfigFile, OutputType};
use super::nearest::did_you_mean;
use super::problem::Severity;
use super::shown;
use super::values::{AnyOr, At, Network, Period, Size};
use super::when::{self, WhenSection};
use crate::sources::audit_log::STDIN;
use crate::wire::Kind;

/// Sizes a ring may have: one page to what the kernel can still map twice with ease.
const RING_BYTES: std::ops::RangeInclusive<u64> = (4 << 10)..=(1 << 30);

/// Sizes that a state file may have: the least is some thousands of chains.
const STATE_BYTES: std::ops::RangeInclusive<u64> = (1 << 20)..=(1 << 30);

/// Numbers of accepts that flood control can tell from none and from all.
const FLOOD_LIMITS: std::ops::RangeInclusive<u32> = 1..=100_000;

/// Numbers of calls that are more than one, and no more than are remembered of one principal.
const DISTINCT_CALLS: std::ops::RangeInclusive<u32> = 2..=32;

/// Numbers of endpoints from the least that a sweep is told of with.
const SWEEP_TARGETS: std::ops::RangeInclusive<u32> = 4..=4096;

/// Something wrong, with its position in the file, if it has one.
pub struct Finding {
    /// Whether the configuration can be used.
    pub severity: Severity,
    /// Line and column.
    pub position: Option<(u64, u64)>,
    /// Dotted path of the key; for values that did not come from the file.
    pub key: &'static str,
    /// What, and what to write instead.
    pub message: String,
}

fn is_path(text: &str) -> bool {
    text.starts_with('/') && text.len() < 4096 && !text.contains('\0')
}

struct Checker {
    findings: Vec<Finding>,
}

/// Checks a file that has the right form.
#[must_use]
pub fn validate(file: &ConfigFile) -> Vec<Finding> {
    let mut checker = Checker { findings: Vec::new() };
    checker.ranges(file);
    checker.networks(file);
    checker.allow(file);
    checker.state(file);
    checker.audit(file);
    checker.output(file);
    checker.findings.sort_by_key(|finding| finding.position);
    checker.findings
}

impl Checker {
    fn report<T>(&mut self, severity: Severity, key: &'static str, at: &At<T>, message: String) {
        self.findings.push(Finding { severity, position: at.position, key, message });
    }

    fn error<T>(&mut self, key: &'static str, at: &At<T>, message: String) {
        self.report(Severity::Error, key, at, message);
    }

    fn warning<T>(&mut self, key: &'static str, at: &At<T>, message: String) {
        self.report(Severity::Warning, key, at, message);
    }

    fn ranges(&mut self, file: &ConfigFile) {
        self.ring_size("rings.management", &file.rings.management);
        self.ring_size("rings.bulk", &file.rings.bulk);
        let second = Duration::from_secs(1);
        self.period("rings.poll", &file.rings.poll, Duration::from_millis(1)..=second);
        self.period("rings.merge_window", &file.rings.merge_window, Duration::ZERO..=second);
        self.count("flood.burst", &file.flood.burst, FLOOD_LIMITS);
        self.count("flood.per_second", &file.flood.per_second, FLOOD_LIMITS);
        self.period("enrich.hold", &file.enrich.hold, Duration::ZERO..=Duration::from_secs(10));
        let hour = Duration::from_secs(3600);
        self.period("coverage.interval", &file.coverage.interval, second..=hour);
        self.period("coverage.rest", &file.coverage.rest, second..=hour * 24);
        let an1007 = &file.detect.an1007;
        self.period("detect.an1007.access_window", &an1007.access_window, second..=hour * 168);
        self.period("detect.an1007.lateral_window", &an1007.lateral_window, second..=hour * 168);
        let an1352 = &file.detect.an1352;
        self.count("detect.an1352.distinct_calls", &an1352.distinct_calls, DISTINCT_CALLS);
        self.period("detect.an1352.window", &an1352.window, second..=hour * 24);
        self.count("detect.an1352.sweep_targets", &an1352.sweep_targets, SWEEP_TARGETS);
        self.period("detect.an1547.window", &file.detect.an1547.window, second..=hour * 168);
    }

    fn ring_size(&mut self, key: &'static str, size: &At<Size>) {
        let bytes = size.value.0;
        if !RING_BYTES.contains(&bytes) {
            let (min, max) = (Size(*RING_BYTES.start()), Size(*RING_BYTES.end()));
            self.error(key, size, format!("a ring of {} is out of range; write {min} to {max}", size.value));
        } else if !bytes.is_power_of_two() {
            let rounded = Size(bytes.next_power_of_two());
            self.warning(
                key,
                size,
                format!("{} is no power of two and becomes {rounded}; write that", size.value),
            );
        }
    }

    fn count(&mut self, key: &'static str, count: &At<u32>, range: std::ops::RangeInclusive<u32>) {
        if !range.contains(&count.value) {
            let (min, max) = (range.start(), range.end());
            self.error(key, count, format!("{} is out of range; write {min} to {max}", count.value));
        }
    }

    fn period(&mut self, key: &'static str, period: &At<Period>, range: std::ops::RangeInclusive<Duration>) {
        if !range.contains(&period.value.0) {
            let (min, max) = (Period(*range.start()), Period(*range.end()));
            self.error(key, period, format!("{} is out of range; write {min} to {max}", period.value));
        }
    }

    fn networks(&mut self, file: &ConfigFile) {
        let nodes = file.networks.nodes.members.values().flatten();
        let named = file.networks.named.values().flat_map(|networks| &networks.value);
        for network in nodes.chain(named) {
            self.host_bits("networks", network);
        }
        for (name, networks) in &file.networks.named {
            if networks.value.is_empty() {
                self.warning("networks", networks, format!("the network {name:?} is empty; add an address"));
            }
        }
    }

    fn host_bits(&mut self, key: &'static str, network: &At<Network>) {
        if network.value.has_host_bits() {
            let message = format!(
                "{} has bits set beyond its prefix and is read as {}; write that, or the bare address for one host",
                network.value,
                network.value.network()
            );
            self.warning(key, network, message);
        }
    }

    fn allow(&mut self, file: &ConfigFile) {
        let mut seen = BTreeMap::new();
        for entry in &file.allow {
            let name = entry.name.value.as_str();
            if name == IMPLIED_LOCAL {
                let message = format!("the name {name:?} is that of the built-in last entry; choose another");
                self.error("allow", &entry.name, message);
            }
            if let Some(first) = seen.insert(name, entry.name.position) {
                let first =
                    first.map_or_else(String::new, |(line, column)| format!(" (first at {line}:{column})"));
                let message =
                    format!("the name {name:?} is given to two entries{first}; names must be unique");
                self.error("allow", &entry.name, message);
            }
            if actors::is_about(entry) {
                self.findings.extend(actors::validate(entry));
            } else {
                self.from(file, entry);
                self.to(file, entry);
                self.findings.extend(shown::validate(entry));
            }
            self.when(entry);
        }
    }

    fn when(&mut self, entry: &AllowSection) {
        const KEY: &str = "allow.when";
        let Some(when) = &entry.when else { return };
        let WhenSection { days, hours, from, until, zone } = &when.value;
        if days.is_empty() && hours.is_none() && from.is_none() && until.is_none() {
            let message = "the entry names no time; add days, hours, from or until, or leave `when` out";
            self.error(KEY, when, message.to_owned());
        } else if when::schedule(entry).window_unix_ns.is_empty() {
            let message = "the window ends before it begins; exchange `from` and `until`";
            self.error(KEY, when, message.to_owned());
        } else if zone.is_none() {
            let message =
                "no zone is given and UTC counts; add one, as in `zone: Europe/Berlin`, or `zone: UTC`";
            self.warning(KEY, when, message.to_owned());
        }
    }

    fn from(&mut self, file: &ConfigFile, entry: &AllowSection) {
        const KEY: &str = "allow.from";
        let from = &entry.from.value;
        if from.cidr.is_empty() && from.networks.is_empty() && !from.nodes && !from.local {
            let message = if from.fingerprint.is_empty() && from.tool.is_empty() {
                "the entry names nobody; add cidr, networks, `nodes: true` or `local: true`, or image and namespace"
            } else {
                "what a peer shows anybody can copy; name the peers beside it: cidr, networks, `nodes: true` or `local: true`"
            };
            self.error(KEY, &entry.from, message.to_owned());
        }
        for network in from.cidr.iter().chain(&from.except) {
            self.host_bits(KEY, network);
        }
        for name in &from.networks {
            if name.value == "nodes" {
                self.error(
                    KEY,
                    name,
                    "the addresses of nodes are not a named network; write `nodes: true`".to_owned(),
                );
            } else if !file.networks.named.contains_key(&name.value) {
                let known: Vec<&str> = file.networks.named.keys().map(String::as_str).collect();
                let remedy = match known.is_empty() {
                    true => "add it under `networks`".to_owned(),
                    false => did_you_mean(&name.value, &known),
                };
                self.error(KEY, name, format!("unknown network {:?}; {remedy}", name.value));
            }
        }
        if from.nodes && file.networks.nodes.members.is_empty() {
            let message = "`nodes: true` matches nobody; add addresses under `networks.nodes.members`";
            self.warning(KEY, &entry.from, message.to_owned());
        }
    }

    fn to(&mut self, file: &ConfigFile, entry: &AllowSection) {
        const KEY: &str = "allow.to";
        let to = &entry.to.value;
        if let Some(act) = to.acts.first() {
            let message = "of a peer nobody knows what it does where it is; name services or ports";
            self.error(KEY, act, message.to_owned());
        }
        if to.services.is_empty() && to.ports.is_empty() {
            let message = "the entry names no endpoints; add services or ports, or write `services: [any]`";
            self.error(KEY, &entry.to, message.to_owned());
        }
        let any = to.services.iter().any(|service| service.value == AnyOr::Any);
        if any && to.services.len() + to.ports.len() > 1 {
            self.warning(
                KEY,
                &entry.to,
                "`any` makes the other services and ports needless; drop them".to_owned(),
            );
        }
        let watched: BTreeSet<Service> = file.watch.ports.values().map(|service| service.value.0).collect();
        for service in &to.services {
            if let AnyOr::One(name) = service.value
                && !watched.contains(&name)
            {
                let message =
                    format!("no watched port serves {:?}; add one under `watch.ports`", name.name());
                self.warning(KEY, service, message);
            }
        }
        for port in &to.ports {
            if !file.watch.ports.contains_key(&port.value) {
                let message = format!("port {} is not watched; add it under `watch.ports`", port.value.0);
                self.warning(KEY, port, message);
            }
        }
    }

    fn state(&mut self, file: &ConfigFile) {
        if let Some(path) = &file.state.path
            && (!path.value.starts_with('/') || path.value.len() > 4095 || path.value.contains('\0'))
        {
            let message = "the path of a file is absolute; begin it with a slash, or write null";
            self.error("state.path", path, message.to_owned());
        }
        let (size, bytes) = (&file.state.max, file.state.max.value.0);
        if !STATE_BYTES.contains(&bytes) {
            let (min, max) = (Size(*STATE_BYTES.start()), Size(*STATE_BYTES.end()));
            let message = format!("a state of {} is out of range; write {min} to {max}", size.value);
            self.error("state.max", size, message);
        }
    }

    /// A log is a file with an absolute path, or standard input; two readers of one log would tell everything twice.
    fn audit(&mut self, file: &ConfigFile) {
        const FILES: &str = "audit.files";
        let mut seen = BTreeSet::new();
        for path in &file.audit.files {
            let problem = match path.value.as_str() {
                text if !is_path(text) && text != STDIN => {
                    "an audit log is given by its path; begin it with a slash, or write \"-\" for standard input"
                }
                text if !seen.insert(text) => "this log is named twice; drop one",
                _ => continue,
            };
            self.error(FILES, path, problem.to_owned());
        }
        if !is_path(&file.audit.positions.value) {
            let message = "positions are kept in a file; begin its path with a slash";
            self.error("audit.positions", &file.audit.positions, message.to_owned());
        }
        for proxy in &file.audit.trusted_proxies {
            self.host_bits("audit.trusted_proxies", proxy);
        }
    }

    /// A place is a file with an absolute path, or standard output; two writers to one place would tear each other's lines.
    fn output_places(&mut self, file: &ConfigFile) {
        const KEY: &str = "output";
        let mut seen = BTreeSet::new();
        for output in &file.output {
            let problem = match (output.output_type.value, &output.path) {
                (OutputType::File, None) => "a file needs a path; add `path: /var/log/quaywatch.ndjson`",
                (OutputType::File, Some(path)) if !path.starts_with('/') => {
                    "the path of a file is absolute; begin it with a slash"
                }
                (OutputType::Stdout, Some(_)) => {
                    "standard output has no path; drop it, or write `type: file`"
                }
                _ if !seen.insert(&output.path) => "two outputs go to the same place; drop one",
                _ => continue,
            };
            self.error(KEY, &output.output_type, problem.to_owned());
        }
    }

    fn output(&mut self, file: &ConfigFile) {
        self.output_places(file);
        for kinds in file.output.iter().map(|output| &output.kinds) {
            let has = |kind| kinds.iter().any(|item| item.value == kind);
            let Some(first) = kinds.first() else { continue };
            if has(AnyOr::Any) {
                if kinds.len() > 1 {
                    self.warning(
                        "output.kinds",
                        first,
                        "`any` makes the other kinds needless; drop them".to_owned(),
                    );
                }
            } else if !has(AnyOr::One(Kind::Health)) {
                let message = "without `health` the output does not tell loss from quiet; add it";
                self.warning("output.kinds", first, message.to_owned());
            }
        }
    }
}
