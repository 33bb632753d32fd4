//! The JSON schema of the manifest, for editors.

/// JSON Schema, draft 7.
pub const SCHEMA: &str = include_str!("schema.json");

#[cfg(test)]
pub(super) mod tests {
    use std::collections::BTreeSet;

    use serde_json::Value as Json;

    use super::SCHEMA;
    use crate::manifest::yaml::{self, Node, Value};
    use crate::manifest::{build, read};

    fn schema() -> Json {
        serde_json::from_str(SCHEMA).expect("JSON")
    }

    /// As far as the schema goes, which is keys and kinds of values.
    pub fn accepts(manifest: &str) -> bool {
        let (root, schema) = (yaml::parse(manifest).expect(manifest), schema());
        allows(&schema, &schema, &root)
    }

    fn allows(root: &Json, schema: &Json, node: &Node) -> bool {
        if let Some(reference) = schema["$ref"].as_str() {
            let found = root.pointer(&reference[1..]).unwrap_or_else(|| panic!("there is no {reference}"));
            return allows(root, found, node);
        }
        if let Some(choices) = schema["anyOf"].as_array() {
            return choices.iter().any(|choice| allows(root, choice, node));
        }
        let (kinds, inner): (&[&str], bool) = match &node.value {
            Value::Null => (&["null"], true),
            Value::Scalar(_) => (&["string"], true),
            Value::List(items) => (&["array"], items.iter().all(|item| allows(root, &schema["items"], item))),
            Value::Map(entries) => (
                &["object"],
                entries.iter().all(|entry| {
                    let other = &schema["additionalProperties"];
                    match schema["properties"].get(&entry.key) {
                        Some(known) => allows(root, known, &entry.node),
                        None if entry.key.starts_with("x-") && !schema["patternProperties"].is_null() => true,
                        None => *other != Json::Bool(false) && allows(root, other, &entry.node),
                    }
                }) && schema["required"].as_array().into_iter().flatten().all(|key| {
                    let key = key.as_str().expect("text");
                    entries.iter().any(|entry| entry.key == key)
                }),
            ),
        };
        let named = match &schema["type"] {
            Json::Array(all) => all.iter().filter_map(Json::as_str).collect(),
            one => one.as_str().into_iter().collect::<Vec<_>>(),
        };
        (named.is_empty() || named.iter().any(|name| kinds.contains(name))) && inner
    }

    #[test]
    fn it_has_the_keys_that_are_read_and_no_others() {
        let schema = schema();
        let has = |pointer: &str| -> BTreeSet<String> {
            let map = schema.pointer(pointer).and_then(Json::as_object);
            map.expect(pointer).keys().cloned().collect()
        };
        let of = |keys: &[&[&str]]| -> BTreeSet<String> { keys.concat().into_iter().map(str::to_owned).collect() };
        assert_eq!(has("/properties"), of(&[&read::TOP_KEYS]));
        assert_eq!(has("/properties/stable/properties"), of(&[&read::STABLE_KEYS]));
        assert_eq!(has("/properties/debug/properties"), of(&[&read::DEBUG_KEYS]));
        assert_eq!(has("/definitions/build/properties"), of(&[&build::KEYS]));
        assert_eq!(has("/definitions/image/properties"), of(&[&build::KEYS, &read::IMAGE_KEYS]));
    }

    #[test]
    fn it_accepts_the_shipped_manifest() {
        assert!(accepts(include_str!("../../images.yaml")));
        assert!(!accepts("images: { a: { contxt: one } }") && !accepts("{}"));
    }
}
