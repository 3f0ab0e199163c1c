//! L4.1: who may claim a group at all; I5.

use super::support::*;
use regent_core::message::Refusal;
use regent_core::plan::{Plan, Protection};
use regent_core::sign::Envelope;

fn observed(version: u64) -> Plan {
    Plan { protection: Protection::Observed, ..protected(version) }
}

#[test]
fn a_group_without_a_plan_is_granted_to_nobody() {
    let mut bench = Bench::empty();
    assert_eq!(bench.ask("ireland", "1.1", START), Err(Refusal::UnknownGroup));
}

#[test]
fn home_gets_a_new_group_and_a_site_outside_the_plan_never() {
    let mut bench = Bench::held();
    assert_eq!(bench.ask("luxembourg", "2.5", START + LAPSE), Err(Refusal::NotInPlan));
    assert_eq!(bench.ask("ireland", "1.1", START + LAPSE), Ok(()));
}

#[test]
fn a_standby_that_did_not_countersign_is_no_standby_and_blocks_nothing() {
    let mut bench = Bench::empty();
    let mut envelope = Envelope::sign(&protected(1), "ireland", &key("ireland"));
    envelope.add_signature("german", &key("german"));
    bench.register(START, &envelope);
    assert_eq!(bench.ask("ireland", "1.1", START), Ok(()));
    assert_eq!(bench.query("french", "2.2", START + LAPSE), Err((Refusal::NotInPlan, None)));
    assert_eq!(bench.ask("french", "2.2", START + LAPSE), Err(Refusal::NotInPlan));
    // French has the better rank, and waits in no line.
    assert_eq!(bench.ask("german", "2.3", START + LAPSE), Ok(()));
}

#[test]
fn a_countersignature_that_comes_later_makes_the_standby_one() {
    let mut bench = Bench::empty();
    bench.register(START, &Envelope::sign(&protected(1), "ireland", &key("ireland")));
    assert_eq!(bench.ask("ireland", "1.1", START), Ok(()));
    assert_eq!(bench.ask("french", "2.2", START + LAPSE), Err(Refusal::NotInPlan));
    bench.register(START + LAPSE, &signed(&protected(1)));
    assert_eq!(bench.ask("french", "2.2", START + LAPSE), Ok(()));
}

#[test]
fn a_countersignature_by_another_key_counts_for_nothing() {
    let mut bench = Bench::empty();
    let mut envelope = Envelope::sign(&protected(1), "ireland", &key("ireland"));
    envelope.add_signature("french", &key("german"));
    bench.register(START, &envelope);
    assert_eq!(bench.ask("ireland", "1.1", START), Ok(()));
    assert_eq!(bench.ask("french", "2.2", START + LAPSE), Err(Refusal::NotInPlan));
    let kept = &bench.record().plan.as_ref().unwrap().signatures;
    assert!(kept.iter().all(|s| s.keyid == "ireland"), "worthless signatures are not persisted");
}

#[test]
fn a_standby_of_an_observed_group_is_refused_and_home_is_not() {
    let mut bench = Bench::empty();
    bench.register(START, &signed(&observed(1)));
    let ask = |state| entry_of(shop(), "1.1", state);
    assert_eq!(bench.ask_for("ireland", &ask(Protection::Observed), START), Ok(()));
    assert_eq!(bench.ask("french", "2.2", START + LAPSE), Err(Refusal::NotProtectedYet));
    // Home may ask for more than the plan says yet: the plan travels with the request.
    assert_eq!(bench.ask_for("ireland", &ask(Protection::Protected), START + LAPSE), Ok(()));
}

#[test]
fn observed_is_refused_where_the_plan_says_protected() {
    let mut bench = Bench::held();
    let ask = entry_of(shop(), "1.1", Protection::Observed);
    assert_eq!(bench.ask_for("ireland", &ask, START + P), Err(Refusal::StateBehindPlan));
    let ask = entry_of(shop(), "2.2", Protection::Observed);
    assert_eq!(bench.ask_for("french", &ask, START + LAPSE), Err(Refusal::StateBehindPlan));
}

#[test]
fn a_group_never_goes_where_its_residency_rule_forbids_whoever_asks() {
    let mut bench = Bench::held();
    // I5: narrowing acts at once, on a standby that countersigned before.
    let narrower = Plan { countries: vec!["IE".into(), "DE".into()], ..protected(2) };
    assert_eq!(bench.register(START, &signed(&narrower)), Some(2));
    assert_eq!(bench.ask("french", "2.2", START + LAPSE), Err(Refusal::UnlawfulCountry));
    // Unlawful, so it doesn't wait before the next rank either (L4.7).
    assert_eq!(bench.ask("german", "2.3", START + LAPSE), Ok(()));
}

#[test]
fn the_charter_says_where_a_site_is() {
    let mut charter = charter();
    charter.sites[1].country = "US".into();
    let mut bench = Bench::with(
        crate::witness::Config { charter, ..config(1, START, crate::witness::Start::First) },
        Default::default(),
    );
    let plan = Plan { countries: vec!["IE".into(), "FR".into()], standbys: vec![site("french")], ..protected(1) };
    bench.register(START, &signed(&plan));
    assert_eq!(bench.ask("ireland", "1.1", START), Ok(()));
    assert_eq!(bench.ask("french", "2.2", START + LAPSE), Err(Refusal::UnlawfulCountry));
}

#[test]
fn rules_are_checked_in_their_order() {
    let mut bench = Bench::held();
    // Outside the plan, promised away, below the vote, untriggered: the first one is named.
    assert_eq!(bench.ask("swiss", "0.4", START + 1), Err(Refusal::NotInPlan));
    assert_eq!(bench.ask("french", "0.2", START + 1), Err(Refusal::Promised));
    assert_eq!(bench.ask("french", "0.2", START + D), Err(Refusal::HigherVote));
    assert_eq!(bench.ask("french", "99.2", START + D), Err(Refusal::TermLeap));
    assert_eq!(bench.ask("french", "2.2", START + D), Err(Refusal::NoTrigger));
}
