//! Between generated types and domain types.

use std::time::Duration;

use regent_core::ids::GroupKey;
use regent_core::instruction::Instruction;
use regent_core::merkle::Path;
use regent_core::message::{Entry, MAX_PROOFS, NodeCertificate, Proof, Round, Submission};
use regent_core::plan::Protection;
use regent_core::sign::{Digest, Envelope, Signature};

use crate::v1;

/// Why a message is refused at the edge.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConvertError {
    /// A field that must be there is not.
    #[error("message {message} lacks field {field}")]
    Missing {
        /// The message.
        message: &'static str,
        /// Its field.
        field: &'static str,
    },
    /// A field does not hold what it should.
    #[error("message {message}, field {field}: {why}")]
    Invalid {
        /// The message.
        message: &'static str,
        /// Its field.
        field: &'static str,
        /// What is wrong with it.
        why: String,
    },
}

fn missing(message: &'static str, field: &'static str) -> ConvertError {
    ConvertError::Missing { message, field }
}

fn invalid(message: &'static str, field: &'static str, why: impl ToString) -> ConvertError {
    ConvertError::Invalid { message, field, why: why.to_string() }
}

impl From<ConvertError> for tonic::Status {
    fn from(e: ConvertError) -> Self {
        Self::invalid_argument(e.to_string())
    }
}

impl From<Envelope> for v1::Envelope {
    fn from(e: Envelope) -> Self {
        let signatures = e.signatures.into_iter().map(|s| v1::Signature { keyid: s.keyid, sig: s.sig }).collect();
        Self { payload_type: e.payload_type, payload: e.payload, signatures }
    }
}

impl From<v1::Envelope> for Envelope {
    fn from(e: v1::Envelope) -> Self {
        let signatures = e.signatures.into_iter().map(|s| Signature { keyid: s.keyid, sig: s.sig }).collect();
        Self { payload_type: e.payload_type, payload: e.payload, signatures }
    }
}

fn envelopes(list: Vec<v1::Envelope>) -> Vec<Envelope> {
    list.into_iter().map(Into::into).collect()
}

impl From<Protection> for v1::Protection {
    fn from(p: Protection) -> Self {
        match p {
            Protection::Observed => Self::Observed,
            Protection::Protected => Self::Protected,
            Protection::Retiring => Self::Retiring,
        }
    }
}

impl From<Entry> for v1::Entry {
    fn from(e: Entry) -> Self {
        Self { group: e.group.to_string(), epoch: e.epoch.to_string(), state: v1::Protection::from(e.state).into() }
    }
}

impl TryFrom<v1::Entry> for Entry {
    type Error = ConvertError;
    fn try_from(e: v1::Entry) -> Result<Self, ConvertError> {
        let state = match e.state() {
            v1::Protection::Observed => Protection::Observed,
            v1::Protection::Protected => Protection::Protected,
            v1::Protection::Retiring => Protection::Retiring,
            v1::Protection::Unspecified => return Err(missing("Entry", "state")),
        };
        Ok(Self {
            group: e.group.parse().map_err(|why| invalid("Entry", "group", why))?,
            epoch: e.epoch.parse().map_err(|why| invalid("Entry", "epoch", why))?,
            state,
        })
    }
}

fn entries(list: Vec<v1::Entry>) -> Result<Vec<Entry>, ConvertError> {
    list.into_iter().map(TryInto::try_into).collect()
}

impl From<Round> for v1::Round {
    fn from(r: Round) -> Self {
        Self { request: Some(r.request.into()), grants: r.grants.into_iter().map(Into::into).collect() }
    }
}

impl TryFrom<v1::Round> for Round {
    type Error = ConvertError;
    fn try_from(r: v1::Round) -> Result<Self, ConvertError> {
        let request = r.request.ok_or_else(|| missing("Round", "request"))?.into();
        Ok(Self { request, grants: envelopes(r.grants) })
    }
}

impl From<Submission> for v1::Submission {
    fn from(s: Submission) -> Self {
        let proofs = s.proofs.into_iter().map(|p| {
            // The usual proof covers the very same groups: they are sent once.
            let list = if p.entries == s.entries { Vec::new() } else { p.entries };
            v1::Proof { round: Some(p.round.into()), entries: list.into_iter().map(Into::into).collect() }
        });
        Self {
            request: Some(s.request.into()),
            proofs: proofs.collect(),
            entries: s.entries.into_iter().map(Into::into).collect(),
            plans: s.plans.into_iter().map(Into::into).collect(),
        }
    }
}

impl TryFrom<v1::Submission> for Submission {
    type Error = ConvertError;
    fn try_from(s: v1::Submission) -> Result<Self, ConvertError> {
        let own = entries(s.entries)?;
        let proof = |p: v1::Proof| {
            let round = p.round.ok_or_else(|| missing("Proof", "round"))?.try_into()?;
            let list = if p.entries.is_empty() { own.clone() } else { entries(p.entries)? };
            Ok(Proof { round, entries: list })
        };
        // Bounded before anything is copied for them.
        let proofs = s.proofs.into_iter().take(MAX_PROOFS).map(proof).collect::<Result<_, ConvertError>>()?;
        let request = s.request.ok_or_else(|| missing("Submission", "request"))?.into();
        Ok(Self { request, entries: own, proofs, plans: envelopes(s.plans) })
    }
}

impl From<Path> for v1::Path {
    fn from(p: Path) -> Self {
        Self { index: p.index, count: p.count, siblings: p.siblings.into_iter().map(|d| d.0.to_vec()).collect() }
    }
}

