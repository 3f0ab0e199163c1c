//! Derives a standby's copy from home's object.
//!
//! A held pod is never Ready, so a copy's roll-out settings are changed while its gates
//! are closed, and put back, where Kubernetes allows, when the group runs here
//! ([`crate::putback`]):
//!
//! | | held | running here |
//! |---|---|---|
//! | Deployment `strategy` | see [`Rollout`] | home's |
//! | Deployment `progressDeadlineSeconds` | none | home's |
//! | Deployment `paused` | no: the newest revision is held | home's |
//! | the same, of one that was made paused | yes: home runs nothing of it | yes |
//! | StatefulSet `podManagementPolicy` | Parallel | Parallel: it can't be changed |
//! | StatefulSet `updateStrategy` | OnDelete | home's |
//! | StatefulSet `persistentVolumeClaimRetentionPolicy` | Retain | Retain: a copy that is made anew must not take its data along |
//! | StatefulSet `volumeClaimTemplates` | with the group's label | the same |
//! | Service of type LoadBalancer | ClusterIP | LoadBalancer, with the fields that are its own |
//! | Service `selector` | copies of this group alone | the same |
//!
//! The pod template is the same in both, so putting back restarts nothing.

use regent_api::{GROUP_LABEL, SiteSpec, group_label};
use regent_core::ids::GroupKey;
use serde_json::{Map, Value, json};

use crate::gate::add_gate;
use crate::images::settle;
use crate::kind::is_workload;
use crate::object::{object_of, text};

/// What no deadline looks like to a Deployment.
pub(crate) const NO_DEADLINE: i32 = i32::MAX;
/// Annotation with the group's key; the label may be a digest.
pub const GROUP_ANNOTATION: &str = "regent.dev/group";
/// Annotation of a copy whose settings are not home's because its gates are closed.
pub const HELD_ANNOTATION: &str = "regent.dev/held";
/// Fields of a Service that only a LoadBalancer may have, or whose value is for one.
pub(crate) const BALANCERS: [&str; 4] =
    ["externalTrafficPolicy", "allocateLoadBalancerNodePorts", "loadBalancerClass", "loadBalancerSourceRanges"];

/// Whether the group runs at this site.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Its gates are closed.
    Held(Rollout),
    /// It runs here.
    Running,
}

/// How a Deployment's held pods are replaced by those of a newer revision. None of them is
/// ever available, so the controller alone would either keep all of the old or none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rollout {
    /// As many new ones are made, and the old ones stay: with no pod to spare the controller
    /// scales nothing down while the new ones are not available, and held they never are.
    /// There is room for two revisions: at a third the controller lets the oldest go, which
    /// may be the only whole one, so that one is derived again as a flip before.
    Surge,
    /// The old ones go: the new ones are all held.
    Flip,
}

/// For whom copies are made, and where.
#[derive(Debug, Clone, Copy)]
pub struct Place<'a> {
    /// The group.
    pub group: &'a GroupKey,
    /// The site's own tables.
    pub tables: &'a SiteSpec,
    /// Workloads of which home runs nothing, as `Kind NAMESPACE/NAME`.
    pub idle: &'a [String],
}

/// The roll-out settings of a held Deployment.
pub(crate) fn strategy(rollout: Rollout) -> Value {
    let rolling = match rollout {
        Rollout::Surge => json!({ "maxUnavailable": 0, "maxSurge": "100%" }),
        Rollout::Flip => json!({ "maxUnavailable": "100%", "maxSurge": 0 }),
    };
    json!({ "type": "RollingUpdate", "rollingUpdate": rolling })
}

