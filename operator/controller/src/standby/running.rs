//! A group that runs here: people here are its masters. Regent shows what they changed against
//! home's revision, and puts back only roll-out settings of its own.

use std::time::Duration;

use kube::api::{Api, DynamicObject};
use regent_api::SiteSpec;
use regent_api::group::StandbyState;
use regent_core::ids::GroupKey;
use regent_kinds::amend::{changes, works};
use regent_kinds::copies::{Copies, place};
use regent_kinds::derive::Place;
use regent_kinds::differ::differences;
use regent_kinds::kind::is_workload;
use regent_kinds::object::{object_of, text};
use regent_kinds::putback::put_back;
use regent_kinds::report::StandbyReport;
use regent_kinds::roll;
use regent_kinds::stamp::{made_from, template_of};
use regent_shell::clock;
use serde_json::Value;

use super::apply::ApplyError;
use super::store::{Held, Revisions};
use super::survey::Survey;
use super::{Compared, Standby};
use crate::mirror::capture::api_of;
use crate::objects::bounded;

/// After a takeover nothing is written until the pods are ready, or for this long: the API
/// server and the kubelets have better things to do then.
const QUIET: Duration = Duration::from_secs(60);
/// How often it is looked for what people changed.
const COMPARE: Duration = Duration::from_secs(8);

impl Standby {
    pub(super) async fn look_running(&self, group: &GroupKey) -> StandbyReport {
        let revisions = match self.revisions(group).await {
            Ok(revisions) => revisions,
            Err(report) => return StandbyReport { state: StandbyState::Starting, ..report },
        };
        let epoch = self.shell.group_status(group).and_then(|s| s.certified).map(|e| e.to_string());
        let looked = self.look_at_run(group, &revisions).await;
        let report = looked.unwrap_or_else(|e| {
            StandbyReport::of(StandbyState::Starting, e.reason(), format!("it is not known how the group runs: {e}"))
        });
        StandbyReport { epoch, ..report }
    }

    async fn look_at_run(&self, group: &GroupKey, revisions: &Revisions) -> Result<StandbyReport, ApplyError> {
        let now = clock::now();
        let since = self.remember(group, |m| {
            (m.applied, m.said, m.calm) = (None, None, None);
            *m.runs_since.get_or_insert(now)
        });
        let mut survey = self.watched(group, &revisions.namespaces())?;
        let Some(runs) = runs(revisions, &survey) else {
            return Ok(roll::running("", &[], &survey.live));
        };
        let tables = self.tables().await?;
        let none = Copies { admitted: Vec::new(), notices: Vec::new() };
        let taken = Copies::of(&runs.bundle, &tables).unwrap_or(none);
        let here = place(&runs.bundle, group, &tables);
        let wanted = taken.running(&here);
        for live in survey.live.values_mut().filter(|l| (l.pods.len() as u64) < roll::wants(&l.workload)) {
            live.refused = self.surveyor().refusal(&live.workload).await;
        }
        let mut report = roll::running(&runs.digest, &wanted, &survey.live);
        let is_whole = report.state == StandbyState::Holding;
        if is_whole || since.after(QUIET).passed_for_stopping(now) {
            // What was put back just now is not as it was read before.
            if !self.put_all_back(&here, &taken.admitted, &survey).await? {
                let home = Copies::of(runs.home(), &tables).map(|c| c.running(&here)).unwrap_or_default();
                let compared = self.compared(group, &home, &survey, &tables).await?;
                report.differences = compared.differences;
                if is_whole && works(survey.live.values()) {
                    report.notices.extend(self.offer(group, runs, compared.changes).await?);
                }
            }
        }
        if is_whole && revisions.good.as_ref().is_none_or(|g| g.digest != runs.digest) {
            self.store().mark_armed(group, &runs.digest).await?;
            self.remember(group, |m| m.revisions.iter_mut().for_each(Revisions::arm));
        }
        Ok(report)
    }

    /// Puts roll-out settings and Service types back to home's, where nobody here has changed
    /// them, once a roll-out that the takeover fell into is at its end. Whether there was any.
    async fn put_all_back(&self, here: &Place<'_>, admitted: &[Value], survey: &Survey) -> Result<bool, ApplyError> {
        let (applier, mut any) = (self.applier(here.group, true), false);
        for home in admitted {
            let live = match survey.live.get(&object_of(home)) {
                Some(live) => {
                    let template = template_of(&live.workload);
                    if live.pods.iter().any(|p| made_from(p) != template) {
                        continue;
                    }
                    Some(live.workload.clone())
                }
                None if text(home, "/kind") == "Service" => self.read(home).await?,
                None => None,
            };
            let Some(live) = live else { continue };
            if let Some(patch) = put_back(home, &live, here) {
                applier.put_back(&live, &patch).await?;
                any = true;
            }
        }
        Ok(any)
    }

    async fn read(&self, copy: &Value) -> Result<Option<Value>, ApplyError> {
        let (version, kind) = (text(copy, "/apiVersion"), text(copy, "/kind"));
        let api: Api<DynamicObject> = api_of(&self.client, version, kind, text(copy, "/metadata/namespace"));
        let found = bounded(&object_of(copy), api.get_opt(text(copy, "/metadata/name"))).await?;
        Ok(found.and_then(|o| serde_json::to_value(o).ok()).map(|mut value| {
            (value["apiVersion"], value["kind"]) = (version.into(), kind.into());
            value
        }))
    }

    /// What people changed here against home's revision.
    async fn compared(
        &self,
        group: &GroupKey,
        home: &[Value],
        survey: &Survey,
        tables: &SiteSpec,
    ) -> Result<Compared, ApplyError> {
        let now = clock::now();
        let known = self.remember(group, |m| m.compared.clone());
        if let Some((known, at)) = known
            && !at.after(COMPARE).passed_for_stopping(now)
        {
            return Ok(known);
        }
        let mut found = Compared::default();
        for copy in home {
            let of_workload = survey.live.get(&object_of(copy));
            let live = match of_workload {
                Some(live) => Some(live.workload.clone()),
                None if is_workload(text(copy, "/kind")) => None,
                None => self.read(copy).await?,
            };
            found.differences.extend(differences(copy, live.as_ref()));
            let pods = of_workload.iter().flat_map(|l| &l.pods).filter_map(|p| serde_json::to_value(p).ok());
            let pods: Vec<Value> = pods.collect();
            let pods: Vec<&Value> = pods.iter().collect();
            found.changes.extend(live.iter().flat_map(|live| changes(copy, live, &pods, tables)));
        }
        self.remember(group, |m| m.compared = Some((found.clone(), now)));
        Ok(found)
    }
}

/// Which revision runs: the next, if the takeover found all of it on its way, else the good one.
fn runs<'a>(revisions: &'a Revisions, survey: &Survey) -> Option<&'a Held> {
    let (good, next) = (revisions.good.as_ref(), revisions.next.as_ref());
    match (good, next) {
        (Some(good), Some(next)) if good.digest != next.digest => {
            let all_new = survey.live.values().all(|l| {
                let template = template_of(&l.workload);
                l.pods.iter().filter(|p| made_from(p) == template).count() as u64 >= roll::wants(&l.workload)
            });
            Some(if all_new { next } else { good })
        }
        (good, next) => good.or(next),
    }
}
