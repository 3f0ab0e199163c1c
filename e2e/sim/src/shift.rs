//! What home wants, and what standbys hold ready, changes while the group runs: a holder that
//! a newer plan drops, and a line that readiness orders.

use std::sync::Arc;

use crate::clock::MS;
use crate::world::{Happening, Kind, NODES, ReplicaId, SITES, Shape, World, name};
use regent_core::plan::{Plan, WhenNotReady};
use regent_lease::contender::{GroupInput, Readiness};

/// How a schedule with a dropped holder ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The holder goes on.
    Stays,
    /// It gives the group to a site of the plan.
    Moves,
    /// It is cut off, and lapses for good.
    Lapses,
}

/// What both standbys hold ready, and who takes over then.
#[derive(Debug, Clone, Copy)]
pub struct Case {
    pub ready: [Readiness; 2],
    pub when: WhenNotReady,
    pub heir: Option<usize>,
}

/// The cases of [`Kind::Unready`].
const CASES: [Case; 6] = [
    Case { ready: [Readiness::None, Readiness::All], when: WhenNotReady::Hold, heir: Some(2) },
    Case { ready: [Readiness::Some, Readiness::All], when: WhenNotReady::Hold, heir: Some(2) },
    Case { ready: [Readiness::Some, Readiness::All], when: WhenNotReady::Degraded, heir: Some(2) },
    Case { ready: [Readiness::Some, Readiness::None], when: WhenNotReady::Degraded, heir: Some(1) },
    Case { ready: [Readiness::Some, Readiness::Some], when: WhenNotReady::Degraded, heir: Some(1) },
    Case { ready: [Readiness::Some, Readiness::None], when: WhenNotReady::Hold, heir: None },
];

pub fn case(seed: u64) -> Case {
    CASES[(seed % 6) as usize]
}

/// What happens to plans and readiness.
#[derive(Debug, Clone, Copy)]
pub enum Shift {
    /// Home signs a plan that drops the holder, and all links are up again.
    Drops { by_country: bool },
    /// Home signs any plan, or a standby becomes more or less ready.
    Any,
    /// The newest plan has come to a site.
    Arrives(usize),
    /// A site tells its replicas which groups are its own.
    Inputs(usize),
    /// One of the holder's replicas, or one witness, starts anew.
    Restarts(u64),
    /// The dropped holder must have gone on without a pause until now.
    WentOn,
    /// What both standbys hold ready from now on.
    Readies([Readiness; 2]),
}

/// After how many P the dropped holder is dropped, and after how many it may end.
const DROPPED: u64 = 28;
const ENDS: u64 = 52;

impl World {
    pub fn schedule_drop(&mut self, by_country: bool, end: End) {
        let p = self.period();
        let t = |periods: u64| self.now + periods * p;
        let mut list = vec![
            (t(10), Happening::Cut(0)),
            (t(DROPPED), Happening::Shifts(Shift::Drops { by_country })),
            (t(ENDS), Happening::Shifts(Shift::WentOn)),
        ];
        for (n, periods) in [31, 34, 37, 40].into_iter().enumerate() {
            list.push((t(periods), Happening::Shifts(Shift::Restarts(n as u64))));
        }
        match end {
            End::Stays => {}
            End::Moves => list.push((t(ENDS) + 1, Happening::MoveDue(2))),
            End::Lapses => list.push((t(ENDS) + 1, Happening::Cut(1))),
        }
        list.into_iter().for_each(|(t, what)| self.at(t, what));
        self.follow_inputs();
    }

    /// Faults of every kind while plans and readiness change.
    pub fn schedule_shifts(&mut self) {
        self.schedule_faults();
        self.at(self.now + 8 * self.period(), Happening::Shifts(Shift::Any));
        self.follow_inputs();
    }

    pub fn schedule_unready(&mut self, case: Case) {
        let p = self.period();
        self.at(self.now + 10 * p, Happening::Shifts(Shift::Readies(case.ready)));
        self.at(self.now + 20 * p, Happening::Cut(0));
    }

