//! The JSON Schemas, generated from the types.

use schemars::{JsonSchema, Schema, generate::SchemaSettings};
use serde_json::{Value, json};

use super::kind::Kind;
use super::record::Record;

/// What records of a kind must have beyond the envelope.
const fn objects(kind: Kind) -> &'static [&'static str] {
    match kind {
        Kind::Listener => &["net", "quality", "listener"],
        Kind::Accept => &["net", "verdict", "quality"],
        Kind::Close => &["net", "quality", "conn"],
        Kind::Connect => &["net", "quality", "connect"],
        Kind::Exec => &["process", "quality", "exec"],
        Kind::Exit => &["process", "quality", "exit"],
        Kind::Container => &["container", "quality", "origin"],
        Kind::Health => &["health"],
    }
}

/// Adds to the schema of a record which objects each kind requires.
pub fn require_objects_of_kind(schema: &mut Schema) {
    let rules: Vec<Value> = Kind::ALL
        .into_iter()
        .map(|kind| {
            let mut then = json!({"required": objects(kind)});
            if kind == Kind::Container {
                then["properties"] = json!({"container": {"required": ["action"]}});
            }
            json!({"if": {"properties": {"kind": {"const": kind.name()}}}, "then": then})
        })
        .collect();
    schema.insert("allOf".to_owned(), Value::Array(rules));
}

/// The schema of one line of output.
#[must_use]
pub fn record_schema() -> String {
    document::<Record<'static>>()
}

/// The schema of a type as text, ready to be written to a file.
#[must_use]
pub fn document<T: JsonSchema>() -> String {
    let schema = SchemaSettings::draft2020_12().into_generator().into_root_schema_for::<T>();
    let mut text = serde_json::to_string_pretty(&schema).expect("invariant: a schema is JSON");
    text.push('\n');
    text
}
