//! L8: a witness that may have forgotten grants nothing, then reads from q others.

use std::collections::BTreeMap;

use super::support::*;
use crate::witness::{
    GroupState, LeadTerm, MacKey, RecoverError, Retired, StaleCause, Start, StateReport, WitnessEvent,
};
use regent_core::ids::{GroupKey, SiteName};
use regent_core::message::{Ask, Line, Proof, Refusal, Vote};
use regent_core::sign::{Digest, Envelope};

const AGAIN: u64 = START + 50_000;
const DUE: u64 = AGAIN + D;

fn nonce() -> Digest {
    Digest::of(b"fresh")
}

fn state(vote: Option<Vote>, retired: Option<&str>) -> GroupState {
    let retired = retired.map(|r| Retired { epoch: epoch(r), successor: site("french") });
    GroupState { group: shop(), vote, retired, plan: Some(signed(&protected(1))) }
}

fn report(witness: &str, groups: Vec<GroupState>) -> StateReport {
    StateReport { witness: site(witness), nonce: nonce(), stale: false, groups, proofs: Vec::new() }
}

fn sign(report: &StateReport) -> Envelope {
    Envelope::sign(report, report.witness.as_str(), &key(report.witness.as_str()))
}

/// A stale witness that has begun to read, over an old record of `shop` (vote 1.1).
fn reading() -> Bench {
    let mut bench = Bench::held().restart(2, AGAIN, Start::Stale);
    bench.witness.begin_recovery(at(DUE), nonce()).unwrap();
    bench
}

/// Recovers from these reports and writes what it must.
fn recover(bench: &mut Bench, reports: &[StateReport]) -> Result<(), RecoverError> {
    let envelopes: Vec<Envelope> = reports.iter().map(sign).collect();
    let records = bench.witness.recover(&envelopes, Some(WALL))?;
    bench.objects.extend(records);
    assert!(bench.witness.conclude_recovery(at(DUE), &[], Some(WALL)));
    Ok(())
}

fn others(groups: &[GroupState]) -> Vec<StateReport> {
    ["french", "german", "luxembourg"].iter().map(|w| report(w, groups.to_vec())).collect()
}

#[test]
fn a_stale_witness_grants_nothing_to_anyone_not_even_its_vote() {
    let mut bench = Bench::held().restart(2, AGAIN, Start::Stale);
    for ms in [AGAIN, DUE, DUE + 100 * LAPSE] {
        assert_eq!(bench.ask("ireland", "1.1", ms), Err(Refusal::Stale));
        assert_eq!(bench.ask("french", "2.2", ms), Err(Refusal::Stale));
        assert_eq!(bench.tell("ireland", retire("1.1", "french"), ms), Err(Refusal::Stale));
    }
}

#[test]
fn a_stale_witness_writes_nothing_over_what_it_may_have_forgotten() {
    let mut bench = Bench::held().restart(2, AGAIN, Start::Stale);
    let writes = bench.record().writes;
    assert_ne!(bench.register(AGAIN, &signed(&protected(5))), Some(5));
    assert_eq!(bench.record().writes, writes);
}

#[test]
fn it_reads_only_after_one_lease_because_earlier_misses_grants_in_flight() {
    let mut bench = Bench::held().restart(2, AGAIN, Start::Stale);
    assert_eq!(bench.witness.recovery_due(), Some(at(DUE)));
    let early = bench.witness.begin_recovery(at(DUE - 1), nonce());
    assert_eq!(early, Err(RecoverError::TooEarly { witness: site("swiss"), wait_ms: 1 }));
    assert!(matches!(bench.witness.recover(&[], None), Err(RecoverError::NotBegun(_))));
    assert_eq!(bench.witness.begin_recovery(at(DUE), nonce()), Ok(()));
}

#[test]
fn it_takes_the_highest_vote_and_the_highest_retired_epoch_of_q_others() {
    let mut bench = reading();
    let mut reports = others(&[state(vote("french", "3.2"), Some("1.1"))]);
    reports[1].groups = vec![state(vote("german", "4.3"), None)];
    reports[2].groups = vec![state(None, Some("2.2"))];
    recover(&mut bench, &reports).unwrap();
    assert_eq!(bench.record().vote, vote("german", "4.3"));
    assert_eq!(bench.record().retired.as_ref().unwrap().epoch, epoch("2.2"));
    assert_eq!(bench.record().start, 2);
    assert_eq!(bench.ask("german", "4.3", DUE), Ok(()));
    assert_eq!(bench.witness.recovery_due(), None);
}

