//! L11 and L4.5: from asking to holding, and giving up.

use super::*;

#[test]
fn l11_a_new_group_s_home_asks_before_it_votes_and_its_first_epoch_has_term_1() {
    let mut desk = Desk::of("ie", Protection::Observed, Trigger::Automatic, Readiness::All);
    assert!(matches!(desk.newest().ask, Ask::Query { .. }));
    assert_eq!((desk.asked().as_str(), desk.newest().entries[0].state), ("1.1", Protection::Observed));
    assert_eq!(desk.newest().plans.len(), 1, "nobody is known to have the plan");
    desk.answer_all(10_010, yes());
    assert_eq!(desk.newest().ask, Ask::Grant);
    assert_eq!(desk.certified().len(), 0);
    let newest = desk.sent.len() - 1;
    desk.answer(10_020, newest, "fr", yes());
    desk.answer(10_020, newest, "de", yes());
    desk.answer(10_020, newest, "de", yes());
    assert_eq!(desk.certified().len(), 0, "one witness counts once");
    desk.answer(10_021, newest, "lu", yes());
    let certified = desk.certified();
    assert_eq!((certified.len(), certified[0].round.grants.len()), (1, 3));
    assert!(certified[0].round.verify(&desk.federation.charter.clone().into()).unwrap().is_granted(&group()));
    assert_eq!(desk.events().len(), 2, "eligible, and the certificate");
}

#[test]
fn l11_a_replica_that_starts_anew_joins_in_what_its_site_holds() {
    let mut desk = Desk::new("fr");
    let waiting = wait(Refusal::Waiting, 3000).voting("fr", "6.2");
    desk.answer_all(10_010, waiting);
    desk.tick(11_000);
    assert_eq!(desk.asked(), "6.2", "exactly its vote: a restarted witness grants nothing else");
    desk.answer_all(11_010, yes().voting("fr", "6.2"));
    assert_eq!((desk.newest().ask.clone(), desk.asked().as_str()), (Ask::Grant, "6.2"));
}

#[test]
fn l11_a_candidate_asks_again_when_the_qth_shortest_wait_has_passed_and_takes_two_round_trips() {
    let mut desk = Desk::new("fr");
    let votes = |s: Says| s.voting("ie", "1.1");
    for (witness, ms) in [("fr", 400), ("de", 100), ("ch", 300), ("lu", 9000)] {
        desk.answer(10_010, 0, witness, votes(wait(Refusal::NoTrigger, ms)));
    }
    let due = desk.contender.next_tick().unwrap();
    assert_eq!(due.boot_ns / 1_000_000, 10_402, "the third shortest, from when it was asked");
    desk.tick(10_300);
    assert_eq!(desk.sent.len(), 1);
    desk.tick(10_402);
    assert_eq!(desk.sent.len(), 2);
    for witness in ["fr", "de", "ch"] {
        assert_eq!(desk.newest().ask.clone(), Ask::Query { line: Line::Ready });
        desk.answer(10_410, 1, witness, votes(yes()));
    }
    assert_eq!((desk.newest().ask.clone(), desk.asked().as_str()), (Ask::Grant, "2.2"));
}

#[test]
fn at_the_lapse_the_best_ranked_site_asks_first_and_one_replica_of_it() {
    let asks_at = |site, stagger| {
        let mut desk = Desk::new(site);
        desk.contender.set_stagger(Duration::from_millis(stagger));
        desk.answer_all(10_010, wait(Refusal::NoTrigger, 300).voting("ie", "1.1"));
        desk.contender.next_tick().unwrap().boot_ns / 1_000_000
    };
    let first = asks_at("fr", 0);
    assert_eq!((asks_at("fr", 50), asks_at("de", 0)), (first + 50, first + 50));
}

#[test]
fn l11_an_answer_to_an_older_query_does_not_count_among_the_waits() {
    let mut desk = Desk::new("fr");
    desk.answer(10_010, 0, "lu", wait(Refusal::NoTrigger, 10));
    desk.tick(10_000 + P_MS);
    for witness in ["fr", "de"] {
        desk.answer(10_850, 1, witness, yes());
    }
    desk.answer(10_850, 1, "ch", wait(Refusal::NoTrigger, 200));
    assert_eq!(desk.contender.next_tick().unwrap().boot_ns / 1_000_000, 10_000 + P_MS + 202);
}

