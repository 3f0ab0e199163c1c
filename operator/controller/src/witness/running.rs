//! One start of a witness: feeds the core and carries out what it says.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use regent_core::event::{Actor, Event, names};
use regent_core::ids::{Epoch, GroupKey};
use regent_core::message::Submission;
use regent_core::sign::{Digest, Envelope};
use regent_core::time::Moment;
use regent_lease::witness::{
    Config, LeadTerm, MacKey, Receipt, Record, RequestError, Witness, WitnessEvent, WitnessView,
};
use regent_proto::v1;
use regent_shell::{clock, event};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::WitnessError;
use super::store::{Loaded, RecordStore};
use crate::context::Context;
use crate::federation::client::Peers;
use crate::leader;
use crate::random;

/// A lapse is reported at most so late; its moment is exact all the same.
const TICK: Duration = Duration::from_millis(250);
/// How long another witness has to answer one that recovers.
const STATE_CALL: Duration = Duration::from_secs(3);
const RECOVER_EVERY: Duration = Duration::from_secs(2);

/// One start of a witness.
pub struct Running {
    context: Arc<Context>,
    core: Mutex<Witness>,
    store: RecordStore,
    /// The groups or their deadlines changed.
    changed: Notify,
}

/// The wall clock, in seconds: dates the changes of holder (L14), decides no lease.
fn wall_s() -> Option<u64> {
    Some(clock::realtime_ns() / 1_000_000_000)
}

fn boot_bytes() -> Result<[u8; 16], WitnessError> {
    let text = clock::boot_id().map_err(WitnessError::BootId)?;
    let mut bytes = [0; 16];
    hex::decode_to_slice(text.replace('-', ""), &mut bytes)
        .map_err(|e| WitnessError::BootId(std::io::Error::other(format!("boot_id {text:?}: {e}"))))?;
    Ok(bytes)
}

impl Running {
    /// Starts over what is persisted. With `sent` it leads its site by a Lease, whose last
    /// successful update was sent then (L9); without, it is its site's only witness.
    pub async fn start(
        context: Arc<Context>,
        client: &kube::Client,
        sent: Option<Moment>,
    ) -> Result<Arc<Self>, WitnessError> {
        let (store, Loaded { start, how, records }) = RecordStore::load(client).await?;
        tracing::info!(start, ?how, groups = records.len(), "witness starts");
        let config = Config {
            site: context.site.clone(),
            charter: context.charter.clone(),
            boot: boot_bytes()?,
            mac_key: MacKey(context.derived_secret("regent witness tags")),
            start,
            started: clock::now(),
            how,
            lead: sent.map(|_| LeadTerm { answers_for: leader::USABLE, lease: leader::DURATION }),
            wall_s: wall_s(),
        };
        let mut core = Witness::new(config, records)?;
        if let Some(sent) = sent {
            core.confirm_lead(sent);
        }
        Ok(Arc::new(Self { context, core: Mutex::new(core), store, changed: Notify::new() }))
    }

    fn core(&self) -> MutexGuard<'_, Witness> {
        self.core.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// L9: the Lease's last successful update was sent at `sent`.
    pub fn confirm_lead(&self, sent: Moment) {
        self.core().confirm_lead(sent);
    }

    /// Whether it may answer what it receives now.
    pub fn leads(&self) -> bool {
        self.core().leads(clock::now())
    }

    /// Answers a submission that was received at `received`: decides, writes what the
    /// answer rests on, and signs it.
    pub async fn submit(self: &Arc<Self>, submission: &Submission, received: Moment) -> Result<Envelope, RequestError> {
        let receipt = self.core().receive(received, submission, wall_s())?;
        self.changed.notify_one();
        for ignored in &receipt.ignored {
            tracing::debug!(from = %receipt.site, "{ignored}");
        }
        if receipt.persists.is_empty() {
            return Ok(self.conclude(receipt, &[]));
        }
        // A caller that hangs up must not leave its groups busy for ever.
        let this = self.clone();
        let written = tokio::spawn(async move {
            let failed = this.persist(&receipt.persists).await;
            this.conclude(receipt, &failed)
        });
        written.await.map_err(|_| RequestError::NotLeading(self.context.site.clone()))
    }

    fn conclude(&self, receipt: Receipt, failed: &[GroupKey]) -> Envelope {
        let grant = self.core().conclude(receipt, failed);
        self.changed.notify_one();
        self.context.sign(&grant)
    }

    /// Writes records, all at once; returns those that may not have been written.
    async fn persist(&self, records: &[(GroupKey, Record)]) -> Vec<GroupKey> {
        let writes = records.iter().map(|(group, record)| async move {
            match self.store.write(group, record).await {
                Ok(()) => None,
                Err(e) => {
                    tracing::warn!("{e}");
                    Some(group.clone())
                }
            }
        });
        futures::future::join_all(writes).await.into_iter().flatten().collect()
    }

