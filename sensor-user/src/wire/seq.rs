//! A list that is written straight from the core's slice and read into values of its own.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::de::{Deserialize, Deserializer};
use serde::ser::{Serialize, Serializer};

/// A list of `W` on the wire, which are made from `C` of the core one by one while writing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum List<'a, C, W> {
    /// Written.
    Core(&'a [C]),
    /// Read.
    Wire(Vec<W>),
}

impl<C, W> List<'_, C, W> {
    /// Whether nothing is in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        match self {
            Self::Core(items) => items.is_empty(),
            Self::Wire(items) => items.is_empty(),
        }
    }

    /// The items as read.
    #[must_use]
    pub fn into_read(self) -> Vec<W> {
        match self {
            Self::Wire(items) => items,
            Self::Core(_) => Vec::new(),
        }
    }
}

impl<C, W> Default for List<'_, C, W> {
    fn default() -> Self {
        Self::Wire(Vec::new())
    }
}

impl<'a, C, W: Serialize + From<&'a C>> Serialize for List<'a, C, W> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Core(items) => serializer.collect_seq(items.iter().map(W::from)),
            Self::Wire(items) => serializer.collect_seq(items),
        }
    }
}

impl<'de: 'a, 'a, C, W: Deserialize<'de>> Deserialize<'de> for List<'a, C, W> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Vec::deserialize(deserializer).map(Self::Wire)
    }
}

impl<C, W: JsonSchema> JsonSchema for List<'_, C, W> {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        Vec::<W>::schema_name()
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        Vec::<W>::json_schema(generator)
    }
}