#[test]
fn l11_a_candidate_that_hears_fewer_than_a_quorum_does_not_wait_in_line() {
    let mut desk = Desk::new("fr");
    desk.answer(10_010, 0, "fr", no(Refusal::NoTrigger));
    desk.answer(10_010, 0, "de", no(Refusal::NoTrigger));
    desk.tick(10_000 + P_MS);
    assert_eq!(desk.newest().ask, Ask::Query { line: Line::Beside });
    desk.answer_all(10_850, no(Refusal::NoTrigger));
    desk.tick(10_000 + 2 * P_MS);
    assert_eq!(desk.newest().ask, Ask::Query { line: Line::Ready });
}

/// A standby whose attempt is granted by `granting` only.
fn failed_attempt(me: &'static str, granting: &[&str]) -> Desk {
    let mut desk = Desk::new(me);
    desk.answer_all(10_010, yes().voting("ie", "1.1"));
    assert_eq!(desk.role(10_010), RoleName::Attempting);
    let mut ms = 10_010;
    while ms < 25_050 {
        let newest = desk.sent.len() - 1;
        for witness in granting {
            desk.answer(ms + 5, newest, witness, yes());
        }
        ms += P_MS;
        desk.tick(ms);
    }
    desk
}

#[test]
fn l11_without_a_certificate_after_3_d_it_gives_up_silent_for_d_or_2_d_times_its_rank() {
    let mut desk = failed_attempt("fr", &["fr", "de"]);
    assert_eq!(desk.role(25_100), RoleName::Silent, "the best one pauses too");
    desk.tick(31_000);
    assert_eq!(desk.role(31_000), RoleName::Candidate);
    let mut desk = failed_attempt("de", &["fr", "de"]);
    assert_eq!(desk.role(25_100), RoleName::Silent);
    let sent = desk.sent.len();
    desk.tick(34_900);
    assert_eq!(desk.sent.len(), sent);
    desk.tick(36_000);
    desk.tick(36_001);
    assert_eq!(desk.role(36_001), RoleName::Candidate);
    assert!(desk.sent.len() > sent);
}

#[test]
fn l11_a_witness_that_says_yes_and_does_not_grant_is_left_out_for_d_and_then_twice_as_long() {
    let mut desk = failed_attempt("fr", &["fr", "de"]);
    let left_out = |d: &Desk, ms: u64, w: &str| d.contender.status(at_ms(ms))[0].witnesses[&site(w)].left_out_ms;
    assert!(left_out(&desk, 25_100, "ch").is_some_and(|ms| ms <= 5000) && left_out(&desk, 25_100, "fr").is_none());
    desk.tick(31_000);
    desk.answer_all(31_010, yes().voting("ie", "1.1"));
    assert_eq!(desk.role(31_010), RoleName::Attempting);
    desk.tick(46_100);
    assert!(left_out(&desk, 46_100, "ch").is_some_and(|ms| ms > 9000));
    // Its pause of D is over; theirs are not.
    desk.tick(52_000);
    desk.answer_all(52_010, yes().voting("ie", "1.1"));
    assert_eq!(desk.role(52_010), RoleName::Candidate, "two that don't count leave two");
}

/// Two witnesses would grant, one answers and refuses, one doesn't: a liar and a cut link, or
/// two brakes.
#[test]
fn l11_a_candidate_without_a_quorum_for_3_d_stands_aside_and_still_takes_what_a_quorum_offers() {
    let mut desk = Desk::new("fr");
    let line_of = |d: &Desk| d.newest().ask.clone();
    let mut ms = 10_000;
    let mut round = |desk: &mut Desk, until: u64| {
        while ms < until {
            for witness in ["fr", "de"] {
                desk.answer(ms + 5, desk.sent.len() - 1, witness, yes().voting("ie", "1.1"));
            }
            desk.answer(ms + 5, desk.sent.len() - 1, "lu", no(Refusal::NoTrigger));
            ms += P_MS;
            desk.tick(ms);
        }
    };
    round(&mut desk, 24_900);
    assert_eq!(line_of(&desk), Ask::Query { line: Line::Ready });
    round(&mut desk, 27_000);
    assert_eq!(line_of(&desk), Ask::Query { line: Line::Beside });
    let newest = desk.sent.len() - 1;
    for witness in ["fr", "de", "ch"] {
        desk.answer(27_100, newest, witness, yes().voting("ie", "1.1"));
    }
    assert_eq!(desk.role(27_100), RoleName::Attempting);
}

#[test]
fn l11_a_certificate_resets_who_is_left_out() {
    let mut desk = failed_attempt("fr", &["fr", "de"]);
    desk.tick(31_000);
    desk.answer_all(31_010, yes().voting("ie", "1.1"));
    desk.answer_all(31_020, yes());
    assert_eq!(desk.role(31_020), RoleName::Holder);
    assert!(desk.contender.status(at_ms(31_020))[0].witnesses.values().all(|w| w.left_out_ms.is_none()));
}

