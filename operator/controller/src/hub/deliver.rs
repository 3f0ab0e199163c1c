//! Sends each node what it is shown of a round.

use std::collections::BTreeSet;

use regent_core::ids::GroupKey;
use regent_core::message::{Entry, Round};
use regent_lease::deliver::{Delivery, NonceSet};

use super::registry::Registry;

pub(super) fn deliver(
    registry: &Registry,
    round: &Round,
    entries: &[Entry],
    granted: &[Entry],
    nonces: &NonceSet,
) -> usize {
    let delivery = Delivery::new(round, entries, granted, nonces);
    let groups = registry.groups();
    let mut sent = 0;
    for node in nonces.nodes() {
        let Some(certificate) = groups.of(node).and_then(|listed| delivery.to(node, listed)) else { continue };
        let covered: BTreeSet<GroupKey> = certificate.entries.iter().map(|(entry, _)| entry.group.clone()).collect();
        sent += usize::from(registry.send_certificate(node, &covered, &certificate.into()));
    }
    sent
}
