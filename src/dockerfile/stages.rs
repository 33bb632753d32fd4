//! Which stages a build needs, and which images they name.
//!
//! Follows moby/buildkit's `frontend/dockerfile/dockerfile2llb`; where the classic builder reads a
//! name otherwise, the methods say so.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use super::expand::expand;
use super::{Dockerfile, DockerfileError, Instruction, Word};

/// Build arguments that need no `ARG` before they are used in a `FROM`.
const PREDEFINED: [&str; 11] = [
    "BUILDPLATFORM",
    "BUILDOS",
    "BUILDOSVERSION",
    "BUILDARCH",
    "BUILDVARIANT",
    "TARGETPLATFORM",
    "TARGETOS",
    "TARGETOSVERSION",
    "TARGETARCH",
    "TARGETVARIANT",
    "TARGETSTAGE",
];

/// What stands for what only the builder knows (`BUILDARCH`, ...): no name holds it.
const UNKNOWN: char = '\0';

/// A place that names an image, and not a stage or `scratch`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageReference {
    /// What names it.
    pub kind: ReferenceKind,
    /// With variables expanded. It may still be the name of an additional context, which goes before
    /// an image of that name.
    pub name: String,
    /// Where the name is written, 1-based.
    pub line: usize,
    /// The bytes of the file that hold the name as written. Another name may take their place.
    pub span: Range<usize>,
    /// The stage whose build reads the image.
    pub stage: usize,
    /// `--platform` of a `FROM`, expanded; empty where that is the builder's own.
    pub platform: Option<String>,
    /// Written behind `ONBUILD` in the stage that this one is based on. That text also goes into the
    /// configuration of an image built from there, so a name put in its place goes along.
    pub onbuild: bool,
}

/// What names an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ReferenceKind {
    /// `FROM`
    From,
    /// `COPY --from=`
    CopyFrom,
    /// `RUN --mount=from=`
    MountFrom,
}

impl ReferenceKind {
    fn written(self) -> &'static str {
        match self {
            Self::From => "FROM",
            Self::CopyFrom => "COPY --from=",
            Self::MountFrom => "RUN --mount=from=",
        }
    }
}

/// A name and what it stands for.
#[derive(Clone, Debug)]
struct Use {
    reference: ImageReference,
    meaning: Meaning,
}

#[derive(Clone, Debug)]
enum Meaning {
    Image,
    Stage(usize),
    /// `scratch`, or the context.
    Nothing,
    /// Wrong if the stage is built.
    Mistake(String),
}

impl Dockerfile {
    /// The images that `BuildKit` reads to build `target`, the last stage if `None`, in the order of
    /// the file.
    ///
    /// `args` are the build arguments, with the predefined ones (`TARGETPLATFORM`, `BUILDARCH`, ...)
    /// among them as far as they are known; `TARGETSTAGE` follows from the target.
    ///
    /// # Errors
    /// A target that is not there; a `FROM` that comes out empty or cannot be expanded; in a stage
    /// that is needed, a name that depends on the builder's platform where that is not known, a name
    /// with a variable where none is expanded, or a stage that is the very one or comes later.
    pub fn image_references(&self, args: &BTreeMap<String, String>, target: Option<&str>) -> Result<Vec<ImageReference>, DockerfileError> {
        let uses = self.uses(args, target)?;
        let stages = reach(&uses, self.target(target)?)?;
        Ok(images(uses, &stages))
    }

    /// As [`Dockerfile::image_references`] for the classic builder, which builds every stage up to
    /// the target.
    ///
    /// # Errors
    /// As there.
    pub fn image_references_up_to(
        &self,
        args: &BTreeMap<String, String>,
        target: Option<&str>,
    ) -> Result<Vec<ImageReference>, DockerfileError> {
        let stages = self.stages_up_to(target)?;
        let uses = self.uses(args, target)?;
        for &stage in &stages {
            reach(&uses, Some(stage))?;
        }
        Ok(images(uses, &stages))
    }

    /// The stages that `BuildKit` builds for `target`: itself and what it is made from.
    ///
    /// # Errors
    /// As [`Dockerfile::image_references`].
    pub fn stages_needed(&self, args: &BTreeMap<String, String>, target: Option<&str>) -> Result<BTreeSet<usize>, DockerfileError> {
        reach(&self.uses(args, target)?, self.target(target)?)
    }

    /// The stages that the classic builder builds for `target`: all up to it.
    ///
    /// # Errors
    /// A target that is not there.
    pub fn stages_up_to(&self, target: Option<&str>) -> Result<BTreeSet<usize>, DockerfileError> {
        let last = self.target(target)?;
        Ok(last.map_or_else(BTreeSet::new, |last| (0..=last).collect()))
    }

