//! The guard's decisions: L13 and the fence and gate of one node.
//!
//! The guard believes witnesses, not its operator. It makes a nonce, has it carried to
//! the hub, and counts a certificate that contains it for `A` from the moment it
//! *asked*, so that neither delay nor replay nor a lying hub can lengthen a lease.
//!
//! ```text
//!   Gated --permit, and the gate asks--> Running --lease ends--> Frozen
//!     ^                                     |                    |    |
//!     |                                    stop     other epoch, |    | same epoch:
//!     |                                     v       too long     v    | thaw, Running
//!     +------------------dead----------- Killing <---------------+    +--->
//! ```
//!
//! Every input returns the effects in the order in which the shell must do them. The
//! shell does them one after the other, and reports what a later decision needs. An input
//! that is refused is as if it had not been: what time demands by then is not lost with it.

mod certificate;
mod effect;
mod fence;
mod journal;
mod nonce;
mod pod;
#[cfg(test)]
mod tests;

pub use certificate::{Certification, Rejection};
pub use effect::Effect;
pub use journal::{DEFAULT_THAW_LIMIT_MS, GroupRecord, Journal, Lease, PodRecord};
pub use nonce::Nonce;
pub use pod::{IllegalPodEvent, Pod, PodAction, PodEvent, PodState, PodUid};

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use nonce::{Nonces, Serial};
use regent_core::charter::Pinned;
use regent_core::event::{Actor, Event};
use regent_core::ids::{Epoch, GroupKey, NodeName, SiteName};
use regent_core::instruction::Instruction;
use regent_core::time::Moment;

/// What a guard is told once, when it starts.
#[derive(Debug, Clone)]
pub struct GuardConfig {
    /// The site of this node.
    pub site: SiteName,
    /// This node.
    pub node: NodeName,
    /// The pinned charter: certificates under any other count for nothing.
    pub charter: Pinned,
    /// The identity of this boot of the machine (`/proc/sys/kernel/random/boot_id`).
    pub boot_id: String,
    /// How long before the lease's end freezing begins, on top of the longest freeze measured.
    pub freeze_margin: Duration,
}

/// Why a guard refused to do something.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GuardError {
    /// The site is not in the charter.
    #[error("charter {charter:?} names no site {site}; give the guard the name of a site of its charter")]
    UnknownSite {
        /// The charter's name.
        charter: String,
        /// The site.
        site: SiteName,
    },
    /// No such pod.
    #[error("no pod with uid {} is published on this node", .0.0)]
    UnknownPod(PodUid),
    /// A report that can't be true.
    #[error(transparent)]
    Pod(#[from] IllegalPodEvent),
    /// A volume is taken away from a pod that lives.
    #[error(
        "pod {namespace}/{name} still has live processes on this node, whatever the API server says of it: its gate and its fence stay until they have ended; if nothing ends them, see why the container runtime can't"
    )]
    Lives {
        /// The pod's namespace.
        namespace: String,
        /// Its name.
        name: String,
    },
    /// Protecting would pause what runs.
    #[error(
        "group {0} runs on this node without a valid lease: protecting it now would freeze it; protect it once home holds its certificate"
    )]
    NoLease(GroupKey),
}

/// A group whose retirement waits for its pods to die.
#[derive(Debug, Clone)]
struct Stopping {
    retired: Epoch,
    /// Names of pods that had run when the retirement came, with their epoch.
    pods: Vec<String>,
    ran: Option<Epoch>,
}

/// Effects of one input, put in order at its end.
#[derive(Debug, Default)]
struct Outbox {
    /// Freezing waits for no disk.
    first: Vec<Effect>,
    /// Whether the journal changed, and if so whether that must survive the machine.
    dirty: Option<bool>,
    then: Vec<Effect>,
}

