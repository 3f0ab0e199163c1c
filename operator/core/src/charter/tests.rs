//! Charters that may come into force, and all those that may not.

use ed25519_dalek::SigningKey;
use proptest::prelude::*;

use super::*;
use crate::sign::Envelope;

const PARTIES: [(&str, &str, &str); 6] = [
    ("primary", "IE", "US"),
    ("bleu", "FR", "FR"),
    ("delos", "DE", "DE"),
    ("keeper", "CH", "CH"),
    ("neutral", "LU", "LU"),
    ("customer", "NL", "NL"),
];
const SITES: [(&str, &str); 5] =
    [("ireland", "primary"), ("french", "bleu"), ("german", "delos"), ("swiss", "keeper"), ("luxembourg", "neutral")];

fn key(n: usize) -> SigningKey {
    SigningKey::from_bytes(&[n as u8 + 1; 32])
}

fn name(text: &str) -> SiteName {
    text.parse().unwrap()
}

fn charter() -> Charter {
    let party = |(n, (name, country, control)): (usize, &(&str, &str, &str))| Party {
        name: name.parse().unwrap(),
        display_name: String::new(),
        role: Role::Partner,
        country: (*country).into(),
        control: (*control).into(),
        key: PublicKey::of(&key(n)),
    };
    let site = |(n, (site, party)): (usize, &(&str, &str))| SiteEntry {
        name: name(site),
        number: n as u32 + 1,
        party: party.parse().unwrap(),
        country: PARTIES[n].1.into(),
        addresses: vec![format!("192.0.2.{}:7443", n + 1), format!("[2001:db8::{}]:7443", n + 1)],
        key: PublicKey::of(&key(n + 50)),
        tls_anchor: "-----BEGIN CERTIFICATE-----\nMA==\n-----END CERTIFICATE-----\n".into(),
    };
    Charter {
        name: "europe".into(),
        version: 1,
        parties: PARTIES.iter().enumerate().map(party).collect(),
        threshold: 4,
        sites: SITES.iter().enumerate().map(site).collect(),
        witnesses: SITES[1..].iter().map(|(site, _)| name(site)).collect(),
        faulty_witnesses: 1,
        lease_duration_ms: 5_000,
        clock_drift_ppm: 1000,
        interlock: Interlock::default(),
    }
}

/// Signed by the parties with these places in the list.
fn signed(charter: &Charter, parties: &[usize]) -> SignedCharter {
    let mut envelope = Envelope { signatures: Vec::new(), ..Envelope::sign(charter, "nobody", &key(0)) };
    for party in parties {
        envelope.add_signature(PARTIES[*party].0, &key(*party));
    }
    SignedCharter(envelope)
}

/// The one error of a charter that is changed in one way.
fn only_error(change: impl FnOnce(&mut Charter)) -> CharterError {
    let mut changed = charter();
    change(&mut changed);
    let errors = changed.errors();
    assert_eq!(errors.len(), 1, "{errors:#?}");
    errors[0].clone()
}

fn says(error: &CharterError, words: &[&str]) {
    let text = error.to_string();
    for word in words {
        assert!(text.contains(word), "{text:?} does not say {word:?}");
    }
}

#[test]
fn the_charter_that_the_project_was_made_for_has_no_mistake() {
    assert_eq!(charter().errors(), []);
    assert_eq!((charter().quorum(), charter().witness_count()), (3, 4));
}

#[test]
fn quorum_and_usable_lease_are_what_the_protocol_says() {
    let mut charter = charter();
    assert_eq!(charter.usable_lease(), std::time::Duration::from_nanos(5_000_000_000 * 999_000 / 1_001_000));
    let six_periods = charter.renewal_period() * 6;
    assert!(charter.lease_duration() - six_periods < std::time::Duration::from_nanos(6), "{six_periods:?}");
    for (n, f, q) in [(4, 1, 3), (5, 1, 4), (6, 1, 4), (7, 2, 5), (10, 3, 7)] {
        charter.witnesses = (0..n).map(|i| name(&format!("w{i}"))).collect();
        charter.faulty_witnesses = f;
        assert_eq!(charter.quorum(), q, "n {n} f {f}");
    }
}

#[test]
fn lease_durations_outside_one_to_sixty_seconds_are_refused() {
    for bad in [0, 1, 999, 60_001, u64::MAX] {
        says(&only_error(|c| c.lease_duration_ms = bad), &["europe", "leaseDurationMs", "1000 to 60000"]);
    }
    for good in [1_000, 60_000] {
        assert_eq!(Charter { lease_duration_ms: good, ..charter() }.errors(), []);
    }
}

