//! The committed schemas say what is written.

use super::*;

/// Rewrites a committed file when blessing, else compares with it.
fn check_committed(name: &str, current: &str) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../docs").join(name);
    if std::env::var_os("QUAYWATCH_BLESS").is_some() {
        std::fs::write(&path, current).expect("docs can be written");
    }
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(committed == current, "docs/{name} is not what the types say; run `cargo xtask bless`");
}

#[test]
fn the_committed_schemas_are_current() {
    check_committed("quaywatch-event.schema.json", &record_schema());
    check_committed("quaywatch-config.schema.json", &config_schema());
    check_committed("quaywatch-doctor.schema.json", &doctor_schema());
    check_committed("quaywatch-exposure.schema.json", &exposure_schema());
}

/// Checks a value against the part of JSON Schema that our schemas use; returns what does not fit.
fn mismatch(root: &Value, schema: &Value, value: &Value, at: &str) -> Option<String> {
    let fails = |rule: &str| Some(format!("{at}: {rule} of {schema} does not hold for {value}"));
    if let Some(target) = schema.get("$ref") {
        let target = target.as_str().expect("a reference").strip_prefix('#').expect("to this document");
        return mismatch(root, root.pointer(target).expect("a definition"), value, at);
    }
    if let Some(alternatives) = schema.get("oneOf").or(schema.get("anyOf")).and_then(Value::as_array)
        && alternatives.iter().all(|schema| mismatch(root, schema, value, at).is_some())
    {
        return fails("oneOf");
    }
    if schema.get("const").is_some_and(|expected| expected != value) {
        return fails("const");
    }
    if schema.get("enum").and_then(Value::as_array).is_some_and(|names| !names.contains(value)) {
        return fails("enum");
    }
    let type_of = match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    let admits = |name: &Value| name == type_of;
    if schema
        .get("type")
        .is_some_and(|types| !types.as_array().map_or_else(|| admits(types), |all| all.iter().any(admits)))
    {
        return fails("type");
    }
    for rule in schema.get("allOf").and_then(Value::as_array).into_iter().flatten() {
        let applies = rule.get("if").is_none_or(|condition| mismatch(root, condition, value, at).is_none());
        if let Some(then) = rule.get("then").filter(|_| applies)
            && let Some(found) = mismatch(root, then, value, at)
        {
            return Some(found);
        }
    }
    match value {
        Value::Object(members) => {
            let required = schema.get("required").and_then(Value::as_array).into_iter().flatten();
            if required.filter_map(Value::as_str).any(|key| !members.contains_key(key)) {
                return fails("required");
            }
            members.iter().find_map(|(key, member)| {
                let at = format!("{at}.{key}");
                match schema.pointer(&format!("/properties/{key}")).or(schema.get("additionalProperties")) {
                    Some(schema) if schema.is_object() => mismatch(root, schema, member, &at),
                    // Nothing of ours is undescribed, except in the conditions above.
                    _ if schema.get("type").is_none() => None,
                    _ => Some(format!("{at}: not in the schema")),
                }
            })
        }
        Value::Array(items) => {
            let schema = schema.get("items")?;
            items.iter().find_map(|item| mismatch(root, schema, item, &format!("{at}[]")))
        }
        _ => None,
    }
}

pub(super) fn fits_schema(line: &str) -> Option<String> {
    let schema: Value = serde_json::from_str(&record_schema()).expect("JSON");
    mismatch(&schema, &schema, &serde_json::from_str(line).expect("JSON"), "")
}

#[test]
fn the_schema_describes_what_is_written_and_refuses_what_is_not() {
    assert_eq!(fits_schema(&line(&health())), None);
    let good = line_of(full_accept(), Some(Verdict::Listed("a".into())));
    assert_eq!(fits_schema(&good), None);
    for (from, to) in [
        ("\"seq\":31,", ""),
        ("\"seq\":31", "\"seq\":\"31\""),
        ("\"inbound\"", "\"sideways\""),
        ("\"verdict\":{\"listed\":true,\"entry\":\"a\"},", ""),
        ("\"kind\":\"accept\"", "\"kind\":\"exec\""),
        ("quaywatch/1", "quaywatch/2"),
    ] {
        let bad = good.replacen(from, to, 1);
        assert_ne!(bad, good);
        assert!(fits_schema(&bad).is_some(), "{bad}");
    }
}
