//! What BuildKit is asked for: a build's keys as its Dockerfile frontend knows them (moby/buildkit, `frontend/dockerui`).

use std::collections::HashMap;
use std::sync::Arc;

use bollard::moby::buildkit::v1::{CacheOptions, CacheOptionsEntry, SolveRequest};
use serde_json::{Value, json};

use super::super::recipe::Recipe;
use super::gateway::Question;
use super::replica::{Compared, Replica};
use super::{DOCKERFILE_NAME, folder_name};
use crate::manifest::NamedContext;
use crate::reference::Reference;

const FRONTEND: &str = "dockerfile.v0";
const HOST_NETWORK: &str = "host";

/// Gets what can be made again as soon as that is known.
pub(in crate::docker) type Ahead<'a> = &'a (dyn Fn(&Arc<Replica>) + Send + Sync);

/// How what is made is made again.
pub(super) type Again<'a> = (Compared, Ahead<'a>);

/// What becomes of what is built.
#[derive(Clone, Copy)]
pub(in crate::docker) enum Export<'a> {
    /// It goes into the daemon's image store, under this name.
    Store(&'a Reference),
    /// It does, and is to be made again as far as that can be done.
    Replicated(&'a Reference, Ahead<'a>),
    /// It is to be made again, whether the builder has to make it before or not; an error where that cannot be done.
    MadeAgain(Ahead<'a>),
    /// It stays in the builder's cache, and is to be made again as it is there; an error where that cannot be done.
    LookedUp(Ahead<'a>),
    /// The daemon stores it, and pushes it.
    StoreAndPush(Push<'a>),
    Push(Push<'a>),
    /// It stays in the builder's cache.
    Nowhere,
    /// Its files come here, as a tar.
    Files,
}

#[derive(Clone, Copy, Debug)]
pub(in crate::docker) struct Push<'a> {
    pub(in crate::docker) names: &'a [Reference],
    /// Over plain HTTP, if the registry has nothing else.
    pub(in crate::docker) insecure: bool,
}

impl<'a> Export<'a> {
    fn again(self) -> Option<Again<'a>> {
        match self {
            Self::Replicated(_, ahead) => Some((Compared::Folders, ahead)),
            Self::MadeAgain(ahead) => Some((Compared::Unsure, ahead)),
            Self::LookedUp(ahead) => Some((Compared::All, ahead)),
            _ => None,
        }
    }

    fn exporter(self) -> (&'static str, Vec<(&'static str, String)>) {
        let no = || "false".to_owned();
        let yes = || "true".to_owned();
        let pushed = |push: Push<'_>| {
            let names: Vec<_> = push.names.iter().map(ToString::to_string).collect();
            vec![
                ("name", names.join(",")),
                ("push", yes()),
                ("registry.insecure", push.insecure.to_string()),
            ]
        };
        match self {
            // without a name, equal images of builds at the same time get in each other's way in the containerd store
            Self::Store(reference) | Self::Replicated(reference, _) => ("moby", vec![("name", reference.to_string())]),
            // a container unpacks it when there is one
            Self::StoreAndPush(push) => ("image", [pushed(push), vec![("unpack", no())]].concat()),
            Self::Push(push) => ("image", [pushed(push), vec![("store", no())]].concat()),
            // without an exporter, nothing is written as layers
            Self::MadeAgain(_) | Self::LookedUp(_) => ("", Vec::new()),
            Self::Nowhere => ("image", vec![("push", no()), ("store", no())]),
            Self::Files => ("tar", Vec::new()),
        }
    }
}

/// What the frontend is to make, and what becomes of it.
pub(super) struct Asked<'a> {
    pub(super) question: Question,
    pub(super) request: SolveRequest,
    pub(super) again: Option<Again<'a>>,
}

/// `network` is for builds that ask for none.
pub(super) fn of_recipe<'a>(recipe: Recipe<'_>, export: Export<'a>, network: Option<&str>) -> Asked<'a> {
    let build = recipe.build;
    let network = build.network.as_deref().filter(|network| *network != "default").or(network);
    let Asked {
        mut question,
        mut request,
        again,
    } = of_platforms(&build.platforms, export);
    let mut set = |key: String, value: &str| question.set(key, value);
    if let Some(target) = &build.target {
        set("target".to_owned(), target);
    }
    for (name, value) in recipe.args() {
        set(format!("build-arg:{name}"), &value);
    }
    for (name, value) in &build.labels {
        set(format!("label:{name}"), value);
    }
    for (name, context) in &build.additional_contexts {
        match context {
            NamedContext::Folder(_) => set(format!("context:{name}"), &format!("local:{}", folder_name(name))),
            NamedContext::Image(image) => set(format!("context:{name}"), image),
        }
    }
    if let Some(network) = network {
        set("force-network-mode".to_owned(), network);
    }
    if recipe.no_cache || build.no_cache {
        set("no-cache".to_owned(), "");
    }
    if network == Some(HOST_NETWORK) {
        request.entitlements.push("network.host".to_owned());
    }
    if !build.cache_from.is_empty() {
        let imports = build.cache_from.iter().map(|text| cache_entry(text));
        // as a frontend reads it (moby/buildkit, `frontend/dockerui`)
        let imports = imports.map(|entry| json!({ "Type": entry.r#type, "Attrs": entry.attrs }));
        question.set("cache-imports".to_owned(), &imports.collect::<Value>().to_string());
    }
    request.cache = Some(CacheOptions {
        exports: build.cache_to.iter().map(|text| cache_entry(text)).collect(),
        ..CacheOptions::default()
    });
    Asked { question, request, again }
}

pub(super) fn of_platforms<'a>(platforms: &[String], export: Export<'a>) -> Asked<'a> {
    let mut question = Question::to(FRONTEND);
    question.set("filename".to_owned(), DOCKERFILE_NAME);
    question.set("platform".to_owned(), &platforms.join(","));
    let (exporter, attributes) = export.exporter();
    let attributes = attributes.into_iter().map(|(name, value)| (name.to_owned(), value));
    let request = SolveRequest {
        exporter_deprecated: exporter.to_owned(),
        exporter_attrs_deprecated: attributes.collect(),
        ..SolveRequest::default()
    };
    Asked {
        question,
        request,
        again: export.again(),
    }
}

/// `type=registry,ref=...`, or the image alone (Docker's `--cache-from`).
fn cache_entry(text: &str) -> CacheOptionsEntry {
    let mut attrs: HashMap<String, String> = if text.contains('=') {
        let fields = text.split(',').filter_map(|field| field.split_once('='));
        fields.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
    } else {
        HashMap::from([("ref".to_owned(), text.to_owned())])
    };
    CacheOptionsEntry {
        r#type: attrs.remove("type").unwrap_or_else(|| "registry".to_owned()),
        attrs,
    }
}

#[cfg(test)]
mod tests {
    use super::cache_entry;

    #[test]
    fn caches_are_named_as_dockers_client_takes_them() {
        let image = cache_entry("gcr.io/x/y:1");
        assert_eq!((image.r#type.as_str(), image.attrs["ref"].as_str()), ("registry", "gcr.io/x/y:1"));
        let inline = cache_entry("type=inline");
        assert!(inline.r#type == "inline" && inline.attrs.is_empty());
    }
}
