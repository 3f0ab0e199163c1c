//! Reads a group's objects from home's API server.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use kube::api::{Api, DynamicObject, ListParams};
use kube::core::{ApiResource, GroupVersionKind};
use regent_api::FailoverGroupSpec;
use regent_core::ids::GroupKey;
use regent_core::time::Moment;
use regent_kinds::release::{Release, at_home, release};
use regent_kinds::report::StandbyReport;
use regent_kinds::rest::REST;
use regent_kinds::select::Listing;
use regent_shell::clock;
use serde_json::Value;

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

/// Captures a group as it is now, and how it runs. `pruned` is what a person has said is gone for good.
pub async fn capture(
    client: &kube::Client,
    group: &GroupKey,
    spec: &FailoverGroupSpec,
    pruned: &[String],
    rest: &Rest,
) -> Result<(Release, StandbyReport), ObjectError> {
    let mut listings = Vec::new();
    for namespace in &spec.namespaces {
        listings.push(listing(client, spec, namespace, rest).await?);
    }
    Ok((release(group, spec, pruned, &listings), at_home(spec, &listings)))
}

async fn listing(
    client: &kube::Client,
    spec: &FailoverGroupSpec,
    namespace: &str,
    rest: &Rest,
) -> Result<Listing, ObjectError> {
    let all = ListParams::default();
    let of_group = ListParams::default().labels(&spec.selector.to_label_selector());
    // Pods first, then who owns them: no owner is missed that is younger than its pods' list.
    let pods = list(client, ("v1", "Pod"), namespace, &of_group).await?;
    let replica_sets = list(client, ("apps/v1", "ReplicaSet"), namespace, &all).await?;
    let kind = |version, kind| list(client, (version, kind), namespace, &all);
    let (deployments, sets, services, maps, secrets, accounts) = tokio::try_join!(
        kind("apps/v1", "Deployment"),
        kind("apps/v1", "StatefulSet"),
        kind("v1", "Service"),
        kind("v1", "ConfigMap"),
        kind("v1", "Secret"),
        kind("v1", "ServiceAccount"),
    )?;
    let (rest, notices) = rest.of(client, namespace).await?;
    Ok(Listing {
        workloads: deployments.into_iter().chain(sets).collect(),
        services,
        others: maps.into_iter().chain(secrets).chain(accounts).collect(),
        replica_sets,
        rest,
        pods,
        notices,
    })
}

/// What stays at home is named in the status and enters no bundle: it is listed this often.
const REST_EVERY: Duration = Duration::from_secs(10);

type Listed = (Vec<Value>, Vec<String>);

/// Objects of the kinds that stay at home, by namespace, as they were listed last.
#[derive(Debug, Default)]
pub struct Rest(Mutex<BTreeMap<String, (Listed, Moment)>>);

impl Rest {
    async fn of(&self, client: &kube::Client, namespace: &str) -> Result<Listed, ObjectError> {
        let now = clock::now();
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner).get(namespace).cloned();
        if let Some((listed, at)) = known
            && !at.after(REST_EVERY).passed_for_stopping(now)
        {
            return Ok(listed);
        }
        let listed = rest_of(client, namespace).await?;
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Namespaces of groups that are gone are forgotten.
        all.retain(|_, (_, at)| !at.after(REST_EVERY * 6).passed_for_stopping(now));
        all.insert(namespace.to_owned(), (listed.clone(), now));
        Ok(listed)
    }
}

async fn rest_of(client: &kube::Client, namespace: &str) -> Result<Listed, ObjectError> {
    let all = ListParams::default();
    let (mut rest, mut notices) = (Vec::new(), Vec::new());
    let all = &all;
    let listed = REST.map(|(version, name)| async move { (name, list(client, (version, name), namespace, all).await) });
    for (name, listed) in futures::future::join_all(listed).await {
        match listed {
            Ok(objects) => rest.extend(objects),
            Err(e) if e.is_forbidden() => notices.push(format!(
                "{name} objects of namespace {namespace} may not be listed, so none is named that stays at home: `kubectl regent home prepare --namespace {namespace} | kubectl apply -f -`"
            )),
            Err(e) if e.is_not_found() => {
                notices.push(format!("{name} is no kind of this cluster, so none of namespace {namespace} is named"));
            }
            Err(e) => return Err(e),
        }
    }
    Ok((rest, notices))
}
