//! Overrides of the file: `QUAYWATCH_<SECTION>_<KEY>` for every key that has a single value, then flags.

use super::file::ConfigFile;
use super::nearest::did_you_mean;
use super::problem::{Place, Problem, Severity};
use super::values::{At, ValueError};

/// One key that a variable overrides.
pub struct Variable {
    /// Name of the environment variable.
    pub name: &'static str,
    /// Dotted path of the key.
    pub key: &'static str,
    set: fn(&mut ConfigFile, &str) -> Result<(), ValueError>,
}

/// Every variable. Lists and mappings can be set in the file only.
pub const VARIABLES: [Variable; 20] = [
    Variable {
        name: "QUAYWATCH_NODE_NAME",
        key: "node.name",
        set: |file, text| name(&mut file.node.name, text),
    },
    Variable {
        name: "QUAYWATCH_NODE_CLUSTER",
        key: "node.cluster",
        set: |file, text| name(&mut file.node.cluster, text),
    },
    Variable {
        name: "QUAYWATCH_IMPLIED_LOCAL",
        key: "implied_local",
        set: |file, text| {
            file.implied_local = text.parse().map_err(|_| ValueError {
                problem: format!("{text:?} is neither true nor false"),
                remedy: "write one of them".to_owned(),
            })?;
            Ok(())
        },
    },
    Variable {
        name: "QUAYWATCH_RINGS_MANAGEMENT",
        key: "rings.management",
        set: |file, text| value(&mut file.rings.management, text),
    },
    Variable {
        name: "QUAYWATCH_RINGS_BULK",
        key: "rings.bulk",
        set: |file, text| value(&mut file.rings.bulk, text),
    },
    Variable {
        name: "QUAYWATCH_RINGS_POLL",
        key: "rings.poll",
        set: |file, text| value(&mut file.rings.poll, text),
    },
    Variable {
        name: "QUAYWATCH_RINGS_MERGE_WINDOW",
        key: "rings.merge_window",
        set: |file, text| value(&mut file.rings.merge_window, text),
    },
    Variable {
        name: "QUAYWATCH_FLOOD_BURST",
        key: "flood.burst",
        set: |file, text| number(&mut file.flood.burst, text),
    },
    Variable {
        name: "QUAYWATCH_FLOOD_PER_SECOND",
        key: "flood.per_second",
        set: |file, text| number(&mut file.flood.per_second, text),
    },
    Variable {
        name: "QUAYWATCH_ENRICH_HOLD",
        key: "enrich.hold",
        set: |file, text| value(&mut file.enrich.hold, text),
    },
    Variable {
        name: "QUAYWATCH_COVERAGE_INTERVAL",
        key: "coverage.interval",
        set: |file, text| value(&mut file.coverage.interval, text),
    },
    Variable {
        name: "QUAYWATCH_COVERAGE_REST",
        key: "coverage.rest",
        set: |file, text| value(&mut file.coverage.rest, text),
    },
    Variable {
        name: "QUAYWATCH_DETECT_AN1007_ACCESS_WINDOW",
        key: "detect.an1007.access_window",
        set: |file, text| value(&mut file.detect.an1007.access_window, text),
    },
    Variable {
        name: "QUAYWATCH_DETECT_AN1007_LATERAL_WINDOW",
        key: "detect.an1007.lateral_window",
        set: |file, text| value(&mut file.detect.an1007.lateral_window, text),
    },
    Variable {
        name: "QUAYWATCH_DETECT_AN1352_DISTINCT_CALLS",
        key: "detect.an1352.distinct_calls",
        set: |file, text| number(&mut file.detect.an1352.distinct_calls, text),
    },
    Variable {
        name: "QUAYWATCH_DETECT_AN1352_WINDOW",
        key: "detect.an1352.window",
        set: |file, text| value(&mut file.detect.an1352.window, text),
    },
    Variable {
        name: "QUAYWATCH_DETECT_AN1352_SWEEP_TARGETS",
        key: "detect.an1352.sweep_targets",
        set: |file, text| number(&mut file.detect.an1352.sweep_targets, text),
    },
    Variable {
        name: "QUAYWATCH_DETECT_AN1547_WINDOW",
        key: "detect.an1547.window",
        set: |file, text| value(&mut file.detect.an1547.window, text),
    },
    Variable {
        name: "QUAYWATCH_STATE_PATH",
        key: "state.path",
        set: |file, text| {
            file.state.path = (text != "null").then(|| text.to_owned().into());
            Ok(())
        },
    },
    Variable {
        name: "QUAYWATCH_STATE_MAX",
        key: "state.max",
        set: |file, text| value(&mut file.state.max, text),
    },
];

fn value<T: std::str::FromStr<Err = ValueError>>(slot: &mut At<T>, text: &str) -> Result<(), ValueError> {
    *slot = text.parse::<T>()?.into();
    Ok(())
}

fn number(slot: &mut At<u32>, text: &str) -> Result<(), ValueError> {
    let number: u32 = text.parse().map_err(|_| ValueError {
        problem: format!("{text:?} is not a number"),
        remedy: "write digits only".to_owned(),
    })?;
    *slot = number.into();
    Ok(())
}

/// Sets a name; shared with the flags, which obey the same bounds as the file.
pub fn name(slot: &mut Option<String>, text: &str) -> Result<(), ValueError> {
    if !(1..=253).contains(&text.len()) {
        let problem = format!("a name of {} bytes", text.len());
        return Err(ValueError { problem, remedy: "write 1 to 253 bytes".to_owned() });
    }
    *slot = Some(text.to_owned());
    Ok(())
}

/// Applies the variables of an environment; returns what is wrong with them.
///
/// A variable of ours that is not known is a warning only: Kubernetes puts variables of that form into every container
/// of a namespace with a service called quaywatch.
pub fn apply(file: &mut ConfigFile, environment: impl Iterator<Item = (String, String)>) -> Vec<Problem> {
    const SECTIONS: [&str; 7] = [
        "QUAYWATCH_NODE_",
        "QUAYWATCH_IMPLIED_",
        "QUAYWATCH_RINGS_",
        "QUAYWATCH_ENRICH_",
        "QUAYWATCH_COVERAGE_",
        "QUAYWATCH_DETECT_",
        "QUAYWATCH_STATE_",
    ];
    let mut problems = Vec::new();
    for (written, text) in environment {
        if let Some(variable) = VARIABLES.iter().find(|variable| variable.name == written) {
            if let Err(error) = (variable.set)(file, &text) {
                problems.push(Problem {
                    severity: Severity::Error,
                    place: Place::Environment(variable.name),
                    message: error.to_string(),
                });
            }
        } else if SECTIONS.iter().any(|section| written.starts_with(section)) {
            let known = VARIABLES.each_ref().map(|variable| variable.name);
            problems.push(Problem {
                severity: Severity::Warning,
                place: Place::Environment("QUAYWATCH_*"),
                message: format!(
                    "{written} has no meaning and is ignored; {}",
                    did_you_mean(&written, &known)
                ),
            });
        }
    }
    problems
}
