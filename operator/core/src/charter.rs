//! The charter: the signed trust root of a federation.

mod failure;
mod signed;
#[cfg(test)]
mod tests;
mod verify;

use std::collections::BTreeMap;
use std::ops::Deref;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::ids::{PartyName, SiteName};
use crate::sign::{Digest, PublicKey, Statement};

pub use failure::{Analysis, Cause, Outcome};
pub use signed::{SignatureError, SignedCharter};
pub use verify::{CharterError, MAX_PARTIES, MAX_SITES, MAX_WITNESSES};

/// What a party is to the federation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Role {
    /// Operates the home sites.
    Primary,
    /// Takes over.
    Partner,
    /// Keeps the escrow.
    Keeper,
    /// Votes, and has no other interest.
    Neutral,
    /// Owns workloads and data.
    Customer,
}

/// A legal entity.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Party {
    /// The name by which the charter speaks of it.
    pub name: PartyName,
    /// Its name as people know it.
    #[serde(default)]
    pub display_name: String,
    /// What it is here.
    pub role: Role,
    /// Country of its seat, ISO 3166-1 alpha-2.
    pub country: String,
    /// Country of its ultimate control, ISO 3166-1 alpha-2.
    pub control: String,
    /// Verifies what it signs (charters).
    pub key: PublicKey,
}

/// A site as the charter names it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SiteEntry {
    /// Its name.
    pub name: SiteName,
    /// Its number in epochs; unique and never given to another site.
    pub number: u32,
    /// Who runs it.
    pub party: PartyName,
    /// Where it is, ISO 3166-1 alpha-2.
    pub country: String,
    /// Where its operators answer other sites: `IP:PORT`, any of which will do.
    pub addresses: Vec<String>,
    /// Verifies what the site signs.
    pub key: PublicKey,
    /// The CA (PEM) of the site's own TLS certificates; its anchor at every other site.
    pub tls_anchor: String,
}

/// How many certified changes of holder an hour are let through (L14).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Interlock {
    /// For one group.
    pub changes_per_group_hour: u32,
    /// For all groups of one party's sites. A group's first within the hour isn't counted.
    pub changes_per_party_hour: u32,
}

impl Default for Interlock {
    fn default() -> Self {
        Self { changes_per_group_hour: 4, changes_per_party_hour: 50 }
    }
}

/// The charter's text. It is in force when its thresholds signed it: see `verify`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Charter {
    /// The federation's name.
    pub name: String,
    /// Grows by one with each version.
    pub version: u64,
    /// Who takes part.
    pub parties: Vec<Party>,
    /// How many different parties must sign the next version (and the first, itself).
    pub threshold: u32,
    /// Where things run.
    pub sites: Vec<SiteEntry>,
    /// The sites that vote.
    pub witnesses: Vec<SiteName>,
    /// `f`: how many of them may be faulty. `n >= 3f + 1`.
    pub faulty_witnesses: u32,
    /// `D`, in milliseconds.
    pub lease_duration_ms: u64,
    /// ρ, the bound on a clock's drift against real time, in parts per million.
    #[serde(default = "default_drift")]
    pub clock_drift_ppm: u32,
    /// Brakes on changes of holder.
    #[serde(default)]
    pub interlock: Interlock,
}

fn default_drift() -> u32 {
    1000
}

impl Statement for Charter {
    const PAYLOAD_TYPE: &'static str = "application/vnd.regent.charter.v1+json";
}

/// A charter that was verified, with what tells it from every other one. Two charters may
/// bear one version (a federation that was begun anew, a version that was signed twice).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pinned {
    charter: Charter,
    digest: Digest,
}

impl From<Charter> for Pinned {
    fn from(charter: Charter) -> Self {
        // A struct of strings, numbers and lists always has a text.
        let digest = Digest::of(&serde_json::to_vec(&charter).unwrap_or_default());
        Self { charter, digest }
    }
}

impl Pinned {
    /// Of its text: what requests are bound to.
    pub fn digest(&self) -> Digest {
        self.digest
    }
}

impl Deref for Pinned {
    type Target = Charter;
    fn deref(&self) -> &Charter {
        &self.charter
    }
}

impl Charter {
    /// `n`.
    pub fn witness_count(&self) -> usize {
        self.witnesses.len()
    }

    /// `q = floor((n + f) / 2) + 1`: two quorums share an honest witness (I3).
    pub fn quorum(&self) -> usize {
        (self.witnesses.len() + self.faulty_witnesses as usize) / 2 + 1
    }

    /// `D`.
    pub fn lease_duration(&self) -> Duration {
        Duration::from_millis(self.lease_duration_ms)
    }

    /// `P = D / 6`, the renewal period.
    pub fn renewal_period(&self) -> Duration {
        self.lease_duration() / 6
    }

    /// `A = D (1 - ρ) / (1 + ρ)`: what a guard may use of a lease.
    pub fn usable_lease(&self) -> Duration {
        let ppm = u64::from(self.clock_drift_ppm);
        let ns = self.lease_duration().as_nanos() * u128::from(1_000_000u64.saturating_sub(ppm))
            / u128::from(1_000_000 + ppm);
        Duration::from_nanos(u64::try_from(ns).unwrap_or(u64::MAX))
    }

    /// A site by its name.
    pub fn site(&self, name: &SiteName) -> Option<&SiteEntry> {
        self.sites.iter().find(|s| &s.name == name)
    }

    /// A party by its name.
    pub fn party(&self, name: &PartyName) -> Option<&Party> {
        self.parties.iter().find(|p| &p.name == name)
    }

    /// Whether a site votes.
    pub fn is_witness(&self, name: &SiteName) -> bool {
        self.witnesses.contains(name)
    }

    /// Sites by their numbers in epochs.
    pub fn sites_by_number(&self) -> BTreeMap<u32, &SiteEntry> {
        self.sites.iter().map(|s| (s.number, s)).collect()
    }
}
