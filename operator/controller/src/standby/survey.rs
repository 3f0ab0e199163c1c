//! What of a group lives at this site now: read, and changed in nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use k8s_openapi::api::core::v1::{Namespace, PersistentVolumeClaim, Pod};
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::ResourceExt;
use kube::api::{Api, ListParams, PostParams};
use regent_api::{GROUP_LABEL, GROUPS_ANNOTATION, group_label, group_selector};
use regent_core::ids::GroupKey;
use regent_kinds::object::{items, labels, object_of, text};
use regent_kinds::pods::{Live, Obstacle, Warnings, may_run, owned};
use serde_json::{Value, json};

use super::apply::ApplyError;
use super::store::Revisions;
use crate::cache::{Cache, Kind, Unread};
use crate::mirror::capture::{GATED_PODS, list};
use crate::objects::{ObjectError, bounded};

/// Pods that are named when some may be running.
const NAMED: usize = 5;

/// What lives here.
#[derive(Debug, Clone, Default)]
pub struct Survey {
    /// The copies of workloads, with their pods.
    pub live: BTreeMap<String, Live>,
}

impl Survey {
    /// Pods of the group here that may be running: nothing that they come from is deleted or
    /// made anew (I4).
    pub fn occupied(&self) -> Vec<String> {
        let pods = self.live.values().flat_map(|l| &l.pods).filter(|p| may_run(p));
        pods.map(|p| format!("{}/{}", p.namespace().unwrap_or_default(), p.name_any())).take(NAMED).collect()
    }
}

/// What is watched where copies are held: whole where it tells how they stand, and of what their
/// pods need that it is there.
pub static HELD: [Kind; 9] = [
    Kind::whole("v1", "Pod"),
    Kind::metadata("apps/v1", "ReplicaSet"),
    Kind::whole("apps/v1", "Deployment").labelled(GROUP_LABEL),
    Kind::whole("apps/v1", "StatefulSet").labelled(GROUP_LABEL),
    Kind::metadata("v1", "Service").labelled(GROUP_LABEL),
    Kind::metadata("v1", "ConfigMap").labelled(GROUP_LABEL),
    Kind::metadata("v1", "Secret").labelled(GROUP_LABEL),
    Kind::metadata("v1", "ServiceAccount").labelled(GROUP_LABEL),
    GATED_PODS,
];

/// What of a group lives here, out of the cache: the same as [`Surveyor::survey`], a moment
/// behind it. None while a namespace is listed for the first time.
pub fn watched(cache: &Cache, group: &GroupKey, namespaces: &[String]) -> Option<Survey> {
    let mut survey = Survey::default();
    for namespace in namespaces {
        let read = |range: Range<usize>| -> Result<Vec<Value>, Unread> {
            let mut found = Vec::new();
            for kind in &HELD[range] {
                found.extend(cache.read(namespace, kind)?.iter().map(|o| Value::clone(o)));
            }
            Ok(found)
        };
        match (read(0..1), read(1..2), read(2..4)) {
            (Ok(pods), Ok(replica_sets), Ok(mut workloads)) => {
                workloads.retain(|w| is_copy(w, group));
                let pods: Vec<Pod> = pods.into_iter().filter_map(|p| serde_json::from_value(p).ok()).collect();
                survey.live.extend(owned(workloads, &replica_sets, &pods));
            }
            (Err(Unread::Listing), ..) | (_, Err(Unread::Listing), _) | (.., Err(Unread::Listing)) => return None,
            // Missing or closed: nothing of the group is there.
            _ => {}
        }
    }
    Some(survey)
}

fn is_copy(object: &Value, group: &GroupKey) -> bool {
    labels(object, "/metadata/labels").get(GROUP_LABEL) == Some(&group_label(group))
}

