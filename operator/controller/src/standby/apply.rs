//! Makes, changes and removes a standby's copies, and never touches what isn't Regent's.
//!
//! A pass over a group can outlive the leadership and the role under which it began, so each
//! write asks again whether it may ([`Permit`]).

use std::collections::BTreeSet;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Namespace, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::ResourceExt;
use kube::api::{Api, DeleteParams, DynamicObject, ListParams, Patch, PatchParams, Preconditions, PropagationPolicy};
use regent_api::{
    FIELD_MANAGER, GATED_LABEL, GROUP_LABEL, GatedPods, GatedPodsSpec, Selector, group_label, group_selector,
    object_name,
};
use regent_core::ids::GroupKey;
use regent_kinds::kind::{KINDS, is_workload};
use regent_kinds::managed::claim;
use regent_kinds::object::{object_of, text};
use serde_json::Value;

use super::survey::Surveyor;
use crate::cache::Cache;
use crate::mirror::capture::{GATED_PODS, api_of, list};
use crate::objects::{ObjectError, bounded};

/// Whether a write may still be made: whoever leads and holds the group can change at any time.
pub type Permit = Arc<dyn Fn() -> bool + Send + Sync>;

/// Why copies can't be made.
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
        "namespace {namespace} is missing or closed to Regent ({}); apply what `kubectl regent standby prepare --namespace {namespace} --group {group}` prints", error.said()
    )]
    NotPrepared {
        /// The namespace.
        namespace: String,
        /// The group.
        group: GroupKey,
        /// What the API server said.
        error: ObjectError,
    },
    /// The partner has let Regent in, but not for this group.
    #[error(
        "namespace {namespace} is not prepared for group {group}: its annotation {} does not name it; apply what `kubectl regent standby prepare --namespace {namespace} --group {group}` prints",
        regent_api::GROUPS_ANNOTATION
    )]
    NotAdmitted {
        /// The namespace.
        namespace: String,
        /// The group.
        group: GroupKey,
    },
    /// The namespace is going away.
    #[error(
        "namespace {namespace} is being deleted here; make it again, as `kubectl regent standby prepare` prints it"
    )]
    Terminating {
        /// The namespace.
        namespace: String,
    },
    /// The API server refuses the object.
    #[error("{object} is refused here: {}", error.said())]
    Refused {
        /// The object.
        object: String,
        /// What the API server said.
        error: ObjectError,
    },
    /// A field can't be changed, and the copy can't be made anew now.
    #[error("{object} can't be changed in place ({}), and is not made anew while pods of it may be running", error.said())]
    Immutable {
        /// The object.
        object: String,
        /// What the API server said.
        error: ObjectError,
    },
    /// Another replica leads, or the group's role here has changed.
    #[error("leadership or the group's role here has changed in the middle of a pass; it is looked at anew")]
    Changed,
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
            Self::NotAdmitted { .. } => "NotAdmitted",
            Self::Terminating { .. } => "Terminating",
            Self::Refused { .. } => "Refused",
            Self::Immutable { .. } => "Immutable",
            Self::Changed => "Preparing",
            Self::Object(_) => "ApiServer",
        }
    }

    /// Whether it is of the moment, and says nothing of the group.
    pub fn is_passing(&self) -> bool {
        matches!(self, Self::Changed | Self::Object(_))
    }

    fn of(error: ObjectError, object: &str, namespace: &str, group: &GroupKey) -> Self {
        if error.is_missing_namespace() || (error.is_forbidden() && error.is_rbac()) {
            Self::NotPrepared { namespace: namespace.to_owned(), group: group.clone(), error }
        } else if error.is_refusal() {
            Self::Refused { object: object.to_owned(), error }
        } else {
            Self::Object(error)
        }
    }
}

/// What is to be kept when copies are removed.
#[derive(Debug, Clone, Default)]
pub struct Keep {
    /// Objects of the kept revisions, as `Kind NAMESPACE/NAME`.
    pub objects: BTreeSet<String>,
    /// Workloads that home no longer has stay, unless a person has said that they go.
    pub pruned: Option<BTreeSet<String>>,
}

