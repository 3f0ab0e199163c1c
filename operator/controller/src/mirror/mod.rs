//! The mirror: home's objects of a group, as one signed bundle for its standbys.
//!
//! ```text
//!   API server --capture--> select --> strip --> Bundle --sign--> packed, served to standbys
//! ```
//!
//! Home's objects stay the source, whoever holds the group: while another site does,
//! nothing is mirrored. A capture is a function of the objects, and so are its bytes
//! and its signature: both replicas serve the same bundle without speaking to each other.

pub mod bundle;
pub mod capture;
pub mod reports;
pub mod select;
pub mod strip;

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use futures::future::BoxFuture;
use regent_api::FailoverGroup;
use regent_core::ids::{GroupKey, SiteName};
use regent_core::sign::Digest;
use regent_core::time::Moment;
use regent_proto::v1;
use regent_shell::clock;
use tokio::sync::watch;
use tonic::Status;

use crate::context::Context;
use crate::federation::server::{Bundle as Served, Bundles};
use crate::lease::{LeaseShell, named};
use crate::objects::{ObjectError, Snapshot};
use crate::plans::Plans;

pub use reports::{StandbyReport, note_report};

/// A capture serves everyone who asks within this time.
const FRESH: Duration = Duration::from_millis(900);

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
        error: ObjectError,
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
    /// The signed bundle.
    pub served: Served,
    /// What belongs to the group and is not mirrored.
    pub unknown: Vec<String>,
    /// Pods that its workloads want.
    pub replicas: u32,
    at: Moment,
}

/// Captures and serves the groups that are at home here.
pub struct Mirror {
    context: Arc<Context>,
    client: kube::Client,
    plans: Arc<Plans>,
    shell: Arc<LeaseShell>,
    groups: watch::Receiver<Snapshot<FailoverGroup>>,
    captured: RwLock<BTreeMap<GroupKey, Captured>>,
}

impl Mirror {
    /// A mirror that has captured nothing yet.
    pub fn new(
        context: Arc<Context>,
        client: kube::Client,
        plans: Arc<Plans>,
        shell: Arc<LeaseShell>,
        groups: watch::Receiver<Snapshot<FailoverGroup>>,
    ) -> Self {
        Self { context, client, plans, shell, groups, captured: RwLock::default() }
    }

    /// A group's object at this site.
    fn object(&self, group: &GroupKey) -> Option<FailoverGroup> {
        self.groups.borrow().get(&FailoverGroup::name_at(group, &self.context.site)).cloned()
    }

    /// Whether home's objects are what runs: nobody else is known to hold the group.
    fn may_mirror(&self, group: &GroupKey) -> bool {
        self.shell.group_status(group).is_none_or(|status| {
            let holder = named(&status, self.context.charter.faulty_witnesses as usize);
            matches!(status.role, "Holder" | "RanOut" | "Releasing")
                || holder.is_none_or(|v| v.site == self.context.site)
        })
    }

    /// The group as it is, captured within the last second; as last captured while
    /// another site holds it.
    pub async fn captured(&self, group: &GroupKey) -> Result<Option<Captured>, MirrorError> {
        let held = self.captured.read().unwrap_or_else(PoisonError::into_inner).get(group).cloned();
        let now = clock::now();
        let is_fresh = held.as_ref().is_some_and(|c| !c.at.after(FRESH).passed_for_stopping(now));
        let Some(object) = self.object(group) else { return Ok(None) };
        if is_fresh || object.metadata.deletion_timestamp.is_some() || !self.may_mirror(group) {
            return Ok(held);
        }
        let read = |error| MirrorError::Read { group: group.clone(), error };
        let capture = capture::capture(&self.client, group, &object.spec).await.map_err(read)?;
        let replicas = replicas(&capture.bundle);
        let envelope = self.context.sign(&capture.bundle);
        let digest: Digest = bundle::digest_of(&envelope);
        let data = match held {
            Some(held) if held.served.digest == digest => held.served.data,
            _ => Arc::new(bundle::pack(group, &envelope)?),
        };
        let unknown = capture.unknown.into_iter().collect();
        let captured = Captured { served: Served { digest, data }, unknown, replicas, at: now };
        self.captured.write().unwrap_or_else(PoisonError::into_inner).insert(group.clone(), captured.clone());
        Ok(Some(captured))
    }

    async fn serve(&self, caller: SiteName, group: GroupKey, have: String) -> Result<Option<Served>, Status> {
        if group.home != self.context.site {
            let text = format!("group {group}: its home is {}, this is {}; ask there", group.home, self.context.site);
            return Err(Status::failed_precondition(text));
        }
        let plan = self.plans.get(&group);
        let stands_by =
            plan.is_some_and(|p| p.plan().standbys.contains(&caller) && p.is_lawful(&caller, &self.context.charter));
        if !stands_by {
            let text = format!(
                "group {group}: site {caller} is no lawful standby of its plan; its bundle holds Secrets and goes to standbys only"
            );
            return Err(Status::permission_denied(text));
        }
        let captured = self.captured(&group).await.map_err(|e| Status::unavailable(e.to_string()))?;
        let Some(captured) = captured else {
            return Err(Status::unavailable(format!("group {group}: not captured yet; ask again")));
        };
        Ok((captured.served.digest.to_string() != have).then_some(captured.served))
    }
}

/// How many pods a bundle's workloads want.
fn replicas(bundle: &bundle::Bundle) -> u32 {
    let wanted = |o: &serde_json::Value| match bundle::text(o, "/kind") {
        "Deployment" | "StatefulSet" => o.pointer("/spec/replicas").and_then(serde_json::Value::as_u64).unwrap_or(1),
        _ => 0,
    };
    u32::try_from(bundle.objects.iter().map(wanted).sum::<u64>()).unwrap_or(u32::MAX)
}

impl Bundles for Mirror {
    fn bundle(&self, caller: SiteName, group: GroupKey, have: String) -> BoxFuture<'_, Result<Option<Served>, Status>> {
        Box::pin(self.serve(caller, group, have))
    }

    fn readiness(&self, caller: SiteName, report: v1::ReadinessReport) -> BoxFuture<'_, Result<(), Status>> {
        Box::pin(async move {
            let (group, report) = StandbyReport::try_from_wire(report).map_err(Status::invalid_argument)?;
            if self.plans.get(&group).is_none_or(|p| p.plan().rank(&caller).is_none()) {
                let text = format!("group {group}: site {caller} is not in its plan, so its readiness says nothing");
                return Err(Status::permission_denied(text));
            }
            let noted = note_report(&self.client, &self.groups, &self.context.site, &caller, &group, &report).await;
            noted.map_err(|e| Status::unavailable(e.to_string()))
        })
    }
}