#[test]
fn too_few_witnesses_for_f_are_refused_with_the_number_that_is_needed() {
    let error = only_error(|c| drop(c.witnesses.pop()));
    assert!(matches!(error, CharterError::TooFewWitnesses { n: 3, f: 1, needed: 4, .. }));
    says(&error, &["europe", "faultyWitnesses", "4"]);
    assert!(matches!(only_error(|c| c.faulty_witnesses = 2), CharterError::TooFewWitnesses { needed: 7, .. }));
}

#[test]
fn f_of_none_and_an_absurd_f_are_refused() {
    let with = |f| Charter { faulty_witnesses: f, ..charter() }.errors();
    let bounds = |e: &CharterError| matches!(e, CharterError::Bounds { field: "faultyWitnesses", .. });
    assert!(with(0).iter().any(bounds));
    assert!(with(u32::MAX).iter().any(bounds));
}

#[test]
fn a_witness_listed_twice_is_one_witness() {
    let mut twice = charter();
    twice.witnesses[3] = twice.witnesses[2].clone();
    let errors = twice.errors();
    assert!(errors.iter().any(|e| matches!(e, CharterError::Twice { field: "witness", .. })), "{errors:?}");
    assert!(errors.iter().any(|e| matches!(e, CharterError::TooFewWitnesses { n: 3, .. })), "{errors:?}");
}

#[test]
fn a_party_that_runs_more_than_f_witnesses_is_refused() {
    let mut charter = charter();
    charter.sites[4].party = "keeper".parse().unwrap();
    let errors = charter.errors();
    says(&errors[0], &["keeper", "2 witnesses", "luxembourg, swiss", "other parties"]);
    // The country of its seat has as many then.
    assert!(matches!(&errors[1], CharterError::CountryTooStrong { country, .. } if country == "CH"));
}

#[test]
fn a_country_of_control_counts_as_one_of_seat_does() {
    let error = only_error(|c| c.parties[4].control = "DE".into());
    says(&error, &["DE", "german, luxembourg", "faultyWitnesses 1"]);
    let error = only_error(|c| c.parties[4].country = "FR".into());
    says(&error, &["FR", "french, luxembourg"]);
    // The same country for both of one party is one witness, not two.
    assert_eq!(charter().parties[1].country, charter().parties[1].control);
}

#[test]
fn where_a_witness_stands_compels_nobody_by_itself() {
    let mut charter = charter();
    charter.sites[4].country = "DE".into();
    assert_eq!(charter.errors(), []);
}

#[test]
fn the_parties_of_sites_that_do_not_vote_may_share_a_country() {
    let mut charter = charter();
    charter.parties[5].country = "US".into();
    assert_eq!(charter.errors(), []);
}

#[test]
fn unknown_sites_and_parties_are_named() {
    says(&only_error(|c| c.sites[0].party = "nobody".parse().unwrap()), &["ireland", "nobody", "parties"]);
    let mut unknown = charter();
    unknown.witnesses.push(name("atlantis"));
    let errors = unknown.errors();
    assert_eq!(errors.len(), 1);
    says(&errors[0], &["atlantis", "witnesses", "sites"]);
}

#[test]
fn what_must_be_unique_is_named_with_both_owners() {
    says(&only_error(|c| c.sites[1].number = 1), &["number 1", "site ireland", "site french"]);
    says(&only_error(|c| c.sites[1].key = c.sites[0].key), &["key", "site ireland", "site french"]);
    says(&only_error(|c| c.parties[1].key = c.parties[0].key), &["key", "party primary", "party bleu"]);
    let address = |c: &mut Charter| c.sites[1].addresses[0] = c.sites[0].addresses[0].clone();
    says(&only_error(address), &["192.0.2.1:7443", "site ireland", "site french"]);
    let mut twins = charter();
    twins.sites.push(SiteEntry {
        number: 9,
        key: PublicKey::of(&key(99)),
        addresses: vec!["192.0.2.9:1".into()],
        ..twins.sites[0].clone()
    });
    says(&twins.errors()[0], &["site name ireland", "sites[0]", "sites[5]"]);
    let mut parties = charter();
    parties.parties.push(Party { key: PublicKey::of(&key(98)), ..parties.parties[5].clone() });
    says(&parties.errors()[0], &["party name customer", "parties[5]", "parties[6]"]);
}

