//! `quaywatch rules`: the analytics that are built in, as data.

use std::collections::BTreeMap;

use sensor_core::chains::{Analytic, BUILT_IN, Stage};
use serde::Serialize;
use serde_json::{Value, json};

use super::{load, print};
use crate::cli::{RulesArgs, RulesCommand};
use crate::config::ConfigFile;
use crate::exit::Exit;

/// An analytic as it is printed.
#[derive(Debug, Serialize)]
struct Rule {
    id: &'static str,
    strategy: &'static str,
    techniques: &'static [&'static str],
    title: &'static str,
    stages: Vec<RuleStage>,
    /// By name: when a chain is that severe.
    severity: BTreeMap<&'static str, &'static str>,
}

/// A stage of it.
#[derive(Debug, Serialize)]
struct RuleStage {
    name: &'static str,
    #[serde(skip_serializing_if = "str::is_empty")]
    joined_by: &'static str,
    /// By key of the configuration: the window in effect.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    within: BTreeMap<&'static str, Value>,
    /// By name: what each means.
    signals: BTreeMap<&'static str, &'static str>,
}

impl Rule {
    fn new(analytic: &'static Analytic, config: &Value) -> Self {
        let stage = |stage: &Stage| RuleStage {
            name: stage.name,
            joined_by: stage.joined_by,
            within: stage.within.map(|key| (key, in_effect(config, key))).into_iter().collect(),
            signals: stage.signals.iter().copied().collect(),
        };
        Self {
            id: analytic.id,
            strategy: analytic.strategy,
            techniques: analytic.techniques,
            title: analytic.title,
            stages: analytic.stages.iter().map(stage).collect(),
            severity: analytic.severities.iter().copied().collect(),
        }
    }
}

/// The value of a key of the configuration, as it is written.
fn in_effect(config: &Value, key: &str) -> Value {
    key.split('.').fold(config, |value, name| &value[name]).clone()
}

/// The built-in analytic with this id, in whatever case.
///
/// # Errors
/// When there is none; with those that there are.
pub fn analytic(id: &str) -> Result<&'static Analytic, String> {
    let found = BUILT_IN.into_iter().find(|analytic| analytic.id.eq_ignore_ascii_case(id));
    found.ok_or_else(|| {
        let known: Vec<&str> = BUILT_IN.iter().map(|analytic| analytic.id).collect();
        format!("no analytic has this id; there are {}", known.join(", "))
    })
}

/// Lists the analytics, or shows one.
///
/// # Errors
/// When the configuration is invalid, or the answer cannot be printed.
pub fn rules(args: &RulesArgs) -> anyhow::Result<Exit> {
    match &args.command {
        RulesCommand::List { json: false } => {
            let line = |analytic: &&Analytic| {
                format!("{}  {}  {}\n", analytic.id, analytic.techniques.join(" "), analytic.title)
            };
            print(&BUILT_IN.iter().map(line).collect::<String>())
        }
        RulesCommand::List { json: true } => {
            let entry = |analytic: &&Analytic| json!({"id": analytic.id, "techniques": analytic.techniques, "title": analytic.title});
            print(&format!("{}\n", Value::from_iter(BUILT_IN.iter().map(entry))))
        }
        RulesCommand::Show { analytic, config, json } => {
            let config: ConfigFile = load(config)?.file;
            let rule = Rule::new(analytic, &serde_json::to_value(&config)?);
            if *json {
                print(&format!("{}\n", serde_json::to_string(&rule)?))
            } else {
                print(&serde_saphyr::to_string(&rule)?)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_window_of_an_analytic_is_a_key_of_the_configuration() {
        let config = serde_json::to_value(ConfigFile::default()).expect("JSON");
        for analytic in BUILT_IN {
            let rule = Rule::new(analytic, &config);
            assert_eq!(rule.stages.len(), analytic.stages.len());
            for window in rule.stages.iter().flat_map(|stage| stage.within.values()) {
                assert!(window.is_string(), "{}: {window}", analytic.id);
            }
        }
        let rule = Rule::new(BUILT_IN[0], &config);
        assert_eq!(rule.stages[1].within["detect.an1007.access_window"], "10m");
    }

    #[test]
    fn analytics_are_known_by_their_id_in_any_case() {
        assert_eq!(analytic("an1007").map(|analytic| analytic.id), Ok("AN1007"));
        assert!(analytic("an9").is_err_and(|message| message.contains("AN1007")));
    }
}