/// A copy that is not here, although it was applied: somebody has deleted it.
pub fn missing<'a>(cache: &Cache, group: &GroupKey, survey: &Survey, copies: &'a [Value]) -> Option<&'a Value> {
    let mut here: BTreeSet<String> = survey.live.keys().cloned().collect();
    let namespaces: BTreeSet<&str> = copies.iter().map(|c| text(c, "/metadata/namespace")).collect();
    for namespace in namespaces {
        for found in HELD[4..8].iter().filter_map(|kind| cache.read(namespace, kind).ok()) {
            here.extend(found.iter().filter(|o| is_copy(o, group)).map(|o| object_of(o)));
        }
    }
    copies.iter().find(|c| !here.contains(&object_of(c)))
}

/// Reads what of a group lives here.
#[derive(Clone)]
pub struct Surveyor {
    /// This site's API server.
    pub client: kube::Client,
}

impl Surveyor {
    /// The copies of workloads in these namespaces, with their pods. A namespace that is missing
    /// or closed has none.
    pub async fn survey(&self, group: &GroupKey, namespaces: &[String]) -> Result<Survey, ObjectError> {
        let mut survey = Survey::default();
        for namespace in namespaces {
            match self.workloads(group, namespace, &mut survey).await {
                Err(e) if !e.is_forbidden() && !e.is_not_found() => return Err(e),
                _ => {}
            }
        }
        Ok(survey)
    }

    async fn workloads(&self, group: &GroupKey, namespace: &str, survey: &mut Survey) -> Result<(), ObjectError> {
        let ours = ListParams::default().labels(&group_selector(group));
        let all = ListParams::default();
        let of = |kind| list(&self.client, kind, namespace, &ours);
        let (deployments, sets, replica_sets, pods) = tokio::try_join!(
            of(("apps/v1", "Deployment")),
            of(("apps/v1", "StatefulSet")),
            list(&self.client, ("apps/v1", "ReplicaSet"), namespace, &all),
            self.pods(namespace),
        )?;
        let workloads = deployments.into_iter().chain(sets).collect();
        survey.live.extend(owned(workloads, &replica_sets, &pods));
        Ok(())
    }

    async fn pods(&self, namespace: &str) -> Result<Vec<Pod>, ObjectError> {
        let api: Api<Pod> = Api::namespaced(self.client.clone(), namespace);
        Ok(bounded(&format!("pods in namespace {namespace}"), api.list(&ListParams::default())).await?.items)
    }

    /// The newest warnings about pods and claims, for what these don't say themselves: a volume
    /// that can't be mounted, and a class that is missing, are told by an Event alone.
    pub async fn warnings(&self, namespaces: &[String]) -> Warnings {
        let mut found: BTreeMap<String, (Option<MicroTime>, Obstacle)> = BTreeMap::new();
        let params = ListParams::default().fields("type=Warning").limit(500);
        for namespace in namespaces {
            let api: Api<Event> = Api::namespaced(self.client.clone(), namespace);
            let Ok(events) = bounded("Events", api.list(&params)).await else { continue };
            for event in events.items {
                let Some((kind, name)) = event.regarding.and_then(|r| Some((r.kind?, r.name?))) else { continue };
                if !matches!(kind.as_str(), "Pod" | "PersistentVolumeClaim") {
                    continue;
                }
                let at = event.series.map(|s| s.last_observed_time).or(event.event_time);
                let at = at.or(event.deprecated_last_timestamp.map(|t| MicroTime(t.0)));
                let reason = event.reason.unwrap_or_else(|| "Warning".into());
                let about = format!("{kind} {namespace}/{name}");
                let message = format!("{about}: {}", event.note.unwrap_or_default().trim());
                if found.get(&about).is_none_or(|(before, _)| before < &at) {
                    found.insert(about, (at, Obstacle { reason, message }));
                }
            }
        }
        found.into_iter().map(|(about, (_, obstacle))| (about, obstacle)).collect()
    }

