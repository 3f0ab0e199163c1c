//! A federation of five sites, signers for each, and one witness (`swiss`) under test.
//!
//! D = 6 s, so P = 1 s; W = 5 s. The four sites that are not home are the witnesses.

use std::cell::Cell;
use std::collections::BTreeMap;

use ed25519_dalek::SigningKey;

use crate::witness::{Config, MacKey, Record, Start, Witness, WitnessEvent};
use regent_core::charter::{Charter, Interlock, Party, Pinned, Role, SiteEntry};
use regent_core::ids::{Epoch, GroupKey, SiteName};
use regent_core::message::{
    Ask, Entry, Exception, Grant, Line, Proof, Refusal, Request, Round, Submission, Tag, Vote, entry_tree,
};
use regent_core::plan::{Plan, Protection, Trigger, WhenNotReady};
use regent_core::sign::{Digest, Envelope, PublicKey};
use regent_core::time::Moment;

pub const SITES: [&str; 5] = ["ireland", "french", "german", "swiss", "luxembourg"];
pub const D: u64 = 6_000;
pub const P: u64 = 1_000;
pub const W: u64 = 5_000;
/// Well after boot, so that everything may lie in the past.
pub const START: u64 = 1_000_000;
/// L5: D + W + 2P.
pub const LAPSE: u64 = D + W + 2 * P;
pub const WALL: u64 = 1_800_000_000;

pub fn site(name: &str) -> SiteName {
    name.parse().unwrap()
}

pub fn key(name: &str) -> SigningKey {
    let at = SITES.iter().position(|s| *s == name).map_or(99, |at| at as u8 + 1);
    SigningKey::from_bytes(&[at; 32])
}

pub fn number(name: &str) -> u32 {
    SITES.iter().position(|s| *s == name).unwrap() as u32 + 1
}

pub fn charter() -> Charter {
    let countries = ["IE", "FR", "DE", "CH", "LU"];
    let party = |at: usize| Party {
        name: format!("party-{}", SITES[at]).parse().unwrap(),
        display_name: String::new(),
        role: Role::Partner,
        country: countries[at].into(),
        control: countries[at].into(),
        key: PublicKey::of(&SigningKey::from_bytes(&[at as u8 + 101; 32])),
    };
    let entry = |at: usize| SiteEntry {
        name: site(SITES[at]),
        number: at as u32 + 1,
        party: format!("party-{}", SITES[at]).parse().unwrap(),
        country: countries[at].into(),
        addresses: vec![format!("192.0.2.{}:7443", at + 1)],
        key: PublicKey::of(&key(SITES[at])),
        tls_anchor: "-----BEGIN CERTIFICATE-----\nMA==\n-----END CERTIFICATE-----\n".into(),
    };
    Charter {
        name: "europe".into(),
        version: 1,
        parties: (0..5).map(party).collect(),
        threshold: 3,
        sites: (0..5).map(entry).collect(),
        witnesses: SITES[1..].iter().map(|s| site(s)).collect(),
        faulty_witnesses: 1,
        lease_duration_ms: D,
        clock_drift_ppm: 1000,
        interlock: Interlock::default(),
    }
}

pub fn group(name: &str) -> GroupKey {
    format!("ireland/{name}").parse().unwrap()
}

pub fn shop() -> GroupKey {
    group("shop")
}

pub fn epoch(text: &str) -> Epoch {
    text.parse().unwrap()
}

pub fn vote(name: &str, at: &str) -> Option<Vote> {
    Some(Vote { site: site(name), epoch: epoch(at) })
}

/// Both clocks, in milliseconds.
pub fn at(ms: u64) -> Moment {
    Moment { boot_ns: ms * 1_000_000, raw_ns: ms * 1_000_000 }
}

pub fn protected(version: u64) -> Plan {
    Plan {
        group: shop(),
        version,
        standbys: vec![site("french"), site("german")],
        protection: Protection::Protected,
        takeover_after_ms: W,
        thaw_limit_ms: 8_000,
        trigger: Trigger::Automatic,
        when_not_ready: WhenNotReady::Hold,
        countries: Vec::new(),
    }
}

