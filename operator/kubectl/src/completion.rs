//! Completion under kubectl. For `kubectl regent <TAB>` kubectl asks a program on the path named
//! [`PROGRAM`], and reads what cobra would print: a candidate a line, a tab before what it is,
//! and last a directive. A link of that name to this program answers.

use std::ffi::OsString;
use std::path::Path;

use clap::Command;
use clap_complete::engine::complete;

/// The name under which kubectl asks.
pub const PROGRAM: &str = "kubectl_complete-regent";
/// Cobra's directives: leave it to the shell, or to these candidates alone.
const DEFAULT: &str = ":0";
const NO_FILES: &str = ":4";

/// Whether this process was started under that name.
pub fn is_asked(program: &str) -> bool {
    Path::new(program).file_name().is_some_and(|name| name == PROGRAM)
}

/// What may follow `words`, the last of which is being written.
pub fn answer(mut command: Command, words: impl Iterator<Item = OsString>) -> std::io::Result<String> {
    let line: Vec<OsString> = std::iter::once("kubectl-regent".into()).chain(words).collect();
    let last = line.len().saturating_sub(1);
    let found = complete(&mut command, line, last, std::env::current_dir().ok().as_deref())?;
    let mut lines: Vec<String> = found
        .iter()
        .filter(|candidate| !candidate.is_hide_set())
        .map(|candidate| {
            let what = candidate.get_help().map(ToString::to_string).unwrap_or_default();
            let what = what.lines().next().map(|line| format!("\t{line}")).unwrap_or_default();
            format!("{}{what}", candidate.get_value().to_string_lossy())
        })
        .collect();
    lines.push(if lines.is_empty() { DEFAULT } else { NO_FILES }.to_owned());
    Ok(lines.join("\n"))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn answered(words: &[&str]) -> Vec<String> {
        let text = answer(crate::Cli::command(), words.iter().map(OsString::from)).unwrap();
        text.lines().map(str::to_owned).collect()
    }

    #[test]
    fn kubectl_is_told_verbs_and_options_with_what_they_are_for() {
        assert!(is_asked("/usr/local/bin/kubectl_complete-regent") && !is_asked("kubectl-regent"));
        assert_eq!(
            answered(&["sta"]),
            [
                "standby\tWhat a party says in its own cluster about groups that it stands by for",
                "status\tGroups, holders, epochs, and what is wrong",
                ":4"
            ]
        );
        let of_standby = answered(&["standby", ""]);
        assert!(of_standby.iter().any(|line| line.starts_with("leave\t")), "{of_standby:?}");
        assert!(answered(&["takeover", "shop", "--t"]).iter().any(|line| line.starts_with("--to\t")));
        assert_eq!(answered(&["takeover", "sh"]).last().map(String::as_str), Some(":0"), "names are the shell's");
    }
}
