//! A node: its guard, its clocks, its disk, and one pod of the group.

use std::time::Duration;

use crate::clock::{Clock, MS, Rng};
use crate::world::{Happening, NodeId, SITES, World, name};
use regent_core::charter::Charter;
use regent_core::ids::NodeName;
use regent_lease::guard::{Effect, Guard, GuardConfig, Journal, Pod, PodUid};

/// Freezing takes up to 8 ms here, a new guard is there within 15 ms.
pub const MARGIN_MS: u64 = 40;

/// What a pod really does.
#[derive(Debug, Clone, Copy, Default)]
pub struct Process {
    /// Its program has passed the gate and lives.
    pub runs: bool,
    pub frozen: bool,
    /// A gate waits in it.
    pub at_gate: bool,
    /// Counts its lives and freezes: reports of an earlier one are void.
    pub life: u64,
}

pub struct Node {
    pub guard: Option<Guard>,
    pub clock: Clock,
    pub boots: u64,
    /// Counts journals: what an earlier one knew must be told again.
    pub journals: u64,
    /// What the last write left, in the page cache and on the disk.
    pub cached: Journal,
    pub durable: Journal,
    pub process: Process,
    /// Counts guards: timers and reports of an earlier one are void.
    pub guards: u64,
    pub wakes: u64,
}

pub fn pod(id: NodeId) -> Pod {
    Pod {
        uid: PodUid(format!("pod-{}-{}", id.site, id.node)),
        namespace: "shop".into(),
        name: format!("shop-{}", id.node),
        group: crate::world::group(),
    }
}

pub fn node_name(id: NodeId) -> NodeName {
    NodeName(format!("{}-{}", SITES[id.site], id.node))
}

impl Node {
    pub fn new(t: u64, rng: &mut Rng) -> Self {
        Self {
            guard: None,
            clock: Clock::booted_at(t, rng, 1000),
            boots: 0,
            journals: 0,
            cached: Journal::default(),
            durable: Journal::default(),
            process: Process::default(),
            guards: 0,
            wakes: 0,
        }
    }

    fn config(&self, id: NodeId, charter: &Charter) -> GuardConfig {
        GuardConfig {
            site: name(id.site),
            node: node_name(id),
            charter: charter.clone().into(),
            boot_id: format!("boot-{}", self.boots),
            freeze_margin: Duration::from_millis(MARGIN_MS),
        }
    }
}

impl World {
    /// A guard starts over what the one before it wrote.
    pub fn start_guard(&mut self, id: NodeId) {
        let node = &mut self.nodes[id.site][id.node];
        node.guards += 1;
        let config = node.config(id, &self.charter);
        let mut guard = Guard::new(config, node.cached.clone()).unwrap();
        let now = node.clock.read(self.now);
        // The pod's volume outlives the journal.
        guard.on_found(pod(id));
        let effects = guard.resume(now);
        node.guard = Some(guard);
        self.carry_out(id, effects);
        self.after(id, 50 * MS, Happening::GateAsks);
    }

    fn after(&mut self, id: NodeId, d: u64, what: impl Fn(NodeId, u64) -> Happening) {
        let guards = self.nodes[id.site][id.node].guards;
        self.at(self.now + d, what(id, guards));
    }

    pub fn stop_guard(&mut self, id: NodeId) {
        let node = &mut self.nodes[id.site][id.node];
        node.guard = None;
        node.guards += 1;
    }

    /// The machine loses power: processes, page cache and clocks.
    pub fn reboot(&mut self, id: NodeId) {
        self.stop_guard(id);
        let node = &mut self.nodes[id.site][id.node];
        node.boots += 1;
        node.cached = node.durable.clone();
        node.clock = Clock::booted_at(self.now, &mut self.rng, 1000);
        node.process = Process { at_gate: true, life: node.process.life + 1, ..Process::default() };
    }

    /// Feeds a guard, if one lives, and does what it says.
    pub fn guard<E>(
        &mut self,
        id: NodeId,
        input: impl FnOnce(&mut Guard, regent_core::time::Moment) -> Result<Vec<Effect>, E>,
    ) {
        let node = &mut self.nodes[id.site][id.node];
        let now = node.clock.read(self.now);
        let Some(guard) = &mut node.guard else { return };
        // A report that comes too late is refused, and that is all.
        let effects = input(guard, now).unwrap_or_default();
        self.carry_out(id, effects);
    }

    fn carry_out(&mut self, id: NodeId, effects: Vec<Effect>) {
        for effect in effects {
            self.carry_out_one(id, effect);
        }
        self.set_guard_timer(id);
    }

    fn set_guard_timer(&mut self, id: NodeId) {
        let node = &mut self.nodes[id.site][id.node];
        let Some(at) = node.guard.as_ref().and_then(Guard::next_deadline) else { return };
        node.wakes += 1;
        let (guards, wakes) = (node.guards, node.wakes);
        let t = node.clock.when(at).max(self.now + MS / 10);
        self.at(t, Happening::GuardWakes(id, guards, wakes));
    }

    fn carry_out_one(&mut self, id: NodeId, effect: Effect) {
        let guards = self.nodes[id.site][id.node].guards;
        let node = &mut self.nodes[id.site][id.node];
        match effect {
            Effect::Journal { state, durable } => {
                if durable {
                    node.durable = (*state).clone();
                }
                node.cached = *state;
            }
            Effect::WriteEpoch(_, epoch) => self.check.epoch_written(id, epoch),
            Effect::OpenGate(uid) => {
                if std::mem::take(&mut node.process.at_gate) {
                    self.counts.opened += 1;
                    node.process.runs = true;
                    self.at(self.now, Happening::Opened(id, guards, uid));
                }
            }
            Effect::Freeze(uid) => {
                let life = node.process.life;
                self.counts.frozen += 1;
                let t = self.now + self.rng.between(1, 8) * MS;
                self.at(t, Happening::FrozenNow(id, guards, uid, life));
            }
            Effect::Thaw(_) => {
                node.process.frozen = false;
                node.process.life += 1;
            }
            Effect::Kill(uid) => {
                self.counts.killed += 1;
                node.process.life += 1;
                let life = node.process.life;
                let t = self.now + self.rng.between(1, 20) * MS;
                self.at(t, Happening::DeadNow(id, guards, uid, life));
            }
            Effect::Confirm(_, done) => self.confirms(id, done),
            Effect::Event(event) => self.trace(|| format!("{} {event:?}", node_name(id))),
        }
    }

    pub fn frozen_now(&mut self, id: NodeId, guards: u64, uid: &PodUid, life: u64) {
        let node = &mut self.nodes[id.site][id.node];
        if node.process.life != life {
            return;
        }
        node.process.frozen = true;
        if node.guards == guards {
            self.guard(id, |g, now| g.on_frozen(now, uid, Duration::from_millis(5)));
        }
    }

    pub fn dead_now(&mut self, id: NodeId, guards: u64, uid: &PodUid, life: u64) {
        let node = &mut self.nodes[id.site][id.node];
        if node.process.life != life {
            return;
        }
        node.process = crate::node::Process { life: life + 1, at_gate: true, ..Process::default() };
        if node.guards == guards {
            self.guard(id, |g, now| g.on_killed(now, uid));
        }
        let wait = self.rng.between(20, 400) * MS;
        self.after(id, wait, Happening::GateAsks);
    }
}
