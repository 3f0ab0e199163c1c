//! Derives a standby's copy from home's object.
//!
//! A held pod is never Ready, so a copy's roll-out settings are changed while its gates
//! are closed, and put back, where Kubernetes allows, when the group runs here:
//!
//! | | held | running here |
//! |---|---|---|
//! | Deployment `strategy` | all at once | home's |
//! | Deployment `progressDeadlineSeconds` | none | home's |
//! | Deployment `paused` | no: the newest revision is held | home's |
//! | StatefulSet `podManagementPolicy` | Parallel | Parallel: it can't be changed |
//! | StatefulSet `updateStrategy` | OnDelete | home's |
//!
//! The pod template is the same in both, so putting back restarts nothing.

use regent_api::site::Mapping;
use regent_api::{GROUP_LABEL, SiteSpec, group_label};
use regent_core::ids::GroupKey;
use serde_json::{Map, Value, json};

use super::gate::add_gate;
use crate::mirror::bundle::text;

/// What no deadline looks like to a Deployment.
const NO_DEADLINE: i32 = i32::MAX;
/// Annotation with the group's key; the label may be a digest.
pub const GROUP_ANNOTATION: &str = "regent.dev/group";

/// Whether the group runs at this site.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Its gates are closed.
    Held,
    /// It runs here.
    Running,
}

/// The copy of an object at a standby.
pub fn derive(object: &Value, group: &GroupKey, tables: &SiteSpec, mode: Mode) -> Value {
    let mut copy = object.clone();
    mark(&mut copy, "labels", GROUP_LABEL, &group_label(group));
    mark(&mut copy, "annotations", GROUP_ANNOTATION, &group.to_string());
    let kind = text(object, "/kind").to_owned();
    let Some(Value::Object(spec)) = copy.get_mut("spec") else { return copy };
    match kind.as_str() {
        "Deployment" if mode == Mode::Held => {
            let at_once =
                json!({ "type": "RollingUpdate", "rollingUpdate": { "maxUnavailable": "100%", "maxSurge": 0 } });
            spec.insert("strategy".into(), at_once);
            spec.insert("progressDeadlineSeconds".into(), NO_DEADLINE.into());
            spec.remove("paused");
        }
        "StatefulSet" => {
            spec.insert("podManagementPolicy".into(), "Parallel".into());
            if mode == Mode::Held {
                spec.insert("updateStrategy".into(), json!({ "type": "OnDelete" }));
            }
        }
        _ => {}
    }
    if matches!(kind.as_str(), "Deployment" | "StatefulSet") {
        translate(spec, tables);
        if let Some(template) = spec.get_mut("template") {
            add_gate(template, group);
        }
    }
    copy
}

fn mark(copy: &mut Value, map: &str, key: &str, value: &str) {
    let Some(Value::Object(metadata)) = copy.get_mut("metadata") else { return };
    let mut marks = match metadata.remove(map) {
        Some(Value::Object(marks)) => marks,
        _ => Map::new(),
    };
    marks.insert(key.to_owned(), value.into());
    metadata.insert(map.to_owned(), Value::Object(marks));
}

/// Puts this site's registries and storage classes in the place of home's.
fn translate(spec: &mut Map<String, Value>, tables: &SiteSpec) {
    let pod = spec.get_mut("template").and_then(|t| t.get_mut("spec"));
    if let Some(pod) = pod {
        for list in ["containers", "initContainers"] {
            for container in pod.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
                let Some(image) = container.get("image").and_then(Value::as_str) else { continue };
                container["image"] = registry(image, &tables.registries).into();
            }
        }
    }
    let claims = spec.get_mut("volumeClaimTemplates").and_then(Value::as_array_mut);
    for claim in claims.into_iter().flatten() {
        let Some(class) = claim.pointer_mut("/spec/storageClassName") else { continue };
        if let Some(mapping) = tables.storage_classes.iter().find(|m| class.as_str() == Some(&m.from)) {
            *class = mapping.to.clone().into();
        }
    }
}

