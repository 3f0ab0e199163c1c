//! The pods of a group.

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::api::{Api, ListParams};
use regent_api::FailoverGroupSpec;
use regent_kinds::pods::is_gone;

use crate::objects::{ObjectError, bounded};

/// All pods that the group's selector matches and that have not ended.
pub async fn of_group(client: &kube::Client, spec: &FailoverGroupSpec) -> Result<Vec<Pod>, ObjectError> {
    let params = ListParams::default().labels(&spec.selector.to_label_selector());
    let mut pods = Vec::new();
    for namespace in &spec.namespaces {
        let api: Api<Pod> = Api::namespaced(client.clone(), namespace);
        let found = bounded(&format!("pods in namespace {namespace}"), api.list(&params)).await?;
        pods.extend(found.items.into_iter().filter(|p| !is_gone(p)));
    }
    Ok(pods)
}

/// `NAMESPACE/NAME`.
pub fn name_of(pod: &Pod) -> String {
    format!("{}/{}", pod.namespace().unwrap_or_default(), pod.name_any())
}
