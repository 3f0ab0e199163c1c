//! Five sites, four of which vote, and their keys.

use std::sync::atomic::{AtomicU64, Ordering};

use ed25519_dalek::SigningKey;
use regent_core::charter::{Charter, Interlock, Party, Pinned, Role, SiteEntry};
use regent_core::ids::Epoch;
use regent_core::merkle::Tree;
use regent_core::message::{Ask, Entry, Exception, Grant, NodeCertificate, Refusal, Request, Round, Tag, entry_tree};
use regent_core::plan::Protection;
use regent_core::sign::{Digest, Envelope, PublicKey};
use regent_proto::v1;

pub const SITES: [(&str, &str); 5] =
    [("ireland", "IE"), ("france", "FR"), ("germany", "DE"), ("luxembourg", "LU"), ("switzerland", "CH")];
pub const GROUP: &str = "ireland/shop";

static NEXT: AtomicU64 = AtomicU64::new(1);

pub fn key(n: u8) -> SigningKey {
    SigningKey::from_bytes(&[n; 32])
}

pub struct Federation {
    pub charter: Charter,
}

/// Numbers in the charter, and keys, are places in `SITES` + 1.
fn number(site: &str) -> u8 {
    u8::try_from(SITES.iter().position(|(s, _)| *s == site).unwrap()).unwrap() + 1
}

pub fn epoch(text: &str) -> Epoch {
    text.parse().unwrap()
}

pub fn entry(group: &str, epoch: &str, state: Protection) -> Entry {
    Entry { group: group.parse().unwrap(), epoch: epoch.parse().unwrap(), state }
}

impl Federation {
    pub fn new(lease_ms: u64) -> Self {
        let party = |(site, country): (&str, &str)| Party {
            name: format!("party-{site}").parse().unwrap(),
            display_name: String::new(),
            role: Role::Neutral,
            country: country.into(),
            control: country.into(),
            key: PublicKey::of(&key(100 + number(site))),
        };
        let site = |(name, country): (&str, &str)| SiteEntry {
            name: name.parse().unwrap(),
            number: number(name).into(),
            party: format!("party-{name}").parse().unwrap(),
            country: country.into(),
            addresses: vec![format!("192.0.2.{}:7443", number(name))],
            key: PublicKey::of(&key(number(name))),
            tls_anchor: "-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----".into(),
        };
        let charter = Charter {
            name: "test".into(),
            version: 1,
            parties: SITES.map(party).into(),
            threshold: 2,
            sites: SITES.map(site).into(),
            witnesses: SITES[1..].iter().map(|(s, _)| s.parse().unwrap()).collect(),
            faulty_witnesses: 1,
            lease_duration_ms: lease_ms,
            clock_drift_ppm: 1000,
            interlock: Interlock::default(),
        };
        Self { charter }
    }

    /// The charter as a guard is given it, signed by so many parties.
    pub fn signed(&self, signers: usize) -> String {
        let mut envelope: Option<Envelope> = None;
        for (site, _) in &SITES[..signers.max(1)] {
            let (name, key) = (format!("party-{site}"), key(100 + number(site)));
            match &mut envelope {
                None => envelope = Some(Envelope::sign(&self.charter, &name, &key)),
                Some(e) => e.add_signature(&name, &key),
            }
        }
        serde_json::to_string(&envelope.unwrap()).unwrap()
    }

    /// A certificate by all witnesses.
    pub fn certificate(&self, site: &str, nonce: &[u8], entries: &[Entry]) -> v1::NodeCertificate {
        self.certificate_by(4, site, nonce, entries)
    }

    /// A round in which only the first so many witnesses grant; the others refuse.
    pub fn certificate_by(&self, granting: usize, site: &str, nonce: &[u8], entries: &[Entry]) -> v1::NodeCertificate {
        let nonces = Tree::over([b"another node's nonce".as_slice(), nonce]);
        let tree = entry_tree(entries);
        let request = Request {
            charter_version: 1,
            charter: Pinned::from(self.charter.clone()).digest(),
            site: site.parse().unwrap(),
            ask: Ask::Grant,
            id: Digest::of(&NEXT.fetch_add(1, Ordering::Relaxed).to_be_bytes()),
            nonce_root: nonces.root(),
            entry_root: tree.root(),
            tags: Default::default(),
        };
        let request = Envelope::sign(&request, site, &key(number(site)));
        let refuse = |e: &Entry| Exception { group: e.group.clone(), reason: Refusal::Promised, wait_ms: None };
        let grant = |(at, (witness, _)): (usize, &(&str, &str))| {
            let grant = Grant {
                witness: witness.parse().unwrap(),
                request: request.digest(),
                exceptions: if at < granting { Vec::new() } else { entries.iter().map(refuse).collect() },
                votes: Default::default(),
                plans: Default::default(),
                braked: Default::default(),
                start: 1,
                tag: Tag(vec![1]),
            };
            Envelope::sign(&grant, witness, &key(number(witness)))
        };
        let grants = SITES[1..].iter().enumerate().map(grant).collect();
        let certificate = NodeCertificate {
            round: Round { request, grants },
            nonce: nonce.to_vec(),
            nonce_path: nonces.path(1).unwrap(),
            entries: entries.iter().enumerate().map(|(i, e)| (e.clone(), tree.path(i).unwrap())).collect(),
        };
        certificate.into()
    }
}
