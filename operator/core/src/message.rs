//! The control lease's messages (docs/protocol.md, "Messages") and what makes a certificate.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::charter::{Charter, Pinned};
use crate::ids::{Epoch, GroupKey, SiteName};
use crate::merkle::{Path, Tree};
use crate::plan::Protection;
use crate::sign::{Digest, Envelope, SignError, Statement, base64_bytes};

/// How a candidate stands in line at a witness (L4.7).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Line {
    /// It only wants to know: it would not acquire, or heard fewer than a quorum of late
    /// and must not hold up others.
    Beside,
    /// All that it would run is ready.
    Ready,
    /// Only a part is: it acquires when no ready one asks.
    Degraded,
}

/// What a site asks of a witness. A signature on one kind never counts for another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase", tag = "kind")]
pub enum Ask {
    /// Renew or acquire all entries. The only kind whose answers make a certificate.
    Grant,
    /// Would you grant these entries? No effect beyond waiting in line (L11).
    Query {
        /// Where the question puts the site. What it says of itself orders claimants as
        /// ranks do: a lie costs time and nothing else.
        line: Line,
    },
    /// Retire an epoch in favour of a successor (L12).
    Retire {
        /// Of which group.
        group: GroupKey,
        /// The epoch that ends.
        epoch: Epoch,
        /// Who is to acquire next.
        successor: SiteName,
    },
    /// Every node has stopped: drop the promise (L12).
    Release {
        /// Of which group.
        group: GroupKey,
        /// The epoch that has ended.
        epoch: Epoch,
    },
}

/// One group in a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// The group.
    pub group: GroupKey,
    /// The epoch that is asked for.
    pub epoch: Epoch,
    /// `Observed` or `Protected`.
    pub state: Protection,
}

impl Entry {
    /// The bytes that the Merkle tree of entries is made over.
    pub fn leaf(&self) -> Vec<u8> {
        let state = match self.state {
            Protection::Observed => "observed",
            Protection::Protected => "protected",
            Protection::Retiring => "retiring",
        };
        format!("{} {} {}", self.group, self.epoch, state).into_bytes()
    }
}

/// The Merkle tree over a request's entries, in their order.
pub fn entry_tree(entries: &[Entry]) -> Tree {
    Tree::over(entries.iter().map(Entry::leaf))
}

/// A witness's note to itself: when it answered. Opaque to everyone else.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Tag(#[serde(with = "base64_bytes")] pub Vec<u8>);

/// A site's request, signed by the site.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Request {
    /// The charter under which it is made.
    pub charter_version: u64,
    /// Which charter of that version ([`Pinned::digest`]): how long a promise lasts, and whose
    /// promises make a quorum, is written there.
    pub charter: Digest,
    /// Who asks.
    pub site: SiteName,
    /// What for.
    pub ask: Ask,
    /// Makes this request unlike any other; random.
    pub id: Digest,
    /// Root over the nonces of the site's guards ([`Tree`] in the order of their paths).
    pub nonce_root: Digest,
    /// Root over the entries ([`entry_tree`]).
    pub entry_root: Digest,
    /// For each witness the tag that it gave in its last answer.
    pub tags: BTreeMap<SiteName, Tag>,
}

impl Statement for Request {
    const PAYLOAD_TYPE: &'static str = "application/vnd.regent.lease-request.v1+json";
}

