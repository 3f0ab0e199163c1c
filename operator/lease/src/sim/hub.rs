//! A site: two operators, each with its contender and hub, and the list of nodes that
//! both share.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Duration;

use super::clock::{Clock, MS};
use super::node::node_name;
use super::world::{Happening, NODES, NodeId, ReplicaId, SITES, World, group, name};
use crate::contender::{
    Certified, Contender, ContenderEvent, Outgoing, Output, Readiness, ReleaseEvent, RoleName, RoundId,
};
use crate::deliver::{Delivery, NonceSet};
use crate::guard::{GuardError, Nonce};
use regent_core::ids::Epoch;
use regent_core::plan::Plan;
use regent_core::sign::{Digest, Envelope};
use regent_core::time::Moment;

pub struct Replica {
    pub contender: Option<Contender>,
    pub clock: Clock,
    pub lives: u64,
    pub wakes: u64,
    /// The newest nonce of each node.
    pub nonces: BTreeMap<usize, Nonce>,
    rounds: BTreeMap<RoundId, NonceSet>,
}

impl Replica {
    pub fn new(clock: Clock) -> Self {
        Self { contender: None, clock, lives: 0, wakes: 0, nonces: BTreeMap::new(), rounds: BTreeMap::new() }
    }
}

/// What a site's API server keeps.
#[derive(Debug)]
pub struct Objects {
    /// The newest plan that has come to this site.
    pub plan: Envelope,
    /// How much of what it would run is held ready.
    pub readiness: Readiness,
    /// The site holds the group, as its object says.
    pub holds: bool,
    pub listed: BTreeSet<usize>,
    pub closed: bool,
    /// The list is open for epochs above this one only.
    pub retired: Option<Epoch>,
    pub releasing: Option<(Epoch, usize)>,
}

impl Objects {
    pub fn new(plan: Envelope) -> Self {
        Self {
            plan,
            readiness: Readiness::All,
            holds: false,
            listed: BTreeSet::new(),
            closed: false,
            retired: None,
            releasing: None,
        }
    }
}

fn may_inherit(plan: &Envelope, site: usize) -> bool {
    let plan: Plan = plan.peek().unwrap();
    plan.rank(&name(site)).is_some() && plan.allows_country(&SITES[site].to_uppercase())
}

impl World {
    pub fn start_replica(&mut self, id: ReplicaId) {
        let mut contender = Contender::new(self.charter.clone(), name(id.site)).unwrap();
        contender.set_stagger(Duration::from_millis(100 * id.replica as u64));
        contender.set_plans(self.inputs(id));
        let replica = &mut self.replicas[id.site][id.replica];
        replica.lives += 1;
        replica.contender = Some(contender);
        replica.nonces.clear();
        replica.rounds.clear();
        self.contender(id, |c, now| c.tick(now));
        if id.replica == 0
            && let Some((epoch, successor)) = self.objects[id.site].releasing
        {
            let mut begun = false;
            self.contender(id, |c, now| {
                let outputs = c.release(now, &group(), epoch, name(successor));
                begun = outputs.is_ok();
                outputs.unwrap_or_default()
            });
            if !begun {
                // The plan has dropped the heir, or the site, since: the release is given up.
                let objects = &mut self.objects[id.site];
                (objects.closed, objects.releasing) = (false, None);
            }
        }
    }

    pub fn stop_replica(&mut self, id: ReplicaId) {
        let replica = &mut self.replicas[id.site][id.replica];
        replica.lives += 1;
        replica.contender = None;
    }

    /// Feeds a contender, if one lives, and does what it says.
    pub fn contender(&mut self, id: ReplicaId, input: impl FnOnce(&mut Contender, Moment) -> Vec<Output>) {
        let replica = &mut self.replicas[id.site][id.replica];
        let now = replica.clock.read(self.now);
        let Some(contender) = &mut replica.contender else { return };
        let outputs = input(contender, now);
        for output in outputs {
            self.output(id, output);
        }
        let replica = &mut self.replicas[id.site][id.replica];
        let Some(at) = replica.contender.as_ref().and_then(Contender::next_tick) else { return };
        replica.wakes += 1;
        let (lives, wakes) = (replica.lives, replica.wakes);
        let t = replica.clock.when(at).max(self.now + MS / 10);
        self.at(t, Happening::ContenderWakes(id, lives, wakes));
    }

    fn output(&mut self, id: ReplicaId, output: Output) {
        match output {
            Output::Send(outgoing) => self.send(id, &outgoing),
            Output::Certified(certified) => self.certified(id, &certified),
            Output::Event(event) => self.event(id, &event),
            Output::CloseNodeList { .. } => {
                let objects = &mut self.objects[id.site];
                objects.closed = true;
                let nodes = objects.listed.iter().map(|n| node_name(NodeId { site: id.site, node: *n })).collect();
                self.contender(id, |c, now| {
                    c.on_release_event(now, &group(), ReleaseEvent::ListClosed(nodes)).unwrap_or_default()
                });
            }
            Output::StopNodes { epoch, .. } => {
                // Told again, until the release goes on without them.
                for again in 0..4 {
                    self.at(self.now + again * self.period(), Happening::StopNodes(id.site, epoch));
                }
            }
            Output::Released { successor, epoch, .. } => {
                let objects = &mut self.objects[id.site];
                (objects.closed, objects.releasing, objects.retired) = (false, None, Some(epoch));
                let heir = SITES.iter().position(|s| *s == successor.as_str()).unwrap();
                for delay in self.net.delays(&mut self.rng, id.site, heir) {
                    self.at(self.now + delay, Happening::Nudged(heir));
                }
            }
        }
    }

