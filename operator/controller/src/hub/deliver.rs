//! From a round to what each node is shown of it.

use std::collections::{BTreeMap, BTreeSet};

use regent_core::ids::GroupKey;
use regent_core::merkle::Path;
use regent_core::message::{Entry, Round, entry_tree};
use regent_proto::v1;

use super::nonces::NonceSet;
use super::registry::Registry;

pub(super) fn deliver(
    registry: &Registry,
    round: &Round,
    entries: &[Entry],
    granted: &[Entry],
    nonces: &NonceSet,
) -> usize {
    let proofs = proofs(entries, granted);
    let round = v1::Round::from(round.clone());
    let groups = registry.groups();
    let mut sent = 0;
    for node in nonces.nodes() {
        let mine: BTreeSet<GroupKey> = match groups.of(node) {
            Some(listed) => listed.iter().filter(|g| proofs.contains_key(g)).cloned().collect(),
            None => continue,
        };
        if mine.is_empty() {
            continue;
        }
        let Some((nonce, path)) = nonces.of_node(node) else { continue };
        let certificate = v1::NodeCertificate {
            round: Some(round.clone()),
            nonce: nonce.to_vec(),
            nonce_path: Some(path.into()),
            entries: mine.iter().filter_map(|g| proofs.get(g).cloned()).collect(),
        };
        sent += usize::from(registry.send_certificate(node, &mine, &certificate));
    }
    sent
}

/// The granted entries, each with its place under the request's root.
fn proofs(entries: &[Entry], granted: &[Entry]) -> BTreeMap<GroupKey, v1::EntryProof> {
    let tree = entry_tree(entries);
    let place: BTreeMap<&GroupKey, usize> = entries.iter().enumerate().map(|(i, e)| (&e.group, i)).collect();
    let proof =
        |entry: &Entry, path: Path| v1::EntryProof { entry: Some(entry.clone().into()), path: Some(path.into()) };
    let each = granted.iter().filter_map(|entry| {
        let path = tree.path(*place.get(&entry.group)?)?;
        Some((entry.group.clone(), proof(entry, path)))
    });
    each.collect()
}
