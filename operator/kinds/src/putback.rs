//! Puts back what was home's when a group runs here.
//!
//! From then on people here are its operators, for a day or a year: they scale, patch and
//! change how it rolls out, and nothing of it is applied again. Once, and only where a field
//! is still what Regent made of it while the gates were closed, home's comes back.

use serde_json::{Map, Value, json};

use crate::derive::{BALANCERS, HELD_ANNOTATION, Mode, NO_DEADLINE, Place, Rollout, derive, strategy};
use crate::object::{items, labels, text};

/// A JSON merge patch that gives the copy `live` home's own settings; none if it has been
/// given them already. `home` is the bundle's object.
pub fn put_back(home: &Value, live: &Value, place: &Place<'_>) -> Option<Value> {
    if !labels(live, "/metadata/annotations").contains_key(HELD_ANNOTATION) {
        return None;
    }
    let running = derive(home, place, Mode::Running);
    let spec = match text(live, "/kind") {
        "Deployment" => deployment(&running, live),
        "StatefulSet" => stateful_set(&running, live),
        "Service" => service(&running, live),
        _ => Map::new(),
    };
    let mut patch = json!({ "metadata": { "annotations": { HELD_ANNOTATION: null } } });
    if !spec.is_empty() {
        patch["spec"] = Value::Object(spec);
    }
    Some(patch)
}

fn deployment(running: &Value, live: &Value) -> Map<String, Value> {
    let mut spec = Map::new();
    let now = live.pointer("/spec/strategy");
    if [Rollout::Surge, Rollout::Flip].into_iter().any(|rollout| now == Some(&strategy(rollout))) {
        spec.insert("strategy".into(), homes_strategy(running));
    }
    if live.pointer("/spec/progressDeadlineSeconds").and_then(Value::as_i64) == Some(i64::from(NO_DEADLINE)) {
        let deadline = running.pointer("/spec/progressDeadlineSeconds").cloned();
        spec.insert("progressDeadlineSeconds".into(), deadline.unwrap_or_default());
    }
    let is_paused = |of: &Value| of.pointer("/spec/paused") == Some(&Value::Bool(true));
    if is_paused(running) && !is_paused(live) {
        spec.insert("paused".into(), true.into());
    }
    spec
}

/// Whatever home doesn't say is null, so that nothing of the held one stays.
fn homes_strategy(running: &Value) -> Value {
    let kind = running.pointer("/spec/strategy/type").and_then(Value::as_str).unwrap_or("RollingUpdate");
    let rolling = running.pointer("/spec/strategy/rollingUpdate").filter(|r| r.is_object()).map(|rolling| {
        let field = |key: &str| rolling.get(key).cloned().unwrap_or_default();
        json!({ "maxSurge": field("maxSurge"), "maxUnavailable": field("maxUnavailable") })
    });
    json!({ "type": kind, "rollingUpdate": rolling })
}

fn stateful_set(running: &Value, live: &Value) -> Map<String, Value> {
    let mut spec = Map::new();
    if live.pointer("/spec/updateStrategy") == Some(&json!({ "type": "OnDelete" })) {
        let homes = running.pointer("/spec/updateStrategy").cloned();
        spec.insert("updateStrategy".into(), homes.unwrap_or_else(|| json!({ "type": "RollingUpdate" })));
    }
    spec
}

fn service(running: &Value, live: &Value) -> Map<String, Value> {
    let mut spec = Map::new();
    if text(running, "/spec/type") != "LoadBalancer" || text(live, "/spec/type") != "ClusterIP" {
        return spec;
    }
    spec.insert("type".into(), "LoadBalancer".into());
    let homes = |field: &str| running.get("spec").and_then(|s| s.get(field)).cloned();
    let is_set = |field: &str| live.get("spec").is_some_and(|s| s.get(field).is_some());
    for field in BALANCERS.into_iter().filter(|f| !is_set(f)) {
        if let Some(value) = homes(field) {
            spec.insert(field.into(), value);
        }
    }
    // A merge patch replaces lists, so the ports are those of now with home's node ports.
    let key =
        |p: &Value| (p.get("port").cloned(), p.get("protocol").and_then(Value::as_str).unwrap_or("TCP").to_owned());
    let mut is_changed = false;
    let ports: Vec<Value> = items(live, "/spec/ports")
        .map(|port| {
            let mut port = port.clone();
            let chosen = items(running, "/spec/ports").find(|p| key(p) == key(&port)).and_then(|p| p.get("nodePort"));
            if let (Some(chosen), None) = (chosen, port.get("nodePort")) {
                port["nodePort"] = chosen.clone();
                is_changed = true;
            }
            port
        })
        .collect();
    if is_changed {
        spec.insert("ports".into(), Value::Array(ports));
    }
    spec
}

#[cfg(test)]
mod tests {
    use regent_api::SiteSpec;

    use super::*;

