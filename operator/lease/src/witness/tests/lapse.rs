//! L5, L6 and L4.6: when a group may change hands.

use std::collections::BTreeMap;

use super::support::*;
use crate::witness::WitnessEvent;
use regent_core::message::{Ask, Line, Refusal};
use regent_core::plan::Plan;
use regent_core::time::Moment;

fn lapsed(at_epoch: &str) -> WitnessEvent {
    WitnessEvent::Lapsed { group: shop(), epoch: epoch(at_epoch) }
}

#[test]
fn a_holder_that_is_proven_each_period_never_lapses() {
    let mut bench = Bench::held();
    for t in 1..60 {
        assert_eq!(bench.renew_proven("ireland", "1.1", START + t * P), Ok(()));
        assert!(matches!(bench.query("french", "2.2", START + t * P), Err((Refusal::Promised, _))));
    }
    assert_eq!(bench.events(START + 60 * P), []);
}

#[test]
fn a_standby_is_refused_until_exactly_d_w_and_two_p_after_the_proven_tag() {
    let mut bench = Bench::held();
    assert_eq!(bench.renew_proven("ireland", "1.1", START + P), Ok(()));
    // The proof quoted the tag of START.
    assert_eq!(bench.ask("french", "2.2", START + LAPSE - 1), Err(Refusal::NoTrigger));
    assert_eq!(bench.ask("french", "2.2", START + LAPSE), Ok(()));
}

#[test]
fn in_the_worst_case_eligibility_is_w_after_the_last_promise_s_end() {
    let mut bench = Bench::held();
    bench.renew_proven("ireland", "1.1", START + P).unwrap();
    bench.renew_proven("ireland", "1.1", START + 2 * P).unwrap();
    // Last request at 2P quoting a round whose tag was issued at P: lapse at P + D + W + 2P.
    let promise_ends = START + 2 * P + D;
    assert_eq!(bench.witness.next_deadline(), Some(at(promise_ends + W + P)));
}

#[test]
fn a_holder_that_reaches_too_few_witnesses_lapses_although_this_one_renews_it() {
    let mut bench = Bench::held();
    let mut t = 0;
    while t < LAPSE {
        assert_eq!(bench.ask("ireland", "1.1", START + t), Ok(()));
        t += P;
    }
    // A standby that waits in line stops the renewals of the unproven holder (L4.7).
    assert_eq!(bench.query("french", "2.2", START + LAPSE), Err((Refusal::Promised, Some(D - P))));
    assert_eq!(bench.ask("ireland", "1.1", START + LAPSE + 1), Err(Refusal::BetterClaimant));
    assert_eq!(bench.ask("french", "2.2", START + LAPSE - P + D), Ok(()));
}

#[test]
fn a_lapsed_holder_that_nobody_waits_behind_is_renewed() {
    let mut bench = Bench::held();
    assert_eq!(bench.ask("ireland", "1.1", START + 3 * LAPSE), Ok(()));
}

#[test]
fn a_refusal_names_the_time_until_the_lapse_and_not_only_until_the_promise_ends() {
    let mut bench = Bench::held();
    // L11: the candidate asks once more when that has passed, and doesn't poll.
    assert_eq!(bench.query("french", "2.2", START + 1), Err((Refusal::Promised, Some(LAPSE - 1))));
    assert_eq!(bench.query("french", "2.2", START + D), Err((Refusal::NoTrigger, Some(LAPSE - D))));
    assert_eq!(bench.query("french", "2.2", START + LAPSE), Ok(()));
}

#[test]
fn the_group_s_own_takeover_delay_counts() {
    for w in [0, 1, 60_000] {
        let mut bench = Bench::empty();
        bench.register(START, &signed(&Plan { takeover_after_ms: w, ..protected(1) }));
        bench.ask("ireland", "1.1", START).unwrap();
        let eligible = START + D + w + 2 * P;
        assert_eq!(bench.ask("french", "2.2", eligible - 1), Err(Refusal::NoTrigger));
        assert_eq!(bench.ask("french", "2.2", eligible), Ok(()));
    }
}

#[test]
fn a_lapse_is_reported_once_with_the_moment_at_which_it_became_true() {
    let mut bench = Bench::held();
    assert_eq!(bench.witness.next_deadline(), Some(at(START + LAPSE)));
    assert_eq!(bench.events(START + LAPSE - 1), []);
    assert_eq!(bench.events(START + LAPSE + 777), [(at(START + LAPSE), lapsed("1.1"))]);
    assert_eq!(bench.events(START + LAPSE + 888), []);
    assert_eq!(bench.witness.next_deadline(), None);
}

