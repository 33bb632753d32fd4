//! A terminal of some size, which tmux is, with the program in it.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use crate::support::{PROGRAM, Project, Ran};

/// Far more than anything here takes.
const PATIENCE: Duration = Duration::from_mins(1);

/// So many lines were printed before the program runs.
const ABOVE: usize = 30;
const BEFORE: &str = "before-";

pub struct Terminal {
    socket: PathBuf,
    /// Where the exit code of the program comes to be.
    code: PathBuf,
}

impl Terminal {
    /// Runs the program there, in the project's environment.
    pub fn run(project: &Project, (columns, rows): (u16, u16), variables: &[(&str, &str)], arguments: &[&str]) -> Self {
        let command = project.command(".", arguments);
        let mut script = format!("trap : INT\nseq -f {BEFORE}%g {ABOVE}\nenv -i TERM=\"$TERM\"");
        let own = command
            .get_envs()
            .filter_map(|(name, value)| Some((name.to_str()?, value?.to_str()?)));
        for (name, value) in own.chain(variables.iter().copied()) {
            write!(script, " '{name}={value}'").expect("written");
        }
        // the terminal outlives the program, so that one can see how it was left
        writeln!(script, " {PROGRAM} {}\necho $? >exit-code\nexec sleep 600", arguments.join(" ")).expect("written");
        project.write("in-terminal", script);
        project.write("tmux.conf", "set -g status off\n");
        let terminal = Self {
            socket: project.path("tmux.sock"),
            code: project.path("exit-code"),
        };
        let (configuration, script) = (project.path("tmux.conf"), project.path("in-terminal"));
        let (columns, rows) = (columns.to_string(), rows.to_string());
        let path = |path: &Path| path.to_str().expect("UTF-8").to_owned();
        let (configuration, script, folder) = (path(&configuration), path(&script), path(&project.path(".")));
        let begin = [
            "-f",
            &configuration,
            "new-session",
            "-d",
            "-x",
            &columns,
            "-y",
            &rows,
            "-c",
            &folder,
            "sh",
            &script,
        ];
        terminal.tmux(&begin);
        terminal
    }

    fn tmux(&self, arguments: &[&str]) -> String {
        let mut command = Command::new("tmux");
        command
            .env("LC_ALL", "C.UTF-8")
            .env_remove("TMUX")
            .arg("-u")
            .arg("-S")
            .arg(&self.socket);
        let output = command.args(arguments).output();
        let ran = Ran::of(output.expect("tmux is needed to test at a terminal: tests/provision/install tmux"));
        assert_eq!(ran.code, 0, "tmux {arguments:?}: {}", ran.stderr);
        ran.stdout
    }

    /// What is on the screen, each row without spaces at its end.
    pub fn screen(&self) -> Vec<String> {
        self.tmux(&["capture-pane", "-p"])
            .lines()
            .map(|line| line.trim_end().to_owned())
            .collect()
    }

    /// The screen and what went off its top, as far as it was printed by the program. What was there before must be there still.
    #[track_caller]
    pub fn everything(&self) -> Vec<String> {
        let text = self.tmux(&["capture-pane", "-p", "-S", "-"]);
        let lines = text.lines().map(|line| line.trim_end().to_owned()).filter(|line| !line.is_empty());
        let (above, own) = lines.partition::<Vec<_>, _>(|line| is_above(line));
        assert!(
            above.into_iter().eq((1..=ABOVE).map(|number| format!("{BEFORE}{number}"))),
            "{text}"
        );
        own
    }

    /// The rows of the screen that the program has written, as soon as they are as `wanted`.
    #[track_caller]
    pub fn until(&self, wanted: impl Fn(&[String]) -> bool) -> Vec<String> {
        let begun = Instant::now();
        loop {
            let mut rows = self.screen();
            rows.retain(|row| !row.is_empty() && !is_above(row));
            if wanted(&rows) {
                return rows;
            }
            assert!(begun.elapsed() < PATIENCE, "not seen; the screen is\n{}", rows.join("\n"));
        }
    }

    pub fn resize(&self, columns: u16, rows: u16) {
        self.tmux(&["resize-window", "-x", &columns.to_string(), "-y", &rows.to_string()]);
    }

    pub fn press(&self, key: &str) {
        self.tmux(&["send-keys", key]);
    }

    /// The exit code of the program, and how long that was awaited. The cursor must be seen then.
    #[track_caller]
    pub fn ended(&self) -> (i32, Duration) {
        let begun = Instant::now();
        loop {
            let code = fs::read_to_string(&self.code).unwrap_or_default();
            if let Some(code) = code.strip_suffix('\n') {
                let took = begun.elapsed();
                assert_eq!(
                    self.tmux(&["display-message", "-p", "#{cursor_flag}"]).trim(),
                    "1",
                    "the cursor is seen"
                );
                return (code.parse().expect("a number"), took);
            }
            assert!(begun.elapsed() < PATIENCE, "it goes on:\n{}", self.screen().join("\n"));
        }
    }

    /// Bytes as they arrive at the terminal, kept in `file` from now on.
    pub fn record(&self, file: &Path) {
        fs::write(file, "").expect("written");
        self.tmux(&["pipe-pane", &format!("cat >> '{}'", file.display())]);
    }
}

fn is_above(line: &str) -> bool {
    line.starts_with(BEFORE)
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = Command::new("tmux").arg("-S").arg(&self.socket).arg("kill-server").output();
    }
}