    fn object(kind: &str, spec: Value) -> Value {
        json!({ "apiVersion": "apps/v1", "kind": kind, "metadata": { "name": "shop", "namespace": "shop" }, "spec": spec })
    }

    fn with_place<T>(act: impl FnOnce(&Place<'_>) -> T) -> T {
        act(&Place { group: &"ireland/shop".parse().unwrap(), tables: &SiteSpec::default(), idle: &[] })
    }

    fn held(home: &Value) -> Value {
        with_place(|place| derive(home, place, Mode::Held(Rollout::Surge)))
    }

    fn patch(home: &Value, live: &Value) -> Option<Value> {
        with_place(|place| put_back(home, live, place))
    }

    #[test]
    fn recreate_comes_back_and_nothing_of_the_held_strategy_stays() {
        let home = object(
            "Deployment",
            json!({ "strategy": { "type": "Recreate" }, "progressDeadlineSeconds": 600, "paused": true }),
        );
        for rollout in [Rollout::Surge, Rollout::Flip] {
            let live = with_place(|place| derive(&home, place, Mode::Held(rollout)));
            let expected = json!({ "metadata": { "annotations": { "regent.dev/held": null } },
                "spec": { "strategy": { "type": "Recreate", "rollingUpdate": null }, "progressDeadlineSeconds": 600, "paused": true } });
            assert_eq!(patch(&home, &live), Some(expected));
        }
        let bare = object("Deployment", json!({}));
        let spec = &patch(&bare, &held(&bare)).unwrap()["spec"];
        assert_eq!(spec["strategy"], json!({ "type": "RollingUpdate", "rollingUpdate": null }), "the API server's own");
        assert_eq!(spec["progressDeadlineSeconds"], Value::Null);
    }

    #[test]
    fn what_people_here_have_changed_stays_theirs() {
        let home = object("Deployment", json!({ "strategy": { "type": "Recreate" }, "progressDeadlineSeconds": 600 }));
        let mut live = held(&home);
        live["spec"]["strategy"] =
            json!({ "type": "RollingUpdate", "rollingUpdate": { "maxSurge": 1, "maxUnavailable": 0 } });
        live["spec"]["progressDeadlineSeconds"] = json!(60);
        let expected = json!({ "metadata": { "annotations": { "regent.dev/held": null } } });
        assert_eq!(patch(&home, &live), Some(expected));
        let set = object("StatefulSet", json!({ "updateStrategy": { "type": "RollingUpdate" } }));
        let mut live = held(&set);
        live["spec"]["updateStrategy"] = json!({ "type": "RollingUpdate", "rollingUpdate": { "partition": 1 } });
        assert_eq!(patch(&set, &live).unwrap().get("spec"), None);
    }

    #[test]
    fn once_put_back_nothing_is_to_do_even_if_people_choose_what_regent_chose() {
        let home = object("StatefulSet", json!({ "updateStrategy": { "type": "RollingUpdate" } }));
        let mut live = with_place(|place| derive(&home, place, Mode::Running));
        assert_eq!(patch(&home, &live), None);
        live["spec"]["updateStrategy"] = json!({ "type": "OnDelete" });
        assert_eq!(patch(&home, &live), None);
    }

    #[test]
    fn a_balancer_comes_back_with_its_fields_and_the_ports_of_now() {
        let home = object(
            "Service",
            json!({ "type": "LoadBalancer", "externalTrafficPolicy": "Local", "loadBalancerClass": "x.example/y",
            "ports": [{ "port": 80, "nodePort": 30080 }, { "port": 81 }] }),
        );
        let mut live = held(&home);
        live["spec"]["ports"] = json!([{ "port": 80, "protocol": "TCP", "targetPort": 9 }]);
        let expected = json!({ "type": "LoadBalancer", "externalTrafficPolicy": "Local", "loadBalancerClass": "x.example/y",
            "ports": [{ "port": 80, "protocol": "TCP", "targetPort": 9, "nodePort": 30080 }] });
        assert_eq!(patch(&home, &live).unwrap()["spec"], expected);
        live["spec"]["type"] = json!("NodePort");
        assert_eq!(patch(&home, &live).unwrap().get("spec"), None, "somebody has found another way in");
    }

    #[test]
    fn replicas_and_images_are_never_put_back() {
        let home = object(
            "Deployment",
            json!({ "replicas": 2, "template": { "spec": { "containers": [{ "name": "c", "image": "a:1" }] } } }),
        );
        let mut live = held(&home);
        live["spec"]["replicas"] = json!(6);
        live["spec"]["template"]["spec"]["containers"][0]["image"] = json!("a:1-fixed");
        let spec = patch(&home, &live).unwrap()["spec"].clone();
        let fields: Vec<&String> = spec.as_object().unwrap().keys().collect();
        assert_eq!(fields, ["progressDeadlineSeconds", "strategy"]);
    }
}
