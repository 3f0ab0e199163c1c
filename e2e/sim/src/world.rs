//! The calendar, and who is there.

use std::collections::BTreeMap;
use std::rc::Rc;

use ed25519_dalek::SigningKey;

use crate::adopt::Adoption;
use crate::check::Check;
use crate::clock::{Clock, MS, Rng};
use crate::hub::{Objects, Replica};
use crate::net::Net;
use crate::node::Node;
use crate::shift::{Case, End, Shift};
use crate::trace::{Counts, Trace};
use crate::vote::Voter;
use regent_core::charter::{Charter, Interlock, Party, Role, SiteEntry};
use regent_core::ids::{Epoch, GroupKey, SiteName};
use regent_core::instruction::Instruction;
use regent_core::message::{NodeCertificate, Submission};
use regent_core::plan::{Plan, Protection, Trigger, VerifiedPlan, WhenNotReady};
use regent_core::sign::{Envelope, PublicKey};
use regent_lease::guard::{Guard, GuardError, Nonce, PodUid};

/// Home first, then the standbys by rank; all but home vote.
pub const SITES: [&str; 5] = ["ie", "fr", "de", "ch", "lu"];
pub const NODES: usize = 2;
/// When a schedule begins: clocks were started up to an hour before.
pub const START: u64 = 3_600_000 * MS;

pub fn name(site: usize) -> SiteName {
    SITES[site].parse().unwrap()
}
pub fn group() -> GroupKey {
    "ie/shop".parse().unwrap()
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReplicaId {
    pub site: usize,
    pub replica: usize,
}
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NodeId {
    pub site: usize,
    pub node: usize,
}

#[derive(Debug, Clone, Copy)]
pub enum Kind {
    Any,
    Lossy,
    Cut {
        standby_down: bool,
    },
    Planned,
    Adopted,
    /// Home drops the standby that holds.
    Dropped {
        by_country: bool,
        end: End,
    },
    /// As `Any`, while plans and readiness change.
    Shifting,
    /// Home is cut off while not every standby is ready.
    Unready(Case),
}

/// What a schedule is like.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    pub kind: Kind,
    pub takeover_after_ms: u64,
    /// After how many P there are no more faults.
    pub periods: u64,
}

impl Shape {
    pub fn of(kind: Kind, seed: u64, periods: u64) -> Self {
        Self { kind, takeover_after_ms: [0, 3000, 6000][(seed / 2 % 3) as usize], periods }
    }
    pub fn any(seed: u64) -> Self {
        Self::of(Kind::Any, seed, 40 + seed % 40)
    }
    pub fn lossy(seed: u64) -> Self {
        Self::of(Kind::Lossy, seed, 60)
    }
    pub fn cut(seed: u64) -> Self {
        Self::of(Kind::Cut { standby_down: seed % 4 == 3 }, seed, 60)
    }
    pub fn adopted(seed: u64) -> Self {
        Self::of(Kind::Adopted, seed, 70)
    }
    pub fn planned(seed: u64) -> Self {
        Self::of(Kind::Planned, seed, 60)
    }
}

/// What happens at a moment.
pub enum Happening {
    Submitted(ReplicaId, usize, Rc<Submission>),
    Answered(usize, ReplicaId, Rc<Envelope>),
    Written(usize, u64, u64),
    ContenderWakes(ReplicaId, u64, u64),
    NonceDue(NodeId),
    Carried(NodeId, usize, Nonce),
    Shown(NodeId, Rc<NodeCertificate>),
    GuardWakes(NodeId, u64, u64),
    GateAsks(NodeId, u64),
    Opened(NodeId, u64, PodUid),
    FrozenNow(NodeId, u64, PodUid, u64),
    DeadNow(NodeId, u64, PodUid, u64),
    StopNodes(usize, Epoch),
    Told(NodeId, Instruction),
    Confirmed(NodeId, usize, Instruction),
    Looks(usize, u64),
    Nudged(usize),
    FaultDue,
    MoveDue(usize),
    Cut(usize),
    Adopts(Adoption),
    Shifts(Shift),
    WitnessStarts(usize),
    ReplicaStarts(ReplicaId),
    GuardStarts(NodeId),
    Calm,
}

