//! Conversion of what came of another configuration.

use sensor_core::health;

use super::super::record::{Reload, Text};

impl<'a> From<&'a health::Reload> for Reload<'a> {
    fn from(reload: &'a health::Reload) -> Self {
        Self {
            applied: reload.applied,
            problems: reload.problems.iter().map(Into::into).collect(),
            restart: reload.restart.iter().map(|key| Text((*key).into())).collect(),
        }
    }
}
