//! The contender's shell: holder and candidate of this replica (L10 to L12).
//!
//! ```text
//!   plans, approvals --> core contender --Send--> one outbox for each witness --> Federation
//!   hub's nonces ------>      ^   |  |                                               |
//!                             |   |  +--Certified--> hub: certificates to nodes      |
//!                             |   +--Event--> standard output                        |
//!                             +-------------------- signed answers <-----------------+
//! ```
//!
//! Both replicas of a site run one at once. Between a witness's answer and the hub there
//! is no Kubernetes call and no await. What needs a single writer ([`release`]) asks who
//! leads.

mod inputs;
mod nodes;
mod outbox;
mod publish;
mod record;
mod release;
mod steps;
mod takeover;

pub use inputs::follow_inputs;
pub use nodes::{NodeLists, NodesError};
pub use publish::publish;
pub use takeover::{Takeovers, drive_takeovers};

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use regent_core::event::{Actor, Event, names};
use regent_core::ids::{Epoch, GroupKey, SiteName};
use regent_core::sign::Envelope;
use regent_core::time::Moment;
use regent_lease::contender::{
    Contender, ContenderError, ContenderEvent, GroupInput, GroupStatus, Output, ReleaseError, ReleaseEvent, RoleName,
    RoundId,
};
use regent_lease::deliver::NonceSet;
use regent_shell::{clock, event};
use tokio::sync::{Notify, broadcast, mpsc};
use tokio_util::sync::CancellationToken;

use crate::context::Context;
use crate::federation::client::Peers;
use crate::hub::HubHandle;
use crate::random;
use crate::witness::WitnessService;
use outbox::{Lane, Outbox};

/// Rounds whose nonces are kept: a certificate comes within a round trip, or not at all.
const ROUNDS: usize = 64;
/// How long the replica that doesn't lead leaves acquiring to the one that does.
const STAGGER: Duration = Duration::from_millis(50);
/// Between two looks at the core's deadlines.
const SHORTEST: Duration = Duration::from_millis(1);
/// Facts that a slow listener may be behind by.
const FACTS: usize = 1024;

/// What the core asks of whoever does releases.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ReleaseJob {
    /// Close the list of nodes.
    CloseNodeList { group: GroupKey, epoch: Epoch },
    /// Have every listed node stop.
    StopNodes { group: GroupKey, epoch: Epoch },
    /// It is done.
    Released { group: GroupKey, epoch: Epoch, successor: SiteName },
}

struct Core {
    contender: Contender,
    /// The nonces that each round's request signed.
    nonces: BTreeMap<RoundId, NonceSet>,
}

/// Holder and candidate of this replica.
pub struct LeaseShell {
    context: Arc<Context>,
    core: Mutex<Core>,
    hub: HubHandle,
    outboxes: BTreeMap<SiteName, Arc<Outbox>>,
    wake: Notify,
    jobs: mpsc::UnboundedSender<ReleaseJob>,
    facts: broadcast::Sender<ContenderEvent>,
    handed_over: inputs::HandedOver,
    inputs_changed: Notify,
    /// Epochs whose release this replica has carried to its end.
    released: Mutex<BTreeMap<GroupKey, Epoch>>,
}

/// Which replica says something.
fn replica() -> String {
    std::env::var("POD_NAME").unwrap_or_default()
}

impl LeaseShell {
    /// A contender without groups. Its outboxes send until `stop`; [`Self::run`] drives it.
    pub fn start(
        context: Arc<Context>,
        hub: HubHandle,
        peers: &Peers,
        witness: Option<Arc<WitnessService>>,
        stop: &CancellationToken,
    ) -> Result<(Arc<Self>, ReleaseJobs), ContenderError> {
        let contender = Contender::new(context.charter.clone(), context.site.clone())?;
        let (jobs, receiver) = mpsc::unbounded_channel();
        let outboxes = context.charter.witnesses.iter().filter_map(|site| {
            let outbox = match peers.get(site) {
                Some(peer) => Outbox::to_peer(peer.clone()),
                None => Outbox::to_own(witness.clone()?),
            };
            Some((site.clone(), Arc::new(outbox)))
        });
        let shell = Arc::new(Self {
            core: Mutex::new(Core { contender, nonces: BTreeMap::new() }),
            hub,
            outboxes: outboxes.collect(),
            wake: Notify::new(),
            jobs,
            facts: broadcast::Sender::new(FACTS),
            handed_over: inputs::HandedOver::default(),
            inputs_changed: Notify::new(),
            released: Mutex::default(),
            context,
        });
        for (site, outbox) in &shell.outboxes {
            outbox.clone().spawn(site.clone(), shell.clone(), stop.clone());
        }
        Ok((shell, ReleaseJobs(receiver)))
    }

