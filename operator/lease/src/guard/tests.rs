//! Rules of L13 and of the fence, in both directions.

use std::time::Duration;

use ed25519_dalek::SigningKey;

use super::*;
use regent_core::event::names;
use regent_core::fixture::{Federation, at_ms};
use regent_core::merkle::Tree;
use regent_core::message::{Ask, Entry, Line, NodeCertificate, entry_tree};
use regent_core::plan::Protection;

mod certificate;
mod restarts;
mod volumes;

const MARGIN: Duration = Duration::from_millis(20);
/// `A` for D = 5 s: 4990 ms and a bit.
const A_MS: u64 = 4990;

struct Node {
    federation: Federation,
    guard: Guard,
    nonces: u8,
}

fn group() -> GroupKey {
    "ie/shop".parse().unwrap()
}
fn epoch(e: &str) -> Epoch {
    e.parse().unwrap()
}
fn uid() -> PodUid {
    PodUid("u1".into())
}

impl Node {
    fn of(site: &str, journal: Journal, boot: &str) -> Self {
        let federation = Federation::new();
        let config = GuardConfig {
            site: site.parse().unwrap(),
            node: NodeName("n1".into()),
            charter: federation.charter.clone().into(),
            boot_id: boot.into(),
            freeze_margin: MARGIN,
        };
        let mut guard = Guard::new(config, journal).unwrap();
        guard.resume(at_ms(1000));
        Self { federation, guard, nonces: 0 }
    }

    fn home() -> Self {
        Self::of("ie", Journal::default(), "boot-1")
    }

    /// A home node with a pod at its gate.
    fn with_pod() -> Self {
        let mut node = Self::home();
        let pod = Pod { uid: uid(), namespace: "shop".into(), name: "shop-0".into(), group: group() };
        node.guard.on_publish(at_ms(1000), pod);
        assert_eq!(node.guard.on_gate(at_ms(1000), &uid()).unwrap(), vec![]);
        node
    }

    /// The same with the pod running under 1.1, asked at 1000 ms.
    fn running() -> Self {
        let mut node = Self::with_pod();
        let certificate = node.certificate_asked_at(1000, "ie", "1.1", Protection::Protected);
        let done = node.guard.on_certificate(at_ms(1010), &certificate);
        assert!(done.effects.contains(&Effect::OpenGate(uid())));
        node
    }

    fn nonce(&mut self, ms: u64) -> Nonce {
        self.nonces += 1;
        self.guard.new_nonce(at_ms(ms), [self.nonces; 32])
    }

    fn certificate_asked_at(&mut self, ms: u64, site: &str, e: &str, state: Protection) -> NodeCertificate {
        let nonce = self.nonce(ms);
        self.certificate(nonce, site, e, state)
    }

    fn certificate(&self, nonce: Nonce, site: &str, e: &str, state: Protection) -> NodeCertificate {
        let entries = vec![Entry { group: group(), epoch: epoch(e), state }];
        let nonces = Tree::over([[9u8; 32], nonce]);
        let round = self.federation.round(site, Ask::Grant, nonces.root(), &entries, &["fr", "de", "ch"]);
        let path = entry_tree(&entries).path(0).unwrap();
        NodeCertificate {
            round,
            nonce: nonce.to_vec(),
            nonce_path: nonces.path(1).unwrap(),
            entries: vec![(entries[0].clone(), path)],
        }
    }

    fn state(&self) -> PodState {
        self.guard.journal().pods[&uid()].state
    }

    fn lease_end_ms(&self) -> Option<u64> {
        self.guard.journal().groups[&group()].lease.map(|l| l.until.boot_ns / 1_000_000)
    }
}

fn events(effects: &[Effect]) -> Vec<&str> {
    let name = |e: &'_ Effect| -> Option<&str> {
        match e {
            Effect::Event(event) => Some(match event.event.as_str() {
                "lease_end" => names::LEASE_END,
                "killed" => names::KILLED,
                "frozen" => names::FROZEN,
                "thawed" => names::THAWED,
                _ => names::GATE_OPENED,
            }),
            _ => None,
        }
    };
    effects.iter().filter_map(name).collect()
}

fn place(effects: &[Effect], wanted: impl Fn(&Effect) -> bool) -> usize {
    effects.iter().position(wanted).unwrap_or_else(|| panic!("not among {effects:?}"))
}