#[test]
fn an_address_is_an_ip_and_a_port() {
    for bad in ["ireland.example:7443", "192.0.2.1", "192.0.2.1:0", "192.0.2.256:1", "0.0.0.0:7443", "[::]:7443", ""] {
        says(&only_error(|c| c.sites[0].addresses[0] = bad.into()), &["ireland", "IP:PORT"]);
    }
    assert!(matches!(only_error(|c| c.sites[0].addresses.clear()), CharterError::Length { field: "addresses", .. }));
}

#[test]
fn countries_are_iso_codes_and_nothing_that_looks_alike() {
    for bad in ["fr", "FRA", "", "F1", "ФР"] {
        says(&only_error(|c| c.sites[0].country = bad.into()), &["site ireland", "country", "FR"]);
        says(&only_error(|c| c.parties[0].control = bad.into()), &["party primary", "control"]);
        says(&only_error(|c| c.parties[0].country = bad.into()), &["party primary", "country"]);
    }
}

#[test]
fn a_threshold_is_at_least_two_and_at_most_all_parties() {
    for bad in [0, 1, 7, u32::MAX] {
        says(&only_error(|c| c.threshold = bad), &["threshold", "2 to 6"]);
    }
    for good in [2, 6] {
        assert_eq!(Charter { threshold: good, ..charter() }.errors(), []);
    }
}

#[test]
fn other_numbers_have_bounds_too() {
    says(&only_error(|c| c.version = 0), &["version"]);
    says(&only_error(|c| c.clock_drift_ppm = 0), &["clockDriftPpm"]);
    says(&only_error(|c| c.clock_drift_ppm = 900_000), &["clockDriftPpm"]);
    // A brake of none would hold every group for good.
    says(&only_error(|c| c.interlock.changes_per_group_hour = 0), &["changesPerGroupHour"]);
    says(&only_error(|c| c.interlock.changes_per_party_hour = 0), &["changesPerPartyHour"]);
    says(&only_error(|c| c.name = "Eu Rope".into()), &["Eu Rope", "name"]);
    says(&only_error(|c| c.sites[0].tls_anchor = "none".into()), &["ireland", "tlsAnchor"]);
}

#[test]
fn every_mistake_is_told_at_once() {
    let empty = Charter {
        name: String::new(),
        version: 0,
        parties: Vec::new(),
        threshold: 0,
        sites: Vec::new(),
        witnesses: Vec::new(),
        faulty_witnesses: 0,
        lease_duration_ms: 0,
        clock_drift_ppm: 0,
        interlock: Interlock { changes_per_group_hour: 0, changes_per_party_hour: 0 },
    };
    assert_eq!(empty.errors().len(), 12, "{:#?}", empty.errors());
}

#[test]
fn version_one_needs_its_own_threshold_of_different_parties() {
    assert_eq!(signed(&charter(), &[0, 1, 2, 3]).verify_first().unwrap(), charter());
    let error = signed(&charter(), &[0, 1, 2]).verify_first().unwrap_err();
    assert!(
        matches!(&error, SignatureError::TooFewSignatures { needed: 4, signed, .. } if signed.len() == 3),
        "{error}"
    );
    assert!(error.to_string().contains("bleu, delos, primary"), "{error}");
    let unsigned = signed(&charter(), &[]).verify_first().unwrap_err();
    assert!(unsigned.to_string().contains("none"), "{unsigned}");
}

#[test]
fn one_party_that_signs_often_counts_once() {
    let mut often = signed(&charter(), &[0]);
    let one = often.0.signatures[0].clone();
    often.0.signatures = vec![one; 8];
    assert!(matches!(often.verify_first(), Err(SignatureError::TooFewSignatures { .. })));
}

#[test]
fn signatures_of_sites_strangers_and_wrong_keys_count_for_nothing() {
    let mut charter_of = signed(&charter(), &[0, 1, 2]);
    charter_of.0.add_signature("swiss", &key(53));
    charter_of.0.add_signature("stranger", &key(200));
    charter_of.0.add_signature("keeper", &key(4));
    assert!(matches!(charter_of.verify_first(), Err(SignatureError::TooFewSignatures { .. })));
    charter_of.0.add_signature("keeper", &key(3));
    assert!(charter_of.verify_first().is_ok());
}

#[test]
fn a_charter_that_was_changed_after_it_was_signed_is_refused() {
    let mut changed = signed(&charter(), &[0, 1, 2, 3]);
    let text = String::from_utf8(changed.0.payload.clone()).unwrap();
    changed.0.payload = text.replace("\"leaseDurationMs\":5000", "\"leaseDurationMs\":6000").into_bytes();
    assert!(matches!(changed.verify_first(), Err(SignatureError::TooFewSignatures { .. })));
}