    fn follow_inputs(&mut self) {
        (0..3).for_each(|site| self.at(self.now + self.period(), Happening::Shifts(Shift::Inputs(site))));
    }

    pub fn shift(&mut self, shift: Shift) {
        let p = self.period();
        match shift {
            Shift::Drops { by_country } => {
                self.net = crate::net::Net { loss_permille: 50, ..crate::net::Net::calm() };
                self.sign_plan(|plan, _| {
                    if by_country {
                        plan.countries = vec!["IE".into(), "DE".into()];
                    } else {
                        plan.standbys = vec![name(2)];
                    }
                });
            }
            Shift::Any if self.now < self.calm_at => {
                self.shift_any();
                let wait = self.rng.between(p, 8 * p);
                self.at(self.now + wait, Happening::Shifts(Shift::Any));
            }
            Shift::Any => {}
            Shift::Arrives(site) => self.arrives(site),
            Shift::Inputs(site) => {
                self.publish(site);
                self.tell_inputs(site);
                self.at(self.now + 3 * p, Happening::Shifts(Shift::Inputs(site)));
            }
            Shift::Restarts(n) => self.restart_one(n),
            Shift::WentOn => {
                let since = self.check.since;
                if self.check.holder(NODES) != Some(1) || since > self.calm_at - self.shape.periods * p + DROPPED * p {
                    let executing = &self.check.executing;
                    self.check.violation = Some(format!("the dropped holder did not go on: {executing:?}"));
                }
            }
            Shift::Readies(ready) => {
                for (site, readiness) in [1, 2].into_iter().zip(ready) {
                    self.objects[site].readiness = readiness;
                    self.tell_inputs(site);
                }
            }
        }
    }

    fn restart_one(&mut self, n: u64) {
        let p = self.period();
        let t = self.now + self.rng.below(2 * p);
        if n.is_multiple_of(2) {
            let site = self.rng.between(1, 4) as usize;
            self.stop_witness(site, self.rng.0.is_multiple_of(2));
            self.at(t, Happening::WitnessStarts(site));
        } else {
            let id = ReplicaId { site: 1, replica: (n / 2) as usize };
            self.stop_replica(id);
            self.at(t, Happening::ReplicaStarts(id));
        }
    }

    fn shift_any(&mut self) {
        let site = self.rng.between(1, 2) as usize;
        if self.rng.chance(500) {
            let all = [Readiness::None, Readiness::Some, Readiness::All];
            let readiness = all[self.rng.below(3) as usize];
            self.trace(|| format!("{} is ready: {readiness:?}", SITES[site]));
            self.objects[site].readiness = readiness;
            self.tell_inputs(site);
        } else if !self.is_moving() {
            // A plan that drops the heir of a release that is under way is another matter.
            self.sign_plan(|plan, rng| {
                let standbys: [&[usize]; 5] = [&[1, 2], &[2, 1], &[1], &[2], &[]];
                let countries: [&[&str]; 4] = [&[], &[], &["IE", "DE"], &["IE", "FR"]];
                plan.standbys = standbys[rng.below(5) as usize].iter().map(|s| name(*s)).collect();
                plan.countries = countries[rng.below(4) as usize].iter().map(ToString::to_string).collect();
                plan.when_not_ready = if rng.chance(500) { WhenNotReady::Hold } else { WhenNotReady::Degraded };
            });
        }
    }

    /// Home signs its next plan, its standbys countersign, and it goes to every site.
    pub fn sign_plan(&mut self, change: impl FnOnce(&mut Plan, &mut crate::clock::Rng)) {
        let mut plan = self.plan.plan().clone();
        plan.version += 1;
        change(&mut plan, &mut self.rng);
        self.trace(|| {
            format!("plan {}: {:?} {:?} {:?}", plan.version, plan.standbys, plan.countries, plan.when_not_ready)
        });
        self.counts.plans += 1;
        self.plan = self.signed(&plan);
        self.arrives(0);
        for site in 1..3 {
            let t = self.now + self.rng.below(3 * self.period()) + MS;
            self.at(t, Happening::Shifts(Shift::Arrives(site)));
        }
    }

