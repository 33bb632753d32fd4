//! From the manifest, a channel and a selection of images to what is to be done: a pure function.

use std::collections::BTreeMap;
use std::ops::Range;

use crate::channel::{ChannelName, Owner, Variant};
use crate::dockerfile::ImageReference;
use crate::manifest::{Build, Image, Manifest};
use crate::problem::{Problem, nearest, printable};
use crate::reference::{ImageName, Reference, Registry};

/// What is to be done, in an order in which every step comes after what it needs.
#[derive(Debug)]
pub struct Plan {
    pub registry: Registry,
    pub channels: Vec<ChannelName>,
    pub steps: Vec<Step>,
}

impl Plan {
    /// The builds from Dockerfiles.
    pub fn builds(&self) -> impl Iterator<Item = &Build> {
        self.steps.iter().filter_map(|step| match &step.work {
            Work::Build { build, .. } => Some(&**build),
            Work::AddUtilities { .. } => None,
        })
    }
}

/// One variant of one image.
#[derive(Debug)]
pub struct Step {
    pub image: ImageName,
    pub variant: Variant,
    pub reference: Reference,
    pub work: Work,
    /// Whether it goes to the registry, or stays in the daemon for what stands on it.
    pub publish: bool,
}

#[derive(Debug)]
pub enum Work {
    /// A build from a Dockerfile.
    Build {
        build: Box<Build>,
        siblings: Vec<Sibling>,
        /// The images of elsewhere that the build resolves, as the Dockerfile means them.
        external: Vec<String>,
    },
    /// The build of the step `normal` plus one layer.
    AddUtilities { normal: usize, platform: String },
}

/// A place in a Dockerfile that names another image of the manifest.
#[derive(Debug)]
pub struct Sibling {
    /// The bytes of the Dockerfile's text that hold the name.
    pub span: Range<usize>,
    pub step: usize,
}

impl Step {
    /// How a person tells the steps of one run apart: the image, and `:debug` for that variant.
    #[must_use]
    pub fn label(&self) -> String {
        match self.variant {
            Variant::Normal => self.image.to_string(),
            Variant::Debug => format!("{}:debug", self.image),
        }
    }

    /// The steps that must be done first, each once.
    #[must_use]
    pub fn needs(&self) -> Vec<usize> {
        match &self.work {
            Work::AddUtilities { normal, .. } => vec![*normal],
            Work::Build { siblings, .. } => {
                let mut steps: Vec<_> = siblings.iter().map(|sibling| sibling.step).collect();
                steps.sort_unstable();
                steps.dedup();
                steps
            }
        }
    }
}

/// What somebody asks for.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    pub owner: &'a Owner,
    pub variants: &'a [Variant],
    /// None named: all.
    pub images: &'a [String],
    pub purpose: Purpose,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    Publish,
    /// Into the daemon only.
    Build,
}

/// # Errors
/// An unknown image, one that is not pushed, images that stand on each other in a circle, a name that is too long.
pub fn plan(manifest: &Manifest, registry: &Registry, request: &Request<'_>) -> Result<Plan, Problem> {
    let selected = select(manifest, request)?;
    let mut planner = Planner {
        manifest,
        registry,
        owner: request.owner,
        steps: Vec::new(),
        planned: BTreeMap::new(),
        path: Vec::new(),
    };
    for &variant in request.variants {
        for image in &selected {
            // nobody asks for a base's debug variant: what needs it plans it
            if image.push || request.purpose == Purpose::Build || variant == Variant::Normal {
                let step = planner.step(image, variant)?;
                planner.steps[step].publish = image.push && request.purpose == Purpose::Publish;
            }
        }
    }
    Ok(Plan {
        registry: registry.clone(),
        channels: request.variants.iter().map(|variant| request.owner.channel(*variant)).collect(),
        steps: planner.steps,
    })
}

fn select<'m>(manifest: &'m Manifest, request: &Request<'_>) -> Result<Vec<&'m Image>, Problem> {
    if request.images.is_empty() {
        return Ok(manifest.images.iter().collect());
    }
    let mut selected: Vec<&Image> = Vec::new();
    for name in request.images {
        let image = manifest
            .images
            .iter()
            .find(|image| image.name.as_str() == name)
            .ok_or_else(|| unknown(manifest, name))?;
        if request.purpose == Purpose::Publish && !image.push {
            return Err(
                Problem::usage(format!("the image `{name}` is not pushed: {} says `push: false`", image.place))
                    .hint(format!("to build it: lattice-images build {name}")),
            );
        }
        if !selected.iter().any(|other| other.name == image.name) {
            selected.push(image);
        }
    }
    Ok(selected)
}

