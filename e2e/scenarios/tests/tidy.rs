//! Rules of the tree that are tests, not reviews.

// Helper functions of tests may panic as tests do.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use regent_demo::federation::workspace;

/// Files that git knows or would take, with their text.
fn files(ending: &str) -> Vec<(PathBuf, String)> {
    let root = workspace();
    let out =
        Command::new("git").arg("-C").arg(&root).args(["ls-files", "-co", "--exclude-standard"]).output().unwrap();
    let names = String::from_utf8(out.stdout).unwrap();
    let found: Vec<_> = names
        .lines()
        .filter(|name| name.ends_with(ending))
        .filter_map(|name| Some((PathBuf::from(name), fs::read_to_string(root.join(name)).ok()?)))
        .collect();
    assert!(!found.is_empty(), "no {ending} files: is this a git checkout?");
    found
}

/// Files of tests alone: test folders, and modules that are compiled for tests only.
fn is_test(path: &Path) -> bool {
    let name = path.to_string_lossy();
    ["/tests/", "/tests.rs", "/sim/", "/sim.rs", "/fixture.rs", "/examples/", "build.rs"]
        .iter()
        .any(|t| name.contains(t))
}

/// The part of a file before its unit tests.
fn code(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines().enumerate().map(|(n, l)| (n + 1, l)).take_while(|(_, l)| !l.contains("#[cfg(test)]"))
}

fn none(found: Vec<String>, rule: &str) {
    assert!(found.is_empty(), "{rule}:\n{}", found.join("\n"));
}

#[test]
fn no_rust_file_is_longer_than_500_lines() {
    let long = files(".rs").into_iter().filter(|(_, text)| text.lines().count() > 500);
    none(long.map(|(path, text)| format!("{}: {}", path.display(), text.lines().count())).collect(), "split these");
}

#[test]
fn nothing_is_left_for_later() {
    let words =
        ["TO".to_owned() + "DO", "FIX".to_owned() + "ME", "unimplemented".to_owned() + "!", "todo".to_owned() + "!("];
    let mut found = Vec::new();
    for (path, text) in files(".rs").into_iter().chain(files(".yaml")) {
        for (number, line) in text.lines().enumerate() {
            if words.iter().any(|w| line.contains(w.as_str())) {
                found.push(format!("{}:{}: {line}", path.display(), number + 1));
            }
        }
    }
    none(found, "do it or delete it");
}

#[test]
fn core_reads_no_clock_and_does_no_input_or_output() {
    let banned = [
        "kube::Client",
        "kube::Api",
        "std::fs",
        "std::net::Tcp",
        "std::net::Udp",
        "std::thread",
        "std::env",
        "tokio",
        "tonic",
        "SystemTime",
        "Instant::now",
        "rand::",
    ];
    let mut found = Vec::new();
    let rooms = ["operator/core/src", "operator/lease/src", "operator/kinds/src"];
    let core = files(".rs").into_iter().filter(|(p, _)| rooms.iter().any(|r| p.starts_with(r)) && !is_test(p));
    for (path, text) in core {
        for (number, line) in code(&text).filter(|(_, l)| !l.trim_start().starts_with("//")) {
            if banned.iter().any(|b| line.contains(b)) {
                found.push(format!("{}:{number}: {line}", path.display()));
            }
        }
    }
    none(found, "core decides, shells do");
}

#[test]
fn nothing_outside_tests_may_panic_by_unwrap() {
    let mut found = Vec::new();
    for (path, text) in files(".rs").into_iter().filter(|(p, _)| !is_test(p)) {
        for (number, line) in code(&text).filter(|(_, l)| !l.trim_start().starts_with("//")) {
            if line.contains(".unwrap()") || line.contains(".expect(") {
                found.push(format!("{}:{number}: {line}", path.display()));
            }
        }
    }
    none(found, "return an error that names the object, the field and the remedy");
}

#[test]
fn unsafe_code_is_in_one_module_of_the_guard_at_most() {
    let word = "unsafe".to_owned() + " {";
    let with = files(".rs").into_iter().filter(|(_, text)| code(text).any(|(_, l)| l.contains(&word)));
    let found: Vec<String> =
        with.map(|(path, _)| path.display().to_string()).filter(|p| p != "operator/guard/src/sys.rs").collect();
    none(found, "only operator/guard/src/sys.rs speaks to the kernel by itself");
}

#[test]
fn every_row_of_the_table_of_kinds_names_a_test_that_exists() {
    let page = fs::read_to_string(workspace().join("docs/kinds.md")).unwrap();
    let sources: String = files(".rs").into_iter().map(|(_, text)| text).collect();
    let rows = page.lines().filter_map(|l| l.strip_suffix("` |")?.rsplit_once('`').map(|(_, test)| test));
    let missing: Vec<String> =
        rows.filter(|test| !sources.contains(&format!("fn {test}("))).map(str::to_owned).collect();
    none(missing, "rename these rows of operator/kinds/src/kind.rs as their tests");
}

#[test]
fn every_invariant_of_the_map_names_tests_that_exist() {
    let map = fs::read_to_string(workspace().join("ARCHITECTURE.md")).unwrap();
    let sources: String = files(".rs").into_iter().map(|(_, text)| text).collect();
    let mut count = 0;
    for line in map.lines().filter(|l| l.starts_with("**Invariant:**") || l.starts_with("- **Invariant:**")) {
        let tests: Vec<&str> = line.split('`').skip(1).step_by(2).filter(|t| t.contains('_')).collect();
        assert!(!tests.is_empty(), "no test is named by: {line}");
        for test in tests {
            assert!(sources.contains(test), "{test} does not exist; named by: {line}");
        }
        count += 1;
    }
    assert!(count > 0, "ARCHITECTURE.md states no invariant");
}
