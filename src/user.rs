//! Whose channel it is: the OS user's, as `whoami` prints it, unless another name is given.

use crate::channel::UserName;
use crate::problem::{Problem, printable};

const ROOT: &str = "root";

/// What the surroundings say about the person.
#[derive(Clone, Debug, Default)]
pub struct Surroundings {
    /// `--user`, else `LATTICE_IMAGES_USER`.
    pub chosen: Option<String>,
    /// Who called `sudo`.
    pub sudo_user: Option<String>,
}

/// A name, and what a person should know about how it came about.
#[derive(Debug)]
pub struct Identity {
    pub name: UserName,
    pub notes: Vec<String>,
}

/// # Errors
/// When there is no name, it cannot be a channel, or it is `root` by way of `sudo`.
pub fn identify(surroundings: &Surroundings) -> Result<Identity, Problem> {
    let raw = match &surroundings.chosen {
        Some(name) => name.clone(),
        None => os_user(surroundings)?,
    };
    let name = UserName::clean(&raw)?;
    let mut notes = Vec::new();
    if name.as_str() != raw {
        notes.push(format!("the channel of `{}` is called `{}`", printable(&raw), name.as_str()));
    }
    if name.as_str() == ROOT {
        notes.push("the channel `root` is shared by everyone who builds as root; --user NAME chooses another".to_owned());
    }
    Ok(Identity { name, notes })
}

/// Who runs the program, as the system calls them; the number where it does not.
#[must_use]
pub fn os_name() -> String {
    let uid = users::get_effective_uid();
    let user = users::get_user_by_uid(uid);
    user.map_or_else(|| uid.to_string(), |user| printable(&user.name().to_string_lossy()))
}

fn os_user(surroundings: &Surroundings) -> Result<String, Problem> {
    let uid = users::get_effective_uid();
    let user = users::get_user_by_uid(uid).ok_or_else(|| {
        Problem::usage(format!("the user id {uid} has no name here, so it has no channel"))
            .hint("--user NAME (or LATTICE_IMAGES_USER) chooses one")
    })?;
    let name = user.name().to_string_lossy().into_owned();
    match &surroundings.sudo_user {
        Some(caller) if name == ROOT && caller != ROOT => {
            let caller = printable(caller);
            Err(Problem::usage("under sudo this would be the channel `root`, which is nobody's own")
                .hint(format!(
                    "to use Docker without sudo: sudo usermod -aG docker {caller}, then log in again"
                ))
                .hint(format!("or name the channel: --user {caller}")))
        }
        _ => Ok(name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(name: &str) -> Identity {
        identify(&Surroundings {
            chosen: Some(name.to_owned()),
            sudo_user: None,
        })
        .expect(name)
    }

    #[test]
    fn a_cleaned_name_is_told_and_a_clean_one_is_not() {
        assert!(chosen("kevin").notes.is_empty());
        assert!(chosen("CORP\\Kevin").notes[0].contains("`kevin`"));
        assert!(chosen("root").notes[0].contains("shared"));
    }
}
