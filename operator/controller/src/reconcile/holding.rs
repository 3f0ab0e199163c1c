//! How a group runs at its home, told to its standbys: after a move back only home can say that
//! the move is complete.

use std::time::Duration;

use regent_core::ids::GroupKey;
use regent_core::time::Moment;
use regent_kinds::report::StandbyReport;
use regent_lease::contender::GroupStatus;
use regent_shell::clock;

use super::Reconciler;
use crate::mirror::reports::forget_report;
use crate::mirror::{note_report, to_wire};

/// What has not changed is told again this often: a standby may have been away.
const AGAIN: Duration = Duration::from_secs(30);
const TELL: Duration = Duration::from_secs(2);

/// What was told last of a group, and when.
pub(super) type Told = Option<(StandbyReport, Moment)>;

impl Reconciler {
    /// Tells how the group runs here, or takes that back where it runs here no more.
    pub(super) async fn tell_run(
        &self,
        group: &GroupKey,
        name: &str,
        run: Option<&StandbyReport>,
        role: Option<&GroupStatus>,
    ) {
        let here = &self.context.site;
        let holds = role.filter(|s| s.role.may_run());
        let (Some(run), Some(status)) = (run, holds) else {
            let listed = self.groups.borrow().get(name).and_then(|o| o.status.clone()).unwrap_or_default();
            if listed.standbys.iter().any(|s| s.site == here.as_str())
                && let Err(e) = forget_report(&self.client, name, here).await
            {
                tracing::debug!("{e}");
            }
            self.told(group, |told| *told = None);
            return;
        };
        let report = StandbyReport { epoch: status.certified.map(|e| e.to_string()), ..run.clone() }.bounded();
        if let Err(e) = note_report(&self.client, &self.groups, here, here, group, &report).await {
            tracing::debug!("{e}");
        }
        let now = clock::now();
        let is_news = self.told(group, |told| {
            let old = told.as_ref().is_some_and(|(t, at)| *t == report && !at.after(AGAIN).passed_for_stopping(now));
            *told = if old { told.take() } else { Some((report.clone(), now)) };
            !old
        });
        if is_news {
            self.tell_standbys(group, &report).await;
        }
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
