//! `Charter` objects: the charter in force is shown, others are verified.

use jiff::Timestamp;
use kube::ResourceExt;
use kube::api::{Api, ListParams, ObjectMeta, Patch, PatchParams, PostParams};
use regent_api::charter::{ACCEPTED, IN_FORCE};
use regent_api::condition::{self, Truth};
use regent_api::{Charter as CharterObject, CharterSpec, CharterStatus, FIELD_MANAGER, duration};
use regent_core::charter::{Charter, MAX_SITES, MAX_WITNESSES, SignatureError, SignedCharter};
use regent_core::sign::Envelope;

use crate::context::Context;
use crate::objects::{ObjectError, bounded};

/// What is said of a charter: its text where it can be read, and two conditions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    charter: Option<Charter>,
    accepted: (Truth, &'static str, String),
    in_force: (Truth, &'static str, String),
}

fn reason_of(error: &SignatureError) -> &'static str {
    match error {
        SignatureError::Sign(_) | SignatureError::TooLarge { .. } | SignatureError::Empty => "Unreadable",
        SignatureError::Text { .. } => "Invalid",
        SignatureError::TooFewSignatures { .. } => "NotSigned",
        SignatureError::NotFirst { .. } | SignatureError::NotNext { .. } => "WrongVersion",
        SignatureError::NumberReused { .. } => "NumberReused",
    }
}

/// Judges a charter beside the one in force.
pub fn judge(envelope: Result<Envelope, String>, force: &Envelope, current: &Charter) -> Verdict {
    let not_used = |why: &'static str, message: String| (Truth::False, why, message);
    let envelope = match envelope {
        Ok(envelope) => envelope,
        Err(e) => {
            let message = format!("spec.envelope: {e}; paste the signed charter as it is");
            return Verdict {
                charter: None,
                accepted: (Truth::False, "Unreadable", message),
                in_force: not_used("NotAccepted", "it is not accepted".into()),
            };
        }
    };
    let signed = SignedCharter(envelope);
    let is_current = signed.0.digest() == force.digest();
    let verified = if is_current { signed.verify_pinned() } else { signed.verify_next(current) };
    let charter = signed.0.peek::<Charter>().ok();
    match verified {
        Ok(_) if is_current => Verdict {
            charter,
            accepted: (Truth::True, "Verified", "signed by the parties that it demands".into()),
            in_force: (Truth::True, "Pinned", "the operator works by this charter".into()),
        },
        Ok(next) => Verdict {
            charter,
            accepted: (
                Truth::True,
                "Verified",
                format!("signed by the parties that version {} demands", current.version),
            ),
            in_force: not_used(
                "CannotReplace",
                format!(
                    "version {} stays in force: a charter can't be replaced while groups are held. Don't put version {} into the chart's value `charter`: witnesses refuse to start with it, and every group would pause",
                    current.version, next.version
                ),
            ),
        },
        Err(e) => Verdict {
            charter,
            accepted: (Truth::False, reason_of(&e), e.to_string()),
            in_force: not_used("NotAccepted", format!("version {} stays in force", current.version)),
        },
    }
}

/// The status that shows a verdict; times of transitions are kept from the old one.
fn status(verdict: &Verdict, digest: Option<String>, old: &CharterStatus, generation: Option<i64>) -> CharterStatus {
    let mut conditions = old.conditions.clone();
    let now = Timestamp::now();
    for (kind, (truth, reason, message)) in [(ACCEPTED, &verdict.accepted), (IN_FORCE, &verdict.in_force)] {
        condition::set(&mut conditions, kind, *truth, reason, message, generation, now);
    }
    let shown = verdict.charter.as_ref();
    let small = |n: usize| i32::try_from(n).ok();
    CharterStatus {
        observed_generation: generation,
        name: shown.map(|c| c.name.clone()),
        version: shown.and_then(|c| i64::try_from(c.version).ok()),
        digest,
        sites: shown.map(|c| c.sites.iter().take(MAX_SITES).map(|s| s.name.to_string()).collect()).unwrap_or_default(),
        witnesses: shown
            .map(|c| c.witnesses.iter().take(MAX_WITNESSES).map(ToString::to_string).collect())
            .unwrap_or_default(),
        witness_count: shown.and_then(|c| small(c.witness_count())),
        faulty_witnesses: shown.and_then(|c| i32::try_from(c.faulty_witnesses).ok()),
        quorum: shown.and_then(|c| small(c.quorum())),
        lease_duration: shown.map(|c| duration::format(c.lease_duration())),
        conditions,
    }
}

