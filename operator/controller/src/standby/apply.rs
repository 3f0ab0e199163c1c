//! Makes and removes a standby's copies, and never touches what isn't Regent's.

use std::collections::BTreeSet;

use kube::api::{Api, DeleteParams, DynamicObject, ListParams, ObjectMeta, Patch, PatchParams, PropagationPolicy};
use regent_api::{FIELD_MANAGER, FailoverGroupSpec, GROUP_LABEL, GatedPods, GatedPodsSpec, group_label, object_name};
use regent_core::ids::GroupKey;
use serde_json::Value;

use crate::mirror::bundle::{KINDS, object_of, text};
use crate::mirror::capture::{api_of, list};
use crate::objects::{ObjectError, bounded};

/// Why copies can't be made; `reason` is for the report.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// An object of that name is somebody else's.
    #[error(
        "{object} exists already and is not Regent's: it is left alone, and the standby is not ready; remove or rename it, or rename home's"
    )]
    NameTaken {
        /// The object.
        object: String,
    },
    /// The partner has not let Regent in.
    #[error(
        "namespace {namespace} is missing or closed to Regent ({error}); apply what `kubectl regent standby prepare --namespace {namespace}` prints"
    )]
    NotPrepared {
        /// The namespace.
        namespace: String,
        /// What the API server said.
        error: ObjectError,
    },
    /// The API server refuses the object.
    #[error("{object} is refused here: {error}")]
    Refused {
        /// The object.
        object: String,
        /// What the API server said.
        error: ObjectError,
    },
    /// The API server can't be asked.
    #[error(transparent)]
    Object(#[from] ObjectError),
}

impl ApplyError {
    /// One word for the report.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::NameTaken { .. } => "NameTaken",
            Self::NotPrepared { .. } => "NotPrepared",
            Self::Refused { .. } => "Refused",
            Self::Object(_) => "ApiServer",
        }
    }

    fn of(error: ObjectError, object: &str, namespace: &str) -> Self {
        if error.is_forbidden() || error.is_not_found() {
            Self::NotPrepared { namespace: namespace.to_owned(), error }
        } else if error.is_invalid() {
            Self::Refused { object: object.to_owned(), error }
        } else {
            Self::Object(error)
        }
    }
}

/// Makes copies.
#[derive(Clone)]
pub struct Applier {
    /// This site's API server.
    pub client: kube::Client,
}

impl Applier {
    fn api(&self, object: &Value) -> Api<DynamicObject> {
        api_of(&self.client, text(object, "/apiVersion"), text(object, "/kind"), text(object, "/metadata/namespace"))
    }

    /// Says which pods of these namespaces get a gate. `owner` has the objects removed with it.
    pub async fn gate_pods(
        &self,
        group: &GroupKey,
        spec: &FailoverGroupSpec,
        owner: Option<&k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference>,
    ) -> Result<(), ApplyError> {
        let name = object_name(group);
        for namespace in &spec.namespaces {
            let mut gated =
                GatedPods::new(&name, GatedPodsSpec { group: group.to_string(), selector: spec.selector.clone() });
            gated.metadata = ObjectMeta {
                labels: Some([(GROUP_LABEL.to_owned(), group_label(group))].into()),
                owner_references: owner.map(|o| vec![o.clone()]),
                ..gated.metadata
            };
            let api: Api<GatedPods> = Api::namespaced(self.client.clone(), namespace);
            let params = PatchParams::apply(FIELD_MANAGER).force();
            let object = format!("GatedPods {namespace}/{name}");
            let applied = bounded(&object, api.patch(&name, &params, &Patch::Apply(&gated))).await;
            applied.map_err(|e| ApplyError::of(e, &object, namespace))?;
        }
        Ok(())
    }