    fn event(&mut self, id: ReplicaId, event: &ContenderEvent) {
        self.trace(|| format!("{} {} {event:?}", SITES[id.site], id.replica));
        if let ContenderEvent::Certificate { epoch, .. } = event {
            self.check.certificate(self.now, id.site, *epoch);
        }
    }

    fn send(&mut self, id: ReplicaId, outgoing: &Outgoing) {
        let request = Digest(self.rng.bytes());
        let replica = &mut self.replicas[id.site][id.replica];
        let named = |(node, nonce): (&usize, &Nonce)| (node_name(NodeId { site: id.site, node: *node }), *nonce);
        let nonces = NonceSet::of(replica.nonces.iter().map(named));
        let root = nonces.root();
        replica.rounds.insert(outgoing.round, nonces);
        while replica.rounds.len() > 64 {
            replica.rounds.pop_first();
        }
        let Some(contender) = &mut replica.contender else { return };
        let submission = Rc::new(contender.seal(outgoing, request, root, &self.keys[id.site]));
        self.trace(|| format!("{} {} sends {:?} {:?}", SITES[id.site], id.replica, outgoing.ask, outgoing.entries));
        for witness in &outgoing.to {
            let witness = SITES.iter().position(|s| *s == witness.as_str()).unwrap();
            for delay in self.net.delays(&mut self.rng, id.site, witness) {
                self.at(self.now + delay, Happening::Submitted(id, witness, Rc::clone(&submission)));
            }
        }
    }

    /// The hub shows a certificate to the nodes on the list, which it may put there first.
    /// An operator that lies shows it late, and again.
    fn certified(&mut self, id: ReplicaId, certified: &Certified) {
        for entry in &certified.granted {
            self.check.certificate(self.now, id.site, entry.epoch);
        }
        let over = |epoch| Some(epoch) <= self.objects[id.site].retired;
        if certified.entries.iter().all(|e| over(e.epoch)) {
            return;
        }
        let nonces = self.replicas[id.site][id.replica].rounds[&certified.round_id].clone();
        let delivery = Delivery::new(&certified.round, &certified.entries, &certified.granted, &nonces);
        let groups = BTreeSet::from([group()]);
        for node in (0..NODES).map(|node| NodeId { site: id.site, node }) {
            let Some(certificate) = delivery.to(&node_name(node), &groups).map(Rc::new) else { continue };
            let objects = &mut self.objects[id.site];
            if objects.closed && !objects.listed.contains(&node.node) {
                continue;
            }
            if objects.listed.insert(node.node) {
                self.guard(node, |g, now| Ok::<_, GuardError>(g.on_listed(now, &group())));
            }
            let mut delays = self.net.delays(&mut self.rng, id.site, id.site);
            if self.rng.chance(self.replay_permille) {
                delays.push(self.rng.below(4 * 6 * self.period()));
            }
            for delay in delays {
                self.at(self.now + delay, Happening::Shown(node, Rc::clone(&certificate)));
            }
        }
    }

    /// A guard makes a nonce, and its agent carries it to both hubs.
    pub fn make_nonce(&mut self, id: NodeId) {
        let random = self.rng.bytes();
        let node = &mut self.nodes[id.site][id.node];
        let now = node.clock.read(self.now);
        if let Some(guard) = &mut node.guard {
            let nonce = guard.new_nonce(now, random);
            for replica in 0..2 {
                for delay in self.net.delays(&mut self.rng, id.site, id.site) {
                    self.at(self.now + delay, Happening::Carried(id, replica, nonce));
                }
            }
        }
        self.at(self.now + self.period(), Happening::NonceDue(id));
    }

    pub fn stop_nodes(&mut self, site: usize, epoch: Epoch) {
        for node in 0..NODES {
            let id = NodeId { site, node };
            for delay in self.net.delays(&mut self.rng, site, site) {
                self.at(self.now + delay, Happening::Told(id, epoch));
            }
        }
    }

    pub fn node_confirms(&mut self, id: NodeId, epoch: Epoch) {
        for delay in self.net.delays(&mut self.rng, id.site, id.site) {
            self.at(self.now + delay, Happening::Confirmed(id, epoch));
        }
    }

    /// Begins a planned move of the group from where it is held, if it is.
    pub fn begin_move(&mut self, successor: usize) {
        for site in 0..3 {
            let id = ReplicaId { site, replica: 0 };
            let replica = &self.replicas[site][0];
            let now = replica.clock.read(self.now);
            let Some(contender) = &replica.contender else { continue };
            let holds =
                contender.status(now).into_iter().find(|s| s.role == RoleName::Holder).and_then(|s| s.certified);
            let objects = &self.objects[site];
            // A plan that bars the heir of a release that is under way is another matter.
            let heir = may_inherit(&objects.plan, successor) && may_inherit(&self.plan, successor);
            let Some(epoch) = holds.filter(|_| site != successor && heir && objects.releasing.is_none()) else {
                continue;
            };
            self.objects[site].releasing = Some((epoch, successor));
            self.trace(|| format!("move {epoch} to {}", SITES[successor]));
            self.contender(id, |c, now| c.release(now, &group(), epoch, name(successor)).unwrap());
            return;
        }
    }
}
