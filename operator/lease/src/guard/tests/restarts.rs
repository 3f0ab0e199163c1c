//! What a guard knows after it, or its machine, was restarted.

use super::*;

#[test]
fn i12_a_guard_that_restarts_in_the_same_boot_pauses_nothing_and_still_knows_the_deadline() {
    let node = Node::running();
    let journal = serde_json::from_str(&serde_json::to_string(node.guard.journal()).unwrap()).unwrap();
    let mut again = Node::of("ie", journal, "boot-1");
    assert_eq!(again.state(), PodState::Running { epoch: epoch("1.1") });
    assert_eq!(again.lease_end_ms(), Some(1000 + A_MS));
    assert!(!again.guard.tick(at_ms(2000)).contains(&Effect::Freeze(uid())));
    assert_eq!(again.guard.tick(at_ms(1000 + A_MS))[0], Effect::Freeze(uid()));
}

#[test]
fn a_guard_that_comes_back_after_the_deadline_fences_first_and_thaws_nothing() {
    let node = Node::running();
    let config = GuardConfig {
        site: "ie".parse().unwrap(),
        node: NodeName("n1".into()),
        charter: node.federation.charter.clone().into(),
        boot_id: "boot-1".into(),
        freeze_margin: MARGIN,
    };
    let mut again = Guard::new(config, node.guard.journal().clone()).unwrap();
    let effects = again.resume(at_ms(9000));
    assert_eq!(effects[0], Effect::Freeze(uid()));
    assert!(!effects.contains(&Effect::Thaw(uid())));
    assert_eq!(events(&effects), vec![names::LEASE_END]);
}

#[test]
fn after_a_reboot_no_lease_is_valid_but_epochs_and_marks_are_kept() {
    let mut node = Node::running();
    node.guard.on_retire(at_ms(1500), &"ie/other".parse().unwrap(), epoch("4.1"));
    let mut again = Node::of("ie", node.guard.journal().clone(), "boot-2");
    assert_eq!(again.state(), PodState::Gated);
    assert_eq!(again.lease_end_ms(), None);
    assert_eq!(again.guard.on_gate(at_ms(2000), &uid()).unwrap(), vec![]);
    let record = &again.guard.journal().groups[&group()];
    assert!(record.protected && record.highest == Some(epoch("1.1")));
    assert_eq!(again.guard.journal().groups[&"ie/other".parse().unwrap()].retired, Some(epoch("4.1")));
    let certificate = again.certificate_asked_at(2000, "ie", "1.1", Protection::Protected);
    assert!(again.guard.on_certificate(at_ms(2010), &certificate).effects.contains(&Effect::OpenGate(uid())));
}

#[test]
fn a_journal_can_not_give_more_than_a_from_now() {
    let mut journal = Node::running().guard.journal().clone();
    let record = journal.groups.get_mut(&group()).unwrap();
    record.lease = record.lease.map(|l| Lease { until: at_ms(900_000), ..l });
    let again = Node::of("ie", journal, "boot-1");
    assert_eq!(again.lease_end_ms(), Some(1000 + A_MS));
}
