//! What a record says of a configuration that has come while the sensor runs.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Text;

/// What came of a configuration that was to replace the one in effect.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Reload<'a> {
    /// It is in effect for what is judged from here on; else the one before is, as a whole.
    pub applied: bool,
    /// Why it was refused, each with its place as in `file:line:column`; at most 16. Absent: it was not.
    #[serde(borrow, default, skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<Text<'a>>,
    /// Keys that have changed and that only a restart takes; the present values stay. Absent: none.
    #[serde(borrow, default, skip_serializing_if = "Vec::is_empty")]
    pub restart: Vec<Text<'a>>,
}
