//! L4.4 and L4.5: epochs grow, and never far at once; I2.

use std::collections::BTreeMap;

use super::support::*;
use regent_core::message::{Ask, Line, Refusal};

#[test]
fn an_epoch_below_the_vote_is_refused_and_the_answer_names_the_vote() {
    let mut bench = Bench::held();
    assert_eq!(bench.ask("french", "4.2", START + LAPSE), Ok(()));
    let ask = bench.submission("german", Ask::Query { line: Line::Ready }, &[entry("4.3")]);
    let late = START + LAPSE + LAPSE;
    assert!(bench.submit(&ask, late).exception(&shop()).is_none(), "4.3 is above 4.2");
    let ask = bench.submission("ireland", Ask::Grant, &[entry("4.1")]);
    let grant = bench.submit(&ask, late);
    assert_eq!(grant.exception(&shop()).unwrap().reason, Refusal::HigherVote);
    assert_eq!(grant.exception(&shop()).unwrap().wait_ms, None, "time alone doesn't cure it");
    assert_eq!(grant.votes.get(&shop()).cloned(), vote("french", "4.2"));
}

#[test]
fn the_vote_itself_is_granted_again_and_its_holder_may_raise_its_epoch() {
    let mut bench = Bench::held();
    assert_eq!(bench.ask("ireland", "1.1", START + P), Ok(()));
    assert_eq!(bench.ask("ireland", "2.1", START + 2 * P), Ok(()));
    assert_eq!(bench.record().vote, vote("ireland", "2.1"));
    assert_eq!(bench.ask("ireland", "1.1", START + 3 * P), Err(Refusal::HigherVote));
}

#[test]
fn a_term_may_leap_by_sixteen_and_no_more_whoever_asks() {
    let mut bench = Bench::held();
    assert_eq!(bench.ask("ireland", "18.1", START + P), Err(Refusal::TermLeap));
    assert_eq!(bench.ask("ireland", &format!("{}.1", u64::MAX), START + P), Err(Refusal::TermLeap));
    assert_eq!(bench.ask("ireland", "17.1", START + P), Ok(()));
    // It climbs from there (L4.5).
    assert_eq!(bench.ask("ireland", "33.1", START + P), Ok(()));
}

#[test]
fn the_first_epoch_of_a_new_group_is_bounded_too() {
    let mut bench = Bench::empty();
    bench.register(START, &signed(&protected(1)));
    assert_eq!(bench.ask("ireland", "17.1", START), Err(Refusal::TermLeap));
    assert_eq!(bench.ask("ireland", "16.1", START), Ok(()));
}

#[test]
fn a_shown_certificate_lets_a_term_be_sixteen_above_its_own() {
    let mut bench = Bench::held();
    let mut show = bench.submission("ireland", Ask::Grant, &[entry("55.1")]);
    let certified = [entry("40.1")];
    show.proofs = vec![proof_of("ireland", &certified, BTreeMap::new(), &["french", "german", "luxembourg"])];
    assert!(bench.submit(&show, START + P).exception(&shop()).is_none());
}

#[test]
fn a_shown_certificate_bars_lower_epochs_vote_or_no_vote() {
    let shown = |mut bench: Bench| {
        let mut show = bench.submission("german", Ask::Query { line: Line::Beside }, &[]);
        let certified = [entry("5.2")];
        show.proofs = vec![proof_of("french", &certified, BTreeMap::new(), &["french", "german", "luxembourg"])];
        let _grant = bench.submit(&show, START + P);
        bench
    };
    let mut without = Bench::empty();
    without.register(START, &signed(&protected(1)));
    for bench in [without, Bench::held()] {
        let mut bench = shown(bench);
        let late = START + P + LAPSE;
        assert_eq!(bench.ask("ireland", "1.1", late), Err(Refusal::HigherVote));
        assert_eq!(bench.ask("ireland", "5.1", late), Err(Refusal::HigherVote));
        assert_eq!(bench.ask("french", "5.2", late), Ok(()), "whose certificate it is");
    }
}

#[test]
fn a_minority_is_no_certificate_and_lets_no_term_leap() {
    let mut bench = Bench::held();
    let mut show = bench.submission("ireland", Ask::Grant, &[entry("55.1")]);
    show.proofs = vec![proof_of("ireland", &[entry("40.1")], BTreeMap::new(), &["french", "german"])];
    assert_eq!(bench.submit(&show, START + P).exception(&shop()).unwrap().reason, Refusal::TermLeap);
}

#[test]
fn a_query_is_answered_whatever_its_term_for_it_asks_for_none() {
    let mut bench = Bench::held();
    bench.ask("ireland", "9.1", START + P).unwrap();
    let late = START + P + LAPSE;
    for term in ["2.2", "10.2", "900.2"] {
        assert_eq!(bench.query("french", term, late), Ok(()), "{term}");
    }
    assert_eq!(bench.ask("french", "2.2", late), Err(Refusal::HigherVote));
    assert_eq!(bench.ask("french", "900.2", late), Err(Refusal::TermLeap));
    assert_eq!(bench.ask("french", "10.2", late), Ok(()));
}

#[test]
fn the_vote_at_the_end_of_all_terms_overflows_nothing() {
    let mut bench = Bench::held();
    let mut record = bench.record().clone();
    record.vote = vote("ireland", &format!("{}.1", u64::MAX));
    bench.objects.insert(shop(), record);
    let mut bench = bench.restart(2, START + D, crate::witness::Start::Restarted);
    assert_eq!(bench.ask("ireland", &format!("{}.1", u64::MAX), START + D), Ok(()));
    assert_eq!(bench.ask("french", "3.2", START + D + LAPSE), Err(Refusal::HigherVote));
    let views = bench.witness.explain(at(START + D + LAPSE));
    assert_eq!(views.len(), 1);
}