#[test]
fn a_signed_charter_with_mistakes_is_refused_with_all_of_them() {
    let bad = Charter { lease_duration_ms: 1, threshold: 1, ..charter() };
    let error = signed(&bad, &[0, 1, 2, 3, 4, 5]).verify_first().unwrap_err();
    assert!(matches!(&error, SignatureError::Text { errors, .. } if errors.len() == 2), "{error}");
    assert!(error.to_string().contains("leaseDurationMs") && error.to_string().contains("threshold"), "{error}");
}

#[test]
fn the_next_version_needs_the_threshold_before_it_and_its_own() {
    let first = charter();
    // The customer leaves and somebody joins; the new ones want five signatures.
    let mut next = Charter { version: 2, threshold: 5, ..charter() };
    next.parties.pop();
    let joined = Party { name: "joined".parse().unwrap(), key: PublicKey::of(&key(77)), ..first.parties[5].clone() };
    next.parties.push(joined);
    let mut offered = signed(&next, &[0, 1, 2, 3]);
    let error = offered.verify_next(&first).unwrap_err();
    assert!(matches!(error, SignatureError::TooFewSignatures { by: 2, needed: 5, .. }), "{error}");
    offered.0.add_signature("joined", &key(77));
    assert_eq!(offered.verify_next(&first).unwrap(), next);
    let mut usurped = signed(&next, &[0, 1, 2]);
    usurped.0.add_signature("joined", &key(77));
    let error = usurped.verify_next(&first).unwrap_err();
    assert!(matches!(error, SignatureError::TooFewSignatures { by: 1, needed: 4, .. }), "{error}");
}

#[test]
fn a_chain_goes_from_one_up_without_a_gap() {
    let all = [0, 1, 2, 3, 4, 5];
    let version = |version| signed(&Charter { version, ..charter() }, &all);
    assert_eq!(SignedCharter::verify_chain(&[version(1), version(2), version(3)]).unwrap().version, 3);
    assert!(matches!(SignedCharter::verify_chain(&[]), Err(SignatureError::Empty)));
    assert!(matches!(SignedCharter::verify_chain(&[version(2)]), Err(SignatureError::NotFirst { found: 2, .. })));
    assert!(matches!(SignedCharter::verify_chain(&[version(1), version(3)]), Err(SignatureError::NotNext { .. })));
    assert!(matches!(SignedCharter::verify_chain(&[version(1), version(1)]), Err(SignatureError::NotNext { .. })));
    let renamed = signed(&Charter { version: 2, name: "other".into(), ..charter() }, &all);
    assert!(matches!(renamed.verify_next(&charter()), Err(SignatureError::NotNext { .. })));
    assert_eq!(version(7).verify_pinned().unwrap().version, 7, "what was pinned at installation is trusted as it is");
}

#[test]
fn a_number_never_goes_to_another_site() {
    let mut next = Charter { version: 2, ..charter() };
    next.sites[0].name = name("iceland");
    let error = signed(&next, &[0, 1, 2, 3]).verify_next(&charter()).unwrap_err();
    assert!(matches!(error, SignatureError::NumberReused { number: 1, .. }), "{error}");
    next.sites[0].number = 6;
    assert!(signed(&next, &[0, 1, 2, 3]).verify_next(&charter()).is_ok());
}

#[test]
fn something_that_is_no_charter_or_far_too_large_is_refused() {
    let mut torn = signed(&charter(), &[0, 1, 2, 3]);
    torn.0.payload.truncate(10);
    assert!(matches!(torn.verify_first(), Err(SignatureError::Sign(_))));
    torn.0.payload = vec![b' '; 5 << 20];
    assert!(matches!(torn.verify_first(), Err(SignatureError::TooLarge { .. })));
    let json = serde_json::to_string(&signed(&charter(), &[0])).unwrap();
    assert!(json.starts_with("{\"payloadType\""), "a signed charter is an envelope and nothing around it: {json}");
}

fn outcome_of(analysis: &Analysis, failed: &[&str]) -> Outcome {
    let mut failed: Vec<SiteName> = failed.iter().map(|s| name(s)).collect();
    failed.sort();
    let same = |o: &&Outcome| o.failed == failed;
    analysis.outcomes.iter().find(same).unwrap_or_else(|| panic!("{failed:?} is not listed")).clone()
}

