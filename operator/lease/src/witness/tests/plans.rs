//! Plans: whose signature, which version, what a witness keeps.

use super::support::*;
use crate::witness::{Ignored, MAX_PLANS, RequestError};
use regent_core::message::{Ask, Line, Refusal};
use regent_core::plan::{Plan, PlanError, Protection, VerifiedPlan};
use regent_core::sign::Envelope;

fn offer(bench: &mut Bench, plan: &Envelope) -> Option<PlanError> {
    let mut ask = bench.submission("german", Ask::Query { line: Line::Beside }, &[]);
    ask.plans = vec![plan.clone()];
    let receipt = bench.witness.receive(at(START), &ask, None).unwrap();
    let error = match receipt.ignored.first() {
        Some(Ignored::Plan(error)) => Some(error.clone()),
        _ => None,
    };
    let _grant = bench.witness.conclude(receipt, &[]);
    error
}

#[test]
fn anybody_may_carry_a_plan_and_only_home_may_sign_it() {
    let mut bench = Bench::empty();
    let forged = Envelope::sign(&protected(1), "ireland", &key("french"));
    assert!(matches!(offer(&mut bench, &forged), Some(PlanError::Sign(_))));
    let mut countersigned = Envelope::sign(&protected(1), "french", &key("french"));
    countersigned.add_signature("german", &key("german"));
    assert!(matches!(offer(&mut bench, &countersigned), Some(PlanError::Sign(_))));
    assert_eq!(bench.ask("ireland", "1.1", START), Err(Refusal::UnknownGroup));
    assert_eq!(offer(&mut bench, &signed(&protected(1))), None);
    assert_eq!(bench.ask("ireland", "1.1", START), Ok(()));
}

#[test]
fn a_higher_version_replaces_a_lower_one_and_never_the_other_way() {
    let mut bench = Bench::held();
    let next = Plan { standbys: vec![site("german")], ..protected(2) };
    assert_eq!(bench.register(START, &signed(&next)), Some(2));
    let error = offer(&mut bench, &signed(&protected(1)));
    assert_eq!(error, Some(PlanError::Older { group: shop(), held: 2, offered: 1 }));
    assert_eq!(bench.ask("french", "2.2", START + LAPSE), Err(Refusal::NotInPlan));
}

#[test]
fn countersignatures_of_one_version_add_up_whoever_brings_them() {
    let mut bench = Bench::empty();
    let home = Envelope::sign(&protected(1), "ireland", &key("ireland"));
    for standby in ["french", "german"] {
        let mut one = home.clone();
        one.add_signature(standby, &key(standby));
        assert_eq!(bench.register(START, &one), Some(1));
    }
    let view = bench.witness.explain_group(&shop(), at(START)).unwrap();
    assert_eq!(view.standbys, [site("french"), site("german")]);
    // Fewer signatures later take none away, and write nothing.
    let writes = bench.record().writes;
    assert_eq!(bench.register(START, &home), Some(1));
    assert_eq!(bench.record().writes, writes);
    assert_eq!(bench.record().plan.as_ref().unwrap().signatures.len(), 3);
}

#[test]
fn two_different_plans_of_one_version_are_not_mixed() {
    let mut bench = Bench::held();
    let other = Plan { takeover_after_ms: 0, ..protected(1) };
    assert!(matches!(offer(&mut bench, &signed(&other)), Some(PlanError::SameVersion { version: 1, .. })));
}

#[test]
fn protection_rises_by_a_plan_and_does_not_fall() {
    let mut bench = Bench::empty();
    let observed = Plan { protection: Protection::Observed, ..protected(1) };
    assert_eq!(bench.register(START, &signed(&observed)), Some(1));
    assert_eq!(bench.register(START, &signed(&protected(2))), Some(2));
    for protection in [Protection::Observed, Protection::Retiring] {
        let falling = Plan { protection, ..protected(3) };
        let error = offer(&mut bench, &signed(&falling)).unwrap();
        assert_eq!(error, PlanError::Unprotects { group: shop(), held: 2, offered: 3 });
    }
    let view = bench.witness.explain_group(&shop(), at(START)).unwrap();
    assert_eq!((view.plan_version, view.protection), (Some(2), Some(Protection::Protected)));
}

#[test]
fn a_group_can_not_begin_its_life_in_retirement() {
    let mut bench = Bench::empty();
    let plan = Plan { protection: Protection::Retiring, ..protected(1) };
    assert!(matches!(offer(&mut bench, &signed(&plan)), Some(PlanError::Unprotects { .. })));
}

#[test]
fn a_plan_that_can_not_be_meant_is_refused_by_name() {
    let bad: [(Plan, &str); 9] = [
        (Plan { standbys: vec![site("ireland")], ..protected(1) }, "is its home"),
        (Plan { standbys: vec![site("french"), site("french")], ..protected(1) }, "listed twice"),
        (Plan { standbys: vec![site("atlantis")], ..protected(1) }, "atlantis"),
        (Plan { version: 0, ..protected(1) }, "versions start at 1"),
        (Plan { countries: vec!["fr".into()], ..protected(1) }, "\"fr\""),
        (
            Plan { countries: vec!["FR".into()], standbys: vec![site("french")], ..protected(1) },
            "home ireland is in IE",
        ),
        (Plan { takeover_after_ms: u64::MAX, ..protected(1) }, "takeoverAfterMs"),
        (Plan { thaw_limit_ms: u64::MAX, ..protected(1) }, "thawLimitMs"),
        (Plan { standbys: (0..40).map(|n| site(&format!("s{n}"))).collect(), ..protected(1) }, "too many"),
    ];
    for (plan, words) in bad {
        let mut bench = Bench::empty();
        let error = match offer(&mut bench, &Envelope::sign(&plan, "ireland", &key("ireland"))) {
            Some(error) => error.to_string(),
            None => panic!("{plan:?} was taken"),
        };
        assert!(error.contains(words) && error.contains("ireland"), "{error}");
        assert_eq!(bench.ask("ireland", "1.1", START), Err(Refusal::UnknownGroup));
    }
}

