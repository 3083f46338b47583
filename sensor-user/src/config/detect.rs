//! The `detect` section: what tunes the analytics.

use garde::Validate;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::file::Port;
use super::values::{At, Period};

/// Settings of the analytics.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, Validate, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct DetectSection {
    /// Exposed container service, abnormal container, lateral activity.
    #[garde(dive)]
    pub an1007: An1007Section,
    /// Discovery of containers and resources.
    #[garde(skip)]
    pub an1352: An1352Section,
    /// Credentials used out of place.
    #[garde(skip)]
    pub an1547: An1547Section,
}

/// Exposed container service, abnormal container, lateral activity.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, Validate, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct An1007Section {
    /// How long after an unexpected access a container may come of it: 1s to 168h.
    #[garde(skip)]
    pub access_window: At<Period>,
    /// How long after the last stage lateral activity counts: 1s to 168h.
    #[garde(skip)]
    pub lateral_window: At<Period>,
    /// Ports that lateral activity aims at: connects towards them are reported when attempted, not only by result.
    #[garde(length(max = 1024))]
    pub lateral_ports: Vec<Port>,
    /// Whether connects to the metadata services of clouds (169.254.169.254, fd00:ec2::254) are lateral activity.
    #[garde(skip)]
    pub metadata: bool,
}

impl Default for An1007Section {
    fn default() -> Self {
        Self {
            access_window: Period::from_millis(600_000).into(),
            lateral_window: Period::from_millis(3_600_000).into(),
            lateral_ports: [22, 2375, 2376, 2379, 2380, 6443, 10250, 10255].map(Port).into(),
            metadata: true,
        }
    }
}

/// Discovery of containers and resources.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct An1352Section {
    /// Different calls of one principal that are a burst: 2 to 32.
    pub distinct_calls: At<u32>,
    /// The time within which they are made: 1s to 24h.
    pub window: At<Period>,
    /// Endpoints of others that a container goes through before that is a burst by itself: 4 to 4096.
    pub sweep_targets: At<u32>,
}

impl Default for An1352Section {
    fn default() -> Self {
        Self {
            distinct_calls: 6.into(),
            window: Period::from_millis(120_000).into(),
            sweep_targets: 8.into(),
        }
    }
}

/// Credentials used out of place.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct An1547Section {
    /// How long after one stage another one belongs to the same chain: 1s to 168h.
    pub window: At<Period>,
}

impl Default for An1547Section {
    fn default() -> Self {
        Self { window: Period::from_millis(600_000).into() }
    }
}