    /// What it knows, for people.
    pub fn view(&self, group: Option<&GroupKey>) -> WitnessView {
        let mut view = self.core().view(clock::now());
        if let Some(group) = group {
            view.groups.retain(|g| &g.group == group);
        }
        view
    }

    /// Its state, for a witness that recovers (L8).
    pub fn state(&self, nonce: Digest) -> Envelope {
        let report = self.core().report(nonce);
        self.context.sign(&report)
    }

    /// Reports lapses, repairs groups whose write failed, and recovers a stale state,
    /// until cancelled.
    pub async fn run(self: Arc<Self>, peers: Peers, stop: CancellationToken) {
        let mut recovered_at: Option<Moment> = None;
        let mut marked = false;
        loop {
            let now = clock::now();
            let (events, next) = {
                let mut core = self.core();
                (core.tick(now), core.next_deadline())
            };
            events.into_iter().for_each(|(at, e)| self.report(at, e));
            if self.core().recovery_due().is_some() && !marked {
                marked = self.mark_stale(true).await;
            }
            self.repair().await;
            let due = recovered_at.is_none_or(|at| at.after(RECOVER_EVERY).passed_for_waiting(now));
            if due && self.core().recovery_due().is_some_and(|at| at.passed_for_waiting(now)) {
                recovered_at = Some(now);
                if self.recover(&peers).await {
                    marked = !self.mark_stale(false).await;
                }
            }
            let wait = next.map_or(TICK, |at| at.left_for_waiting(clock::now()).min(TICK));
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(wait) => {}
                () = self.changed.notified() => {}
            }
        }
    }

    fn report(&self, at: Moment, what: WitnessEvent) {
        match what {
            WitnessEvent::Lapsed { group, epoch } => self.emit(at, names::LAPSED, group, epoch),
            WitnessEvent::Proven { group, epoch } => self.emit(at, names::PROVEN, group, epoch),
            WitnessEvent::Stale(cause) => {
                tracing::error!(
                    ?cause,
                    "the witness's state may be stale: it grants nothing until it has read it from others"
                );
            }
            WitnessEvent::BadPlan { group, error } => {
                tracing::error!(%group, "persisted plan: {error}; the group is granted to nobody until home sends a good one");
            }
        }
    }

    fn emit(&self, at: Moment, name: &str, group: GroupKey, epoch: Epoch) {
        event::emit(&Event {
            boot_ns: at.boot_ns,
            site: self.context.site.clone(),
            actor: Actor::Witness,
            event: name.to_owned(),
            group: Some(group),
            epoch: Some(epoch),
            node: None,
            detail: serde_json::json!({}),
        });
    }

    /// Reads the objects of groups whose write failed; until then they are refused.
    async fn repair(&self) {
        let unsettled = self.core().unsettled();
        for group in unsettled {
            match self.store.read(&group).await {
                Ok(record) => self.core().reload(clock::now(), &group, record),
                Err(e) => tracing::warn!("{e}"),
            }
        }
    }

    /// Keeps for the next start whether the state may be stale. Returns whether it is written.
    async fn mark_stale(&self, stale: bool) -> bool {
        let written = self.store.set_stale(stale).await;
        written.inspect_err(|e| tracing::warn!("{e}")).is_ok()
    }

    /// L8: reads the state from the other witnesses. Returns whether that is done.
    async fn recover(&self, peers: &Peers) -> bool {
        let nonce = match random::identity() {
            Ok(nonce) => nonce,
            Err(e) => {
                tracing::error!("no randomness for a recovery: {e}");
                return false;
            }
        };
        if let Err(e) = self.core().begin_recovery(clock::now(), nonce) {
            tracing::warn!("{e}");
            return false;
        }
        let asked = self.context.charter.witnesses.iter().filter_map(|w| peers.get(w)).map(|peer| {
            let request = v1::WitnessStateRequest { nonce: nonce.to_string() };
            peer.call(STATE_CALL, move |mut client| async move { client.witness_state(request).await })
        });
        let answers = futures::future::join_all(asked).await;
        let reports: Vec<Envelope> = answers.into_iter().filter_map(Result::ok).map(Into::into).collect();
        let records = match self.core().recover(&reports, wall_s()) {
            Ok(records) => records,
            Err(e) => {
                tracing::warn!("{e}");
                return false;
            }
        };
        let writes = records.iter().map(|(group, record)| async move {
            let written = self.store.overwrite(group, record).await;
            written.err().map(|e| {
                tracing::warn!("{e}");
                group.clone()
            })
        });
        let failed: Vec<GroupKey> = futures::future::join_all(writes).await.into_iter().flatten().collect();
        let done = self.core().conclude_recovery(clock::now(), &failed, wall_s());
        if done {
            tracing::info!(groups = records.len(), "the witness has recovered its state from others");
        }
        done
    }
}