impl Keep {
    fn keeps(&self, kind: &str, name: &str) -> bool {
        let unsaid = self.pruned.as_ref().is_some_and(|pruned| !pruned.contains(name));
        self.objects.contains(name) || (is_workload(kind) && unsaid)
    }
}

/// Whether a namespace says already which pods get a gate.
fn is_gated(cache: &Cache, namespace: &str, wanted: &GatedPods) -> bool {
    let found = cache.read(namespace, &GATED_PODS).unwrap_or_default();
    let gated = found.into_iter().filter_map(|o| serde_json::from_value(Arc::unwrap_or_clone(o)).ok());
    let is_same = |o: GatedPods| {
        o.name_any() == wanted.name_any()
            && o.spec == wanted.spec
            && o.metadata.owner_references == wanted.metadata.owner_references
            && wanted.labels().iter().all(|(k, v)| o.labels().get(k) == Some(v))
    };
    gated.into_iter().any(is_same)
}

/// Makes copies.
#[derive(Clone)]
pub struct Applier {
    /// This site's API server.
    pub client: kube::Client,
    /// Whose copies.
    pub group: GroupKey,
    /// Asked before each write.
    pub permit: Permit,
}

impl Applier {
    fn api(&self, object: &Value) -> Api<DynamicObject> {
        api_of(&self.client, text(object, "/apiVersion"), text(object, "/kind"), text(object, "/metadata/namespace"))
    }

    fn permitted(&self) -> Result<(), ApplyError> {
        if (self.permit)() { Ok(()) } else { Err(ApplyError::Changed) }
    }

    /// The object that says which pods of a namespace get a gate. `owner` has it removed with it.
    pub fn gated_pods(&self, selector: &Selector, owner: Option<&OwnerReference>) -> GatedPods {
        let spec = GatedPodsSpec { group: self.group.to_string(), selector: selector.clone() };
        let mut gated = GatedPods::new(&object_name(&self.group), spec);
        gated.metadata.labels = Some([(GROUP_LABEL.to_owned(), group_label(&self.group))].into());
        gated.metadata.owner_references = owner.map(|o| vec![o.clone()]);
        gated
    }

    /// Says which pods of namespaces get a gate.
    pub async fn gate_pods(
        &self,
        namespaces: &[String],
        selector: &Selector,
        owner: Option<&OwnerReference>,
    ) -> Result<(), ApplyError> {
        let (name, gated) = (object_name(&self.group), self.gated_pods(selector, owner));
        for namespace in namespaces {
            self.label_gated(namespace, Some("")).await?;
            let api: Api<GatedPods> = Api::namespaced(self.client.clone(), namespace);
            let params = PatchParams::apply(FIELD_MANAGER).force();
            let object = format!("GatedPods {namespace}/{name}");
            self.permitted()?;
            let applied = bounded(&object, api.patch(&name, &params, &Patch::Apply(&gated))).await;
            applied.map_err(|e| ApplyError::of(e, &object, namespace, &self.group))?;
        }
        Ok(())
    }

    /// The same, and writes only what is not there: `cache` says what is.
    pub async fn keep_gated(
        &self,
        cache: &Cache,
        namespaces: &[String],
        selector: &Selector,
        owner: Option<&OwnerReference>,
    ) -> Result<(), ApplyError> {
        let wanted = self.gated_pods(selector, owner);
        for namespace in namespaces {
            if is_gated(cache, namespace, &wanted) {
                self.label_gated(namespace, Some("")).await?;
            } else {
                self.gate_pods(std::slice::from_ref(namespace), selector, owner).await?;
            }
        }
        Ok(())
    }

    /// Has the gate's policies look into a namespace, or into it no more. Where they don't look they
    /// hold nobody up while an API server that has just started can't tell them their parameters.
    async fn label_gated(&self, namespace: &str, value: Option<&str>) -> Result<(), ApplyError> {
        let api: Api<Namespace> = Api::all(self.client.clone());
        let object = format!("Namespace {namespace}");
        let found = match bounded(&object, api.get(namespace)).await {
            // Not let in there, or no more: nothing of Regent's is left to take away.
            Err(e) if value.is_none() && (e.is_not_found() || e.is_forbidden()) => return Ok(()),
            found => found.map_err(|e| ApplyError::of(e, &object, namespace, &self.group))?,
        };
        if found.labels().contains_key(GATED_LABEL) == value.is_some() {
            return Ok(());
        }
        self.permitted()?;
        let label = serde_json::json!({ "metadata": { "labels": { GATED_LABEL: value } } });
        let patched = bounded(&object, api.patch(namespace, &PatchParams::default(), &Patch::Merge(label))).await;
        patched.map(drop).map_err(|e| ApplyError::of(e, &object, namespace, &self.group))
    }

