//! What a Dockerfile names: its stages and the images it resolves, each with its place in the text.
//!
//! The format is that of the Dockerfile reference, read as BuildKit's parser reads it (moby/buildkit,
//! `frontend/dockerfile/parser`). Whatever does not matter here is left to the builder to judge.

mod expand;
mod lines;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::ops::Range;

use expand::expand;
use lines::{Instruction, Word};

/// What is wrong, and the line (1-based) where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DockerfileError {
    pub line: usize,
    pub message: String,
}

/// A place that names an image: not a stage, not `scratch`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageReference {
    /// With variables expanded.
    pub name: String,
    /// 1-based.
    pub line: usize,
    /// The bytes of the text that hold the name as it is written there.
    pub span: Range<usize>,
}

#[derive(Clone, Debug)]
pub struct Dockerfile {
    text: String,
    escape: char,
    /// `ARG` instructions before the first `FROM`.
    global_args: Vec<Instruction>,
    stages: Vec<Stage>,
}

#[derive(Clone, Debug)]
struct Stage {
    from: Instruction,
    base: Word,
    /// In lower case: names of stages are compared without regard to it.
    name: Option<String>,
    instructions: Vec<Instruction>,
}

/// # Errors
/// When there is no stage, or a `FROM` or heredoc is not complete.
pub fn parse(text: &str) -> Result<Dockerfile, DockerfileError> {
    let (escape, instructions) = lines::read(text)?;
    let mut global_args = Vec::new();
    let mut stages: Vec<Stage> = Vec::new();
    for instruction in instructions {
        match (instruction.keyword.as_str(), stages.last_mut()) {
            ("FROM", _) => stages.push(stage(instruction)?),
            (_, Some(stage)) => stage.instructions.push(instruction),
            ("ARG", None) => global_args.push(instruction),
            (keyword, None) => {
                let message = format!("`{keyword}` stands before the first FROM");
                return Err(DockerfileError {
                    line: instruction.line,
                    message,
                });
            }
        }
    }
    if stages.is_empty() {
        return Err(DockerfileError {
            line: 1,
            message: "there is no FROM".to_owned(),
        });
    }
    Ok(Dockerfile {
        text: text.to_owned(),
        escape,
        global_args,
        stages,
    })
}

fn stage(from: Instruction) -> Result<Stage, DockerfileError> {
    let words: Vec<Word> = from.arguments().cloned().collect();
    let (base, name) = match words.as_slice() {
        [base] => (base.clone(), None),
        [base, keyword, name] if keyword.text.eq_ignore_ascii_case("as") => (base.clone(), Some(name.text.to_lowercase())),
        _ => {
            let message = "FROM takes an image and, with AS, a name: FROM [--platform=...] IMAGE [AS NAME]".to_owned();
            return Err(DockerfileError { line: from.line, message });
        }
    };
    Ok(Stage {
        from,
        base,
        name,
        instructions: Vec::new(),
    })
}

impl Dockerfile {
    /// The images that the stages up to `target` (a stage's name; without one, all) resolve, in the order of the
    /// text. `args` are the build's args and the platform's.
    ///
    /// # Errors
    /// When there is no such target, or a name cannot be expanded.
    pub fn image_references(&self, args: &BTreeMap<String, String>, target: Option<&str>) -> Result<Vec<ImageReference>, DockerfileError> {
        let last = target.map_or(Ok(self.stages.len() - 1), |target| self.target(target))?;
        let scope = self.global_scope(args)?;
        let mut found = Vec::new();
        for (index, stage) in self.stages[..=last].iter().enumerate() {
            let earlier = &self.stages[..index];
            let name = self.expand(&stage.base.text, &scope, stage.from.line)?;
            if name.is_empty() {
                let message = format!("`{}` is empty once its variables are expanded", stage.base.text);
                return Err(DockerfileError {
                    line: stage.from.line,
                    message,
                });
            }
            if name != "scratch" && !is_stage(earlier, &name) {
                found.push(ImageReference {
                    name,
                    line: stage.from.line,
                    span: stage.base.span.clone(),
                });
            }
            for instruction in &stage.instructions {
                found.extend(
                    instruction
                        .named_sources()
                        .into_iter()
                        .filter(|source| !instruction.means_an_index(&source.text) && !is_stage(earlier, &source.text))
                        .map(|source| ImageReference {
                            name: source.text,
                            line: instruction.line,
                            span: source.span,
                        }),
                );
            }
        }
        Ok(found)
    }

