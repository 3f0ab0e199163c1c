//! A witness whose state was set back, or that lost it (L8).

use super::*;

const T0: u64 = 100_000;

/// lu lies and grants everything, so that fr, de and lu certify fr, which ch never hears of.
/// Then de's objects are a copy from before, and it starts as its shell says. Home is back
/// except to fr, and fr can't reach de.
fn set_back(how: Start) -> Vec<String> {
    let mut script = Script::new(T0);
    let p = plan("ie/shop", 1, 0);
    script.join("ie", 0, std::slice::from_ref(&p));
    script.run_until(T0 + 5_000);
    script.voter("lu").liar = Some(|_, _, _, _| {});
    let backup = script.voters["de"].objects.clone();
    script.isolate("ie");
    script.cut.insert(("fr", "ch"));
    script.join("fr", 0, &[p]);
    script.run_until(T0 + 30_000);
    assert_eq!(script.role(("fr", 0), "ie/shop"), Some(RoleName::Holder));
    assert_eq!(script.voters["de"].objects[&group("ie/shop")].vote, Some(vote("fr", "2.2")));
    script.voter("de").objects = backup;
    script.start("de", how);
    script.cut.clear();
    for cut in [("ie", "fr"), ("fr", "ie"), ("fr", "de"), ("fr", "ch")] {
        script.cut.insert(cut);
    }
    script.run_until(T0 + 33_000);
    script.violations()
}

/// A copy that was made during its last start says neither by its count of starts nor by a tag
/// of anybody who asks that it is one.
#[test]
fn a_witness_that_was_set_back_makes_no_second_holder_whether_or_not_it_can_know() {
    for how in [Start::Restarted, Start::Stale] {
        let violations = set_back(how);
        assert_eq!(violations.iter().find(|v| v.starts_with("I1")), None, "{how:?}");
    }
}
