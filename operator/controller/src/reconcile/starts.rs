//! Says when a group's first container runs, and when all of its pods are ready, after
//! this site has got a certificate for a new epoch.
//!
//! Both replicas watch and say so: one of them may have died with the old holder. The
//! start of a container is reported in whole seconds by the kubelet; `boot_ns` is when
//! this process saw it, `detail.started_at` what the kubelet says.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use regent_api::{FailoverGroup, FailoverGroupSpec};
use regent_core::event::{Actor, Event, names};
use regent_core::ids::{Epoch, GroupKey};
use regent_kinds::object::labels;
use regent_kinds::pods::{is_gone, is_ready};
use regent_kinds::roll::wants;
use regent_lease::contender::ContenderEvent;
use regent_shell::{clock, event};
use tokio::sync::broadcast::error::RecvError;
use tokio_util::sync::CancellationToken;

use super::pods::name_of;
use super::{Reconciler, pods};
use crate::cache::Cache;
use crate::mirror::capture::{PODS, WORKLOADS};

/// A group that isn't ready by then won't be told of.
const PATIENCE: Duration = Duration::from_secs(600);
/// Kubelets write start times in whole seconds, by clocks of their own.
const SLACK: Duration = Duration::from_secs(2);

/// When one of the pod's programs began to run, as the kubelet says.
pub fn started_at(pod: &Pod) -> Option<Timestamp> {
    let statuses = pod.status.as_ref()?.container_statuses.as_ref()?;
    let running = statuses.iter().filter_map(|s| s.state.as_ref()?.running.as_ref()?.started_at.as_ref());
    running.map(|t| t.0).min()
}

/// What has been seen of a group's start.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Progress {
    first: bool,
    all: bool,
}

/// One thing to say.
#[derive(Debug, PartialEq, Eq)]
pub enum Said {
    /// The first container runs: pod and the kubelet's time.
    First(String, Timestamp),
    /// All pods are ready: how many.
    All(usize),
}

impl Progress {
    /// What the pods as they are now add. `wanted`: how many there should be, if that is
    /// known. `since`: no start before it counts.
    pub fn look(&mut self, pods: &BTreeMap<String, Pod>, wanted: Option<usize>, since: Timestamp) -> Vec<Said> {
        let mut said = Vec::new();
        let alive: Vec<&Pod> = pods.values().filter(|p| !is_gone(p)).collect();
        let fresh = |p: &&Pod| started_at(p).filter(|t| *t >= since).map(|t| (name_of(p), t));
        if !self.first
            && let Some((pod, at)) = alive.iter().filter_map(fresh).min_by_key(|(_, at)| *at)
        {
            self.first = true;
            said.push(Said::First(pod, at));
        }
        let ready = alive.iter().filter(|p| is_ready(p)).count();
        let complete = wanted.is_some_and(|wanted| ready >= wanted.max(1));
        if self.first && !self.all && complete && ready == alive.len() {
            self.all = true;
            said.push(Said::All(ready));
        }
        said
    }
}

impl Reconciler {
    /// Follows certificates for new epochs, until cancelled.
    pub(super) async fn tell_starts(self: std::sync::Arc<Self>, stop: CancellationToken) {
        let mut facts = self.shell.facts();
        let mut running: BTreeMap<GroupKey, (Epoch, CancellationToken)> = BTreeMap::new();
        loop {
            let fact = tokio::select! {
                () = stop.cancelled() => return,
                fact = facts.recv() => fact,
            };
            match fact {
                Ok(ContenderEvent::Certificate { group, epoch, .. }) => {
                    if running.get(&group).is_some_and(|(before, _)| *before >= epoch) {
                        continue;
                    }
                    let token = stop.child_token();
                    if let Some((_, old)) = running.insert(group.clone(), (epoch, token.clone())) {
                        old.cancel();
                    }
                    let since = Timestamp::now() - SLACK;
                    let this = self.clone();
                    tokio::spawn(async move {
                        tokio::select! {
                            () = token.cancelled() => {}
                            done = tokio::time::timeout(PATIENCE, this.tell_start(&group, epoch, since)) => {
                                if done.is_err() {
                                    tracing::warn!(%group, %epoch, "not all pods were ready within {} s", PATIENCE.as_secs());
                                }
                            }
                        }
                    });
                }
                Ok(ContenderEvent::Lost { group, .. }) => {
                    if let Some((_, token)) = running.get(&group) {
                        token.cancel();
                    }
                }
                Ok(_) | Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => return,
            }
        }
    }

