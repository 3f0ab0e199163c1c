//! The mirror: home's objects of a group, as one signed bundle for its standbys.
//!
//! ```text
//!   API server --capture--> select --> settle, pin --> strip --> Bundle --sign--> packed, served to standbys
//! ```
//!
//! A release counts once it is complete at home. Until then, and while home is empty, the
//! last complete one is served, or nothing new with the reason; after a restart this replica
//! has none, and needs none: standbys keep what they hold.
//!
//! Home's objects stay the source, whoever holds the group: while another site does,
//! nothing is mirrored. A capture is a function of the objects, and so are its bytes
//! and its signature: both replicas serve the same bundle without speaking to each other.

pub mod capture;
pub mod reports;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, PoisonError, RwLock};

use jiff::Timestamp;
use kube::ResourceExt;
use regent_api::{FailoverGroup, FailoverGroupSpec, FailoverGroupStatus, PRUNE_ANNOTATION};
use regent_core::ids::{GroupKey, SiteName};
use regent_core::sign::Digest;
use regent_kinds::bundle;
use regent_kinds::release::{Release, Withheld};
use regent_kinds::report::StandbyReport;
use regent_proto::v1;
use tokio::sync::watch;
use tonic::Status;

use crate::cache::Cache;
use crate::context::Context;
use crate::federation::server::{Answer, Bundle as Served};
use crate::lease::LeaseShell;
use crate::objects::{ObjectError, Snapshot};
use crate::plans::Plans;

pub use reports::{note_report, to_wire};

/// Why a group can't be captured.
#[derive(Debug, thiserror::Error)]
pub enum MirrorError {
    /// Reading failed.
    #[error("capturing group {group}: {error}{}", hint(error))]
    Read {
        /// The group.
        group: GroupKey,
        /// What went wrong.
        #[source]
        error: Arc<ObjectError>,
    },
    /// The bundle can't be made.
    #[error(transparent)]
    Bundle(#[from] bundle::BundleError),
}

fn hint(error: &ObjectError) -> &'static str {
    if error.is_forbidden() {
        "; let the operator read the namespace: `kubectl regent home prepare --namespace NAMESPACE | kubectl apply -f -`"
    } else {
        ""
    }
}

/// A group as last captured.
#[derive(Debug, Clone)]
pub struct Captured {
    /// The last complete release, signed; none if there was none since this replica's start.
    pub served: Option<Served>,
    /// Why home's objects, as they are now, are given to no standby.
    pub withheld: Option<Withheld>,
    /// How the group runs here.
    pub run: StandbyReport,
    /// What belongs to the group and stays at home.
    pub unknown: Vec<String>,
    /// What pods need and standbys don't get.
    pub unmet: Vec<String>,
    /// What else a person should know.
    pub notices: Vec<String>,
    /// What it was made of: nothing is made again of the same.
    of: Made,
}

/// What a capture is made of.
#[derive(Debug, Clone, PartialEq)]
struct Made {
    /// The namespaces' version in the cache.
    version: u64,
    spec: FailoverGroupSpec,
    pruned: Vec<String>,
}

impl Captured {
    /// What a standby gets that has `have`. Replicas may have seen different releases
    /// complete, each in its own pass: while nothing new is given out, the one that the
    /// group's status names is given, so that no standby is sent to and fro.
    fn answer(&self, have: &str, status: Option<&FailoverGroupStatus>) -> Answer {
        let named = status.and_then(|s| s.revision.as_deref());
        let digest = self.served.as_ref().map(|s| s.digest.to_string());
        let is_new = digest.as_deref().is_some_and(|d| d != have && (self.withheld.is_none() || named == Some(d)));
        if let Some(served) = self.served.as_ref().filter(|_| is_new) {
            return Answer::Bundle(served.clone());
        }
        let since = status.and_then(|s| s.empty_since.as_ref()).map(|t| since_of(t.0));
        let revision = digest.as_deref().or(named);
        Answer::Nothing(self.withheld.as_ref().map(|w| w.words(revision, since.as_deref())))
    }
}

