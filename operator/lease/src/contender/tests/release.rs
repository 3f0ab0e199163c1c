//! L12: a planned end of an epoch.

use super::*;

#[test]
fn l12_a_release_retires_before_it_stops_the_nodes_and_drops_promises_last() {
    let mut desk = Desk::holder();
    let outputs = desk.contender.release(at_ms(10_100), &group(), epoch("1.1"), site("fr")).unwrap();
    assert_eq!(outputs[0], Output::CloseNodeList { group: group(), epoch: epoch("1.1") });
    desk.take(outputs);
    desk.tick(10_010 + P_MS);
    assert_eq!(desk.newest().ask, Ask::Grant, "while the list is being closed it is renewed");
    let closed = ReleaseEvent::ListClosed(BTreeSet::from([NodeName("n1".into())]));
    let outputs = desk.contender.on_release_event(at_ms(10_900), &group(), closed).unwrap();
    desk.take(outputs);
    let retire = Ask::Retire { group: group(), epoch: epoch("1.1"), successor: site("fr") };
    assert_eq!((desk.newest().ask.clone(), desk.newest().to.len()), (retire, 4));
    let retiring = desk.sent.len() - 1;
    desk.answer(10_910, retiring, "fr", no(Refusal::NotYours));
    for witness in ["de", "ch"] {
        desk.answer(10_910, retiring, witness, yes());
    }
    let stops = |d: &Desk| d.out.contains(&Output::StopNodes { group: group(), epoch: epoch("1.1") });
    assert!(!stops(&desk), "a refusal is no acknowledgement");
    desk.answer(10_911, retiring, "lu", yes());
    assert!(stops(&desk));
    desk.tick(11_800);
    let release = Ask::Release { group: group(), epoch: epoch("1.1") };
    assert!(!desk.sent.iter().any(|(o, _)| o.ask == release));
    let stopped = ReleaseEvent::NodeStopped { node: NodeName("n1".into()), epoch: epoch("1.1") };
    let outputs = desk.contender.on_release_event(at_ms(11_900), &group(), stopped).unwrap();
    desk.take(outputs);
    assert_eq!(desk.newest().ask, release);
    desk.answer_all(11_910, yes());
    let released = Output::Released { group: group(), epoch: epoch("1.1"), successor: site("fr") };
    assert!(desk.out.contains(&released));
    desk.tick(12_800);
    assert_eq!(desk.asked(), "2.1", "the retired epoch is never asked for again");
}

#[test]
fn l12_a_node_that_does_not_answer_costs_dmax_from_the_qth_acknowledgement() {
    let mut desk = Desk::holder();
    let outputs = desk.contender.release(at_ms(10_100), &group(), epoch("1.1"), site("fr")).unwrap();
    desk.take(outputs);
    let closed = ReleaseEvent::ListClosed(BTreeSet::from([NodeName("gone".into())]));
    let outputs = desk.contender.on_release_event(at_ms(10_200), &group(), closed).unwrap();
    desk.take(outputs);
    desk.answer_all(10_300, yes());
    let release = Ask::Release { group: group(), epoch: epoch("1.1") };
    desk.tick(15_299);
    assert!(!desk.sent.iter().any(|(o, _)| o.ask == release));
    desk.tick(15_300);
    assert!(desk.sent.iter().any(|(o, _)| o.ask == release));
}

/// A holder that has closed its list of no nodes to release the group, and which of its requests
/// was its last renewal: nobody has answered that yet.
fn releasing() -> (Desk, usize) {
    let mut desk = Desk::holder();
    desk.tick(11_000);
    let renewal = desk.sent.len() - 1;
    let outputs = desk.contender.release(at_ms(11_010), &group(), epoch("1.1"), site("fr")).unwrap();
    desk.take(outputs);
    let closed = ReleaseEvent::ListClosed(BTreeSet::new());
    let outputs = desk.contender.on_release_event(at_ms(11_020), &group(), closed).unwrap();
    desk.take(outputs);
    (desk, renewal)
}

#[test]
fn l12_a_late_certificate_for_a_retired_epoch_is_shown_to_nobody() {
    let (mut desk, renewal) = releasing();
    for witness in ["fr", "de", "ch"] {
        desk.answer(11_030, renewal, witness, yes());
    }
    assert_eq!(desk.certified().len(), 0);
}

