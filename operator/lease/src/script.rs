//! Schedules written by hand: real contenders and real witnesses, in milliseconds, and
//! chance only where a schedule asks for it. What the simulation meets once in a hundred
//! thousand seeds is met here by its name.

mod brakes;
mod charter;
mod drift;
mod groups;
mod liars;
mod links;
mod lost_vote;
mod restored;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::contender::{Contender, ContenderEvent, GroupInput, Output, Readiness, RoleName, RoundId};
use crate::witness::{Config, MacKey, Record, Start, StartError, Witness, WitnessEvent};
use regent_core::charter::Charter;
use regent_core::fixture::{Federation, SITES, at_ms};
use regent_core::ids::{Epoch, GroupKey, SiteName};
use regent_core::message::{Exception, Grant, Refusal, Request, Submission, Tag, Vote};
use regent_core::plan::{Plan, Protection, Trigger, WhenNotReady};
use regent_core::sign::{Digest, Envelope};

/// P, for D = 5 s.
pub const P_MS: u64 = 834;

pub fn site(s: &str) -> SiteName {
    s.parse().unwrap()
}
pub fn group(s: &str) -> GroupKey {
    s.parse().unwrap()
}
pub const VOTERS: [&str; 4] = ["fr", "de", "ch", "lu"];

pub fn plan(name: &str, version: u64, w_ms: u64) -> Plan {
    Plan {
        group: group(name),
        version,
        standbys: vec![site("fr"), site("de")],
        protection: Protection::Protected,
        takeover_after_ms: w_ms,
        thaw_limit_ms: 8000,
        trigger: Trigger::Automatic,
        when_not_ready: WhenNotReady::Hold,
        countries: Vec::new(),
    }
}

pub type Liar = fn(&Request, &Submission, &mut Grant, u64);

pub struct Voter {
    pub witness: Option<Witness>,
    pub objects: BTreeMap<GroupKey, Record>,
    pub start: u64,
    pub liar: Option<Liar>,
    pub charter: Charter,
    pub lapsed: Vec<(u64, GroupKey)>,
    /// Why it did not start.
    pub refused: Option<StartError>,
}

