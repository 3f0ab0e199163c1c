//! What goes wrong in a schedule, and its end.

use crate::clock::MS;
use crate::world::{Happening, Kind, NODES, NodeId, ReplicaId, SITES, World};

impl World {
    /// Everything that a schedule of this kind does is put on the calendar here or follows.
    pub fn schedule(&mut self) {
        let p = self.period();
        match self.shape.kind {
            Kind::Any => self.schedule_faults(),
            Kind::Shifting => self.schedule_shifts(),
            Kind::Dropped { by_country, end } => self.schedule_drop(by_country, end),
            Kind::Unready(case) => self.schedule_unready(case),
            Kind::Lossy => {
                self.net.loss_permille = 100;
                self.net.double_permille = 50;
                self.net.delay_ms = 100;
            }
            Kind::Cut { standby_down } => {
                self.at(self.now + 20 * p, Happening::Cut(0));
                if standby_down {
                    self.at(self.now + 10 * p, Happening::Cut(1));
                }
            }
            Kind::Adopted => self.schedule_adoption(),
            Kind::Planned => {
                self.at(self.now + 20 * p, Happening::MoveDue(1));
                self.at(self.now + 40 * p, Happening::MoveDue(0));
            }
        }
    }

    pub fn schedule_faults(&mut self) {
        self.write_fails_permille = self.rng.below(2) * 50;
        self.replay_permille = 50;
        if self.rng.chance(300) {
            let liar = self.rng.between(1, 4) as usize;
            self.trace(|| format!("{} lies", SITES[liar]));
            self.voters.get_mut(&liar).unwrap().lies = true;
        }
        self.at(self.now + 8 * self.period(), Happening::FaultDue);
    }

    pub fn fault(&mut self) {
        let p = self.period();
        if self.now >= self.calm_at {
            return;
        }
        self.counts.faults += 1;
        let wait = self.rng.between(p / 4, 6 * p);
        self.at(self.now + wait, Happening::FaultDue);
        match self.rng.below(15) {
            0 | 1 => {
                let site = self.rng.below(5) as usize;
                self.trace(|| format!("cut {}", SITES[site]));
                self.net.isolate(site);
            }
            2 | 3 => {
                let (from, to) = (self.rng.below(5) as usize, self.rng.below(5) as usize);
                if from != to {
                    self.trace(|| format!("cut {} to {}", SITES[from], SITES[to]));
                    self.net.block(from, to, true);
                }
            }
            4 | 5 => self.heal(),
            6 => {
                self.net.loss_permille = self.rng.below(400);
                self.net.double_permille = self.rng.below(300);
                self.net.delay_ms = self.rng.below(1500);
                self.net.straggler_ms = self.rng.below(14_000);
            }
            7 => self.restart_witness(p),
            8 | 9 => self.restart_replica(p),
            10 => self.restart_guard(false),
            14 => self.restart_guard(true),
            11 => self.reboot_node(p),
            12 | 13 => {
                let successor = self.rng.below(3) as usize;
                self.begin_move(successor);
            }
            _ => {}
        }
    }

    fn heal(&mut self) {
        self.trace(|| "heal".into());
        let (delay_ms, straggler_ms) = (self.net.delay_ms, self.net.straggler_ms);
        self.net = crate::net::Net { delay_ms, straggler_ms, ..crate::net::Net::calm() };
    }

    fn restart_witness(&mut self, p: u64) {
        let site = self.rng.between(1, 4) as usize;
        let reboot = self.rng.chance(500);
        self.trace(|| format!("restart witness {}", SITES[site]));
        self.stop_witness(site, reboot);
        let t = self.now + self.rng.below(10 * p);
        self.at(t, Happening::WitnessStarts(site));
    }

    fn restart_replica(&mut self, p: u64) {
        let site = self.rng.below(3) as usize;
        let both = self.rng.chance(300);
        for replica in 0..2 {
            if both || replica == usize::from(self.rng.chance(500)) {
                let id = ReplicaId { site, replica };
                self.trace(|| format!("restart replica {id:?}"));
                self.stop_replica(id);
                let t = self.now + self.rng.below(10 * p);
                self.at(t, Happening::ReplicaStarts(id));
            }
        }
    }

    fn restart_guard(&mut self, loses_journal: bool) {
        let id = self.some_node();
        self.trace(|| format!("restart guard {id:?}{}", if loses_journal { " without its journal" } else { "" }));
        self.stop_guard(id);
        if loses_journal {
            let node = &mut self.nodes[id.site][id.node];
            (node.cached, node.durable) = Default::default();
            node.journals += 1;
        }
        let t = self.now + self.rng.below(15) * MS;
        self.at(t, Happening::GuardStarts(id));
    }

    fn reboot_node(&mut self, p: u64) {
        let id = self.some_node();
        self.trace(|| format!("reboot {id:?}"));
        self.reboot(id);
        let t = self.now + self.rng.below(6 * p);
        self.at(t, Happening::GuardStarts(id));
    }

    fn some_node(&mut self) -> NodeId {
        NodeId { site: self.rng.below(3) as usize, node: self.rng.below(NODES as u64) as usize }
    }

    /// The last fault is over: all links are up, everything lives. A liar falls silent.
    pub fn calm(&mut self) {
        self.trace(|| "calm".into());
        self.net = crate::net::Net::calm();
        self.write_fails_permille = 0;
        self.replay_permille = 0;
        for site in 1..5 {
            let voter = self.voters.get_mut(&site).unwrap();
            if voter.lies {
                voter.lies = false;
                voter.witness = None;
            } else if voter.witness.is_none() {
                self.start_witness(site);
            }
        }
        for site in 0..3 {
            for replica in 0..2 {
                if self.replicas[site][replica].contender.is_none() {
                    self.start_replica(ReplicaId { site, replica });
                }
            }
            for node in 0..NODES {
                if self.nodes[site][node].guard.is_none() {
                    self.start_guard(NodeId { site, node });
                }
            }
        }
    }
}
