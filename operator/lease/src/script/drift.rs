//! Votes that have drifted apart, as a witness that lied for a while leaves them behind.

use super::*;

const T0: u64 = 100_000;

/// One witness is silent; the votes of the three others are `ahead` terms apart. When the
/// next certificate came, in milliseconds, and what is asked for at the end.
fn drifted(ahead: u64) -> (Option<u64>, BTreeSet<String>) {
    let mut script = Script::new(T0);
    let p = plan("ie/shop", 1, 0);
    script.join("ie", 0, std::slice::from_ref(&p));
    script.run_until(T0 + 3_000);
    script.contenders.clear();
    for (v, term) in [("fr", 24), ("de", 24 + ahead), ("lu", 24)] {
        let record = script.voter(v).objects.get_mut(&group("ie/shop")).unwrap();
        record.vote = Some(Vote { site: site("ie"), epoch: Epoch { term, site: 1 } });
        script.start(v, Start::Restarted);
    }
    script.voter("ch").witness = None;
    for s in ["ie", "fr", "de"] {
        script.join(s, 0, std::slice::from_ref(&p));
        script.join(s, 1, std::slice::from_ref(&p));
    }
    let from = script.now;
    script.run_until(from + 400_000);
    assert_eq!(script.violations().first(), None);
    let asks = script.requests.iter().rev().take(12).map(|(_, s, r)| format!("{s}:{}", r.entries[0].epoch));
    (script.certs.iter().find(|c| c.at > from).map(|c| c.at - from), asks.collect())
}

#[test]
fn votes_that_one_request_can_bridge_find_a_holder() {
    let (ms, asks) = drifted(15);
    assert!(ms.is_some_and(|ms| ms < 41 * P_MS), "{ms:?} {asks:?}");
}

#[test]
fn votes_far_apart_find_a_holder_with_all_links_up() {
    for ahead in [17, 32] {
        let (ms, asks) = drifted(ahead);
        assert!(ms.is_some_and(|ms| ms < 41 * P_MS), "{ahead} terms: {ms:?}; they ask for {asks:?}");
    }
    // Each attempt climbs further, and leaves out for longer who said yes and couldn't grant.
    let (ms, asks) = drifted(100);
    assert!(ms.is_some(), "{asks:?}");
}
