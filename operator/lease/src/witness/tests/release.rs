//! L12 at the witness: retire, then release.

use super::support::*;
use crate::witness::Start;
use regent_core::message::{Ask, Refusal};

#[test]
fn a_retired_epoch_is_written_before_it_is_acknowledged() {
    let mut bench = Bench::held();
    let ask = bench.submission("ireland", retire("1.1", "french"), &[]);
    let receipt = bench.witness.receive(at(START + P), &ask, None).unwrap();
    let retired = receipt.persists[0].1.retired.clone().unwrap();
    assert_eq!((retired.epoch, retired.successor), (epoch("1.1"), site("french")));
    let grant = bench.witness.conclude(receipt, &[]);
    assert!(grant.exception(&shop()).is_none());
}

#[test]
fn a_retirement_that_could_not_be_written_is_not_acknowledged() {
    let mut bench = Bench::held();
    let ask = bench.submission("ireland", retire("1.1", "french"), &[]);
    let receipt = bench.witness.receive(at(START + P), &ask, None).unwrap();
    let grant = bench.witness.conclude(receipt, &[shop()]);
    assert_eq!(grant.exception(&shop()).unwrap().reason, Refusal::NotPersisted);
}

#[test]
fn a_retired_epoch_is_never_granted_again_and_a_higher_one_is() {
    let mut bench = Bench::held();
    bench.tell("ireland", retire("1.1", "french"), START + P).unwrap();
    assert_eq!(bench.ask("ireland", "1.1", START + 2 * P), Err(Refusal::Retired));
    bench.tell("ireland", release("1.1"), START + 2 * P).unwrap();
    assert_eq!(bench.ask("french", "1.2", START + 2 * P), Ok(()), "1.2 is above 1.1");
}

#[test]
fn only_the_epoch_s_own_site_retires_it() {
    let mut bench = Bench::held();
    assert_eq!(bench.tell("french", retire("1.1", "french"), START + P), Err(Refusal::NotYours));
    assert_eq!(bench.tell("french", release("1.1"), START + P), Err(Refusal::NotYours));
    assert_eq!(bench.ask("ireland", "1.1", START + P), Ok(()));
}

#[test]
fn an_epoch_above_the_vote_can_not_be_retired() {
    let mut bench = Bench::held();
    assert_eq!(bench.tell("ireland", retire("2.1", "french"), START + P), Err(Refusal::NotYours));
    assert_eq!(bench.tell("ireland", retire(&format!("{}.1", u64::MAX), "french"), START + P), Err(Refusal::NotYours));
    assert_eq!(bench.record().retired, None);
}

#[test]
fn a_group_without_a_vote_has_nothing_to_retire() {
    let mut bench = Bench::empty();
    assert_eq!(bench.tell("ireland", retire("1.1", "french"), START), Err(Refusal::UnknownGroup));
    bench.register(START, &signed(&protected(1)));
    assert_eq!(bench.tell("ireland", retire("1.1", "french"), START), Err(Refusal::NotYours));
}

#[test]
fn retiring_alone_frees_nothing_before_the_promise_ends_or_is_released() {
    let mut bench = Bench::held();
    bench.tell("ireland", retire("1.1", "french"), START + P).unwrap();
    assert_eq!(bench.ask("french", "2.2", START + 2 * P), Err(Refusal::Promised));
    assert_eq!(bench.query("french", "2.2", START + 2 * P), Err((Refusal::Promised, Some(D - 2 * P))));
    bench.tell("ireland", release("1.1"), START + 3 * P).unwrap();
    assert_eq!(bench.ask("french", "2.2", START + 3 * P), Ok(()), "no lapse is waited for");
}

#[test]
fn the_successor_alone_may_acquire_for_two_d_and_then_the_line_rules() {
    let mut bench = Bench::held();
    bench.tell("ireland", retire("1.1", "german"), START + P).unwrap();
    bench.tell("ireland", release("1.1"), START + P).unwrap();
    let end = START + P + 2 * D;
    assert_eq!(bench.query("french", "2.2", START + 2 * P), Err((Refusal::BetterClaimant, Some(2 * D - P))));
    assert_eq!(bench.ask("ireland", "2.1", START + 2 * P), Err(Refusal::BetterClaimant));
    assert_eq!(bench.ask("french", "2.2", end - 1), Err(Refusal::BetterClaimant));
    assert_eq!(bench.ask("french", "2.2", end), Ok(()));
}

#[test]
fn the_successor_is_served_although_better_ranks_wait() {
    let mut bench = Bench::held();
    bench.tell("ireland", retire("1.1", "german"), START + P).unwrap();
    bench.tell("ireland", release("1.1"), START + P).unwrap();
    let _ = bench.query("french", "2.2", START + P);
    assert_eq!(bench.ask("german", "2.3", START + P), Ok(()));
    // Its second round, before its first proof, is served as well.
    assert_eq!(bench.ask("german", "2.3", START + 2 * P), Ok(()));
}

#[test]
fn retiring_again_acknowledges_and_favours_nobody_for_longer() {
    let mut bench = Bench::held();
    bench.tell("ireland", retire("1.1", "german"), START).unwrap();
    bench.tell("ireland", release("1.1"), START).unwrap();
    assert_eq!(bench.tell("ireland", retire("1.1", "german"), START + 2 * D - 1), Ok(()));
    assert_eq!(bench.tell("ireland", retire("1.1", "luxembourg"), START + 2 * D - 1), Err(Refusal::NotInPlan));
    assert_eq!(bench.ask("french", "2.2", START + 2 * D), Ok(()));
    assert_eq!(bench.record().retired.as_ref().unwrap().successor, site("german"));
}

