//! The `state` section: what outlives a restart.

use garde::Validate;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::values::{At, Size};

/// Where it is unless something else is configured.
const PATH: &str = "/var/lib/quaywatch/state.redb";

/// What outlives a restart: open chains, and what they may grow from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, Validate, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct StateSection {
    /// The file, in a directory that is there; null: nothing outlives a restart.
    #[garde(skip)]
    pub path: Option<At<String>>,
    /// Bytes that the file may have: 1MiB to 1GiB. What is remembered has half as many.
    #[garde(skip)]
    pub max: At<Size>,
}

impl Default for StateSection {
    fn default() -> Self {
        Self { path: Some(PATH.to_owned().into()), max: Size::from_mib(64).into() }
    }
}
