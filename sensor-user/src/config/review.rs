//! Entries of the allow-list that are well-formed and still cannot be what was meant: those that never decide, that hold no
//! longer, or that speak of nearly everybody.

use sensor_core::allow_list::AllowList;

use super::actors;
use super::allow::AllowSection;
use super::file::ConfigFile;
use super::problem::Severity;
use super::settings;
use super::validate::Finding;
use super::values::{At, Network};
use super::when;

/// Shortest prefix of a network that an organisation can have of its own: 10.0.0.0/8.
const WIDEST_V4: u8 = 8;
/// Likewise: fc00::/7.
const WIDEST_V6: u8 = 7;

/// Looks through a file without errors.
#[must_use]
pub fn review(file: &ConfigFile) -> Vec<Finding> {
    let mut findings = shadowed(file, &settings::allow_list(file));
    findings.extend(file.allow.iter().flat_map(|entry| over_broad(file, entry)));
    findings
}

/// The entries that hold no longer at this time.
#[must_use]
pub fn expired(file: &ConfigFile, now_unix_ns: u64) -> Vec<Finding> {
    let past = |entry: &AllowSection| {
        let name = &entry.name.value;
        if let Some(expires) = &entry.expires
            && when::until_unix_ns(entry).is_some_and(|until| until <= now_unix_ns)
        {
            let message = format!("the entry {name:?} expired on {}; renew it or drop it", expires.value);
            return Some(warning("allow.expires", expires, message));
        }
        let until = entry.when.as_ref()?.value.until.as_ref()?;
        let is_over = when::schedule(entry).window_unix_ns.end <= now_unix_ns;
        let message = || format!("the window of the entry {name:?} ended at {}; drop the entry", until.value);
        is_over.then(|| warning("allow.when", until, message()))
    };
    file.allow.iter().filter_map(past).collect()
}

fn warning<T>(key: &'static str, at: &At<T>, message: String) -> Finding {
    Finding { severity: Severity::Warning, position: at.position, key, message }
}

fn shadowed(file: &ConfigFile, allow: &AllowList) -> Vec<Finding> {
    let name = |index: &usize| format!("{:?}", allow.entries[*index].name);
    let explain = |shadowed: sensor_core::allow_list::Shadowed| {
        // The built-in entry is written nowhere.
        let entry = &file.allow.get(shadowed.entry)?.name;
        let by: Vec<String> = shadowed.by.iter().map(name).collect();
        let (by, verb) = (by.join(", "), if by.len() == 1 { "decides" } else { "decide" });
        let message = format!(
            "the entry {:?} is never reached: {by} before it {verb} all that it speaks of; drop it or move it up",
            entry.value
        );
        Some(warning("allow", entry, message))
    };
    allow.shadowed().into_iter().filter_map(explain).collect()
}

fn over_broad(file: &ConfigFile, entry: &AllowSection) -> Vec<Finding> {
    let from = &entry.from.value;
    let named = from.networks.iter().filter_map(|name| {
        let networks = file.networks.named.get(&name.value)?;
        let widest = networks.value.iter().find(|network| is_over_broad(&network.value))?;
        Some((name.position, widest))
    });
    let written = from.cidr.iter().filter(|network| is_over_broad(&network.value));
    written
        .map(|network| (network.position, network))
        .chain(named)
        .map(|(position, network)| Finding {
            severity: Severity::Warning,
            position,
            key: "allow.from",
            message: format!(
                "the entry {:?} expects peers from {}, which is more than anybody has of his own; name the networks that are meant",
                entry.name.value, network.value
            ),
        })
        .chain(actors::over_broad(entry))
        .collect()
}

fn is_over_broad(network: &Network) -> bool {
    let network = network.network();
    network.prefix() < if network.is_ipv4() { WIDEST_V4 } else { WIDEST_V6 }
}