fn unknown(manifest: &Manifest, name: &str) -> Problem {
    let names: Vec<_> = manifest.names().map(ImageName::as_str).collect();
    let problem = Problem::usage(format!(
        "image `{}` is not in {} (images: {})",
        printable(name),
        manifest.file,
        names.join(", ")
    ));
    match nearest(name, names) {
        Some(meant) => problem.hint(format!("did you mean `{meant}`?")),
        None => problem,
    }
}

struct Planner<'m> {
    manifest: &'m Manifest,
    registry: &'m Registry,
    owner: &'m Owner,
    steps: Vec<Step>,
    planned: BTreeMap<(&'m ImageName, Variant), usize>,
    /// The images being planned, each FROM the next.
    path: Vec<(&'m ImageName, Variant)>,
}

impl<'m> Planner<'m> {
    fn step(&mut self, image: &'m Image, variant: Variant) -> Result<usize, Problem> {
        let key = (&image.name, variant);
        if let Some(step) = self.planned.get(&key) {
            return Ok(*step);
        }
        self.path.push(key);
        let work = match image.build(variant) {
            Some(build) => self.build(build, variant)?,
            None => Work::AddUtilities {
                normal: self.step(image, Variant::Normal)?,
                platform: image.normal.platform.clone(),
            },
        };
        self.path.pop();
        self.steps.push(Step {
            image: image.name.clone(),
            variant,
            reference: self.owner.channel(variant).reference(self.registry, &image.name)?,
            work,
            publish: false,
        });
        self.planned.insert(key, self.steps.len() - 1);
        Ok(self.steps.len() - 1)
    }

    fn build(&mut self, build: &Build, variant: Variant) -> Result<Work, Problem> {
        let mut siblings = Vec::new();
        let mut external = Vec::new();
        let named = image_references(build)?;
        for named in named
            .into_iter()
            .filter(|named| !build.additional_contexts.contains_key(&named.name))
        {
            match self.sibling(&named.name) {
                None => external.push(named.name),
                Some(sibling) => {
                    self.refuse_circle(&sibling.name, variant, &format!("{}:{}", build.dockerfile.file, named.line))?;
                    siblings.push(Sibling {
                        span: named.span,
                        step: self.step(sibling, variant)?,
                    });
                }
            }
        }
        Ok(Work::Build {
            build: Box::new(build.clone()),
            siblings,
            external,
        })
    }

    fn sibling(&self, name: &str) -> Option<&'m Image> {
        let name = name.strip_suffix(":latest").unwrap_or(name);
        self.manifest.images.iter().find(|image| image.name.as_str() == name)
    }

    fn refuse_circle(&self, sibling: &ImageName, variant: Variant, place: &str) -> Result<(), Problem> {
        let Some(start) = self.path.iter().position(|key| *key == (sibling, variant)) else {
            return Ok(());
        };
        let names: Vec<_> = self.path[start..]
            .iter()
            .map(|(name, _)| name.as_str())
            .chain([sibling.as_str()])
            .collect();
        Err(Problem::usage(format!(
            "{place}: the images stand on each other in a circle: {}",
            names.join(" -> ")
        ))
        .hint(format!(
            "`{sibling}` here means the image of {}; an image of a registry is named with its host, as in docker.io/library/{sibling}",
            self.manifest.file
        )))
    }
}

fn image_references(build: &Build) -> Result<Vec<ImageReference>, Problem> {
    let mut args = platform_args(&build.platform);
    args.extend(build.args.clone());
    let found = build.dockerfile.parsed.image_references(&args, build.target.as_deref());
    found.map_err(|error| Problem::usage(format!("{}:{}: {}", build.dockerfile.file, error.line, printable(&error.message))))
}

/// The platform args that a `FROM` may use (Dockerfile reference, "Automatic platform ARGs in the global scope").
fn platform_args(platform: &str) -> BTreeMap<String, String> {
    let mut parts = platform.splitn(3, '/');
    let mut next = || parts.next().unwrap_or_default().to_owned();
    let (os, architecture, variant) = (next(), next(), next());
    let mut args = BTreeMap::new();
    for side in ["TARGET", "BUILD"] {
        for (name, value) in [("PLATFORM", platform), ("OS", &os), ("ARCH", &architecture), ("VARIANT", &variant)] {
            args.insert(format!("{side}{name}"), value.to_owned());
        }
    }
    args
}

#[cfg(test)]
mod tests;