    /// By name, else by index, which is ours: no builder takes one. `None` only for a file without
    /// stages.
    fn target(&self, target: Option<&str>) -> Result<Option<usize>, DockerfileError> {
        let Some(target) = target.filter(|target| !target.is_empty()) else {
            return Ok(self.stages.len().checked_sub(1));
        };
        let index = || target.parse().ok().filter(|&index| index < self.stages.len());
        match self.stage_named(target, self.stages.len()).or_else(index) {
            Some(stage) => Ok(Some(stage)),
            None if self.has_foreign_frontend() => Ok(self.stages.len().checked_sub(1)),
            None => Err(DockerfileError::new(
                self.stages.first().map_or(1, |stage| stage.line),
                format!("there is no stage `{target}` ({})", self.named_stages()),
            )),
        }
    }

    /// Whether there is a stage for `target`, as far as that can be told.
    #[must_use]
    pub fn has_target(&self, target: &str) -> bool {
        self.target(Some(target)).is_ok()
    }

    /// For messages: those that a target can name.
    #[must_use]
    pub fn named_stages(&self) -> String {
        let names: Vec<_> = self.stages.iter().filter_map(|stage| stage.name.as_deref()).collect();
        if names.is_empty() {
            "no stage has a name".to_owned()
        } else {
            format!("stages with a name: {}", names.join(", "))
        }
    }

    fn stage_list(&self) -> String {
        let name = |(index, stage): (usize, &super::Stage)| match &stage.name {
            Some(name) => name.clone(),
            None => index.to_string(),
        };
        let names: Vec<_> = self.stages.iter().enumerate().map(name).collect();
        names.join(", ")
    }

    /// The last one of that name among the first `before`.
    fn stage_named(&self, name: &str, before: usize) -> Option<usize> {
        let name = name.to_lowercase();
        let mut earlier = self.stages[..before].iter();
        earlier.rposition(|stage| stage.name.as_ref() == Some(&name))
    }

    fn uses(&self, args: &BTreeMap<String, String>, target: Option<&str>) -> Result<Vec<Use>, DockerfileError> {
        let variables = self.global_variables(args, target)?;
        let mut uses = Vec::new();
        for stage in 0..self.stages.len() {
            let base = self.base(stage, &variables)?;
            let inherited = match base.meaning {
                Meaning::Stage(base) => Some(base),
                _ => None,
            };
            uses.push(base);
            let triggers = inherited.into_iter().flat_map(|base| self.triggers_of(base));
            for trigger in triggers {
                uses.extend(self.uses_in(trigger, stage).map(|mut named| {
                    named.reference.onbuild = true;
                    named
                }));
            }
            for instruction in self.instructions_of(stage) {
                uses.extend(self.uses_in(instruction, stage));
            }
        }
        Ok(uses)
    }

    /// Whether the image of `target` has instructions for whoever builds on it.
    #[must_use]
    pub fn has_triggers(&self, target: Option<&str>) -> bool {
        let stage = self.target(target).ok().flatten();
        stage.is_some_and(|stage| self.triggers_of(stage).next().is_some())
    }

    fn triggers_of(&self, stage: usize) -> impl Iterator<Item = &Instruction> {
        self.instructions_of(stage).filter_map(|instruction| instruction.trigger.as_deref())
    }

    /// What `FROM` can use: the predefined arguments, and each `ARG` before the first `FROM` with the
    /// build argument of its name or else its default.
    fn global_variables(&self, args: &BTreeMap<String, String>, target: Option<&str>) -> Result<BTreeMap<String, String>, DockerfileError> {
        let last = self.stages.last().and_then(|stage| stage.name.as_deref());
        let target = target.filter(|target| !target.is_empty()).or(last);
        let mut variables = BTreeMap::new();
        variables.insert("TARGETSTAGE".to_owned(), target.unwrap_or("default").to_owned());
        let of_builder = PREDEFINED.iter().filter(|name| name.starts_with("BUILD"));
        variables.extend(of_builder.map(|&name| (name.to_owned(), UNKNOWN.to_string())));
        let predefined = PREDEFINED.iter().filter_map(|&name| args.get_key_value(name));
        variables.extend(predefined.map(|(name, value)| (name.clone(), value.clone())));
        let globals = self.instructions.iter().take_while(|arg| arg.stage.is_none());
        for (arg, line) in globals
            .filter(|instruction| instruction.keyword == "ARG")
            .flat_map(|instruction| instruction.args.iter().map(|arg| (arg, instruction.line)))
        {
            let (name, default) = match arg.text.split_once('=') {
                Some((name, default)) => (name, Some(default)),
                None => (arg.text.as_str(), None),
            };
            let value = match (args.get(name), default) {
                (Some(given), _) => given.clone(),
                (None, Some(default)) => self.expand(default, line, &variables)?,
                (None, None) => continue,
            };
            variables.insert(name.to_owned(), value);
        }
        Ok(variables)
    }