#[test]
fn l12_only_the_site_s_own_epoch_is_released_and_only_to_a_site_of_the_plan() {
    let mut desk = Desk::holder();
    let mut release = |e: &str, to: &str| desk.contender.release(at_ms(10_100), &group(), epoch(e), site(to)).err();
    assert_eq!(release("1.2", "fr"), Some(ReleaseError::NotOurs(epoch("1.2"))));
    assert_eq!(release("1.1", "lu"), Some(ReleaseError::NotInPlan(site("lu"))));
    assert_eq!(release("1.1", "fr"), None);
    assert_eq!(release("1.1", "fr"), None, "again is the same");
    assert_eq!(release("1.1", "de"), Some(ReleaseError::UnderWay(epoch("1.1"), site("fr"))));
}

#[test]
fn l12_what_is_being_retired_is_asked_for_no_more() {
    let mut desk = Desk::holder();
    let outputs = desk.contender.release(at_ms(10_100), &group(), epoch("1.1"), site("fr")).unwrap();
    desk.take(outputs);
    let closed = ReleaseEvent::ListClosed(BTreeSet::from([NodeName("n1".into())]));
    let outputs = desk.contender.on_release_event(at_ms(10_200), &group(), closed).unwrap();
    desk.take(outputs);
    let before = desk.sent.len();
    for step in 1..20 {
        desk.tick(10_200 + step * P_MS);
    }
    let asked: Vec<&Ask> = desk.sent[before..].iter().map(|(o, _)| &o.ask).collect();
    assert!(!asked.is_empty() && asked.iter().all(|ask| matches!(ask, Ask::Retire { .. })), "{asked:?}");
}

#[test]
fn l12_a_certificate_that_comes_once_the_release_is_done_is_shown_to_nobody() {
    let (mut desk, renewal) = releasing();
    desk.answer_all(11_030, yes());
    desk.answer_all(11_040, yes());
    assert!(desk.out.iter().any(|o| matches!(o, Output::Released { .. })));
    for witness in ["fr", "de", "ch", "lu"] {
        desk.answer(11_050, renewal, witness, yes());
    }
    assert_eq!(desk.certified().len(), 0);
    assert_ne!(desk.role(11_050), RoleName::Holder);
}

/// A holder whose last renewal was granted by all, `braked` of whom hold the next change.
fn braked_by(braked: &[&str]) -> Desk {
    let mut desk = Desk::holder();
    desk.tick(10_010 + P_MS);
    let newest = desk.sent.len() - 1;
    for witness in ["fr", "de", "ch", "lu"] {
        let request = &desk.sent[newest].1.request;
        let mut grant: regent_core::message::Grant =
            desk.federation.grant(witness, request, Vec::new(), BTreeMap::new()).peek().unwrap();
        if braked.contains(&witness) {
            grant.braked.insert(group(), 600_000);
        }
        let grant = Envelope::sign(&grant, witness, desk.federation.key(witness));
        let outputs = desk.contender.on_answer(at_ms(11_000), &site(witness), &grant);
        desk.take(outputs);
    }
    desk
}

#[test]
fn l14_a_move_that_brakes_would_hold_is_refused_before_anything_is_stopped() {
    let mut desk = braked_by(&["fr", "lu"]);
    let refused = desk.contender.release(at_ms(11_000), &group(), epoch("1.1"), site("fr"));
    assert!(matches!(refused, Err(ReleaseError::Braked { wait_s: 600, .. })), "{refused:?}");
    assert_eq!(desk.role(11_000), RoleName::Holder);
    // A quorum without the one that brakes lets the successor in; and in ten minutes, all do.
    assert!(braked_by(&["lu"]).contender.release(at_ms(11_000), &group(), epoch("1.1"), site("fr")).is_ok());
    assert!(desk.contender.release(at_ms(611_000), &group(), epoch("1.1"), site("fr")).is_ok());
}

#[test]
fn l14_a_release_that_has_begun_to_retire_is_taken_to_its_end_whatever_brakes() {
    let mut desk = braked_by(&["fr", "lu"]);
    desk.tick(10_010 + 2 * P_MS);
    let newest = desk.sent.len() - 1;
    desk.answer(12_000, newest, "de", no(Refusal::Retired).voting("ie", "1.1"));
    assert!(desk.contender.release(at_ms(12_000), &group(), epoch("1.1"), site("fr")).is_ok());
}