#[test]
fn what_it_knows_itself_is_not_lowered() {
    let mut bench = reading();
    recover(&mut bench, &others(&[state(vote("ireland", "0.1"), None)])).unwrap();
    assert_eq!(bench.record().vote, vote("ireland", "1.1"));
}

#[test]
fn groups_that_it_lost_altogether_come_back() {
    let mut bench = Bench::with(config(2, AGAIN, Start::Stale), BTreeMap::new());
    bench.witness.begin_recovery(at(DUE), nonce()).unwrap();
    recover(&mut bench, &others(&[state(vote("french", "3.2"), None)])).unwrap();
    assert_eq!(bench.ask("ireland", "1.1", DUE), Err(Refusal::HigherVote));
    assert_eq!(bench.ask("french", "3.2", DUE), Ok(()));
}

#[test]
fn fewer_than_q_sound_reports_are_not_enough() {
    let mut bench = reading();
    let good = others(&[state(vote("french", "3.2"), None)]);
    let too_few = |reports: &[Envelope], bench: &mut Bench| {
        let error = bench.witness.recover(reports, None).unwrap_err();
        assert!(matches!(error, RecoverError::TooFew { found: 2, needed: 3, .. }), "{error}");
    };
    let two = [sign(&good[0]), sign(&good[1])];
    too_few(&two, &mut bench);
    let bad = [
        sign(&good[0]),
        sign(&StateReport { stale: true, ..good[2].clone() }),
        sign(&StateReport { nonce: Digest::of(b"an old one"), ..good[2].clone() }),
        sign(&report("swiss", good[2].groups.clone())),
        sign(&report("ireland", good[2].groups.clone())),
        Envelope::sign(&good[2], "luxembourg", &key("french")),
    ];
    for third in bad {
        too_few(&[two[0].clone(), two[1].clone(), third], &mut bench);
    }
    assert_eq!(bench.ask("ireland", "1.1", DUE), Err(Refusal::Stale));
    recover(&mut bench, &good).unwrap();
}

#[test]
fn a_liar_s_huge_vote_or_retirement_is_left_out() {
    let mut bench = reading();
    let mut reports = others(&[state(vote("french", "3.2"), None)]);
    let huge = format!("{}.3", u64::MAX);
    reports[1].groups = vec![state(vote("german", &huge), Some(&huge))];
    recover(&mut bench, &reports).unwrap();
    assert_eq!(bench.record().vote, vote("french", "3.2"));
    assert_eq!(bench.record().retired, None);
}

#[test]
fn a_vote_with_another_site_s_number_is_left_out() {
    let mut bench = reading();
    let mut reports = others(&[state(vote("french", "3.2"), None)]);
    reports[1].groups = vec![state(vote("german", "9.1"), None)];
    recover(&mut bench, &reports).unwrap();
    assert_eq!(bench.record().vote, vote("french", "3.2"));
}

#[test]
fn a_vote_far_above_that_one_names_is_taken_with_a_certificate_only() {
    let mut bench = reading();
    recover(&mut bench, &far()).unwrap();
    assert_eq!(bench.record().vote, vote("ireland", "1.1"));

    let mut bench = reading();
    let mut reports = far();
    reports[0].proofs =
        vec![proof_of("french", &[entry("39.2")], BTreeMap::new(), &["french", "german", "luxembourg"])];
    recover(&mut bench, &reports).unwrap();
    assert_eq!(bench.record().vote, vote("french", "40.2"));
    assert_eq!(bench.record().certified, vote("french", "39.2"));
}

/// One of them names a vote that the others don't come near.
fn far() -> Vec<StateReport> {
    let mut reports = others(&[state(vote("ireland", "1.1"), None)]);
    reports[0].groups = vec![state(vote("french", "40.2"), None)];
    reports
}

#[test]
fn a_forged_certificate_helps_no_vote() {
    let mut bench = reading();
    let mut reports = far();
    let minority = proof_of("french", &[entry("39.2")], BTreeMap::new(), &["french", "german"]);
    let mut torn: Proof = proof_of("french", &[entry("39.2")], BTreeMap::new(), &["french", "german", "luxembourg"]);
    torn.entries = vec![entry("38.2")];
    reports[0].proofs = vec![minority, torn];
    recover(&mut bench, &reports).unwrap();
    assert_eq!(bench.record().vote, vote("ireland", "1.1"));
}