    /// Applies copies in their order, if none of their names is somebody else's. What can't be
    /// changed in place is made anew if nothing of it may be running.
    pub async fn apply(&self, copies: &[Value]) -> Result<(), ApplyError> {
        let label = group_label(&self.group);
        let mut touched = Vec::new();
        for copy in copies {
            let (object, namespace) = (object_of(copy), text(copy, "/metadata/namespace"));
            let found = bounded(&object, self.api(copy).get_opt(text(copy, "/metadata/name"))).await;
            let found = found.map_err(|e| ApplyError::of(e, &object, namespace, &self.group))?;
            if found.as_ref().is_some_and(|o| o.labels().get(GROUP_LABEL) != Some(&label)) {
                return Err(ApplyError::NameTaken { object });
            }
            touched.push(found);
        }
        for (copy, found) in copies.iter().zip(touched) {
            if let Some(found) = found {
                self.claim(copy, &found).await?;
            }
            self.apply_one(copy).await?;
        }
        Ok(())
    }

    /// What people set on a copy while the group ran here becomes Regent's, and goes with the
    /// apply that follows unless home has it too.
    async fn claim(&self, copy: &Value, found: &DynamicObject) -> Result<(), ApplyError> {
        let metadata = serde_json::json!({ "metadata": found.metadata });
        let Some(fields) = claim(&metadata, FIELD_MANAGER) else { return Ok(()) };
        let (object, name) = (object_of(copy), text(copy, "/metadata/name"));
        let patch = serde_json::json!({ "metadata": {
            "managedFields": fields, "resourceVersion": found.metadata.resource_version } });
        self.permitted()?;
        let (api, params, patch) = (self.api(copy), PatchParams::default(), Patch::Merge(&patch));
        match bounded(&object, api.patch(name, &params, &patch)).await {
            Err(e) if !e.is_conflict() => {
                Err(ApplyError::of(e, &object, text(copy, "/metadata/namespace"), &self.group))
            }
            _ => Ok(()),
        }
    }

    async fn apply_one(&self, copy: &Value) -> Result<(), ApplyError> {
        let (object, namespace, name) =
            (object_of(copy), text(copy, "/metadata/namespace"), text(copy, "/metadata/name"));
        let params = PatchParams::apply(FIELD_MANAGER).force();
        let api = self.api(copy);
        self.permitted()?;
        match bounded(&object, api.patch(name, &params, &Patch::Apply(copy))).await {
            Ok(_) => Ok(()),
            Err(e) if e.is_immutable() => {
                if !self.may_remake(copy).await? {
                    return Err(ApplyError::Immutable { object, error: e });
                }
                tracing::info!("{object} is made anew: {e}");
                self.remove(copy).await?;
                self.permitted()?;
                let applied = bounded(&object, api.patch(name, &params, &Patch::Apply(copy))).await;
                applied.map(drop).map_err(|e| ApplyError::of(e, &object, namespace, &self.group))
            }
            Err(e) => Err(ApplyError::of(e, &object, namespace, &self.group)),
        }
    }

    /// Whether nothing of a copy may be running: only then is it deleted (I4).
    async fn may_remake(&self, copy: &Value) -> Result<bool, ApplyError> {
        if !is_workload(text(copy, "/kind")) {
            return Ok(true);
        }
        let surveyor = Surveyor { client: self.client.clone() };
        let survey = surveyor.survey(&self.group, &[text(copy, "/metadata/namespace").to_owned()]).await?;
        Ok(survey.occupied().is_empty())
    }

