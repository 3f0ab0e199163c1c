//! L7 and L9: what a start or a change of lead makes a witness forget.

use std::collections::BTreeMap;
use std::time::Duration;

use super::support::*;
use crate::witness::{Config, LeadTerm, RequestError, Start, StartError, Witness, WitnessEvent};
use regent_core::message::{Ask, Refusal};

const AGAIN: u64 = START + 20_000;
const LEASE: u64 = 15_000;
const T1: u64 = 5_000;

#[test]
fn a_restarted_witness_grants_exactly_its_vote_at_once() {
    let mut bench = Bench::held().restart(2, AGAIN, Start::Restarted);
    assert_eq!(bench.ask("ireland", "1.1", AGAIN), Ok(()));
}

#[test]
fn a_restarted_witness_grants_nothing_to_a_stranger_for_one_lease() {
    let mut bench = Bench::held().restart(2, AGAIN, Start::Restarted);
    // It may have promised home anything until just before it died.
    assert_eq!(bench.ask("french", "2.2", AGAIN), Err(Refusal::Waiting));
    assert_eq!(bench.ask("french", "2.2", AGAIN + D - 1), Err(Refusal::Waiting));
    assert_eq!(bench.ask("ireland", "2.1", AGAIN + D - 1), Err(Refusal::Waiting), "not exactly its vote");
    assert_eq!(bench.ask("ireland", "2.1", AGAIN + D), Ok(()));
}

#[test]
fn a_restarted_witness_takes_new_groups_after_one_lease_only() {
    let mut bench = Bench::held().restart(2, AGAIN, Start::Restarted);
    let mail = regent_core::plan::Plan { group: group("mail"), ..protected(1) };
    assert_eq!(bench.register(AGAIN, &signed(&mail)), Some(1));
    let first = entry_of(group("mail"), "1.1", mail.protection);
    assert_eq!(bench.ask_for("ireland", &first, AGAIN + D - 1), Err(Refusal::Waiting));
    assert_eq!(bench.ask_for("ireland", &first, AGAIN + D), Ok(()));
}

#[test]
fn lapse_counts_from_the_start_as_if_the_incumbent_had_been_proven_then() {
    let mut bench = Bench::held().restart(2, AGAIN, Start::Restarted);
    assert_eq!(bench.query("french", "2.2", AGAIN), Err((Refusal::Waiting, Some(LAPSE))));
    assert_eq!(bench.ask("french", "2.2", AGAIN + LAPSE - 1), Err(Refusal::NoTrigger));
    assert_eq!(bench.ask("french", "2.2", AGAIN + LAPSE), Ok(()));
}

#[test]
fn tags_of_an_earlier_start_prove_nothing() {
    let mut bench = Bench::held();
    bench.ask("ireland", "1.1", AGAIN - P).unwrap();
    let mut bench = bench.restart(2, AGAIN, Start::Restarted);
    bench.renew_proven("ireland", "1.1", AGAIN + P).unwrap();
    let view = bench.witness.explain_group(&shop(), at(AGAIN + P)).unwrap();
    assert_eq!(view.proven_ago_ms, P, "from the start, not from the old tag");
}

#[test]
fn a_first_start_waits_for_nothing_and_has_no_past() {
    let mut bench = Bench::empty();
    bench.register(START, &signed(&protected(1)));
    assert_eq!(bench.ask("ireland", "1.1", START), Ok(()));
    let error = Witness::new(config(1, START, Start::First), bench.objects).unwrap_err();
    assert!(matches!(&error, StartError::NotFirst { records: 1, .. }), "{error}");
}

#[test]
fn a_site_that_is_no_witness_does_not_start_one() {
    let config = Config { site: site("ireland"), ..config(1, START, Start::First) };
    let error = Witness::new(config, BTreeMap::new()).unwrap_err().to_string();
    assert!(error.contains("ireland") && error.contains("witnesses"), "{error}");
}

#[test]
fn a_record_of_a_start_that_has_not_happened_yet_stops_an_ordinary_start() {
    let objects = Bench::held().objects;
    for start in [0, 1] {
        let error = Witness::new(config(start, START, Start::Restarted), objects.clone()).unwrap_err();
        assert!(matches!(error, StartError::LaterRecord { found: 1, .. }));
    }
    assert!(Witness::new(config(1, START, Start::Stale), objects).is_ok());
}

#[test]
fn the_first_answer_after_a_start_has_the_start_in_the_group_s_object() {
    let mut bench = Bench::held();
    bench.ask("ireland", "1.1", START + P).unwrap();
    assert_eq!((bench.record().start, bench.record().writes), (1, 2), "plan and vote, no renewal");
    let mut bench = bench.restart(7, AGAIN, Start::Restarted);
    bench.ask("ireland", "1.1", AGAIN).unwrap();
    assert_eq!((bench.record().start, bench.record().writes), (7, 3));
    bench.ask("ireland", "1.1", AGAIN + P).unwrap();
    assert_eq!(bench.record().writes, 3, "once is enough");
}