#[test]
fn l13_a_certificate_counts_from_when_the_guard_asked_however_late_it_comes() {
    let mut node = Node::with_pod();
    let certificate = node.certificate_asked_at(1000, "ie", "1.1", Protection::Protected);
    let done = node.guard.on_certificate(at_ms(4000), &certificate);
    assert_eq!(done.accepted, vec![group()]);
    assert_eq!(node.lease_end_ms(), Some(1000 + A_MS));
    // Shown again, it lengthens nothing.
    node.guard.on_certificate(at_ms(5000), &certificate);
    assert_eq!(node.lease_end_ms(), Some(1000 + A_MS));
}

#[test]
fn l13_the_journal_and_the_epoch_are_written_before_the_gate_opens() {
    let mut node = Node::with_pod();
    let certificate = node.certificate_asked_at(1000, "ie", "1.1", Protection::Protected);
    let effects = node.guard.on_certificate(at_ms(1010), &certificate).effects;
    let journal = place(&effects, |e| matches!(e, Effect::Journal { durable: true, .. }));
    let written = place(&effects, |e| *e == Effect::WriteEpoch(uid(), epoch("1.1")));
    let opened = place(&effects, |e| *e == Effect::OpenGate(uid()));
    assert!(journal < written && written < opened);
}

#[test]
fn l13_a_renewal_need_not_reach_the_disk_but_a_new_epoch_must() {
    let mut node = Node::running();
    let same = node.certificate_asked_at(2000, "ie", "1.1", Protection::Protected);
    let effects = node.guard.on_certificate(at_ms(2010), &same).effects;
    assert!(effects.iter().any(|e| matches!(e, Effect::Journal { durable: false, .. })));
    let higher = node.certificate_asked_at(3000, "ie", "2.1", Protection::Protected);
    let effects = node.guard.on_certificate(at_ms(3010), &higher).effects;
    assert!(effects.iter().any(|e| matches!(e, Effect::Journal { durable: true, .. })));
    assert!(effects.contains(&Effect::WriteEpoch(uid(), epoch("2.1"))));
    assert_eq!(node.state(), PodState::Running { epoch: epoch("2.1") });
}

#[test]
fn l13_what_does_not_prove_a_quorum_for_this_site_and_this_nonce_opens_nothing() {
    type Spoil = fn(&Node, &mut NodeCertificate);
    let cases: [(&str, Spoil); 6] = [
        ("two grants", |_, c| drop(c.round.grants.pop())),
        ("one witness twice", |_, c| c.round.grants[0] = c.round.grants[1].clone()),
        ("a nonce of nobody", |_, c| c.nonce = vec![77; 32]),
        ("another place of the nonce", |_, c| c.nonce_path.index = 0),
        ("another epoch than was signed", |_, c| c.entries[0].0.epoch = epoch("5.1")),
        ("signed by another site", |n, c| {
            let key: &SigningKey = n.federation.key("fr");
            c.round.request.signatures.clear();
            c.round.request.add_signature("ie", key);
        }),
    ];
    for (what, spoil) in cases {
        let mut node = Node::with_pod();
        let mut certificate = node.certificate_asked_at(1000, "ie", "1.1", Protection::Protected);
        spoil(&node, &mut certificate);
        let done = node.guard.on_certificate(at_ms(1010), &certificate);
        assert!(done.accepted.is_empty() && done.rejected.len() == 1, "{what}: {done:?}");
        assert_eq!(node.state(), PodState::Gated, "{what}");
    }
}

#[test]
fn l13_a_query_is_no_certificate_and_neither_is_another_charter_s() {
    let mut node = Node::with_pod();
    let good = node.certificate_asked_at(1000, "ie", "1.1", Protection::Protected);
    let entries = vec![good.entries[0].0.clone()];
    let root = Tree::over([[9u8; 32], [1u8; 32]]).root();
    let query = node.federation.round("ie", Ask::Query { line: Line::Ready }, root, &entries, &["fr", "de", "ch"]);
    let done = node.guard.on_certificate(at_ms(1010), &NodeCertificate { round: query, ..good.clone() });
    assert!(done.accepted.is_empty());
    node.federation.charter.version = 2;
    let foreign = node.certificate([1; 32], "ie", "1.1", Protection::Protected);
    assert!(node.guard.on_certificate(at_ms(1010), &foreign).accepted.is_empty());
    assert_eq!(node.guard.on_certificate(at_ms(1010), &good).accepted, vec![group()]);
}

#[test]
fn i2_a_lower_epoch_than_was_seen_is_refused_even_when_it_is_fresh() {
    let mut node = Node::running();
    let higher = node.certificate_asked_at(2000, "ie", "3.1", Protection::Protected);
    node.guard.on_certificate(at_ms(2010), &higher);
    let lower = node.certificate_asked_at(3000, "ie", "2.1", Protection::Protected);
    let done = node.guard.on_certificate(at_ms(3010), &lower);
    assert_eq!(done.rejected, vec![Rejection::OldEpoch(group(), epoch("2.1"), epoch("3.1"))]);
    assert_eq!(node.lease_end_ms(), Some(2000 + A_MS));
}