#[test]
fn a_successor_that_could_never_acquire_is_refused() {
    let mut bench = Bench::held();
    assert_eq!(bench.tell("ireland", retire("1.1", "swiss"), START + P), Err(Refusal::NotInPlan));
    let plan = regent_core::plan::Plan { countries: vec!["IE".into(), "DE".into()], ..protected(2) };
    bench.register(START + P, &signed(&plan));
    assert_eq!(bench.tell("ireland", retire("1.1", "french"), START + P), Err(Refusal::UnlawfulCountry));
    assert_eq!(bench.ask("ireland", "1.1", START + P), Ok(()), "nothing was retired");
}

#[test]
fn a_retired_incumbent_does_not_wait_in_line() {
    let mut bench = Bench::held();
    bench.ask("ireland", "1.1", START + P).unwrap();
    bench.tell("ireland", retire("1.1", "french"), START + P).unwrap();
    bench.tell("ireland", release("1.1"), START + P).unwrap();
    let end = START + P + 2 * D;
    let _ = bench.ask("ireland", "1.1", end - 1);
    assert_eq!(bench.ask("german", "2.3", end), Ok(()));
}

#[test]
fn a_retired_incumbent_is_not_first_as_the_proven_one_is() {
    let mut bench = Bench::held();
    bench.renew_proven("ireland", "1.1", START + P).unwrap();
    bench.renew_proven("ireland", "1.1", START + 2 * P).unwrap();
    bench.tell("ireland", retire("1.1", "luxembourg"), START + 2 * P).unwrap_err();
    bench.tell("ireland", retire("1.1", "german"), START + 2 * P).unwrap();
    bench.tell("ireland", release("1.1"), START + 2 * P).unwrap();
    let end = START + 2 * P + 2 * D;
    let _ = bench.query("french", "2.2", end);
    assert_eq!(bench.ask("ireland", "2.1", end), Err(Refusal::BetterClaimant));
    assert_eq!(bench.ask("french", "2.2", end), Ok(()));
}

#[test]
fn a_replayed_release_drops_no_later_promise() {
    let mut bench = Bench::held();
    bench.tell("ireland", retire("1.1", "french"), START + P).unwrap();
    let replay = bench.submission("ireland", release("1.1"), &[]);
    let _grant = bench.submit(&replay, START + P);
    bench.ask("french", "2.2", START + P).unwrap();
    // Back home later, and the old release arrives once more.
    bench.tell("french", retire("2.2", "ireland"), START + 2 * P).unwrap();
    bench.tell("french", release("2.2"), START + 2 * P).unwrap();
    bench.ask("ireland", "3.1", START + 2 * P).unwrap();
    let grant = bench.submit(&replay, START + 3 * P);
    assert_eq!(grant.exception(&shop()).unwrap().reason, Refusal::HigherVote);
    assert_eq!(bench.ask("german", "4.3", START + 3 * P), Err(Refusal::Promised));
}

#[test]
fn a_release_drops_the_promise_to_its_own_site_only() {
    let mut bench = Bench::held();
    bench.ask("french", "2.2", START + LAPSE).unwrap();
    assert_eq!(bench.tell("ireland", release("1.1"), START + LAPSE), Err(Refusal::HigherVote));
    assert_eq!(bench.tell("ireland", release("9.1"), START + LAPSE), Ok(()));
    assert_eq!(bench.ask("german", "3.3", START + LAPSE + 1), Err(Refusal::Promised));
}

#[test]
fn a_restarted_witness_remembers_what_was_retired_and_favours_nobody_again() {
    let mut bench = Bench::held();
    bench.tell("ireland", retire("1.1", "german"), START + P).unwrap();
    let mut bench = bench.restart(2, START + 2 * P, Start::Restarted);
    assert_eq!(bench.ask("ireland", "1.1", START + 2 * P), Err(Refusal::Retired));
    assert_eq!(bench.ask("german", "2.3", START + 2 * P), Err(Refusal::Waiting));
    assert_eq!(bench.ask("french", "2.2", START + 2 * P + D), Ok(()));
}

#[test]
fn the_answers_to_a_retirement_are_no_certificate() {
    let mut bench = Bench::held();
    let ask = bench.submission("ireland", retire("1.1", "french"), &[entry("1.1")]);
    let grant = bench.submit(&ask, START + P);
    assert!(grant.exceptions.is_empty());
    let round = regent_core::message::Round { request: ask.request, grants: Vec::new() };
    assert!(matches!(round.verify(&charter().into()), Err(regent_core::message::RoundError::NotAGrant)));
    let promise = bench.witness.explain_group(&shop(), at(START + P)).unwrap().promise.unwrap();
    assert_eq!(promise.left_ms, D - P, "and they promise nothing");
}

#[test]
fn an_unknown_group_is_neither_retired_nor_released() {
    let mut bench = Bench::held();
    let none = |ask: Ask, bench: &mut Bench| {
        let ask = bench.submission("ireland", ask, &[]);
        bench.submit(&ask, START + P).exceptions.first().map(|e| e.reason)
    };
    let (group, at) = (group("none"), epoch("1.1"));
    let release = Ask::Release { group: group.clone(), epoch: at };
    assert_eq!(none(release, &mut bench), Some(Refusal::UnknownGroup));
    let retire = Ask::Retire { group, epoch: at, successor: site("french") };
    assert_eq!(none(retire, &mut bench), Some(Refusal::UnknownGroup));
}
