//! What the program tells of itself: to shells, to `man`, to editors.

use std::path::Path;

use clap::CommandFactory;
use clap_complete::Shell;
use clap_mangen::Man;

use crate::cli::Cli;
use crate::manifest::SCHEMA;
use crate::problem::{Exit, Problem, printable};
use crate::report;

pub fn completions(shell: Shell) -> Exit {
    let mut command = Cli::command();
    let name = command.get_name().to_owned();
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut command, name, &mut script);
    let script = String::from_utf8_lossy(&script);
    // for bash, clap_complete (4.6) calls a program with a hyphen in its name by two names, and never finds the second
    report::text(script.replace("lattice__subcmd__images", "lattice__images").as_bytes());
    Exit::Done
}

pub fn man(folder: Option<&Path>) -> Result<Exit, Problem> {
    if let Some(folder) = folder {
        let shown = printable(&folder.display().to_string());
        std::fs::create_dir_all(folder)
            .and_then(|()| clap_mangen::generate_to(Cli::command(), folder))
            .map_err(|error| Problem::failed(format!("the manual pages cannot be written to {shown}: {error}")))?;
        return Ok(Exit::Done);
    }
    let mut page = Vec::new();
    Man::new(Cli::command())
        .render(&mut page)
        .map_err(|error| Problem::failed(format!("the manual page cannot be made: {error}")))?;
    report::text(&page);
    Ok(Exit::Done)
}

pub fn schema() -> Exit {
    report::text(SCHEMA.as_bytes());
    Exit::Done
}
