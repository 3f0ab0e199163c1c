//! L4.7: the same order at every witness.

use super::support::*;
use regent_core::message::{Ask, Line, Refusal};
use regent_core::sign::Envelope;

const LATE: u64 = START + LAPSE;

fn query_aside(bench: &mut Bench, name: &str, epoch: &str, ms: u64) {
    let ask = bench.submission(name, Ask::Query { line: Line::Beside }, &[entry(epoch)]);
    let _grant = bench.submit(&ask, ms);
}

#[test]
fn a_better_standby_that_waits_comes_first() {
    let mut bench = Bench::held();
    assert_eq!(bench.query("french", "2.2", LATE), Ok(()));
    assert_eq!(bench.query("german", "2.3", LATE), Err((Refusal::BetterClaimant, Some(2 * P))));
    assert_eq!(bench.ask("german", "2.3", LATE + 1), Err(Refusal::BetterClaimant));
    assert_eq!(bench.ask("french", "2.2", LATE + 2), Ok(()));
}

#[test]
fn a_claimant_waits_for_two_p_from_its_last_question() {
    let mut bench = Bench::held();
    bench.query("french", "2.2", LATE).unwrap();
    assert_eq!(bench.ask("german", "2.3", LATE + 2 * P - 1), Err(Refusal::BetterClaimant));
    bench.query("french", "2.2", LATE + P).unwrap();
    assert_eq!(bench.ask("german", "2.3", LATE + 3 * P - 1), Err(Refusal::BetterClaimant));
    assert_eq!(bench.ask("german", "2.3", LATE + 3 * P), Ok(()));
}

#[test]
fn a_refused_request_waits_in_line_as_a_query_does() {
    let mut bench = Bench::held();
    assert_eq!(bench.ask("french", "0.2", LATE), Err(Refusal::HigherVote));
    assert_eq!(bench.ask("german", "2.3", LATE), Err(Refusal::BetterClaimant));
}

#[test]
fn a_query_that_does_not_wait_in_line_blocks_nobody() {
    let mut bench = Bench::held();
    query_aside(&mut bench, "french", "2.2", LATE);
    assert_eq!(bench.ask("german", "2.3", LATE), Ok(()));
}

#[test]
fn home_comes_last_unless_it_is_the_proven_incumbent() {
    let mut bench = Bench::held();
    bench.query("german", "2.3", LATE).unwrap();
    assert_eq!(bench.query("ireland", "1.1", LATE), Err((Refusal::BetterClaimant, Some(2 * P))));
    assert_eq!(bench.ask("ireland", "1.1", LATE), Err(Refusal::BetterClaimant));
    assert_eq!(bench.ask("german", "2.3", LATE), Ok(()));
}

#[test]
fn the_proven_incumbent_comes_before_every_standby() {
    let mut bench = Bench::held();
    bench.renew_proven("ireland", "1.1", START + P).unwrap();
    assert!(bench.query("french", "2.2", START + D).is_err());
    assert_eq!(bench.ask("ireland", "1.1", START + D), Ok(()));
    assert_eq!(bench.ask("ireland", "2.1", START + D), Ok(()));
}

#[test]
fn a_standby_that_holds_and_is_proven_keeps_the_group_from_better_ranks() {
    let mut bench = Bench::held();
    bench.query("german", "2.3", LATE).unwrap();
    bench.ask("german", "2.3", LATE).unwrap();
    bench.renew_proven("german", "2.3", LATE + P).unwrap();
    assert!(bench.query("french", "3.2", LATE + P).is_err());
    assert_eq!(bench.renew_proven("german", "2.3", LATE + 2 * P), Ok(()));
}

#[test]
fn a_standby_whose_proof_ran_out_yields_to_a_better_rank_that_waits() {
    let mut bench = Bench::held();
    bench.query("german", "2.3", LATE).unwrap();
    bench.ask("german", "2.3", LATE).unwrap();
    bench.renew_proven("german", "2.3", LATE + P).unwrap();
    let later = LATE + LAPSE;
    bench.ask("german", "2.3", later - 1).unwrap();
    assert!(bench.query("french", "3.2", later).is_err(), "still promised");
    assert_eq!(bench.ask("german", "2.3", later), Err(Refusal::BetterClaimant));
}

#[test]
fn sites_outside_the_plan_and_those_that_did_not_countersign_wait_nowhere() {
    let mut bench = Bench::empty();
    let mut plan = Envelope::sign(&protected(1), "ireland", &key("ireland"));
    plan.add_signature("german", &key("german"));
    bench.register(START, &plan);
    bench.ask("ireland", "1.1", START).unwrap();
    let _ = bench.query("luxembourg", "2.5", LATE);
    let _ = bench.query("french", "2.2", LATE);
    assert_eq!(bench.witness.explain_group(&shop(), at(LATE)).unwrap().line, []);
    assert_eq!(bench.ask("german", "2.3", LATE), Ok(()));
}

