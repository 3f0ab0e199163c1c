//! The list of nodes: who is brought onto it, and what guards are told (L12).

use std::collections::VecDeque;

use regent_core::ids::Epoch;
use regent_core::instruction::Instruction;
use regent_lease::contender::ReleaseEvent;
use regent_lease::guard::GuardError;
use regent_lease::nodes::{Admission, introduction};

use crate::node::node_name;
use crate::world::{Happening, NODES, NodeId, ReplicaId, World, group};

/// A guard's journal, and the version of the plan that it was told of.
pub type Knows = (u64, u64);

/// A node on its way to the list, or that is being told what it must know.
pub struct Bringing {
    knows: Knows,
    /// The newest end that it has confirmed.
    told: Option<Epoch>,
    /// What it is told next, until it confirms.
    left: VecDeque<Instruction>,
}

impl World {
    /// A node reports its pod to the hub of a replica, which lists it and tells it what it
    /// must know: again with each report, until it has confirmed.
    pub fn reported(&mut self, id: NodeId, replica: usize) {
        let journal = self.nodes[id.site][id.node].journals;
        let objects = &mut self.objects[id.site];
        let own = &mut self.replicas[id.site][replica];
        let knows = (journal, objects.plan.plan().version);
        let node = node_name(id);
        if own.contender.is_none() || !objects.list.misses(&node, own.told.get(&id.node) == Some(&knows)) {
            own.bringing.remove(&id.node);
            return;
        }
        let bringing = own.bringing.entry(id.node).or_insert(Bringing { knows, told: None, left: VecDeque::new() });
        if bringing.knows != knows {
            *bringing = Bringing { knows, told: None, left: VecDeque::new() };
        }
        if bringing.left.is_empty() {
            bringing.left = match objects.list.admit(&node, bringing.told) {
                Admission::Listed => introduction(objects.plan.plan()).into(),
                Admission::TellFirst(epoch) => [Instruction::Retire(epoch)].into(),
                Admission::Closed => return,
            };
        }
        if let Some(instruction) = bringing.left.front().copied() {
            self.instruct(id, instruction);
        }
    }

    fn instruct(&mut self, id: NodeId, instruction: Instruction) {
        for delay in self.net.delays(&mut self.rng, id.site, id.site) {
            self.at(self.now + delay, Happening::Told(id, instruction));
        }
    }

    /// An instruction has come to a guard.
    pub fn told(&mut self, id: NodeId, instruction: Instruction) {
        self.guard::<GuardError>(id, |guard, now| match instruction {
            Instruction::Listed => Ok(guard.on_listed(now, &group())),
            Instruction::Protect => guard.on_protect(now, &group()),
            Instruction::Retire(epoch) => Ok(guard.on_retire(now, &group(), epoch)),
            Instruction::Configure(limit) => Ok(guard.on_configure(now, &group(), limit)),
        });
    }

    /// A guard confirms to both hubs.
    pub fn confirms(&mut self, id: NodeId, done: Instruction) {
        for replica in 0..2 {
            for delay in self.net.delays(&mut self.rng, id.site, id.site) {
                self.at(self.now + delay, Happening::Confirmed(id, replica, done));
            }
        }
    }

    pub fn confirmed(&mut self, id: NodeId, replica: usize, done: Instruction) {
        if let (0, Instruction::Retire(epoch)) = (replica, done) {
            let stopped = ReleaseEvent::NodeStopped { node: node_name(id), epoch };
            self.contender(ReplicaId { site: id.site, replica }, |c, now| {
                c.on_release_event(now, &group(), stopped).unwrap_or_default()
            });
        }
        let own = &mut self.replicas[id.site][replica];
        let Some(bringing) = own.bringing.get_mut(&id.node) else { return };
        let Some(instruction) = bringing.left.front().copied().filter(|i| done.covers(*i)) else { return };
        bringing.left.pop_front();
        match instruction {
            Instruction::Retire(epoch) => bringing.told = bringing.told.max(Some(epoch)),
            Instruction::Protect => self.objects[id.site].list.note_protects(&node_name(id)),
            Instruction::Listed | Instruction::Configure(_) => {}
        }
        if bringing.left.is_empty() && !matches!(instruction, Instruction::Retire(_)) {
            own.told.insert(id.node, bringing.knows);
        }
        self.reported(id, replica);
    }

    /// Every node that was on the list when it closed is told to stop the group for good.
    pub fn stop_nodes(&mut self, site: usize, epoch: Epoch) {
        for id in (0..NODES).map(|node| NodeId { site, node }) {
            if self.objects[site].list.nodes.contains_key(&node_name(id)) {
                self.instruct(id, Instruction::Retire(epoch));
            }
        }
    }
}
