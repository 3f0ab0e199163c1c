//! The command as a person and a script meet it.
#![allow(clippy::unwrap_used)]

mod common;

use common::*;
use regent_evidence::{Evidence, Report, Scenario, timeline};
use serde_json::Value;
use std::path::Path;
use std::process::{Command, Output};

fn run(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_regent-evidence")).args(arguments).output().unwrap()
}

fn out(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn path(dir: &Path) -> &str {
    dir.to_str().unwrap()
}

#[test]
fn report_writes_the_verdict_and_says_it_by_its_exit_code() {
    let dir = tempfile::tempdir().unwrap();
    cut().write(dir.path());
    let passed = run(&["report", path(dir.path()), "--scenario", "cut"]);
    assert_eq!(passed.status.code(), Some(0), "{}", out(&passed));
    assert!(out(&passed).starts_with("result: pass\n"));
    let report = Report::read(&dir.path().join("report.json")).unwrap();
    assert_eq!(report.scenario, Some(Scenario::Cut));

    let mut made = cut();
    made.drop_events("all_ready");
    made.write(dir.path());
    let failed = run(&["report", path(dir.path()), "--scenario", "cut"]);
    assert_eq!(failed.status.code(), Some(1));
    assert!(out(&failed).contains("  - no all_ready event names france"), "{}", out(&failed));
    assert!(!Report::read(&dir.path().join("report.json")).unwrap().passed());
}

#[test]
fn report_json_has_the_agreed_fields() {
    let dir = tempfile::tempdir().unwrap();
    cut().write(dir.path());
    run(&["report", path(dir.path()), "--scenario", "cut"]);
    let text = std::fs::read_to_string(dir.path().join("report.json")).unwrap();
    let json: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((&json["scenario"], &json["result"]), (&"cut".into(), &"pass".into()));
    assert_eq!(json["epochs"], serde_json::json!(["1.1", "2.2"]));
    for field in ["reasons", "touched", "timeline"] {
        assert!(json[field].is_array(), "{field}");
    }
    for field in ["overlap_exec_ms", "overlap_net_ms"] {
        assert_eq!(json[field], 0.0, "{field}");
    }
    let timings = [
        "cut_to_lease_end_max",
        "stopped_before_lease_end_min",
        "eligible_to_certificate",
        "certificate_to_first_started",
        "certificate_to_all_ready",
        "cut_to_all_ready",
        "outage",
    ];
    for timing in timings {
        assert!(json["timings_ms"][timing].is_f64(), "{timing}");
    }
}

#[test]
fn a_directory_that_is_not_there_is_an_error_of_its_own() {
    let output = run(&["report", "/nonexistent/recording"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("/nonexistent/recording: can't be read"));
    let output = run(&["report", "/", "--scenario", "cuts"]);
    assert!(String::from_utf8_lossy(&output.stderr).contains("is no scenario"));
}

#[test]
fn stats_tells_the_spread_of_several_runs() {
    let dir = tempfile::tempdir().unwrap();
    let mut places = Vec::new();
    for (number, ready) in [11_000, 11_400, 10_900].into_iter().enumerate() {
        let place = dir.path().join(format!("cut-{number}"));
        std::fs::create_dir(&place).unwrap();
        let mut made = cut();
        made.first("all_ready")["boot_ns"] = ns(ready).into();
        made.write(&place);
        assert!(run(&["report", path(&place)]).status.success());
        places.push(place);
    }
    let mut arguments = vec!["stats", "--json"];
    arguments.extend(places.iter().map(|p| path(p)));
    let json: Value = serde_json::from_str(&out(&run(&arguments))).unwrap();
    assert_eq!((&json[0]["runs"], &json[0]["passed"]), (&3.into(), &3.into()));
    let timings = json[0]["timings_ms"].as_array().unwrap();
    let ready = timings.iter().find(|t| t["timing"] == "cut_to_all_ready").unwrap();
    assert_eq!(
        (&ready["min"], &ready["median"], &ready["max"]),
        (&10_900.0.into(), &11_000.0.into(), &11_400.0.into())
    );
    arguments.remove(1);
    let table = out(&run(&arguments));
    assert!(table.starts_with("cut: 3 of 3 passed\n"), "{table}");
    assert!(table.contains("cut_to_all_ready                   3     10900.0     11000.0     11400.0"), "{table}");
}

#[test]
fn merge_makes_a_recording_out_of_logs() {
    let dir = tempfile::tempdir().unwrap();
    let made = cut();
    made.write(dir.path());
    let (log, audit) = (dir.path().join("events.jsonl"), dir.path().join("audit/ireland.jsonl"));
    let place = dir.path().join("cut");
    let since = (ns(-2_000)).to_string();
    let audit = format!("ireland={}", path(&audit));
    let output = run(&[
        "merge",
        path(&place),
        "--log",
        path(&log),
        "--audit",
        &audit,
        "--since-boot-ns",
        &since,
        "--quorum",
        "3",
    ]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let merged = Evidence::load(&place).unwrap();
    assert_eq!(merged.events.len(), made.events.len() - 1);
    assert!(merged.audit["ireland"].len() < made.audit["ireland"].len());
}

#[test]
fn the_timeline_fits_and_names_every_moment() {
    for made in [cut(), crash(), blip(), planned(), failback(), steady(), held()] {
        let dir = tempfile::tempdir().unwrap();
        made.write(dir.path());
        let evidence = Evidence::load(dir.path()).unwrap();
        let picture = timeline::draw(&evidence, GROUP, Some(made.scenario), false).unwrap();
        for line in picture.lines() {
            assert!(line.chars().count() <= timeline::COLUMNS_MAX, "{line}");
        }
        assert!(!picture.contains('\x1b'));
        let coloured = timeline::draw(&evidence, GROUP, Some(made.scenario), true).unwrap();
        assert!(coloured.contains("\x1b[0;32m"));
    }
    let dir = tempfile::tempdir().unwrap();
    cut().write(dir.path());
    let output = run(&["timeline", path(dir.path()), "--scenario", "cut"]);
    let picture = out(&output);
    let named = [
        "0.000 s  cut ireland",
        "5.000 s  last lease_end ireland",
        "9.600 s  eligible france",
        "9.630 s  certificate france epoch 2.2",
        "10.400 s  first_started france",
        "11.000 s  all_ready france",
    ];
    for moment in named {
        assert!(picture.contains(moment), "{moment}\n{picture}");
    }
}
