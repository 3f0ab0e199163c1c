//! A holder that a newer plan leaves out, or whose country it forbids.

use super::support::*;
use crate::witness::Start;
use regent_core::message::{Ask, Line, Refusal};
use regent_core::plan::{Plan, Protection};

/// When French has acquired.
const HELD: u64 = START + LAPSE;

/// French holds `shop` by 2.2 and is proven; then home drops it, in one of two ways.
fn left_out(by_country: bool) -> (Bench, Refusal) {
    let mut bench = Bench::held();
    bench.query("french", "2.2", HELD).unwrap();
    bench.ask("french", "2.2", HELD).unwrap();
    bench.renew_proven("french", "2.2", HELD + P).unwrap();
    let plan = if by_country {
        Plan { countries: vec!["IE".into(), "DE".into()], ..protected(2) }
    } else {
        Plan { standbys: vec![site("german")], ..protected(2) }
    };
    assert_eq!(bench.register(HELD + P, &signed(&plan)), Some(2));
    (bench, if by_country { Refusal::UnlawfulCountry } else { Refusal::NotInPlan })
}

fn both() -> [(Bench, Refusal); 2] {
    [left_out(false), left_out(true)]
}

#[test]
fn it_is_renewed_as_long_as_it_is_proven() {
    for (mut bench, refusal) in both() {
        let mut now = HELD + 2 * P;
        for _ in 0..30 {
            assert_eq!(bench.renew_proven("french", "2.2", now), Ok(()));
            now += P;
        }
        // The last tag that it quoted is P old.
        let lapses = now - 2 * P + LAPSE;
        assert_eq!(bench.ask("french", "2.2", lapses - 1), Ok(()), "by its own vote");
        assert_eq!(bench.ask("french", "2.2", lapses), Err(refusal), "an activation, which I5 forbids");
        assert_eq!(bench.query("french", "3.2", lapses), Err((refusal, None)));
    }
}

#[test]
fn a_plan_that_it_has_not_countersigned_yet_does_not_end_its_lease_either() {
    let mut bench = Bench::held();
    bench.ask("french", "2.2", HELD).unwrap();
    bench.renew_proven("french", "2.2", HELD + P).unwrap();
    let plan = regent_core::sign::Envelope::sign(&protected(2), "ireland", &key("ireland"));
    assert_eq!(bench.register(HELD + P, &plan), Some(2));
    assert_eq!(bench.ask("french", "2.2", HELD + 2 * P), Ok(()));
}

#[test]
fn it_may_raise_its_epoch_and_nobody_in_line_comes_before_it() {
    for (mut bench, _) in both() {
        let _ = bench.query("german", "3.3", HELD + 2 * P);
        assert_eq!(bench.ask("french", "4.2", HELD + 2 * P), Ok(()));
        assert_eq!(bench.ask("german", "5.3", HELD + 2 * P), Err(Refusal::Promised));
    }
}

#[test]
fn it_stands_before_all_others_while_it_is_proven_and_nowhere_once_it_lapsed() {
    for (mut bench, _) in both() {
        bench.ask("french", "2.2", HELD + 2 * P).unwrap();
        let lapses = HELD + LAPSE;
        assert_eq!(bench.ask("german", "3.3", lapses - 1), Err(Refusal::NoTrigger));
        let _ = bench.ask("french", "2.2", lapses - D);
        assert_eq!(bench.ask("german", "3.3", lapses), Ok(()), "D after its last promise");
    }
}

#[test]
fn observed_is_no_way_for_it_either() {
    let (mut bench, _) = left_out(false);
    let ask = entry_of(shop(), "2.2", Protection::Observed);
    assert_eq!(bench.ask_for("french", &ask, HELD + 2 * P), Err(Refusal::StateBehindPlan));
}

#[test]
fn nobody_else_outside_the_plan_gains_by_it() {
    for (mut bench, _) in both() {
        assert_eq!(bench.ask("luxembourg", "3.5", HELD + 2 * P), Err(Refusal::NotInPlan));
        assert_eq!(bench.ask("luxembourg", "3.5", HELD + 2 * LAPSE), Err(Refusal::NotInPlan));
    }
}

#[test]
fn l7_a_restarted_witness_renews_exactly_its_vote_and_takes_it_as_proven_at_its_start() {
    for (bench, refusal) in both() {
        let started = HELD + 2 * P;
        let mut bench = bench.restart(2, started, Start::Restarted);
        assert_eq!(bench.ask("french", "2.2", started), Ok(()));
        assert_eq!(bench.ask("french", "3.2", started + P), Err(Refusal::Waiting));
        assert_eq!(bench.ask("french", "3.2", started + D), Ok(()), "as the incumbent that it is");
        assert_eq!(bench.ask("french", "3.2", started + LAPSE), Err(refusal));
    }
}

#[test]
fn l12_it_releases_to_a_site_of_the_plan_and_to_no_other() {
    for (mut bench, refusal) in both() {
        let now = HELD + 2 * P;
        assert_eq!(bench.tell("french", retire("2.2", "luxembourg"), now), Err(Refusal::NotInPlan));
        assert_eq!(bench.tell("french", retire("2.2", "german"), now), Ok(()));
        assert_eq!(bench.ask("french", "2.2", now), Err(Refusal::Retired), "what it gave away it gets no more");
        assert_eq!(bench.ask("french", "3.2", now), Err(refusal));
        assert_eq!(bench.ask("german", "3.3", now), Err(Refusal::Promised));
        assert_eq!(bench.tell("french", release("2.2"), now), Ok(()));
        assert_eq!(bench.ask("german", "3.3", now), Ok(()));
        // A holder that leaves is no heir to the group that it left.
        assert_eq!(bench.tell("german", retire("3.3", "french"), now + P), Err(refusal));
    }
}

#[test]
fn a_site_that_was_never_certified_and_whose_rival_lapsed_is_no_holder() {
    let mut bench = Bench::held();
    bench.ask("french", "2.2", HELD).unwrap();
    let plan = Plan { standbys: vec![site("german")], ..protected(2) };
    bench.register(HELD, &signed(&plan));
    // L6: the vote is no proof.
    assert_eq!(bench.ask("french", "2.2", HELD + P), Err(Refusal::NotInPlan));
    assert_eq!(bench.renew_proven("french", "2.2", HELD + P), Ok(()), "a certificate is");
}

#[test]
fn people_are_shown_what_it_would_be_answered() {
    for (bench, _) in both() {
        let view = bench.witness.explain_group(&shop(), at(HELD + 2 * P)).unwrap();
        let claimant = view.claimants.iter().find(|c| c.site == site("french")).unwrap();
        assert_eq!((claimant.epoch, claimant.refusal), (epoch("2.2"), None));
    }
}

#[test]
fn its_query_waits_in_line_as_its_request_does() {
    let (mut bench, _) = left_out(false);
    let query = bench.submission("french", Ask::Query { line: Line::Ready }, &[entry("2.2")]);
    let _grant = bench.submit(&query, HELD + 2 * P);
    let line = bench.witness.explain_group(&shop(), at(HELD + 2 * P)).unwrap().line;
    assert!(line.iter().any(|l| l.site == site("french")), "{line:?}");
}