#[test]
fn l13_a_higher_epoch_replaces_the_time_of_a_lower_one_even_if_it_is_less() {
    let mut node = Node::running();
    let early = node.nonce(1500);
    let later = node.certificate_asked_at(3000, "ie", "1.1", Protection::Protected);
    node.guard.on_certificate(at_ms(3010), &later);
    assert_eq!(node.lease_end_ms(), Some(3000 + A_MS));
    let higher = node.certificate(early, "ie", "2.1", Protection::Protected);
    node.guard.on_certificate(at_ms(3020), &higher);
    assert_eq!(node.lease_end_ms(), Some(1500 + A_MS));
}

#[test]
fn freezing_begins_early_enough_and_the_lease_s_end_is_reported_as_its_time() {
    let mut node = Node::running();
    let end = 1000 + A_MS;
    assert_eq!(node.guard.next_deadline().unwrap().boot_ns / 1_000_000, end - 20);
    assert_eq!(node.guard.tick(at_ms(end - 22)), vec![]);
    let effects = node.guard.tick(at_ms(end - 19));
    assert_eq!(effects[0], Effect::Freeze(uid()), "freezing waits for no disk");
    let effects = node.guard.tick(at_ms(end + 3));
    assert_eq!(events(&effects), vec![names::LEASE_END]);
    let Some(Effect::Event(event)) = effects.iter().find(|e| matches!(e, Effect::Event(_))) else { panic!() };
    assert_eq!(event.boot_ns / 1_000_000, end);
    assert_eq!(event.detail["pods"][0], "shop-0");
    // A freeze that took long makes the next one begin earlier.
    node.guard.on_frozen(at_ms(end + 4), &uid(), Duration::from_millis(30)).unwrap();
    let again = node.certificate_asked_at(end, "ie", "1.1", Protection::Protected);
    node.guard.on_certificate(at_ms(end + 100), &again);
    assert_eq!(node.guard.next_deadline().unwrap().boot_ns / 1_000_000, end + A_MS - 50);
}

#[test]
fn l1_a_lease_is_over_when_either_clock_says_so() {
    let mut node = Node::running();
    let end = at_ms(1000 + A_MS + 1);
    let suspended = Moment { boot_ns: end.boot_ns, raw_ns: at_ms(2000).raw_ns };
    let effects = node.guard.tick(suspended);
    assert_eq!(effects[0], Effect::Freeze(uid()));
}

#[test]
fn a_pod_that_holds_at_its_gate_is_not_frozen() {
    let mut node = Node::with_pod();
    let other = PodUid("u2".into());
    let certificate = node.certificate_asked_at(1000, "ie", "1.1", Protection::Protected);
    node.guard.on_gate_closed(&uid());
    node.guard.on_certificate(at_ms(1010), &certificate);
    assert_eq!(node.state(), PodState::Gated);
    assert_eq!(node.guard.on_gate(at_ms(1020), &other), Err(GuardError::UnknownPod(other)));
    let effects = node.guard.tick(at_ms(1000 + A_MS));
    assert!(!effects.contains(&Effect::Freeze(uid())));
    assert_eq!(node.guard.on_gate(at_ms(1000 + A_MS), &uid()).unwrap(), vec![], "the lease is over");
}

#[test]
fn l13_frozen_pods_thaw_under_the_same_epoch_and_are_killed_under_any_other() {
    let mut node = Node::running();
    node.guard.tick(at_ms(1000 + A_MS));
    let same = node.certificate_asked_at(6500, "ie", "1.1", Protection::Protected);
    let effects = node.guard.on_certificate(at_ms(6510), &same).effects;
    let journal = place(&effects, |e| matches!(e, Effect::Journal { .. }));
    assert!(journal < place(&effects, |e| *e == Effect::Thaw(uid())));

    let mut node = Node::running();
    node.guard.tick(at_ms(1000 + A_MS));
    let other = node.certificate_asked_at(6500, "ie", "2.1", Protection::Protected);
    let effects = node.guard.on_certificate(at_ms(6510), &other).effects;
    assert!(effects.contains(&Effect::Kill(uid())) && !effects.contains(&Effect::Thaw(uid())));
    // Its gate asks again, and passes under the new epoch.
    node.guard.on_killed(at_ms(6530), &uid()).unwrap();
    let effects = node.guard.on_gate(at_ms(7000), &uid()).unwrap();
    assert!(effects.contains(&Effect::OpenGate(uid())));
    assert_eq!(node.state(), PodState::Running { epoch: epoch("2.1") });
}