/// The guard of one node.
#[derive(Debug)]
pub struct Guard {
    config: GuardConfig,
    number: u32,
    journal: Journal,
    nonces: Nonces,
    /// Groups that were listed since this guard started: from which nonce on.
    listed_from: BTreeMap<GroupKey, Serial>,
    /// Pods whose gate waits for an answer.
    asking: BTreeSet<PodUid>,
    stopping: BTreeMap<GroupKey, Stopping>,
    slowest_freeze: Duration,
    out: Outbox,
}

impl Guard {
    /// A guard with what its journal says. With another boot's journal no lease is valid
    /// and every pod is gated; epochs and marks stay. [`Self::on_found`] and
    /// [`Self::resume`] come next.
    pub fn new(config: GuardConfig, mut journal: Journal) -> Result<Self, GuardError> {
        let Some(entry) = config.charter.site(&config.site) else {
            return Err(GuardError::UnknownSite { charter: config.charter.name.clone(), site: config.site.clone() });
        };
        let number = entry.number;
        if journal.boot_id != config.boot_id {
            journal.boot_id = config.boot_id.clone();
            for group in journal.groups.values_mut() {
                group.lease = None;
                group.observed = None;
            }
            for pod in journal.pods.values_mut() {
                pod.state = PodState::Gated;
            }
        }
        Ok(Self {
            config,
            number,
            journal,
            nonces: Nonces::default(),
            listed_from: BTreeMap::new(),
            asking: BTreeSet::new(),
            stopping: BTreeMap::new(),
            slowest_freeze: Duration::ZERO,
            out: Outbox::default(),
        })
    }

    /// A pod's volume is on this node. Of a pod that the journal doesn't know, because the
    /// journal is a new one, nobody can tell what runs and until when it may, nor whether its
    /// group is protected: it is killed, and held at its gate. To be called for each such
    /// pod before [`Self::resume`].
    pub fn on_found(&mut self, pod: Pod) {
        self.journal.pods.entry(pod.uid.clone()).or_insert(PodRecord { pod, state: PodState::Killing });
    }

    /// Does again what the guard before may have left half done.
    pub fn resume(&mut self, now: Moment) -> Vec<Effect> {
        let latest = now.after(self.config.charter.usable_lease());
        for group in self.journal.groups.values_mut() {
            if let Some(lease) = &mut group.lease {
                lease.until = lease.until.min(latest);
            }
        }
        self.mark(true);
        self.advance(now);
        // Every pod is told again what it is to be: the effects of a last input may be half done.
        self.out.first.clear();
        self.out.then.retain(is_event);
        for (uid, record) in &self.journal.pods {
            match record.state {
                PodState::Frozen { .. } => self.out.first.push(Effect::Freeze(uid.clone())),
                PodState::Killing => self.out.then.push(Effect::Kill(uid.clone())),
                PodState::Running { epoch } => {
                    self.out.then.push(Effect::WriteEpoch(uid.clone(), epoch));
                    self.out.then.push(Effect::Thaw(uid.clone()));
                }
                PodState::Gated => {}
            }
        }
        self.finish()
    }

    /// A fresh nonce, to be carried to every hub of the site. `random` must be
    /// unpredictable.
    pub fn new_nonce(&mut self, now: Moment, random: [u8; 32]) -> Nonce {
        self.nonces.add(now, random);
        random
    }

    /// The kubelet has a pod's volume published: idempotent. The pod starts gated.
    pub fn on_publish(&mut self, now: Moment, pod: Pod) -> Vec<Effect> {
        self.advance(now);
        if !self.journal.pods.contains_key(&pod.uid) {
            self.journal.pods.insert(pod.uid.clone(), PodRecord { pod, state: PodState::Gated });
            self.mark(false);
        }
        self.finish()
    }

