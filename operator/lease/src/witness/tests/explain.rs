//! Which rule holds a group where it is.

use super::support::*;
use crate::witness::{Claimant, GroupView, Start, WitnessView};
use regent_core::message::Refusal;
use regent_core::plan::Protection;

fn view(bench: &Bench, ms: u64) -> GroupView {
    bench.witness.explain_group(&shop(), at(ms)).unwrap()
}

fn claimant(view: &GroupView, name: &str) -> Claimant {
    view.claimants.iter().find(|c| c.site == site(name)).unwrap().clone()
}

#[test]
fn a_held_group_names_holder_promise_and_what_each_standby_waits_for() {
    let mut bench = Bench::held();
    bench.renew_proven("ireland", "1.1", START + P).unwrap();
    let view = view(&bench, START + 2 * P);
    assert_eq!(view.vote, vote("ireland", "1.1"));
    assert_eq!(view.promise.as_ref().unwrap().left_ms, D - P);
    assert_eq!((view.proven_ago_ms, view.lapses_in_ms), (2 * P, LAPSE - 2 * P));
    assert_eq!((view.plan_version, view.protection), (Some(1), Some(Protection::Protected)));
    assert_eq!(view.line.len(), 1);
    let french = claimant(&view, "french");
    assert_eq!((french.refusal, french.wait_ms), (Some(Refusal::Promised), Some(LAPSE - 2 * P)));
    assert_eq!(french.epoch, epoch("2.2"));
    let home = claimant(&view, "ireland");
    assert_eq!((home.refusal, home.epoch), (None, epoch("1.1")));
}

#[test]
fn a_lapsed_group_says_who_would_get_it() {
    let mut bench = Bench::held();
    bench.query("german", "2.3", START + LAPSE).unwrap();
    let view = view(&bench, START + LAPSE);
    assert_eq!(view.lapses_in_ms, 0);
    assert_eq!(view.promise, None);
    assert_eq!(claimant(&view, "french").refusal, None);
    assert_eq!(claimant(&view, "german").refusal, None);
    assert_eq!(claimant(&view, "ireland").refusal, Some(Refusal::BetterClaimant));
}

#[test]
fn a_retired_group_names_the_epoch_and_offers_its_old_holder_a_higher_one() {
    let mut bench = Bench::held();
    bench.tell("ireland", retire("1.1", "french"), START + P).unwrap();
    bench.tell("ireland", release("1.1"), START + P).unwrap();
    let view = view(&bench, START + 2 * P);
    assert_eq!(view.retired, Some(epoch("1.1")));
    assert_eq!(claimant(&view, "french").refusal, None);
    assert_eq!(claimant(&view, "ireland").epoch, epoch("2.1"));
    assert_eq!(claimant(&view, "ireland").refusal, Some(Refusal::BetterClaimant));
}

#[test]
fn what_it_says_is_what_would_be_answered() {
    let mut bench = Bench::held();
    for ms in [1, D, LAPSE - 1, LAPSE, 2 * LAPSE] {
        let view = view(&bench, START + ms);
        for name in ["french", "german"] {
            let told = claimant(&view, name);
            let ask = regent_core::message::Ask::Query { line: regent_core::message::Line::Beside };
            let ask = bench.submission(name, ask, &[entry(&told.epoch.to_string())]);
            let grant = bench.submit(&ask, START + ms);
            let answer = grant.exception(&shop()).map(|e| (e.reason, e.wait_ms));
            assert_eq!(told.refusal.map(|r| (r, told.wait_ms)), answer);
        }
    }
}

#[test]
fn explaining_changes_nothing() {
    let bench = Bench::held();
    let first = bench.witness.view(at(START + LAPSE));
    assert_eq!(first, bench.witness.view(at(START + LAPSE)));
}

#[test]
fn a_witness_that_waits_or_is_stale_says_so() {
    let bench = Bench::held().restart(2, START + LAPSE, Start::Restarted);
    let view = bench.witness.view(at(START + LAPSE + P));
    assert_eq!((view.start, view.stale, view.leads, view.waits_ms), (2, false, true, D - P));
    let bench = bench.restart(3, START + 2 * LAPSE, Start::Stale);
    let view = bench.witness.view(at(START + 2 * LAPSE));
    assert!(view.stale);
    assert_eq!(claimant(&view.groups[0], "ireland").refusal, Some(Refusal::Stale));
    assert_eq!(claimant(&view.groups[0], "ireland").wait_ms, Some(D));
}

#[test]
fn a_view_survives_json() {
    let view = Bench::held().witness.view(at(START + P));
    let json = serde_json::to_string(&view).unwrap();
    assert_eq!(serde_json::from_str::<WitnessView>(&json).unwrap(), view);
    assert!(json.contains("\"lapsesInMs\""), "{json}");
}

#[test]
fn an_unknown_group_has_no_view() {
    assert_eq!(Bench::held().witness.explain_group(&group("none"), at(START)), None);
}
