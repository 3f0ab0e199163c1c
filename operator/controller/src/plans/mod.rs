//! The plans that this site holds: of its own groups and of those of other homes.
//!
//! ```text
//!   home: reconciler --register--> signed --Countersign--> standbys --> kept, published
//!   everyone else:   --Plans, every few seconds--> verified --> kept, published
//! ```
//!
//! A plan is kept in its group's `ControlLease` before it has any effect. A higher
//! version replaces a lower one; countersignatures of one version add up.

mod exchange;

pub use exchange::exchange;

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use regent_api::ControlLeaseStatus;
use regent_core::ids::{GroupKey, SiteName};
use regent_core::plan::{Plan, PlanError, VerifiedPlan};
use regent_core::sign::Envelope;
use regent_proto::v1;
use tokio::sync::watch;
use tonic::Status;

use crate::context::Context;
use crate::federation::client::Peers;
use crate::objects::{ControlLeases, ObjectError};

/// How long home waits for countersignatures before it publishes a plan without them.
const COUNTERSIGN: Duration = Duration::from_millis(1500);

/// Why a plan is not taken.
#[derive(Debug, thiserror::Error)]
pub enum PlansError {
    /// The plan is wrong.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// It could not be kept.
    #[error(transparent)]
    Object(#[from] ObjectError),
    /// Only home makes plans.
    #[error("plan of group {group}: its home is {}, this is {site}; change it at its home", group.home)]
    NotHome {
        /// The group.
        group: GroupKey,
        /// This site.
        site: SiteName,
    },
    /// A countersignature is asked of a site that is no standby.
    #[error("plan of group {group} version {version} does not name site {site} as a standby; nothing to countersign")]
    NotAStandby {
        /// The group.
        group: GroupKey,
        /// The plan's version.
        version: u64,
        /// This site.
        site: SiteName,
    },
    /// This standby may not run the group (I5).
    #[error(
        "plan of group {group} version {version}: standby {site} is in {country}, where the group may not run; remove the standby or add {country} to countries"
    )]
    Unlawful {
        /// The group.
        group: GroupKey,
        /// The plan's version.
        version: u64,
        /// This site.
        site: SiteName,
        /// Its country.
        country: String,
    },
}

impl From<PlansError> for Status {
    fn from(e: PlansError) -> Self {
        match &e {
            PlansError::Object(_) => Self::unavailable(e.to_string()),
            PlansError::Plan(_) => Self::invalid_argument(e.to_string()),
            PlansError::NotHome { .. } | PlansError::NotAStandby { .. } | PlansError::Unlawful { .. } => {
                Self::failed_precondition(e.to_string())
            }
        }
    }
}

/// The signed plan that a `ControlLease` holds.
pub fn plan_of(status: &ControlLeaseStatus) -> Option<Envelope> {
    serde_json::from_str(status.plan.as_ref()?).ok()
}

/// Verified plans. Shared: everything that looks through all of them does so often.
pub type Held = Arc<BTreeMap<GroupKey, Arc<VerifiedPlan>>>;

/// The plans that this site holds.
pub struct Plans {
    context: Arc<Context>,
    leases: ControlLeases,
    held: RwLock<Held>,
    changed: watch::Sender<u64>,
}

impl Plans {
    /// No plans yet; [`Self::absorb`] takes what the objects hold.
    pub fn new(context: Arc<Context>, leases: ControlLeases) -> Self {
        Self { context, leases, held: RwLock::default(), changed: watch::Sender::new(0) }
    }