#[test]
fn it_takes_the_newest_plan_and_no_forged_one() {
    let mut bench = reading();
    let plan = |envelope| GroupState { plan: Some(envelope), ..state(None, None) };
    let mut reports = others(&[]);
    reports[0].groups = vec![plan(signed(&protected(4)))];
    reports[1].groups = vec![plan(Envelope::sign(&protected(9), "ireland", &key("german")))];
    let foreign = regent_core::plan::Plan { group: group("mail"), ..protected(8) };
    reports[2].groups = vec![plan(signed(&foreign))];
    recover(&mut bench, &reports).unwrap();
    assert_eq!(bench.witness.explain_group(&shop(), at(DUE)).unwrap().plan_version, Some(4));
}

#[test]
fn a_group_of_a_home_that_does_not_exist_is_left_out() {
    let mut bench = reading();
    let strange: GroupKey = "atlantis/shop".parse().unwrap();
    recover(&mut bench, &others(&[GroupState { group: strange.clone(), ..state(None, None) }])).unwrap();
    assert_eq!(bench.witness.explain_group(&strange, at(DUE)), None);
}

#[test]
fn a_recovery_whose_writes_failed_leaves_it_stale_and_it_reads_again() {
    let mut bench = reading();
    let envelopes: Vec<Envelope> = others(&[state(vote("french", "3.2"), None)]).iter().map(sign).collect();
    bench.witness.recover(&envelopes, None).unwrap();
    assert!(!bench.witness.conclude_recovery(at(DUE), &[shop()], None));
    assert_eq!(bench.ask("french", "3.2", DUE), Err(Refusal::Stale));
    assert!(matches!(bench.witness.recover(&envelopes, None), Err(RecoverError::NotBegun(_))));
    bench.witness.begin_recovery(at(DUE + 1), nonce()).unwrap();
    bench.witness.recover(&envelopes, None).unwrap();
    assert!(bench.witness.conclude_recovery(at(DUE + 1), &[], None));
    assert_eq!(bench.ask("french", "3.2", DUE + 1), Ok(()));
}

#[test]
fn incumbents_count_as_proven_when_it_recovered() {
    let mut bench = reading();
    recover(&mut bench, &others(&[state(vote("french", "3.2"), None)])).unwrap();
    assert_eq!(bench.ask("german", "4.3", DUE + LAPSE - 1), Err(Refusal::NoTrigger));
    assert_eq!(bench.ask("german", "4.3", DUE + LAPSE), Ok(()));
}

#[test]
fn a_tag_from_a_later_start_gives_a_restored_count_away() {
    let later = Bench::held().restart(5, START + P, Start::Restarted);
    let mut bench = Bench::held().restart(2, AGAIN, Start::Restarted);
    let mut later = later;
    let _ = later.query("ireland", "1.1", START + P);
    bench.tags = later.tags.clone();
    assert_eq!(bench.ask("ireland", "1.1", AGAIN + D), Err(Refusal::Stale));
    let expected = (at(AGAIN + D), WitnessEvent::Stale(StaleCause::TagOfLaterStart(5)));
    assert_eq!(bench.events(AGAIN + D), [expected]);
}

#[test]
fn such_a_tag_inside_a_proof_does_too_and_nothing_is_written() {
    let mut later = Bench::held().restart(5, START + P, Start::Restarted);
    let _ = later.query("ireland", "1.1", START + P);
    let mut bench = Bench::held().restart(2, AGAIN, Start::Restarted);
    bench.tags.clear();
    let tags: BTreeMap<SiteName, _> = BTreeMap::from([(site("swiss"), later.tags["ireland"].clone())]);
    let mut ask = bench.submission("ireland", Ask::Grant, &[entry("1.1")]);
    ask.proofs = vec![proof_of("ireland", &[entry("1.1")], tags, &["french", "german", "luxembourg"])];
    ask.plans = vec![signed(&protected(2))];
    let receipt = bench.witness.receive(at(AGAIN + D), &ask, None).unwrap();
    assert!(receipt.persists.is_empty());
    let grant = bench.witness.conclude(receipt, &[]);
    assert_eq!(grant.exception(&shop()).unwrap().reason, Refusal::Stale);
}

