//! From the manifest, a channel and a selection of images to what is to be done: a pure function.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use crate::channel::{ChannelName, Owner, Variant};
use crate::dockerfile::ImageReference;
use crate::externals::{self, Stages};
use crate::manifest::{Build, Image, Manifest, SOURCE_DATE_EPOCH, UtilitiesSource};
use crate::problem::{Problem, nearest, printable};
use crate::reference::{ImageName, Reference, Registry};

mod platforms;

/// What to do about an image that the utilities cannot be added to.
pub const OWN_KEYS: &str = "give the image `debug:` keys of its own in the manifest, for instance `debug: { target: debug }`";

/// What is to be done, in an order in which every step comes after what it needs.
#[derive(Debug)]
pub struct Plan {
    pub registry: Registry,
    pub channels: Vec<ChannelName>,
    pub steps: Vec<Step>,
}

impl Plan {
    /// Whether another step adds utilities to this one's image.
    #[must_use]
    pub fn gives_utilities_to(&self, step: &Step) -> bool {
        let adds = |other: &Step| other.image == step.image && matches!(other.work, Work::AddUtilities { .. });
        step.variant == Variant::Normal && self.steps.iter().any(adds)
    }

    /// The builds from Dockerfiles.
    pub fn builds(&self) -> impl Iterator<Item = &Build> {
        self.steps.iter().filter_map(|step| match &step.work {
            Work::Build { build, .. } => Some(&**build),
            Work::AddUtilities { .. } => None,
        })
    }
}

impl Plan {
    /// The images of elsewhere that the builds resolve.
    pub fn externals(&self) -> impl Iterator<Item = &str> {
        self.steps.iter().flat_map(Step::externals).map(String::as_str)
    }

    /// Whether an image that a step is FROM has, or may have, instructions for it (`ONBUILD`). `triggers` are those images of
    /// elsewhere that do.
    ///
    /// # Errors
    /// What is wrong with the Dockerfile.
    pub fn is_instructed(&self, step: &Step, triggers: &BTreeSet<String>) -> Result<bool, Problem> {
        let Work::Build { build, siblings, .. } = &step.work else {
            return Ok(false);
        };
        let by_base = externals::bases(build)?.iter().any(|(name, _)| triggers.contains(name));
        Ok(by_base || siblings.iter().any(|sibling| self.steps[sibling.step].has_instructions()))
    }

    /// What a step's image runs on.
    #[must_use]
    pub fn platforms(&self, step: &Step) -> Vec<String> {
        match &step.work {
            Work::Build { build, .. } => build.platforms.clone(),
            Work::AddUtilities { platforms, .. } => platforms.clone(),
        }
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
    AddUtilities {
        normal: usize,
        platforms: Vec<String>,
        /// The image that holds the utilities, where one does.
        external: Vec<String>,
    },
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

    /// Whether its Dockerfile may have instructions for what is FROM it, as far as the words tell.
    fn has_instructions(&self) -> bool {
        let Work::Build { build, .. } = &self.work else { return false };
        let mut words = build.dockerfile.text.lines().filter_map(|line| line.split_whitespace().next());
        words.any(|word| word.eq_ignore_ascii_case("ONBUILD"))
    }

    /// The time that its build is to take for its own, where one is given.
    #[must_use]
    pub fn epoch(&self) -> Option<&str> {
        match &self.work {
            Work::Build { build, .. } => build.args.get(SOURCE_DATE_EPOCH).map(String::as_str),
            Work::AddUtilities { .. } => None,
        }
    }

    /// The images of elsewhere that it resolves.
    #[must_use]
    pub fn externals(&self) -> &[String] {
        match &self.work {
            Work::Build { external, .. } | Work::AddUtilities { external, .. } => external,
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
            None => self.utilities(image)?,
        };
        self.path.pop();
        self.steps.push(Step {
            image: image.name.clone(),
            variant,
            reference: self
                .owner
                .channel(variant)
                .reference(self.registry, &image.name)
                .map_err(|problem| Problem::usage(format!("{}: {problem}", image.place)))?,
            work,
            publish: false,
        });
        self.planned.insert(key, self.steps.len() - 1);
        Ok(self.steps.len() - 1)
    }

    fn utilities(&mut self, image: &'m Image) -> Result<Work, Problem> {
        let build = &image.normal;
        if build.dockerfile.parsed.has_triggers(build.target.as_deref()) {
            return Err(Problem::usage(format!(
                "{}: the image `{}` has ONBUILD instructions, which adding the utilities would carry out",
                image.place, image.name
            ))
            .hint(OWN_KEYS));
        }
        Ok(Work::AddUtilities {
            normal: self.step(image, Variant::Normal)?,
            platforms: build.platforms.clone(),
            external: match &self.manifest.utilities.source {
                UtilitiesSource::Image(image) => vec![image.clone()],
                UtilitiesSource::Path(_) => Vec::new(),
            },
        })
    }

    fn build(&mut self, build: &Build, variant: Variant) -> Result<Work, Problem> {
        let mut siblings: Vec<Sibling> = Vec::new();
        let mut others = Vec::new();
        for named in named_images(build)? {
            let place = format!("{}:{}", build.dockerfile.file, named.line);
            let Some(sibling) = self.manifest.sibling(&named.name) else {
                others.push((named.span, place));
                continue;
            };
            self.refuse_circle(&sibling.name, variant, &place)?;
            let step = self.step(sibling, variant)?;
            let is_other = |known: &Sibling| known.span == named.span && known.step != step;
            if siblings.iter().any(is_other) {
                return Err(ambiguous(&place));
            }
            siblings.push(Sibling { span: named.span, step });
        }
        self.refuse_other_platforms(build, variant)?;
        if let Some((_, place)) = others.iter().find(|(span, _)| siblings.iter().any(|sibling| sibling.span == *span)) {
            return Err(ambiguous(place));
        }
        Ok(Work::Build {
            build: Box::new(build.clone()),
            siblings,
            external: externals::of(build, Stages::Needed, |name| self.manifest.sibling(name).is_some())?
                .into_iter()
                .collect(),
        })
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

/// All that either builder resolves, for any of the platforms: the classic one builds every stage up to the target.
fn named_images(build: &Build) -> Result<Vec<ImageReference>, Problem> {
    let mut named = build.of_each_platform(|dockerfile, args| dockerfile.image_references_up_to(args, build.target.as_deref()))?;
    named.retain(|named| build.named_context(&named.name).is_none());
    Ok(named)
}

fn ambiguous(place: &str) -> Problem {
    Problem::usage(format!(
        "{place}: for one platform this is an image of the manifest, and for another it is another image"
    ))
    .hint("name each in a stage of its own")
}

#[cfg(test)]
mod tests;
