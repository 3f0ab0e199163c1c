//! Reads a group's objects at home, out of the cache.

use std::ops::Range;
use std::sync::Arc;

use kube::api::{Api, DynamicObject, ListParams};
use kube::core::{ApiResource, GroupVersionKind};
use regent_api::FailoverGroupSpec;
use regent_core::ids::GroupKey;
use regent_kinds::object::labels;
use regent_kinds::release::{Release, at_home, release};
use regent_kinds::report::StandbyReport;
use regent_kinds::rest::REST;
use regent_kinds::select::Listing;
use serde_json::Value;

use crate::cache::{Cache, Kind, Unread};
use crate::objects::{ObjectError, bounded};

/// The API of one kind in one namespace.
pub fn api_of(client: &kube::Client, api_version: &str, kind: &str, namespace: &str) -> Api<DynamicObject> {
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind));
    Api::namespaced_with(client.clone(), namespace, &resource)
}

/// All objects of a kind, each with its kind and API version, which lists leave out.
pub async fn list(
    client: &kube::Client,
    (api_version, kind): (&str, &str),
    namespace: &str,
    params: &ListParams,
) -> Result<Vec<Value>, ObjectError> {
    let object = format!("{kind}s in namespace {namespace}");
    let items = bounded(&object, api_of(client, api_version, kind, namespace).list(params)).await?.items;
    let named = |item: DynamicObject| {
        let mut value = serde_json::to_value(item).unwrap_or_default();
        if let Value::Object(map) = &mut value {
            map.insert("apiVersion".into(), api_version.into());
            map.insert("kind".into(), kind.into());
        }
        value
    };
    Ok(items.into_iter().map(named).collect())
}

/// What a group at home can be made of, and what of it stays there.
pub static KINDS: [Kind; STAYS + REST.len()] = {
    let mut kinds = [PODS; STAYS + REST.len()];
    kinds[0] = PODS;
    kinds[1] = REPLICA_SETS;
    kinds[2] = WORKLOADS[0];
    kinds[3] = WORKLOADS[1];
    kinds[4] = Kind::whole("v1", "Service");
    kinds[5] = Kind::whole("v1", "ConfigMap");
    kinds[6] = Kind::whole("v1", "Secret");
    kinds[7] = Kind::whole("v1", "ServiceAccount");
    kinds[8] = GATED_PODS;
    let mut i = 0;
    while i < REST.len() {
        kinds[STAYS + i] = Kind::whole(REST[i].0, REST[i].1);
        i += 1;
    }
    kinds
};
/// Where the kinds that stay at home begin.
const STAYS: usize = 9;
/// Which pods of a namespace get a gate: what Regent itself writes at home.
pub const GATED_PODS: Kind = Kind::whole("regent.dev/v1alpha1", "GatedPods");
/// Pods, with what they run and how they stand.
pub const PODS: Kind = Kind::whole("v1", "Pod");
/// What makes pods of a group.
pub const WORKLOADS: [Kind; 2] = [Kind::whole("apps/v1", "Deployment"), Kind::whole("apps/v1", "StatefulSet")];
/// ReplicaSets say whose their pods are, and nothing else.
const REPLICA_SETS: Kind = Kind::metadata("apps/v1", "ReplicaSet");

/// Captures a group as it is now, and how it runs. `pruned` is what a person has said is gone for
/// good. None while its namespaces are listed for the first time.
pub fn capture(
    cache: &Cache,
    group: &GroupKey,
    spec: &FailoverGroupSpec,
    pruned: &[String],
) -> Result<Option<(Release, StandbyReport)>, Arc<ObjectError>> {
    let mut listings = Vec::new();
    for namespace in &spec.namespaces {
        match listing(cache, spec, namespace) {
            Ok(listing) => listings.push(listing),
            Err(Unread::Listing) => return Ok(None),
            Err(Unread::Refused(error)) => return Err(error),
        }
    }
    Ok(Some((release(group, spec, pruned, &listings), at_home(spec, &listings))))
}

fn listing(cache: &Cache, spec: &FailoverGroupSpec, namespace: &str) -> Result<Listing, Unread> {
    let of = |range: Range<usize>| -> Result<Vec<Value>, Unread> {
        let mut found = Vec::new();
        for kind in &KINDS[range] {
            found.extend(cache.read(namespace, kind)?.iter().map(|o| Value::clone(o)));
        }
        Ok(found)
    };
    let mut pods = of(0..1)?;
    pods.retain(|p| spec.selector.matches(&labels(p, "/metadata/labels")));
    let (mut rest, mut notices) = (Vec::new(), Vec::new());
    for kind in &KINDS[STAYS..] {
        match cache.read(namespace, kind) {
            Ok(found) => rest.extend(found.iter().map(|o| Value::clone(o))),
            Err(Unread::Refused(e)) if e.is_not_found() => notices
                .push(format!("{} is no kind of this cluster, so none of namespace {namespace} is named", kind.kind)),
            Err(Unread::Refused(_)) => notices.push(format!(
                "{} objects of namespace {namespace} may not be listed, so none is named that stays at home: `kubectl regent home prepare --namespace {namespace} | kubectl apply -f -`",
                kind.kind
            )),
            Err(Unread::Listing) => return Err(Unread::Listing),
        }
    }
    Ok(Listing {
        replica_sets: of(1..2)?,
        workloads: of(2..4)?,
        services: of(4..5)?,
        others: of(5..8)?,
        rest,
        pods,
        notices,
    })
}