#[test]
fn a_lapse_that_is_acted_on_before_a_tick_has_seen_it_is_reported_all_the_same() {
    let mut bench = Bench::held();
    bench.ask("french", "2.2", START + LAPSE).unwrap();
    assert_eq!(bench.events(START + LAPSE + 1), [(at(START + LAPSE), lapsed("1.1"))]);
    assert_eq!(bench.events(START + LAPSE + 2), []);
}

#[test]
fn a_lapse_needs_both_clocks() {
    let mut bench = Bench::held();
    let deadline = at(START + LAPSE);
    let slow = Moment { raw_ns: deadline.raw_ns - 1, ..deadline };
    assert_eq!(bench.witness.tick(slow), []);
    assert_eq!(bench.witness.tick(deadline), [(deadline, lapsed("1.1"))]);
}

#[test]
fn a_holder_that_comes_back_in_time_is_reported_as_proven_and_keeps_the_group() {
    let mut bench = Bench::held();
    bench.ask("ireland", "1.1", START + LAPSE - P).unwrap();
    bench.events(START + LAPSE);
    bench.renew_proven("ireland", "1.1", START + LAPSE + 10).unwrap();
    let proven = WitnessEvent::Proven { group: shop(), epoch: epoch("1.1") };
    assert_eq!(bench.events(START + LAPSE + 10), [(at(START + LAPSE + 10), proven)]);
    assert!(bench.query("french", "2.2", START + LAPSE + 20).is_err());
    assert_eq!(bench.witness.next_deadline(), Some(at(START + 2 * LAPSE - P)));
}

#[test]
fn the_grant_of_a_new_vote_is_no_proof() {
    let mut bench = Bench::held();
    bench.events(START + LAPSE);
    bench.ask("french", "2.2", START + LAPSE).unwrap();
    // L6: french never got a quorum. Once its promise ends the next may take over at once.
    assert_eq!(bench.ask("german", "3.3", START + LAPSE + D - 1), Err(Refusal::Promised));
    assert_eq!(bench.ask("german", "3.3", START + LAPSE + D), Ok(()));
    assert_eq!(bench.events(START + LAPSE + D), [], "the lapse that was acted on is not told twice");
}

#[test]
fn the_new_holder_is_proven_by_its_next_request() {
    let mut bench = Bench::held();
    bench.query("french", "2.2", START + LAPSE).unwrap();
    bench.ask("french", "2.2", START + LAPSE).unwrap();
    bench.renew_proven("french", "2.2", START + LAPSE + 100).unwrap();
    assert_eq!(bench.query("german", "3.3", START + LAPSE + D + 100), Err((Refusal::NoTrigger, Some(W + 2 * P - 100))));
}

#[test]
fn a_new_group_s_first_vote_is_home_s() {
    let mut bench = Bench::empty();
    bench.register(START, &signed(&protected(1)));
    for late in [0, LAPSE, 100 * LAPSE] {
        assert_eq!(bench.query("french", "1.2", START + late), Err((Refusal::NoTrigger, None)));
        assert_eq!(bench.ask("french", "1.2", START + late), Err(Refusal::NoTrigger));
    }
    // And nobody who can't get it stands in home's way, though it waits in line.
    assert_eq!(bench.ask("ireland", "1.1", START + 100 * LAPSE), Ok(()));
}

#[test]
fn a_witness_that_missed_a_group_s_beginning_votes_for_its_certified_holder() {
    let mut bench = Bench::empty();
    bench.register(START, &signed(&protected(1)));
    let entries = [entry("5.2")];
    let mut renewal = bench.submission("french", Ask::Grant, &entries);
    renewal.proofs = vec![proof_of("french", &entries, BTreeMap::new(), &["french", "german", "luxembourg"])];
    assert!(bench.submit(&renewal, START).exception(&shop()).is_none());
    assert_eq!(bench.record().vote, vote("french", "5.2"));
}

#[test]
fn what_lapses_and_what_is_granted_agree_on_the_same_instant() {
    let mut bench = Bench::held();
    bench.renew_proven("ireland", "1.1", START + P).unwrap();
    bench.renew_proven("ireland", "1.1", START + 2 * P).unwrap();
    let deadline = bench.witness.next_deadline().unwrap();
    let before = Moment { boot_ns: deadline.boot_ns - 1, raw_ns: deadline.raw_ns - 1 };
    let ask = bench.submission("french", Ask::Query { line: Line::Beside }, &[entry("2.2")]);
    let mut answer = |moment| {
        let receipt = bench.witness.receive(moment, &ask, None).unwrap();
        bench.witness.conclude(receipt, &[]).exception(&shop()).map(|e| (e.reason, e.wait_ms))
    };
    assert_eq!(answer(before), Some((Refusal::NoTrigger, Some(1))));
    assert_eq!(answer(deadline), None);
}