#[test]
fn a_forged_tag_of_a_later_start_makes_nobody_stale() {
    let mut config = config(9, START, Start::First);
    config.mac_key = MacKey([77; 32]);
    let mut forger = Bench::with(config, BTreeMap::new());
    let _ = forger.query("ireland", "1.1", START);
    let mut bench = Bench::held();
    bench.tags = forger.tags.clone();
    assert_eq!(bench.ask("ireland", "1.1", START + P), Ok(()));
}

#[test]
fn an_operator_may_say_that_the_state_was_restored() {
    let mut bench = Bench::held();
    bench.witness.turn_stale(at(START + P), StaleCause::SaidSo);
    assert_eq!(bench.ask("ireland", "1.1", START + P), Err(Refusal::Stale));
    // Its own promise to home runs on: it reads when that has ended.
    assert_eq!(bench.witness.recovery_due(), Some(at(START + P + D)));
}

#[test]
fn what_was_being_written_when_it_found_out_is_not_granted() {
    let mut bench = Bench::held();
    let ask = bench.submission("french", Ask::Grant, &[entry("2.2")]);
    let receipt = bench.witness.receive(at(START + LAPSE), &ask, None).unwrap();
    bench.witness.turn_stale(at(START + LAPSE), StaleCause::SaidSo);
    let grant = bench.witness.conclude(receipt, &[]);
    assert_eq!(grant.exception(&shop()).unwrap().reason, Refusal::Stale);
}

#[test]
fn a_write_that_ends_after_the_recovery_settles_nothing() {
    let mut bench = Bench::held();
    let ask = bench.submission("french", Ask::Grant, &[entry("2.2")]);
    let receipt = bench.witness.receive(at(START + LAPSE), &ask, None).unwrap();
    bench.witness.turn_stale(at(START + LAPSE), StaleCause::SaidSo);
    let due = START + LAPSE + D;
    bench.witness.begin_recovery(at(due), nonce()).unwrap();
    let reports: Vec<Envelope> = others(&[state(vote("german", "3.3"), None)]).iter().map(sign).collect();
    bench.witness.recover(&reports, None).unwrap();
    assert!(bench.witness.conclude_recovery(at(due), &[], None));
    let grant = bench.witness.conclude(receipt, &[]);
    assert_eq!(grant.exception(&shop()).unwrap().reason, Refusal::NotPersisted);
    assert_eq!(bench.witness.explain_group(&shop(), at(due)).unwrap().promise, None);
    assert_eq!(bench.ask("german", "3.3", due), Ok(()));
}

#[test]
fn a_sound_witness_reports_what_it_knows_and_a_stale_one_that_it_is() {
    let mut bench = Bench::held();
    bench.renew_proven("ireland", "1.1", START + P).unwrap();
    let report = bench.witness.report(nonce());
    assert_eq!((report.witness.clone(), report.nonce, report.stale), (site("swiss"), nonce(), false));
    assert_eq!(report.groups[0].vote, vote("ireland", "1.1"));
    assert_eq!(report.proofs.len(), 1, "the certificate that home showed");
    let sent = Envelope::sign(&report, "swiss", &key("swiss"));
    assert_eq!(sent.peek::<StateReport>().unwrap(), report);
    bench.witness.turn_stale(at(START + P), StaleCause::SaidSo);
    assert!(bench.witness.report(nonce()).stale);
}

#[test]
fn a_sound_witness_does_not_recover() {
    let mut bench = Bench::held();
    assert_eq!(bench.witness.recovery_due(), None);
    assert!(matches!(bench.witness.begin_recovery(at(DUE), nonce()), Err(RecoverError::NotStale(_))));
}

/// The same witness over an older copy of its objects, in another start.
fn set_back(bench: Bench, copy: BTreeMap<GroupKey, crate::witness::Record>) -> Bench {
    Bench { objects: copy, ..bench }.restart(2, AGAIN, Start::Restarted)
}

#[test]
fn a_copy_made_during_the_last_start_is_noticed_by_a_tag_of_later_writes() {
    let mut bench = Bench::held();
    let copy = bench.objects.clone();
    let unchanged = Bench { objects: copy.clone(), tags: bench.tags.clone(), ..Bench::held() };
    assert_eq!(bench.ask("french", "2.2", START + LAPSE), Ok(()));
    bench.query("ireland", "1.1", START + LAPSE).unwrap_err();
    let mut bench = set_back(bench, copy.clone());
    assert_eq!(bench.ask("ireland", "1.1", AGAIN + D), Err(Refusal::Stale));
    let expected = (at(AGAIN + D), WitnessEvent::Stale(StaleCause::TagOfLaterWrite(3)));
    assert_eq!(bench.events(AGAIN + D), [expected]);
    // Without a write since, an ordinary start.
    assert_eq!(set_back(unchanged, copy).ask("ireland", "1.1", AGAIN), Ok(()));
}

