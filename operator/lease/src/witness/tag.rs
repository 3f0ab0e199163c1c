//! Tags: a witness's notes to itself, which it need not remember (L2).

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use regent_core::ids::SiteName;
use regent_core::message::Tag;
use regent_core::time::Moment;

type HmacSha256 = Hmac<Sha256>;

/// The key of a witness's tags. It must be random and never leave its site.
#[derive(Clone, PartialEq, Eq)]
pub struct MacKey(pub [u8; 32]);

impl std::fmt::Debug for MacKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("MacKey(…)")
    }
}

/// What a tag says to the witness that reads it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reading {
    /// Issued then, by this very start: its clocks are ours.
    Issued(Moment),
    /// Issued by an earlier start: proves no quorum (L7).
    Earlier(Earlier),
    /// Issued by a start that has not happened by our count: our state is stale (L8).
    Later(u64),
    /// Not a tag of this witness.
    Foreign,
}

/// What a tag of an earlier start says all the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Earlier {
    /// Which start.
    pub(super) start: u64,
    /// How many writes were on disk by then: fewer now give a restored state away (L8).
    pub(super) writes: u64,
    /// When, if this boot's clocks can tell.
    pub(super) at: Option<Moment>,
}

/// Issues and reads tags.
#[derive(Debug)]
pub(super) struct Tags {
    key: MacKey,
    site: SiteName,
    start: u64,
    boot: [u8; 16],
}

const VERSION: u8 = 2;
const BODY: usize = 1 + 8 + 16 + 8 + 8 + 8;

impl Tags {
    pub(super) fn new(key: &MacKey, site: &SiteName, start: u64, boot: [u8; 16]) -> Self {
        Self { key: key.clone(), site: site.clone(), start, boot }
    }

    fn mac(&self, body: &[u8]) -> HmacSha256 {
        // HMAC pads a short key with zeros to the block's 64 bytes, so this is the key as it is.
        let mut block = [0u8; 64];
        block[..32].copy_from_slice(&self.key.0);
        // The body has one length, so the name after it can't be taken for a part of it.
        HmacSha256::new(&block.into())
            .chain_update(b"regent witness tag ")
            .chain_update(body)
            .chain_update(self.site.as_str())
    }

    /// A tag that says: issued at `at`, with so many writes on disk.
    pub(super) fn issue(&self, at: Moment, writes: u64) -> Tag {
        let mut bytes = Vec::with_capacity(BODY + 32);
        bytes.push(VERSION);
        bytes.extend(self.start.to_be_bytes());
        bytes.extend(self.boot);
        bytes.extend(at.boot_ns.to_be_bytes());
        bytes.extend(at.raw_ns.to_be_bytes());
        bytes.extend(writes.to_be_bytes());
        let mac = self.mac(&bytes).finalize().into_bytes();
        bytes.extend(mac);
        Tag(bytes)
    }

    /// What a tag says. Nothing in it is believed before its MAC is checked.
    pub(super) fn read(&self, tag: &Tag) -> Reading {
        let Some((body, mac)) = tag.0.split_at_checked(BODY) else {
            return Reading::Foreign;
        };
        if body.first() != Some(&VERSION) || self.mac(body).verify_slice(mac).is_err() {
            return Reading::Foreign;
        }
        let number = |at: usize| {
            let bytes = body.get(at..at + 8).and_then(|b| <[u8; 8]>::try_from(b).ok());
            bytes.map_or(0, u64::from_be_bytes)
        };
        let start = number(1);
        let this_boot = body.get(9..25) == Some(&self.boot[..]);
        let at = Moment { boot_ns: number(25), raw_ns: number(33) };
        if start > self.start {
            Reading::Later(start)
        } else if start == self.start && this_boot {
            Reading::Issued(at)
        } else {
            Reading::Earlier(Earlier { start, writes: number(41), at: this_boot.then_some(at) })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: Moment = Moment { boot_ns: 7_000, raw_ns: 6_000 };

    fn tags(key: u8, site: &str, start: u64, boot: u8) -> Tags {
        Tags::new(&MacKey([key; 32]), &site.parse().unwrap(), start, [boot; 16])
    }

    #[test]
    fn a_tag_tells_its_witness_when_it_was_issued_on_both_clocks() {
        let mine = tags(1, "swiss", 3, 9);
        assert_eq!(mine.read(&mine.issue(AT, 5)), Reading::Issued(AT));
    }

    #[test]
    fn a_tag_of_another_witness_or_key_is_foreign() {
        let mine = tags(1, "swiss", 3, 9);
        assert_eq!(mine.read(&tags(2, "swiss", 3, 9).issue(AT, 5)), Reading::Foreign);
        assert_eq!(mine.read(&tags(1, "french", 3, 9).issue(AT, 5)), Reading::Foreign);
        assert_eq!(mine.read(&Tag(vec![])), Reading::Foreign);
        assert_eq!(mine.read(&Tag(vec![1; 40])), Reading::Foreign);
        assert_eq!(mine.read(&Tag(vec![1; 4000])), Reading::Foreign);
    }

    #[test]
    fn a_flipped_bit_anywhere_makes_a_tag_foreign() {
        let mine = tags(1, "swiss", 3, 9);
        let tag = mine.issue(AT, 5);
        for at in 0..tag.0.len() {
            let mut bad = tag.clone();
            bad.0[at] ^= 0x40;
            assert_eq!(mine.read(&bad), Reading::Foreign, "byte {at}");
        }
        let mut longer = tag.clone();
        longer.0.push(0);
        assert_eq!(mine.read(&longer), Reading::Foreign);
    }

    #[test]
    fn a_tag_of_an_earlier_start_tells_its_age_within_one_boot_and_the_writes_of_then() {
        let mine = tags(1, "swiss", 3, 9);
        let earlier = |start, at| Reading::Earlier(Earlier { start, writes: 5, at });
        assert_eq!(mine.read(&tags(1, "swiss", 2, 9).issue(AT, 5)), earlier(2, Some(AT)));
        assert_eq!(mine.read(&tags(1, "swiss", 3, 8).issue(AT, 5)), earlier(3, None));
    }

    #[test]
    fn a_tag_of_a_later_start_gives_a_restored_count_away() {
        assert_eq!(tags(1, "swiss", 3, 9).read(&tags(1, "swiss", 4, 9).issue(AT, 5)), Reading::Later(4));
    }

    #[test]
    fn a_key_is_never_printed() {
        assert!(!format!("{:?}", tags(77, "swiss", 3, 9)).contains("77"));
    }
}
