//! What a certificate must show before a guard counts it (L13).

use super::journal::{GroupRecord, Lease};
use super::nonce::Asked;
use super::pod::PodEvent;
use super::{Effect, Guard};
use regent_core::ids::{Epoch, GroupKey, SiteName};
use regent_core::merkle::Path;
use regent_core::message::{Entry, NodeCertificate, RoundError, VerifiedRound};
use regent_core::plan::Protection;
use regent_core::time::Moment;

/// Why a certificate, or one group of it, counts for nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    /// The round is no certificate at all.
    #[error(transparent)]
    Round(#[from] RoundError),
    /// It answers a nonce that this guard did not make, or made too long ago to remember.
    #[error("certificate answers no nonce of this guard; ask with a fresh one")]
    UnknownNonce,
    /// The nonce is not under the request's root at that place.
    #[error("the nonce is not under the signed root of the request")]
    NonceNotCovered,
    /// The entry is not under the request's root at that place.
    #[error("group {0} is not under the signed root of the request")]
    NotCovered(GroupKey),
    /// Fewer than a quorum granted the group.
    #[error("group {0} was not granted by a quorum of witnesses")]
    NotGranted(GroupKey),
    /// The epoch's number is another site's.
    #[error("epoch {1} of group {0} is not of the site that asked")]
    ForeignEpoch(GroupKey, Epoch),
    /// A higher epoch is known here (I2).
    #[error("epoch {1} of group {0} is below {2}, which this node has seen")]
    OldEpoch(GroupKey, Epoch, Epoch),
    /// The epoch is retired here (L12).
    #[error("epoch {1} of group {0} is retired")]
    Retired(GroupKey, Epoch),
    /// It counted until before now.
    #[error("the certificate of group {0} has run out")]
    RunOut(GroupKey),
    /// An `Observed` certificate whose nonce is older than the node's place on the list.
    #[error("group {0} is Observed, and the nonce is older than this node's place on its list")]
    NotListed(GroupKey),
}

/// What came of a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certification {
    /// To be done, in this order.
    pub effects: Vec<Effect>,
    /// Groups that it counts for.
    pub accepted: Vec<GroupKey>,
    /// What does not count, and why.
    pub rejected: Vec<Rejection>,
}

impl Guard {
    /// Is shown a certificate by whomever, and verifies all of it. One of another site,
    /// for a higher epoch than this node has seen, stops the group for good here.
    pub fn on_certificate(&mut self, now: Moment, certificate: &NodeCertificate) -> Certification {
        self.advance(now);
        let mut accepted = Vec::new();
        let mut rejected = Vec::new();
        match self.check_round(certificate) {
            Err(rejection) => rejected.push(rejection),
            Ok((round, asked)) => {
                for (entry, path) in &certificate.entries {
                    match self.check_entry(now, &round, asked, entry, path) {
                        Ok(()) => accepted.push(entry.group.clone()),
                        Err(rejection) => rejected.push(rejection),
                    }
                }
            }
        }
        Certification { effects: self.finish(), accepted, rejected }
    }

    /// The verified round, and for one of our own site when its nonce was made.
    fn check_round(&self, certificate: &NodeCertificate) -> Result<(VerifiedRound, Option<Asked>), Rejection> {
        let round = certificate.round.verify(&self.config.charter)?;
        if round.request.site != self.config.site {
            return Ok((round, None));
        }
        let asked = self.nonces.find(&certificate.nonce).ok_or(Rejection::UnknownNonce)?;
        if !round.nonce_is_covered(&certificate.nonce, &certificate.nonce_path) {
            return Err(Rejection::NonceNotCovered);
        }
        Ok((round, Some(asked)))
    }

    fn check_entry(
        &mut self,
        now: Moment,
        round: &VerifiedRound,
        asked: Option<Asked>,
        entry: &Entry,
        path: &Path,
    ) -> Result<(), Rejection> {
        let group = || entry.group.clone();
        if !round.entry_is_covered(entry, path) {
            return Err(Rejection::NotCovered(group()));
        }
        if !round.is_granted(&entry.group) {
            return Err(Rejection::NotGranted(group()));
        }
        if Some(entry.epoch.site) != self.number_of(&round.request.site) {
            return Err(Rejection::ForeignEpoch(group(), entry.epoch));
        }
        match asked {
            Some(asked) => self.check_own(now, asked, entry),
            None => self.check_rival(entry),
        }
    }

    fn number_of(&self, site: &SiteName) -> Option<u32> {
        if site == &self.config.site { Some(self.number) } else { self.config.charter.site(site).map(|s| s.number) }
    }

    fn check_own(&mut self, now: Moment, asked: Asked, entry: &Entry) -> Result<(), Rejection> {
        let group = || entry.group.clone();
        let known = self.journal.groups.get(&entry.group);
        if let Some(highest) = known.and_then(|r| r.highest).filter(|h| entry.epoch < *h) {
            return Err(Rejection::OldEpoch(group(), entry.epoch, highest));
        }
        if known.is_some_and(|r| Some(entry.epoch) <= r.retired) {
            return Err(Rejection::Retired(group(), entry.epoch));
        }
        let until = asked.at.after(self.config.charter.usable_lease());
        let run_out = until.passed_for_stopping(now);
        let fenced = known.is_some_and(|r| r.protected);
        if entry.state == Protection::Observed && !fenced {
            let listed = known.is_some_and(|r| r.listed);
            let fresh = self.listed_from.get(&entry.group).is_none_or(|from| asked.serial >= *from);
            if !(listed && fresh) {
                return Err(Rejection::NotListed(group()));
            }
        } else if run_out {
            return Err(Rejection::RunOut(group()));
        }
        self.accept(now, entry, until, run_out);
        Ok(())
    }

    fn accept(&mut self, now: Moment, entry: &Entry, until: Moment, run_out: bool) {
        let record = self.journal.groups.entry(entry.group.clone()).or_default();
        let before = (record.highest, record.protected, record.observed);
        record.highest = record.highest.max(Some(entry.epoch));
        if entry.state == Protection::Observed && !record.protected {
            record.observed = Some(entry.epoch);
        } else {
            record.protected = true;
            record.observed = None;
        }
        if !run_out {
            record.lease = Some(renewed(record, entry.epoch, until));
        }
        let durable = before != (record.highest, record.protected, record.observed);
        self.mark(durable);
        self.settle(now, &entry.group);
    }

    /// Another site holds the group under a higher epoch: what runs here never goes on.
    fn check_rival(&mut self, entry: &Entry) -> Result<(), Rejection> {
        let record = self.journal.groups.entry(entry.group.clone()).or_default();
        if let Some(highest) = record.highest.filter(|h| entry.epoch <= *h) {
            return Err(Rejection::OldEpoch(entry.group.clone(), entry.epoch, highest));
        }
        record.highest = Some(entry.epoch);
        record.lease = None;
        record.observed = None;
        self.mark(true);
        let pods: Vec<_> = self.pods_of(&entry.group).map(|p| p.pod.uid.clone()).collect();
        for uid in pods {
            self.step(&uid, PodEvent::Stop);
        }
        Ok(())
    }
}

/// A higher epoch's certificate replaces the time that a lower one gave; the same
/// epoch's never shortens it (L13).
fn renewed(record: &GroupRecord, epoch: Epoch, until: Moment) -> Lease {
    match record.lease {
        Some(old) if old.epoch == epoch => Lease { epoch, until: old.until.max(until) },
        _ => Lease { epoch, until },
    }
}
