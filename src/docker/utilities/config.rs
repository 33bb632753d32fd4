//! The configuration of an image that gets utilities, as a frontend writes it (moby/buildkit, `frontend/dockerfile/dockerfile2llb`).

use indexmap::IndexMap;
use prost::bytes::Bytes;
use serde_json::json;
use serde_json::value::{RawValue, to_raw_value};

use super::{DEFAULT_PATH, FOLDER};

const PATH: &str = "PATH=";
const COMMENT: &str = "buildkit.dockerfile.v0";

/// In their order.
type Fields = IndexMap<String, Box<RawValue>>;

/// `None` where it is not plain what a frontend would write.
pub(super) fn with_utilities(normal: &[u8]) -> Option<Bytes> {
    let mut fields: Fields = serde_json::from_slice(normal).ok()?;
    // it is the time of the last instruction
    fields.shift_remove("created");
    let mut config: Fields = serde_json::from_str(fields.get("config")?.get()).ok()?;
    let triggers: Option<Vec<String>> = match config.get("OnBuild") {
        Some(triggers) => serde_json::from_str(triggers.get()).ok()?,
        None => None,
    };
    // a frontend would carry them out
    if triggers.is_some_and(|triggers| !triggers.is_empty()) {
        return None;
    }
    let mut env: Vec<String> = serde_json::from_str(config.get("Env")?.get()).ok()?;
    let variable = env.iter_mut().find(|variable| variable.starts_with(PATH))?;
    let path = variable.strip_prefix(PATH).filter(|path| !path.is_empty()).unwrap_or(DEFAULT_PATH);
    let path = format!("{PATH}{path}:/{FOLDER}");
    variable.clone_from(&path);
    let mut history: Vec<Box<RawValue>> = serde_json::from_str(fields.get("history")?.get()).ok()?;
    history.push(to_raw_value(&json!({ "created_by": "COPY / / # buildkit", "comment": COMMENT })).ok()?);
    history.push(to_raw_value(&json!({ "created_by": format!("ENV {path}"), "comment": COMMENT, "empty_layer": true })).ok()?);
    config.insert("Env".to_owned(), to_raw_value(&env).ok()?);
    fields.insert("config".to_owned(), to_raw_value(&config).ok()?);
    fields.insert("history".to_owned(), to_raw_value(&history).ok()?);
    Some(serde_json::to_vec(&fields).ok()?.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(config: &str, history: &str) -> Option<String> {
        let normal = format!(r#"{{"architecture":"amd64","created":"1970-01-01T00:00:00Z","history":[{history}],"config":{config}}}"#);
        Some(String::from_utf8(with_utilities(normal.as_bytes())?.to_vec()).expect("text"))
    }

    #[test]
    fn the_path_gets_an_entry_and_the_history_two() {
        let made = made(
            r#"{"Env":["A=1","PATH=/bin"],"Cmd":["x"],"OnBuild":null}"#,
            r#"{"created_by":"RUN x"}"#,
        );
        assert_eq!(
            made.expect("plain"),
            r#"{"architecture":"amd64","history":[{"created_by":"RUN x"},{"comment":"buildkit.dockerfile.v0","created_by":"COPY / / # buildkit"},{"comment":"buildkit.dockerfile.v0","created_by":"ENV PATH=/bin:/busybox","empty_layer":true}],"config":{"Env":["A=1","PATH=/bin:/busybox"],"Cmd":["x"],"OnBuild":null}}"#
        );
    }

    #[test]
    fn what_is_not_plain_is_left_to_a_frontend() {
        assert!(
            made(r#"{"Env":["PATH="]}"#, "")
                .expect("plain")
                .contains(&format!("PATH={DEFAULT_PATH}:/busybox"))
        );
        for config in [
            "{}",
            r#"{"Env":null}"#,
            r#"{"Env":[]}"#,
            r#"{"Env":["PATH=/bin"],"OnBuild":["RUN x"]}"#,
            "null",
        ] {
            assert!(made(config, "").is_none(), "{config}");
        }
    }
}
