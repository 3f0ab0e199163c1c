//! Reads a group's objects from home's API server.

use kube::api::{Api, DynamicObject, ListParams};
use kube::core::{ApiResource, GroupVersionKind};
use regent_api::FailoverGroupSpec;
use regent_core::ids::GroupKey;
use serde_json::Value;
use std::collections::BTreeSet;

use super::bundle::Bundle;
use super::select::{Listing, select};
use super::strip::strip;
use crate::objects::{ObjectError, bounded};

/// What was captured.
#[derive(Debug, Clone, PartialEq)]
pub struct Capture {
    /// The bundle.
    pub bundle: Bundle,
    /// What belongs to the group and is of no mirrored kind: `Kind NAMESPACE/NAME`.
    pub unknown: BTreeSet<String>,
}

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

/// Captures a group as it is now.
pub async fn capture(
    client: &kube::Client,
    group: &GroupKey,
    spec: &FailoverGroupSpec,
) -> Result<Capture, ObjectError> {
    let (mut objects, mut unknown) = (Vec::new(), BTreeSet::new());
    let all = ListParams::default();
    let pods = ListParams::default().labels(&spec.selector.to_label_selector());
    for namespace in &spec.namespaces {
        let kind = |version, kind| list(client, (version, kind), namespace, &all);
        let (deployments, sets, services, maps, secrets, accounts, pods) = tokio::try_join!(
            kind("apps/v1", "Deployment"),
            kind("apps/v1", "StatefulSet"),
            kind("v1", "Service"),
            kind("v1", "ConfigMap"),
            kind("v1", "Secret"),
            kind("v1", "ServiceAccount"),
            list(client, ("v1", "Pod"), namespace, &pods),
        )?;
        let listing = Listing {
            workloads: deployments.into_iter().chain(sets).collect(),
            services,
            others: maps.into_iter().chain(secrets).chain(accounts).collect(),
            pods,
        };
        let selected = select(&spec.selector, &listing);
        objects.extend(selected.objects.iter().map(strip));
        unknown.extend(selected.unknown);
    }
    Ok(Capture { bundle: Bundle::new(group.clone(), spec.clone(), objects), unknown })
}
