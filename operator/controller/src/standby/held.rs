//! Holding a group ready: copies of home's newest revision beside the good one.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use regent_api::group::StandbyState;
use regent_api::{GROUP_LABEL, Selector, group_label};
use regent_core::ids::GroupKey;
use regent_kinds::copies::{Copies, place};
use regent_kinds::derive::Rollout;
use regent_kinds::kind::is_workload;
use regent_kinds::object::{object_of, shortened, text};
use regent_kinds::pods::{Stand, may_run, stand};
use regent_kinds::report::StandbyReport;
use regent_kinds::roll::{self, Facts, How, Target, Verdict, how};
use regent_kinds::stamp::made_from;
use regent_lease::contender::GroupStatus;
use regent_shell::clock;
use serde_json::Value;

use super::apply::{ApplyError, Keep};
use super::store::{Amended, Answer, Held, Revisions, SHORT, Source};
use super::survey::{HELD, Survey, missing, watched};
use super::{Applied, Basis, Standby};
use crate::objects::ObjectError;

/// Copies that somebody has changed are put right within this time.
const REAPPLY: Duration = Duration::from_secs(60);
/// What was applied is seen by then.
const SEEN: Duration = Duration::from_secs(2);
/// How long what was said of copies stands while they can't be looked at.
const STANDS: Duration = Duration::from_secs(10);
/// A revision of which a set was put back is tried again after this time.
const AGAIN: Duration = Duration::from_secs(300);

/// The copies of next and of good, as they are held.
struct Prepared {
    next: Vec<Value>,
    good: Vec<Value>,
    surging: Vec<Value>,
    notices: Vec<String>,
}

impl Prepared {
    /// Both revisions, as they are judged by.
    fn targets<'a>(&'a self, revisions: &'a Revisions) -> (Option<Target<'a>>, Target<'a>) {
        let digest = |h: &'a Option<Held>| h.as_ref().map(|h| h.digest.as_str()).unwrap_or_default();
        let next = Target { digest: digest(&revisions.next), copies: &self.next };
        let good = revisions.good.as_ref().map(|good| match self.good.is_empty() {
            true => next,
            false => Target { digest: &good.digest, copies: &self.good },
        });
        (good, next)
    }
}

/// What keeps the newest revision from being held.
enum Trouble {
    Refused(String),
    Apply(ApplyError),
}

impl Trouble {
    fn tell(&self) -> (StandbyState, String, String) {
        match self {
            Self::Refused(refusal) => (StandbyState::Blocked, "Refused".into(), refusal.clone()),
            Self::Apply(e @ ApplyError::NameTaken { .. }) => {
                (StandbyState::NameTaken, e.reason().into(), e.to_string())
            }
            Self::Apply(e) if e.is_passing() => (StandbyState::Preparing, e.reason().into(), e.to_string()),
            Self::Apply(e) => (StandbyState::Blocked, e.reason().into(), e.to_string()),
        }
    }
}

impl Standby {
    pub(super) async fn look_held(&self, group: &GroupKey) -> StandbyReport {
        let mut revisions = match self.revisions(group).await {
            Ok(revisions) => revisions,
            Err(report) => return report,
        };
        self.ask(group, &mut revisions).await;
        let of = self.basis(group, &revisions).await;
        if let Some(said) = self.stands(group, &of) {
            return said;
        }
        let word = self.remember(group, |m| m.word.clone());
        let mut report = match &revisions.next {
            None => {
                let why = if word.is_empty() { "no bundle yet: its home has not been reached".into() } else { word };
                return StandbyReport::of(StandbyState::Waiting, "Waiting", why);
            }
            Some(next) => match self.hold(group, &revisions).await {
                Ok(report) => {
                    self.remember(group, |m| m.said = Some((report.clone(), clock::now())));
                    report
                }
                Err(e) => self.unlooked(group, next, e),
            },
        };
        if !word.is_empty() {
            report.notices.insert(0, word);
        }
        self.remember(group, |m| {
            // Only what is held whole, of copies that were seen to be as they were applied.
            let settled = m.applied.as_ref().is_some_and(|a| of.as_ref().is_some_and(|of| a.version == of.version));
            let calm = settled && report.state == StandbyState::Armed && report.reason.is_empty();
            m.calm = of.filter(|_| calm).map(|of| (of, report.clone(), clock::now()));
        });
        report
    }

