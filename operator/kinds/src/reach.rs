//! What a pod template needs of its namespace, and that it is the group's own.
//!
//! A name is only a name: at a standby an object that the bundle lacks may be there all the
//! same, as another home's or the partner's. So what isn't optional must be in the bundle,
//! and what is optional is taken out of the copy.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use crate::object::{items, text};

/// The objects of a bundle: kind, namespace and name.
pub type Names = BTreeSet<(String, String, String)>;

/// What looking at a template came to.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Needs {
    /// What is missing or foreign: field and why.
    pub refused: Vec<(String, String)>,
    /// What was taken out.
    pub told: Vec<String>,
}

/// Looks names up in a bundle.
struct Lookup<'a> {
    names: &'a Names,
    namespace: &'a str,
    needs: Needs,
}

impl Lookup<'_> {
    fn has(&self, kind: &str, name: &str) -> bool {
        // Every namespace has this one of its own, with its own cluster's certificate.
        let is_everywhere = (kind, name) == ("ConfigMap", "kube-root-ca.crt");
        is_everywhere || self.names.contains(&(kind.to_owned(), self.namespace.to_owned(), name.to_owned()))
    }

    /// Whether a reference stays: it is in the bundle, or it isn't optional, which is refused.
    fn keeps(&mut self, field: &str, kind: &str, reference: &Value) -> bool {
        let name = reference.get("name").or_else(|| reference.get("secretName")).and_then(Value::as_str);
        let name = name.unwrap_or_default();
        if self.has(kind, name) {
            return true;
        }
        let object = format!("{kind} {}/{name}", self.namespace);
        if reference.get("optional") == Some(&Value::Bool(true)) {
            self.needs.told.push(format!("{field}: {object} is not in the bundle and optional: the copy goes without"));
            return false;
        }
        let why = format!(
            "needs {object}, which the bundle does not hold: it is missing at home, or does not travel; make it at home, or mark the reference optional"
        );
        self.needs.refused.push((field.to_owned(), why));
        true
    }

    fn sources(&mut self, field: &str, of: &Value, kinds: &[(&str, &str)]) -> bool {
        kinds.iter().all(|(key, kind)| of.get(*key).is_none_or(|reference| self.keeps(field, kind, reference)))
    }
}

/// Looks at a pod template's spec in a namespace.
pub fn look(pod: &mut Value, namespace: &str, names: &Names) -> Needs {
    let mut lookup = Lookup { names, namespace, needs: Needs::default() };
    let Value::Object(pod) = pod else { return lookup.needs };
    account(pod, &mut lookup);
    for list in ["initContainers", "containers"] {
        for container in pod.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
            environment(container, &mut lookup);
        }
    }
    for volume in pod.get_mut("volumes").and_then(Value::as_array_mut).into_iter().flatten() {
        one_volume(volume, &mut lookup);
    }
    if pod.get("resourceClaims").and_then(Value::as_array).is_some_and(|claims| !claims.is_empty()) {
        let why = "names claims of devices, which do not travel; leave them out";
        lookup.needs.refused.push(("resourceClaims".into(), why.into()));
    }
    lookup.needs
}

/// A ServiceAccount's own names: pull secrets that the bundle lacks are taken out.
pub fn pull_secrets(holder: &mut Map<String, Value>, namespace: &str, names: &Names) -> Vec<String> {
    let mut told = Vec::new();
    let Some(Value::Array(secrets)) = holder.get_mut("imagePullSecrets") else { return told };
    secrets.retain(|secret| {
        let name = text(secret, "/name");
        let has = names.contains(&("Secret".to_owned(), namespace.to_owned(), name.to_owned()));
        if !has {
            told.push(format!(
                "imagePullSecrets: Secret {namespace}/{name} is not in the bundle: the copy goes without"
            ));
        }
        has
    });
    if secrets.is_empty() {
        holder.remove("imagePullSecrets");
    }
    told
}

