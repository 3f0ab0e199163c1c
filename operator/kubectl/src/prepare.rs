//! `standby prepare` and `home prepare`: what a party applies in its own cluster, so that
//! Regent may work in one namespace of it and nowhere else.

use anyhow::{Result, bail};
use clap::Args as ClapArgs;
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

/// Kinds that the mirror knows, by API group.
const KINDS: [(&str, &[&str]); 2] =
    [("", &["services", "configmaps", "secrets", "serviceaccounts"]), ("apps", &["deployments", "statefulsets"])];

/// Namespace, Role and RoleBinding: the operator keeps copies here.
pub fn standby(args: &Args) -> Result<Verdict> {
    let level = args.pod_security.as_str();
    if !["restricted", "baseline", "privileged"].contains(&level) {
        bail!("--pod-security {level:?} is no Pod Security level; use restricted, baseline or privileged");
    }
    let namespace = json!({
        "apiVersion": "v1", "kind": "Namespace",
        "metadata": {"name": args.namespace, "labels": {"pod-security.kubernetes.io/enforce": level}},
    });
    let verbs = ["get", "list", "watch", "create", "update", "patch", "delete"];
    print_all(&[namespace, role(args, &verbs), binding(args)])
}

/// Role and RoleBinding: the operator reads here, and writes what its gate policies need.
pub fn home(args: &Args) -> Result<Verdict> {
    print_all(&[role(args, &["get", "list", "watch"]), binding(args)])
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
        let role = role(&args, &["get", "list", "watch"]);
        for rule in role["rules"].as_array().unwrap() {
            let writes = rule["verbs"].as_array().unwrap().len() > 3;
            assert_eq!(writes, rule["resources"][0] == "gatedpods", "{rule}");
        }
    }
}