#[test]
fn a_claimant_that_is_barred_after_it_queued_waits_no_longer() {
    let mut bench = Bench::held();
    bench.query("french", "2.2", LATE).unwrap();
    let without = regent_core::plan::Plan { standbys: vec![site("german")], ..protected(2) };
    bench.register(LATE, &signed(&without));
    assert_eq!(bench.ask("german", "2.3", LATE), Ok(()));
}

#[test]
fn every_order_of_arrival_lets_the_same_standby_through() {
    for first in ["french", "german"] {
        let mut bench = Bench::held();
        let second = if first == "french" { "german" } else { "french" };
        let epoch = |name: &str| format!("2.{}", number(name));
        let _ = bench.query(first, &epoch(first), LATE);
        let _ = bench.query(second, &epoch(second), LATE + 1);
        let _ = bench.query("ireland", "1.1", LATE + 2);
        assert_eq!(bench.ask("german", "2.3", LATE + 3), Err(Refusal::BetterClaimant));
        assert_eq!(bench.ask("ireland", "1.1", LATE + 3), Err(Refusal::BetterClaimant));
        assert_eq!(bench.ask("french", "2.2", LATE + 4), Ok(()));
    }
}

/// A standby of which only a part is ready asks, and stands in line so.
fn query_degraded(bench: &mut Bench, name: &str, at: &str, ms: u64) -> Result<(), Refusal> {
    let ask = bench.submission(name, Ask::Query { line: Line::Degraded }, &[entry(at)]);
    bench.submit(&ask, ms).exception(&shop()).map_or(Ok(()), |e| Err(e.reason))
}

#[test]
fn a_ready_standby_comes_before_a_degraded_one_of_better_rank() {
    let mut bench = Bench::held();
    let _ = query_degraded(&mut bench, "french", "2.2", LATE - P);
    let _ = bench.query("german", "2.3", LATE - P);
    assert_eq!(query_degraded(&mut bench, "french", "2.2", LATE), Err(Refusal::BetterClaimant));
    assert_eq!(bench.ask("french", "2.2", LATE), Err(Refusal::BetterClaimant), "as it stands in line");
    assert_eq!(bench.query("german", "2.3", LATE + 50), Ok(()));
    assert_eq!(bench.ask("german", "2.3", LATE + 50), Ok(()));
}

#[test]
fn a_degraded_standby_is_served_when_no_ready_one_asks_and_by_rank_among_its_like() {
    let mut bench = Bench::held();
    let _ = query_degraded(&mut bench, "french", "2.2", LATE - P);
    let _ = query_degraded(&mut bench, "german", "2.3", LATE - P);
    assert_eq!(query_degraded(&mut bench, "german", "2.3", LATE), Err(Refusal::BetterClaimant));
    assert_eq!(query_degraded(&mut bench, "french", "2.2", LATE), Ok(()));
    assert_eq!(bench.ask("french", "2.2", LATE), Ok(()));
}

#[test]
fn home_comes_before_a_degraded_standby_and_after_a_ready_one() {
    let mut bench = Bench::held();
    let _ = query_degraded(&mut bench, "french", "2.2", LATE);
    let _ = bench.query("ireland", "1.1", LATE);
    assert_eq!(bench.ask("french", "2.2", LATE), Err(Refusal::BetterClaimant));
    let _ = bench.query("german", "2.3", LATE);
    assert_eq!(bench.ask("ireland", "1.1", LATE), Err(Refusal::BetterClaimant));
    assert_eq!(bench.ask("german", "2.3", LATE), Ok(()));
}

#[test]
fn a_standby_stands_as_it_said_last_for_two_p_and_a_request_alone_says_nothing() {
    let mut bench = Bench::held();
    let _ = query_degraded(&mut bench, "french", "2.2", LATE - P);
    let _ = bench.query("german", "2.3", LATE - P);
    // It has become ready.
    assert_eq!(bench.query("french", "2.2", LATE), Ok(()));
    assert_eq!(bench.ask("french", "0.2", LATE + P), Err(Refusal::HigherVote));
    assert_eq!(bench.ask("german", "2.3", LATE + P), Err(Refusal::BetterClaimant));
    // Not in line, it is taken as ready: that costs time at most.
    let mut bench = Bench::held();
    let _ = query_degraded(&mut bench, "french", "2.2", LATE - 2 * P);
    let _ = bench.query("german", "2.3", LATE);
    assert_eq!(bench.ask("french", "2.2", LATE), Ok(()));
}

#[test]
fn a_lie_about_readiness_costs_what_one_about_rank_does_and_no_second_holder() {
    let mut bench = Bench::held();
    let _ = bench.query("german", "2.3", LATE - P);
    assert_eq!(bench.query("german", "2.3", LATE), Ok(()), "it is not, and says so");
    assert_eq!(bench.ask("german", "2.3", LATE), Ok(()));
    assert_eq!(bench.ask("french", "3.2", LATE + 1), Err(Refusal::Promised));
    let _ = query_degraded(&mut bench, "ireland", "1.1", LATE + 1);
    let line = bench.witness.explain_group(&shop(), at(LATE + 1)).unwrap().line;
    assert!(line.iter().any(|l| l.site == site("ireland") && l.degraded));
}