#[test]
fn the_analysis_tells_for_each_set_of_sites_what_still_works() {
    let standbys = [name("french"), name("german")];
    let analysis = charter().analyse(&name("ireland"), &standbys, 2);
    assert_eq!((analysis.witnesses, analysis.quorum, analysis.set_size), (4, 3, 2));
    let works = |failed: &[&str]| {
        let outcome = outcome_of(&analysis, failed);
        (outcome.renewal, outcome.takeover.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "))
    };
    assert_eq!(works(&[]), (true, "french german".into()));
    assert_eq!(works(&["ireland"]), (false, "french german".into()));
    assert_eq!(works(&["swiss"]), (true, "french german".into()));
    assert_eq!(works(&["ireland", "french"]), (false, "german".into()));
    assert_eq!(works(&["ireland", "swiss"]), (false, "french german".into()));
    // Two of four witnesses gone: no quorum of three, so nothing moves.
    assert_eq!(works(&["french", "swiss"]), (false, String::new()));
    assert_eq!(analysis.outcomes.len(), 1 + 5 + 10);
}

#[test]
fn five_witnesses_tolerate_no_more_than_four_and_six_survive_two_that_are_gone() {
    for (n, survives_two) in [(4, false), (5, false), (6, true)] {
        let mut charter = charter();
        let site = |i: usize| SiteEntry { name: name(&format!("w{i}")), ..charter.sites[1].clone() };
        let sites: Vec<SiteEntry> = (0..n).map(site).collect();
        charter.witnesses = sites.iter().map(|s| s.name.clone()).collect();
        charter.sites.truncate(1);
        charter.sites.extend(sites);
        let analysis = charter.analyse(&name("ireland"), &[name("w0")], 2);
        assert_eq!(outcome_of(&analysis, &["w1", "w2"]).renewal, survives_two, "n = {n}");
        assert!(outcome_of(&analysis, &["w1"]).renewal);
    }
}

#[test]
fn all_sites_of_a_party_or_a_law_are_a_set_of_their_own_however_many() {
    let mut charter = charter();
    charter.sites[1].party = "primary".parse().unwrap();
    charter.sites[2].party = "primary".parse().unwrap();
    let analysis = charter.analyse(&name("ireland"), &[name("german"), name("swiss")], 1);
    let cause = |wanted: &Cause| analysis.outcomes.iter().find(|o| &o.cause == wanted).unwrap();
    let primary = cause(&Cause::Party("primary".parse().unwrap()));
    assert_eq!(primary.failed.len(), 3);
    assert!(!primary.renewal && primary.takeover.is_empty());
    // The same sites by another cause are told once; alone in its country: named as such.
    assert_eq!(analysis.outcomes.iter().filter(|o| o.failed == primary.failed).count(), 1);
    let swiss = outcome_of(&analysis, &["swiss"]);
    assert_eq!(swiss.cause, Cause::Party("keeper".parse().unwrap()));
}

#[test]
fn a_huge_charter_is_analysed_as_far_as_the_list_stays_readable() {
    let mut charter = charter();
    let site = |i: usize| SiteEntry { name: name(&format!("s{i}")), ..charter.sites[0].clone() };
    let sites = (0..100).map(site).collect();
    charter.sites = sites;
    let analysis = charter.analyse(&name("s0"), &[name("s1")], 9);
    assert_eq!(analysis.set_size, 2);
    assert!(analysis.outcomes.len() <= 20_001);
}

proptest! {
    #[test]
    fn two_quorums_of_a_lawful_charter_share_more_than_f_witnesses(f in 1u32..20, extra in 0usize..10) {
        let n = 3 * f as usize + 1 + extra;
        let mut charter = charter();
        charter.witnesses = (0..n).map(|i| name(&format!("w{i}"))).collect();
        charter.faulty_witnesses = f;
        let q = charter.quorum();
        prop_assert!(2 * q > n + f as usize, "an honest one is in both (I3)");
        prop_assert!(q <= n - f as usize, "f that are silent don't stop it");
    }

    #[test]
    fn what_is_left_never_grows_with_what_fails(mask in 0u32..32, more in 0u32..5) {
        let charter = charter();
        let analysis = charter.analyse(&name("ireland"), &[name("french"), name("german")], 5);
        let set = |mask: u32| -> Vec<&str> { (0..5).filter(|i| mask & (1 << i) != 0).map(|i| SITES[i as usize].0).collect() };
        let fewer = outcome_of(&analysis, &set(mask));
        let worse = outcome_of(&analysis, &set(mask | (1 << more)));
        prop_assert!(fewer.renewal || !worse.renewal);
        prop_assert!(worse.takeover.iter().all(|s| fewer.takeover.contains(s)));
    }
}