    /// The kubelet takes the volume away. It may do so before the pod's processes are dead: one
    /// that restarts takes away what the API server has forgotten, such as a pod that was deleted
    /// by force, and ends its containers afterwards. A pod that has passed its gate is forgotten
    /// only once nothing of it `lives`: until then it is fenced, and a release waits for it. The
    /// kubelet asks again.
    pub fn on_unpublish(&mut self, now: Moment, uid: &PodUid, lives: bool) -> Result<Vec<Effect>, GuardError> {
        if let Some(record) = self.journal.pods.get(uid).filter(|r| lives && r.state.has_run()) {
            let (namespace, name) = (record.pod.namespace.clone(), record.pod.name.clone());
            return Err(GuardError::Lives { namespace, name });
        }
        self.advance(now);
        self.asking.remove(uid);
        if let Some(gone) = self.journal.pods.remove(uid) {
            self.mark(false);
            self.confirm_retired(now, &gone.pod.group);
        }
        Ok(self.finish())
    }

    /// The pod's gate asks to go on. It is answered by [`Effect::OpenGate`], now or later.
    pub fn on_gate(&mut self, now: Moment, uid: &PodUid) -> Result<Vec<Effect>, GuardError> {
        let group = match self.journal.pods.get(uid) {
            Some(record) => record.pod.group.clone(),
            None => return Err(GuardError::UnknownPod(uid.clone())),
        };
        self.advance(now);
        self.asking.insert(uid.clone());
        self.settle(now, &group);
        Ok(self.finish())
    }

    /// The gate that asked is gone (its pod was killed, or its guard's socket closed).
    pub fn on_gate_closed(&mut self, uid: &PodUid) {
        self.asking.remove(uid);
    }

    /// The hub wants something of the group. It is confirmed by [`Effect::Confirm`], of this
    /// instruction or of one that [covers](Instruction::covers) it.
    pub fn on_instruction(
        &mut self,
        now: Moment,
        group: &GroupKey,
        instruction: Instruction,
    ) -> Result<Vec<Effect>, GuardError> {
        match instruction {
            Instruction::Listed => Ok(self.on_listed(now, group)),
            Instruction::Protect => self.on_protect(now, group),
            Instruction::Retire(epoch) => Ok(self.on_retire(now, group, epoch)),
            Instruction::Configure(limit) => Ok(self.on_configure(now, group, limit)),
        }
    }

    /// The hub says that this node is on the group's list now. Nonces made from here on
    /// open the gate of an `Observed` group.
    pub fn on_listed(&mut self, now: Moment, group: &GroupKey) -> Vec<Effect> {
        self.advance(now);
        let record = self.journal.groups.entry(group.clone()).or_default();
        if !record.listed {
            record.listed = true;
            self.listed_from.insert(group.clone(), self.nonces.next());
            self.mark(true);
        }
        self.out.then.push(Effect::Confirm(group.clone(), Instruction::Listed));
        self.finish()
    }

    /// The hub tells the group's `thawLimit`.
    pub fn on_configure(&mut self, now: Moment, group: &GroupKey, thaw_limit: Duration) -> Vec<Effect> {
        let record = self.journal.groups.entry(group.clone()).or_default();
        let limit = u64::try_from(thaw_limit.as_millis()).unwrap_or(u64::MAX);
        if record.thaw_limit_ms != limit {
            record.thaw_limit_ms = limit;
            self.mark(true);
        }
        self.advance(now);
        self.out.then.push(Effect::Confirm(group.clone(), Instruction::Configure(thaw_limit)));
        self.finish()
    }

    /// The hub says that the group becomes `Protected`: the fence is in force from now on.
    /// Refused while it runs here without a lease, for that would freeze it.
    pub fn on_protect(&mut self, now: Moment, group: &GroupKey) -> Result<Vec<Effect>, GuardError> {
        let running = self.pods_of(group).any(|p| matches!(p.state, PodState::Running { .. }));
        let record = self.journal.groups.get(group);
        let lease = record.and_then(|g| g.lease);
        let valid = lease.is_some_and(|l| !self.fence_at(l.until).passed_for_stopping(now));
        if running && !valid && !record.is_some_and(|r| r.protected) {
            return Err(GuardError::NoLease(group.clone()));
        }
        self.advance(now);
        let record = self.journal.groups.entry(group.clone()).or_default();
        if !record.protected {
            record.protected = true;
            record.observed = None;
            self.mark(true);
            self.settle(now, group);
        }
        self.out.then.push(Effect::Confirm(group.clone(), Instruction::Protect));
        Ok(self.finish())
    }

