//! A vote that lost: an attempt that one witness granted and the others didn't.

use super::*;

const T0: u64 = 100_000;

/// de, a standby, was granted by its own witness only while home was away for a moment. Home
/// is back, holds by the other three, and shows its certificate with each request.
fn lost_vote() -> Script {
    let mut script = Script::new(T0);
    let p = plan("ie/shop", 1, 0);
    script.join("ie", 0, std::slice::from_ref(&p));
    script.run_until(T0 + 3_000);
    script.join("de", 0, std::slice::from_ref(&p));
    script.run_until(T0 + 6_000);
    script.isolate("ie");
    while script.role(("de", 0), "ie/shop") != Some(RoleName::Attempting) {
        let t = script.now;
        script.run_until(t + 1);
    }
    // At this moment home comes back, and de loses its links for three seconds.
    script.cut.clear();
    script.isolate("de");
    let t = script.now;
    script.run_until(t + 3_000);
    script.cut.clear();
    script.join("fr", 0, &[p]);
    script.run_until(t + 60_000);
    assert_eq!(script.violations().first(), None);
    assert_eq!(script.role(("ie", 0), "ie/shop"), Some(RoleName::Holder));
    script
}

/// Although standbys ask "would you grant?" each P, as they always do.
#[test]
fn a_witness_whose_vote_lost_comes_back_to_the_certified_holder() {
    let view = lost_vote().explain("de", "ie/shop");
    let ie = view.claimants.iter().find(|c| c.site == site("ie")).unwrap();
    assert_eq!((view.vote.unwrap().site.as_str(), ie.refusal), ("ie", None), "12 D later; line {:?}", view.line);
}

#[test]
fn home_survives_the_loss_of_one_other_witness_then() {
    let mut script = lost_vote();
    let from = script.now;
    script.voter("ch").witness = None;
    script.run_until(from + 60_000);
    let moved = script.certs.iter().find(|c| c.at > from && c.site != "ie").map(|c| (c.at - from, c.site));
    assert_eq!((moved, script.gaps("ie", "ie/shop", from, from + 55_000)), (None, vec![]));
}
