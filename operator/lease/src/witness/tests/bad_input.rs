//! What is not answered at all.

use std::collections::BTreeMap;

use super::support::*;
use crate::witness::{Ignored, MAX_ENTRIES, MAX_GRANTS, MAX_TAGS, RequestError};
use regent_core::message::{Ask, Line, Proof, Request, Round, Submission, Tag};
use regent_core::plan::Protection;
use regent_core::sign::{Digest, Envelope, SignError};

fn refused(bench: &mut Bench, submission: &Submission) -> RequestError {
    let before = format!("{:?}", bench.witness.explain(at(START + P)));
    let error = bench.witness.receive(at(START + P), submission, None).unwrap_err();
    assert_eq!(before, format!("{:?}", bench.witness.explain(at(START + P))), "it must leave no trace");
    error
}

/// A request that `signer` signs as `name`, changed by `change` before.
fn signed_as(name: &str, signer: &str, change: impl FnOnce(&mut Request)) -> Submission {
    let entries = vec![entry("1.1")];
    let mut request = request(name, Ask::Grant, &entries, BTreeMap::new(), 1);
    change(&mut request);
    Submission { request: Envelope::sign(&request, name, &key(signer)), entries, proofs: Vec::new(), plans: Vec::new() }
}

#[test]
fn a_request_that_its_site_did_not_sign_is_refused() {
    let mut bench = Bench::held();
    let error = refused(&mut bench, &signed_as("ireland", "french", |_| ()));
    assert!(matches!(error, RequestError::Sign(SignError::NotSigned(_))), "{error}");
    let mut flipped = signed_as("ireland", "ireland", |_| ());
    flipped.request.signatures[0].sig[0] ^= 1;
    assert!(matches!(refused(&mut bench, &flipped), RequestError::Sign(SignError::NotSigned(_))));
    let mut unsigned = signed_as("ireland", "ireland", |_| ());
    unsigned.request.signatures.clear();
    assert!(matches!(refused(&mut bench, &unsigned), RequestError::Sign(SignError::NotSigned(_))));
}

#[test]
fn a_request_whose_bytes_were_changed_is_refused() {
    let mut bench = Bench::held();
    let mut changed = signed_as("ireland", "ireland", |_| ());
    let text = String::from_utf8(changed.request.payload.clone()).unwrap();
    changed.request.payload = text.replace("\"kind\":\"grant\"", "\"kind\":\"grant\" ").into_bytes();
    assert!(changed.request.payload != text.into_bytes());
    assert!(matches!(refused(&mut bench, &changed), RequestError::Sign(SignError::NotSigned(_))));
}

#[test]
fn a_statement_of_another_kind_is_no_request() {
    let mut bench = Bench::held();
    let mut plan = signed_as("ireland", "ireland", |_| ());
    plan.request = signed(&protected(1));
    assert!(matches!(refused(&mut bench, &plan), RequestError::Sign(SignError::WrongType { .. })));
    plan.request.payload_type = "application/vnd.regent.lease-request.v1+json".into();
    assert!(matches!(refused(&mut bench, &plan), RequestError::Sign(SignError::Unreadable { .. })));
}

#[test]
fn a_site_that_the_charter_does_not_name_is_refused_by_name() {
    let mut bench = Bench::held();
    let error = refused(&mut bench, &signed_as("atlantis", "atlantis", |_| ()));
    assert_eq!(error, RequestError::UnknownSite(site("atlantis")));
    assert!(error.to_string().contains("atlantis"));
}

#[test]
fn a_request_under_another_charter_version_is_refused_with_both_versions() {
    let mut bench = Bench::held();
    for version in [0, 2, u64::MAX] {
        let error = refused(&mut bench, &signed_as("ireland", "ireland", |r| r.charter_version = version));
        assert!(matches!(error, RequestError::Charter { found, wanted: 1, .. } if found == version), "{error}");
    }
}

#[test]
fn a_request_under_another_charter_of_the_same_version_is_refused() {
    let mut bench = Bench::held();
    let error = refused(&mut bench, &signed_as("ireland", "ireland", |r| r.charter = Digest::of(b"another")));
    assert!(matches!(error, RequestError::OtherCharter { version: 1, .. }), "{error}");
}

#[test]
fn entries_that_are_not_the_signed_ones_are_refused() {
    let mut bench = Bench::held();
    let mut changed = signed_as("ireland", "ireland", |_| ());
    changed.entries = vec![entry("2.1")];
    assert_eq!(refused(&mut bench, &changed), RequestError::WrongEntries(site("ireland")));
    changed.entries.clear();
    assert_eq!(refused(&mut bench, &changed), RequestError::WrongEntries(site("ireland")));
    let other_root = signed_as("ireland", "ireland", |r| r.entry_root = Digest::of(b"else"));
    assert_eq!(refused(&mut bench, &other_root), RequestError::WrongEntries(site("ireland")));
}