enum Ev {
    Submit(&'static str, usize, &'static str, Submission),
    Answer(&'static str, (&'static str, usize), Envelope),
    Tick((&'static str, usize), u64),
}

/// When a certificate was known, at which site, for what, and until when a guard may use it.
#[derive(Debug, Clone)]
pub struct Cert {
    pub at: u64,
    pub site: &'static str,
    pub group: GroupKey,
    pub epoch: Epoch,
    pub until: u64,
}

pub struct Script {
    pub f: Federation,
    pub now: u64,
    pub voters: BTreeMap<&'static str, Voter>,
    pub contenders: BTreeMap<(&'static str, usize), Contender>,
    /// Nothing goes from the first to the second.
    pub cut: BTreeSet<(&'static str, &'static str)>,
    queue: BTreeMap<(u64, u64), Ev>,
    seq: u64,
    ids: u64,
    wakes: BTreeMap<(&'static str, usize), u64>,
    sent: BTreeMap<((&'static str, usize), RoundId), u64>,
    pub certs: Vec<Cert>,
    pub events: Vec<(u64, &'static str, ContenderEvent)>,
    pub latency: u64,
    rng: Option<u64>,
    pub requests: Vec<(u64, &'static str, Submission)>,
}

pub fn name_of(s: &SiteName) -> &'static str {
    SITES.iter().find(|n| **n == s.as_str()).unwrap()
}

impl Script {
    pub fn new(now: u64) -> Self {
        Self::with(Federation::new(), now)
    }

    pub fn with(f: Federation, now: u64) -> Self {
        regent_core::sign::scheme::hash_on_this_thread();
        let charter = f.charter.clone();
        let mut fed = Self {
            f,
            now,
            voters: BTreeMap::new(),
            contenders: BTreeMap::new(),
            cut: BTreeSet::new(),
            queue: BTreeMap::new(),
            seq: 0,
            ids: 0,
            wakes: BTreeMap::new(),
            sent: BTreeMap::new(),
            certs: Vec::new(),
            events: Vec::new(),
            latency: 5,
            rng: None,
            requests: Vec::new(),
        };
        for v in VOTERS {
            let voter = Voter {
                witness: None,
                objects: BTreeMap::new(),
                start: 0,
                liar: None,
                charter: charter.clone(),
                lapsed: Vec::new(),
                refused: None,
            };
            fed.voters.insert(v, voter);
            fed.start(v, Start::First);
        }
        fed
    }

    pub fn start(&mut self, v: &'static str, how: Start) {
        let now = self.now;
        let voter = self.voters.get_mut(v).unwrap();
        voter.start += 1;
        let config = Config {
            site: site(v),
            charter: voter.charter.clone(),
            boot: [1; 16],
            mac_key: MacKey([v.as_bytes()[0]; 32]),
            start: voter.start,
            started: at_ms(now),
            how,
            lead: None,
            wall_s: Some(1_800_000_000 + now / 1000),
        };
        voter.witness = match Witness::new(config, voter.objects.clone()) {
            Ok(witness) => Some(witness),
            Err(error) => {
                voter.refused = Some(error);
                None
            }
        };
    }

    pub fn join(&mut self, s: &'static str, replica: usize, plans: &[Plan]) {
        self.join_with(s, replica, plans, false)
    }

    pub fn join_with(&mut self, s: &'static str, replica: usize, plans: &[Plan], approved: bool) {
        let mut c = Contender::new(self.f.charter.clone(), site(s)).unwrap();
        c.set_stagger(Duration::from_millis(50 * replica as u64));
        let inputs = self.inputs(s, plans, approved);
        c.set_plans(inputs);
        self.contenders.insert((s, replica), c);
        self.run_contender((s, replica), |c, now| c.tick(at_ms(now)));
    }

    pub fn inputs(&self, s: &'static str, plans: &[Plan], approved: bool) -> Vec<GroupInput> {
        let mine = plans.iter().filter(|p| p.rank(&site(s)).is_some());
        let plan = |p: &Plan| self.f.verified(&self.sign(p));
        mine.map(|p| GroupInput { plan: plan(p), approved, readiness: Readiness::All }).collect()
    }

    pub fn sign(&self, p: &Plan) -> Envelope {
        let mut e = Envelope::sign(p, p.group.home.as_str(), self.f.key(name_of(&p.group.home)));
        for s in &p.standbys {
            e.add_signature(s.as_str(), self.f.key(name_of(s)));
        }
        e
    }

    pub fn run_contender(&mut self, id: (&'static str, usize), input: impl FnOnce(&mut Contender, u64) -> Vec<Output>) {
        let now = self.now;
        let Some(c) = self.contenders.get_mut(&id) else { return };
        let outputs = input(c, now);
        for o in outputs {
            self.output(id, o);
        }
        let Some(c) = self.contenders.get(&id) else { return };
        if let Some(at) = c.next_tick() {
            let t = at.boot_ns.div_ceil(1_000_000).max(self.now + 1);
            let w = self.wakes.entry(id).or_default();
            *w += 1;
            let w = *w;
            self.put(t, Ev::Tick(id, w));
        }
    }

    /// From here on up to 40 ms more for each message, and one in 100 lost.
    pub fn jitter(&mut self, seed: Option<u64>) {
        self.rng = seed.map(|s| s.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
    }

    fn late(&mut self) -> Option<u64> {
        let Some(r) = &mut self.rng else { return Some(0) };
        *r ^= *r << 13;
        *r ^= *r >> 7;
        *r ^= *r << 17;
        let x = *r >> 11;
        (x % 100 != 0).then_some((x / 100) % 41)
    }

    fn put(&mut self, t: u64, ev: Ev) {
        let t = match ev {
            Ev::Tick(..) => t,
            Ev::Submit(..) | Ev::Answer(..) => match self.late() {
                Some(late) => t + late,
                None => return,
            },
        };
        self.seq += 1;
        self.queue.insert((t, self.seq), ev);
    }

    fn output(&mut self, id: (&'static str, usize), o: Output) {
        match o {
            Output::Send(out) => {
                self.ids += 1;
                let ident = Digest::of(&self.ids.to_be_bytes());
                let key = self.f.key(id.0).clone();
                let c = self.contenders.get_mut(&id).unwrap();
                let sub = c.seal(&out, ident, Digest([0; 32]), &key);
                self.sent.insert((id, out.round), self.now);
                self.requests.push((self.now, id.0, sub.clone()));
                for w in &out.to {
                    let w = name_of(w);
                    if !self.cut.contains(&(id.0, w)) {
                        let t = self.now + self.latency;
                        self.put(t, Ev::Submit(id.0, id.1, w, sub.clone()));
                    }
                }
            }
            Output::Certified(c) => {
                let sent = self.sent[&(id, c.round_id)];
                let a = self.f.charter.usable_lease().as_millis() as u64;
                for e in c.granted {
                    self.certs.push(Cert { at: self.now, site: id.0, group: e.group, epoch: e.epoch, until: sent + a });
                }
            }
            Output::Event(e) => self.events.push((self.now, id.0, e)),
            _ => {}
        }
    }

    /// Until then, one thing after the other.
    pub fn run_until(&mut self, t: u64) {
        while let Some((&(at, _), _)) = self.queue.first_key_value() {
            if at > t {
                break;
            }
            let ((at, _), ev) = self.queue.pop_first().unwrap();
            self.now = self.now.max(at);
            self.happen(ev);
        }
        self.now = t;
        for v in VOTERS {
            self.tick_witness(v);
        }
    }

    fn tick_witness(&mut self, v: &'static str) {
        let now = self.now;
        let voter = self.voters.get_mut(v).unwrap();
        if let Some(w) = &mut voter.witness {
            for (at, e) in w.tick(at_ms(now)) {
                if let WitnessEvent::Lapsed { group, .. } = e {
                    voter.lapsed.push((at.boot_ns / 1_000_000, group));
                }
            }
        }
    }

    fn happen(&mut self, ev: Ev) {
        match ev {
            Ev::Tick(id, w) => {
                if self.wakes.get(&id) == Some(&w) {
                    self.run_contender(id, |c, now| c.tick(at_ms(now)));
                }
            }
            Ev::Answer(w, id, e) => {
                if !self.cut.contains(&(w, id.0)) {
                    self.run_contender(id, |c, now| c.on_answer(at_ms(now), &site(w), &e));
                }
            }
            Ev::Submit(from, replica, w, sub) => {
                if self.cut.contains(&(from, w)) {
                    return;
                }
                let now = self.now;
                let key = self.f.key(w).clone();
                let voter = self.voters.get_mut(w).unwrap();
                let grant = if let Some(liar) = voter.liar {
                    let request: Request = sub.request.peek().unwrap();
                    let mut grant = Grant {
                        witness: site(w),
                        request: sub.request.digest(),
                        exceptions: Vec::new(),
                        votes: BTreeMap::new(),
                        plans: BTreeMap::new(),
                        braked: BTreeMap::new(),
                        start: 1,
                        tag: Tag(vec![1; 8]),
                    };
                    liar(&request, &sub, &mut grant, now);
                    grant
                } else {
                    let Some(witness) = &mut voter.witness else { return };
                    let receipt = match witness.receive(at_ms(now), &sub, Some(1_800_000_000 + now / 1000)) {
                        Ok(r) => r,
                        Err(_) => return,
                    };
                    voter.objects.extend(receipt.persists.iter().cloned());
                    witness.conclude(receipt, &[])
                };
                let e = Envelope::sign(&grant, w, &key);
                self.tick_witness(w);
                let t = self.now + self.latency;
                self.put(t, Ev::Answer(w, (from, replica), e));
            }
        }
    }

    pub fn voter(&mut self, v: &'static str) -> &mut Voter {
        self.voters.get_mut(v).unwrap()
    }

    /// Nothing passes between two sites, in either direction.
    pub fn cut_link(&mut self, one: &'static str, other: &'static str) {
        self.cut.insert((one, other));
        self.cut.insert((other, one));
    }

    /// Home holds the group, and 8 s after the beginning fr and de stand by for it.
    pub fn held_at_home(begin: u64) -> Self {
        let mut script = Self::new(begin);
        let p = plan("ie/shop", 1, 0);
        script.join("ie", 0, std::slice::from_ref(&p));
        script.run_until(begin + 3_000);
        script.join("fr", 0, std::slice::from_ref(&p));
        script.join("de", 0, &[p]);
        script.run_until(begin + 8_000);
        script
    }

    pub fn isolate(&mut self, s: &'static str) {
        for o in SITES.iter().filter(|o| **o != s) {
            self.cut_link(s, o);
        }
    }

    pub fn role(&self, id: (&'static str, usize), g: &str) -> Option<RoleName> {
        let status = self.contenders[&id].status(at_ms(self.now));
        status.into_iter().find(|s| s.group == group(g)).map(|s| s.role)
    }

    /// I1: no two sites may use certificates for a group at one time; I2: epochs only grow.
    pub fn violations(&self) -> Vec<String> {
        let mut out = Vec::new();
        for (i, a) in self.certs.iter().enumerate() {
            for b in &self.certs[i + 1..] {
                if a.group == b.group && a.site != b.site && a.at < b.until && b.at < a.until {
                    out.push(format!("I1: {a:?} and {b:?}"));
                }
                if a.group == b.group && a.site != b.site && a.epoch >= b.epoch && b.at >= a.at {
                    out.push(format!("I2: {a:?} then {b:?}"));
                }
            }
        }
        out
    }

    /// Whether a site could use a certificate at each moment from..to (in ms).
    pub fn gaps(&self, s: &str, g: &str, from: u64, to: u64) -> Vec<(u64, u64)> {
        let mut spans: Vec<(u64, u64)> =
            self.certs.iter().filter(|c| c.site == s && c.group == group(g)).map(|c| (c.at, c.until)).collect();
        spans.sort();
        let mut t = from;
        let mut gaps = Vec::new();
        for (a, b) in spans {
            if a > t {
                gaps.push((t, a.min(to)));
            }
            t = t.max(b);
            if t >= to {
                break;
            }
        }
        if t < to {
            gaps.push((t, to));
        }
        gaps.retain(|(a, b)| a < b);
        gaps
    }

    pub fn explain(&self, v: &str, g: &str) -> crate::witness::GroupView {
        self.voters[v].witness.as_ref().unwrap().explain_group(&group(g), at_ms(self.now)).unwrap()
    }
}

pub fn vote(s: &str, e: &str) -> Vote {
    Vote { site: site(s), epoch: e.parse().unwrap() }
}