/// The partner's own account and its rights are not home's to use.
fn account(pod: &mut Map<String, Value>, lookup: &mut Lookup) {
    let told = pull_secrets(pod, lookup.namespace, lookup.names);
    lookup.needs.told.extend(told);
    let name = pod.get("serviceAccountName").and_then(Value::as_str).unwrap_or_default().to_owned();
    if !matches!(name.as_str(), "" | "default") {
        lookup.keeps("serviceAccountName", "ServiceAccount", &json!({ "name": name }));
        return;
    }
    let off = pod.insert("automountServiceAccountToken".into(), false.into());
    if off != Some(Value::Bool(false)) {
        let told = "serviceAccountName: account default is each site's own, so copies get no token of the API server; name an account of the group if they need one";
        lookup.needs.told.push(told.to_owned());
    }
    let volumes = pod.get("volumes").cloned().unwrap_or_default();
    for volume in volumes.as_array().into_iter().flatten() {
        let is_token = |s: &Value| s.get("serviceAccountToken").is_some() || s.get("podCertificate").is_some();
        if items(volume, "/projected/sources").any(is_token) {
            let why = "asks for an identity of account default, which is each site's own; name an account of the group in serviceAccountName";
            lookup.needs.refused.push((format!("volume {}", text(volume, "/name")), why.into()));
        }
    }
}

fn environment(container: &mut Value, lookup: &mut Lookup) {
    let name = text(container, "/name").to_owned();
    if let Some(Value::Array(env)) = container.get_mut("env") {
        env.retain(|variable| {
            let field = format!("container {name}, env {}", text(variable, "/name"));
            let from = variable.get("valueFrom").unwrap_or(&Value::Null);
            lookup.sources(&field, from, &[("secretKeyRef", "Secret"), ("configMapKeyRef", "ConfigMap")])
        });
    }
    if let Some(Value::Array(from)) = container.get_mut("envFrom") {
        let field = format!("container {name}, envFrom");
        from.retain(|source| lookup.sources(&field, source, &[("secretRef", "Secret"), ("configMapRef", "ConfigMap")]));
    }
}