/// The rule by which a witness refuses a group (L4, in its order). One name a rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Refusal {
    /// L4.1: no plan of the group is known here.
    UnknownGroup,
    /// L4.1: neither home nor a standby of the plan that countersigned it.
    NotInPlan,
    /// L4.1: a standby, while the plan is not yet `Protected`.
    NotProtectedYet,
    /// L4.1: `Observed` is asked where the plan says `Protected`.
    StateBehindPlan,
    /// L4.1: the group may not run in the site's country (I5).
    UnlawfulCountry,
    /// L4.2: the witness's state may be stale (L8).
    Stale,
    /// L4.2: the witness waits after a start or a change of leader (L7, L9).
    Waiting,
    /// L4.3: an unexpired promise goes to another site.
    Promised,
    /// L4.4: lower than the vote, or the same epoch of another site.
    HigherVote,
    /// L4.4: not above the retired epoch.
    Retired,
    /// L4.5: the term leaps more than 16 ahead.
    TermLeap,
    /// L4.6: no trigger holds.
    NoTrigger,
    /// L4.7: a better claimant waits in line.
    BetterClaimant,
    /// L4.8: an interlock holds the group (L14).
    Interlock,
    /// L12: a retirement that does not come from the epoch's site, or is above the vote.
    NotYours,
    /// Another change of this group is being persisted.
    Busy,
    /// The decision could not be persisted.
    NotPersisted,
}

/// A vote: to which site, under which epoch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Vote {
    /// The site.
    pub site: SiteName,
    /// Its epoch.
    pub epoch: Epoch,
}

/// A group that an answer does not grant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Exception {
    /// The group.
    pub group: GroupKey,
    /// Why.
    pub reason: Refusal,
    /// How long until this reason may be gone at this witness, in milliseconds, if time alone does it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wait_ms: Option<u64>,
}

/// A witness's answer, signed by the witness: it grants what it does not except.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Grant {
    /// Who answers.
    pub witness: SiteName,
    /// Digest of the request's envelope.
    pub request: Digest,
    /// Groups that are not granted.
    pub exceptions: Vec<Exception>,
    /// The votes of this witness for excepted groups, and for all groups of a query.
    pub votes: BTreeMap<GroupKey, Vote>,
    /// The versions of the plans that this witness has persisted, for the same groups and
    /// for those whose plan came with the submission: whoever holds a newer one sends it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub plans: BTreeMap<GroupKey, u64>,
    /// Granted groups that a brake would keep from any other site, and for how long, in
    /// milliseconds (L14): a planned move of one would only stop it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub braked: BTreeMap<GroupKey, u64>,
    /// The witness's count of starts: unchanged between two answers, it has forgotten nothing.
    #[serde(default)]
    pub start: u64,
    /// To be quoted in the site's next request.
    pub tag: Tag,
}

impl Statement for Grant {
    const PAYLOAD_TYPE: &'static str = "application/vnd.regent.lease-grant.v1+json";
}

impl Grant {
    /// Why a group is not granted, if it isn't.
    pub fn exception(&self, group: &GroupKey) -> Option<&Exception> {
        self.exceptions.iter().find(|e| &e.group == group)
    }
}

/// A request and the grants that answer it, as signed. A certificate for each group
/// that a quorum of the grants does not except.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Round {
    /// The signed [`Request`].
    pub request: Envelope,
    /// The signed [`Grant`]s.
    pub grants: Vec<Envelope>,
}

/// Why a round is no certificate.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RoundError {
    /// A signature or a payload is wrong.
    #[error("lease round: {0}")]
    Sign(#[from] SignError),
    /// Made under another charter.
    #[error("lease round is under charter version {found}, this is version {wanted}")]
    Charter {
        /// Found.
        found: u64,
        /// Needed.
        wanted: u64,
    },
    /// Made under another charter of the same version.
    #[error("lease round is under another charter of version {0}")]
    OtherCharter(u64),
    /// Signed by a site that the charter does not name.
    #[error("lease round is of site {0}, which the charter does not name")]
    UnknownSite(SiteName),
    /// Only [`Ask::Grant`] makes certificates.
    #[error("lease round answers no grant request: its answers promise nothing")]
    NotAGrant,
    /// The entries are not those that were signed.
    #[error("entries do not match the signed root of the lease round")]
    WrongEntries,
}

/// A round whose signatures have been verified: who asked, and who granted what.
#[derive(Debug, Clone)]
pub struct VerifiedRound {
    /// What was asked.
    pub request: Request,
    /// Answers of distinct witnesses.
    pub grants: Vec<Grant>,
    quorum: usize,
}