#[test]
fn l4_5_a_site_climbs_at_the_witness_that_lags_16_terms_at_a_time() {
    let mut desk = Desk::new("fr");
    let high = |s: Says| s.voting("de", "40.3");
    for witness in ["fr", "de", "ch"] {
        desk.answer(10_010, 0, witness, high(yes()));
    }
    assert_eq!((desk.newest().ask.clone(), desk.asked().as_str()), (Ask::Grant, "41.2"));
    let attempt = desk.sent.len() - 1;
    desk.answer(10_020, attempt, "lu", no(Refusal::TermLeap).voting("ie", "3.1"));
    assert_eq!((desk.newest().to.clone(), desk.asked().as_str()), (vec![site("lu")], "19.2"));
    desk.answer(10_030, attempt + 1, "lu", yes());
    assert_eq!((desk.newest().to.clone(), desk.asked().as_str()), (vec![site("lu")], "35.2"));
    desk.answer(10_040, attempt + 2, "lu", yes());
    assert_eq!((desk.newest().to.len(), desk.asked().as_str()), (4, "41.2"));
    // A witness that calls a step a leap lies, and is not asked again for it.
    let sent = desk.sent.len();
    desk.answer(10_050, sent - 1, "lu", no(Refusal::TermLeap).voting("ie", "3.1"));
    desk.answer(10_060, sent, "lu", no(Refusal::TermLeap).voting("ie", "3.1"));
    assert_eq!(desk.sent.len(), sent + 1);
}

#[test]
fn a_busy_witness_is_asked_again_at_once_and_each_time_later() {
    let mut desk = Desk::new("fr");
    desk.answer_all(10_010, yes().voting("ie", "1.1"));
    desk.answer_all(10_020, no(Refusal::Busy));
    let sent = desk.sent.len();
    assert_eq!(desk.contender.next_tick().unwrap().boot_ns / 1_000_000, 10_028);
    desk.tick(10_028);
    assert_eq!(desk.sent.len(), sent + 1);
}

#[test]
fn a_staggered_replica_leaves_acquiring_to_the_other_for_a_moment() {
    let mut desk = Desk::new("fr");
    desk.contender.set_stagger(Duration::from_millis(50));
    desk.answer_all(10_010, yes().voting("ie", "1.1"));
    assert!(matches!(desk.newest().ask, Ask::Query { .. }));
    desk.tick(10_060);
    assert_eq!(desk.newest().ask, Ask::Grant);
}

#[test]
fn a_standby_does_not_ask_before_the_group_is_protected() {
    let desk = Desk::of("fr", Protection::Observed, Trigger::Automatic, Readiness::All);
    assert_eq!((desk.sent.len(), desk.contender.status(at_ms(10_000))[0].idle), (0, Some(IdleReason::NotProtectedYet)));
}

#[test]
fn without_approval_or_readiness_a_standby_asks_out_of_line_and_takes_nothing_over() {
    for (trigger, readiness) in [(Trigger::Approval, Readiness::All), (Trigger::Automatic, Readiness::None)] {
        let mut desk = Desk::of("fr", Protection::Protected, trigger, readiness);
        desk.answer_all(10_010, yes().voting("ie", "1.1"));
        desk.tick(10_000 + P_MS);
        desk.answer_all(10_850, yes().voting("ie", "1.1"));
        assert_eq!(desk.newest().ask, Ask::Query { line: Line::Beside });
        assert_eq!(desk.role(10_850), RoleName::Candidate);
        let plan = desk.federation.verified(&desk.federation.plan(1, Protection::Protected, trigger));
        desk.contender.set_plans(vec![GroupInput { plan, approved: true, readiness: Readiness::All }]);
        desk.contender.nudge(&group());
        desk.tick(10_860);
        desk.answer_all(10_870, yes().voting("ie", "1.1"));
        assert_eq!(desk.newest().ask, Ask::Grant);
    }
}

#[test]
fn a_standby_that_holds_needs_no_approval_to_go_on_after_a_restart() {
    let mut desk = Desk::of("fr", Protection::Protected, Trigger::Approval, Readiness::None);
    desk.answer_all(10_010, wait(Refusal::Waiting, 100).voting("fr", "2.2"));
    desk.tick(11_000);
    desk.answer_all(11_010, yes().voting("fr", "2.2"));
    assert_eq!((desk.newest().ask.clone(), desk.asked().as_str()), (Ask::Grant, "2.2"));
}
