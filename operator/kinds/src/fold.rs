//! Folds what a workload names twice.
//!
//! Some lists of a pod may hold a key twice when they are created, and the kubelet takes the
//! last; server-side apply, by which copies are made, refuses them.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::object::{items, text};

/// What folding a pod came to.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Folded {
    /// What was folded: where, and what counts now.
    pub told: Vec<String>,
    /// What can't be folded without another meaning: field and remedy.
    pub refused: Vec<(String, String)>,
}

/// Folds a pod's lists. `ports_named` are the names by which Services reach its ports.
pub fn fold(pod: &mut Value, ports_named: &BTreeSet<String>) -> Folded {
    let mut folded = Folded::default();
    keep_last(pod.get_mut("imagePullSecrets"), |s| text(s, "/name").to_owned(), |_| {});
    host_aliases(pod);
    for list in ["initContainers", "containers"] {
        for container in pod.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
            let name = text(container, "/name").to_owned();
            environment(container, &name, &mut folded);
            ports(container, &name, ports_named, &mut folded);
            let told =
                |path: &str| folded.told.push(format!("container {name} mounts at {path} twice: the last counts"));
            keep_last(container.get_mut("volumeMounts"), |m| text(m, "/mountPath").to_owned(), told);
        }
    }
    folded
}

/// Keeps the last of the items that have one key, where the last stands.
fn keep_last(list: Option<&mut Value>, key: impl Fn(&Value) -> String, mut told: impl FnMut(&str)) {
    let Some(Value::Array(list)) = list else { return };
    let mut left: BTreeMap<String, usize> = BTreeMap::new();
    for item in list.iter() {
        *left.entry(key(item)).or_default() += 1;
    }
    left.iter().filter(|(_, count)| **count > 1).for_each(|(key, _)| told(key));
    list.retain(|item| {
        let count = left.entry(key(item)).or_default();
        *count = count.saturating_sub(1);
        *count == 0
    });
}

/// Names of one address are put together.
fn host_aliases(pod: &mut Value) {
    let Some(Value::Array(aliases)) = pod.get_mut("hostAliases") else { return };
    let mut first: Vec<Value> = Vec::new();
    for alias in aliases.drain(..) {
        let same = first.iter_mut().find(|a| text(a, "/ip") == text(&alias, "/ip"));
        match same.and_then(|a| a.get_mut("hostnames")).and_then(Value::as_array_mut) {
            Some(names) => names.extend(items(&alias, "/hostnames").cloned()),
            None => first.push(alias),
        }
    }
    *aliases = first;
}

fn environment(container: &mut Value, of: &str, folded: &mut Folded) {
    let env: Vec<&Value> = items(container, "/env").collect();
    for (i, variable) in env.iter().enumerate() {
        let name = text(variable, "/name");
        let Some(next) = env.iter().skip(i + 1).position(|v| text(v, "/name") == name) else { continue };
        // What stands between saw the value that would be gone.
        let between = env.iter().skip(i + 1).take(next + 1);
        if let Some(reader) = between.into_iter().find(|v| text(v, "/value").contains(&format!("$({name})"))) {
            let why = format!(
                "variable {} takes up {name}, which is there twice with different values; name {name} once",
                text(reader, "/name")
            );
            folded.refused.push((format!("container {of}, env {name}"), why));
        }
    }
    let told = |name: &str| folded.told.push(format!("container {of} has variable {name} twice: the last counts"));
    keep_last(container.get_mut("env"), |v| text(v, "/name").to_owned(), told);
}

/// Of ports that have one number, the one stays whose name is used.
fn ports(container: &mut Value, of: &str, named: &BTreeSet<String>, folded: &mut Folded) {
    let mut used = named.clone();
    for handler in ["livenessProbe", "readinessProbe", "startupProbe", "lifecycle"] {
        names_of_ports(container.get(handler).unwrap_or(&Value::Null), &mut used);
    }
    let Some(Value::Array(ports)) = container.get_mut("ports") else { return };
    let key = |p: &Value| {
        let protocol = p.get("protocol").and_then(Value::as_str).unwrap_or("TCP");
        format!("{}/{protocol}", p.get("containerPort").and_then(Value::as_u64).unwrap_or_default())
    };
    let mut kept: Vec<Value> = Vec::new();
    for port in ports.drain(..) {
        let Some(same) = kept.iter_mut().find(|p| key(p) == key(&port)) else {
            kept.push(port);
            continue;
        };
        let (old, new) = (text(same, "/name").to_owned(), text(&port, "/name").to_owned());
        if used.contains(&old) && used.contains(&new) && old != new {
            let why = format!("both {old} and {new} are used and stand for one port; use one name, or the number");
            folded.refused.push((format!("container {of}, port {}", key(&port)), why));
        }
        folded.told.push(format!("container {of} has port {} twice, as {old:?} and {new:?}: one is kept", key(&port)));
        if !used.contains(&old) {
            *same = port;
        }
    }
    *ports = kept;
}

