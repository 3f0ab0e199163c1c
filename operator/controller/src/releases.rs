//! Whom the other standbys of a group ask for what they are to hold: home's mirror, or the site
//! that holds the group. Who holds it says what is held.

use std::sync::Arc;

use futures::future::BoxFuture;
use regent_core::ids::{GroupKey, SiteName};
use regent_proto::v1;
use tonic::Status;

use crate::context::Context;
use crate::federation::server::{Answer, Bundles};
use crate::mirror::Mirror;
use crate::plans::Plans;
use crate::standby::Standby;

/// Answers the other standbys.
pub struct Releases {
    /// This site.
    pub context: Arc<Context>,
    /// Who stands by for what.
    pub plans: Arc<Plans>,
    /// Of groups that are at home here.
    pub mirror: Arc<Mirror>,
    /// Of groups of other homes.
    pub standby: Arc<Standby>,
}

impl Bundles for Releases {
    fn bundle(&self, caller: SiteName, group: GroupKey, have: String) -> BoxFuture<'_, Result<Answer, Status>> {
        Box::pin(async move {
            let plan = self.plans.get(&group);
            let stands_by = plan
                .is_some_and(|p| p.plan().standbys.contains(&caller) && p.is_lawful(&caller, &self.context.charter));
            if !stands_by {
                let text = format!(
                    "group {group}: site {caller} is no lawful standby of its plan; its bundle holds Secrets and goes to standbys only"
                );
                return Err(Status::permission_denied(text));
            }
            if group.home == self.context.site {
                self.mirror.serve(&group, &have)
            } else {
                self.standby.serve(&group, &have).await
            }
        })
    }

    fn readiness(&self, caller: SiteName, report: v1::ReadinessReport) -> BoxFuture<'_, Result<(), Status>> {
        Box::pin(async move { self.mirror.hear(&caller, report).await })
    }
}
