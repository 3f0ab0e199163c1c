//! L14 and L4.8: brakes count certified changes, and stop no holder.

use std::collections::BTreeMap;

use super::support::*;
use crate::witness::{Config, Start};
use regent_core::charter::Interlock;
use regent_core::message::{Ask, Line, Refusal};
use regent_core::plan::Plan;

const HOUR: u64 = 3_600_000;
const QUORUM: [&str; 3] = ["french", "german", "luxembourg"];

fn limited(group: u32, party: u32) -> Bench {
    let mut charter = charter();
    charter.interlock = Interlock { changes_per_group_hour: group, changes_per_party_hour: party };
    let mut bench = Bench::with(Config { charter, ..config(1, START, Start::First) }, BTreeMap::new());
    bench.register(START, &signed(&protected(1)));
    certified(&mut bench, "ireland", "1.1", START);
    bench
}

/// `name` asks for `at`, which it can, and shows the certificate.
fn certified(bench: &mut Bench, name: &str, at: &str, ms: u64) {
    bench.ask(name, at, ms).unwrap();
    bench.renew_proven(name, at, ms + 1).unwrap();
}

/// The holder hands over to `to` by a planned move.
fn hand_over(bench: &mut Bench, from: (&str, &str), to: &str, ms: u64) {
    bench.tell(from.0, retire(from.1, to), ms).unwrap();
    bench.tell(from.0, release(from.1), ms).unwrap();
}

#[test]
fn a_change_above_the_group_s_rate_waits_until_the_rate_allows_it() {
    let mut bench = limited(2, 50);
    hand_over(&mut bench, ("ireland", "1.1"), "french", START + 10);
    certified(&mut bench, "french", "2.2", START + 10);
    hand_over(&mut bench, ("french", "2.2"), "ireland", START + 20);
    certified(&mut bench, "ireland", "3.1", START + 20);
    hand_over(&mut bench, ("ireland", "3.1"), "french", START + 30);
    // Two within the hour: the third waits for the first to age out (shown at START + 11).
    let wait = HOUR - 19;
    assert_eq!(bench.query("french", "4.2", START + 30), Err((Refusal::Interlock, Some(wait))));
    assert_eq!(bench.ask("french", "4.2", START + 11 + HOUR - 1), Err(Refusal::Interlock));
    assert_eq!(bench.ask("french", "4.2", START + 11 + HOUR), Ok(()));
}

#[test]
fn a_brake_never_stops_the_holder_nor_its_own_higher_epoch() {
    let mut bench = limited(1, 50);
    hand_over(&mut bench, ("ireland", "1.1"), "french", START + 10);
    certified(&mut bench, "french", "2.2", START + 10);
    assert_eq!(bench.renew_proven("french", "2.2", START + P), Ok(()));
    assert_eq!(bench.ask("french", "3.2", START + P), Ok(()));
    hand_over(&mut bench, ("french", "3.2"), "german", START + P);
    assert_eq!(bench.ask("german", "4.3", START + P), Err(Refusal::Interlock));
    assert_eq!(bench.ask("french", "4.2", START + P + 2 * D), Ok(()), "nothing changes hands");
}

#[test]
fn a_claimant_that_a_brake_holds_does_not_keep_the_last_holder_from_the_group() {
    let mut bench = limited(1, 50);
    hand_over(&mut bench, ("ireland", "1.1"), "german", START + 10);
    certified(&mut bench, "german", "2.3", START + 10);
    // German pauses for longer than a lapse; French, of better rank, waits and is held.
    let late = START + 2 * LAPSE;
    assert!(matches!(bench.query("french", "3.2", late), Err((Refusal::Interlock, Some(_)))));
    assert_eq!(bench.ask("german", "2.3", late), Ok(()));
}

#[test]
fn what_is_granted_without_a_certificate_counts_for_nothing() {
    let mut bench = limited(1, 1);
    let mut t = START + LAPSE;
    // Votes change hands without anybody getting a quorum, and trip nothing.
    for term in 2..9 {
        let name = if term % 2 == 0 { "french" } else { "german" };
        assert_eq!(bench.ask(name, &format!("{term}.{}", number(name)), t), Ok(()));
        t += D;
    }
    assert_eq!(bench.witness.explain_group(&shop(), at(t)).unwrap().changes_this_hour, 0);
}

#[test]
fn the_same_certificate_shown_again_and_again_counts_once() {
    let mut bench = limited(2, 50);
    hand_over(&mut bench, ("ireland", "1.1"), "french", START + 10);
    certified(&mut bench, "french", "2.2", START + 10);
    for t in 1..20 {
        bench.renew_proven("french", "2.2", START + t * P).unwrap();
    }
    // An older holder's certificate that arrives late is no change back either.
    let mut late = bench.submission("ireland", Ask::Query { line: Line::Beside }, &[]);
    late.proofs = vec![proof_of("ireland", &[entry("1.1")], BTreeMap::new(), &QUORUM)];
    let _grant = bench.submit(&late, START + 20 * P);
    assert_eq!(bench.witness.explain_group(&shop(), at(START + 20 * P)).unwrap().changes_this_hour, 1);
}

