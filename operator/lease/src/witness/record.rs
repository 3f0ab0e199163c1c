//! What a witness persists of a group.

use serde::{Deserialize, Serialize};

use regent_core::ids::{Epoch, SiteName};
use regent_core::message::Vote;
use regent_core::sign::{Digest, Envelope};

/// An epoch that its holder ended (L12).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Retired {
    /// Nothing at or below it is ever granted again.
    pub epoch: Epoch,
    /// Who was to acquire next.
    pub successor: SiteName,
}

/// A group's persisted state, written by compare-and-swap before what rests on it is
/// answered. Unknown fields are refused: dropping one would forget a promise.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Record {
    /// The count of starts under which it was written: the witness's own fencing token (L9).
    pub start: u64,
    /// Grows with each write, so that no write leaves the object unchanged and every
    /// older write in flight fails its comparison.
    pub writes: u64,
    /// The start in which it was last read from others (L8): tags of earlier ones count writes
    /// that are gone.
    #[serde(default)]
    pub recovered: u64,
    /// The charter under which it was written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub charter: Option<Digest>,
    /// Wall clock of the write, seconds since 1970 (L14 only).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub written_s: Option<u64>,
    /// The vote.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vote: Option<Vote>,
    /// The highest retired epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retired: Option<Retired>,
    /// The newest plan, signed by home and countersigned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plan: Option<Envelope>,
    /// The highest epoch of which a certificate was shown. Written with the next change
    /// of the others: it never delays a renewal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certified: Option<Vote>,
    /// When the holder changed, by certificates, within the last hour: wall clock,
    /// seconds since 1970, 0 where there was none (L14).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub changes_s: Vec<u64>,
}