    async fn remove(&self, object: &Value) -> Result<(), ApplyError> {
        let name = text(object, "/metadata/name");
        let removal =
            DeleteParams { propagation_policy: Some(PropagationPolicy::Background), ..DeleteParams::default() };
        self.permitted()?;
        match bounded(&object_of(object), self.api(object).delete(name, &removal)).await {
            Err(e) if !e.is_not_found() => Err(e.into()),
            _ => Ok(()),
        }
    }

    /// Changes one object that people here may have changed too: by these fields and no others.
    pub async fn put_back(&self, live: &Value, patch: &Value) -> Result<(), ApplyError> {
        let (object, name) = (object_of(live), text(live, "/metadata/name"));
        let params = PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
        self.permitted()?;
        let patched = bounded(&object, self.api(live).patch(name, &params, &Patch::Merge(patch))).await;
        patched.map(drop).map_err(|e| ApplyError::of(e, &object, text(live, "/metadata/namespace"), &self.group))
    }

    /// Deletes a pod that is held, so that its set makes it anew. Only as it was seen: a gate
    /// that has opened since changes the pod.
    pub async fn renew(&self, pod: &Pod) -> Result<(), ApplyError> {
        let (namespace, name) = (pod.namespace().unwrap_or_default(), pod.name_any());
        let object = format!("pod {namespace}/{name}");
        let api: Api<Pod> = Api::namespaced(self.client.clone(), &namespace);
        let preconditions = Preconditions { uid: pod.uid(), resource_version: pod.resource_version() };
        let removal = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() };
        self.permitted()?;
        match bounded(&object, api.delete(&name, &removal)).await {
            Err(e) if !e.is_not_found() && !e.is_conflict() => Err(ApplyError::of(e, &object, &namespace, &self.group)),
            _ => Ok(()),
        }
    }

    /// Removes copies that nothing keeps. Nothing is removed from a namespace in which
    /// something of the group may be running.
    pub async fn prune(&self, namespaces: &[String], keep: &Keep) -> Result<(), ApplyError> {
        let ours = ListParams::default().labels(&group_selector(&self.group));
        let surveyor = Surveyor { client: self.client.clone() };
        for namespace in namespaces {
            let survey = surveyor.survey(&self.group, std::slice::from_ref(namespace)).await?;
            if !survey.occupied().is_empty() {
                continue;
            }
            // What a workload needs that stays although home lacks it, stays with it.
            let stays = survey
                .live
                .iter()
                .filter(|(name, l)| !keep.objects.contains(*name) && keep.keeps(text(&l.workload, "/kind"), name));
            let needed = stays.count() > 0;
            // Pods' makers go before what their pods need.
            for kind in KINDS.into_iter().rev() {
                let found = match list(&self.client, kind, namespace, &ours).await {
                    // Gone with its namespace, or closed: nothing of ours can be removed there.
                    Err(e) if e.is_forbidden() || e.is_not_found() => break,
                    found => found?,
                };
                for object in found.iter().filter(|o| !keep.keeps(kind.1, &object_of(o))) {
                    let made_by_another = object.pointer("/metadata/ownerReferences/0").is_some();
                    if made_by_another || (needed && !is_workload(kind.1)) {
                        continue;
                    }
                    tracing::info!(group = %self.group, "{} is kept by no revision and is removed", object_of(object));
                    self.remove(object).await?;
                }
            }
        }
        Ok(())
    }

    /// Lets pods of namespaces that are the group's no more start without gates.
    pub async fn ungate(&self, namespaces: &[String]) -> Result<(), ApplyError> {
        let name = object_name(&self.group);
        for namespace in namespaces {
            let api: Api<GatedPods> = Api::namespaced(self.client.clone(), namespace);
            self.permitted()?;
            match bounded(&format!("GatedPods {namespace}/{name}"), api.delete(&name, &DeleteParams::default())).await {
                Err(e) if !e.is_not_found() && !e.is_forbidden() => return Err(e.into()),
                _ => {}
            }
            let left = bounded(&format!("GatedPods in {namespace}"), api.list(&ListParams::default())).await;
            if left.is_ok_and(|left| left.items.is_empty()) {
                self.label_gated(namespace, None).await?;
            }
        }
        Ok(())
    }
}