/// How messages write since when home is empty.
pub fn since_of(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// Captures and serves the groups that are at home here.
pub struct Mirror {
    context: Arc<Context>,
    client: kube::Client,
    cache: Cache,
    plans: Arc<Plans>,
    shell: Arc<LeaseShell>,
    groups: watch::Receiver<Snapshot<FailoverGroup>>,
    captured: RwLock<BTreeMap<GroupKey, Arc<Captured>>>,
}

impl Mirror {
    /// A mirror that has captured nothing yet.
    pub fn new(
        context: Arc<Context>,
        client: kube::Client,
        cache: Cache,
        plans: Arc<Plans>,
        shell: Arc<LeaseShell>,
        groups: watch::Receiver<Snapshot<FailoverGroup>>,
    ) -> Self {
        Self { context, client, cache, plans, shell, groups, captured: RwLock::default() }
    }

    /// A group's object at this site.
    fn object(&self, group: &GroupKey) -> Option<Arc<FailoverGroup>> {
        self.groups.borrow().get(&FailoverGroup::name_at(group, &self.context.site)).cloned()
    }

    /// Whether home's objects are what runs: nobody else is known to hold the group.
    fn may_mirror(&self, group: &GroupKey) -> bool {
        !self.shell.group_status(group).is_some_and(|status| status.has_left(&self.context.site))
    }

    /// The group as it is; as last captured while another site holds it. None while its
    /// namespaces are listed for the first time.
    pub fn captured(&self, group: &GroupKey) -> Result<Option<Arc<Captured>>, MirrorError> {
        let held = self.captured.read().unwrap_or_else(PoisonError::into_inner).get(group).cloned();
        let Some(object) = self.object(group) else { return Ok(None) };
        if object.metadata.deletion_timestamp.is_some() || !self.may_mirror(group) {
            return Ok(held);
        }
        let pruned = object.annotations().get(PRUNE_ANNOTATION).map(|a| bundle::pruned(a)).unwrap_or_default();
        // Read before the objects: what changes meanwhile is seen the next time.
        let Some(version) = self.cache.version(&object.spec.namespaces, &capture::KINDS) else { return Ok(held) };
        let of = Made { version, spec: object.spec.clone(), pruned };
        if held.as_ref().is_some_and(|h| h.of == of) {
            return Ok(held);
        }
        let read = |error| MirrorError::Read { group: group.clone(), error };
        let made = capture::capture(&self.cache, group, &object.spec, &of.pruned).map_err(read)?;
        let Some((release, run)) = made else { return Ok(held) };
        let mut served = held.and_then(|h| h.served.clone());
        if release.withheld.is_none() {
            served = Some(self.signed(group, &release.bundle, served)?);
        }
        let Release { withheld, unmet, notices, .. } = release;
        let unknown = release.unknown.into_iter().collect();
        let captured = Arc::new(Captured { served, withheld, run, unknown, unmet, notices, of });
        self.captured.write().unwrap_or_else(PoisonError::into_inner).insert(group.clone(), captured.clone());
        Ok(Some(captured))
    }

    /// Forgets groups that are not at home here any more.
    pub fn retain(&self, groups: &BTreeSet<GroupKey>) {
        self.captured.write().unwrap_or_else(PoisonError::into_inner).retain(|group, _| groups.contains(group));
    }

    /// The bundle, signed and packed; as it was if nothing of it changed.
    fn signed(
        &self,
        group: &GroupKey,
        made: &bundle::Bundle,
        before: Option<Served>,
    ) -> Result<Served, bundle::BundleError> {
        let envelope = self.context.sign(made);
        let digest: Digest = bundle::digest_of(&envelope);
        match before {
            Some(before) if before.digest == digest => Ok(before),
            _ => Ok(Served { digest, data: Arc::new(bundle::pack(group, &envelope)?), amendment: None }),
        }
    }

    /// What a standby gets that has `have`.
    pub fn serve(&self, group: &GroupKey, have: &str) -> Result<Answer, Status> {
        let captured = self.captured(group).map_err(|e| Status::unavailable(e.to_string()))?;
        match (captured, self.object(group)) {
            (Some(captured), object) => Ok(captured.answer(have, object.as_ref().and_then(|o| o.status.as_ref()))),
            (None, Some(_)) if self.may_mirror(group) => {
                let text =
                    format!("group {group}: its namespaces are being listed since this replica's start; ask again");
                Err(Status::unavailable(text))
            }
            (None, Some(_)) => {
                Ok(Answer::Nothing(Some("nothing is mirrored while another site holds the group".into())))
            }
            (None, None) => {
                let text = format!("group {group}: home has no FailoverGroup of that name; ask again");
                Err(Status::unavailable(text))
            }
        }
    }

    /// Notes what another site says of a group: what it holds ready, or how it runs there.
    pub async fn hear(&self, caller: &SiteName, report: v1::ReadinessReport) -> Result<(), Status> {
        let (group, report) = reports::from_wire(report).map_err(Status::invalid_argument)?;
        let status = self.shell.group_status(&group);
        let held = status.as_ref().and_then(|s| s.held_elsewhere(&self.context.site));
        let is_planned = self.plans.get(&group).is_some_and(|p| p.plan().rank(caller).is_some());
        // Who holds it is heard also when a newer plan leaves it out.
        if !is_planned && held != Some(caller) {
            let object = FailoverGroup::name_at(&group, &self.context.site);
            let known = self.groups.borrow().get(&object).and_then(|o| o.status.clone()).unwrap_or_default();
            // What it said while it was in the plan is true no more.
            if known.standbys.iter().any(|s| s.site == caller.as_str())
                && let Err(e) = reports::forget_report(&self.client, &object, caller).await
            {
                tracing::debug!("{e}");
            }
            let text = format!("group {group}: site {caller} is not in its plan, so its readiness says nothing");
            return Err(Status::permission_denied(text));
        }
        let noted = note_report(&self.client, &self.groups, &self.context.site, caller, &group, &report).await;
        noted.map_err(|e| Status::unavailable(e.to_string()))
    }
}
