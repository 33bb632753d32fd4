//! Workflow commands of GitHub Actions (docs.github.com, "Workflow commands for GitHub Actions").

use super::plain::clean;

/// The log of a build, which a reader unfolds. Its lines begin with something of ours, so that none is a command itself.
pub fn group(step: &str, log: Vec<String>) -> impl Iterator<Item = String> {
    let fence = |line: String| (!log.is_empty()).then_some(line);
    let (begin, end) = (
        fence(format!("::group::log of {}", escape(&clean(step)))),
        fence("::endgroup::".to_owned()),
    );
    begin.into_iter().chain(log).chain(end)
}

/// An annotation of the run.
pub fn error(message: &str) -> String {
    format!("::error::{}", escape(message))
}

/// As the runner reads a command's data (actions/toolkit, `packages/core/src/command.ts`, `escapeData`).
fn escape(data: &str) -> String {
    data.replace('%', "%25").replace('\r', "%0D").replace('\n', "%0A")
}

#[cfg(test)]
mod tests {
    use super::escape;

    #[test]
    fn what_a_command_cannot_hold_is_escaped() {
        assert_eq!(escape("50%\r\nleft, %0A: a::b"), "50%25%0D%0Aleft, %250A: a::b");
    }
}