/// The copy of an object at a standby.
pub fn derive(object: &Value, place: &Place<'_>, mode: Mode) -> Value {
    let mut copy = object.clone();
    let label = group_label(place.group);
    mark(&mut copy, "labels", GROUP_LABEL, &label);
    mark(&mut copy, "annotations", GROUP_ANNOTATION, &place.group.to_string());
    let kind = text(object, "/kind").to_owned();
    let Some(Value::Object(spec)) = copy.get_mut("spec") else { return copy };
    let is_changed = match (kind.as_str(), mode) {
        ("Deployment", Mode::Held(rollout)) => {
            spec.insert("strategy".into(), strategy(rollout));
            spec.insert("progressDeadlineSeconds".into(), NO_DEADLINE.into());
            spec.remove("paused");
            true
        }
        ("StatefulSet", Mode::Held(_)) => {
            spec.insert("updateStrategy".into(), json!({ "type": "OnDelete" }));
            true
        }
        ("Service", Mode::Held(_)) => hold_balancer(spec),
        _ => false,
    };
    match kind.as_str() {
        "Deployment" if place.idle.contains(&object_of(object)) => {
            spec.insert("paused".into(), true.into());
        }
        "StatefulSet" => {
            spec.insert("podManagementPolicy".into(), "Parallel".into());
            let retain = json!({ "whenDeleted": "Retain", "whenScaled": "Retain" });
            spec.insert("persistentVolumeClaimRetentionPolicy".into(), retain);
            // Two sets' claims may have one name; the label tells whose it is.
            let claims = spec.get_mut("volumeClaimTemplates").and_then(Value::as_array_mut);
            claims.into_iter().flatten().for_each(|claim| mark(claim, "labels", GROUP_LABEL, &label));
        }
        "Service" => {
            if let Some(Value::Object(selector)) = spec.get_mut("selector").filter(|s| **s != json!({})) {
                selector.insert(GROUP_LABEL.into(), label.clone().into());
            }
        }
        _ => {}
    }
    if is_workload(&kind) {
        classes(spec, place.tables);
        if let Some(template) = spec.get_mut("template") {
            mark(template, "labels", GROUP_LABEL, &label);
            if let Some(pod) = template.get_mut("spec") {
                settle(pod, place.tables);
            }
            add_gate(template, place.group);
        }
    }
    if is_changed {
        mark(&mut copy, "annotations", HELD_ANNOTATION, "true");
    }
    copy
}

/// A balancer would take an address, and cost money, for pods that answer nothing.
fn hold_balancer(spec: &mut Map<String, Value>) -> bool {
    if spec.get("type").and_then(Value::as_str) != Some("LoadBalancer") {
        return false;
    }
    spec.insert("type".into(), "ClusterIP".into());
    for field in BALANCERS {
        spec.remove(field);
    }
    let ports = spec.get_mut("ports").and_then(Value::as_array_mut);
    for port in ports.into_iter().flatten().filter_map(Value::as_object_mut) {
        port.remove("nodePort");
    }
    true
}

fn mark(copy: &mut Value, map: &str, key: &str, value: &str) {
    let Value::Object(copy) = copy else { return };
    let Value::Object(metadata) = copy.entry("metadata").or_insert_with(|| json!({})) else { return };
    let mut marks = match metadata.remove(map) {
        Some(Value::Object(marks)) => marks,
        _ => Map::new(),
    };
    marks.insert(key.to_owned(), value.into());
    metadata.insert(map.to_owned(), Value::Object(marks));
}

/// Puts this site's storage classes in the place of home's.
fn classes(spec: &mut Map<String, Value>, tables: &SiteSpec) {
    let change = |claim: &mut Value| {
        let Some(class) = claim.pointer_mut("/spec/storageClassName") else { return };
        if let Some(mapping) = tables.storage_classes.iter().find(|m| class.as_str() == Some(&m.from)) {
            *class = mapping.to.clone().into();
        }
    };
    let claims = spec.get_mut("volumeClaimTemplates").and_then(Value::as_array_mut);
    claims.into_iter().flatten().for_each(change);
    let volumes = spec.get_mut("template").and_then(|t| t.pointer_mut("/spec/volumes")).and_then(Value::as_array_mut);
    volumes.into_iter().flatten().filter_map(|v| v.pointer_mut("/ephemeral/volumeClaimTemplate")).for_each(change);
}

#[cfg(test)]
mod tests {
    use regent_api::site::Mapping;

    use super::*;

    const HELD: Mode = Mode::Held(Rollout::Surge);

    fn made(object: &Value, tables: &SiteSpec, mode: Mode) -> Value {
        derive(object, &Place { group: &"ireland/shop".parse().unwrap(), tables, idle: &[] }, mode)
    }

