//! What waits to be sent to one node: bounded, and the newest replaces the older.

use std::collections::{BTreeSet, VecDeque};

use regent_core::ids::GroupKey;
use regent_proto::v1;

/// Certificates of different sets of groups that may wait for a slow agent. By the time
/// that so many wait, the oldest has run out.
const MAX_CERTIFICATES: usize = 8;
/// Instructions that may wait; those that are dropped are sent again.
const MAX_INSTRUCTIONS: usize = 256;

#[derive(Debug, Default)]
pub(super) struct Outbox {
    certificates: VecDeque<(BTreeSet<GroupKey>, v1::NodeCertificate)>,
    instructions: VecDeque<v1::Instruction>,
    peers: Option<v1::Peers>,
}

impl Outbox {
    /// Drops what this certificate is newer than: certificates whose groups it covers.
    pub(super) fn certificate(&mut self, groups: BTreeSet<GroupKey>, certificate: v1::NodeCertificate) {
        self.certificates.retain(|(older, _)| !older.is_subset(&groups));
        if self.certificates.len() == MAX_CERTIFICATES {
            self.certificates.pop_front();
        }
        self.certificates.push_back((groups, certificate));
    }

    /// Once for each instruction, however often it is sent again.
    pub(super) fn instruction(&mut self, instruction: v1::Instruction) {
        if !self.instructions.contains(&instruction) {
            if self.instructions.len() == MAX_INSTRUCTIONS {
                self.instructions.pop_front();
            }
            self.instructions.push_back(instruction);
        }
    }

    pub(super) fn peers(&mut self, peers: v1::Peers) {
        self.peers = Some(peers);
    }

    /// The next message: certificates first, for leases run while others wait.
    pub(super) fn next(&mut self) -> Option<v1::ToAgent> {
        use v1::to_agent::Message;
        let message = match self.certificates.pop_front() {
            Some((_, certificate)) => Message::Certificate(certificate),
            None => match self.instructions.pop_front() {
                Some(instruction) => Message::Instruction(instruction),
                None => Message::Peers(self.peers.take()?),
            },
        };
        Some(v1::ToAgent { message: Some(message) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn groups(names: &[&str]) -> BTreeSet<GroupKey> {
        names.iter().map(|n| format!("ireland/{n}").parse().unwrap()).collect()
    }

    fn certificate(mark: u8) -> v1::NodeCertificate {
        v1::NodeCertificate { nonce: vec![mark], ..Default::default() }
    }

    fn marks(outbox: &mut Outbox) -> Vec<u8> {
        let mut marks = Vec::new();
        while let Some(v1::ToAgent { message: Some(v1::to_agent::Message::Certificate(c)) }) = outbox.next() {
            marks.push(c.nonce[0]);
        }
        marks
    }

    #[test]
    fn a_newer_certificate_replaces_an_older_one_of_its_groups_only() {
        let mut outbox = Outbox::default();
        outbox.certificate(groups(&["shop", "bank"]), certificate(1));
        outbox.certificate(groups(&["mail"]), certificate(2));
        outbox.certificate(groups(&["shop"]), certificate(3));
        outbox.certificate(groups(&["mail", "post"]), certificate(4));
        assert_eq!(marks(&mut outbox), [1, 3, 4]);
    }

    #[test]
    fn a_node_that_reads_nothing_costs_a_bounded_queue() {
        let mut outbox = Outbox::default();
        for i in 0..100u8 {
            outbox.certificate(groups(&[&format!("g{i}")]), certificate(i));
        }
        for i in 0..1000 {
            outbox.instruction(v1::Instruction { group: format!("ireland/g{i}"), what: None });
            outbox.instruction(v1::Instruction { group: format!("ireland/g{i}"), what: None });
        }
        assert_eq!(outbox.certificates.len(), MAX_CERTIFICATES);
        assert_eq!(outbox.instructions.len(), MAX_INSTRUCTIONS);
        assert_eq!(outbox.instructions.back().unwrap().group, "ireland/g999");
        assert_eq!(marks(&mut outbox).last(), Some(&99));
    }
}
