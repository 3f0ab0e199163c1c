//! L2: what a certificate proves to a witness, and what doesn't.

use std::collections::BTreeMap;

use super::support::*;
use crate::witness::{Ignored, MacKey, Start};
use regent_core::message::{Ask, Line, Proof, Refusal, Round, Tag};
use regent_core::sign::Envelope;

const QUORUM: [&str; 3] = ["french", "german", "luxembourg"];

/// Shows `proof` in a renewal at `ms` and tells how long ago the holder was proven.
fn proven_ago_after(bench: &mut Bench, proof: Proof, ms: u64) -> u64 {
    let mut renewal = bench.submission("ireland", Ask::Grant, &[entry("1.1")]);
    renewal.proofs = vec![proof];
    let _grant = bench.submit(&renewal, ms);
    bench.witness.explain_group(&shop(), at(ms)).unwrap().proven_ago_ms
}

fn my_tag(bench: &Bench) -> BTreeMap<regent_core::ids::SiteName, Tag> {
    BTreeMap::from([(site("swiss"), bench.tags["ireland"].clone())])
}

#[test]
fn a_proof_counts_from_the_issue_of_the_tag_and_not_from_its_arrival() {
    let mut bench = Bench::held();
    let tag = my_tag(&bench);
    let proof = proof_of("ireland", &[entry("1.1")], tag, &QUORUM);
    assert_eq!(proven_ago_after(&mut bench, proof, START + 4 * P), 4 * P);
}

#[test]
fn saved_up_certificates_prove_only_what_they_prove() {
    let mut bench = Bench::held();
    let saved = proof_of("ireland", &[entry("1.1")], my_tag(&bench), &QUORUM);
    bench.ask("ireland", "1.1", START + 3 * P).unwrap();
    let fresh = proof_of("ireland", &[entry("1.1")], my_tag(&bench), &QUORUM);
    assert_eq!(proven_ago_after(&mut bench, fresh, START + 4 * P), P);
    // The older one shown again takes nothing back, and adds nothing.
    assert_eq!(proven_ago_after(&mut bench, saved.clone(), START + 5 * P), 2 * P);
    assert_eq!(proven_ago_after(&mut bench, saved, START + 9 * P), 6 * P);
}

#[test]
fn a_proof_with_the_submission_s_own_entries_may_leave_them_out() {
    let mut bench = Bench::held();
    let mut proof = proof_of("ireland", &[entry("1.1")], my_tag(&bench), &QUORUM);
    proof.entries.clear();
    assert_eq!(proven_ago_after(&mut bench, proof, START + P), P);
}

#[test]
fn contact_without_a_quorum_proves_nothing() {
    let mut bench = Bench::held();
    let minority = proof_of("ireland", &[entry("1.1")], my_tag(&bench), &["french", "german"]);
    assert_eq!(proven_ago_after(&mut bench, minority, START + P), P);
    for t in 2..12 {
        bench.ask("ireland", "1.1", START + t * P).unwrap();
    }
    let view = bench.witness.explain_group(&shop(), at(START + 12 * P)).unwrap();
    assert_eq!((view.proven_ago_ms, view.lapses_in_ms), (12 * P, P));
}

#[test]
fn one_witness_that_signs_twice_counts_once() {
    let mut bench = Bench::held();
    bench.ask("ireland", "1.1", START + P).unwrap();
    let twice = proof_of("ireland", &[entry("1.1")], my_tag(&bench), &["french", "german", "german"]);
    assert_eq!(proven_ago_after(&mut bench, twice, START + 2 * P), 2 * P);
}

#[test]
fn a_grant_that_excepts_the_group_does_not_count_for_it() {
    let mut bench = Bench::held();
    bench.ask("ireland", "1.1", START + P).unwrap();
    let mut proof = proof_of("ireland", &[entry("1.1")], my_tag(&bench), &["french", "german"]);
    proof.round.grants.push(grant_of("luxembourg", &proof.round.request, &[shop()]));
    assert_eq!(proven_ago_after(&mut bench, proof, START + 2 * P), 2 * P);
}

#[test]
fn a_site_that_is_no_witness_grants_nothing() {
    let mut bench = Bench::held();
    bench.ask("ireland", "1.1", START + P).unwrap();
    let proof = proof_of("ireland", &[entry("1.1")], my_tag(&bench), &["french", "german", "ireland"]);
    assert_eq!(proven_ago_after(&mut bench, proof, START + 2 * P), 2 * P);
}

#[test]
fn a_foreign_forged_or_missing_tag_proves_nothing() {
    let mut bench = Bench::held();
    bench.ask("ireland", "1.1", START + P).unwrap();
    let genuine = bench.tags["ireland"].clone();
    let mut forged = genuine.clone();
    forged.0[30] ^= 1;
    let tags = [
        BTreeMap::new(),
        BTreeMap::from([(site("french"), genuine)]),
        BTreeMap::from([(site("swiss"), forged)]),
        BTreeMap::from([(site("swiss"), Tag(vec![7; 73]))]),
    ];
    for tags in tags {
        let proof = proof_of("ireland", &[entry("1.1")], tags, &QUORUM);
        assert_eq!(proven_ago_after(&mut bench, proof, START + 2 * P), 2 * P);
    }
}

