//! Whether all that the tool needs is there.

use anyhow::Error;

use super::session::{self, Docker};
use crate::channel::{Owner, Variant};
use crate::cli::{Common, Selection};
use crate::credentials::Credential;
use crate::git::Repository;
use crate::manifest::{DEFAULT_REGISTRY, Manifest};
use crate::problem::{Exit, Problem};
use crate::publish::Channel;
use crate::reference::Registry;
use crate::registry::Client;
use crate::report::{self, Check};

const MINE: Selection = Selection {
    stable: false,
    debug: false,
};

pub async fn doctor(common: &Common, builder: &[String]) -> Result<Exit, Error> {
    let mut checks = Vec::new();
    let manifest = told(&mut checks, "manifest", session::manifest(common), images);
    let manifest = manifest.as_ref();
    let owner = session::owner(common, MINE, manifest.into_iter().flat_map(Manifest::names));
    let owner = told(&mut checks, "user", owner, channels);
    let registry = or_told(&mut checks, "registry", registry(common, owner.as_ref()));
    let docker = or_told(&mut checks, "settings", Docker::configured());
    let (git, reached) = tokio::join!(git(manifest), async {
        match &docker {
            Some(docker) => reach(docker, manifest, builder, registry.as_ref(), owner.as_ref()).await,
            None => Vec::new(),
        }
    });
    checks.push(check("git", git));
    checks.extend(reached);
    report::doctor(&checks);
    report::note(
        "the guard of `stable` is a courtesy of this program: whoever may push to the registry may push `stable`; \
         `stable: { registry: ... }` gives it a registry with rights of its own",
    );
    let all_is_well = checks.iter().all(|check| check.found.is_ok());
    Ok(if all_is_well { Exit::Done } else { Exit::Failed })
}

/// What was found goes on, and is told by `tell`.
fn told<T>(checks: &mut Vec<Check>, what: &'static str, found: Result<T, Problem>, tell: impl Fn(&T) -> String) -> Option<T> {
    let value = or_told(checks, what, found);
    checks.extend(value.as_ref().map(|value| check(what, Ok(tell(value)))));
    value
}

fn or_told<T>(checks: &mut Vec<Check>, what: &'static str, found: Result<T, Problem>) -> Option<T> {
    found.map_err(|problem| checks.push(check(what, Err(problem.into())))).ok()
}

fn check(what: &'static str, found: Result<String, Error>) -> Check {
    Check { what, found }
}

fn images(manifest: &Manifest) -> String {
    let pushed = manifest.images.iter().filter(|image| image.push).count();
    format!("{}: {} images, {pushed} of them are pushed", manifest.file, manifest.images.len())
}

fn channels(owner: &Owner) -> String {
    let [normal, debug] = [Variant::Normal, Variant::Debug].map(|variant| owner.channel(variant));
    format!("your channels are {normal} and {debug}")
}

/// That of the manifest, even of one that cannot be built from.
fn registry(common: &Common, owner: Option<&Owner>) -> Result<Registry, Problem> {
    let outline = session::outline(common).ok().flatten();
    session::registry(common, || match outline {
        Some(outline) => outline.registry_of(owner.unwrap_or(&Owner::Stable)),
        None => DEFAULT_REGISTRY.parse(),
    })
}

/// What a push to `stable` needs of it.
async fn git(manifest: Option<&Manifest>) -> Result<String, Error> {
    let Some(manifest) = manifest else {
        return Err(Problem::failed("without a manifest it is not known which repository is meant").into());
    };
    let (repository, branch) = (Repository::at(&manifest.folder), &manifest.stable.branch);
    let only_stable = "only a push to `stable` needs a repository";
    let revision = repository.revision(&[]).await;
    let revision = revision.map_err(|why| Problem::failed(why).hint(only_stable))?;
    if !repository.has_branch(branch).await {
        return Err(
            Problem::failed(format!("there is no branch `{branch}`, which `stable` is built from"))
                .hint("git fetch, or name another: `stable: { branch: NAME }` in the manifest")
                .into(),
        );
    }
    if repository.is_shallow().await {
        return Err(Problem::failed("a shallow clone cannot show what is newer than what is published")
            .hint("git fetch --unshallow; in CI: fetch-depth: 0")
            .into());
    }
    let dirty = if revision.dirty { ", with changes" } else { "" };
    let on = revision.branch.as_deref().unwrap_or("no branch");
    Ok(format!(
        "{} on {on}{dirty}; `stable` is built from {branch}",
        revision.commit.short()
    ))
}

/// What can only be told by asking: builder, credentials, registry.
async fn reach(
    docker: &Docker,
    manifest: Option<&Manifest>,
    builder: &[String],
    registry: Option<&Registry>,
    owner: Option<&Owner>,
) -> Vec<Check> {
    let building = async {
        let insecure = manifest.map_or(Vec::new(), |manifest| manifest.insecure_registries.clone());
        let client = session::client(docker, insecure)?;
        let (engine, _) = session::connect(docker, &client, manifest, builder).await?;
        let found = engine.description();
        engine.tidy_up().await;
        Ok(found)
    };
    let asking = async {
        let Some(registry) = registry else { return Vec::new() };
        let insecure = manifest.map_or(Vec::new(), |manifest| manifest.insecure_registries.clone());
        let credentials = check("credentials", credentials(docker, registry.host()).await);
        let asked = match session::client_with(None, docker, insecure) {
            Ok(client) => ask(&client, registry, owner).await,
            Err(problem) => vec![check("registry", Err(problem.into()))],
        };
        [credentials].into_iter().chain(asked).collect()
    };
    let (building, asked) = tokio::join!(building, asking);
    [check("builder", building)].into_iter().chain(asked).collect()
}

async fn credentials(docker: &Docker, host: &str) -> Result<String, Error> {
    let found = docker.credentials.for_host(host).await;
    let found = found.map_err(|error| Problem::failed(error.to_string()).hint(error.hint()))?;
    Ok(match found {
        Credential::Anonymous => format!("Docker has none for {host}"),
        Credential::Password { username, .. } => format!("{username} at {host}"),
        Credential::IdentityToken(_) => format!("an identity token for {host}"),
        Credential::RegistryToken(_) => format!("a registry token for {host}"),
    })
}

async fn ask(client: &Client, registry: &Registry, owner: Option<&Owner>) -> Vec<Check> {
    let answers = client.ping(registry.host()).await;
    let mut checks = vec![check(
        "registry",
        answers
            .map(|()| format!("{} answers", registry.host()))
            .map_err(|error| Problem::from(error).into()),
    )];
    if let (Ok(_), Some(owner)) = (&checks[0].found, owner) {
        checks.push(check("push", may_push(client, registry, owner).await));
    }
    checks
}

/// An upload is begun and cancelled, where the channel's record would lie.
async fn may_push(client: &Client, registry: &Registry, owner: &Owner) -> Result<String, Error> {
    let channel = Channel::new(owner.channel(Variant::Normal), registry.clone(), client.clone())?;
    channel.home().may_push().await.map_err(Problem::from)?;
    Ok(format!("you may push to {}", channel.address()))
}