#[test]
fn a_certificate_that_finds_the_lease_over_does_not_carry_a_running_pod_across() {
    // No tick came between: the deadline is noticed before the certificate is.
    let mut node = Node::running();
    let other = node.certificate_asked_at(6500, "ie", "2.1", Protection::Protected);
    let effects = node.guard.on_certificate(at_ms(6510), &other).effects;
    let frozen = place(&effects, |e| *e == Effect::Freeze(uid()));
    assert!(frozen < place(&effects, |e| *e == Effect::Kill(uid())));
}

#[test]
fn a_pause_beyond_the_thaw_limit_stops_the_pod_for_good() {
    let mut node = Node::running();
    node.guard.on_configure(at_ms(1500), &group(), Duration::from_secs(2));
    let end = 1000 + A_MS;
    node.guard.tick(at_ms(end + 1));
    assert!(!node.guard.tick(at_ms(end + 1990)).contains(&Effect::Kill(uid())));
    assert!(node.guard.tick(at_ms(end + 2001)).contains(&Effect::Kill(uid())));
    assert_eq!(node.state(), PodState::Killing);
    assert_eq!(node.guard.on_killed(at_ms(end + 2010), &uid()).map(|e| events(&e).len()), Ok(1));
    assert_eq!(node.state(), PodState::Gated);
    assert!(matches!(node.guard.on_killed(at_ms(end + 2011), &uid()), Err(GuardError::Pod(_))));
}

#[test]
fn a_pause_that_ends_around_the_thaw_limit_ends_once() {
    let limit = Duration::from_secs(2);
    let over = 1000 + A_MS + 2000;
    for returned in over - 5..over + 5 {
        for ticks in [over - 6..over + 20, returned..over + 20] {
            let mut node = Node::running();
            node.guard.on_configure(at_ms(1500), &group(), limit);
            node.guard.tick(at_ms(1000 + A_MS));
            let certificate = node.certificate_asked_at(returned - 10, "ie", "1.1", Protection::Protected);
            let mut effects = Vec::new();
            for now in ticks.clone() {
                if now == returned {
                    effects.extend(node.guard.on_certificate(at_ms(now), &certificate).effects);
                }
                effects.extend(node.guard.tick(at_ms(now)));
            }
            let times = |wanted: Effect| effects.iter().filter(|e| **e == wanted).count();
            let ends = (times(Effect::Thaw(uid())), times(Effect::Kill(uid())));
            let state = match ends {
                (1, 0) => PodState::Running { epoch: epoch("1.1") },
                _ => PodState::Killing,
            };
            assert!(matches!(ends, (1, 0) | (0, 1)), "back at {returned} ms, limit at {over} ms: {ends:?}");
            assert_eq!(node.state(), state, "back at {returned} ms, limit at {over} ms");
        }
    }
}

#[test]
fn a_pod_that_can_t_be_frozen_is_killed() {
    let mut node = Node::running();
    node.guard.tick(at_ms(1000 + A_MS));
    let effects = node.guard.on_freeze_failed(at_ms(1000 + A_MS), &uid()).unwrap();
    assert!(effects.contains(&Effect::Kill(uid())));
}

#[test]
fn l12_a_retired_epoch_stops_its_pods_and_is_confirmed_when_they_are_dead() {
    let mut node = Node::running();
    let effects = node.guard.on_retire(at_ms(2000), &group(), epoch("1.1"));
    let journal = place(&effects, |e| matches!(e, Effect::Journal { durable: true, .. }));
    assert!(journal < place(&effects, |e| *e == Effect::Kill(uid())));
    assert!(!effects.iter().any(|e| matches!(e, Effect::Confirm(..))));
    let effects = node.guard.on_killed(at_ms(2015), &uid()).unwrap();
    assert!(effects.contains(&Effect::Confirm(group(), Instruction::Retire(epoch("1.1")))));
    assert_eq!(events(&effects), vec![names::KILLED, names::LEASE_END]);
    let fresh = node.certificate_asked_at(2100, "ie", "1.1", Protection::Protected);
    let done = node.guard.on_certificate(at_ms(2110), &fresh);
    assert_eq!(done.rejected, vec![Rejection::Retired(group(), epoch("1.1"))]);
    // Told again, it confirms again; a higher epoch may run.
    let effects = node.guard.on_retire(at_ms(2200), &group(), epoch("1.1"));
    assert!(effects.contains(&Effect::Confirm(group(), Instruction::Retire(epoch("1.1")))));
    node.guard.on_gate(at_ms(2300), &uid()).unwrap();
    let next = node.certificate_asked_at(2300, "ie", "2.1", Protection::Protected);
    assert!(node.guard.on_certificate(at_ms(2310), &next).effects.contains(&Effect::OpenGate(uid())));
}

