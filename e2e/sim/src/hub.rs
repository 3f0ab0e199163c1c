//! A site: two operators, each with its contender and hub, and the objects that both share.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Duration;

use regent_core::ids::Epoch;
use regent_core::plan::VerifiedPlan;
use regent_core::sign::Digest;
use regent_core::time::Moment;
use regent_lease::adoption::Reason;
use regent_lease::contender::{
    Certified, Contender, ContenderEvent, Outgoing, Output, Readiness, ReleaseEvent, RoundId,
};
use regent_lease::deliver::{Delivery, NonceSet};
use regent_lease::guard::Nonce;
use regent_lease::nodes::NodeList;
use regent_lease::takeover::Record;

use crate::clock::{Clock, MS};
use crate::lists::{Bringing, Knows};
use crate::node::node_name;
use crate::world::{Happening, NODES, NodeId, ReplicaId, SITES, World, group, name};

pub struct Replica {
    pub contender: Option<Contender>,
    pub clock: Clock,
    pub lives: u64,
    pub wakes: u64,
    /// The newest nonce of each node.
    pub nonces: BTreeMap<usize, Nonce>,
    rounds: BTreeMap<RoundId, NonceSet>,
    /// What each node was told last: in which journal, and under which version of the plan.
    pub told: BTreeMap<usize, Knows>,
    /// Nodes that are being listed or told.
    pub bringing: BTreeMap<usize, Bringing>,
    /// The epoch whose release this replica has carried to its end.
    pub released: Option<Epoch>,
}

impl Replica {
    pub fn new(clock: Clock) -> Self {
        Self {
            contender: None,
            clock,
            lives: 0,
            wakes: 0,
            nonces: BTreeMap::new(),
            rounds: BTreeMap::new(),
            told: BTreeMap::new(),
            bringing: BTreeMap::new(),
            released: None,
        }
    }
}

/// What a site's API server keeps.
#[derive(Debug)]
pub struct Objects {
    /// The newest plan that has come to this site.
    pub plan: VerifiedPlan,
    /// How much of what it would run is held ready.
    pub readiness: Readiness,
    /// The site holds the group, as its object says.
    pub holds: bool,
    /// The list of nodes.
    pub list: NodeList,
    /// The planned move that is under way.
    pub takeover: Option<Record>,
    /// Why the group is not Protected, as its condition says; none: it is.
    pub protecting: Option<Reason>,
    /// Counts who looks at the takeover: a replica that starts anew looks instead of the one before.
    pub looks: u64,
}

impl Objects {
    pub fn new(plan: VerifiedPlan) -> Self {
        Self {
            plan,
            readiness: Readiness::All,
            holds: false,
            list: NodeList::default(),
            takeover: None,
            protecting: None,
            looks: 0,
        }
    }
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
        replica.told.clear();
        replica.bringing.clear();
        replica.released = None;
        self.contender(id, |c, now| c.tick(now));
        if id.replica == 0 {
            self.look_at_takeover(id.site);
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
                let list = &mut self.objects[id.site].list;
                list.closed = true;
                let nodes = list.nodes.keys().cloned().collect();
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
                self.counts.released += 1;
                self.objects[id.site].list.end(epoch);
                self.replicas[id.site][id.replica].released = Some(epoch);
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

    /// The hub shows a certificate to the nodes on the list. An operator that lies shows it
    /// late, and again.
    fn certified(&mut self, id: ReplicaId, certified: &Certified) {
        for entry in &certified.granted {
            self.check.certificate(self.now, id.site, entry.epoch);
        }
        let nonces = self.replicas[id.site][id.replica].rounds[&certified.round_id].clone();
        let delivery = Delivery::new(&certified.round, &certified.entries, &certified.granted, &nonces);
        let groups = BTreeSet::from([group()]);
        for node in (0..NODES).map(|node| NodeId { site: id.site, node }) {
            if !self.objects[id.site].list.nodes.contains_key(&node_name(node)) {
                continue;
            }
            let Some(certificate) = delivery.to(&node_name(node), &groups).map(Rc::new) else { continue };
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
}
