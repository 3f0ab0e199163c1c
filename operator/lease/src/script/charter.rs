//! What a charter that is changed may not do while versions can't be changed in order (L17).

use super::*;

const T0: u64 = 100_000;

/// Every site is given a version with a shorter D; the roll-out at home hangs.
#[test]
fn a_new_charter_with_a_shorter_d_makes_no_witness_forget_its_promises() {
    let mut f = Federation::new();
    f.charter.lease_duration_ms = 10_000;
    let mut script = Script::with(f, T0);
    let p = plan("ie/shop", 1, 0);
    script.join("ie", 0, std::slice::from_ref(&p));
    script.run_until(T0 + 5_000);
    script.f.charter.version = 2;
    script.f.charter.lease_duration_ms = 1_000;
    for v in VOTERS {
        script.voter(v).charter = script.f.charter.clone();
        script.start(v, Start::Restarted);
    }
    script.join("fr", 0, &[p]);
    script.run_until(T0 + 30_000);
    assert_eq!(script.violations().first(), None);
    for v in VOTERS {
        let refused = script.voters[v].refused.as_ref().map(ToString::to_string);
        assert!(refused.is_some_and(|why| why.contains("give it back the one that it had")), "{v}");
    }
}
