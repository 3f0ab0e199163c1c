//! A group's way from `Observed` to `Protected`, and a cut before and after it.

use regent_core::instruction::Instruction;
use regent_core::plan::Protection;
use regent_lease::adoption::{Facts, Reason, Step, must_open, next};
use regent_lease::contender::RoleName;
use regent_lease::guard::Effect;

use crate::node::node_name;
use crate::world::{Happening, NODES, NodeId, World, group};

/// What happens, in its order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Adoption {
    CutWhileObserved,
    HealAndLook,
    /// Home asks for `Protected` from here on, and looks again.
    Protect,
    CutWhileProtected,
}

impl World {
    pub fn schedule_adoption(&mut self) {
        let p = self.period();
        self.plan = self.first_plan(Protection::Observed);
        (0..3).for_each(|site| self.objects[site].plan = self.plan.clone());
        self.objects[0].protecting = Some(Reason::Observed);
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
                self.net = crate::net::Net::calm();
                if self.check.holder(NODES) != Some(0) || self.check.since > self.now - 12 * p {
                    self.check.violation = Some("what is only Observed was stopped by a cut".into());
                }
            }
            Adoption::Protect => {
                self.look_at_adoption();
                if self.objects[0].protecting.is_some() {
                    self.at(self.now + p, Happening::Adopts(step));
                }
            }
        }
    }

    fn look_at_adoption(&mut self) {
        let (home, objects) = (&self.replicas[0][0], &self.objects[0]);
        let Some(contender) = &home.contender else { return };
        let status = contender.status(home.clock.read(self.now)).pop();
        let facts = Facts {
            wanted: true,
            valid: true,
            standbys: objects.plan.plan().standbys.len(),
            holds: status.is_some_and(|s| s.role == RoleName::Holder),
            ungated: 0,
            planned: objects.plan.plan().protection == Protection::Protected,
            registered: contender.is_registered(&group(), objects.plan.plan().version),
            done: objects.protecting.is_none(),
            closed: objects.protecting.is_some_and(|r| Reason::may_have_closed(r.as_str())) && objects.list.closed,
        };
        let step = next(&facts);
        self.trace(|| format!("the way to Protected: {step:?}"));
        let objects = &mut self.objects[0];
        objects.list.closed &= !must_open(&facts, step);
        match step {
            Step::Rest => {}
            Step::Wait(reason) => objects.protecting = Some(reason),
            Step::Confirm => self.confirm_protection(),
            Step::Finish => (objects.list.closed, objects.protecting) = (false, None),
        }
    }

    /// The list is closed; every listed guard journals and confirms; then home registers it.
    fn confirm_protection(&mut self) {
        self.objects[0].list.closed = true;
        for id in (0..NODES).map(|node| NodeId { site: 0, node }) {
            if !self.objects[0].list.nodes.contains_key(&node_name(id)) {
                continue;
            }
            let mut confirmed = false;
            self.guard(id, |guard, now| {
                let effects = guard.on_protect(now, &group());
                let done = Effect::Confirm(group(), Instruction::Protect);
                confirmed = effects.as_ref().is_ok_and(|e| e.contains(&done));
                effects
            });
            if !confirmed {
                (self.objects[0].list.closed, self.objects[0].protecting) = (false, Some(Reason::GuardSilent));
                return;
            }
            self.objects[0].list.note_protects(&node_name(id));
        }
        self.objects[0].protecting = Some(Reason::Registering);
        self.sign_plan(|plan, _| plan.protection = Protection::Protected);
    }
}