/// The image at this site: the longest mapping that ends at a `/` of the name counts.
fn registry(image: &str, mappings: &[Mapping]) -> String {
    let rest = |m: &Mapping| {
        let rest = image.strip_prefix(&m.from)?;
        (rest.starts_with('/') || m.from.ends_with('/')).then(|| rest.to_owned())
    };
    let best = mappings.iter().filter_map(|m| Some((m, rest(m)?))).max_by_key(|(m, _)| m.from.len());
    best.map_or_else(|| image.to_owned(), |(m, rest)| format!("{}{rest}", m.to))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group() -> GroupKey {
        "ireland/shop".parse().unwrap()
    }

    fn workload(kind: &str, spec: Value) -> Value {
        let mut object = json!({ "apiVersion": "apps/v1", "kind": kind, "metadata": { "name": "shop", "namespace": "shop" },
            "spec": { "replicas": 2, "template": { "metadata": { "labels": { "app": "shop" } },
                      "spec": { "containers": [{ "name": "c", "image": "home.example/shop:1" }] } } } });
        for (key, value) in spec.as_object().unwrap() {
            object["spec"][key] = value.clone();
        }
        object
    }

    #[test]
    fn a_held_deployment_rolls_at_once_and_has_no_deadline() {
        let rolling = json!({ "strategy": { "type": "Recreate" }, "progressDeadlineSeconds": 600, "paused": true });
        let home = workload("Deployment", rolling);
        let held = derive(&home, &group(), &SiteSpec::default(), Mode::Held);
        assert_eq!(held["spec"]["strategy"]["rollingUpdate"]["maxUnavailable"], "100%");
        assert_eq!(held["spec"]["progressDeadlineSeconds"], i32::MAX);
        assert_eq!(held["spec"].get("paused"), None);
        assert_eq!(held["metadata"]["labels"]["regent.dev/group"], "ireland.shop");
        let running = derive(&home, &group(), &SiteSpec::default(), Mode::Running);
        for field in ["strategy", "progressDeadlineSeconds", "paused"] {
            assert_eq!(running["spec"][field], home["spec"][field], "{field}");
        }
        assert_eq!(running["spec"]["template"], held["spec"]["template"], "putting back restarts nothing");
    }

    #[test]
    fn a_held_statefulset_starts_in_parallel_and_rolls_on_delete() {
        let home = workload(
            "StatefulSet",
            json!({ "updateStrategy": { "type": "RollingUpdate" }, "podManagementPolicy": "OrderedReady" }),
        );
        let held = derive(&home, &group(), &SiteSpec::default(), Mode::Held);
        assert_eq!(held["spec"]["podManagementPolicy"], "Parallel");
        assert_eq!(held["spec"]["updateStrategy"], json!({ "type": "OnDelete" }));
        let running = derive(&home, &group(), &SiteSpec::default(), Mode::Running);
        assert_eq!(running["spec"]["podManagementPolicy"], "Parallel");
        assert_eq!(running["spec"]["updateStrategy"], home["spec"]["updateStrategy"]);
    }

    #[test]
    fn every_copy_of_a_workload_carries_its_gate() {
        for (kind, mode) in [("Deployment", Mode::Held), ("Deployment", Mode::Running), ("StatefulSet", Mode::Held)] {
            let copy = derive(&workload(kind, json!({})), &group(), &SiteSpec::default(), mode);
            assert_eq!(copy["spec"]["template"]["spec"]["initContainers"][0]["name"], "regent-gate", "{kind}");
        }
    }

    #[test]
    fn registries_and_storage_classes_are_this_sites_own() {
        let map = |from: &str, to: &str| Mapping { from: from.into(), to: to.into() };
        let tables = SiteSpec {
            registries: vec![map("home.example", "here.example/mirror"), map("home.example/team", "here.example/team")],
            storage_classes: vec![map("fast", "schnell")],
        };
        let claims = json!({ "volumeClaimTemplates": [{ "spec": { "storageClassName": "fast" } }, { "spec": {} }] });
        let copy = derive(&workload("StatefulSet", claims), &group(), &tables, Mode::Held);
        let pod = &copy["spec"]["template"]["spec"];
        assert_eq!(pod["containers"][0]["image"], "here.example/mirror/shop:1");
        assert_eq!(pod["initContainers"][0]["image"], "here.example/mirror/shop:1");
        assert_eq!(copy["spec"]["volumeClaimTemplates"][0]["spec"]["storageClassName"], "schnell");
        assert_eq!(registry("home.example/team/a:1", &tables.registries), "here.example/team/a:1");
        assert_eq!(registry("home.examples/a:1", &tables.registries), "home.examples/a:1");
    }

    #[test]
    fn other_objects_are_marked_and_nothing_else() {
        let map = json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "m", "namespace": "shop", "labels": { "a": "b" } }, "data": { "k": "v" } });
        let copy = derive(&map, &group(), &SiteSpec::default(), Mode::Held);
        assert_eq!(copy["metadata"]["labels"], json!({ "a": "b", "regent.dev/group": "ireland.shop" }));
        assert_eq!(copy["data"], map["data"]);
    }
}