pub struct World {
    pub shape: Shape,
    pub rng: Rng,
    /// Real time in nanoseconds.
    pub now: u64,
    calendar: BTreeMap<(u64, u64), Happening>,
    next: u64,
    pub charter: Charter,
    pub keys: Vec<SigningKey>,
    pub plan: VerifiedPlan,
    pub net: Net,
    pub voters: BTreeMap<usize, Voter>,
    pub replicas: Vec<Vec<Replica>>,
    pub objects: Vec<Objects>,
    pub nodes: Vec<Vec<Node>>,
    pub check: Check,
    pub calm_at: u64,
    pub write_fails_permille: u64,
    pub replay_permille: u64,
    pub counts: Counts,
    trace: Trace,
}

fn charter(keys: &[SigningKey]) -> Charter {
    let party = |i: usize| Party {
        name: format!("party-{}", SITES[i]).parse().unwrap(),
        display_name: String::new(),
        role: if i == 0 { Role::Primary } else { Role::Partner },
        country: SITES[i].to_uppercase(),
        control: SITES[i].to_uppercase(),
        key: PublicKey::of(&keys[i]),
    };
    let site = |i: usize| SiteEntry {
        name: name(i),
        number: i as u32 + 1,
        party: format!("party-{}", SITES[i]).parse().unwrap(),
        country: SITES[i].to_uppercase(),
        addresses: vec![format!("192.0.2.{i}:7443")],
        key: PublicKey::of(&keys[i]),
        tls_anchor: String::new(),
    };
    Charter {
        name: "simulated".into(),
        version: 1,
        parties: (0..5).map(party).collect(),
        threshold: 3,
        sites: (0..5).map(site).collect(),
        witnesses: (1..5).map(name).collect(),
        faulty_witnesses: 1,
        lease_duration_ms: 6000,
        clock_drift_ppm: 1000,
        interlock: Interlock { changes_per_group_hour: 10_000, changes_per_party_hour: 10_000 },
    }
}

fn first_plan(shape: Shape, protection: Protection) -> Plan {
    Plan {
        group: group(),
        version: 1,
        standbys: vec![name(1), name(2)],
        protection,
        takeover_after_ms: shape.takeover_after_ms,
        thaw_limit_ms: 8000,
        trigger: Trigger::Automatic,
        when_not_ready: match shape.kind {
            Kind::Unready(case) => case.when,
            _ => WhenNotReady::Hold,
        },
        countries: Vec::new(),
    }
}

/// A plan that home signed and all of its standbys countersigned.
fn signed(keys: &[SigningKey], charter: &Charter, plan: &Plan) -> VerifiedPlan {
    let mut envelope = Envelope::sign(plan, SITES[0], &keys[0]);
    for (site, key) in SITES.iter().zip(keys).skip(1) {
        if plan.standbys.iter().any(|s| s.as_str() == *site) {
            envelope.add_signature(site, key);
        }
    }
    VerifiedPlan::open(&envelope, charter).unwrap()
}

impl World {
    pub fn new(seed: u64, shape: Shape, trace: Trace) -> Self {
        let mut rng = Rng(seed.wrapping_mul(0x5851_F42D_4C95_7F2D) ^ 0x1405_7B7E_F767_814F);
        let keys: Vec<SigningKey> = (0..5).map(|i| SigningKey::from_bytes(&[i as u8 + 1; 32])).collect();
        let charter = charter(&keys);
        let first = signed(&keys, &charter, &first_plan(shape, Protection::Protected));
        let clock = |rng: &mut Rng| Clock::booted_at(rng.below(START), rng, 1000);
        let mut world = Self {
            shape,
            now: START,
            calendar: BTreeMap::new(),
            next: 0,
            charter,
            plan: first.clone(),
            keys,
            net: Net::calm(),
            voters: (1..5).map(|i| (i, Voter::new(0, &mut rng))).collect(),
            replicas: (0..3).map(|_| (0..2).map(|_| Replica::new(clock(&mut rng))).collect()).collect(),
            objects: (0..3).map(|_| Objects::new(first.clone())).collect(),
            nodes: (0..3).map(|_| (0..NODES).map(|_| Node::new(0, &mut rng)).collect()).collect(),
            check: Check::default(),
            calm_at: START,
            write_fails_permille: 0,
            replay_permille: 0,
            counts: Counts::default(),
            trace,
            rng,
        };
        world.calm_at = START + shape.periods * world.period();
        world
    }