    /// What a look is made of. None while the namespaces are listed for the first time.
    async fn basis(&self, group: &GroupKey, revisions: &Revisions) -> Option<Basis> {
        let namespaces = &revisions.next.as_ref()?.bundle.spec.namespaces;
        let version = self.cache.version(namespaces, &HELD)?;
        let digests = [&revisions.good, &revisions.next].map(|h| h.as_ref().map(|h| h.digest.clone()));
        let word = self.remember(group, |m| m.word.clone());
        Some(Basis { version, digests, tables: self.tables().await.ok()?, word })
    }

    /// What was said last, while it was made of the same: then nobody is asked anything.
    fn stands(&self, group: &GroupKey, of: &Option<Basis>) -> Option<StandbyReport> {
        let now = clock::now();
        self.remember(group, |m| {
            let (before, said, at) = m.calm.as_ref()?;
            let is_same = of.as_ref() == Some(before) && !at.after(REAPPLY).passed_for_stopping(now);
            is_same.then(|| said.clone())
        })
    }

    /// What lives here, as it is watched.
    pub(super) fn watched(&self, group: &GroupKey, namespaces: &[String]) -> Result<Survey, ApplyError> {
        let listing = || ObjectError::Unusable {
            object: format!("copies of group {group}"),
            why: "they are listed for the first time since this replica's start".into(),
        };
        watched(&self.cache, group, namespaces).ok_or_else(|| listing().into())
    }

    /// A look that failed half way, for the API server is slow or away, says nothing new of
    /// pods that stand at their gates: what was said last stays said for a while.
    fn unlooked(&self, group: &GroupKey, next: &Held, e: ApplyError) -> StandbyReport {
        let now = clock::now();
        let said = self.remember(group, |m| m.said.clone());
        let fresh = said.filter(|(_, at)| e.is_passing() && !at.after(STANDS).passed_for_stopping(now));
        if let Some((said, _)) = fresh {
            tracing::debug!(%group, "{e}");
            return said;
        }
        let (state, reason, message) = Trouble::Apply(e).tell();
        StandbyReport { revision: next.digest.clone(), ..StandbyReport::of(state, &reason, message) }
    }

    /// Takes what is new where the group is held, and at home while nobody else holds it.
    async fn ask(&self, group: &GroupKey, revisions: &mut Revisions) {
        let Some(source) = self.source(group) else { return };
        let have = revisions.next.as_ref().map(|h| h.digest.clone()).unwrap_or_default();
        if self.remember(group, |m| {
            let word = m.quiet.as_ref().and_then(|q| q.of(&have)).map(str::to_owned);
            word.map(|word| m.word = word).is_some()
        }) {
            return;
        }
        match self.store().fetch(group, source, &have).await {
            Ok(Answer::New(new)) => {
                tracing::info!(%group, revision = new.digest, "a new bundle");
                revisions.take(*new);
                self.remember(group, |m| (m.revisions, m.word) = (Some(revisions.clone()), String::new()));
                if let Err(e) = self.store().trim(group, revisions).await {
                    tracing::debug!("{e}");
                }
            }
            Ok(Answer::Nothing(word)) => self.remember(group, |m| m.word = word),
            // They are asked again: that somebody is silent takes nothing from what is held.
            Err(e) => self.remember(group, |m| {
                if m.revisions.as_ref().is_none_or(|r| r.next.is_none()) {
                    m.word = e.to_string();
                }
                tracing::debug!("{e}");
            }),
        }
    }

