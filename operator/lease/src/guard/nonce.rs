//! The nonces that a guard has made: when each was asked with.

use std::collections::VecDeque;

use regent_core::time::Moment;

/// Nonces are 32 random bytes.
pub type Nonce = [u8; 32];

/// How many are remembered: at one each P = D/6 that is over 10 D, and a certificate
/// that took longer than A is worth nothing.
const REMEMBERED: usize = 64;

/// A nonce's place in the order in which this guard made its nonces.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(super) struct Serial(u64);

/// When a nonce was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Asked {
    /// The moment from which a certificate with it counts.
    pub at: Moment,
    /// Its place in the order.
    pub serial: Serial,
}

#[derive(Debug, Clone, Default)]
pub(super) struct Nonces {
    made: VecDeque<(Nonce, Asked)>,
    next: Serial,
}

impl Nonces {
    /// Remembers a new nonce; forgets the oldest.
    pub(super) fn add(&mut self, at: Moment, nonce: Nonce) {
        if self.made.len() == REMEMBERED {
            self.made.pop_front();
        }
        self.made.push_back((nonce, Asked { at, serial: self.next }));
        self.next = Serial(self.next.0 + 1);
    }

    /// The serial that the next nonce will have.
    pub(super) fn next(&self) -> Serial {
        self.next
    }

    /// When this nonce was made, if it is one of ours.
    pub(super) fn find(&self, nonce: &[u8]) -> Option<Asked> {
        self.made.iter().rev().find(|(n, _)| n == nonce).map(|(_, asked)| *asked)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_of_nonces_is_bounded_and_forgets_the_oldest() {
        let mut nonces = Nonces::default();
        for i in 0..=REMEMBERED {
            nonces.add(Moment { boot_ns: i as u64, raw_ns: 0 }, [i as u8; 32]);
        }
        assert_eq!(nonces.find(&[0; 32]), None);
        assert_eq!(nonces.find(&[1; 32]).unwrap().at.boot_ns, 1);
        assert_eq!(nonces.made.len(), REMEMBERED);
        assert!(nonces.find(&[64; 32]).unwrap().serial < nonces.next());
    }
}
