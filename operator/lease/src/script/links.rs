//! Holders that reach some of the witnesses only (L5, L10).

use super::*;

const T0: u64 = 100_000;

/// fr, the better standby, holds; then it reaches these witnesses and its own only. Home
/// stays cut off, or comes back whole. When another had a certificate first, in milliseconds,
/// whether one has it at the end without a gap, and how the witnesses explain it.
fn partial_holder(reaches: &[&'static str], back: bool) -> (Option<u64>, bool, String) {
    let mut script = Script::held_at_home(T0);
    script.isolate("ie");
    script.run_until(T0 + 40_000);
    assert_eq!(script.role(("fr", 0), "ie/shop"), Some(RoleName::Holder));
    if back {
        script.cut.clear();
    }
    for w in VOTERS.into_iter().filter(|w| *w != "fr" && !reaches.contains(w)) {
        script.cut_link("fr", w);
    }
    let cut = script.now;
    script.run_until(cut + 400_000);
    assert_eq!(script.violations().first(), None);
    let other = script.certs.iter().find(|c| c.at > cut && c.site != "fr").map(|c| c.at - cut);
    let lasting = ["ie", "de"].iter().any(|s| script.gaps(s, "ie/shop", cut + 380_000, cut + 395_000).is_empty());
    let why = VOTERS.map(|v| {
        let claimants = script.explain(v, "ie/shop").claimants;
        claimants.into_iter().map(|c| format!("{v}: {} {:?}", c.site, c.refusal)).collect::<Vec<_>>().join(", ")
    });
    (other, lasting, why.join("; "))
}

#[test]
fn a_holder_that_reaches_too_few_witnesses_is_taken_over_by_a_standby_that_reaches_all() {
    for reaches in [&[] as &[&str], &["de"]] {
        let (other, lasting, why) = partial_holder(reaches, false);
        assert!(other.is_some_and(|ms| ms < 82 * P_MS) && lasting, "reaches {reaches:?}: {other:?}; {why}");
    }
}

#[test]
fn nor_does_it_keep_a_whole_home_from_its_group() {
    let (other, lasting, why) = partial_holder(&["ch"], true);
    assert!(other.is_some_and(|ms| ms < 82 * P_MS) && lasting, "{other:?}; {why}");
}
