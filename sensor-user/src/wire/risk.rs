//! The name of a risk: a closed list, part of which has a value.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use sensor_core::risks::Risk;
use serde::de::{Deserialize, Deserializer, Error as _};
use serde::ser::{Serialize, Serializer};

/// A risk under its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RiskName(Risk);

impl From<&Risk> for RiskName {
    fn from(risk: &Risk) -> Self {
        Self(risk.clone())
    }
}

impl From<RiskName> for Risk {
    fn from(name: RiskName) -> Self {
        name.0
    }
}

impl Serialize for RiskName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0.name())
    }
}

impl<'de> Deserialize<'de> for RiskName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = Cow::<str>::deserialize(deserializer)?;
        let risk = Risk::from_name(&name);
        risk.map(Self)
            .ok_or_else(|| D::Error::custom(format!("{name:?} is no risk of the list in docs/output.md")))
    }
}

impl JsonSchema for RiskName {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        "Risk".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let names = Risk::plain_names().collect::<Vec<_>>().join("|");
        json_schema!({
            "type": "string",
            "pattern": format!("^({names}|cap:[A-Z_]+|(mount|socket|device):/.*)$"),
        })
    }
}
