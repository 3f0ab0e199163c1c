//! Planned moves: their record, and what the replica that leads does about it.

use regent_core::ids::Epoch;
use regent_lease::contender::{ReleaseError, RoleName};
use regent_lease::takeover::{Facts, Kind, Next, Phase, Record, next};

use crate::world::{Happening, ReplicaId, SITES, World, group, name};

impl World {
    /// Somebody asks for a move of the group from where it is held, if it is.
    pub fn begin_move(&mut self, successor: usize) {
        let holds = |site: usize| {
            let replica = &self.replicas[site][0];
            let now = replica.clock.read(self.now);
            let status = replica.contender.as_ref().and_then(|c| c.status(now).pop());
            status.is_some_and(|s| s.role == RoleName::Holder)
        };
        let Some(site) = (0..3).find(|site| holds(*site)) else { return };
        // A plan that bars the heir of a release that is under way is another matter.
        let takes = |plan: &regent_core::plan::VerifiedPlan| {
            plan.rank(&name(successor)).is_some() && plan.is_lawful(&name(successor), &self.charter)
        };
        if site == successor || !takes(&self.plan) || self.objects[site].takeover.is_some() {
            return;
        }
        self.trace(|| format!("move from {} to {}", SITES[site], SITES[successor]));
        self.objects[site].takeover = Some(Record {
            kind: Kind::Planned,
            to: name(successor),
            approved: false,
            phase: Phase::Pending,
            ends: None,
            epoch: None,
        });
        self.look_at_takeover(site);
    }

    /// Whether a move is between its begin and its release.
    pub fn is_moving(&self) -> bool {
        self.objects.iter().filter_map(|o| o.takeover.as_ref()).any(|t| t.phase < Phase::Released)
    }

    /// Looks at a site's takeover now, and again while it is open.
    pub fn look_at_takeover(&mut self, site: usize) {
        let before = self.objects[site].looks;
        self.objects[site].looks += 1;
        self.look_again(site, before + 1);
    }

    pub fn look_again(&mut self, site: usize, looks: u64) {
        if self.objects[site].looks != looks {
            return;
        }
        let Some(record) = self.objects[site].takeover.clone() else { return };
        let leader = ReplicaId { site, replica: 0 };
        if self.replicas[site][0].contender.is_some() {
            let step = self.next_of(leader, &record);
            self.take_step(leader, record, step);
            self.at(self.now + self.period() / 8, Happening::Looks(site, looks));
        }
    }

    fn next_of(&self, id: ReplicaId, record: &Record) -> Next {
        let (objects, replica) = (&self.objects[id.site], &self.replicas[id.site][id.replica]);
        let now = replica.clock.read(self.now);
        let status = replica.contender.as_ref().and_then(|c| c.status(now).pop());
        let facts = Facts {
            charter: &self.charter,
            here: &name(id.site),
            group: &group(),
            plan: Some(&objects.plan),
            status: status.as_ref(),
            adopting: objects.protecting.is_some() && objects.list.closed,
            released: record.ends.is_some() && replica.released == record.ends,
            word: None,
        };
        next(record, &facts)
    }

    fn take_step(&mut self, id: ReplicaId, mut record: Record, step: Next) {
        match step {
            Next::Stay | Next::Waits(_) | Next::About(_) => {}
            Next::Begin(epoch) => {
                record.ends = Some(epoch);
                self.objects[id.site].takeover = Some(record.clone());
                self.trace(|| format!("move {epoch} to {}", record.to));
                if self.release(id, epoch, &record).is_err() {
                    self.objects[id.site].takeover = None;
                }
            }
            Next::GoOn(epoch) => match self.release(id, epoch, &record) {
                Ok(()) | Err(ReleaseError::UnderWay(..)) => {}
                Err(_) => self.give_up(id.site, &record),
            },
            // How the successor's pods get ready is no matter of this simulation.
            Next::Reached(phase, _) if phase >= Phase::Certified => {
                self.counts.moved += 1;
                self.objects[id.site].takeover = None;
            }
            Next::Reached(phase, epoch) => {
                (record.phase, record.epoch) = (phase, epoch);
                self.objects[id.site].takeover = Some(record);
            }
            Next::Failed { reason, .. } => {
                self.trace(|| format!("the move fails: {reason}"));
                self.give_up(id.site, &record);
            }
        }
    }

    fn release(&mut self, id: ReplicaId, epoch: Epoch, record: &Record) -> Result<(), ReleaseError> {
        let mut done = Ok(());
        self.contender(id, |c, now| match c.release(now, &group(), epoch, record.to.clone()) {
            Ok(outputs) => outputs,
            Err(e) => {
                done = Err(e);
                Vec::new()
            }
        });
        done
    }

    fn give_up(&mut self, site: usize, record: &Record) {
        let objects = &mut self.objects[site];
        objects.list.closed &= !record.may_have_closed();
        objects.takeover = None;
    }
}
