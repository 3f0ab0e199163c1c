//! The reconcilers: what people ask of Regent, and what it tells them.
//!
//! ```text
//!   FailoverGroup at home --judge--> Plan --> plans (signed, countersigned)
//!                          \--> GatedPods, the way to Protected, status
//!   plans of other homes  --> read-only copies, status
//!   Charter               --> verified, shown
//! ```
//!
//! One replica does this, the leader; each pass finds everything anew from the objects.
//! Both replicas tell when a group starts here ([`starts`]).

pub mod charter;
pub mod copies;
mod holding;
mod home;
mod inputs;
pub mod judge;
pub mod news;
pub mod pods;
pub mod starts;
pub mod status;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use regent_api::{ControlLease, ControlLeaseStatus, FailoverGroup, object_name};
use regent_core::ids::GroupKey;
use regent_shell::clock;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::cache::Cache;
use crate::context::Context;
use crate::federation::client::Peers;
use crate::hub::HubHandle;
use crate::leader::Leadership;
use crate::lease::{LeaseShell, NodeLists};
use crate::mirror::Mirror;
use crate::objects::Snapshot;
use crate::plans::Plans;
use crate::standby::Standby;
use inputs::{Inputs, Looks, Made, versions};

/// How often everything is looked at, whatever has changed.
const LOOK: Duration = Duration::from_secs(2);
/// Changes that come in a burst are looked at together.
const SETTLE: Duration = Duration::from_millis(150);
/// The charter changes rarely.
const CHARTER_EVERY: u32 = 15;

/// What the reconcilers work with.
pub struct Reconciler {
    /// This site.
    pub context: Arc<Context>,
    /// Its API server.
    pub client: kube::Client,
    /// The plans.
    pub plans: Arc<Plans>,
    /// The other sites.
    pub peers: Peers,
    /// Who holds what.
    pub shell: Arc<LeaseShell>,
    /// The lists of nodes.
    pub lists: Arc<NodeLists>,
    /// The agents.
    pub hub: HubHandle,
    /// The mirror.
    pub mirror: Arc<Mirror>,
    /// This site's part as a standby.
    pub standby: Arc<Standby>,
    /// The groups' objects.
    pub groups: watch::Receiver<Snapshot<FailoverGroup>>,
    /// The ControlLeases.
    pub leases: watch::Receiver<Snapshot<ControlLease>>,
    /// Who leads.
    pub leadership: watch::Receiver<Leadership>,
    /// What the namespaces of groups at home hold.
    pub cache: Cache,
    /// What was told and looked at; found anew after a restart.
    pub memory: Memory,
}

/// What a replica has told of groups that run here, and the last look at each.
#[derive(Debug, Default)]
pub struct Memory {
    told: Mutex<BTreeMap<GroupKey, holding::Told>>,
    looks: Mutex<Looks>,
}