#[test]
fn every_mistake_of_a_plan_is_named_at_once() {
    let plan = Plan {
        version: 0,
        standbys: vec![site("ireland"), site("atlantis"), site("french")],
        countries: vec!["IE".into(), "Germany".into()],
        ..protected(1)
    };
    let errors = plan.errors(&charter());
    assert_eq!(errors.len(), 5, "{errors:?}");
    assert!(errors.iter().any(|e| e.to_string().contains("standby french is in FR")), "{errors:?}");
    assert_eq!(protected(1).errors(&charter()), []);
}

#[test]
fn a_standby_outside_the_countries_is_an_error_to_its_signer_and_barred_by_a_witness() {
    let plan = Plan { countries: vec!["IE".into(), "DE".into()], ..protected(1) };
    let errors = plan.errors(&charter());
    assert!(matches!(&errors[..], [e @ PlanError::StandbyOutside { .. }] if e.only_bars_a_standby()));
    let verified = VerifiedPlan::open(&signed(&plan), &charter()).unwrap();
    assert!(!verified.is_lawful(&site("french"), &charter()));
    assert!(verified.is_lawful(&site("german"), &charter()));
}

#[test]
fn a_plan_for_a_home_that_the_charter_does_not_name_is_refused() {
    let mut bench = Bench::empty();
    let plan = Plan { group: "atlantis/shop".parse().unwrap(), ..protected(1) };
    let envelope = Envelope::sign(&plan, "atlantis", &key("french"));
    assert!(matches!(offer(&mut bench, &envelope), Some(PlanError::UnknownHome { .. })));
}

#[test]
fn a_site_can_not_sign_plans_of_another_home_s_groups() {
    let mut bench = Bench::held();
    let seized = Plan { standbys: vec![site("german")], ..protected(9) };
    assert!(offer(&mut bench, &Envelope::sign(&seized, "german", &key("german"))).is_some());
    assert!(offer(&mut bench, &Envelope::sign(&seized, "ireland", &key("german"))).is_some());
    assert_eq!(bench.witness.explain_group(&shop(), at(START)).unwrap().plan_version, Some(1));
}

#[test]
fn a_plan_of_absurd_size_is_refused() {
    let mut bench = Bench::empty();
    let mut ask = bench.submission("german", Ask::Query { line: Line::Beside }, &[]);
    ask.plans = vec![signed(&protected(1)); MAX_PLANS + 1];
    let error = bench.witness.receive(at(START), &ask, None).unwrap_err();
    assert!(matches!(error, RequestError::TooMany { what: "plans", .. }), "{error}");
    let mut long = signed(&protected(1));
    long.payload.resize(regent_core::plan::MAX_PLAN_BYTES + 1, b' ');
    ask.plans = vec![long.clone()];
    assert!(bench.witness.receive(at(START), &ask, None).is_err());
    assert!(matches!(VerifiedPlan::open(&long, &charter()), Err(PlanError::TooLarge { .. })));
    let mut crowded = signed(&protected(1));
    crowded.signatures = vec![crowded.signatures[0].clone(); 40];
    assert!(matches!(VerifiedPlan::open(&crowded, &charter()), Err(PlanError::TooLarge { .. })));
}

#[test]
fn a_bad_plan_spoils_nothing_but_itself() {
    let mut bench = Bench::held();
    let mut ask = bench.submission("ireland", Ask::Grant, &[entry("1.1")]);
    let mut torn = signed(&protected(2));
    torn.payload.truncate(9);
    ask.plans = vec![torn, Envelope::sign(&protected(2), "ireland", &key("french")), signed(&protected(3))];
    let grant = bench.submit(&ask, START + P);
    assert!(grant.exceptions.is_empty());
    assert_eq!(grant.plans.get(&shop()), Some(&3));
}

#[test]
fn a_query_names_plan_versions_so_that_whoever_has_a_newer_one_sends_it() {
    let mut bench = Bench::held();
    let query = bench.submission("french", Ask::Query { line: Line::Beside }, &[entry("2.2")]);
    assert_eq!(bench.submit(&query, START + P).plans.get(&shop()), Some(&1));
    let renewal = bench.submission("ireland", Ask::Grant, &[entry("1.1")]);
    assert!(bench.submit(&renewal, START + P).plans.is_empty(), "renewals stay small");
}

#[test]
fn a_withdrawn_countersignature_list_in_a_new_version_needs_new_countersignatures() {
    let mut bench = Bench::held();
    bench.register(START, &Envelope::sign(&protected(2), "ireland", &key("ireland")));
    assert_eq!(bench.ask("french", "2.2", START + LAPSE), Err(Refusal::NotInPlan));
}
