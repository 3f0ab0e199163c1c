//! Written before it is answered; and what a failed write silences.

use super::support::*;
use crate::witness::{Record, StaleCause, Start, WitnessEvent};
use regent_core::message::{Ask, Line, Refusal};
use regent_core::plan::Plan;

const LATE: u64 = START + LAPSE;

#[test]
fn a_new_vote_is_written_before_the_promise_is_given() {
    let mut bench = Bench::held();
    let ask = bench.submission("french", Ask::Grant, &[entry("2.2")]);
    let receipt = bench.witness.receive(at(LATE), &ask, Some(WALL)).unwrap();
    let (key, record) = &receipt.persists[0];
    assert_eq!((key, &record.vote), (&shop(), &vote("french", "2.2")));
    assert_eq!((record.start, record.writes, record.written_s), (1, 3, Some(WALL)));
    assert_eq!(bench.witness.explain_group(&shop(), at(LATE)).unwrap().promise, None);
    let _grant = bench.witness.conclude(receipt, &[]);
    assert!(bench.witness.explain_group(&shop(), at(LATE)).unwrap().promise.is_some());
}

#[test]
fn while_a_group_is_written_it_is_busy_for_others_and_other_groups_go_on() {
    let mut bench = Bench::held();
    let mail = Plan { group: group("mail"), ..protected(1) };
    bench.register(START, &signed(&mail));
    let mail = entry_of(group("mail"), "1.1", mail.protection);
    bench.ask_for("ireland", &mail, START).unwrap();
    let ask = bench.submission("french", Ask::Grant, &[entry("2.2")]);
    let receipt = bench.witness.receive(at(LATE), &ask, None).unwrap();
    assert_eq!(bench.ask("ireland", "1.1", LATE), Err(Refusal::Busy));
    assert_eq!(bench.ask("french", "2.2", LATE), Err(Refusal::Busy));
    assert_eq!(bench.query("german", "2.3", LATE), Err((Refusal::Busy, None)));
    assert_eq!(bench.tell("ireland", retire("1.1", "french"), LATE), Err(Refusal::Busy));
    assert_eq!(bench.tell("ireland", release("1.1"), LATE), Err(Refusal::Busy));
    assert_eq!(bench.ask_for("ireland", &mail, LATE), Ok(()));
    assert!(bench.witness.conclude(receipt, &[]).exception(&shop()).is_none());
    assert_eq!(bench.ask("french", "2.2", LATE), Ok(()));
}

#[test]
fn a_busy_group_s_answers_name_no_vote_that_may_never_be_written() {
    let mut bench = Bench::held();
    let ask = bench.submission("french", Ask::Grant, &[entry("2.2")]);
    let receipt = bench.witness.receive(at(LATE), &ask, None).unwrap();
    let query = bench.submission("german", Ask::Query { line: Line::Ready }, &[entry("2.3")]);
    assert_eq!(bench.submit(&query, LATE).votes.get(&shop()), None);
    let _grant = bench.witness.conclude(receipt, &[]);
    assert_eq!(bench.submit(&query, LATE).votes.get(&shop()).cloned(), vote("french", "2.2"));
}

/// French asked at `LATE`, and its vote could not be written.
fn failed() -> Bench {
    let mut bench = Bench::held();
    let ask = bench.submission("french", Ask::Grant, &[entry("2.2")]);
    let receipt = bench.witness.receive(at(LATE), &ask, None).unwrap();
    let grant = bench.witness.conclude(receipt, &[shop()]);
    assert_eq!(grant.exception(&shop()).unwrap().reason, Refusal::NotPersisted);
    bench
}

#[test]
fn after_a_failed_write_the_group_is_refused_to_all_until_its_object_was_read() {
    let mut bench = failed();
    // The write may still arrive; renewing home now would let a restart serve both.
    assert_eq!(bench.ask("ireland", "1.1", LATE), Err(Refusal::Busy));
    assert_eq!(bench.ask("french", "2.2", LATE), Err(Refusal::Busy));
    assert_eq!(bench.witness.unsettled().into_iter().collect::<Vec<_>>(), [shop()]);
    let record = bench.record().clone();
    bench.witness.reload(at(LATE), &shop(), Some(record));
    assert!(bench.witness.unsettled().is_empty());
    // French waits in line for 2P; then nobody does.
    assert_eq!(bench.ask("ireland", "1.1", LATE), Err(Refusal::BetterClaimant));
    assert_eq!(bench.ask("ireland", "1.1", LATE + 2 * P), Ok(()));
}

#[test]
fn the_first_answer_after_a_failed_write_writes_again_so_that_the_lost_write_can_not_land() {
    let mut bench = failed();
    let record = bench.record().clone();
    bench.witness.reload(at(LATE), &shop(), Some(record.clone()));
    let ask = bench.submission("ireland", Ask::Grant, &[entry("1.1")]);
    let receipt = bench.witness.receive(at(LATE + 2 * P), &ask, None).unwrap();
    assert_eq!(receipt.persists.len(), 1);
    assert_ne!(receipt.persists[0].1, record, "a write that changes nothing would not change the object");
    let _grant = bench.witness.conclude(receipt, &[]);
}

#[test]
fn a_failed_write_that_did_arrive_is_the_vote() {
    let mut bench = failed();
    let landed = Record { vote: vote("french", "2.2"), writes: 3, ..bench.record().clone() };
    bench.witness.reload(at(LATE), &shop(), Some(landed));
    assert_eq!(bench.ask("ireland", "1.1", LATE), Err(Refusal::HigherVote));
    assert_eq!(bench.ask("french", "2.2", LATE), Ok(()));
}