/// Signed by home and countersigned by all of its standbys.
pub fn signed(plan: &Plan) -> Envelope {
    let mut envelope = Envelope::sign(plan, plan.group.home.as_str(), &key(plan.group.home.as_str()));
    for standby in plan.standbys.iter().filter(|s| SITES.contains(&s.as_str())) {
        envelope.add_signature(standby.as_str(), &key(standby.as_str()));
    }
    envelope
}

pub fn entry_of(group: GroupKey, at: &str, state: Protection) -> Entry {
    Entry { group, epoch: epoch(at), state }
}

pub fn entry(at: &str) -> Entry {
    entry_of(shop(), at, Protection::Protected)
}

thread_local! {
    /// The charter of this test's witness, by which everybody asks.
    static PINNED: Cell<Option<Digest>> = const { Cell::new(None) };
}

pub fn request(name: &str, ask: Ask, entries: &[Entry], tags: BTreeMap<SiteName, Tag>, id: u64) -> Request {
    Request {
        charter_version: 1,
        charter: PINNED.get().unwrap_or_else(|| Pinned::from(charter()).digest()),
        site: site(name),
        ask,
        id: Digest::of(&id.to_be_bytes()),
        nonce_root: Digest::of(b"nonces"),
        entry_root: entry_tree(entries).root(),
        tags,
    }
}

/// What `witness` signs when it grants everything but `exceptions`.
pub fn grant_of(witness: &str, request: &Envelope, exceptions: &[GroupKey]) -> Envelope {
    let except = |group: &GroupKey| Exception { group: group.clone(), reason: Refusal::NoTrigger, wait_ms: None };
    let grant = Grant {
        witness: site(witness),
        request: request.digest(),
        exceptions: exceptions.iter().map(except).collect(),
        votes: BTreeMap::new(),
        plans: BTreeMap::new(),
        braked: BTreeMap::new(),
        start: 1,
        tag: Tag(vec![1]),
    };
    Envelope::sign(&grant, witness, &key(witness))
}

/// A certificate of `name` whose request quotes these tags, granted by these witnesses.
pub fn proof_of(name: &str, entries: &[Entry], tags: BTreeMap<SiteName, Tag>, by: &[&str]) -> Proof {
    let request = Envelope::sign(&request(name, Ask::Grant, entries, tags, 7), name, &key(name));
    let grants = by.iter().map(|w| grant_of(w, &request, &[])).collect();
    Proof { round: Round { request, grants }, entries: entries.to_vec() }
}

/// The witness under test with what its shell holds: objects, and what each site was told.
pub struct Bench {
    pub witness: Witness,
    pub objects: BTreeMap<GroupKey, Record>,
    pub tags: BTreeMap<String, Tag>,
    pub ids: u64,
}

pub fn config(start: u64, started: u64, how: Start) -> Config {
    Config {
        site: site("swiss"),
        charter: charter(),
        // Each start is of another boot, whose clocks tell nothing of the one before.
        boot: [u8::try_from(start % 256).unwrap(); 16],
        mac_key: MacKey([3; 32]),
        start,
        started: at(started),
        how,
        lead: None,
        wall_s: Some(WALL),
    }
}

impl Bench {
    /// A fresh witness that knows nothing.
    pub fn empty() -> Self {
        Self::with(config(1, START, Start::First), BTreeMap::new())
    }

    pub fn with(config: Config, objects: BTreeMap<GroupKey, Record>) -> Self {
        PINNED.set(Some(Pinned::from(config.charter.clone()).digest()));
        let witness = Witness::new(config, objects.clone()).unwrap();
        Self { witness, objects, tags: BTreeMap::new(), ids: 0 }
    }

    /// A fresh witness where home holds `shop` by 1.1 since `START`, protected.
    pub fn held() -> Self {
        let mut bench = Self::empty();
        assert_eq!(bench.register(START, &signed(&protected(1))), Some(1));
        assert_eq!(bench.ask("ireland", "1.1", START), Ok(()));
        bench
    }

    /// The same witness started again over its objects.
    pub fn restart(self, start: u64, started: u64, how: Start) -> Self {
        let mut config = config(start, started, how);
        config.wall_s = Some(WALL + (started - START) / 1000);
        Self { tags: self.tags, ..Self::with(config, self.objects) }
    }

