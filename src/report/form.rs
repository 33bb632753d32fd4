//! How a run shows itself: chosen once, from what was asked for and where the program runs.

use std::env;
use std::io::{self, IsTerminal};
use std::sync::OnceLock;

use crate::cli::Progress;
use crate::problem::Problem;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// A line an image, redrawn in place.
    Tty,
    Plain,
    /// Plain with the workflow commands of GitHub Actions.
    GitHub,
    Json,
    Quiet,
}

static CHOSEN: OnceLock<Form> = OnceLock::new();

/// What is known of where the program runs.
#[derive(Clone, Copy, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
struct Place {
    /// stderr is a terminal.
    terminal: bool,
    /// That terminal can move its cursor.
    moves: bool,
    ci: bool,
    github: bool,
}

/// Chooses, for the whole process, how everything is said on stderr. `verbose` traces lines of its own, which a region
/// that is redrawn would garble.
///
/// # Errors
/// `--progress tty` without a terminal.
pub fn choose(asked: Progress, verbose: bool) -> Result<Form, Problem> {
    let set = |name: &str| env::var(name).is_ok_and(|value| !matches!(value.as_str(), "" | "0" | "false"));
    let place = Place {
        terminal: io::stderr().is_terminal(),
        moves: env::var("TERM").is_ok_and(|term| !matches!(term.as_str(), "" | "dumb")),
        ci: set("CI"),
        github: set("GITHUB_ACTIONS"),
    };
    let form = form(asked, verbose, place)?;
    Ok(*CHOSEN.get_or_init(|| form))
}

/// What was chosen; plain until then.
pub(super) fn chosen() -> Form {
    CHOSEN.get().copied().unwrap_or(Form::Plain)
}

fn form(asked: Progress, verbose: bool, place: Place) -> Result<Form, Problem> {
    let plain = if place.github { Form::GitHub } else { Form::Plain };
    Ok(match asked {
        Progress::Tty if !place.terminal => {
            return Err(Problem::usage("--progress tty is for a terminal, and stderr is none").hint("--progress plain, or auto"));
        }
        Progress::Tty if !verbose => Form::Tty,
        Progress::Auto if place.terminal && place.moves && !place.ci && !verbose => Form::Tty,
        Progress::Auto | Progress::Tty | Progress::Plain => plain,
        Progress::Json => Form::Json,
        Progress::Quiet => Form::Quiet,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const DESK: Place = Place {
        terminal: true,
        moves: true,
        ci: false,
        github: false,
    };

    #[test]
    fn what_auto_means() {
        let auto = |place| form(Progress::Auto, false, place).expect("a form");
        assert_eq!(auto(DESK), Form::Tty);
        assert_eq!(auto(Place { terminal: false, ..DESK }), Form::Plain);
        assert_eq!(auto(Place { moves: false, ..DESK }), Form::Plain);
        assert_eq!(auto(Place { ci: true, ..DESK }), Form::Plain);
        let runner = Place {
            terminal: false,
            moves: false,
            ci: true,
            github: true,
        };
        assert_eq!(auto(runner), Form::GitHub);
        assert_eq!(form(Progress::Auto, true, DESK).expect("a form"), Form::Plain);
    }

    #[test]
    fn what_is_asked_for_is_given() {
        let given = |asked, place| form(asked, false, place).expect("a form");
        assert_eq!(given(Progress::Tty, Place { ci: true, ..DESK }), Form::Tty);
        assert_eq!(given(Progress::Plain, DESK), Form::Plain);
        assert_eq!(given(Progress::Plain, Place { github: true, ..DESK }), Form::GitHub);
        assert_eq!(given(Progress::Json, Place { github: true, ..DESK }), Form::Json);
        assert_eq!(given(Progress::Quiet, DESK), Form::Quiet);
        assert!(form(Progress::Tty, false, Place { terminal: false, ..DESK }).is_err());
    }
}