#[test]
fn an_epoch_with_another_site_s_number_is_refused() {
    let mut bench = Bench::held();
    let ask = bench.submission("french", Ask::Grant, &[entry("2.1")]);
    let error = refused(&mut bench, &ask);
    assert!(matches!(error, RequestError::ForeignEpoch { number: 2, .. }), "{error}");
    let ask = bench.submission("french", Ask::Query { line: Line::Ready }, &[entry("2.99")]);
    assert!(matches!(refused(&mut bench, &ask), RequestError::ForeignEpoch { .. }));
}

#[test]
fn a_group_that_is_listed_twice_is_refused() {
    let mut bench = Bench::held();
    let ask = bench.submission("ireland", Ask::Grant, &[entry("1.1"), entry("2.1")]);
    assert!(matches!(refused(&mut bench, &ask), RequestError::GroupTwice { .. }));
}

#[test]
fn retiring_can_not_be_asked_for() {
    let mut bench = Bench::held();
    let ask = bench.submission("ireland", Ask::Grant, &[entry_of(shop(), "1.1", Protection::Retiring)]);
    assert!(matches!(refused(&mut bench, &ask), RequestError::Retiring { .. }));
}

#[test]
fn absurd_sizes_are_refused_with_their_limit() {
    let mut bench = Bench::held();
    let many: Vec<_> =
        (0..=MAX_ENTRIES).map(|n| entry_of(group(&format!("g{n}")), "1.1", Protection::Observed)).collect();
    let ask = bench.submission("ireland", Ask::Grant, &many);
    assert!(matches!(refused(&mut bench, &ask), RequestError::TooMany { what: "entries", limit: MAX_ENTRIES, .. }));
    let tags = |n: usize, bytes: usize| (0..n).map(move |i| (site(&format!("w{i}")), Tag(vec![0; bytes]))).collect();
    let ask = signed_as("ireland", "ireland", |r| r.tags = tags(MAX_TAGS + 1, 1));
    assert!(matches!(refused(&mut bench, &ask), RequestError::TooMany { what: "tags", .. }));
    let ask = signed_as("ireland", "ireland", |r| r.tags = tags(1, 300));
    assert!(matches!(refused(&mut bench, &ask), RequestError::TooMany { what: "bytes of a tag", .. }));
    let ask = signed_as("ireland", "ireland", |r| r.tags = tags(1, 1 << 20));
    assert!(matches!(refused(&mut bench, &ask), RequestError::TooMany { what: "bytes of the signed request", .. }));
    let mut ask = signed_as("ireland", "ireland", |_| ());
    ask.request.signatures = vec![ask.request.signatures[0].clone(); 65];
    assert!(matches!(refused(&mut bench, &ask), RequestError::TooMany { what: "signatures", .. }));
}

#[test]
fn as_many_entries_as_are_allowed_are_answered() {
    let mut bench = Bench::held();
    let many: Vec<_> =
        (0..MAX_ENTRIES).map(|n| entry_of(group(&format!("g{n}")), "1.1", Protection::Observed)).collect();
    let ask = bench.submission("ireland", Ask::Query { line: Line::Ready }, &many);
    assert_eq!(bench.submit(&ask, START + P).exceptions.len(), MAX_ENTRIES);
}

#[test]
fn a_proof_of_absurd_size_is_ignored_before_anything_in_it_is_parsed() {
    let mut bench = Bench::held();
    let small = proof_of("ireland", &[entry("1.1")], BTreeMap::new(), &["french"]);
    let grants = vec![small.round.grants[0].clone(); MAX_GRANTS + 1];
    let crowded = Proof { round: Round { grants, ..small.round.clone() }, ..small.clone() };
    let mut long = small.clone();
    long.round.request.payload = vec![b' '; 1 << 20];
    let mut wide = small.clone();
    wide.entries = vec![entry("1.1"); MAX_ENTRIES + 1];
    for proof in [crowded, long, wide] {
        let mut ask = bench.submission("ireland", Ask::Grant, &[entry("1.1")]);
        ask.proofs = vec![proof];
        let receipt = bench.witness.receive(at(START + P), &ask, None).unwrap();
        assert_eq!(receipt.ignored, [Ignored::ProofTooLarge]);
        assert!(bench.witness.conclude(receipt, &[]).exceptions.is_empty());
    }
}

#[test]
fn a_replayed_request_gets_the_same_answer_and_raises_nothing() {
    let mut bench = Bench::held();
    let old = bench.submission("ireland", Ask::Grant, &[entry("1.1")]);
    let _grant = bench.submit(&old, START + P);
    bench.ask("french", "2.2", START + LAPSE).unwrap();
    let replayed = bench.submit(&old, START + LAPSE + D);
    assert_eq!(replayed.exception(&shop()).unwrap().reason, regent_core::message::Refusal::HigherVote);
    assert_eq!(bench.record().vote, vote("french", "2.2"));
}

#[test]
fn a_request_without_entries_is_answered_with_a_tag() {
    let mut bench = Bench::empty();
    let ask = bench.submission("german", Ask::Query { line: Line::Ready }, &[]);
    let grant = bench.submit(&ask, START);
    assert!(grant.exceptions.is_empty() && grant.votes.is_empty());
    assert!(!grant.tag.0.is_empty());
    assert_eq!(grant.request, ask.request.digest());
    assert_eq!(grant.witness, site("swiss"));
}
