//! A witness with its objects: what is written survives, what is not is forgotten.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use crate::clock::{Clock, MS, Rng};
use crate::world::{Happening, ReplicaId, World, name};
use regent_core::charter::Charter;
use regent_core::ids::{Epoch, GroupKey};
use regent_core::message::{Ask, Exception, Grant, Refusal, Request, Submission, Tag, Vote};
use regent_core::sign::Envelope;
use regent_lease::witness::{Config, MacKey, Receipt, Record, Start, Witness};

pub struct Voter {
    pub witness: Option<Witness>,
    pub clock: Clock,
    pub boots: u8,
    pub start: u64,
    pub objects: BTreeMap<GroupKey, Record>,
    /// Receipts whose writes are under way.
    writing: BTreeMap<u64, (Receipt, ReplicaId)>,
    next: u64,
    /// Answers as it likes.
    pub lies: bool,
}

impl Voter {
    pub fn new(t: u64, rng: &mut Rng) -> Self {
        Self {
            witness: None,
            clock: Clock::booted_at(t, rng, 1000),
            boots: 0,
            start: 0,
            objects: BTreeMap::new(),
            writing: BTreeMap::new(),
            next: 0,
            lies: false,
        }
    }

    fn config(&self, site: usize, charter: &Charter, t: u64) -> Config {
        Config {
            site: name(site),
            charter: charter.clone(),
            boot: [self.boots; 16],
            mac_key: MacKey([site as u8; 32]),
            start: self.start,
            started: self.clock.read(t),
            how: if self.start == 1 { Start::First } else { Start::Restarted },
            lead: None,
            wall_s: None,
        }
    }
}

impl World {
    pub fn start_witness(&mut self, site: usize) {
        let voter = self.voters.get_mut(&site).unwrap();
        voter.start += 1;
        voter.writing.clear();
        let config = voter.config(site, &self.charter, self.now);
        voter.witness = Some(Witness::new(config, voter.objects.clone()).unwrap());
    }

    pub fn stop_witness(&mut self, site: usize, reboot: bool) {
        let voter = self.voters.get_mut(&site).unwrap();
        voter.witness = None;
        if reboot {
            voter.boots += 1;
            voter.clock = Clock::booted_at(self.now, &mut self.rng, 1000);
        }
    }

    pub fn submitted(&mut self, site: usize, from: ReplicaId, submission: &Rc<Submission>) {
        self.counts.requests += 1;
        let voter = self.voters.get_mut(&site).unwrap();
        if voter.lies {
            return self.lie(site, from, submission);
        }
        let Some(witness) = &mut voter.witness else { return };
        let now = voter.clock.read(self.now);
        let receipt = witness.receive(now, submission, None).unwrap();
        if receipt.persists.is_empty() {
            let grant = witness.conclude(receipt, &[]);
            return self.send_grant(site, from, &grant);
        }
        voter.next += 1;
        let (id, start) = (voter.next, voter.start);
        voter.writing.insert(id, (receipt, from));
        let t = self.now + self.rng.between(1, 20) * MS;
        self.at(t, Happening::Written(site, start, id));
    }

    /// Objects are written one by one; a write may fail, or be done and not be known to be.
    pub fn written(&mut self, site: usize, start: u64, id: u64) {
        let voter = self.voters.get_mut(&site).unwrap();
        let Some((receipt, from)) = (voter.start == start).then(|| voter.writing.remove(&id)).flatten() else { return };
        let Some(witness) = &mut voter.witness else { return };
        let mut failed = Vec::new();
        for (key, record) in &receipt.persists {
            let fails = self.rng.chance(self.write_fails_permille);
            if !fails || self.rng.chance(500) {
                voter.objects.insert(key.clone(), record.clone());
            }
            if fails {
                failed.push(key.clone());
            }
        }
        let grant = witness.conclude(receipt, &failed);
        let now = voter.clock.read(self.now);
        let unsettled: BTreeSet<GroupKey> = witness.unsettled();
        for key in unsettled {
            witness.reload(now, &key, voter.objects.get(&key).cloned());
        }
        self.send_grant(site, from, &grant);
    }

    fn send_grant(&mut self, site: usize, from: ReplicaId, grant: &Grant) {
        let envelope = Rc::new(Envelope::sign(grant, name(site).as_str(), &self.keys[site]));
        self.trace(|| {
            format!("witness {} answers {from:?}: {:?} votes {:?}", name(site), grant.exceptions, grant.votes)
        });
        for delay in self.net.delays(&mut self.rng, site, from.site) {
            self.at(self.now + delay, Happening::Answered(site, from, Rc::clone(&envelope)));
        }
    }

    /// A faulty witness: grants to everybody, refuses, invents votes, or says nothing.
    fn lie(&mut self, site: usize, from: ReplicaId, submission: &Rc<Submission>) {
        let request: Request = submission.request.peek().unwrap();
        let mut grant = Grant {
            witness: name(site),
            request: submission.request.digest(),
            exceptions: Vec::new(),
            votes: BTreeMap::new(),
            plans: BTreeMap::new(),
            braked: BTreeMap::new(),
            start: 1,
            tag: Tag(self.rng.bytes().to_vec()),
        };
        let whim = self.rng.below(if matches!(request.ask, Ask::Query { .. }) { 5 } else { 8 });
        if whim == 4 {
            return;
        }
        for entry in &submission.entries {
            if whim > 4 {
                let reasons = [Refusal::HigherVote, Refusal::Retired, Refusal::TermLeap, Refusal::NoTrigger];
                let reason = reasons[self.rng.below(4) as usize];
                grant.exceptions.push(Exception {
                    group: entry.group.clone(),
                    reason,
                    wait_ms: Some(self.rng.below(50)),
                });
            }
            if self.rng.chance(300) {
                let term = entry.epoch.term + self.rng.below(40);
                let number = self.rng.below(3) as u32 + 1;
                let epoch = Epoch { term, site: number };
                grant.votes.insert(entry.group.clone(), Vote { site: name(number as usize - 1), epoch });
            }
        }
        self.send_grant(site, from, &grant);
    }
}
