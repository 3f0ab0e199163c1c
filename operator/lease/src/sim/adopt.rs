//! A group's way from `Observed` to `Protected`, and a cut before and after it.

use super::node::node_name;
use super::world::{Happening, NODES, NodeId, World, group, plan};
use crate::guard::Effect;
use regent_core::instruction::Instruction;
use regent_core::plan::Protection;

/// The steps, in their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Adoption {
    CutWhileObserved,
    HealAndLook,
    Protect,
    OpenList,
    CutWhileProtected,
}

impl World {
    pub fn schedule_adoption(&mut self) {
        let p = self.period();
        self.plan = plan(&self.keys, self.shape, 1, Protection::Observed);
        (0..3).for_each(|site| self.objects[site].plan = self.plan.clone());
        let steps = [
            (12, Adoption::CutWhileObserved),
            (22, Adoption::HealAndLook),
            (28, Adoption::Protect),
            (44, Adoption::CutWhileProtected),
        ];
        for (periods, step) in steps {
            self.at(self.now + periods * p, Happening::Adopts(step));
        }
    }

    pub fn adopt(&mut self, step: Adoption) {
        let p = self.period();
        match step {
            Adoption::CutWhileObserved | Adoption::CutWhileProtected => self.net.isolate(0),
            Adoption::HealAndLook => {
                self.net = super::net::Net::calm();
                if self.check.holder(NODES) != Some(0) || self.check.since > self.now - 12 * p {
                    self.check.violation = Some("what is only Observed was stopped by a cut".into());
                }
            }
            Adoption::Protect => self.protect(),
            Adoption::OpenList => {
                let home = &self.replicas[0][0];
                if home.contender.as_ref().is_some_and(|c| c.is_registered(&group(), 2)) {
                    self.trace(|| "q witnesses hold version 2 at one time".into());
                    self.objects[0].closed = false;
                } else {
                    self.at(self.now + p, Happening::Adopts(Adoption::OpenList));
                }
            }
        }
    }

    /// The list is closed; every listed guard journals and confirms; then home registers it.
    fn protect(&mut self) {
        self.objects[0].closed = true;
        for node in 0..NODES {
            let id = NodeId { site: 0, node };
            let mut confirmed = false;
            self.guard(id, |guard, now| {
                let effects = guard.on_protect(now, &group());
                let done = Effect::Confirm(group(), Instruction::Protect);
                confirmed = effects.as_ref().is_ok_and(|e| e.contains(&done));
                effects
            });
            if !confirmed {
                self.check.violation = Some(format!("{} did not confirm", node_name(id)));
            }
        }
        self.plan = plan(&self.keys, self.shape, 2, Protection::Protected);
        for site in 0..3 {
            self.objects[site].plan = self.plan.clone();
            self.tell_inputs(site);
        }
        self.at(self.now + self.period(), Happening::Adopts(Adoption::OpenList));
    }
}