    /// Whom to ask. Another site than home counts as the holder by the votes that witnesses name.
    pub(super) fn source(&self, group: &GroupKey) -> Option<Source<'_>> {
        let status = self.shell.group_status(group);
        let elsewhere = status.as_ref().filter(|s| s.held_elsewhere(&self.context.site).is_some());
        match elsewhere.and_then(GroupStatus::holder).filter(|vote| vote.site != group.home) {
            Some(vote) => Some(Source::Holder(self.peers.get(&vote.site)?, vote.epoch)),
            None => self.peers.get(&group.home).map(|peer| Source::Home(peer)),
        }
    }

    async fn hold(&self, group: &GroupKey, revisions: &Revisions) -> Result<StandbyReport, ApplyError> {
        let Some(next) = &revisions.next else { return Err(ApplyError::Changed) };
        let namespaces = &next.bundle.spec.namespaces;
        for namespace in namespaces {
            self.surveyor().admitted(group, namespace).await?;
        }
        let prepared = match self.prepared(group, revisions).await? {
            Ok(prepared) => prepared,
            Err(refusal) => return self.refused(group, revisions, refusal).await,
        };
        let version = self.cache.version(namespaces, &HELD).unwrap_or_default();
        let mut survey = self.watched(group, namespaces)?;
        let occupied = survey.occupied();
        if !occupied.is_empty() {
            let message = format!(
                "pods have been started here and are not back at their gates yet ({}): nothing is changed meanwhile",
                occupied.join(", ")
            );
            let report = StandbyReport::of(StandbyState::Preparing, "NotBackAtGates", message);
            return Ok(StandbyReport { revision: next.digest.clone(), ..report });
        }
        let mut trouble = None;
        let wanted = self.wanted(group, revisions, &prepared, &survey);
        if !self.is_current(group, &wanted, version) || self.lacks(group, &survey, &wanted) {
            match self.write(group, namespaces, wanted, version).await {
                Ok(()) => survey = self.surveyor().survey(group, namespaces).await?,
                Err(e) if e.is_passing() => return Err(e),
                Err(e) => trouble = Some(Trouble::Apply(e)),
            }
        } else {
            self.keep_gated(group, namespaces).await?;
        }
        let verdict = self.judged(group, revisions, &prepared, &mut survey).await;
        self.carry_out(group, revisions, &prepared, &survey, &verdict).await?;
        let mut report = verdict.report;
        report.notices.extend(prepared.notices);
        Ok(told(report, trouble, revisions))
    }

    /// The newest revision is refused here: what was good stays held.
    async fn refused(
        &self,
        group: &GroupKey,
        revisions: &Revisions,
        refusal: String,
    ) -> Result<StandbyReport, ApplyError> {
        let trouble = Some(Trouble::Refused(refusal));
        let (Some(good), Some(next)) = (&revisions.good, &revisions.next) else {
            return Ok(told(StandbyReport::default(), trouble, revisions));
        };
        let tables = self.tables().await?;
        let Ok(made) = Copies::of(&good.bundle, &tables) else {
            return Ok(told(StandbyReport::default(), trouble, revisions));
        };
        let survey = self.watched(group, &good.bundle.spec.namespaces)?;
        let held = made.held(&place(&good.bundle, group, &tables), Rollout::Flip);
        let target = Target { digest: &good.digest, copies: &held };
        let facts = Facts { good: Some(target), next: target, live: &survey.live, warnings: &BTreeMap::new() };
        let report = StandbyReport { next: Some(next.digest.clone()), ..roll::look(&facts).report };
        Ok(told(report, trouble, revisions))
    }

    /// The copies to be made now: a set that was put back stays as the good revision has it.
    async fn prepared(&self, group: &GroupKey, revisions: &Revisions) -> Result<Result<Prepared, String>, ApplyError> {
        let tables = self.tables().await?;
        let Some(next) = &revisions.next else { return Err(ApplyError::Changed) };
        let made = match Copies::of(&next.bundle, &tables) {
            Ok(made) => made,
            Err(refusal) => return Ok(Err(refusal)),
        };
        let here = place(&next.bundle, group, &tables);
        let (flat, surging) = (made.held(&here, Rollout::Flip), made.held(&here, Rollout::Surge));
        let rolling = revisions.good.as_ref().filter(|g| g.digest != next.digest);
        let good = rolling.and_then(|g| Some((g, Copies::of(&g.bundle, &tables).ok()?)));
        let good = good.map(|(g, made)| made.held(&place(&g.bundle, group, &tables), Rollout::Flip));
        let (good, mut notices) = (good.unwrap_or_default(), made.notices);
        notices.splice(0..0, next.amended.iter().map(|amended| carried(amended)));
        Ok(Ok(Prepared { next: flat, good, surging, notices }))
    }

    /// What is to be applied now: each workload as its pods allow. A set that was put back stays
    /// as the good revision has it.
    fn wanted(&self, group: &GroupKey, revisions: &Revisions, prepared: &Prepared, survey: &Survey) -> Vec<Value> {
        let ((good, next), none) = (prepared.targets(revisions), BTreeMap::new());
        let facts = Facts { good, next, live: &survey.live, warnings: &none };
        let put_back = self.has_failed(group, revisions);
        let copies = prepared.next.iter().zip(&prepared.surging).map(|(flat, surging)| {
            let before = || prepared.good.iter().find(|g| object_of(g) == object_of(flat));
            let chosen = match how(&facts, flat) {
                _ if !is_workload(text(flat, "/kind")) => flat,
                How::Surge | How::Flip if put_back && text(flat, "/kind") == "StatefulSet" => before().unwrap_or(flat),
                How::Good if text(flat, "/kind") == "Deployment" => before().unwrap_or(flat),
                How::Flip => flat,
                How::Surge | How::Good => surging,
            };
            chosen.clone()
        });
        copies.collect()
    }

    /// Whether copies are as they were applied, or were applied just now: what has changed since
    /// may be pods alone, and may be what somebody did to a copy.
    fn is_current(&self, group: &GroupKey, wanted: &[Value], version: u64) -> bool {
        let now = clock::now();
        let is_fresh = |a: &Applied| a.version == version || !a.at.after(REAPPLY).passed_for_stopping(now);
        self.remember(group, |m| m.applied.as_ref().is_some_and(|a| a.copies == wanted && is_fresh(a)))
    }

    /// Whether a set of the newest revision was put back lately.
    fn has_failed(&self, group: &GroupKey, revisions: &Revisions) -> bool {
        let now = clock::now();
        let failed = self.remember(group, |m| m.failed.clone());
        let next = revisions.next.as_ref().map(|h| h.digest.as_str());
        failed.is_some_and(|(digest, at)| Some(digest.as_str()) == next && !at.after(AGAIN).passed_for_stopping(now))
    }

    /// Whether a copy that was applied is gone. What was applied a moment ago may not be seen yet.
    fn lacks(&self, group: &GroupKey, survey: &Survey, wanted: &[Value]) -> bool {
        let now = clock::now();
        let fresh =
            self.remember(group, |m| m.applied.as_ref().is_some_and(|a| !a.at.after(SEEN).passed_for_stopping(now)));
        !fresh && missing(&self.cache, group, survey, wanted).is_some()
    }

    async fn keep_gated(&self, group: &GroupKey, namespaces: &[String]) -> Result<(), ApplyError> {
        // Copies carry their gates by construction: the policy is for pods of theirs alone,
        // whatever home's selector matches in a partner's namespace.
        let own = [(GROUP_LABEL.to_owned(), group_label(group))].into();
        let selector = Selector { match_labels: own, ..Selector::default() };
        self.applier(group, false).keep_gated(&self.cache, namespaces, &selector, None).await
    }

    /// `version` is the namespaces' before it: an apply that changes nothing leaves it so.
    async fn write(
        &self,
        group: &GroupKey,
        namespaces: &[String],
        wanted: Vec<Value>,
        version: u64,
    ) -> Result<(), ApplyError> {
        let applier = self.applier(group, false);
        self.keep_gated(group, namespaces).await?;
        applier.apply(&wanted).await?;
        self.remember(group, |m| m.applied = Some(Applied { copies: wanted, version, at: clock::now() }));
        Ok(())
    }

    /// What is held, with the words of whoever refuses what is missing.
    async fn judged(
        &self,
        group: &GroupKey,
        revisions: &Revisions,
        prepared: &Prepared,
        survey: &mut Survey,
    ) -> Verdict {
        let (good, next) = prepared.targets(revisions);
        for workload in roll::short(&next, &survey.live) {
            let refused = self.surveyor().refusal(workload).await;
            if let Some(live) = survey.live.get_mut(&object_of(workload)) {
                live.refused = refused;
            }
        }
        let none = BTreeMap::new();
        let first = roll::look(&Facts { good, next, live: &survey.live, warnings: &none });
        if first.report.reason.is_empty() || !is_unclear(survey, &first) {
            return first;
        }
        let warnings = self.surveyor().warnings(&namespaces_of(&prepared.next)).await;
        tracing::debug!(%group, warnings = warnings.len(), "pods are slow to come");
        roll::look(&Facts { good, next, live: &survey.live, warnings: &warnings })
    }

    async fn carry_out(
        &self,
        group: &GroupKey,
        revisions: &Revisions,
        prepared: &Prepared,
        survey: &Survey,
        verdict: &Verdict,
    ) -> Result<(), ApplyError> {
        let applier = self.applier(group, false);
        for pod in &verdict.renew {
            applier.renew(pod).await?;
        }
        if !verdict.back.is_empty() {
            self.put_sets_back(group, revisions, survey, verdict).await?;
        }
        let Some(next) = revisions.next.as_ref().filter(|_| verdict.arms) else { return Ok(()) };
        if revisions.good.as_ref().is_none_or(|g| g.digest != next.digest) {
            self.store().mark_armed(group, &next.digest).await?;
            let mut armed = revisions.clone();
            armed.arm();
            self.store().trim(group, &armed).await?;
            self.remember(group, |m| m.revisions = Some(armed));
            return Ok(());
        }
        // Once, when the old revision's pods are gone: what no kept revision has goes too.
        let pruned = self.remember(group, |m| m.pruned.replace(next.digest.clone()));
        if pruned.as_deref() == Some(next.digest.as_str()) {
            return Ok(());
        }
        let all = || revisions.all().filter(|h| h.digest != next.digest);
        let others: BTreeSet<String> = all().flat_map(|h| h.bundle.objects.iter().map(object_of)).collect();
        let objects = prepared.next.iter().map(object_of).chain(others).collect();
        let keep = Keep { objects, pruned: Some(next.bundle.pruned.iter().cloned().collect()) };
        // A namespace that has left the group keeps nothing of it.
        let (own, left): (Vec<String>, Vec<String>) =
            revisions.namespaces().into_iter().partition(|n| next.bundle.spec.namespaces.contains(n));
        applier.prune(&own, &keep).await?;
        applier.prune(&left, &Keep::default()).await?;
        applier.ungate(&left).await
    }

    /// A renewed ordinal does not reach its gate: its set is put back to the good revision.
    async fn put_sets_back(
        &self,
        group: &GroupKey,
        revisions: &Revisions,
        survey: &Survey,
        verdict: &Verdict,
    ) -> Result<(), ApplyError> {
        let Some(next) = &revisions.next else { return Ok(()) };
        tracing::warn!(%group, sets = ?verdict.back, "a renewed pod does not reach its gate: put back");
        self.remember(group, |m| (m.failed, m.applied) = (Some((next.digest.clone(), clock::now())), None));
        let applier = self.applier(group, false);
        for live in verdict.back.iter().filter_map(|name| survey.live.get(name)) {
            let template = regent_kinds::stamp::template_of(&live.workload);
            let stuck = |p: &&k8s_openapi::api::core::v1::Pod| {
                made_from(p) == template && !may_run(p) && matches!(stand(p, None), Stand::Stuck(_))
            };
            for pod in live.pods.iter().filter(stuck) {
                applier.renew(pod).await?;
            }
        }
        Ok(())
    }
}