    /// Wakes when a plan or its countersignatures change.
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// All plans, verified.
    pub fn all(&self) -> Held {
        self.held.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// A group's plan.
    pub fn get(&self, group: &GroupKey) -> Option<Arc<VerifiedPlan>> {
        self.held.read().unwrap_or_else(PoisonError::into_inner).get(group).cloned()
    }

    /// Takes a plan that an object holds: another replica kept it, or this one before its restart.
    pub fn absorb(&self, envelope: &Envelope) -> Result<(), PlanError> {
        // What is held was verified when it came. Its group is read to find it, and believed in nothing.
        let claimed = envelope.peek::<Plan>().ok();
        if claimed.and_then(|plan| self.get(&plan.group)).is_some_and(|held| held.envelope() == envelope) {
            return Ok(());
        }
        self.publish(VerifiedPlan::open(envelope, &self.context.charter)?)
    }

    fn publish(&self, plan: VerifiedPlan) -> Result<(), PlanError> {
        let group = plan.plan().group.clone();
        let mut held = self.held.write().unwrap_or_else(PoisonError::into_inner);
        let better = match VerifiedPlan::supersede(held.get(&group).map(Arc::as_ref), plan) {
            Ok(better) => better,
            // The object was read before a newer plan was written to it.
            Err(PlanError::Older { .. }) => None,
            Err(e) => return Err(e),
        };
        if let Some(better) = better {
            Arc::make_mut(&mut held).insert(group, Arc::new(better));
            drop(held);
            self.changed.send_modify(|n| *n += 1);
        }
        Ok(())
    }

    /// Keeps a plan that somebody sent, if it is news.
    pub async fn offer(&self, envelope: &Envelope) -> Result<(), PlansError> {
        self.keep(VerifiedPlan::open(envelope, &self.context.charter)?).await
    }

    async fn keep(&self, offered: VerifiedPlan) -> Result<(), PlansError> {
        let group = offered.plan().group.clone();
        if VerifiedPlan::supersede(self.get(&group).as_deref(), offered.clone())?.is_none() {
            return Ok(());
        }
        let mut refused = None;
        let status = self
            .leases
            .update(&group, |status| {
                let held = plan_of(status).and_then(|e| VerifiedPlan::open(&e, &self.context.charter).ok());
                match VerifiedPlan::supersede(held.as_ref(), offered.clone()) {
                    Ok(Some(better)) => {
                        status.plan = serde_json::to_string(better.envelope()).ok();
                        status.plan_version = i64::try_from(better.plan().version).ok();
                        true
                    }
                    Ok(None) => false,
                    Err(e) => {
                        refused = Some(e);
                        false
                    }
                }
            })
            .await?;
        if let Some(e) = refused {
            return Err(e.into());
        }
        if let Some(envelope) = plan_of(&status) {
            self.absorb(&envelope)?;
        }
        Ok(())
    }

    /// Home: makes this the group's plan, and returns its version. The version in `wanted`
    /// doesn't matter; nothing happens if the plan that is held says the same. Standbys
    /// are asked to countersign first, so that a change doesn't bar them meanwhile; one
    /// that doesn't answer is asked again later.
    pub async fn register(&self, wanted: Plan, peers: &Peers) -> Result<u64, PlansError> {
        let group = wanted.group.clone();
        if group.home != self.context.site {
            return Err(PlansError::NotHome { group, site: self.context.site.clone() });
        }
        let held = self.get(&group);
        let version = held.as_ref().map_or(0, |h| h.plan().version);
        if held.is_some_and(|h| *h.plan() == Plan { version, ..wanted.clone() }) {
            return Ok(version);
        }
        let plan = Plan { version: version + 1, ..wanted };
        if let Some(error) = plan.errors(&self.context.charter).into_iter().next() {
            return Err(error.into());
        }
        let envelope = self.context.sign(&plan);
        let asked = plan.standbys.iter().filter_map(|standby| peers.get(standby)).map(|peer| {
            let message: v1::Envelope = envelope.clone().into();
            peer.call(COUNTERSIGN, move |mut client| async move { client.countersign(message).await })
        });
        let mut merged = VerifiedPlan::open(&envelope, &self.context.charter)?;
        for answer in futures::future::join_all(asked).await {
            match answer {
                Ok(signed) => {
                    let signed = VerifiedPlan::open(&signed.into(), &self.context.charter)?;
                    merged = VerifiedPlan::supersede(Some(&merged), signed)?.unwrap_or(merged);
                }
                Err(e) => tracing::warn!(%group, "countersignature: {e}"),
            }
        }
        self.keep(merged).await?;
        Ok(plan.version)
    }

    /// A standby: keeps home's plan, then signs it. What was countersigned is never forgotten.
    pub async fn countersign(&self, envelope: Envelope) -> Result<Envelope, PlansError> {
        let offered = VerifiedPlan::open(&envelope, &self.context.charter)?;
        let (group, version) = (offered.plan().group.clone(), offered.plan().version);
        let site = self.context.site.clone();
        if !offered.plan().standbys.contains(&site) {
            return Err(PlansError::NotAStandby { group, version, site });
        }
        if !offered.is_lawful(&site, &self.context.charter) {
            let country = self.context.charter.site(&site).map(|s| s.country.clone()).unwrap_or_default();
            return Err(PlansError::Unlawful { group, version, site, country });
        }
        let mut signed = offered.envelope().clone();
        signed.add_signature(site.as_str(), &self.context.identity.key);
        self.keep(VerifiedPlan::open(&signed, &self.context.charter)?).await?;
        Ok(signed)
    }

    /// The plans that a caller lacks, or of which it lacks signatures.
    pub fn missing(&self, known: &[v1::KnownPlan]) -> Vec<Envelope> {
        let known: BTreeMap<&str, (u64, u32)> =
            known.iter().map(|k| (k.group.as_str(), (k.version, k.signatures))).collect();
        let held = self.held.read().unwrap_or_else(PoisonError::into_inner);
        let lacks = |(group, plan): &(&GroupKey, &Arc<VerifiedPlan>)| {
            let (version, signatures) = known.get(group.to_string().as_str()).copied().unwrap_or_default();
            let (ours, our_signatures) = (plan.plan().version, plan.envelope().signatures.len());
            ours > version || (ours == version && our_signatures > signatures as usize)
        };
        held.iter().filter(lacks).map(|(_, plan)| plan.envelope().clone()).collect()
    }

    /// What is held, as a question for what is missing.
    fn known(&self) -> Vec<v1::KnownPlan> {
        let held = self.held.read().unwrap_or_else(PoisonError::into_inner);
        let known = |(group, plan): (&GroupKey, &Arc<VerifiedPlan>)| v1::KnownPlan {
            group: group.to_string(),
            version: plan.plan().version,
            signatures: u32::try_from(plan.envelope().signatures.len()).unwrap_or(u32::MAX),
        };
        held.iter().map(known).collect()
    }

    /// Plans of this home with the standbys that have not countersigned them.
    fn unsigned(&self) -> Vec<(Envelope, Vec<SiteName>)> {
        let held = self.held.read().unwrap_or_else(PoisonError::into_inner);
        let ours = held.values().filter(|p| p.plan().group.home == self.context.site);
        ours.filter_map(|p| {
            let lawful = |s: &&SiteName| !p.countersigned().contains(*s) && p.is_lawful(s, &self.context.charter);
            let missing: Vec<SiteName> = p.plan().standbys.iter().filter(lawful).cloned().collect();
            (!missing.is_empty()).then(|| (p.envelope().clone(), missing))
        })
        .collect()
    }
}