#[test]
fn a_group_whose_first_write_failed_and_left_no_object_is_forgotten() {
    let mut bench = Bench::empty();
    let mut ask = bench.submission("ireland", Ask::Grant, &[entry("1.1")]);
    ask.plans = vec![signed(&protected(1))];
    let receipt = bench.witness.receive(at(START), &ask, None).unwrap();
    let _grant = bench.witness.conclude(receipt, &[shop()]);
    assert_eq!(bench.ask("ireland", "1.1", START), Err(Refusal::Busy));
    bench.witness.reload(at(START), &shop(), None);
    assert_eq!(bench.ask("ireland", "1.1", START), Err(Refusal::UnknownGroup));
    assert!(bench.submit(&ask, START).exceptions.is_empty());
}

#[test]
fn an_object_that_was_written_and_is_gone_makes_the_witness_stale() {
    let mut bench = failed();
    bench.witness.reload(at(LATE), &shop(), None);
    assert!(bench.events(LATE).contains(&(at(LATE), WitnessEvent::Stale(StaleCause::ObjectMissing(shop())))));
    assert_eq!(bench.ask("ireland", "1.1", LATE), Err(Refusal::Stale));
}

#[test]
fn reading_an_object_of_a_group_under_a_write_changes_nothing() {
    let mut bench = Bench::held();
    let old = bench.record().clone();
    let ask = bench.submission("french", Ask::Grant, &[entry("2.2")]);
    let receipt = bench.witness.receive(at(LATE), &ask, None).unwrap();
    bench.witness.reload(at(LATE), &shop(), Some(old));
    assert!(bench.witness.conclude(receipt, &[]).exceptions.is_empty());
    assert_eq!(bench.ask("ireland", "1.1", LATE), Err(Refusal::Promised));
}

#[test]
fn a_plan_and_a_vote_of_one_request_are_one_write() {
    let mut bench = Bench::empty();
    let mut ask = bench.submission("ireland", Ask::Grant, &[entry("1.1")]);
    ask.plans = vec![signed(&protected(1))];
    let receipt = bench.witness.receive(at(START), &ask, None).unwrap();
    assert_eq!(receipt.persists.len(), 1);
    assert!(receipt.persists[0].1.plan.is_some() && receipt.persists[0].1.vote.is_some());
    let grant = bench.witness.conclude(receipt, &[]);
    assert_eq!(grant.plans.get(&shop()), Some(&1));
    assert_eq!(grant.start, 1);
}

#[test]
fn a_failed_write_of_one_group_leaves_the_others_granted() {
    let mut bench = Bench::empty();
    let mail = Plan { group: group("mail"), ..protected(1) };
    let entries = [entry("1.1"), entry_of(group("mail"), "1.1", mail.protection)];
    let mut ask = bench.submission("ireland", Ask::Grant, &entries);
    ask.plans = vec![signed(&protected(1)), signed(&mail)];
    let receipt = bench.witness.receive(at(START), &ask, None).unwrap();
    assert_eq!(receipt.persists.len(), 2);
    let grant = bench.witness.conclude(receipt, &[shop()]);
    assert_eq!(grant.exceptions.len(), 1);
    assert_eq!(grant.exception(&shop()).unwrap().reason, Refusal::NotPersisted);
}

#[test]
fn a_record_survives_json() {
    let mut bench = Bench::held();
    bench.tell("ireland", retire("1.1", "french"), START + P).unwrap();
    let json = serde_json::to_string(bench.record()).unwrap();
    assert_eq!(&serde_json::from_str::<Record>(&json).unwrap(), bench.record());
    let unknown = json.replacen('{', "{\"newer\":1,", 1);
    assert!(serde_json::from_str::<Record>(&unknown).is_err(), "dropping what we don't know would forget it");
    assert!(serde_json::from_str::<Record>("{\"start\":1,\"writes\":1}").is_ok());
}

#[test]
fn a_restart_over_a_vote_that_was_written_but_never_answered_serves_that_vote() {
    let mut bench = failed();
    let landed = Record { vote: vote("french", "2.2"), writes: 3, ..bench.record().clone() };
    bench.objects.insert(shop(), landed);
    // It had queried before it acquired, as candidates do.
    bench.query("french", "2.2", LATE).unwrap_err();
    let mut bench = bench.restart(2, LATE + P, Start::Restarted);
    // Home's promise had ended before the vote was written (L4.3), and none was given since.
    assert_eq!(bench.ask("french", "2.2", LATE + P), Ok(()));
    assert_eq!(bench.ask("ireland", "1.1", LATE + P), Err(Refusal::Waiting));
}

/// Home sent a plan, and its write failed: no vote is in doubt.
#[test]
fn a_plan_that_can_not_be_written_does_not_end_the_renewals_of_a_vote_that_is() {
    let mut bench = Bench::held();
    let mut ask = bench.submission("ireland", Ask::Grant, &[entry("1.1")]);
    ask.plans = vec![signed(&protected(2))];
    let receipt = bench.witness.receive(at(LATE), &ask, None).unwrap();
    assert_eq!(receipt.persists.len(), 1);
    assert_eq!(bench.ask("ireland", "1.1", LATE), Ok(()), "nor while it is being written");
    let grant = bench.witness.conclude(receipt, &[shop()]);
    assert!(grant.exceptions.is_empty());
    assert_eq!(grant.plans.get(&shop()), None, "it holds no plan for certain");
    for ms in [LATE + P, LATE + 2 * P] {
        assert_eq!(bench.ask("ireland", "1.1", ms), Ok(()));
        assert_eq!(bench.ask("ireland", "2.1", ms), Err(Refusal::Busy), "a new vote would have to be written");
        assert_eq!(bench.tell("ireland", retire("1.1", "french"), ms), Err(Refusal::Busy));
    }
}