    /// Why the API server would refuse a pod of a workload, in its own words: policies, quotas
    /// and classes speak when a pod is made, and not to whoever makes the workload.
    pub async fn refusal(&self, workload: &Value) -> Option<String> {
        let namespace = text(workload, "/metadata/namespace");
        let template = workload.pointer("/spec/template")?;
        let mut metadata = template.get("metadata").cloned().unwrap_or_else(|| json!({}));
        metadata["namespace"] = namespace.into();
        // Always the same name, so that the same refusal has the same words.
        metadata["name"] = format!("{}-0", text(workload, "/metadata/name")).into();
        let mut spec = template.get("spec").cloned().unwrap_or_default();
        // Claims of a set are made with its pods: here only the pod is asked about.
        let claims = workload.pointer("/spec/volumeClaimTemplates").and_then(Value::as_array);
        let volumes = claims.into_iter().flatten().map(|c| {
            let name = text(c, "/metadata/name");
            json!({ "name": name, "persistentVolumeClaim": { "claimName": format!("{name}-{}-0", text(workload, "/metadata/name")) } })
        });
        let volumes: Vec<Value> = volumes.collect();
        if let (Some(list), false) = (spec.pointer_mut("/volumes").and_then(Value::as_array_mut), volumes.is_empty()) {
            list.extend(volumes);
        }
        let pod = json!({ "apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec });
        let pod: Pod = match serde_json::from_value(pod) {
            Ok(pod) => pod,
            Err(e) => return Some(e.to_string()),
        };
        let api: Api<Pod> = Api::namespaced(self.client.clone(), namespace);
        let params = PostParams { dry_run: true, ..PostParams::default() };
        match bounded(&format!("a pod of {}", object_of(workload)), api.create(&params, &pod)).await {
            Err(e) if e.is_refusal() => Some(e.said()),
            Ok(_) | Err(_) => None,
        }
    }

    /// Claims of the group's sets: they hold data, and stay whatever becomes of the copies.
    pub async fn claims(&self, revisions: &Revisions) -> Vec<String> {
        let mut kept = BTreeSet::new();
        let sets = revisions.all().flat_map(|h| &h.bundle.objects).filter(|o| text(o, "/kind") == "StatefulSet");
        for set in sets {
            let (namespace, name) = (text(set, "/metadata/namespace"), text(set, "/metadata/name"));
            let api: Api<PersistentVolumeClaim> = Api::namespaced(self.client.clone(), namespace);
            let listed =
                bounded(&format!("claims in namespace {namespace}"), api.list_metadata(&ListParams::default())).await;
            let Ok(found) = listed else { continue };
            let templates: Vec<String> = items(set, "/spec/volumeClaimTemplates")
                .map(|c| format!("{}-{name}-", text(c, "/metadata/name")))
                .collect();
            let is_its = |n: &String| templates.iter().any(|t| n.starts_with(t));
            let names = found.items.iter().map(ResourceExt::name_any).filter(is_its);
            kept.extend(names.map(|n| format!("PersistentVolumeClaim {namespace}/{n} stays: it holds data")));
        }
        kept.into_iter().collect()
    }

    /// Whether the partner has let this group into a namespace.
    pub async fn admitted(&self, group: &GroupKey, namespace: &str) -> Result<(), ApplyError> {
        let api: Api<Namespace> = Api::all(self.client.clone());
        let found = bounded(&format!("Namespace {namespace}"), api.get(namespace)).await;
        let found = found.map_err(|error| ApplyError::NotPrepared {
            namespace: namespace.to_owned(),
            group: group.clone(),
            error,
        })?;
        if found.metadata.deletion_timestamp.is_some() {
            return Err(ApplyError::Terminating { namespace: namespace.to_owned() });
        }
        let allowed = found.annotations().get(GROUPS_ANNOTATION).map(String::as_str).unwrap_or_default();
        if allowed.split(',').any(|g| g.trim() == group.to_string()) {
            return Ok(());
        }
        Err(ApplyError::NotAdmitted { namespace: namespace.to_owned(), group: group.clone() })
    }
}