fn names_of_ports(handler: &Value, used: &mut BTreeSet<String>) {
    match handler {
        Value::Object(map) => {
            for (key, value) in map {
                match value.as_str().filter(|_| key == "port") {
                    Some(name) => drop(used.insert(name.to_owned())),
                    None => names_of_ports(value, used),
                }
            }
        }
        Value::Array(list) => list.iter().for_each(|value| names_of_ports(value, used)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn folded(container: Value, services: &[&str]) -> (Value, Folded) {
        let mut pod = json!({ "containers": [container] });
        let folded = fold(&mut pod, &services.iter().map(|s| (*s).to_owned()).collect());
        (pod["containers"][0].clone(), folded)
    }

    #[test]
    fn a_variable_that_is_there_twice_has_its_last_value() {
        let env = json!([{ "name": "A", "value": "1" }, { "name": "MODE", "value": "trial" }, { "name": "MODE", "value": "live" }]);
        let (container, folded) = folded(json!({ "name": "app", "env": env }), &[]);
        assert_eq!(container["env"], json!([{ "name": "A", "value": "1" }, { "name": "MODE", "value": "live" }]));
        assert_eq!(folded.told, ["container app has variable MODE twice: the last counts"]);
        assert!(folded.refused.is_empty());
    }

    #[test]
    fn a_variable_whose_first_value_is_taken_up_is_refused_by_name() {
        let env = json!([{ "name": "PATH", "value": "/a" }, { "name": "PATH", "value": "$(PATH):/b" }]);
        let (_, folded) = folded(json!({ "name": "app", "env": env }), &[]);
        assert_eq!(folded.refused[0].0, "container app, env PATH");
    }

    #[test]
    fn of_two_names_of_a_port_the_used_one_stays() {
        let ports = json!([{ "name": "web", "containerPort": 8080 }, { "name": "metrics", "containerPort": 8080, "protocol": "TCP" },
                           { "name": "dns", "containerPort": 8080, "protocol": "UDP" }]);
        let kept =
            |container: &Value| items(container, "/ports").map(|p| text(p, "/name").to_owned()).collect::<Vec<_>>();
        let (container, told) = folded(json!({ "name": "app", "ports": ports }), &["web"]);
        assert_eq!(kept(&container), ["web", "dns"]);
        assert_eq!(told.told.len(), 1);
        let probe = json!({ "httpGet": { "port": "metrics" } });
        let (container, _) = folded(json!({ "name": "app", "ports": ports, "livenessProbe": probe }), &[]);
        assert_eq!(kept(&container), ["metrics", "dns"]);
        let (_, both) = folded(json!({ "name": "app", "ports": ports, "livenessProbe": probe }), &["web"]);
        assert_eq!(both.refused[0].0, "container app, port 8080/TCP");
    }

    #[test]
    fn other_lists_that_are_merged_by_a_key_have_it_once() {
        let mut pod = json!({ "imagePullSecrets": [{ "name": "a" }, { "name": "b" }, { "name": "a" }],
            "hostAliases": [{ "ip": "192.0.2.1", "hostnames": ["a"] }, { "ip": "192.0.2.1", "hostnames": ["b"] }],
            "containers": [{ "name": "c", "volumeMounts": [{ "name": "x", "mountPath": "/m" }, { "name": "y", "mountPath": "/m" }] }] });
        fold(&mut pod, &BTreeSet::new());
        assert_eq!(pod["imagePullSecrets"], json!([{ "name": "b" }, { "name": "a" }]));
        assert_eq!(pod["hostAliases"], json!([{ "ip": "192.0.2.1", "hostnames": ["a", "b"] }]));
        assert_eq!(pod["containers"][0]["volumeMounts"], json!([{ "name": "y", "mountPath": "/m" }]));
    }
}
