//! Events and audit lines out of raw logs.
#![allow(clippy::unwrap_used)]

mod common;

use common::*;
use proptest::prelude::*;
use regent_evidence::clock::Clock;
use regent_evidence::merge::{AuditFilter, add_eligible, copy_audit, events_of_log, events_of_logs, write_events};
use regent_evidence::{Event, Evidence, Kind};
use serde_json::{Value, json};
use std::fs;

fn event(at: u64, site: &str, what: &str, epoch: Option<&str>) -> Event {
    let value = json!({"boot_ns": at, "site": site, "actor": "witness", "event": what,
        "group": GROUP, "epoch": epoch, "node": null, "detail": {"text": "a b  c"}});
    serde_json::from_value(value).unwrap()
}

fn text(event: &Event) -> String {
    serde_json::to_string(event).unwrap()
}

#[test]
fn only_lines_that_are_events_are_taken() {
    let one = event(7, "france", "lapsed", None);
    let log = format!(
        "starting\n{{\"level\":\"INFO\",\"event\":\"x\"}}\n{{\"boot_ns\":1}}\n{}\n{{not json\n[1]\n",
        text(&one)
    );
    let merged = events_of_log(log.as_bytes());
    assert_eq!(merged.events, [one]);
    assert!(merged.rejected.is_empty());
}

#[test]
fn a_line_that_claims_to_be_an_event_and_is_none_is_told() {
    let merged = events_of_log(b"{\"boot_ns\":-1,\"event\":\"cut\",\"site\":\"x\",\"actor\":\"rig\"}\n");
    assert!(merged.events.is_empty());
    assert_eq!(merged.rejected.len(), 1);
    let merged = events_of_log(
        b"{\"boot_ns\":1,\"event\":\"certificate\",\"site\":\"x\",\"actor\":\"rig\",\"epoch\":\"two\"}\n",
    );
    assert!(merged.rejected[0].contains("TERM.SITE"), "{:?}", merged.rejected);
}

#[test]
fn cri_lines_are_read_whole_and_in_parts_each_stream_for_itself() {
    let (one, two) = (event(1, "france", "lapsed", None), event(2, "france", "certificate", Some("2.2")));
    let (one_text, two_text) = (text(&one), text(&two));
    let (head, tail) = two_text.split_at(40);
    let log = format!(
        "2026-11-24T15:00:00.1Z stdout P {head}\n2026-11-24T15:00:00.1Z stderr F {one_text}\n\
         2026-11-24T15:00:00.2Z stdout F {tail}\n2026-11-24T15:00:00.3Z stdout F plain words\n"
    );
    assert_eq!(events_of_log(log.as_bytes()).events, [one, two]);
}

proptest! {
    #[test]
    fn a_line_cut_anywhere_into_any_number_of_parts_is_the_same_event(
        cuts in proptest::collection::vec(0..160usize, 0..6), at in 0..u64::MAX
    ) {
        let one = event(at, "france", "lapsed", Some("1.1"));
        let whole = text(&one);
        let mut cuts: Vec<usize> = cuts.into_iter().map(|c| c.min(whole.len())).collect();
        cuts.sort_unstable();
        cuts.push(whole.len());
        let (mut log, mut from) = (String::new(), 0);
        for (index, to) in cuts.iter().enumerate() {
            let tag = if index + 1 == cuts.len() { 'F' } else { 'P' };
            log += &format!("2026-11-24T15:00:00.1Z stdout {tag} {}\n", &whole[from..*to]);
            from = *to;
        }
        prop_assert_eq!(events_of_log(log.as_bytes()).events, [one]);
    }
}

#[test]
fn events_of_several_logs_are_in_order_and_each_is_there_once() {
    let dir = tempfile::tempdir().unwrap();
    let events: Vec<Event> = (1..=4).map(|at| event(at, "france", "lapsed", None)).collect();
    let (a, b) = (dir.path().join("a.log"), dir.path().join("b.log"));
    fs::write(&a, format!("{}\n{}\n", text(&events[3]), text(&events[1]))).unwrap();
    fs::write(&b, format!("{}\n{}\n{}\n", text(&events[0]), text(&events[1]), text(&events[2]))).unwrap();
    let merged = events_of_logs(&[a, b]).unwrap();
    assert_eq!(merged.events, events);
    let error = events_of_logs(&[dir.path().join("absent.log")]).unwrap_err().to_string();
    assert!(error.contains("absent.log"), "{error}");
}

fn holders(lapses: &[(u64, &str)]) -> Vec<Event> {
    let mut events = vec![event(10, "ireland", "certificate", Some("1.1"))];
    events.extend(lapses.iter().map(|(at, site)| event(*at, site, "lapsed", Some("1.1"))));
    events.push(event(1_000, "france", "certificate", Some("2.2")));
    events.sort_by_key(|e| e.boot_ns);
    events
}

fn eligible(events: &[Event]) -> Vec<(u64, &str)> {
    let found = events.iter().filter(|e| e.event == Kind::Eligible);
    found.map(|e| (e.boot_ns, e.site.as_str())).collect()
}

