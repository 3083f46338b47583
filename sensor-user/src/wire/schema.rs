//! The JSON Schemas, generated from the types.

use schemars::generate::SchemaSettings;
use schemars::transform::{Transform, transform_subschemas};
use schemars::{JsonSchema, Schema};
use serde_json::{Value, json};

use super::kind::Kind;
use super::record::Record;
use crate::config::ConfigFile;
use crate::{doctor, exposure};

/// What records of a kind must have beyond the envelope.
const fn objects(kind: Kind) -> &'static [&'static str] {
    match kind {
        Kind::Listener => &["net", "quality", "listener"],
        Kind::Accept => &["net", "verdict", "quality"],
        Kind::AcceptTask => &["process", "net", "quality"],
        Kind::Close => &["net", "quality", "conn"],
        Kind::Connect => &["net", "quality", "connect"],
        Kind::ApiRequest => &["quality", "api"],
        Kind::TlsHello => &["net", "verdict", "quality", "tls"],
        Kind::Scan => &["net", "quality", "scan"],
        Kind::SocketConnect => &["quality", "socket"],
        Kind::FileRead => &["quality", "file"],
        Kind::Exec => &["process", "quality", "exec"],
        Kind::Exit => &["process", "quality", "exit"],
        Kind::Escape => &["process", "container", "quality", "host"],
        Kind::Container => &["container", "quality", "origin"],
        Kind::Audit => &["verdict", "quality", "audit"],
        Kind::Health => &["health"],
        Kind::Signal => &["signal"],
        Kind::Finding => &["finding"],
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
            if kind == Kind::ApiRequest {
                let on_socket =
                    json!({"required": ["socket"], "properties": {"socket": {"required": ["conn"]}}});
                then["anyOf"] = json!([{"required": ["net", "verdict"]}, on_socket]);
            }
            json!({"if": {"properties": {"kind": {"const": kind.name()}}}, "then": then})
        })
        .collect();
    schema.insert("allOf".to_owned(), Value::Array(rules));
}

/// Takes `null` out of the schema of what may be absent: our records leave the key out instead.
#[derive(Clone, Debug)]
struct ForbidNull;

impl Transform for ForbidNull {
    fn transform(&mut self, schema: &mut Schema) {
        if let Some(Value::Array(types)) = schema.get_mut("type") {
            types.retain(|name| name != "null");
            if let [only] = types.as_slice() {
                let only = only.clone();
                schema.insert("type".to_owned(), only);
            }
        }
        if let Some(Value::Array(alternatives)) = schema.get_mut("anyOf") {
            alternatives.retain(|alternative| alternative.get("type").is_none_or(|name| name != "null"));
            if let [Value::Object(only)] = alternatives.as_slice() {
                let only = only.clone();
                schema.remove("anyOf");
                only.into_iter().for_each(|(key, value)| {
                    schema.insert(key, value);
                });
            }
        }
        transform_subschemas(self, schema);
    }
}

/// The schema of one line of output.
#[must_use]
pub fn record_schema() -> String {
    text::<Record<'static>>(SchemaSettings::draft2020_12().for_serialize().with_transform(ForbidNull))
}

/// The schema of the configuration file.
#[must_use]
pub fn config_schema() -> String {
    text::<ConfigFile>(SchemaSettings::draft2020_12())
}

/// The schema of the answer of `quaywatch doctor`.
#[must_use]
pub fn doctor_schema() -> String {
    text::<doctor::Report>(SchemaSettings::draft2020_12().for_serialize().with_transform(ForbidNull))
}

/// The schema of the answer of `quaywatch exposure`.
#[must_use]
pub fn exposure_schema() -> String {
    text::<exposure::Report>(SchemaSettings::draft2020_12().for_serialize().with_transform(ForbidNull))
}

fn text<T: JsonSchema>(settings: SchemaSettings) -> String {
    let schema = settings.into_generator().into_root_schema_for::<T>();
    let mut text = serde_json::to_string_pretty(&schema).expect("invariant: a schema is JSON");
    text.push('\n');
    text
}