    fn lock(&self) -> MutexGuard<'_, Core> {
        self.core.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Calls the core at its deadlines, until cancelled.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) {
        loop {
            self.feed(|contender, now| ((), contender.tick(now)));
            let now = clock::now();
            let next = self.lock().contender.next_tick();
            let wait = next.map_or(self.context.charter.renewal_period(), |at| at.left_for_stopping(now));
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(wait.max(SHORTEST)) => {}
                () = self.wake.notified() => {}
            }
        }
    }

    /// Feeds the core and does at once what it says.
    fn feed<T>(&self, input: impl FnOnce(&mut Contender, Moment) -> (T, Vec<Output>)) -> T {
        let mut core = self.lock();
        let (value, outputs) = input(&mut core.contender, clock::now());
        for output in outputs {
            self.carry_out(&mut core, output);
        }
        value
    }

    fn carry_out(&self, core: &mut Core, output: Output) {
        match output {
            Output::Send(outgoing) => {
                let id = match random::identity() {
                    Ok(id) => id,
                    Err(e) => {
                        tracing::error!("no randomness for a request: {e}");
                        return;
                    }
                };
                let nonces = self.hub.nonces();
                let key = &self.context.identity.key;
                let submission = Arc::new(core.contender.seal(&outgoing, id, nonces.root(), key));
                core.nonces.insert(outgoing.round, nonces);
                while core.nonces.len() > ROUNDS {
                    core.nonces.pop_first();
                }
                let lane = Lane::of(&outgoing, self.context.charter.witness_count());
                for outbox in outgoing.to.iter().filter_map(|site| self.outboxes.get(site)) {
                    outbox.put(lane.clone(), submission.clone());
                }
            }
            Output::Certified(c) => match core.nonces.get(&c.round_id) {
                Some(nonces) => drop(self.hub.deliver(&c.round, &c.entries, &c.granted, nonces)),
                None => tracing::debug!(round = ?c.round_id, "a certificate came after its nonces were forgotten"),
            },
            Output::Event(fact) => self.tell(fact),
            Output::CloseNodeList { group, epoch } => self.order(ReleaseJob::CloseNodeList { group, epoch }),
            Output::StopNodes { group, epoch } => self.order(ReleaseJob::StopNodes { group, epoch }),
            Output::Released { group, epoch, successor } => {
                self.released.lock().unwrap_or_else(PoisonError::into_inner).insert(group.clone(), epoch);
                self.order(ReleaseJob::Released { group, epoch, successor });
            }
        }
    }

    fn order(&self, job: ReleaseJob) {
        // The receiver lives as long as the process.
        let _ = self.jobs.send(job);
    }

    fn tell(&self, fact: ContenderEvent) {
        match &fact {
            ContenderEvent::Certificate { group, epoch, asked, at } => {
                let detail = serde_json::json!({ "replica": replica(), "asked_ns": asked.boot_ns });
                self.emit(*at, names::CERTIFICATE, group, *epoch, detail);
            }
            ContenderEvent::Retired { group, epoch, at } => {
                self.emit(*at, names::RETIRED, group, *epoch, serde_json::json!({ "replica": replica() }));
            }
            ContenderEvent::EligibleLearnt { group, .. } => tracing::info!(%group, "a quorum would grant: acquiring"),
            ContenderEvent::RanOut { group, epoch, .. } => {
                tracing::warn!(%group, %epoch, "the certificate has run out; asking for it again");
            }
            ContenderEvent::Lost { group, epoch, higher, .. } => {
                let by = higher.as_ref().map(|v| format!("{} of {}", v.epoch, v.site)).unwrap_or_default();
                tracing::warn!(%group, %epoch, by, "this site holds the group no more");
            }
        }
        // Without a listener nobody needs to know.
        let _ = self.facts.send(fact);
    }

    fn emit(&self, at: Moment, name: &str, group: &GroupKey, epoch: Epoch, detail: serde_json::Value) {
        event::emit(&Event {
            boot_ns: at.boot_ns,
            site: self.context.site.clone(),
            actor: Actor::Operator,
            event: name.to_owned(),
            group: Some(group.clone()),
            epoch: Some(epoch),
            node: None,
            detail,
        });
    }

    /// A witness has answered.
    pub(crate) fn answered(&self, witness: &SiteName, answer: &Envelope) {
        self.feed(|contender, now| ((), contender.on_answer(now, witness, answer)));
        self.wake.notify_one();
    }

    /// Sets the groups in whose plans this site is, all of them.
    pub fn set_groups(&self, inputs: Vec<GroupInput>) {
        self.feed(|contender, now| {
            contender.set_plans(inputs);
            ((), contender.tick(now))
        });
        self.wake.notify_one();
    }

    /// Says whether this replica leads: the other one leaves acquiring to it for a moment.
    pub fn set_leads(&self, leads: bool) {
        self.lock().contender.set_stagger(if leads { Duration::ZERO } else { STAGGER });
    }

    /// Asks for a group at once: its holder has released it, or somebody approved.
    pub fn nudge(&self, group: &GroupKey) {
        self.feed(|contender, now| {
            contender.nudge(group);
            ((), contender.tick(now))
        });
        self.wake.notify_one();
    }

    /// Begins to release an epoch, or takes up where a replica that died left (L12).
    /// Only the leader of the replicas may call this.
    pub fn release(&self, group: &GroupKey, epoch: Epoch, successor: SiteName) -> Result<(), ReleaseError> {
        let done = self.feed(|contender, now| match contender.release(now, group, epoch, successor) {
            Ok(outputs) => (Ok(()), outputs),
            Err(e) => (Err(e), Vec::new()),
        });
        self.wake.notify_one();
        done
    }

    /// Reports how far a release is.
    pub(crate) fn report(&self, group: &GroupKey, event: ReleaseEvent) -> Result<(), ReleaseError> {
        let done = self.feed(|contender, now| match contender.on_release_event(now, group, event) {
            Ok(outputs) => (Ok(()), outputs),
            Err(e) => (Err(e), Vec::new()),
        });
        self.wake.notify_one();
        done
    }

    /// Whether this replica has carried the release of an epoch to its end.
    pub(crate) fn has_released(&self, group: &GroupKey, epoch: Epoch) -> bool {
        self.released.lock().unwrap_or_else(PoisonError::into_inner).get(group) == Some(&epoch)
    }

    /// Each group as this replica sees it.
    pub fn status(&self) -> Vec<GroupStatus> {
        self.lock().contender.status(clock::now())
    }

    /// A group as this replica sees it.
    pub fn group_status(&self, group: &GroupKey) -> Option<GroupStatus> {
        self.lock().contender.group_status(clock::now(), group)
    }

    /// The groups of which something may be running here by certificates of this replica's.
    pub fn running(&self) -> BTreeSet<GroupKey> {
        self.lock().contender.running(clock::now())
    }

    /// Whether the group may be running here by a certificate of this replica's.
    pub fn may_run(&self, group: &GroupKey) -> bool {
        self.lock().contender.role(clock::now(), group).is_some_and(RoleName::may_run)
    }

    /// Whether q witnesses hold at least this version of a plan, at one time.
    pub fn is_registered(&self, group: &GroupKey, version: u64) -> bool {
        self.lock().contender.is_registered(group, version)
    }

    /// Facts about leases, as they come.
    pub fn facts(&self) -> broadcast::Receiver<ContenderEvent> {
        self.facts.subscribe()
    }
}

/// What the core asks of whoever does releases: see [`drive_takeovers`].
pub struct ReleaseJobs(mpsc::UnboundedReceiver<ReleaseJob>);
