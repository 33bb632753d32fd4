//! What was checked, as people read it.

use anstyle::{AnsiColor, Style};
use anyhow::Error;

use super::{CYAN, RED, hints_of, plain, result};

const GREEN: Style = AnsiColor::Green.on_default();

/// Something that was checked.
pub struct Check {
    pub what: &'static str,
    /// What was found, in a few words, or what is wrong with it.
    pub found: Result<String, Error>,
}

/// A line for each, and how to mend what is not well.
pub fn doctor(checks: &[Check]) {
    for Check { what, found } in checks {
        match found {
            Ok(found) => result(format_args!("{GREEN}ok{GREEN:#}      {what:<12} {}", plain::clean(found))),
            Err(error) => {
                result(format_args!("{RED}not ok{RED:#}  {what:<12} {error:#}"));
                for hint in hints_of(error) {
                    for line in hint.lines() {
                        result(format_args!("{:21}{CYAN}hint{CYAN:#}: {line}", ""));
                    }
                }
            }
        }
    }
}