/// Whether a pod says nothing of what is in its way, or that no node takes it.
fn is_unclear(survey: &Survey, verdict: &Verdict) -> bool {
    let coming = survey.live.values().flat_map(|l| &l.pods).any(|p| stand(p, None) == Stand::Coming);
    coming || verdict.report.reason == "NoCapacity"
}

fn namespaces_of(copies: &[Value]) -> Vec<String> {
    let names: BTreeSet<String> = copies.iter().map(|c| text(c, "/metadata/namespace").to_owned()).collect();
    names.into_iter().collect()
}

/// The report with what keeps the newest revision away. It takes nothing from a good revision
/// that is held whole beside it.
fn told(mut report: StandbyReport, trouble: Option<Trouble>, revisions: &Revisions) -> StandbyReport {
    let Some(trouble) = trouble else { return report };
    let next = revisions.next.as_ref().map(|h| h.digest.clone());
    let beside = revisions.good.as_ref().map(|h| &h.digest) != next.as_ref();
    let (state, reason, message) = trouble.tell();
    (report.reason, report.message) = (reason, message);
    if !(beside && report.state == StandbyState::Armed) {
        report.state = state;
    }
    if beside && revisions.good.is_some() {
        report.next = next;
    } else if report.revision.is_empty() {
        report.revision = next.unwrap_or_default();
    }
    report
}

/// What a person should know of a revision that is not home's own.
fn carried(amended: &Amended) -> String {
    format!(
        "held is home's revision {} with what people changed at {} in {} places (`kubectl regent differences`)",
        shortened(&amended.digest, SHORT),
        amended.by,
        amended.places
    )
}