#[test]
fn once_it_has_recovered_tags_from_before_make_it_stale_no_more() {
    let mut bench = Bench::held();
    let copy = bench.objects.clone();
    assert_eq!(bench.ask("french", "2.2", START + LAPSE), Ok(()));
    let old = bench.tags.clone();
    let mut bench = set_back(bench, copy);
    bench.witness.turn_stale(at(AGAIN), StaleCause::SaidSo);
    bench.witness.begin_recovery(at(DUE), nonce()).unwrap();
    recover(&mut bench, &others(&[state(vote("french", "2.2"), None)])).unwrap();
    bench.tags = old.clone();
    assert_eq!(bench.ask("french", "2.2", DUE), Ok(()));
    let mut bench = bench.restart(3, DUE + P, Start::Restarted);
    bench.tags = old;
    assert_eq!(bench.ask("french", "2.2", DUE + P), Ok(()));
}

#[test]
fn within_one_boot_a_start_goes_on_only_with_those_it_answered_within_a_lease_before() {
    for (down, goes_on) in [(D - 1, true), (D, false)] {
        let mut bench = Bench::held();
        let mut config = config(2, START + down, Start::Restarted);
        config.boot = [1; 16];
        let tags = std::mem::take(&mut bench.tags);
        let mut bench = Bench { tags, ..Bench::with(config, bench.objects) };
        let answer = bench.ask("ireland", "1.1", START + down);
        assert_eq!(answer, if goes_on { Ok(()) } else { Err(Refusal::Waiting) }, "down for {down} ms");
        assert_eq!(bench.ask("ireland", "1.1", START + down + D), Ok(()), "what was promised before has ended");
    }
}

#[test]
fn a_record_that_was_set_back_under_a_living_witness_makes_it_stale() {
    let mut bench = Bench::held();
    let copy = bench.record().clone();
    assert_eq!(bench.ask("french", "2.2", START + LAPSE), Ok(()));
    // The next write fails its comparison, for the object is the old copy.
    let mut ask = bench.submission("french", Ask::Query { line: Line::Ready }, &[]);
    ask.plans = vec![signed(&protected(2))];
    let receipt = bench.witness.receive(at(START + LAPSE), &ask, None).unwrap();
    let _grant = bench.witness.conclude(receipt, &[shop()]);
    bench.witness.reload(at(START + LAPSE), &shop(), Some(copy));
    let expected = (at(START + LAPSE), WitnessEvent::Stale(StaleCause::SetBack(shop())));
    assert!(bench.events(START + LAPSE).contains(&expected));
    assert_eq!(bench.ask("ireland", "1.1", START + LAPSE), Err(Refusal::Stale));
}

/// Those who report it have restarted, so that nobody shows a certificate any more.
#[test]
fn a_vote_that_more_than_f_name_comes_back_however_high_it_is() {
    let mut bench = Bench::with(config(2, AGAIN, Start::Stale), BTreeMap::new());
    bench.witness.begin_recovery(at(DUE), nonce()).unwrap();
    let mut reports = others(&[state(vote("french", "200.2"), Some("199.1"))]);
    let huge = format!("{}.3", u64::MAX);
    // One liar, who names the group as often as it likes.
    reports[2].groups = vec![state(vote("german", &huge), Some(&huge)); 3];
    recover(&mut bench, &reports).unwrap();
    assert_eq!(bench.record().vote, vote("french", "200.2"));
    assert_eq!(bench.record().retired.as_ref().unwrap().epoch, epoch("199.1"));
}

#[test]
fn a_stale_leader_reads_no_earlier_than_any_new_leader_gives() {
    let lease = std::time::Duration::from_millis(8_000);
    let mut config = config(2, AGAIN, Start::Stale);
    config.lead = Some(LeadTerm { answers_for: std::time::Duration::from_millis(5_000), lease });
    let bench = Bench::with(config, Bench::held().objects);
    assert_eq!(bench.witness.recovery_due(), Some(at(AGAIN + 8_000 + D)));
}