#[test]
fn eligible_is_the_moment_of_the_qth_witness() {
    let mut events = holders(&[(960, "france"), (940, "germany"), (950, "swiss"), (970, "luxembourg")]);
    add_eligible(&mut events, 3);
    assert_eq!(eligible(&events), [(960, "france")]);
    // Nothing is added a second time.
    add_eligible(&mut events, 3);
    assert_eq!(eligible(&events).len(), 1);
}

#[test]
fn a_witnesss_last_lapse_before_the_certificate_counts() {
    let lapses = [(500, "swiss"), (950, "swiss"), (940, "germany"), (945, "france"), (1_200, "luxembourg")];
    let mut events = holders(&lapses);
    add_eligible(&mut events, 3);
    assert_eq!(eligible(&events), [(950, "france")]);
}

#[test]
fn a_lapse_that_a_proof_ended_does_not_count() {
    let mut events = holders(&[(940, "germany"), (945, "france"), (950, "swiss"), (955, "luxembourg")]);
    events.push(event(960, "germany", "proven", Some("1.1")));
    events.sort_by_key(|e| e.boot_ns);
    add_eligible(&mut events, 3);
    assert_eq!(eligible(&events), [(955, "france")]);
}

#[test]
fn before_any_certificate_home_holds_the_group() {
    let mut events = holders(&[(940, "germany"), (945, "france"), (950, "swiss")]);
    events.retain(|e| e.site != "ireland");
    add_eligible(&mut events, 3);
    assert_eq!(eligible(&events), [(950, "france")]);
}

#[test]
fn without_a_quorum_of_lapses_nothing_is_made_up() {
    let mut events = holders(&[(950, "swiss"), (940, "germany"), (5, "france")]);
    add_eligible(&mut events, 3);
    assert_eq!(eligible(&events), []);
    let mut planned = holders(&[]);
    add_eligible(&mut planned, 3);
    assert_eq!(eligible(&planned), []);
}

#[test]
fn audit_lines_are_copied_as_they_stand_writes_only_and_in_order() {
    let mut made = cut();
    made.audit.clear();
    made.audited("ireland", 2_000, "delete", "anna", json!({"resource": "pods", "namespace": "shop"}));
    made.audited("ireland", 1_000, "get", "anna", json!({"resource": "pods", "namespace": "shop"}));
    made.audited("ireland", 1_500, "patch", "anna", json!({"resource": "pods", "namespace": "other"}));
    made.audited("ireland", -9_000, "update", "anna", json!({"resource": "pods", "namespace": "shop"}));
    made.audited("ireland", 1_200, "update", "kube", json!({"resource": "leases", "namespace": "kube-system"}));
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("audit.log");
    let lines: Vec<String> = made.audit["ireland"].iter().map(Value::to_string).collect();
    fs::write(&log, lines.join("\n") + "\n{\"torn\":").unwrap();

    let copied = |filter: &AuditFilter| {
        let unreadable = copy_audit(dir.path(), "ireland", std::slice::from_ref(&log), filter).unwrap();
        assert_eq!(unreadable, 1);
        fs::read_to_string(dir.path().join("audit/ireland.jsonl")).unwrap()
    };
    let text = |numbers: &[usize]| numbers.iter().map(|n| format!("{}\n", lines[*n])).collect::<String>();
    assert_eq!(copied(&AuditFilter::default()), text(&[3, 4, 2, 0]));
    let namespaces = vec!["shop".to_owned()];
    assert_eq!(copied(&AuditFilter { since: None, namespaces }), text(&[3, 4, 0]));
    let fault: Vec<Event> = made.events.iter().map(|e| serde_json::from_value(e.clone()).unwrap()).collect();
    let since = Some((Clock::new(&fault).unwrap(), ZERO_NS as u64));
    assert_eq!(copied(&AuditFilter { since, namespaces: Vec::new() }), text(&[4, 2, 0]));
}

#[test]
fn written_events_are_read_back() {
    let dir = tempfile::tempdir().unwrap();
    let events: Vec<Event> = (1..=3).map(|at| event(at, "france", "lapsed", Some("1.1"))).collect();
    write_events(dir.path(), &events).unwrap();
    assert_eq!(Evidence::load(dir.path()).unwrap().events, events);
}

#[test]
fn a_scenario_that_nobody_names_is_a_reason() {
    let dir = tempfile::tempdir().unwrap();
    let place = dir.path().join("something");
    std::fs::create_dir(&place).unwrap();
    cut().write(&place);
    let evidence = regent_evidence::Evidence::load(&place).unwrap();
    let report = regent_evidence::judge(&evidence, None, &[]);
    assert!(report.reasons.iter().any(|r| r.contains("not known which scenario")));
    let place = dir.path().join("cut-07");
    std::fs::create_dir(&place).unwrap();
    cut().write(&place);
    let evidence = regent_evidence::Evidence::load(&place).unwrap();
    assert!(regent_evidence::judge(&evidence, None, &[]).passed());
}
