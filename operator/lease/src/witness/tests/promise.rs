//! L1, L3, L4.3: one promise at a time, counted from the receipt.

use super::support::*;
use regent_core::message::Refusal;
use regent_core::time::Moment;

#[test]
fn a_promise_counts_from_the_receipt_of_the_request_and_not_from_its_conclusion() {
    let mut bench = Bench::held();
    let renewal = bench.submission("ireland", regent_core::message::Ask::Grant, &[entry("1.1")]);
    let receipt = bench.witness.receive(at(START + 100), &renewal, None).unwrap();
    assert!(receipt.persists.is_empty(), "a renewal writes nothing");
    let _grant = bench.witness.conclude(receipt, &[]);
    let promise = bench.witness.explain_group(&shop(), at(START + 100)).unwrap().promise.unwrap();
    assert_eq!((promise.site, promise.left_ms), (site("ireland"), D));
}

#[test]
fn an_unexpired_promise_refuses_every_other_site_even_after_a_lapse() {
    let mut bench = Bench::held();
    // Renewed for ever without proof: L5 holds at START + LAPSE, the promise runs on.
    for t in 0..=13 {
        assert_eq!(bench.ask("ireland", "1.1", START + t * P), Ok(()));
    }
    let end = START + 13 * P + D;
    assert_eq!(bench.query("french", "2.2", end - 1), Err((Refusal::Promised, Some(1))));
    assert_eq!(bench.ask("french", "2.2", end - 1), Err(Refusal::Promised));
    assert_eq!(bench.ask("french", "2.2", end), Ok(()));
}

#[test]
fn a_promise_ends_for_a_waiter_only_when_both_clocks_have_passed_it() {
    let mut bench = Bench::held();
    let late = at(START + LAPSE);
    let ask = bench.submission("french", regent_core::message::Ask::Grant, &[entry("2.2")]);
    for (boot, raw) in [(0, 1), (1, 0)] {
        let split = Moment { boot_ns: late.boot_ns - boot, raw_ns: late.raw_ns - raw };
        let receipt = bench.witness.receive(split, &ask, None).unwrap();
        let grant = bench.witness.conclude(receipt, &[]);
        assert_eq!(grant.exception(&shop()).unwrap().reason, Refusal::NoTrigger);
        assert_eq!(grant.exception(&shop()).unwrap().wait_ms, Some(1), "rounded up, never down");
    }
    assert_eq!(bench.ask("french", "2.2", START + LAPSE), Ok(()));
}

#[test]
fn a_promise_without_a_lapse_in_its_way_needs_both_clocks_too() {
    let mut bench = Bench::held();
    let end = at(START + LAPSE + D);
    bench.ask("ireland", "1.1", START + LAPSE).unwrap();
    let ask = bench.submission("french", regent_core::message::Ask::Grant, &[entry("2.2")]);
    for late in [Moment { boot_ns: end.boot_ns - 1, ..end }, Moment { raw_ns: end.raw_ns - 1, ..end }] {
        let receipt = bench.witness.receive(late, &ask, None).unwrap();
        assert_eq!(bench.witness.conclude(receipt, &[]).exception(&shop()).unwrap().reason, Refusal::Promised);
    }
    assert_eq!(bench.ask("french", "2.2", START + LAPSE + D), Ok(()));
}

#[test]
fn an_older_request_that_is_decided_later_does_not_shorten_a_promise() {
    let mut bench = Bench::held();
    assert_eq!(bench.ask("ireland", "1.1", START + 3 * P), Ok(()));
    assert_eq!(bench.ask("ireland", "1.1", START + P), Ok(()));
    let promise = bench.witness.explain_group(&shop(), at(START + 3 * P)).unwrap().promise.unwrap();
    assert_eq!(promise.left_ms, D);
}

#[test]
fn a_query_promises_nothing() {
    let mut bench = Bench::held();
    assert_eq!(bench.query("french", "2.2", START + LAPSE), Ok(()));
    assert_eq!(bench.witness.explain_group(&shop(), at(START + LAPSE)).unwrap().promise, None);
    assert_eq!(bench.record().vote, vote("ireland", "1.1"));
}

#[test]
fn a_new_holder_is_promised_the_group_for_d_and_the_old_one_is_refused() {
    let mut bench = Bench::held();
    assert_eq!(bench.ask("french", "2.2", START + LAPSE), Ok(()));
    assert_eq!(bench.ask("ireland", "1.1", START + LAPSE + 1), Err(Refusal::Promised));
    assert_eq!(bench.ask("ireland", "3.1", START + LAPSE + D - 1), Err(Refusal::Promised));
    assert_eq!(bench.ask("ireland", "1.1", START + LAPSE + D), Err(Refusal::HigherVote));
}

#[test]
fn each_group_is_decided_by_itself_under_one_signature() {
    let mut bench = Bench::held();
    let other = regent_core::plan::Plan { group: group("mail"), ..protected(1) };
    bench.register(START, &signed(&other));
    let entries = [
        entry("1.1"),
        entry_of(group("mail"), "1.1", other.protection),
        entry_of(group("none"), "1.1", other.protection),
    ];
    let ask = bench.submission("ireland", regent_core::message::Ask::Grant, &entries);
    let grant = bench.submit(&ask, START + P);
    assert!(grant.exception(&shop()).is_none());
    assert!(grant.exception(&group("mail")).is_none());
    assert_eq!(grant.exception(&group("none")).unwrap().reason, Refusal::UnknownGroup);
}
