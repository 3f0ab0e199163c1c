//! Volumes that come and go, and reports of pods that are not there.

use super::*;

#[test]
fn publishing_again_changes_nothing_and_unpublishing_forgets_the_pod() {
    let mut node = Node::running();
    let pod = node.guard.journal().pods[&uid()].pod.clone();
    assert_eq!(node.guard.on_publish(at_ms(1500), pod), vec![]);
    assert_eq!(node.state(), PodState::Running { epoch: epoch("1.1") });
    node.guard.on_unpublish(at_ms(1600), &uid(), false).unwrap();
    assert!(node.guard.journal().pods.is_empty());
    assert_eq!(node.guard.next_deadline(), None);
}

#[test]
fn a_pod_that_lives_is_fenced_and_waited_for_although_the_kubelet_takes_its_volume_away() {
    let mut node = Node::running();
    let error = node.guard.on_unpublish(at_ms(1500), &uid(), true).unwrap_err().to_string();
    assert!(error.contains("shop/shop-0") && error.contains("live processes"), "{error}");
    // It is killed for the release, which is confirmed when that is done and not when a volume goes.
    let confirmed = |effects: &[Effect]| effects.iter().any(|e| matches!(e, Effect::Confirm(..)));
    let effects = node.guard.on_retire(at_ms(1600), &group(), epoch("1.1"));
    assert!(effects.contains(&Effect::Kill(uid())) && !confirmed(&effects));
    assert!(node.guard.on_unpublish(at_ms(1610), &uid(), true).is_err());
    assert!(confirmed(&node.guard.on_killed(at_ms(1620), &uid()).unwrap()));
    // Only its gate is left: that has never passed.
    node.guard.on_unpublish(at_ms(1700), &uid(), true).unwrap();
    assert!(node.guard.journal().pods.is_empty());

    let mut node = Node::running();
    node.guard.on_unpublish(at_ms(1500), &uid(), true).unwrap_err();
    assert_eq!(node.guard.tick(at_ms(1000 + A_MS))[0], Effect::Freeze(uid()));
}

#[test]
fn an_input_that_is_refused_takes_no_fence_with_it() {
    let stranger = PodUid("nobody".into());
    let refused: [fn(&mut Guard, Moment, &PodUid) -> bool; 5] = [
        |guard, now, uid| guard.on_gate(now, uid).is_err(),
        |guard, now, uid| guard.on_frozen(now, uid, Duration::ZERO).is_err(),
        |guard, now, uid| guard.on_thawed(now, uid).is_err(),
        |guard, now, uid| guard.on_gate_opened(now, uid).is_err(),
        |guard, now, uid| guard.on_killed(now, uid).is_err(),
    ];
    for (at, refuse) in refused.into_iter().enumerate() {
        let mut node = Node::running();
        let due = node.guard.next_deadline().unwrap();
        assert!(refuse(&mut node.guard, due.after(Duration::from_millis(1)), &stranger));
        assert_eq!(node.guard.next_deadline(), Some(due), "input {at}");
        assert_eq!(node.guard.tick(due.after(Duration::from_millis(2)))[0], Effect::Freeze(uid()), "input {at}");
    }
}