impl Reconciler {
    fn told(&self) -> MutexGuard<'_, BTreeMap<GroupKey, holding::Told>> {
        self.memory.told.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn looks(&self) -> MutexGuard<'_, Looks> {
        self.memory.looks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reconciles while this replica leads, and tells of starts, until cancelled.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) {
        let starts = tokio::spawn(self.clone().tell_starts(stop.clone()));
        let (mut groups, mut plans) = (self.groups.clone(), self.plans.watch());
        let (mut leases, mut cache) = (self.leases.clone(), self.cache.changes());
        let mut round = 0u32;
        loop {
            // Both replicas mirror what is at home, so both watch it.
            self.follow_home();
            if self.leadership.borrow().term_at(clock::now()).is_some() {
                if round.is_multiple_of(CHARTER_EVERY)
                    && let Err(e) = charter::reconcile(&self.client, &self.context).await
                {
                    tracing::warn!("{e}");
                }
                round = round.wrapping_add(1);
                self.tend_home().await;
                self.tend_copies().await;
            } else {
                self.looks().clear();
                self.told().clear();
            }
            tokio::select! {
                () = stop.cancelled() => break,
                _ = groups.changed() => tokio::time::sleep(SETTLE).await,
                _ = plans.changed() => tokio::time::sleep(SETTLE).await,
                _ = leases.changed() => tokio::time::sleep(SETTLE).await,
                _ = cache.changed() => tokio::time::sleep(SETTLE).await,
                () = tokio::time::sleep(LOOK) => {}
            }
        }
        // It ends with the same token.
        let _ = starts.await;
    }

    /// Says which namespaces are watched, and forgets groups that are here no more.
    fn follow_home(&self) {
        let here = self.context.site.as_str();
        let objects = self.groups.borrow().clone();
        let ours = || objects.values().filter(|g| g.spec.home == here);
        self.cache.follow(&ours().flat_map(|g| g.spec.namespaces.iter().cloned()).collect());
        self.mirror.retain(&ours().filter_map(|g| g.key().ok()).collect());
        self.looks().retain(&objects.values().filter_map(|g| g.key().ok()).collect());
    }

    /// What this site knows of a group's lease.
    fn lease(&self, group: &GroupKey) -> Option<ControlLeaseStatus> {
        self.leases.borrow().get(&object_name(group)).and_then(|l| l.status.clone())
    }

    /// Keeps the read-only copies of other homes' groups.
    async fn tend_copies(&self) {
        let objects = self.groups.borrow().clone();
        let (here, now) = (&self.context.site, clock::now());
        for (group, plan) in self.plans.all().iter().filter(|(g, _)| &g.home != here) {
            let (object, held) = (objects.get(&object_name(group)), self.standby.held(group));
            let lease = self.leases.borrow().get(&object_name(group)).cloned();
            let revision = held.as_ref().map(|h| h.digest.clone());
            let inputs = Inputs {
                versions: versions(object.map(Arc::as_ref), lease.as_deref()),
                plan: Some(plan.clone()),
                made_of: Made::Revision(revision.clone()),
                role: None,
                elsewhere: None,
                registered: false,
            };
            if !self.looks().is_due(group, &inputs, now) {
                continue;
            }
            let bundle = held.as_ref().map(|h| &h.bundle.spec);
            let kept = copies::keep(&self.client, &objects, plan.plan(), bundle).await;
            let lease = lease.as_ref().and_then(|l| l.status.as_ref());
            let shown = match object {
                Some(object) => copies::show(&self.client, object, plan, lease, revision).await,
                None => Ok(()),
            };
            let calm = kept.is_ok() && shown.is_ok();
            for e in kept.err().into_iter().chain(shown.err()) {
                tracing::warn!("{e}");
            }
            self.looks().note(group.clone(), inputs, calm, clock::now());
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use ed25519_dalek::SigningKey;
    use regent_core::charter::{Charter, Interlock, Party, Role, SiteEntry};
    use regent_core::sign::{Envelope, PublicKey};
    use regent_shell::tls::make_ca;

    /// Where the test charter's parties and sites are; each site is run by the party of its name.
    const PLACES: [(&str, &str, u8); 5] =
        [("ireland", "IE", 1), ("france", "FR", 2), ("germany", "DE", 3), ("swiss", "CH", 4), ("lux", "LU", 5)];

    /// A charter of five parties with a site each; all sites but Ireland are witnesses.
    pub(crate) fn charter() -> Charter {
        let site = |(name, country, number): (&str, &str, u8)| SiteEntry {
            name: name.parse().unwrap(),
            number: number.into(),
            party: name.parse().unwrap(),
            country: country.into(),
            addresses: vec![format!("10.0.0.{number}:7443")],
            key: PublicKey::of(&SigningKey::from_bytes(&[number + 10; 32])),
            tls_anchor: make_ca(&name.parse().unwrap()).unwrap().certificate_pem,
        };
        let party = |(name, country, number): (&str, &str, u8)| Party {
            name: name.parse().unwrap(),
            display_name: String::new(),
            role: Role::Primary,
            country: country.into(),
            control: country.into(),
            key: PublicKey::of(&SigningKey::from_bytes(&[number; 32])),
        };
        Charter {
            name: "test".into(),
            version: 1,
            parties: PLACES.map(party).into(),
            threshold: 3,
            sites: PLACES.map(site).into(),
            witnesses: PLACES[1..].iter().map(|(name, ..)| name.parse().unwrap()).collect(),
            faulty_witnesses: 1,
            lease_duration_ms: 5000,
            clock_drift_ppm: 1000,
            interlock: Interlock::default(),
        }
    }

    /// The charter, signed by as many of its parties.
    pub(crate) fn signed(charter: &Charter, parties: usize) -> Envelope {
        let key = |number: u8| SigningKey::from_bytes(&[number; 32]);
        let mut envelope = Envelope::sign(charter, PLACES[0].0, &key(PLACES[0].2));
        for (name, _, number) in &PLACES[1..parties] {
            envelope.add_signature(name, &key(*number));
        }
        envelope
    }
}
