//! Brakes hit what they are for (L14).

use super::*;
use crate::contender::ReleaseEvent;
use regent_core::charter::Interlock;

const T0: u64 = 100_000;

fn braked(changes_per_group_hour: u32, changes_per_party_hour: u32) -> Script {
    let mut f = Federation::new();
    f.charter.interlock = Interlock { changes_per_group_hour, changes_per_party_hour };
    Script::with(f, T0)
}

/// A planned move of ie/shop; no node runs it here.
fn hand_over(script: &mut Script, from: &'static str, to: &'static str) {
    let g = group("ie/shop");
    let held = script.certs.iter().rev().find(|c| c.site == from).unwrap().epoch;
    script.run_contender((from, 0), |c, now| c.release(at_ms(now), &g, held, site(to)).unwrap_or_default());
    let closed = ReleaseEvent::ListClosed(BTreeSet::new());
    script.run_contender((from, 0), |c, now| c.on_release_event(at_ms(now), &g, closed).unwrap_or_default());
}

/// 61 groups, one of which waits for 3 s longer than the others, so that they have changed
/// hands when it could.
#[test]
fn the_loss_of_a_party_with_many_groups_trips_no_brake() {
    let mut script = braked(4, Interlock::default().changes_per_party_hour);
    let mut plans: Vec<Plan> = (0..60).map(|i| plan(&format!("ie/g{i}"), 1, 0)).collect();
    plans.push(plan("ie/late", 1, 3_000));
    script.join("ie", 0, &plans);
    script.run_until(T0 + 5_000);
    script.join("fr", 0, &plans);
    script.run_until(T0 + 15_000);
    script.isolate("ie");
    script.run_until(T0 + 60_000);
    let taken: BTreeSet<GroupKey> = script.certs.iter().filter(|c| c.site == "fr").map(|c| c.group.clone()).collect();
    assert_eq!(script.violations().first(), None);
    assert_eq!(taken.len(), 61, "ie/late: {:?}", script.explain("ch", "ie/late").claimants);
}

/// Two moves there and back within the hour; witness ch was away during the first, lu during
/// the second. So fr and de brake, ch and lu don't.
#[test]
fn two_witnesses_that_brake_and_two_that_don_t_find_a_holder_again() {
    let mut script = braked(4, 10_000);
    let p = plan("ie/shop", 1, 0);
    script.join("ie", 0, std::slice::from_ref(&p));
    script.run_until(T0 + 3_000);
    script.join("fr", 0, &[p]);
    script.run_until(T0 + 6_000);
    for away in ["ch", "lu"] {
        script.isolate(away);
        for (from, to) in [("ie", "fr"), ("fr", "ie")] {
            let t = script.now;
            script.run_until(t + 3_000);
            hand_over(&mut script, from, to);
            script.run_until(t + 10_000);
            assert_eq!(script.role((to, 0), "ie/shop"), Some(RoleName::Holder));
        }
        // By then nobody shows the certificates of this trip any more.
        let t = script.now;
        script.run_until(t + 20_000);
        script.cut.clear();
        script.run_until(t + 30_000);
    }
    assert_eq!(VOTERS.map(|v| script.explain(v, "ie/shop").changes_this_hour), [4, 4, 2, 2]);
    // Home pauses for longer than a lapse, and comes back. Nothing has changed hands.
    script.isolate("ie");
    let t = script.now;
    script.run_until(t + 15_000);
    script.cut.clear();
    let healed = script.now;
    script.run_until(healed + 120_000);
    let back = script.certs.iter().find(|c| c.at > healed).map(|c| c.at - healed);
    let why = |v| script.explain(v, "ie/shop").claimants;
    assert!(back.is_some_and(|ms| ms < 41 * P_MS), "{back:?}; fr says {:?}, ch says {:?}", why("fr"), why("ch"));
}

#[test]
fn a_move_that_a_brake_would_hold_is_refused_before_the_old_side_is_stopped() {
    let mut script = braked(1, 10_000);
    let p = plan("ie/shop", 1, 5_000);
    script.join("ie", 0, std::slice::from_ref(&p));
    script.run_until(T0 + 3_000);
    script.join("fr", 0, &[p]);
    script.run_until(T0 + 6_000);
    hand_over(&mut script, "ie", "fr");
    script.run_until(T0 + 15_000);
    assert_eq!(script.role(("fr", 0), "ie/shop"), Some(RoleName::Holder));
    let from = script.now;
    hand_over(&mut script, "fr", "ie");
    script.run_until(from + 60_000);
    assert_eq!(script.gaps("fr", "ie/shop", from, from + 55_000), vec![], "fr goes on");
}