    /// The hub says that the epoch is retired at a quorum (L12): what runs under it or
    /// under a lower one is stopped for good. Confirmed when all of it is dead.
    pub fn on_retire(&mut self, now: Moment, group: &GroupKey, epoch: Epoch) -> Vec<Effect> {
        self.advance(now);
        let record = self.journal.groups.entry(group.clone()).or_default();
        let newer = record.retired < Some(epoch);
        record.retired = record.retired.max(Some(epoch));
        if record.lease.is_some_and(|l| l.epoch <= epoch) {
            record.lease = None;
        }
        if record.observed <= Some(epoch) {
            record.observed = None;
        }
        if newer {
            self.mark(true);
        }
        let doomed: Vec<_> = self.pods_of(group).filter(|p| may_run_at(p.state, epoch)).cloned().collect();
        let ran = doomed.iter().filter_map(|p| p.state.epoch()).max();
        let names = doomed.iter().map(|p| p.pod.name.clone()).collect();
        self.stopping.entry(group.clone()).and_modify(|s| s.retired = s.retired.max(epoch)).or_insert(Stopping {
            retired: epoch,
            pods: names,
            ran,
        });
        for pod in doomed {
            self.step(&pod.pod.uid, PodEvent::Stop);
        }
        self.confirm_retired(now, group);
        self.finish()
    }

    /// Time passes: what has run out is fenced. To be called at [`Self::next_deadline`].
    pub fn tick(&mut self, now: Moment) -> Vec<Effect> {
        self.advance(now);
        self.finish()
    }

    /// What is journaled.
    pub fn journal(&self) -> &Journal {
        &self.journal
    }

    /// The pods and what is left of each one's lease.
    pub fn pods(&self, now: Moment) -> Vec<(PodRecord, Duration)> {
        let left = |p: &PodRecord| {
            self.journal.groups.get(&p.pod.group).and_then(|g| g.lease).map(|l| l.until.left_for_stopping(now))
        };
        self.journal.pods.values().map(|p| (p.clone(), left(p).unwrap_or_default())).collect()
    }

    fn pods_of<'a>(&'a self, group: &'a GroupKey) -> impl Iterator<Item = &'a PodRecord> {
        self.journal.pods.values().filter(move |p| &p.pod.group == group)
    }

    fn mark(&mut self, durable: bool) {
        self.out.dirty = Some(durable || self.out.dirty == Some(true));
    }

    fn finish(&mut self) -> Vec<Effect> {
        let out = std::mem::take(&mut self.out);
        let mut effects = out.first;
        if let Some(durable) = out.dirty {
            effects.push(Effect::Journal { state: Box::new(self.journal.clone()), durable });
        }
        effects.extend(out.then);
        effects
    }

    fn event(&mut self, at: Moment, name: &str, group: &GroupKey, epoch: Option<Epoch>, detail: serde_json::Value) {
        self.out.then.push(Effect::Event(Event {
            boot_ns: at.boot_ns,
            site: self.config.site.clone(),
            actor: Actor::Guard,
            event: name.to_owned(),
            group: Some(group.clone()),
            epoch,
            node: Some(self.config.node.0.clone()),
            detail,
        }));
    }
}

fn is_event(effect: &Effect) -> bool {
    matches!(effect, Effect::Event(_))
}

/// Whether something of the pod may be executing under `epoch` or a lower one.
fn may_run_at(state: PodState, epoch: Epoch) -> bool {
    match state {
        PodState::Gated => false,
        PodState::Running { epoch: e } | PodState::Frozen { epoch: e, .. } => e <= epoch,
        PodState::Killing => true,
    }
}