    /// Applies copies in their order, if none of their names is somebody else's. What
    /// can't be changed in place is made anew while `may_remake` says that it doesn't run.
    pub async fn apply(
        &self,
        group: &GroupKey,
        copies: &[Value],
        may_remake: impl Fn() -> bool,
    ) -> Result<(), ApplyError> {
        let label = group_label(group);
        let mut ours = Vec::new();
        for copy in copies {
            let (object, namespace) = (object_of(copy), text(copy, "/metadata/namespace"));
            let found = bounded(&object, self.api(copy).get_opt(text(copy, "/metadata/name"))).await;
            let found = found.map_err(|e| ApplyError::of(e, &object, namespace))?;
            if found
                .as_ref()
                .is_some_and(|o| o.metadata.labels.as_ref().and_then(|l| l.get(GROUP_LABEL)) != Some(&label))
            {
                return Err(ApplyError::NameTaken { object });
            }
            ours.push(found.is_some());
        }
        for (copy, is_there) in copies.iter().zip(ours) {
            self.apply_one(copy, || is_there && may_remake()).await?;
        }
        Ok(())
    }

    async fn apply_one(&self, copy: &Value, may_remake: impl Fn() -> bool) -> Result<(), ApplyError> {
        let (object, namespace, name) =
            (object_of(copy), text(copy, "/metadata/namespace"), text(copy, "/metadata/name"));
        let params = PatchParams::apply(FIELD_MANAGER).force();
        let api = self.api(copy);
        match bounded(&object, api.patch(name, &params, &Patch::Apply(copy))).await {
            Ok(_) => Ok(()),
            Err(e) if e.is_invalid() && may_remake() => {
                tracing::info!("{object} is made anew: {e}");
                let removal =
                    DeleteParams { propagation_policy: Some(PropagationPolicy::Background), ..DeleteParams::default() };
                bounded(&object, api.delete(name, &removal)).await?;
                let applied = bounded(&object, api.patch(name, &params, &Patch::Apply(copy))).await;
                applied.map(drop).map_err(|e| ApplyError::of(e, &object, namespace))
            }
            Err(e) => Err(ApplyError::of(e, &object, namespace)),
        }
    }

    /// Removes copies that are not wanted: those that carry the group's label and are
    /// none of `wanted`.
    pub async fn prune(&self, group: &GroupKey, namespaces: &[String], wanted: &[Value]) -> Result<(), ApplyError> {
        let wanted: BTreeSet<String> = wanted.iter().map(object_of).collect();
        let params = ListParams::default().labels(&format!("{GROUP_LABEL}={}", group_label(group)));
        for namespace in namespaces {
            // Pods' makers go before what their pods need.
            for kind in KINDS.into_iter().rev() {
                let found = list(&self.client, kind, namespace, &params).await;
                let found = found.map_err(|e| ApplyError::of(e, kind.1, namespace))?;
                for object in found.iter().filter(|o| !wanted.contains(&object_of(o))) {
                    // Made by a controller for one of our objects: goes with that.
                    if object.pointer("/metadata/ownerReferences/0").is_some() {
                        continue;
                    }
                    tracing::info!("{} has left the group's bundle and is removed", object_of(object));
                    let name = text(object, "/metadata/name");
                    let removal = DeleteParams {
                        propagation_policy: Some(PropagationPolicy::Background),
                        ..DeleteParams::default()
                    };
                    match bounded(&object_of(object), self.api(object).delete(name, &removal)).await {
                        Err(e) if !e.is_not_found() => return Err(e.into()),
                        _ => {}
                    }
                }
            }
        }
        Ok(())
    }

    /// Removes every copy of a group, and lets its namespaces' pods start without gates.
    pub async fn remove_all(&self, group: &GroupKey, namespaces: &[String]) -> Result<(), ApplyError> {
        self.prune(group, namespaces, &[]).await?;
        let name = object_name(group);
        for namespace in namespaces {
            let api: Api<GatedPods> = Api::namespaced(self.client.clone(), namespace);
            match bounded(&format!("GatedPods {namespace}/{name}"), api.delete(&name, &DeleteParams::default())).await {
                Err(e) if !e.is_not_found() => return Err(e.into()),
                _ => {}
            }
        }
        Ok(())
    }
}
