//! `standby prepare` and `home prepare`: what a party applies in its own cluster, so that
//! Regent may work in one namespace of it and nowhere else.

use anyhow::{Result, bail};
use clap::Args as ClapArgs;
use regent_api::GROUPS_ANNOTATION;
use regent_core::ids::GroupKey;
use serde_json::{Value, json};

use crate::Verdict;

/// Arguments of both.
#[derive(Debug, ClapArgs)]
pub struct Args {
    /// Namespace of the group.
    #[arg(long)]
    namespace: String,
    /// Pod Security level that a new namespace enforces (standby only).
    #[arg(long, default_value = "restricted")]
    pod_security: String,
}

/// Arguments of `standby prepare`.
#[derive(Debug, ClapArgs)]
pub struct StandbyArgs {
    #[command(flatten)]
    namespace: Args,
    /// A group whose copies are let in there; repeat for more. Bundles of others are refused.
    #[arg(long = "group", value_name = "HOME/NAME", required = true)]
    groups: Vec<GroupKey>,
}

/// Kinds that the mirror knows, by API group.
const KINDS: [(&str, &[&str]); 2] =
    [("", &["services", "configmaps", "secrets", "serviceaccounts"]), ("apps", &["deployments", "statefulsets"])];

/// Namespace, Role and RoleBinding: the operator keeps copies here.
pub fn standby(args: &StandbyArgs) -> Result<Verdict> {
    print_all(&standby_objects(args)?)
}

fn standby_objects(args: &StandbyArgs) -> Result<[Value; 3]> {
    let groups: Vec<String> = args.groups.iter().map(ToString::to_string).collect();
    let args = &args.namespace;
    let level = args.pod_security.as_str();
    if !["restricted", "baseline", "privileged"].contains(&level) {
        bail!("--pod-security {level:?} is no Pod Security level; use restricted, baseline or privileged");
    }
    let namespace = json!({
        "apiVersion": "v1", "kind": "Namespace",
        "metadata": {
            "name": args.namespace,
            "labels": {"pod-security.kubernetes.io/enforce": level},
            "annotations": {GROUPS_ANNOTATION: groups.join(",")},
        },
    });
    let verbs = ["get", "list", "watch", "create", "update", "patch", "delete"];
    let mut role = role(args, &verbs);
    if let Some(Value::Array(rules)) = role.get_mut("rules") {
        rules.extend(looks());
    }
    Ok([namespace, role, binding(args)])
}

/// What tells beforehand that a group could not start here.
fn looks() -> [Value; 3] {
    let reads = ["get", "list", "watch"];
    [
        // As a dry run alone: the API server says why it would refuse a pod.
        json!({"apiGroups": [""], "resources": ["pods"], "verbs": ["create"]}),
        // Claims hold data: they are named when copies go, and stay.
        json!({"apiGroups": [""], "resources": ["persistentvolumeclaims"], "verbs": reads}),
        // A volume that can't be mounted is told by an Event alone.
        json!({"apiGroups": ["events.k8s.io"], "resources": ["events"], "verbs": ["list"]}),
    ]
}

/// Kinds of a group that stay at home: the operator names them, and reads them for that.
const STAYING: [(&str, &[&str]); 6] = [
    ("apps", &["daemonsets"]),
    ("autoscaling", &["horizontalpodautoscalers"]),
    ("batch", &["cronjobs", "jobs"]),
    ("networking.k8s.io", &["ingresses", "networkpolicies"]),
    ("policy", &["poddisruptionbudgets"]),
    ("rbac.authorization.k8s.io", &["roles", "rolebindings"]),
];

/// Role and RoleBinding: the operator reads here, and writes what its gate policies need.
pub fn home(args: &Args) -> Result<Verdict> {
    print_all(&[home_role(args), binding(args)])
}

fn home_role(args: &Args) -> Value {
    let verbs = ["get", "list", "watch"];
    let mut role = role(args, &verbs);
    let staying =
        STAYING.iter().map(|(group, resources)| json!({"apiGroups": [group], "resources": resources, "verbs": verbs}));
    if let Some(rules) = role["rules"].as_array_mut() {
        rules.extend(staying);
    }
    role
}

fn role(args: &Args, verbs: &[&str]) -> Value {
    let mut rules: Vec<Value> = KINDS
        .iter()
        .map(|(group, resources)| json!({"apiGroups": [group], "resources": resources, "verbs": verbs}))
        .collect();
    let mut pods = vec!["get", "list", "watch"];
    if verbs.contains(&"delete") {
        // A StatefulSet's held pods of an older revision: nothing else replaces them.
        pods.push("delete");
    }
    rules.push(json!({"apiGroups": [""], "resources": ["pods"], "verbs": pods}));
    // In a Role of the namespace: that one namespace, which says whose copies are let in, and in
    // which a policy lets the operator change its own label alone.
    rules.push(json!({"apiGroups": [""], "resources": ["namespaces"], "verbs": ["get", "patch"]}));
    rules.push(json!({"apiGroups": ["apps"], "resources": ["replicasets"], "verbs": ["get", "list", "watch"]}));
    rules.push(json!({
        "apiGroups": ["regent.dev"], "resources": ["gatedpods"],
        "verbs": ["get", "list", "watch", "create", "update", "patch", "delete"],
    }));
    json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role",
        "metadata": {"name": "regent-operator", "namespace": args.namespace},
        "rules": rules,
    })
}

fn binding(args: &Args) -> Value {
    json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding",
        "metadata": {"name": "regent-operator", "namespace": args.namespace},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "regent-operator"},
        "subjects": [{"kind": "ServiceAccount", "name": "regent-operator", "namespace": "regent-system"}],
    })
}

fn print_all(objects: &[Value]) -> Result<Verdict> {
    for object in objects {
        print!("---\n{}", serde_yaml_ng::to_string(object)?);
    }
    Ok(Verdict::Well)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn home_is_only_read() {
        let args = Args { namespace: "shop".into(), pod_security: "restricted".into() };
        let role = home_role(&args);
        for rule in role["rules"].as_array().unwrap() {
            let writes = rule["verbs"].as_array().unwrap().len() > 3;
            assert_eq!(writes, rule["resources"][0] == "gatedpods", "{rule}");
        }
    }

    #[test]
    fn a_standbys_namespace_names_the_groups_that_its_owner_lets_in() {
        let namespace = Args { namespace: "shop".into(), pod_security: "baseline".into() };
        let groups = vec!["ireland/shop".parse().unwrap(), "ireland/tills".parse().unwrap()];
        let [namespace, role, _] = standby_objects(&StandbyArgs { namespace, groups }).unwrap();
        assert_eq!(namespace["metadata"]["annotations"]["regent.dev/groups"], "ireland/shop,ireland/tills");
        let may = |resource: &str, verb: &str| {
            let has = |rule: &Value, field: &str, word: &str| rule[field].as_array().unwrap().contains(&json!(word));
            let rules = role["rules"].as_array().unwrap();
            rules.iter().any(|rule| has(rule, "resources", resource) && has(rule, "verbs", verb))
        };
        for (resource, verb) in [
            ("namespaces", "get"),
            ("namespaces", "patch"),
            ("pods", "create"),
            ("pods", "delete"),
            ("replicasets", "watch"),
            ("persistentvolumeclaims", "list"),
            ("events", "list"),
        ] {
            assert!(may(resource, verb), "{verb} {resource}");
        }
        for (resource, verb) in [("namespaces", "list"), ("persistentvolumeclaims", "delete"), ("pods", "patch")] {
            assert!(!may(resource, verb), "{verb} {resource}");
        }
    }
}