    /// Follows one group's pods until all are ready.
    async fn tell_start(&self, group: &GroupKey, epoch: Epoch, since: Timestamp) {
        let name = FailoverGroup::name_at(group, &self.context.site);
        let Some(object) = self.groups.borrow().get(&name).cloned() else { return };
        let spec = &object.spec;
        let cache = if group.home == self.context.site { &self.cache } else { &self.standby.cache };
        let mut changes = cache.changes();
        let mut progress = Progress::default();
        let mut seen = None;
        loop {
            let version = cache.version(&spec.namespaces, &[PODS]);
            if version.is_some() && version != seen {
                seen = version;
                let pods = pods::alive(cache, spec).unwrap_or_default();
                let pods = pods.into_iter().map(|pod| (name_of(&pod), pod)).collect();
                for said in progress.look(&pods, wanted(cache, spec), since) {
                    self.say(group, epoch, said);
                }
            }
            if progress.all || changes.changed().await.is_err() {
                return;
            }
        }
    }

    fn say(&self, group: &GroupKey, epoch: Epoch, said: Said) {
        let replica = std::env::var("POD_NAME").unwrap_or_default();
        let (name, detail) = match said {
            Said::First(pod, at) => (
                names::FIRST_STARTED,
                serde_json::json!({ "pod": pod, "started_at": at.to_string(), "replica": replica }),
            ),
            Said::All(pods) => (names::ALL_READY, serde_json::json!({ "pods": pods, "replica": replica })),
        };
        event::emit(&Event {
            boot_ns: clock::now().boot_ns,
            site: self.context.site.clone(),
            actor: Actor::Operator,
            event: name.to_owned(),
            group: Some(group.clone()),
            epoch: Some(epoch),
            node: None,
            detail,
        });
    }
}

/// How many pods the group's workloads want here; none while that can't be read.
fn wanted(cache: &Cache, spec: &FailoverGroupSpec) -> Option<usize> {
    let mut wanted = 0usize;
    for namespace in &spec.namespaces {
        for kind in &WORKLOADS {
            for workload in cache.read(namespace, kind).ok()? {
                if spec.selector.matches(&labels(&workload, "/spec/template/metadata/labels")) {
                    wanted = wanted.saturating_add(usize::try_from(wants(&workload)).unwrap_or(usize::MAX));
                }
            }
        }
    }
    Some(wanted)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(name: &str, started: Option<&str>, ready: bool) -> (String, Pod) {
        let state = started.map_or(json!({ "waiting": {} }), |at| json!({ "running": { "startedAt": at } }));
        let pod: Pod = serde_json::from_value(json!({
            "metadata": { "name": name, "namespace": "shop" },
            "status": { "conditions": [{ "type": "Ready", "status": if ready { "True" } else { "False" } }],
                        "containerStatuses": [{ "name": "c", "image": "", "imageID": "", "ready": ready, "restartCount": 0, "state": state }] } }))
        .unwrap();
        (name_of(&pod), pod)
    }

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn the_first_start_and_the_last_readiness_are_each_told_once() {
        let since = at("2026-01-01T00:00:10Z");
        let mut progress = Progress::default();
        let mut pods = BTreeMap::from([pod("a", None, false), pod("b", None, false)]);
        assert_eq!(progress.look(&pods, Some(2), since), vec![]);
        pods.extend([pod("b", Some("2026-01-01T00:00:11Z"), false)]);
        assert_eq!(
            progress.look(&pods, Some(2), since),
            vec![Said::First("shop/b".into(), at("2026-01-01T00:00:11Z"))]
        );
        pods.extend([pod("a", Some("2026-01-01T00:00:12Z"), true)]);
        assert_eq!(progress.look(&pods, Some(2), since), vec![]);
        pods.extend([pod("b", Some("2026-01-01T00:00:11Z"), true)]);
        assert_eq!(progress.look(&pods, Some(2), since), vec![Said::All(2)]);
        assert_eq!(progress.look(&pods, Some(2), since), vec![]);
    }

    #[test]
    fn what_ran_before_the_certificate_is_no_start() {
        let mut progress = Progress::default();
        let pods = BTreeMap::from([pod("a", Some("2026-01-01T00:00:00Z"), true)]);
        assert_eq!(progress.look(&pods, Some(1), at("2026-01-01T00:00:10Z")), vec![]);
    }

    #[test]
    fn not_all_are_ready_while_pods_are_missing() {
        let since = at("2026-01-01T00:00:10Z");
        let pods = BTreeMap::from([pod("a", Some("2026-01-01T00:00:11Z"), true)]);
        let mut progress = Progress::default();
        assert_eq!(progress.look(&pods, Some(2), since).len(), 1, "the first start alone");
        assert_eq!(progress.look(&pods, None, since), vec![], "nobody knows how many there should be");
    }
}