    pub fn submission(&mut self, name: &str, ask: Ask, entries: &[Entry]) -> Submission {
        self.ids += 1;
        let tags = self.tags.get(name).map(|t| (site("swiss"), t.clone())).into_iter().collect();
        let request = request(name, ask, entries, tags, self.ids);
        Submission {
            request: Envelope::sign(&request, name, &key(name)),
            entries: entries.to_vec(),
            proofs: Vec::new(),
            plans: Vec::new(),
        }
    }

    /// Receives, writes everything and concludes.
    pub fn submit(&mut self, submission: &Submission, ms: u64) -> Grant {
        let wall = WALL + (ms - START) / 1000;
        let receipt = self.witness.receive(at(ms), submission, Some(wall)).unwrap();
        self.objects.extend(receipt.persists.iter().cloned());
        let asker = receipt.site.to_string();
        let grant = self.witness.conclude(receipt, &[]);
        self.tags.insert(asker, grant.tag.clone());
        grant
    }

    /// Home sends a plan with a query. Returns the version that the witness then holds.
    pub fn register(&mut self, ms: u64, plan: &Envelope) -> Option<u64> {
        let group = plan.peek::<Plan>().unwrap().group;
        let mut submission = self.submission("german", Ask::Query { line: Line::Beside }, &[]);
        submission.plans = vec![plan.clone()];
        self.submit(&submission, ms).plans.get(&group).copied()
    }

    fn answer(&mut self, name: &str, ask: Ask, entry: &Entry, ms: u64) -> Grant {
        let submission = self.submission(name, ask, std::slice::from_ref(entry));
        self.submit(&submission, ms)
    }

    /// Asks for `shop`, protected.
    pub fn ask(&mut self, name: &str, at: &str, ms: u64) -> Result<(), Refusal> {
        self.ask_for(name, &entry(at), ms)
    }

    pub fn ask_for(&mut self, name: &str, entry: &Entry, ms: u64) -> Result<(), Refusal> {
        let grant = self.answer(name, Ask::Grant, entry, ms);
        grant.exception(&entry.group).map_or(Ok(()), |e| Err(e.reason))
    }

    /// Queries for `shop` and waits in line.
    pub fn query(&mut self, name: &str, at: &str, ms: u64) -> Result<(), (Refusal, Option<u64>)> {
        let grant = self.answer(name, Ask::Query { line: Line::Ready }, &entry(at), ms);
        grant.exception(&shop()).map_or(Ok(()), |e| Err((e.reason, e.wait_ms)))
    }

    /// Retires or releases.
    pub fn tell(&mut self, name: &str, ask: Ask, ms: u64) -> Result<(), Refusal> {
        let submission = self.submission(name, ask, &[]);
        let grant = self.submit(&submission, ms);
        grant.exception(&shop()).map_or(Ok(()), |e| Err(e.reason))
    }

    /// Renews with a certificate over a request that quoted this witness's last tag.
    pub fn renew_proven(&mut self, name: &str, at: &str, ms: u64) -> Result<(), Refusal> {
        let tags = BTreeMap::from([(site("swiss"), self.tags[name].clone())]);
        let entries = [entry(at)];
        let mut submission = self.submission(name, Ask::Grant, &entries);
        submission.proofs = vec![proof_of(name, &entries, tags, &["french", "german", "luxembourg"])];
        let grant = self.submit(&submission, ms);
        grant.exception(&shop()).map_or(Ok(()), |e| Err(e.reason))
    }

    pub fn record(&self) -> &Record {
        &self.objects[&shop()]
    }

    /// The events until then.
    pub fn events(&mut self, ms: u64) -> Vec<(Moment, WitnessEvent)> {
        self.witness.tick(at(ms))
    }
}

pub fn retire(at: &str, successor: &str) -> Ask {
    Ask::Retire { group: shop(), epoch: epoch(at), successor: site(successor) }
}

pub fn release(at: &str) -> Ask {
    Ask::Release { group: shop(), epoch: epoch(at) }
}