#[test]
fn l12_a_late_retirement_leaves_a_higher_epoch_alone() {
    let mut node = Node::running();
    let higher = node.certificate_asked_at(1500, "ie", "2.1", Protection::Protected);
    node.guard.on_certificate(at_ms(1510), &higher);
    let effects = node.guard.on_retire(at_ms(2000), &group(), epoch("1.1"));
    assert!(!effects.contains(&Effect::Kill(uid())));
    assert_eq!(node.state(), PodState::Running { epoch: epoch("2.1") });
}

#[test]
fn a_newer_epoch_elsewhere_stops_the_group_for_good() {
    let mut node = Node::running();
    let rival = node.certificate([7; 32], "fr", "2.2", Protection::Protected);
    let done = node.guard.on_certificate(at_ms(2000), &rival);
    assert!(done.effects.contains(&Effect::Kill(uid())));
    let mut node = Node::running();
    let beaten = node.certificate_asked_at(1500, "ie", "3.1", Protection::Protected);
    node.guard.on_certificate(at_ms(1510), &beaten);
    let old = node.certificate([7; 32], "fr", "2.2", Protection::Protected);
    assert_eq!(node.guard.on_certificate(at_ms(2000), &old).effects, vec![]);
}

#[test]
fn an_observed_group_s_gate_opens_on_a_certificate_that_has_run_out_but_not_before_the_node_is_listed() {
    let mut node = Node::with_pod();
    let before = node.certificate_asked_at(1000, "ie", "1.1", Protection::Observed);
    let done = node.guard.on_certificate(at_ms(1010), &before);
    assert_eq!(done.rejected, vec![Rejection::NotListed(group())]);
    node.guard.on_listed(at_ms(1100), &group());
    assert_eq!(node.guard.on_certificate(at_ms(1110), &before).rejected, vec![Rejection::NotListed(group())]);
    let after = node.certificate_asked_at(1200, "ie", "1.1", Protection::Observed);
    let done = node.guard.on_certificate(at_ms(60_000), &after);
    assert!(done.effects.contains(&Effect::OpenGate(uid())));
    // Nothing is ever frozen that isn't Protected.
    assert_eq!(node.guard.tick(at_ms(600_000)), vec![]);
    assert_eq!(node.state(), PodState::Running { epoch: epoch("1.1") });
}

#[test]
fn a_protected_group_s_guard_counts_an_observed_certificate_only_while_it_runs() {
    let mut node = Node::with_pod();
    node.guard.on_listed(at_ms(1000), &group());
    let effects = node.guard.on_protect(at_ms(1000), &group()).unwrap();
    let journal = place(&effects, |e| matches!(e, Effect::Journal { durable: true, .. }));
    assert!(journal < place(&effects, |e| *e == Effect::Confirm(group(), Instruction::Protect)));
    let late = node.certificate_asked_at(1000, "ie", "1.1", Protection::Observed);
    assert_eq!(node.guard.on_certificate(at_ms(60_000), &late).rejected, vec![Rejection::RunOut(group())]);
    let timely = node.certificate_asked_at(61_000, "ie", "1.1", Protection::Observed);
    assert!(node.guard.on_certificate(at_ms(61_010), &timely).effects.contains(&Effect::OpenGate(uid())));
    assert_eq!(node.guard.tick(at_ms(61_000 + A_MS))[0], Effect::Freeze(uid()));
}

#[test]
fn protecting_what_runs_without_a_lease_is_refused_and_with_one_fences_from_then_on() {
    let mut node = Node::with_pod();
    node.guard.on_listed(at_ms(1000), &group());
    let observed = node.certificate_asked_at(1000, "ie", "1.1", Protection::Observed);
    node.guard.on_certificate(at_ms(1010), &observed);
    assert_eq!(node.guard.on_protect(at_ms(60_000), &group()), Err(GuardError::NoLease(group())));
    assert_eq!(node.guard.tick(at_ms(61_000)), vec![]);
    let fresh = node.certificate_asked_at(62_000, "ie", "1.1", Protection::Observed);
    node.guard.on_certificate(at_ms(62_010), &fresh);
    node.guard.on_protect(at_ms(62_020), &group()).unwrap();
    assert_eq!(node.state(), PodState::Running { epoch: epoch("1.1") });
    assert_eq!(node.guard.tick(at_ms(62_000 + A_MS))[0], Effect::Freeze(uid()));
}