    /// P in nanoseconds.
    pub fn period(&self) -> u64 {
        self.charter.lease_duration_ms * MS / 6
    }

    pub fn at(&mut self, t: u64, what: Happening) {
        self.next += 1;
        self.calendar.insert((t, self.next), what);
    }

    pub fn trace(&mut self, what: impl FnOnce() -> String) {
        if self.trace.is_on() {
            let line = format!("{:>9.3} {}", (self.now - START) as f64 / 1e9, what());
            self.trace.line(line);
        }
    }

    pub fn first_plan(&self, protection: Protection) -> VerifiedPlan {
        self.signed(&first_plan(self.shape, protection))
    }

    pub fn signed(&self, plan: &Plan) -> VerifiedPlan {
        signed(&self.keys, &self.charter, plan)
    }

    pub fn into_trace(self) -> (Counts, Trace) {
        (self.counts, self.trace)
    }

    /// Runs the schedule; says what was violated, if anything was.
    pub fn run(&mut self) -> Result<(), String> {
        self.begin();
        let p = self.period();
        let (settled, end) = (self.calm_at + 41 * p, self.calm_at + 55 * p);
        while let Some(((t, _), happening)) = self.calendar.pop_first() {
            if t > end {
                break;
            }
            self.now = t;
            self.counts.steps += 1;
            self.happen(happening);
            let executing = self.executing();
            self.check.execution(self.now, executing);
            if let Some(violation) = self.check.violation.take() {
                return Err(format!("{violation} at {} P", (self.now - START) / p));
            }
        }
        self.counts.epochs += self.check.changes.len() as u64;
        if self.check.holder(NODES).is_none() || self.check.since > settled {
            let since = (self.check.since as i64 - self.calm_at as i64) / p as i64;
            return Err(format!(
                "no lasting holder 41 P after the last fault: {:?} since {since} P",
                self.check.executing
            ));
        }
        self.judge()
    }

    fn begin(&mut self) {
        self.schedule();
        for site in 1..5 {
            self.start_witness(site);
        }
        for site in 0..3 {
            for node in 0..NODES {
                let id = NodeId { site, node };
                self.nodes[site][node].process.at_gate = true;
                self.start_guard(id);
                // In some schedules a node joins late, so that it is not on every list.
                let late = matches!(self.shape.kind, Kind::Any | Kind::Shifting) && self.rng.chance(200);
                let t = self.now + self.rng.below(self.period() * if late { 40 } else { 1 });
                self.at(t, Happening::NonceDue(id));
            }
            for replica in 0..2 {
                let t = self.now + self.rng.below(self.period());
                self.at(t, Happening::ReplicaStarts(ReplicaId { site, replica }));
            }
        }
        self.at(self.calm_at, Happening::Calm);
    }

    fn executing(&self) -> Vec<NodeId> {
        let mut out = Vec::new();
        for (site, nodes) in self.nodes.iter().enumerate() {
            for (node, n) in nodes.iter().enumerate() {
                if n.process.runs && !n.process.frozen {
                    out.push(NodeId { site, node });
                }
            }
        }
        out
    }

    fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::Submitted(from, site, submission) => {
                if self.net.arrives(from.site, site) {
                    self.submitted(site, from, &submission);
                }
            }
            Happening::Answered(site, to, answer) => {
                if self.net.arrives(site, to.site) {
                    self.contender(to, |c, now| c.on_answer(now, &name(site), &answer));
                }
            }
            Happening::Written(site, start, id) => self.written(site, start, id),
            Happening::ContenderWakes(id, lives, wakes) => {
                let replica = &self.replicas[id.site][id.replica];
                if (replica.lives, replica.wakes) == (lives, wakes) {
                    self.contender(id, |c, now| c.tick(now));
                }
            }
            Happening::NonceDue(id) => self.make_nonce(id),
            Happening::Carried(id, replica, nonce) => {
                self.replicas[id.site][replica].nonces.insert(id.node, nonce);
                self.reported(id, replica);
            }
            Happening::Shown(id, certificate) => {
                self.guard(id, |g, now| Ok::<_, GuardError>(g.on_certificate(now, &certificate).effects));
            }
            Happening::Nudged(site) => {
                for replica in 0..2 {
                    self.contender(ReplicaId { site, replica }, |c, now| {
                        c.nudge(&group());
                        c.tick(now)
                    });
                }
            }
            Happening::MoveDue(successor) => self.begin_move(successor),
            Happening::Looks(site, looks) => self.look_again(site, looks),
            Happening::Cut(site) => self.net.isolate(site),
            Happening::Adopts(step) => self.adopt(step),
            Happening::Shifts(shift) => self.shift(shift),
            Happening::FaultDue => self.fault(),
            Happening::WitnessStarts(site) if self.voters[&site].witness.is_none() && !self.voters[&site].lies => {
                self.start_witness(site);
            }
            Happening::ReplicaStarts(id) if self.replicas[id.site][id.replica].contender.is_none() => {
                self.start_replica(id);
            }
            Happening::Calm => self.calm(),
            other => self.happen_at_node(other),
        }
    }

    fn happen_at_node(&mut self, happening: Happening) {
        match happening {
            Happening::GuardWakes(id, guards, wakes) => {
                let node = &self.nodes[id.site][id.node];
                if (node.guards, node.wakes) == (guards, wakes) {
                    self.guard(id, |g: &mut Guard, now| Ok::<_, GuardError>(g.tick(now)));
                }
            }
            Happening::GateAsks(id, guards) => {
                let node = &self.nodes[id.site][id.node];
                if node.guards == guards && node.process.at_gate {
                    self.guard(id, |g, now| g.on_gate(now, &crate::node::pod(id).uid));
                }
            }
            Happening::Opened(id, guards, uid) if self.nodes[id.site][id.node].guards == guards => {
                self.guard(id, |g, now| g.on_gate_opened(now, &uid));
            }
            Happening::FrozenNow(id, guards, uid, life) => self.frozen_now(id, guards, &uid, life),
            Happening::DeadNow(id, guards, uid, life) => self.dead_now(id, guards, &uid, life),
            Happening::StopNodes(site, epoch) => self.stop_nodes(site, epoch),
            Happening::Told(id, instruction) => self.told(id, instruction),
            Happening::Confirmed(id, replica, done) => self.confirmed(id, replica, done),
            Happening::GuardStarts(id) if self.nodes[id.site][id.node].guard.is_none() => self.start_guard(id),
            _ => {}
        }
    }

    /// What a schedule of this kind must have led to.
    fn judge(&self) -> Result<(), String> {
        let changes = &self.check.changes;
        let sites: Vec<usize> = changes.iter().map(|c| c.1).collect();
        let p = self.period();
        match self.shape.kind {
            Kind::Any => Ok(()),
            Kind::Shifting | Kind::Dropped { .. } | Kind::Unready(_) => self.judge_shifts(),
            Kind::Lossy if sites == [0] => Ok(()),
            Kind::Lossy => Err(format!("false takeover: {changes:?}")),
            Kind::Cut { standby_down } => {
                let heir = if standby_down { 2 } else { 1 };
                // The last proof is at most 2P older than the cut's first lost request.
                let eligible = START + 20 * p + 6 * p + self.shape.takeover_after_ms * MS + p / 2;
                let taken = changes.iter().find(|c| c.1 == heir).map_or(u64::MAX, |c| c.0);
                if sites.first() == Some(&0) && taken < eligible {
                    return Ok(());
                }
                Err(format!("{} should have taken over: {changes:?}", SITES[heir]))
            }
            Kind::Adopted if sites == [0, 1] && !self.objects[0].list.closed => Ok(()),
            Kind::Adopted => Err(format!("the group was not adopted: {changes:?}")),
            Kind::Planned => {
                let quick = |i: usize, after: u64| changes.get(i).is_some_and(|c| c.0 < START + after * p + 2 * p);
                if sites == [0, 1, 0] && quick(1, 20) && quick(2, 40) {
                    return Ok(());
                }
                Err(format!("planned moves waited for a lease or did not come about: {changes:?}"))
            }
        }
    }
}
