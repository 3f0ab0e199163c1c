//! How a group runs at its home, told to its standbys: after a move back only home can say that
//! the move is complete.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use regent_api::FailoverGroup;
use regent_core::ids::GroupKey;
use regent_core::time::Moment;
use regent_kinds::report::StandbyReport;
use regent_lease::contender::GroupStatus;
use regent_shell::clock;

use super::Reconciler;
use crate::mirror::reports::forget_report;
use crate::mirror::{note_report, to_wire};
use crate::objects::ObjectError;

/// What has not changed is told again this often: a standby may have been away.
const AGAIN: Duration = Duration::from_secs(30);
const TELL: Duration = Duration::from_secs(2);

/// Groups that standbys are told of at once.
const AT_ONCE: usize = 32;

/// What was told last of a group, and when.
pub(super) type Told = (StandbyReport, Moment);

impl Reconciler {
    /// Tells how the group runs here, or takes that back where it runs here no more.
    pub(super) async fn tell_run(
        &self,
        group: &GroupKey,
        name: &str,
        run: Option<&StandbyReport>,
        role: Option<&GroupStatus>,
    ) -> Result<(), ObjectError> {
        let here = &self.context.site;
        let holds = role.filter(|s| s.role.may_run());
        let (Some(run), Some(status)) = (run, holds) else {
            self.told().remove(group);
            let listed = self.groups.borrow().get(name).and_then(|o| o.status.clone()).unwrap_or_default();
            if listed.standbys.iter().any(|s| s.site == here.as_str()) {
                forget_report(&self.client, name, here).await?;
            }
            return Ok(());
        };
        let report = StandbyReport { epoch: status.certified.map(|e| e.to_string()), ..run.clone() }.bounded();
        let is_news = self.told().get(group).is_none_or(|(told, _)| *told != report);
        if is_news {
            self.told().insert(group.clone(), (report.clone(), clock::now()));
            self.tell_standbys(group, &report).await;
        }
        note_report(&self.client, &self.groups, here, here, group, &report).await
    }

    /// Tells standbys again what has not changed for a while; forgets groups that are not these.
    pub(super) async fn tell_again(&self, groups: &BTreeMap<GroupKey, Arc<FailoverGroup>>) {
        let now = clock::now();
        let due: Vec<(GroupKey, StandbyReport)> = {
            let mut told = self.told();
            told.retain(|group, _| groups.contains_key(group));
            let old = told.iter_mut().filter(|(_, (_, at))| at.after(AGAIN).passed_for_stopping(now));
            let again = |(group, (report, at)): (&GroupKey, &mut Told)| {
                *at = now;
                (group.clone(), report.clone())
            };
            old.map(again).collect()
        };
        let tell =
            |(group, report): (GroupKey, StandbyReport)| async move { self.tell_standbys(&group, &report).await };
        futures::stream::iter(due).map(tell).buffer_unordered(AT_ONCE).collect::<Vec<()>>().await;
    }

    async fn tell_standbys(&self, group: &GroupKey, report: &StandbyReport) {
        let Some(plan) = self.plans.get(group) else { return };
        let calls = plan.plan().standbys.iter().filter_map(|site| self.peers.get(site)).map(|peer| {
            let wire = to_wire(report, group);
            peer.call(TELL, |mut client| async move { client.readiness(wire).await })
        });
        for answer in futures::future::join_all(calls).await {
            if let Err(e) = answer {
                tracing::debug!("telling how the group runs at home: {e}");
            }
        }
    }
}