    fn expand(&self, word: &str, line: usize, variables: &BTreeMap<String, String>) -> Result<String, DockerfileError> {
        expand(word, self.escape, &|name| variables.get(name).map(String::as_str))
            .map_err(|message| DockerfileError::new(line, format!("in `{word}`: {message}")))
    }

    fn base(&self, stage: usize, variables: &BTreeMap<String, String>) -> Result<Use, DockerfileError> {
        let from = &self.stages[stage];
        let mut reference = self.reference(ReferenceKind::From, &from.base, stage);
        reference.name = self.expand(&from.base.text, reference.line, variables)?;
        if reference.name.is_empty() {
            let message = format!("`{}` comes out empty", from.base.text);
            return Err(DockerfileError::new(reference.line, message));
        }
        if let Some(platform) = &from.platform {
            let platform = self.expand(&platform.text, from.line, variables)?;
            reference.platform = Some(if platform.contains(UNKNOWN) { String::new() } else { platform });
        }
        let meaning = match self.stage_named(&reference.name, stage) {
            Some(earlier) => Meaning::Stage(earlier),
            None if reference.name.contains(UNKNOWN) => Meaning::Mistake(format!(
                "`{}` depends on the builder's platform, which only the builder knows: use that of the image (`TARGETARCH`), or give the variable a value in `args`",
                from.base.text
            )),
            None if reference.name == "scratch" => Meaning::Nothing,
            None => Meaning::Image,
        };
        Ok(Use { reference, meaning })
    }

    fn reference(&self, kind: ReferenceKind, name: &Word, stage: usize) -> ImageReference {
        let before = &self.text[..name.span.start];
        ImageReference {
            kind,
            name: name.text.clone(),
            line: before.matches('\n').count() + 1,
            span: name.span.clone(),
            stage,
            platform: None,
            onbuild: false,
        }
    }

    fn uses_in(&self, instruction: &Instruction, stage: usize) -> impl Iterator<Item = Use> {
        // an empty one is the context
        let copied = instruction
            .flag("from")
            .filter(|from| instruction.keyword == "COPY" && !from.text.is_empty());
        let is_run = instruction.keyword == "RUN";
        let mounted = instruction.mounts.iter().filter(move |_| is_run);
        let mounted = mounted.filter_map(|mount| mount.from.as_ref());
        let copied = copied.map(|name| (ReferenceKind::CopyFrom, name));
        let named = copied.into_iter();
        let named = named.chain(mounted.map(|name| (ReferenceKind::MountFrom, name)));
        named.map(move |(kind, name)| Use {
            reference: self.reference(kind, name, stage),
            meaning: self.meaning_of_from(kind, &name.text, stage),
        })
    }

    /// `COPY --from=0` is the first stage, `RUN --mount=from=0` an image.
    fn meaning_of_from(&self, kind: ReferenceKind, name: &str, stage: usize) -> Meaning {
        let written = kind.written();
        if name.contains('$') {
            return Meaning::Mistake(format!("`{written}{name}` is not expanded: name a stage that is `FROM {name}`"));
        }
        let index = match kind {
            ReferenceKind::CopyFrom => name.parse::<i64>().ok(),
            _ => None,
        };
        let found = match index {
            Some(index) => usize::try_from(index).ok().filter(|&index| index < self.stages.len()),
            None => self.stage_named(name, stage).or_else(|| self.stage_named(name, self.stages.len())),
        };
        match found {
            Some(found) if found < stage => Meaning::Stage(found),
            Some(found) if found == stage => Meaning::Mistake(format!("`{written}{name}` is the stage that it stands in")),
            Some(found) => Meaning::Mistake(format!(
                "`{written}{name}` is a stage that only begins on line {}",
                self.stages[found].line
            )),
            None if index.is_some() => Meaning::Mistake(format!("`{written}{name}` is no stage (stages: {})", self.stage_list())),
            None if name.is_empty() || name == "scratch" => Meaning::Nothing,
            None => Meaning::Image,
        }
    }
}

fn reach(uses: &[Use], target: Option<usize>) -> Result<BTreeSet<usize>, DockerfileError> {
    let mut needed = BTreeSet::new();
    let mut open: Vec<usize> = target.into_iter().collect();
    while let Some(stage) = open.pop() {
        if !needed.insert(stage) {
            continue;
        }
        for named in uses.iter().filter(|named| named.reference.stage == stage) {
            match &named.meaning {
                Meaning::Stage(earlier) => open.push(*earlier),
                Meaning::Mistake(message) => {
                    return Err(DockerfileError::new(named.reference.line, message));
                }
                Meaning::Image | Meaning::Nothing => {}
            }
        }
    }
    Ok(needed)
}

fn images(uses: Vec<Use>, stages: &BTreeSet<usize>) -> Vec<ImageReference> {
    uses.into_iter()
        .filter(|named| matches!(named.meaning, Meaning::Image))
        .map(|named| named.reference)
        .filter(|reference| stages.contains(&reference.stage))
        .collect()
}
