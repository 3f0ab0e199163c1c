//! A standby that is not ready lets a ready one of lower rank go first.

use super::*;
use regent_core::plan::WhenNotReady;

/// A standby that has heard that home lapses in 300 ms, with this readiness.
fn standby(me: &'static str, readiness: Readiness, when_not_ready: WhenNotReady) -> Desk {
    let mut desk = Desk::of(me, Protection::Protected, Trigger::Automatic, readiness);
    desk.plan(readiness, |p| (p.version, p.when_not_ready) = (2, when_not_ready));
    desk.answer_all(10_010, no(Refusal::NoTrigger).voting("ie", "1.1"));
    desk.tick(10_000 + P_MS);
    desk.answer_all(10_850, wait(Refusal::NoTrigger, 300).voting("ie", "1.1"));
    desk
}

fn lapse() -> u64 {
    10_000 + P_MS + 302
}

#[test]
fn the_query_says_how_a_standby_stands() {
    use WhenNotReady as W;
    let table = [
        (Readiness::All, W::Hold, Line::Ready, None),
        (Readiness::All, W::Degraded, Line::Ready, None),
        (Readiness::Some, W::Hold, Line::Beside, Some(HeldBack::NotReady)),
        (Readiness::Some, W::Degraded, Line::Degraded, None),
        (Readiness::None, W::Hold, Line::Beside, Some(HeldBack::NotReady)),
        (Readiness::None, W::Degraded, Line::Beside, Some(HeldBack::NotReady)),
    ];
    for (readiness, when, line, why) in table {
        let desk = standby("fr", readiness, when);
        assert_eq!(desk.newest().ask, Ask::Query { line }, "{readiness:?} {when:?}");
        assert_eq!(desk.held_back(10_850), why, "{readiness:?} {when:?}");
    }
}

#[test]
fn at_a_lapse_a_ready_standby_of_lower_rank_asks_within_100_ms_and_a_degraded_one_after_it() {
    let asks_at = |me, readiness| {
        let desk = standby(me, readiness, WhenNotReady::Degraded);
        desk.contender.next_tick().unwrap().boot_ns / 1_000_000 - lapse()
    };
    assert_eq!((asks_at("fr", Readiness::All), asks_at("de", Readiness::All)), (0, 50));
    // Behind two standbys and home.
    assert_eq!((asks_at("fr", Readiness::Some), asks_at("de", Readiness::Some)), (150, 200));
}

#[test]
fn a_degraded_standby_acquires_when_a_quorum_would_grant_to_it_as_it_stands() {
    let mut desk = standby("fr", Readiness::Some, WhenNotReady::Degraded);
    desk.tick(lapse() + 150);
    assert_eq!(desk.newest().ask, Ask::Query { line: Line::Degraded });
    desk.answer_all(lapse() + 160, yes().voting("ie", "1.1"));
    assert_eq!((desk.newest().ask.clone(), desk.asked().as_str()), (Ask::Grant, "2.2"));
}

#[test]
fn what_was_said_to_a_ready_or_an_unheard_standby_is_no_yes_to_a_degraded_one() {
    // Its first query stands beside the line, where nobody is before it.
    let mut desk = Desk::of("fr", Protection::Protected, Trigger::Automatic, Readiness::Some);
    desk.plan(Readiness::Some, |p| (p.version, p.when_not_ready) = (2, WhenNotReady::Degraded));
    desk.answer_all(10_010, yes().voting("ie", "1.1"));
    assert_eq!(desk.role(10_010), RoleName::Candidate);
    desk.tick(10_000 + P_MS);
    assert_eq!(desk.newest().ask, Ask::Query { line: Line::Degraded });
    desk.answer_all(10_850, yes().voting("ie", "1.1"));
    assert_eq!(desk.newest().ask, Ask::Grant);
}

#[test]
fn with_hold_nobody_takes_over_what_is_not_ready() {
    for me in ["fr", "de"] {
        for readiness in [Readiness::None, Readiness::Some] {
            let mut desk = standby(me, readiness, WhenNotReady::Hold);
            desk.tick(lapse() + 500);
            desk.answer_all(lapse() + 510, yes().voting("ie", "1.1"));
            assert_eq!(desk.role(lapse() + 510), RoleName::Candidate);
            assert_eq!(desk.newest().ask, Ask::Query { line: Line::Beside });
        }
    }
}

#[test]
fn a_standby_that_becomes_ready_stands_in_line_with_its_next_query() {
    let mut desk = standby("fr", Readiness::None, WhenNotReady::Degraded);
    desk.plan(Readiness::All, |p| (p.version, p.when_not_ready) = (2, WhenNotReady::Degraded));
    desk.tick(10_000 + 2 * P_MS);
    assert_eq!(desk.newest().ask, Ask::Query { line: Line::Ready });
}

#[test]
fn what_a_site_holds_it_goes_on_with_however_ready_it_is() {
    for readiness in [Readiness::None, Readiness::Some] {
        let mut desk = Desk::of("fr", Protection::Protected, Trigger::Automatic, readiness);
        desk.answer_all(10_010, yes().voting("fr", "6.2"));
        assert_eq!((desk.newest().ask.clone(), desk.asked().as_str()), (Ask::Grant, "6.2"), "{readiness:?}");
    }
}