    /// The text with these places replaced, and everything else as it is.
    ///
    /// # Panics
    /// When a place is not one of [`Self::image_references`].
    #[must_use]
    pub fn replace(&self, replacements: &[(Range<usize>, String)]) -> String {
        let mut ordered: Vec<_> = replacements.iter().collect();
        ordered.sort_by_key(|(span, _)| span.start);
        let mut text = String::with_capacity(self.text.len());
        let mut at = 0;
        for (span, by) in ordered {
            text.push_str(&self.text[at..span.start]);
            text.push_str(by);
            at = span.end;
        }
        text.push_str(&self.text[at..]);
        text
    }

    fn target(&self, target: &str) -> Result<usize, DockerfileError> {
        let lower = target.to_lowercase();
        let by_name = self.stages.iter().rposition(|stage| stage.name.as_deref() == Some(lower.as_str()));
        by_name.ok_or_else(|| {
            let names: Vec<_> = self.stages.iter().filter_map(|stage| stage.name.as_deref()).collect();
            let known = if names.is_empty() {
                "none has a name".to_owned()
            } else {
                format!("stages: {}", names.join(", "))
            };
            DockerfileError {
                line: self.stages[0].from.line,
                message: format!("there is no stage `{target}` ({known})"),
            }
        })
    }

    /// The values that a `FROM` sees: the args before the first one, as given or by their defaults.
    fn global_scope(&self, args: &BTreeMap<String, String>) -> Result<BTreeMap<String, String>, DockerfileError> {
        let mut scope: BTreeMap<String, String> = args
            .iter()
            .filter(|(name, _)| is_platform_arg(name))
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect();
        for instruction in &self.global_args {
            for word in instruction.arguments() {
                let (name, default) = word
                    .text
                    .split_once('=')
                    .map_or((word.text.as_str(), None), |(name, default)| (name, Some(default)));
                let value = match (args.get(name), default) {
                    (Some(given), _) => given.clone(),
                    (None, Some(default)) => self.expand(default, &scope, instruction.line)?,
                    (None, None) => continue,
                };
                scope.insert(name.to_owned(), value);
            }
        }
        Ok(scope)
    }

    fn expand(&self, text: &str, scope: &BTreeMap<String, String>, line: usize) -> Result<String, DockerfileError> {
        expand(text, scope, self.escape).map_err(|message| DockerfileError { line, message })
    }
}

fn is_platform_arg(name: &str) -> bool {
    ["TARGET", "BUILD"].iter().any(|side| {
        name.strip_prefix(side)
            .is_some_and(|rest| ["PLATFORM", "OS", "ARCH", "VARIANT"].contains(&rest))
    })
}

fn is_stage(stages: &[Stage], name: &str) -> bool {
    let lower = name.to_lowercase();
    stages.iter().any(|stage| stage.name.as_deref() == Some(lower.as_str()))
}

impl Instruction {
    /// `COPY --from=0` is the first stage; a mount knows stages by their names only.
    fn means_an_index(&self, name: &str) -> bool {
        self.keyword != "RUN" && name.bytes().all(|byte| byte.is_ascii_digit())
    }

    /// What `COPY --from=` and `RUN --mount=...,from=` name.
    fn named_sources(&self) -> Vec<Word> {
        match self.keyword.as_str() {
            "COPY" | "ADD" => self.flags().filter_map(|flag| flag.after("--from=")).collect(),
            "RUN" => self
                .flags()
                .filter_map(|flag| flag.after("--mount="))
                .filter_map(|mount| mount.field("from="))
                .collect(),
            _ => Vec::new(),
        }
    }
}
