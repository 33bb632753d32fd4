//! The instructions of a Dockerfile as builders tell of them, and which of them came from the cache.

use crate::event::Instruction;

/// `[2/3] COPY a /a`, `[build 2/3] RUN make`, `[linux/amd64 build 2/3] RUN make`: how BuildKit's Dockerfile frontend names
/// a vertex (moby/buildkit, `frontend/dockerfile/dockerfile2llb`). Others, such as `[internal] load build context`, are none.
pub(super) fn of_vertex(name: &str) -> Option<Instruction> {
    let (position, text) = name.strip_prefix('[')?.split_once("] ")?;
    let (before, numbers) = position.rsplit_once(' ').unwrap_or(("", position));
    let (number, total) = numbers.split_once('/')?;
    let stage = before.rsplit(' ').next().filter(|stage| !stage.is_empty() && !stage.contains('/'));
    Some(Instruction {
        stage: stage.map(str::to_owned),
        number: number.trim().parse().ok()?,
        total: total.parse().ok()?,
        text: text.to_owned(),
    })
}

/// `Step 2/3 : COPY a /a`: how the classic builder begins one (moby, `builder/dockerfile/evaluator.go`).
pub(super) fn of_line(line: &str) -> Option<Instruction> {
    let (numbers, text) = line.strip_prefix("Step ")?.split_once(" : ")?;
    let (number, total) = numbers.split_once('/')?;
    Some(Instruction {
        stage: None,
        number: number.parse().ok()?,
        total: total.parse().ok()?,
        text: text.to_owned(),
    })
}

/// Whether all instructions came from the cache. `FROM` is not one that could.
#[derive(Debug, Default)]
pub(super) struct Cache {
    hits: usize,
    misses: usize,
}

impl Cache {
    /// Gives whether the builder had the result.
    pub(super) fn count(&mut self, instruction: &Instruction, hit: bool) -> bool {
        let from = is_from(instruction);
        if hit && !from {
            self.hits += 1;
        } else if !from {
            self.misses += 1;
        }
        hit || from
    }

    pub(super) fn all_hit(&self) -> bool {
        self.hits > 0 && self.misses == 0
    }
}

fn is_from(instruction: &Instruction) -> bool {
    let word = instruction.text.split_whitespace().next();
    word.is_some_and(|word| word.eq_ignore_ascii_case("FROM"))
}

/// A line of the classic builder.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Line {
    Begins(Instruction),
    Cached(Instruction),
    /// More of its own doings.
    Builder,
    Command,
}

/// What the classic builder prints, read line by line.
#[derive(Debug, Default)]
pub(super) struct ClassicLog {
    cache: Cache,
    from_seen: bool,
    current: Option<Instruction>,
}

impl ClassicLog {
    pub(super) fn read(&mut self, line: &str) -> Line {
        if let Some(instruction) = of_line(line) {
            self.end(false);
            self.from_seen |= is_from(&instruction);
            // an ARG before the first FROM is never in the cache, and changes nothing by itself
            self.current = self.from_seen.then(|| instruction.clone());
            return Line::Begins(instruction);
        }
        let ends = line == " ---> Using cache" || (line.starts_with(" --->") && self.current.as_ref().is_some_and(is_from));
        if ends && let Some(instruction) = self.end(true) {
            return Line::Cached(instruction);
        }
        let own = [
            " --->",
            "Removing intermediate container ",
            "Successfully built ",
            "Successfully tagged ",
        ];
        if own.iter().any(|begin| line.starts_with(begin)) {
            Line::Builder
        } else {
            Line::Command
        }
    }

    pub(super) fn all_hit(&mut self) -> bool {
        self.end(false);
        self.cache.all_hit()
    }

    fn end(&mut self, hit: bool) -> Option<Instruction> {
        let instruction = self.current.take()?;
        self.cache.count(&instruction, hit).then_some(instruction)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape(instruction: Option<Instruction>) -> String {
        instruction.map_or("none".to_owned(), |i| {
            format!("{} {}/{} {}", i.stage.unwrap_or("-".into()), i.number, i.total, i.text)
        })
    }

    #[test]
    fn vertexes() {
        for (name, expected) in [
            ("[2/3] COPY a /a", "- 2/3 COPY a /a"),
            ("[build 2/3] RUN [ -e x ] && make", "build 2/3 RUN [ -e x ] && make"),
            ("[stage-1 10/12] RUN x", "stage-1 10/12 RUN x"),
            ("[linux/amd64 build 2/3] RUN x", "build 2/3 RUN x"),
            ("[linux/amd64 2/3] RUN x", "- 2/3 RUN x"),
            ("[ 2/12] RUN x", "- 2/12 RUN x"),
            ("[build  2/12] RUN x", "- 2/12 RUN x"),
            ("[internal] load build context", "none"),
            ("[auth] library/x:pull token", "none"),
            ("exporting to image", "none"),
            ("[x/y] z", "none"),
        ] {
            assert_eq!(shape(of_vertex(name)), expected, "{name}");
        }
    }

    #[test]
    fn what_the_classic_builder_prints() {
        let read = |lines: &[&str]| {
            let mut log = ClassicLog::default();
            let read: Vec<_> = lines.iter().map(|line| log.read(line)).collect();
            (read, log.all_hit())
        };
        let lines = [
            "Step 1/3 : ARG x",
            "Step 2/3 : FROM scratch",
            " --->",
            "Step 3/3 : COPY a /a",
            " ---> Using cache",
            " ---> 0123",
        ];
        let [arg, from, copy] = [lines[0], lines[1], lines[3]].map(|line| of_line(line).expect("an instruction"));
        let (hit, all_hit) = read(&lines);
        let begins = |instruction: &Instruction| Line::Begins(instruction.clone());
        let expected = [
            begins(&arg),
            begins(&from),
            Line::Cached(from.clone()),
            begins(&copy),
            Line::Cached(copy.clone()),
            Line::Builder,
        ];
        assert_eq!((hit.as_slice(), all_hit), (&expected[..], true));
        let (missed, all_hit) = read(&[
            "Step 1/1 : RUN x",
            " ---> Running in 0123",
            "a line of it",
            "Removing intermediate container 0123",
        ]);
        assert_eq!((&missed[1..], all_hit), (&[Line::Builder, Line::Command, Line::Builder][..], false));
        assert!(!read(&lines[..3]).1, "a FROM alone does not come from the cache");
    }
}