    /// The newest plan has come to a site.
    fn arrives(&mut self, site: usize) {
        self.objects[site].plan = self.plan.clone();
        self.tell_inputs(site);
    }

    /// Notes in a site's object who holds the group, as far as its replicas can tell.
    fn publish(&mut self, site: usize) {
        for replica in &self.replicas[site] {
            let now = replica.clock.read(self.now);
            let Some(status) = replica.contender.as_ref().and_then(|c| c.status(now).pop()) else { continue };
            if status.role.may_run() {
                self.objects[site].holds = true;
                return;
            } else if let Some(vote) = status.holder() {
                self.objects[site].holds = vote.site == name(site);
            }
        }
    }

    /// What a site's replicas are told of the group: it is theirs if the plan names the site,
    /// if it may be running here, or if the site's object says that it is held here.
    pub fn tell_inputs(&mut self, site: usize) {
        for replica in 0..2 {
            let id = ReplicaId { site, replica };
            let inputs = self.inputs(id);
            self.contender(id, |c, now| {
                c.set_plans(inputs);
                c.tick(now)
            });
        }
    }

    pub fn inputs(&self, id: ReplicaId) -> Vec<GroupInput> {
        let replica = &self.replicas[id.site][id.replica];
        let objects = &self.objects[id.site];
        let now = replica.clock.read(self.now);
        let runs = |c: &regent_lease::contender::Contender| c.status(now).iter().any(|s| s.role.may_run());
        let named = objects.plan.plan().rank(&name(id.site)).is_some();
        if named || objects.holds || replica.contender.as_ref().is_some_and(runs) {
            let plan = Arc::new(objects.plan.clone());
            vec![GroupInput { plan, approved: false, readiness: objects.readiness }]
        } else {
            Vec::new()
        }
    }

    /// What a schedule with a dropped holder, or with standbys that are not ready, must have
    /// led to.
    pub fn judge_shifts(&self) -> Result<(), String> {
        let changes = &self.check.changes;
        let sites: Vec<usize> = changes.iter().map(|c| c.1).collect();
        let (p, start) = (self.period(), self.calm_at - self.shape.periods * self.period());
        let waits = 6 * p + self.shape.takeover_after_ms * MS + p / 2;
        let by = |i: usize, t: u64| changes.get(i).is_some_and(|c| c.0 < t);
        let good = match self.shape.kind {
            Kind::Dropped { end: End::Stays, .. } => sites == [0, 1] && self.check.since < start + DROPPED * p,
            Kind::Dropped { end: End::Moves, .. } => sites == [0, 1, 2] && by(2, start + (ENDS + 8) * p),
            Kind::Dropped { end: End::Lapses, .. } => sites == [0, 1, 2] && by(2, start + (ENDS + 3) * p + waits),
            Kind::Unready(Case { heir: Some(heir), .. }) => sites == [0, heir] && by(1, start + 20 * p + waits),
            Kind::Unready(Case { heir: None, .. }) => sites == [0],
            _ => true,
        };
        if good { Ok(()) } else { Err(format!("not as {:?} should end: {changes:?}", self.shape.kind)) }
    }
}

impl Shape {
    pub fn dropped(seed: u64) -> Self {
        let end = [End::Stays, End::Moves, End::Lapses][(seed / 6 % 3) as usize];
        Self::of(Kind::Dropped { by_country: seed % 2 == 1, end }, seed, 75)
    }
    pub fn shifting(seed: u64) -> Self {
        Self::of(Kind::Shifting, seed, 40 + seed % 40)
    }
    pub fn unready(seed: u64) -> Self {
        Self::of(Kind::Unready(case(seed)), seed, 60)
    }
}