impl TryFrom<v1::Path> for Path {
    type Error = ConvertError;
    fn try_from(p: v1::Path) -> Result<Self, ConvertError> {
        let digest = |bytes: Vec<u8>| {
            let len = bytes.len();
            bytes.try_into().map(Digest).map_err(|_| invalid("Path", "siblings", format!("{len} bytes are no SHA-256")))
        };
        let siblings = p.siblings.into_iter().map(digest).collect::<Result<_, _>>()?;
        Ok(Self { index: p.index, count: p.count, siblings })
    }
}

impl From<NodeCertificate> for v1::NodeCertificate {
    fn from(c: NodeCertificate) -> Self {
        let proof =
            |(entry, path): (Entry, Path)| v1::EntryProof { entry: Some(entry.into()), path: Some(path.into()) };
        Self {
            round: Some(c.round.into()),
            nonce: c.nonce,
            nonce_path: Some(c.nonce_path.into()),
            entries: c.entries.into_iter().map(proof).collect(),
        }
    }
}

impl TryFrom<v1::NodeCertificate> for NodeCertificate {
    type Error = ConvertError;
    fn try_from(c: v1::NodeCertificate) -> Result<Self, ConvertError> {
        let proof = |p: v1::EntryProof| -> Result<(Entry, Path), ConvertError> {
            let entry = p.entry.ok_or_else(|| missing("EntryProof", "entry"))?.try_into()?;
            let path = p.path.ok_or_else(|| missing("EntryProof", "path"))?.try_into()?;
            Ok((entry, path))
        };
        Ok(Self {
            round: c.round.ok_or_else(|| missing("NodeCertificate", "round"))?.try_into()?,
            nonce: c.nonce,
            nonce_path: c.nonce_path.ok_or_else(|| missing("NodeCertificate", "nonce_path"))?.try_into()?,
            entries: c.entries.into_iter().map(proof).collect::<Result<_, _>>()?,
        })
    }
}

impl From<(&GroupKey, Instruction)> for v1::Instruction {
    fn from((group, instruction): (&GroupKey, Instruction)) -> Self {
        use v1::instruction::What;
        let what = match instruction {
            Instruction::Listed => What::Listed(v1::Listed {}),
            Instruction::Protect => What::Protect(v1::Protect {}),
            Instruction::Retire(epoch) => What::Retire(v1::Retire { epoch: epoch.to_string() }),
            Instruction::Configure(limit) => {
                What::Configure(v1::Configure { thaw_limit_ms: u64::try_from(limit.as_millis()).unwrap_or(u64::MAX) })
            }
        };
        Self { group: group.to_string(), what: Some(what) }
    }
}

impl TryFrom<v1::Instruction> for (GroupKey, Instruction) {
    type Error = ConvertError;
    fn try_from(i: v1::Instruction) -> Result<Self, ConvertError> {
        use v1::instruction::What;
        let group = i.group.parse().map_err(|why| invalid("Instruction", "group", why))?;
        let instruction = match i.what.ok_or_else(|| missing("Instruction", "what"))? {
            What::Listed(_) => Instruction::Listed,
            What::Protect(_) => Instruction::Protect,
            What::Retire(r) => Instruction::Retire(r.epoch.parse().map_err(|why| invalid("Retire", "epoch", why))?),
            What::Configure(c) => Instruction::Configure(Duration::from_millis(c.thaw_limit_ms)),
        };
        Ok((group, instruction))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn submission(same: bool) -> Submission {
        let entry = |term: u64| Entry {
            group: "ireland/shop".parse().unwrap(),
            epoch: format!("{term}.1").parse().unwrap(),
            state: Protection::Protected,
        };
        let envelope = Envelope { payload_type: "t".into(), payload: vec![1, 2], signatures: vec![] };
        let round = Round { request: envelope.clone(), grants: vec![envelope.clone()] };
        let proofs = vec![Proof { round, entries: vec![entry(if same { 2 } else { 1 })] }];
        Submission { request: envelope.clone(), entries: vec![entry(2)], proofs, plans: vec![envelope] }
    }

    #[test]
    fn a_submission_survives_the_wire_whether_or_not_its_proof_covers_the_same_groups() {
        for same in [true, false] {
            let wire = v1::Submission::from(submission(same));
            assert_eq!(wire.proofs[0].entries.is_empty(), same);
            assert_eq!(Submission::try_from(wire).unwrap(), submission(same));
        }
    }

    #[test]
    fn an_instruction_survives_the_wire() {
        let group: GroupKey = "ireland/shop".parse().unwrap();
        let retire = Instruction::Retire("3.1".parse().unwrap());
        for instruction in
            [Instruction::Listed, Instruction::Protect, retire, Instruction::Configure(Duration::from_millis(1500))]
        {
            let wire = v1::Instruction::from((&group, instruction));
            assert_eq!(<(GroupKey, Instruction)>::try_from(wire), Ok((group.clone(), instruction)));
        }
        let nothing = v1::Instruction { group: group.to_string(), what: None };
        let error = <(GroupKey, Instruction)>::try_from(nothing).unwrap_err().to_string();
        assert_eq!(error, "message Instruction lacks field what");
    }

    #[test]
    fn a_wrong_field_is_named() {
        let mut wire = v1::Submission::from(submission(true));
        wire.entries[0].group = "Ireland".into();
        let error = Submission::try_from(wire).unwrap_err().to_string();
        assert!(error.contains("Entry") && error.contains("group") && error.contains("HOME/NAME"), "{error}");
        assert!(Submission::try_from(v1::Submission::default()).is_err());
    }
}
