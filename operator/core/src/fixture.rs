//! The federation that tests share: home `ie`, standbys `fr` and `de`, witnesses all but
//! home; D = 5 s.

// Helper functions of tests may panic as tests do.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::sync::Arc;

use ed25519_dalek::SigningKey;

use crate::charter::{Charter, Interlock, Party, Pinned, Role, SiteEntry};
use crate::ids::{GroupKey, SiteName};
use crate::message::{Ask, Entry, Exception, Grant, Request, Round, Tag, Vote, entry_tree};
use crate::plan::{Plan, Protection, Trigger, VerifiedPlan, WhenNotReady};
use crate::sign::{Digest, Envelope, PublicKey};
use crate::time::Moment;

/// Home first, then by rank; their numbers are 1 to 5.
pub const SITES: [&str; 5] = ["ie", "fr", "de", "ch", "lu"];

/// Both clocks at so many milliseconds.
pub fn at_ms(ms: u64) -> Moment {
    let ns = ms * 1_000_000;
    Moment { boot_ns: ns, raw_ns: ns }
}

/// Five sites with their keys.
pub struct Federation {
    /// What they agreed.
    pub charter: Charter,
    keys: BTreeMap<&'static str, SigningKey>,
}

impl Federation {
    /// The same one each time.
    #[allow(clippy::new_without_default)]
    pub fn new() -> Self {
        let keys: BTreeMap<&'static str, SigningKey> =
            SITES.iter().zip(1u8..).map(|(site, n)| (*site, SigningKey::from_bytes(&[n; 32]))).collect();
        let party = |site: &str| Party {
            name: format!("party-{site}").parse().unwrap(),
            display_name: String::new(),
            role: Role::Partner,
            country: site.to_uppercase(),
            control: site.to_uppercase(),
            key: PublicKey::of(&keys[site]),
        };
        let entry = |(site, number): (&&str, u32)| SiteEntry {
            name: site.parse().unwrap(),
            number,
            party: format!("party-{site}").parse().unwrap(),
            country: site.to_uppercase(),
            addresses: vec![format!("192.0.2.{number}:7443")],
            key: PublicKey::of(&keys[*site]),
            tls_anchor: String::new(),
        };
        let charter = Charter {
            name: "test".into(),
            version: 1,
            parties: SITES.iter().map(|s| party(s)).collect(),
            threshold: 3,
            sites: SITES.iter().zip(1u32..).map(entry).collect(),
            witnesses: SITES[1..].iter().map(|s| s.parse().unwrap()).collect(),
            faulty_witnesses: 1,
            lease_duration_ms: 5000,
            clock_drift_ppm: 1000,
            interlock: Interlock::default(),
        };
        Self { charter, keys }
    }

    /// What that site signs with.
    pub fn key(&self, site: &str) -> &SigningKey {
        &self.keys[site]
    }

    /// A plan of `ie/shop` with standbys `fr` and `de`, signed by all.
    pub fn plan(&self, version: u64, protection: Protection, trigger: Trigger) -> Envelope {
        let plan = Plan {
            group: "ie/shop".parse().unwrap(),
            version,
            standbys: vec!["fr".parse().unwrap(), "de".parse().unwrap()],
            protection,
            takeover_after_ms: 5000,
            thaw_limit_ms: 8000,
            trigger,
            when_not_ready: WhenNotReady::Hold,
            countries: Vec::new(),
        };
        self.signed_plan(&plan)
    }

    /// A plan, signed by home and by its standbys.
    pub fn signed_plan(&self, plan: &Plan) -> Envelope {
        let mut envelope = Envelope::sign(plan, "ie", self.key("ie"));
        for standby in &plan.standbys {
            envelope.add_signature(standby.as_str(), self.key(standby.as_str()));
        }
        envelope
    }

    /// A signed plan as the shell passes it on.
    pub fn verified(&self, plan: &Envelope) -> Arc<VerifiedPlan> {
        Arc::new(VerifiedPlan::open(plan, &self.charter).unwrap())
    }

    /// A witness's answer to a signed request.
    pub fn grant(
        &self,
        witness: &str,
        request: &Envelope,
        exceptions: Vec<Exception>,
        votes: BTreeMap<GroupKey, Vote>,
    ) -> Envelope {
        let grant = Grant {
            witness: witness.parse().unwrap(),
            request: request.digest(),
            exceptions,
            votes,
            plans: BTreeMap::new(),
            braked: BTreeMap::new(),
            start: 1,
            tag: Tag(format!("tag of {witness} for {}", request.digest()).into_bytes()),
        };
        Envelope::sign(&grant, witness, self.key(witness))
    }

    /// A round of that site's, granted in full by these witnesses.
    pub fn round(&self, site: &str, ask: Ask, nonce_root: Digest, entries: &[Entry], granters: &[&str]) -> Round {
        let site_name: SiteName = site.parse().unwrap();
        let request = Request {
            charter_version: self.charter.version,
            charter: Pinned::from(self.charter.clone()).digest(),
            site: site_name,
            ask,
            id: Digest([5; 32]),
            nonce_root,
            entry_root: entry_tree(entries).root(),
            tags: BTreeMap::new(),
        };
        let request = Envelope::sign(&request, site, self.key(site));
        let grants = granters.iter().map(|w| self.grant(w, &request, Vec::new(), BTreeMap::new())).collect();
        Round { request, grants }
    }
}
