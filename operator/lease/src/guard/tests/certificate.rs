//! What a certificate must be to count (L13).

use std::collections::BTreeMap;

use super::*;
use regent_core::message::{Exception, Refusal};

#[test]
fn l13_a_certificate_of_another_charter_with_the_same_version_counts_for_nothing() {
    let mut node = Node::with_pod();
    let mut other = node.federation.charter.clone();
    // Who granted under this one promised 1 s and not 5.
    other.lease_duration_ms = 1_000;
    let nonce = node.guard.new_nonce(at_ms(1000), [7; 32]);
    let entries = vec![Entry { group: group(), epoch: epoch("1.1"), state: Protection::Protected }];
    let nonces = Tree::over([nonce]);
    let mut theirs = Federation::new();
    theirs.charter = other;
    for (federation, counts) in [(theirs, false), (Federation::new(), true)] {
        let certificate = NodeCertificate {
            round: federation.round("ie", Ask::Grant, nonces.root(), &entries, &["fr", "de", "ch"]),
            nonce: nonce.to_vec(),
            nonce_path: nonces.path(0).unwrap(),
            entries: vec![(entries[0].clone(), entry_tree(&entries).path(0).unwrap())],
        };
        node.guard.on_certificate(at_ms(1010), &certificate);
        let lease = node.guard.journal().groups.get(&group()).and_then(|g| g.lease);
        assert_eq!(lease.is_some(), counts);
    }
}

/// What `site` asked and these granted; the others except the group.
fn shown(node: &mut Node, site: &str, at: &str, granters: &[&str], others: &[&str]) -> Certification {
    let nonce = node.guard.new_nonce(at_ms(1000), [9; 32]);
    let entries = vec![Entry { group: group(), epoch: epoch(at), state: Protection::Protected }];
    let nonces = Tree::over([nonce]);
    let mut round = node.federation.round(site, Ask::Grant, nonces.root(), &entries, granters);
    for witness in others {
        let except = Exception { group: group(), reason: Refusal::Promised, wait_ms: None };
        round.grants.push(node.federation.grant(witness, &round.request, vec![except], BTreeMap::new()));
    }
    let certificate = NodeCertificate {
        round,
        nonce: nonce.to_vec(),
        nonce_path: nonces.path(0).unwrap(),
        entries: vec![(entries[0].clone(), entry_tree(&entries).path(0).unwrap())],
    };
    node.guard.on_certificate(at_ms(1010), &certificate)
}

#[test]
fn l13_answers_that_except_the_group_are_no_part_of_its_certificate() {
    let mut node = Node::with_pod();
    let done = shown(&mut node, "ie", "1.1", &["fr", "de"], &["ch", "lu"]);
    assert!(done.accepted.is_empty());
    assert!(matches!(done.rejected[..], [Rejection::NotGranted(_)]), "{:?}", done.rejected);
    assert_eq!(node.state(), PodState::Gated);
    assert_eq!(shown(&mut node, "ie", "1.1", &["fr", "de", "ch"], &["lu"]).accepted.len(), 1);
}

#[test]
fn l13_an_epoch_with_another_site_s_number_is_none_of_who_asked() {
    let mut node = Node::with_pod();
    for site in ["ie", "fr"] {
        let done = shown(&mut node, site, "7.3", &["fr", "de", "ch"], &[]);
        assert!(matches!(done.rejected[..], [Rejection::ForeignEpoch(..)]), "{site}: {:?}", done.rejected);
    }
    // Nor does it keep the site's own, lower one from counting.
    assert_eq!(shown(&mut node, "ie", "1.1", &["fr", "de", "ch"], &[]).accepted.len(), 1);
    assert_eq!(node.state(), PodState::Running { epoch: epoch("1.1") });
}