#[test]
fn a_tag_of_another_witness_s_key_or_of_an_earlier_boot_proves_nothing() {
    for change in [0, 1] {
        let mut bench = Bench::held();
        let mut other = config(1, START, Start::First);
        match change {
            0 => other.mac_key = MacKey([4; 32]),
            _ => other.boot = [8; 16],
        }
        let mut strange = Bench::with(other, BTreeMap::new());
        let _ = strange.query("ireland", "1.1", START + P);
        let proof = proof_of("ireland", &[entry("1.1")], my_tag(&strange), &QUORUM);
        assert_eq!(proven_ago_after(&mut bench, proof, START + 2 * P), 2 * P);
    }
}

#[test]
fn a_query_s_answers_are_no_proof_although_a_quorum_signed_them() {
    let mut bench = Bench::held();
    bench.ask("ireland", "1.1", START + P).unwrap();
    let entries = [entry("1.1")];
    let query = request("ireland", Ask::Query { line: Line::Ready }, &entries, my_tag(&bench), 5);
    let query = Envelope::sign(&query, "ireland", &key("ireland"));
    let grants = QUORUM.iter().map(|w| grant_of(w, &query, &[])).collect();
    let proof = Proof { round: Round { request: query, grants }, entries: entries.to_vec() };
    let mut renewal = bench.submission("ireland", Ask::Grant, &entries);
    renewal.proofs = vec![proof];
    let receipt = bench.witness.receive(at(START + 2 * P), &renewal, None).unwrap();
    assert!(matches!(receipt.ignored[..], [Ignored::Proof(regent_core::message::RoundError::NotAGrant)]));
    // A worthless proof spoils nothing but itself.
    assert!(bench.witness.conclude(receipt, &[]).exception(&shop()).is_none());
    assert_eq!(bench.witness.explain_group(&shop(), at(START + 2 * P)).unwrap().proven_ago_ms, 2 * P);
}

#[test]
fn a_proof_whose_entries_are_not_the_signed_ones_is_ignored() {
    let mut bench = Bench::held();
    bench.ask("ireland", "1.1", START + P).unwrap();
    let mut proof = proof_of("ireland", &[entry("1.1")], my_tag(&bench), &QUORUM);
    proof.entries = vec![entry("40.1")];
    let mut renewal = bench.submission("ireland", Ask::Grant, &[entry("1.1")]);
    renewal.proofs = vec![proof];
    let receipt = bench.witness.receive(at(START + 2 * P), &renewal, None).unwrap();
    assert!(matches!(receipt.ignored[..], [Ignored::Proof(regent_core::message::RoundError::WrongEntries)]));
    let _grant = bench.witness.conclude(receipt, &[]);
    assert_eq!(bench.witness.explain_group(&shop(), at(START + 2 * P)).unwrap().proven_ago_ms, 2 * P);
}

#[test]
fn a_proof_that_a_site_signs_for_another_s_epoch_is_none() {
    let mut bench = Bench::held();
    bench.ask("ireland", "1.1", START + P).unwrap();
    // The site number in the epoch must be the signer's: french can't certify 40.1.
    let proof = proof_of("french", &[entry("40.1")], my_tag(&bench), &QUORUM);
    assert_eq!(proven_ago_after(&mut bench, proof, START + 2 * P), 2 * P);
    assert_eq!(bench.ask("ireland", "50.1", START + 3 * P), Err(Refusal::TermLeap));
}

#[test]
fn another_site_s_earlier_certificate_does_not_prove_the_incumbent() {
    let mut bench = Bench::held();
    bench.ask("ireland", "2.1", START + P).unwrap();
    let proof = proof_of("french", &[entry("1.2")], my_tag(&bench), &QUORUM);
    assert_eq!(proven_ago_after(&mut bench, proof, START + 2 * P), 2 * P);
}

#[test]
fn a_proof_with_a_flipped_signature_is_ignored_and_the_request_is_answered() {
    let mut bench = Bench::held();
    let mut proof = proof_of("ireland", &[entry("1.1")], my_tag(&bench), &QUORUM);
    proof.round.request.signatures[0].sig[3] ^= 1;
    let mut renewal = bench.submission("ireland", Ask::Grant, &[entry("1.1")]);
    renewal.proofs = vec![proof];
    let receipt = bench.witness.receive(at(START + P), &renewal, None).unwrap();
    assert_eq!(receipt.ignored.len(), 1);
    assert!(bench.witness.conclude(receipt, &[]).exception(&shop()).is_none());
}

#[test]
fn a_grant_for_another_request_does_not_count() {
    let mut bench = Bench::held();
    bench.ask("ireland", "1.1", START + P).unwrap();
    let other = proof_of("ireland", &[entry("1.1")], BTreeMap::new(), &QUORUM);
    let mut proof = proof_of("ireland", &[entry("1.1")], my_tag(&bench), &[]);
    proof.round.grants = other.round.grants;
    assert_eq!(proven_ago_after(&mut bench, proof, START + 2 * P), 2 * P);
}