#[test]
fn a_tampered_plan_in_a_record_bars_everybody_and_is_reported() {
    let mut bench = Bench::held();
    let mut record = bench.record().clone();
    record.plan.as_mut().unwrap().payload[20] ^= 1;
    bench.objects.insert(shop(), record);
    let mut bench = bench.restart(2, AGAIN, Start::Restarted);
    assert_eq!(bench.ask("ireland", "1.1", AGAIN), Err(Refusal::UnknownGroup));
    let events = bench.events(AGAIN);
    assert!(matches!(&events[..], [(_, WitnessEvent::BadPlan { group, .. })] if group == &shop()), "{events:?}");
    bench.register(AGAIN, &signed(&protected(1)));
    assert_eq!(bench.ask("ireland", "1.1", AGAIN), Ok(()));
}

#[test]
fn another_group_s_plan_in_a_record_is_not_taken_for_its_own() {
    let mut bench = Bench::held();
    let mut record = bench.record().clone();
    record.plan = Some(signed(&regent_core::plan::Plan { group: group("mail"), ..protected(3) }));
    bench.objects.insert(shop(), record);
    let mut bench = bench.restart(2, AGAIN, Start::Restarted);
    assert_eq!(bench.ask("ireland", "1.1", AGAIN), Err(Refusal::UnknownGroup));
}

fn took_lead(bench: Bench) -> Bench {
    let lease = Duration::from_millis(LEASE);
    let mut config = config(2, AGAIN, Start::Restarted);
    config.lead = Some(LeadTerm { answers_for: Duration::from_millis(T1), lease });
    Bench { tags: bench.tags, ..Bench::with(config, bench.objects) }
}

fn refused_as_not_leading(bench: &mut Bench, ms: u64) -> bool {
    let ask = bench.submission("ireland", Ask::Grant, &[entry("1.1")]);
    match bench.witness.receive(at(ms), &ask, None) {
        Err(RequestError::NotLeading(_)) => true,
        Ok(receipt) => {
            let _grant = bench.witness.conclude(receipt, &[]);
            false
        }
        Err(other) => panic!("{other}"),
    }
}

#[test]
fn a_leader_answers_only_within_t1_of_sending_its_last_update() {
    let mut bench = took_lead(Bench::held());
    assert!(refused_as_not_leading(&mut bench, AGAIN), "nothing was confirmed yet");
    bench.witness.confirm_lead(at(AGAIN));
    assert!(!refused_as_not_leading(&mut bench, AGAIN + T1 - 1));
    assert!(refused_as_not_leading(&mut bench, AGAIN + T1));
    bench.witness.confirm_lead(at(AGAIN + T1));
    assert!(!refused_as_not_leading(&mut bench, AGAIN + T1));
    // An update that was sent earlier and acknowledged later takes nothing back.
    bench.witness.confirm_lead(at(AGAIN));
    assert!(!refused_as_not_leading(&mut bench, AGAIN + 2 * T1 - 1));
}

#[test]
fn a_leader_stops_when_either_clock_says_so() {
    let mut bench = took_lead(Bench::held());
    bench.witness.confirm_lead(at(AGAIN));
    let fast = regent_core::time::Moment { raw_ns: at(AGAIN + T1).raw_ns, ..at(AGAIN) };
    assert!(!bench.witness.leads(fast));
}

#[test]
fn a_new_leader_gives_the_group_to_nobody_new_for_the_lease_and_d() {
    let mut bench = took_lead(Bench::held());
    let free = AGAIN + LEASE + D;
    bench.witness.confirm_lead(at(AGAIN));
    assert_eq!(bench.ask("ireland", "1.1", AGAIN), Ok(()), "the old holder goes on at once");
    bench.witness.confirm_lead(at(free - 1));
    assert_eq!(bench.ask("french", "2.2", free - 1), Err(Refusal::Waiting));
    assert_eq!(bench.ask("french", "2.2", free), Ok(()), "lapse counted from the lead's beginning");
}

#[test]
fn a_leader_that_finds_a_later_leader_s_record_is_silent() {
    let mut bench = Bench::held();
    let ask = bench.submission("ireland", Ask::Grant, &[entry("2.1")]);
    let receipt = bench.witness.receive(at(START + P), &ask, None).unwrap();
    let _grant = bench.witness.conclude(receipt, &[shop()]);
    let record = crate::witness::Record { start: 2, ..bench.record().clone() };
    bench.witness.reload(at(START + P), &shop(), Some(record));
    assert!(refused_as_not_leading(&mut bench, START + P));
    assert!(!bench.witness.leads(at(START + P)));
}