#[test]
fn all_groups_of_one_party_s_sites_share_a_rate_for_what_moves_again() {
    let mut bench = limited(4, 2);
    let names = ["a", "b", "c"].map(group);
    for name in &names {
        let plan = Plan { group: name.clone(), ..protected(1) };
        bench.register(START, &signed(&plan));
        bench.ask_for("ireland", &entry_of(name.clone(), "1.1", plan.protection), START).unwrap();
        certify_of(&mut bench, "ireland", &entry_of(name.clone(), "1.1", plan.protection), START);
    }
    let late = START + LAPSE;
    let state = protected(1).protection;
    // All are lost at once, and move: nothing of that counts for the party.
    for name in &names {
        let taken = entry_of(name.clone(), "2.2", state);
        assert_eq!(bench.ask_for("french", &taken, late), Ok(()));
        certify_of(&mut bench, "french", &taken, late);
    }
    // Two move again, and use its rate up.
    let again = late + LAPSE;
    for name in &names[..2] {
        let back = entry_of(name.clone(), "3.1", state);
        assert_eq!(bench.ask_for("ireland", &back, again), Ok(()));
        certify_of(&mut bench, "ireland", &back, again);
    }
    let third = entry_of(names[2].clone(), "3.1", state);
    assert_eq!(bench.ask_for("ireland", &third, again), Err(Refusal::Interlock));
    assert_eq!(bench.ask_for("ireland", &third, again + HOUR - 1), Err(Refusal::Interlock));
    assert_eq!(bench.ask_for("ireland", &third, again + HOUR), Ok(()));
}

fn certify_of(bench: &mut Bench, name: &str, entry: &regent_core::message::Entry, ms: u64) {
    let mut show = bench.submission(name, Ask::Query { line: Line::Beside }, &[]);
    show.proofs = vec![proof_of(name, std::slice::from_ref(entry), BTreeMap::new(), &QUORUM)];
    let _grant = bench.submit(&show, ms);
}

#[test]
fn a_restart_forgets_no_change_that_was_written_with_a_later_one() {
    let mut bench = limited(2, 50);
    hand_over(&mut bench, ("ireland", "1.1"), "french", START + 1_000);
    certified(&mut bench, "french", "2.2", START + 1_000);
    hand_over(&mut bench, ("french", "2.2"), "ireland", START + 2_000);
    certified(&mut bench, "ireland", "3.1", START + 2_000);
    hand_over(&mut bench, ("ireland", "3.1"), "french", START + 3_000);
    let again = START + 60_000;
    let (objects, tags) = (bench.objects, bench.tags);
    let mut config = config(2, again, Start::Restarted);
    config.charter.interlock = Interlock { changes_per_group_hour: 2, changes_per_party_hour: 50 };
    config.wall_s = Some(WALL + 60);
    let mut bench = Bench { tags, ..Bench::with(config, objects) };
    assert_eq!(bench.witness.explain_group(&shop(), at(again)).unwrap().changes_this_hour, 2);
    assert_eq!(bench.ask("french", "4.2", again + D), Err(Refusal::Interlock));
    // Coarse: whole seconds of the wall clock.
    assert_eq!(bench.ask("french", "4.2", START + HOUR + 3_000), Ok(()));
}

#[test]
fn a_restart_long_after_remembers_no_brake() {
    let mut bench = limited(1, 1);
    hand_over(&mut bench, ("ireland", "1.1"), "french", START + 1_000);
    certified(&mut bench, "french", "2.2", START + 1_000);
    hand_over(&mut bench, ("french", "2.2"), "german", START + 2_000);
    let again = START + 2 * HOUR;
    let (objects, tags) = (bench.objects, bench.tags);
    let mut config = config(2, again, Start::Restarted);
    config.charter.interlock = Interlock { changes_per_group_hour: 1, changes_per_party_hour: 1 };
    config.wall_s = Some(WALL + 7_200);
    let mut bench = Bench { tags, ..Bench::with(config, objects) };
    assert_eq!(bench.ask("german", "3.3", again + D), Ok(()));
}

#[test]
fn without_a_wall_clock_an_old_change_counts_as_if_it_were_now() {
    let mut bench = limited(1, 1);
    hand_over(&mut bench, ("ireland", "1.1"), "french", START + 1_000);
    certified(&mut bench, "french", "2.2", START + 1_000);
    hand_over(&mut bench, ("french", "2.2"), "german", START + 2_000);
    let again = START + 2 * HOUR;
    let mut config = config(2, again, Start::Restarted);
    config.charter.interlock = Interlock { changes_per_group_hour: 1, changes_per_party_hour: 1 };
    config.wall_s = None;
    let mut bench = Bench::with(config, bench.objects);
    assert_eq!(bench.ask("german", "3.3", again + D), Err(Refusal::Interlock));
    assert_eq!(bench.ask("german", "3.3", again + HOUR), Ok(()));
}