impl Round {
    /// Verifies every signature under the charter. Answers that are not valid grants of
    /// distinct witnesses of the charter to this very request are left out.
    pub fn verify(&self, charter: &Pinned) -> Result<VerifiedRound, RoundError> {
        let claimed: Request = self.request.peek()?;
        if claimed.charter_version != charter.version {
            return Err(RoundError::Charter { found: claimed.charter_version, wanted: charter.version });
        }
        if claimed.charter != charter.digest() {
            return Err(RoundError::OtherCharter(charter.version));
        }
        let site = charter.site(&claimed.site).ok_or_else(|| RoundError::UnknownSite(claimed.site.clone()))?;
        if !self.request.is_signed_by(site.name.as_str(), &site.key) {
            return Err(SignError::NotSigned(site.name.to_string()).into());
        }
        let request = claimed;
        if request.ask != Ask::Grant {
            return Err(RoundError::NotAGrant);
        }
        let digest = self.request.digest();
        let mut grants: BTreeMap<SiteName, Grant> = BTreeMap::new();
        for envelope in &self.grants {
            if let Some(grant) = verify_grant(charter, envelope, &digest) {
                grants.entry(grant.witness.clone()).or_insert(grant);
            }
        }
        Ok(VerifiedRound { request, grants: grants.into_values().collect(), quorum: charter.quorum() })
    }
}

/// A grant of a charter's witness to the request with that digest, or none.
pub fn verify_grant(charter: &Charter, envelope: &Envelope, request: &Digest) -> Option<Grant> {
    let claimed: Grant = envelope.peek().ok()?;
    if &claimed.request != request || !charter.is_witness(&claimed.witness) {
        return None;
    }
    let witness = charter.site(&claimed.witness)?;
    envelope.is_signed_by(witness.name.as_str(), &witness.key).then_some(claimed)
}

impl VerifiedRound {
    /// Whether a quorum granted this group. The caller proves that the group is an
    /// entry of the request ([`Self::covers`] or [`Self::entry_is_covered`]).
    pub fn is_granted(&self, group: &GroupKey) -> bool {
        self.grants.iter().filter(|g| g.exception(group).is_none()).count() >= self.quorum
    }

    /// Whether these are the request's entries.
    pub fn covers(&self, entries: &[Entry]) -> bool {
        entry_tree(entries).root() == self.request.entry_root
    }

    /// Whether the entry is one of the request's.
    pub fn entry_is_covered(&self, entry: &Entry, path: &Path) -> bool {
        path.proves(&entry.leaf(), &self.request.entry_root)
    }

    /// Whether the nonce is one of the request's.
    pub fn nonce_is_covered(&self, nonce: &[u8], path: &Path) -> bool {
        path.proves(nonce, &self.request.nonce_root)
    }
}

/// The most proofs of one submission.
pub const MAX_PROOFS: usize = 2;

/// What travels with a request and is not signed again: it is checked by itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Submission {
    /// The signed [`Request`].
    pub request: Envelope,
    /// Its entries, whose root is in the request.
    pub entries: Vec<Entry>,
    /// The last certificate of each group, as proof of a quorum (L2): the round before, and
    /// another one where that doesn't prove all ([`MAX_PROOFS`]).
    pub proofs: Vec<Proof>,
    /// Plans for witnesses that hold an older version: signed by home and countersigned.
    pub plans: Vec<Envelope>,
}

/// A certificate that is shown to a witness.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proof {
    /// The round.
    pub round: Round,
    /// Its entries.
    pub entries: Vec<Entry>,
}

/// What a guard is shown: a round, the place of its nonce, and its groups' entries.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeCertificate {
    /// The round.
    pub round: Round,
    /// The guard's nonce, as it was asked with.
    #[serde(with = "base64_bytes")]
    pub nonce: Vec<u8>,
    /// Its place under the request's nonce root.
    pub nonce_path: Path,
    /// The groups of this node.
    pub entries: Vec<(Entry, Path)>,
}