    fn copy(object: &Value, mode: Mode) -> Value {
        made(object, &SiteSpec::default(), mode)
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
    fn a_held_deployment_keeps_its_pods_until_new_ones_are_held_and_has_no_deadline() {
        let rolling = json!({ "strategy": { "type": "Recreate" }, "progressDeadlineSeconds": 600, "paused": true });
        let home = workload("Deployment", rolling);
        let held = copy(&home, HELD);
        assert_eq!(held["spec"]["strategy"]["rollingUpdate"], json!({ "maxUnavailable": 0, "maxSurge": "100%" }));
        let flip = copy(&home, Mode::Held(Rollout::Flip));
        assert_eq!(flip["spec"]["strategy"]["rollingUpdate"], json!({ "maxUnavailable": "100%", "maxSurge": 0 }));
        assert_eq!(held["spec"]["progressDeadlineSeconds"], i32::MAX);
        assert_eq!(held["spec"].get("paused"), None);
        assert_eq!(held["metadata"]["labels"]["regent.dev/group"], "ireland.shop");
        assert_eq!(held["metadata"]["annotations"]["regent.dev/held"], "true");
        let running = copy(&home, Mode::Running);
        for field in ["strategy", "progressDeadlineSeconds", "paused"] {
            assert_eq!(running["spec"][field], home["spec"][field], "{field}");
        }
        assert_eq!(running["metadata"]["annotations"].get("regent.dev/held"), None);
        for other in [flip, running] {
            assert_eq!(other["spec"]["template"], held["spec"]["template"], "putting back restarts nothing");
        }
    }

    #[test]
    fn what_was_made_paused_at_home_is_paused_everywhere() {
        let home = workload("Deployment", json!({ "paused": true, "strategy": { "type": "Recreate" } }));
        let (group, idle) = ("ireland/shop".parse().unwrap(), ["Deployment shop/shop".to_owned()]);
        let place = Place { group: &group, tables: &SiteSpec::default(), idle: &idle };
        for mode in [HELD, Mode::Held(Rollout::Flip), Mode::Running] {
            assert_eq!(derive(&home, &place, mode)["spec"]["paused"], true, "{mode:?}");
        }
        assert_eq!(derive(&home, &place, Mode::Running)["spec"]["strategy"]["type"], "Recreate");
    }

    #[test]
    fn a_held_statefulset_starts_in_parallel_and_rolls_on_delete() {
        let home = workload(
            "StatefulSet",
            json!({ "updateStrategy": { "type": "RollingUpdate", "rollingUpdate": { "maxUnavailable": 2 } },
                    "podManagementPolicy": "OrderedReady" }),
        );
        let held = copy(&home, HELD);
        assert_eq!(held["spec"]["podManagementPolicy"], "Parallel");
        assert_eq!(held["spec"]["updateStrategy"], json!({ "type": "OnDelete" }));
        let running = copy(&home, Mode::Running);
        assert_eq!(running["spec"]["podManagementPolicy"], "Parallel");
        assert_eq!(running["spec"]["updateStrategy"], home["spec"]["updateStrategy"]);
    }

    #[test]
    fn a_claim_with_data_never_dies_with_its_set() {
        let delete =
            json!({ "persistentVolumeClaimRetentionPolicy": { "whenDeleted": "Delete", "whenScaled": "Delete" } });
        for mode in [HELD, Mode::Running] {
            let policy =
                &copy(&workload("StatefulSet", delete.clone()), mode)["spec"]["persistentVolumeClaimRetentionPolicy"];
            assert_eq!(policy, &json!({ "whenDeleted": "Retain", "whenScaled": "Retain" }));
        }
    }

    fn balancer() -> Value {
        json!({ "apiVersion": "v1", "kind": "Service", "metadata": { "name": "front", "namespace": "shop" },
            "spec": { "type": "LoadBalancer", "selector": { "app": "shop" }, "externalTrafficPolicy": "Local",
                "internalTrafficPolicy": "Cluster", "allocateLoadBalancerNodePorts": false, "loadBalancerClass": "x.example/y",
                "loadBalancerSourceRanges": ["192.0.2.0/24"], "ports": [{ "port": 80, "nodePort": 30080 }] } })
    }

    #[test]
    fn a_balancer_takes_no_address_while_the_gates_are_closed() {
        let expected = json!({ "type": "ClusterIP", "selector": { "app": "shop", "regent.dev/group": "ireland.shop" },
            "internalTrafficPolicy": "Cluster", "ports": [{ "port": 80 }] });
        assert_eq!(copy(&balancer(), HELD)["spec"], expected);
        let mut running = copy(&balancer(), Mode::Running);
        assert_eq!(
            running["spec"]["selector"].as_object_mut().unwrap().remove("regent.dev/group"),
            Some(json!("ireland.shop"))
        );
        assert_eq!(running["spec"], balancer()["spec"]);
    }

    #[test]
    fn a_service_of_a_copy_selects_no_pod_of_another_group() {
        let service =
            |spec: Value| json!({ "kind": "Service", "metadata": { "name": "s", "namespace": "shop" }, "spec": spec });
        let held = copy(
            &service(
                json!({ "type": "NodePort", "selector": { "app": "shop" }, "ports": [{ "port": 1, "nodePort": 30001 }] }),
            ),
            HELD,
        );
        assert_eq!(held["spec"]["selector"]["regent.dev/group"], "ireland.shop");
        assert_eq!((&held["spec"]["type"], &held["spec"]["ports"][0]["nodePort"]), (&json!("NodePort"), &json!(30001)));
        for none in [json!({ "ports": [] }), json!({ "selector": {} })] {
            let held = copy(&service(none.clone()), HELD);
            assert_eq!(held["spec"], none, "it selects nothing, and goes on so");
        }
    }

    #[test]
    fn every_copy_of_a_workload_carries_its_gate_and_its_groups_label() {
        for (kind, mode) in [("Deployment", HELD), ("Deployment", Mode::Running), ("StatefulSet", HELD)] {
            let template = &copy(&workload(kind, json!({})), mode)["spec"]["template"];
            let inits = template["spec"]["initContainers"].as_array().unwrap();
            assert_eq!(
                (&inits[0]["name"], &inits[1]["name"]),
                (&json!("regent-try-0"), &json!("regent-gate")),
                "{kind}"
            );
            assert_eq!(template["metadata"]["labels"], json!({ "app": "shop", "regent.dev/group": "ireland.shop" }));
        }
    }

    #[test]
    fn registries_and_storage_classes_are_this_sites_own() {
        let map = |from: &str, to: &str| Mapping { from: from.into(), to: to.into() };
        let tables = SiteSpec {
            registries: vec![map("home.example", "here.example/mirror")],
            storage_classes: vec![map("fast", "schnell")],
            ..SiteSpec::default()
        };
        let claims = json!({ "volumeClaimTemplates": [{ "spec": { "storageClassName": "fast" } }, { "spec": {} }] });
        let mut home = workload("StatefulSet", claims);
        home["spec"]["template"]["spec"]["volumes"] = json!([{ "name": "scratch", "ephemeral": { "volumeClaimTemplate": { "spec": { "storageClassName": "fast" } } } },
                   { "name": "model", "image": { "reference": "home.example/model:1", "pullPolicy": "Always" } }]);
        let copy = made(&home, &tables, HELD);
        let pod = &copy["spec"]["template"]["spec"];
        for container in [&pod["containers"][0], &pod["initContainers"][0], &pod["initContainers"][1]] {
            assert_eq!(container["image"], "here.example/mirror/shop:1");
            assert_eq!(container["imagePullPolicy"], "IfNotPresent");
        }
        assert_eq!(
            pod["volumes"][1]["image"],
            json!({ "reference": "here.example/mirror/model:1", "pullPolicy": "IfNotPresent" })
        );
        assert_eq!(pod["volumes"][0]["ephemeral"]["volumeClaimTemplate"]["spec"]["storageClassName"], "schnell");
        let claim = &copy["spec"]["volumeClaimTemplates"][0];
        assert_eq!(claim["spec"]["storageClassName"], "schnell");
        assert_eq!(claim["metadata"]["labels"]["regent.dev/group"], "ireland.shop");
    }

    #[test]
    fn other_objects_are_marked_and_nothing_else() {
        let map = json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "m", "namespace": "shop", "labels": { "a": "b" } }, "data": { "k": "v" } });
        let copy = copy(&map, HELD);
        assert_eq!(copy["metadata"]["labels"], json!({ "a": "b", "regent.dev/group": "ireland.shop" }));
        assert_eq!(copy["metadata"]["annotations"], json!({ "regent.dev/group": "ireland/shop" }));
        assert_eq!(copy["data"], map["data"]);
    }
}