/// Shows the charter in force, and says of each Charter object what it is worth.
pub async fn reconcile(client: &kube::Client, context: &Context) -> Result<(), ObjectError> {
    let api: Api<CharterObject> = Api::all(client.clone());
    let mut all = bounded("Charters", api.list(&ListParams::default())).await?.items;
    let is_shown = |o: &CharterObject| o.spec.envelope().is_ok_and(|e| e.digest() == context.charter_envelope.digest());
    if !all.iter().any(is_shown)
        && let Ok(spec) = CharterSpec::of(&context.charter_envelope)
    {
        let name = format!("{}-v{}", context.charter.name, context.charter.version);
        let metadata = ObjectMeta { name: Some(name.clone()), ..ObjectMeta::default() };
        let object = CharterObject { metadata, spec, status: None };
        match bounded(&format!("Charter {name}"), api.create(&PostParams::default(), &object)).await {
            Ok(made) => all.push(made),
            Err(e) if e.is_conflict() => {}
            Err(e) => return Err(e),
        }
    }
    for object in all {
        let name = object.name_any();
        let envelope = object.spec.envelope().map_err(|e| e.to_string());
        let digest = envelope.as_ref().ok().map(|e| e.digest().to_string());
        let verdict = judge(envelope, &context.charter_envelope, &context.charter);
        let old = object.status.unwrap_or_default();
        let new = status(&verdict, digest, &old, object.metadata.generation);
        if new == old {
            continue;
        }
        let patch = serde_json::json!({ "apiVersion": "regent.dev/v1alpha1", "kind": "Charter", "metadata": { "name": name }, "status": new });
        let params = PatchParams::apply(FIELD_MANAGER).force();
        bounded(&format!("Charter {name}"), api.patch_status(&name, &params, &Patch::Apply(&patch))).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reconcile::tests::{charter, signed};

    #[test]
    fn an_unsigned_badly_signed_or_unreadable_charter_is_not_accepted_and_says_what_to_do() {
        let current = charter();
        let force = signed(&current, 3);
        let mut next = current.clone();
        next.version = 2;
        let good = signed(&next, 3);
        let bad = Envelope { signatures: force.signatures.clone(), ..good.clone() };
        let unsigned = Envelope { signatures: Vec::new(), ..good.clone() };
        let verdict = |e: Result<Envelope, String>| judge(e, &force, &current);

        let shown = verdict(Ok(force.clone()));
        assert_eq!((shown.accepted.0, shown.in_force.0), (Truth::True, Truth::True), "{shown:?}");
        let offered = verdict(Ok(good));
        assert_eq!((offered.accepted.0, offered.in_force.1), (Truth::True, "CannotReplace"), "{offered:?}");
        for envelope in [bad, unsigned, signed(&next, 2)] {
            let refused = verdict(Ok(envelope));
            assert_eq!((refused.accepted.0, refused.accepted.1), (Truth::False, "NotSigned"));
            assert!(refused.accepted.2.contains("have others of its parties sign"), "{}", refused.accepted.2);
        }
        assert_eq!(verdict(Err("no base64".into())).accepted.1, "Unreadable");
    }

    #[test]
    fn a_quorum_too_small_or_an_impossible_timing_is_named() {
        let current = charter();
        let force = signed(&current, 3);
        let too_small = Charter { version: 2, faulty_witnesses: 2, ..current.clone() };
        let too_long = Charter { version: 2, lease_duration_ms: 61_000, ..current.clone() };
        for (charter, field) in [(too_small, "faultyWitnesses"), (too_long, "leaseDuration")] {
            let refused = judge(Ok(signed(&charter, 3)), &force, &current);
            assert_eq!(refused.accepted.1, "Invalid", "{refused:?}");
            assert!(refused.accepted.2.contains(field), "{}", refused.accepted.2);
        }
    }

    #[test]
    fn a_status_shows_quorum_and_lease_duration() {
        let current = charter();
        let force = signed(&current, 3);
        let shown = status(&judge(Ok(force.clone()), &force, &current), None, &CharterStatus::default(), Some(1));
        assert_eq!((shown.quorum, shown.lease_duration.as_deref()), (Some(3), Some("5s")));
        assert!(condition::is_true(&shown.conditions, ACCEPTED));
    }
}
