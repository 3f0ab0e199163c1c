//! Rules of the tree that are tests, not reviews.

// Helper functions of tests may panic as tests do.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
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
    ["/tests/", "/tests.rs", "/sim/", "/sim.rs", "/script/", "/script.rs", "/fixture.rs", "/examples/", "build.rs"]
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
fn signatures_are_hashes_in_the_simulation_alone() {
    let may = ["operator/core/Cargo.toml", "e2e/sim/Cargo.toml"];
    // A dev-dependency's feature is in no program that `cargo build` makes.
    let built = |text: &str| text.split("[dev-dependencies]").next().unwrap_or_default().contains("fixture");
    let named =
        files("Cargo.toml").into_iter().filter(|(path, text)| built(text) && !may.iter().any(|m| path == Path::new(m)));
    none(named.map(|(path, _)| path.display().to_string()).collect(), "a forger would be believed there");
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

/// The pages that are the law: what the code cites by number is a heading there.
const LAW: [&str; 2] = ["docs/protocol.md", "docs/invariants.md"];

fn page(path: &str) -> String {
    fs::read_to_string(workspace().join(path)).unwrap()
}

/// Whether a test of this name is in the sources: a function, or a trial that is told by its name.
fn exists(sources: &str, test: &str) -> bool {
    sources.contains(&format!("fn {test}(")) || sources.contains(&format!("(\"{test}\","))
}

fn sources() -> String {
    files(".rs").into_iter().map(|(_, text)| text).collect()
}

/// The tests that a text names in backticks.
fn named(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2).filter(|word| word.contains('_') && !word.contains(['.', ' ', '/']))
}

/// A number of the law: `L4.6`, `I12`; of a test's name, `l4_5_a_site_climbs`, its beginning.
fn number(word: &str) -> Option<String> {
    let (upper, of_test) = (word.starts_with(['L', 'I']), word.starts_with(['l', 'i']) && word.contains('_'));
    if !upper && !of_test {
        return None;
    }
    let mut parts = word.get(1..)?.split(if upper { '.' } else { '_' });
    let digits = |part: &&str| (1..=2).contains(&part.len()) && part.bytes().all(|b| b.is_ascii_digit());
    let rule = parts.next().filter(digits)?;
    let letter = word.get(..1)?.to_uppercase();
    match (parts.next().filter(|p| !p.is_empty()), upper) {
        (Some(sub), _) if digits(&sub) => Some(format!("{letter}{rule}.{sub}")),
        (None, _) | (_, false) => Some(format!("{letter}{rule}")),
        (Some(_), true) => None,
    }
}

#[test]
fn every_number_of_the_law_that_is_cited_can_be_opened() {
    let pages = LAW.map(page).concat();
    let headings: BTreeSet<&str> =
        pages.lines().filter_map(|l| l.strip_prefix("### ")?.split_whitespace().next()).collect();
    let (mut found, mut cited) = (Vec::new(), 0);
    for (path, text) in [".rs", ".md", ".yaml", ".toml", ".proto"].iter().flat_map(|ending| files(ending)) {
        for (line, text) in text.lines().enumerate() {
            let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '.' && c != '_');
            for word in words.filter_map(|w| number(w.trim_matches('.'))) {
                cited += 1;
                if !headings.contains(word.as_str()) {
                    found.push(format!("{}:{}: {word}", path.display(), line + 1));
                }
            }
        }
    }
    assert!(cited > 200, "only {cited} citations were found: this test looks for the wrong thing");
    none(found, "no heading of docs/protocol.md or docs/invariants.md has this number");
}

#[test]
fn every_rule_of_the_law_says_why_and_names_tests_that_exist_or_that_it_is_not_built() {
    let sources = sources();
    let mut found = Vec::new();
    for path in LAW {
        let page = page(path);
        let sections: Vec<&str> = page.split("\n### ").skip(1).map(|s| s.split("\n## ").next().unwrap()).collect();
        assert!(sections.len() >= 12, "{path} has {} rules only", sections.len());
        for section in sections {
            let name = section.split_whitespace().next().unwrap();
            let held = section.split_once("*Held by:*").map(|(_, tests)| named(tests).count()).unwrap_or_default();
            if held == 0 && !section.contains("*Not built.*") {
                found.push(format!("{path}, {name}: names no test"));
            }
            if !section.contains("*Why:*") {
                found.push(format!("{path}, {name}: gives no reason"));
            }
        }
        let held = page.split("*Held by:*").skip(1).map(|s| s.split("\n\n").next().unwrap());
        found.extend(held.flat_map(named).filter(|t| !exists(&sources, t)).map(|t| format!("{path}: no test {t}")));
    }
    none(found, "a rule without reason or test is an opinion");
}

#[test]
fn every_page_that_is_named_exists() {
    let root = workspace();
    let mut found = Vec::new();
    for (path, text) in [".rs", ".md", ".yaml", ".toml", ".proto"].iter().flat_map(|ending| files(ending)) {
        let folder = path.parent().unwrap().to_owned();
        for (line, text) in text.lines().enumerate() {
            let words = text.split(|c: char| !c.is_ascii_alphanumeric() && !"./_-".contains(c));
            for word in words
                .map(|w| w.trim_end_matches('.'))
                .filter(|w| w.ends_with(".md") && w.len() > 3 && !w.starts_with("//"))
            {
                if ![root.join(word), root.join(&folder).join(word)].iter().any(|p| p.exists()) {
                    found.push(format!("{}:{}: {word}", path.display(), line + 1));
                }
            }
        }
    }
    none(found, "name pages from the root of the tree, or from the folder of who names them");
}

#[test]
fn every_row_of_the_table_of_kinds_names_a_test_that_exists() {
    let (page, sources) = (page("docs/kinds.md"), sources());
    let rows = page.lines().filter_map(|l| l.strip_suffix("` |")?.rsplit_once('`').map(|(_, test)| test));
    let missing: Vec<String> = rows.filter(|test| !exists(&sources, test)).map(str::to_owned).collect();
    none(missing, "rename these rows of operator/kinds/src/kind.rs as their tests");
}

#[test]
fn every_invariant_of_the_map_names_tests_that_exist() {
    let (map, sources) = (page("ARCHITECTURE.md"), sources());
    let lines: Vec<&str> = map.lines().filter(|l| l.starts_with("- **Invariant:**")).collect();
    assert!(!lines.is_empty(), "ARCHITECTURE.md states no invariant");
    for line in lines {
        assert!(named(line).count() > 0, "no test is named by: {line}");
        let missing: Vec<String> = named(line).filter(|t| !exists(&sources, t)).map(str::to_owned).collect();
        none(missing, line);
    }
}
