//! An image's configuration as a graph driver store gets it: the frontend's, with layers, history and times (moby,
//! `builder/builder-next/exporter`; OCI image configuration).

use std::collections::BTreeMap;

use chrono::{DateTime, Datelike as _, SecondsFormat, Utc};
use prost::bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::value::{RawValue, to_raw_value};

use crate::reference::Digest;

const CREATED: &str = "created";
const HISTORY: &str = "history";
/// RFC 3339 has four digits for a year.
const LAST_YEAR: i32 = 9999;

/// A configuration that says of each instruction when it was carried out. BuildKit takes what is said, and says nothing of what
/// it takes otherwise.
pub(super) struct Config {
    fields: BTreeMap<String, Box<RawValue>>,
    created: String,
}

#[derive(Deserialize, Serialize)]
struct Instruction {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    created: Option<String>,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    created_by: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    author: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    comment: String,
    #[serde(default, skip_serializing_if = "is_false")]
    empty_layer: bool,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")]
fn is_false(value: &bool) -> bool {
    !value
}

impl Config {
    /// Instructions without a time get that of the newest file, or of what they stand on where that is newer.
    pub(super) fn of(frontend: &[u8], newest: i64) -> Option<Self> {
        let mut fields: BTreeMap<String, Box<RawValue>> = serde_json::from_slice(frontend).ok()?;
        let mut history: Vec<Instruction> = serde_json::from_str(fields.get(HISTORY)?.get()).ok()?;
        let mut created = DateTime::from_timestamp(newest.max(0), 0)?;
        for text in history.iter().filter_map(|instruction| instruction.created.as_deref()) {
            let time: DateTime<Utc> = text.parse().ok()?;
            let begun = i64::from(time.timestamp_subsec_nanos() > 0);
            created = created.max(DateTime::from_timestamp(time.timestamp() + begun, 0)?);
        }
        if created.year() > LAST_YEAR {
            return None;
        }
        let created = created.to_rfc3339_opts(SecondsFormat::Secs, true);
        for instruction in &mut history {
            instruction.created.get_or_insert_with(|| created.clone());
        }
        let last = history.last()?.created.clone()?;
        fields.insert(HISTORY.to_owned(), to_raw_value(&history).ok()?);
        Some(Self { fields, created: last })
    }

    /// For the exporter.
    pub(super) fn bytes(&self) -> Option<Bytes> {
        written(&self.fields)
    }

    /// The layers of the image of elsewhere that it stands on, and how many layers it is to have with them.
    pub(super) fn below(&self) -> Option<(Vec<Digest>, usize)> {
        #[derive(Deserialize)]
        struct RootFs {
            diff_ids: Option<Vec<Digest>>,
        }
        let rootfs: RootFs = serde_json::from_str(self.fields.get("rootfs")?.get()).ok()?;
        let history: Vec<Instruction> = serde_json::from_str(self.fields.get(HISTORY)?.get()).ok()?;
        let layers = history.iter().filter(|instruction| !instruction.empty_layer).count();
        Some((rootfs.diff_ids.unwrap_or_default(), layers))
    }

    /// What the exporter makes of it for an image of these layers.
    pub(super) fn with(&self, layers: &[Digest]) -> Option<Bytes> {
        #[derive(Serialize)]
        struct RootFs<'l> {
            r#type: &'static str,
            diff_ids: &'l [Digest],
        }
        let rootfs = RootFs {
            r#type: "layers",
            diff_ids: layers,
        };
        let mut fields = self.fields.clone();
        fields.insert("rootfs".to_owned(), to_raw_value(&rootfs).ok()?);
        if !fields.contains_key(CREATED) {
            fields.insert(CREATED.to_owned(), to_raw_value(&self.created).ok()?);
        }
        written(&fields)
    }
}

/// As Go's `encoding/json` writes it, which is safe to stand in HTML.
fn written(fields: &BTreeMap<String, Box<RawValue>>) -> Option<Bytes> {
    let text = serde_json::to_string(fields).ok()?;
    let escapes = [
        ('<', "\\u003c"),
        ('>', "\\u003e"),
        ('&', "\\u0026"),
        ('\u{2028}', "\\u2028"),
        ('\u{2029}', "\\u2029"),
    ];
    let text = escapes
        .into_iter()
        .fold(text, |text, (special, escape)| text.replace(special, escape));
    Some(text.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As a frontend of Docker 20.10 answers.
    const FRONTEND: &str = r#"{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":["sha256:7619be82318278c6c4dd44f8c4662daf58f683b1acf4228b257423a5ea908279"]},"history":[{"created":"2026-11-24T03:11:26.152781628Z","created_by":"COPY libs /usr/lib/libs # buildkit","comment":"buildkit.dockerfile.v0"},{"created_by":"COPY a\u0026b /app # buildkit","comment":"buildkit.dockerfile.v0"},{"created_by":"ENTRYPOINT","comment":"buildkit.dockerfile.v0","empty_layer":true}],"config":{"Env":["PATH=/bin"],"Labels":{"sign":"\u003c\u0026\u003e"},"OnBuild":null}}"#;
    const NEWEST: i64 = 1_795_490_000;

    fn layers() -> [Digest; 2] {
        ["76", "77"].map(|begin| format!("sha256:{begin}{}", "0".repeat(62)).parse().expect("a digest"))
    }

    #[test]
    fn every_instruction_has_a_time_and_the_fields_are_in_order() {
        let config = Config::of(FRONTEND.as_bytes(), NEWEST).expect("a configuration");
        let [below, above] = layers();
        let expected = format!(
            r#"{{"architecture":"amd64","config":{{"Env":["PATH=/bin"],"Labels":{{"sign":"\u003c\u0026\u003e"}},"OnBuild":null}},"created":"2026-11-24T03:13:20Z","history":[{{"created":"2026-11-24T03:11:26.152781628Z","created_by":"COPY libs /usr/lib/libs # buildkit","comment":"buildkit.dockerfile.v0"}},{{"created":"2026-11-24T03:13:20Z","created_by":"COPY a\u0026b /app # buildkit","comment":"buildkit.dockerfile.v0"}},{{"created":"2026-11-24T03:13:20Z","created_by":"ENTRYPOINT","comment":"buildkit.dockerfile.v0","empty_layer":true}}],"os":"linux","rootfs":{{"type":"layers","diff_ids":["{below}","{above}"]}}}}"#
        );
        let made = config.with(&[below, above]).expect("written");
        assert_eq!(str::from_utf8(&made).expect("text"), expected);
        let told = config.bytes().expect("written");
        assert!(
            str::from_utf8(&told)
                .expect("text")
                .contains("\"2026-11-24T03:13:20Z\",\"created_by\":\"ENTRYPOINT\"")
        );
    }

    #[test]
    fn nothing_is_older_than_what_it_stands_on() {
        let config = Config::of(FRONTEND.as_bytes(), 5).expect("a configuration");
        assert_eq!(config.created, "2026-11-24T03:11:27Z");
        let alone = FRONTEND.replace("\"created\":\"2026-11-24T03:11:26.152781628Z\",", "");
        assert_eq!(
            Config::of(alone.as_bytes(), -5).expect("a configuration").created,
            "1970-01-01T00:00:00Z"
        );
    }

    #[test]
    fn what_is_no_configuration_is_left_alone() {
        assert!(Config::of(FRONTEND.as_bytes(), 1 << 40).is_none(), "far in the future");
        for text in ["", "[]", "{}", r#"{"history":[]}"#, r#"{"history":[{"created":"yesterday"}]}"#] {
            assert!(Config::of(text.as_bytes(), 0).is_none(), "{text}");
        }
    }
}
