//! A site that a newer plan leaves out, or whose country it forbids.

use super::*;

/// The two ways in which home drops France.
fn dropped(plan: &mut Plan, by_country: bool) {
    plan.version = 2;
    if by_country {
        plan.countries = vec!["IE".into(), "DE".into()];
    } else {
        plan.standbys = vec![site("de")];
    }
}

/// France, with a certificate for 2.2 that was asked for at 10010 ms.
fn france_holds() -> Desk {
    let mut desk = Desk::new("fr");
    desk.answer_all(10_010, yes().voting("ie", "1.1"));
    desk.answer_all(10_020, yes());
    assert_eq!((desk.role(10_020), desk.asked().as_str()), (RoleName::Holder, "2.2"));
    desk.out.clear();
    desk
}

/// France started anew after home dropped it.
fn starts_anew(by_country: bool) -> Desk {
    let federation = Federation::new();
    let contender = Contender::new(federation.charter.clone(), site("fr")).unwrap();
    let mut desk = Desk { federation, contender, me: "fr", next: 0, sent: Vec::new(), out: Vec::new() };
    desk.plan(Readiness::None, |p| dropped(p, by_country));
    desk.tick(10_000);
    desk
}

const WAYS: [(bool, HeldBack); 2] = [(false, HeldBack::NotInPlan), (true, HeldBack::UnlawfulCountry)];

#[test]
fn a_holder_that_the_plan_drops_goes_on_renewing_and_offers_the_newer_plan() {
    for (by_country, _) in WAYS {
        let mut desk = france_holds();
        desk.plan(Readiness::All, |p| dropped(p, by_country));
        desk.tick(11_000);
        assert_eq!(
            (desk.newest().ask.clone(), desk.asked().as_str(), desk.newest().plans.len()),
            (Ask::Grant, "2.2", 1)
        );
        desk.answer_all(11_010, yes());
        desk.tick(15_500);
        assert_eq!(desk.role(15_500), RoleName::Holder, "renewed at 11000");
        desk.tick(17_000);
        assert_eq!((desk.role(17_000), desk.asked().as_str()), (RoleName::RanOut, "2.2"));
    }
}

#[test]
fn l10_a_leaving_holder_raises_its_epoch_while_its_certificate_runs() {
    let mut desk = france_holds();
    desk.plan(Readiness::All, |p| dropped(p, false));
    desk.tick(11_000);
    let renewal = desk.sent.len() - 1;
    desk.answer(11_010, renewal, "lu", no(Refusal::HigherVote).voting("de", "3.3"));
    assert_eq!((desk.newest().ask.clone(), desk.asked().as_str()), (Ask::Grant, "4.2"));
}

#[test]
fn a_leaving_holder_that_is_overtaken_is_a_candidate_that_is_held_back() {
    let mut desk = france_holds();
    desk.plan(Readiness::All, |p| dropped(p, false));
    desk.tick(16_000);
    desk.answer_all(16_010, no(Refusal::NotInPlan).voting("de", "3.3"));
    assert_eq!((desk.role(16_010), desk.held_back(16_010)), (RoleName::Candidate, Some(HeldBack::NotInPlan)));
}

#[test]
fn l12_a_leaving_holder_releases_to_a_site_of_the_newer_plan_only() {
    let mut desk = france_holds();
    desk.plan(Readiness::All, |p| {
        dropped(p, false);
        p.standbys = vec![site("lu")];
    });
    let mut release = |to: &str| desk.contender.release(at_ms(10_100), &group(), epoch("2.2"), site(to)).err();
    assert_eq!(release("de"), Some(ReleaseError::NotInPlan(site("de"))));
    assert_eq!(release("lu"), None);
    assert_eq!(desk.role(10_100), RoleName::Releasing);
}

#[test]
fn a_replica_that_starts_anew_where_the_site_was_dropped_joins_in_what_its_site_holds() {
    for (by_country, why) in WAYS {
        let mut desk = starts_anew(by_country);
        assert_eq!((desk.newest().ask.clone(), desk.held_back(10_000)), (Ask::Query { line: Line::Beside }, Some(why)));
        desk.answer_all(10_010, wait(Refusal::Waiting, 100).voting("fr", "6.2"));
        assert_eq!(desk.held_back(10_010), None, "the witnesses' votes are its own");
        desk.tick(11_000);
        assert_eq!(desk.asked(), "6.2");
        desk.answer_all(11_010, yes().voting("fr", "6.2"));
        assert_eq!((desk.newest().ask.clone(), desk.asked().as_str()), (Ask::Grant, "6.2"));
    }
}

#[test]
fn one_witness_s_higher_vote_does_not_keep_a_restarted_holder_from_going_on() {
    let mut desk = starts_anew(false);
    for witness in ["fr", "de", "ch"] {
        desk.answer(10_010, 0, witness, yes().voting("fr", "6.2"));
    }
    desk.answer(10_010, 0, "lu", no(Refusal::NotInPlan).voting("de", "7.3"));
    assert_eq!(desk.newest().ask, Ask::Grant);
}

#[test]
fn a_site_outside_the_plan_acquires_nothing_that_is_not_its_own_whoever_says_yes() {
    for (by_country, why) in WAYS {
        let votes = [("ie", "1.1"), ("de", "7.3")];
        for (voted, epoch) in votes {
            let mut desk = starts_anew(by_country);
            desk.answer_all(10_010, yes().voting(voted, epoch));
            desk.tick(10_000 + P_MS);
            desk.answer_all(10_850, yes().voting(voted, epoch));
            assert_eq!(
                (desk.newest().ask.clone(), desk.role(10_850)),
                (Ask::Query { line: Line::Beside }, RoleName::Candidate)
            );
            assert_eq!(desk.held_back(10_850), Some(why));
        }
    }
}

#[test]
fn what_was_its_own_and_is_retired_is_not_asked_for_again() {
    let mut desk = starts_anew(false);
    desk.answer_all(10_010, no(Refusal::NotInPlan).voting("fr", "6.2"));
    desk.tick(10_000 + P_MS);
    assert_eq!(desk.asked(), "6.2");
    desk.answer_all(10_850, no(Refusal::Retired).voting("fr", "6.2"));
    assert_eq!(desk.held_back(10_850), Some(HeldBack::NotInPlan));
    desk.tick(10_000 + 2 * P_MS);
    assert_eq!(desk.newest().ask, Ask::Query { line: Line::Beside });
}