fn one_volume(volume: &mut Value, lookup: &mut Lookup) {
    let name = text(volume, "/name").to_owned();
    let field = format!("volume {name}");
    let kinds = [("secret", "Secret"), ("configMap", "ConfigMap")];
    if !lookup.sources(&field, volume, &kinds) {
        *volume = json!({ "name": name, "emptyDir": {} });
        return;
    }
    if let Some(Value::Array(sources)) = volume.pointer_mut("/projected/sources") {
        sources.retain(|source| lookup.sources(&field, source, &kinds));
    }
    let claim = text(volume, "/persistentVolumeClaim/claimName");
    if !claim.is_empty() {
        let why = format!(
            "needs PersistentVolumeClaim {}/{claim}, and claims do not travel; use volumeClaimTemplates of a StatefulSet, or keep the data elsewhere",
            lookup.namespace
        );
        lookup.needs.refused.push((field.clone(), why));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(of: &[(&str, &str)]) -> Names {
        of.iter().map(|(kind, name)| ((*kind).to_owned(), "case".to_owned(), (*name).to_owned())).collect()
    }

    fn looked(mut pod: Value, of: &[(&str, &str)]) -> (Value, Needs) {
        let needs = look(&mut pod, "case", &names(of));
        (pod, needs)
    }

    #[test]
    fn a_secret_that_stays_at_home_is_named_with_who_needs_it() {
        let pod = json!({ "serviceAccountName": "till", "containers": [{ "name": "main", "env": [
            { "name": "ROBOT", "valueFrom": { "secretKeyRef": { "name": "robot", "key": "token" } } },
            { "name": "LATE", "valueFrom": { "secretKeyRef": { "name": "late", "key": "k" } } },
            { "name": "MOOD", "valueFrom": { "configMapKeyRef": { "name": "mood", "key": "k", "optional": true } } }] }] });
        let (pod, needs) = looked(pod, &[("ServiceAccount", "till")]);
        let fields: Vec<&str> = needs.refused.iter().map(|(field, _)| field.as_str()).collect();
        assert_eq!(fields, ["container main, env ROBOT", "container main, env LATE"]);
        assert!(needs.refused[0].1.contains("Secret case/robot"), "{needs:?}");
        assert_eq!(needs.told.len(), 1, "the optional one is no reason to block");
        assert_eq!(items(&pod, "/containers/0/env").count(), 2, "and reaches nobody else's");
    }

    #[test]
    fn an_optional_reference_never_reaches_a_foreign_object() {
        let optional = |key: &str| json!({ key: "theirs", "optional": true });
        let pod = json!({ "serviceAccountName": "till",
            "containers": [{ "name": "main", "envFrom": [{ "secretRef": optional("name") }, { "configMapRef": { "name": "env" } }] }],
            "volumes": [{ "name": "a", "secret": optional("secretName") }, { "name": "b", "configMap": optional("name") },
                        { "name": "c", "projected": { "sources": [{ "secret": optional("name") }, { "configMap": { "name": "kube-root-ca.crt" } }] } }] });
        let (pod, needs) = looked(pod, &[("ServiceAccount", "till"), ("ConfigMap", "env")]);
        assert_eq!(needs.refused, []);
        assert!(!pod.to_string().contains("theirs"), "{pod}");
        assert_eq!(pod["volumes"][0], json!({ "name": "a", "emptyDir": {} }));
        assert_eq!(items(&pod, "/volumes/2/projected/sources").count(), 1);
        assert_eq!(needs.told.len(), 4);
    }

    #[test]
    fn what_is_required_and_not_in_the_bundle_is_refused() {
        for (pod, field) in [
            (json!({ "serviceAccountName": "admin" }), "serviceAccountName"),
            (json!({ "volumes": [{ "name": "v", "secret": { "secretName": "s" } }] }), "volume v"),
            (
                json!({ "volumes": [{ "name": "v", "projected": { "sources": [{ "configMap": { "name": "m" } }] } }] }),
                "volume v",
            ),
            (json!({ "volumes": [{ "name": "v", "persistentVolumeClaim": { "claimName": "data" } }] }), "volume v"),
            (
                json!({ "containers": [{ "name": "c", "envFrom": [{ "secretRef": { "name": "s" } }] }] }),
                "container c, envFrom",
            ),
            (json!({ "resourceClaims": [{ "name": "gpu", "resourceClaimName": "theirs" }] }), "resourceClaims"),
            (
                json!({ "volumes": [{ "name": "v", "projected": { "sources": [{ "serviceAccountToken": { "path": "t" } }] } }] }),
                "volume v",
            ),
        ] {
            let (_, needs) = looked(pod, &[]);
            assert_eq!(needs.refused.len(), 1, "{field}: {needs:?}");
            assert_eq!(needs.refused[0].0, field);
        }
    }

    #[test]
    fn the_partners_own_account_lends_its_rights_to_nobody() {
        for account in [json!({}), json!({ "serviceAccountName": "default", "automountServiceAccountToken": true })] {
            let (pod, needs) = looked(account, &[("ServiceAccount", "default")]);
            assert_eq!(pod["automountServiceAccountToken"], false);
            assert_eq!(needs.told.len(), 1);
        }
        let (pod, needs) = looked(json!({ "serviceAccountName": "till" }), &[("ServiceAccount", "till")]);
        assert_eq!(pod, json!({ "serviceAccountName": "till" }));
        assert_eq!(needs, Needs::default());
    }

    #[test]
    fn pull_secrets_are_the_groups_own() {
        let pod =
            json!({ "serviceAccountName": "till", "imagePullSecrets": [{ "name": "ours" }, { "name": "theirs" }] });
        let (pod, needs) = looked(pod, &[("ServiceAccount", "till"), ("Secret", "ours")]);
        assert_eq!(pod["imagePullSecrets"], json!([{ "name": "ours" }]));
        assert_eq!((needs.refused.len(), needs.told.len()), (0, 1));
    }
}
