//! What belongs to a group and stays at home: kinds that would act from a standby, or that
//! mean something in home's cluster only.
//!
//! | | belongs by |
//! |---|---|
//! | Ingress | a backend that is a Service of the group |
//! | HorizontalPodAutoscaler | its target |
//! | PodDisruptionBudget, NetworkPolicy | its selector, which matches a template |
//! | RoleBinding, Role | an account of the group; such a binding |
//! | CronJob, Job, DaemonSet | its template's labels, also while no pod of it exists |
//! | Service without selector | its own labels: its endpoints are home's |

use std::collections::BTreeSet;

use regent_api::Selector;
use serde_json::Value;

use crate::object::{controller_of, items, labels, object_of, selects, text};
use crate::select::{Accounts, is_ours};

/// The kinds that are looked at, with their API versions.
pub const REST: [(&str, &str); 9] = [
    ("networking.k8s.io/v1", "Ingress"),
    ("autoscaling/v2", "HorizontalPodAutoscaler"),
    ("policy/v1", "PodDisruptionBudget"),
    ("networking.k8s.io/v1", "NetworkPolicy"),
    ("rbac.authorization.k8s.io/v1", "RoleBinding"),
    ("rbac.authorization.k8s.io/v1", "Role"),
    ("batch/v1", "CronJob"),
    ("batch/v1", "Job"),
    ("apps/v1", "DaemonSet"),
];

/// What of a namespace is mirrored.
#[derive(Debug)]
pub struct Mirrored<'a> {
    /// The group's selector.
    pub selector: &'a Selector,
    /// Its Deployments and StatefulSets there.
    pub workloads: &'a [Value],
    /// Its Services, by name.
    pub services: BTreeSet<&'a str>,
    /// The accounts of its pods in all of its namespaces.
    pub accounts: &'a Accounts,
}

impl Mirrored<'_> {
    fn selects_template(&self, selector: Option<&Value>) -> bool {
        self.workloads.iter().any(|w| selects(selector, &labels(w, "/spec/template/metadata/labels")))
    }

    fn serves(&self, ingress: &Value) -> bool {
        let paths = items(ingress, "/spec/rules").flat_map(|r| items(r, "/http/paths"));
        let by_path = paths.map(|p| text(p, "/backend/service/name"));
        let mut backends = by_path.chain([text(ingress, "/spec/defaultBackend/service/name")]);
        backends.any(|s| self.services.contains(s))
    }

    fn binds(&self, binding: &Value) -> bool {
        let is_account =
            |s: &Value| self.accounts.iter().any(|(n, a)| text(s, "/namespace") == n && text(s, "/name") == a);
        let is_group = |name: &str| match name.strip_prefix("system:serviceaccounts") {
            Some("") => !self.accounts.is_empty(),
            Some(of) => self.accounts.iter().any(|(n, _)| of.strip_prefix(':') == Some(n)),
            None => false,
        };
        items(binding, "/subjects").any(|s| match text(s, "/kind") {
            "ServiceAccount" => is_account(s),
            "Group" => is_group(text(s, "/name")),
            _ => false,
        })
    }

    fn owns(&self, object: &Value, roles: &BTreeSet<&str>) -> bool {
        match text(object, "/kind") {
            "Ingress" => self.serves(object),
            "HorizontalPodAutoscaler" => {
                let target = (text(object, "/spec/scaleTargetRef/kind"), text(object, "/spec/scaleTargetRef/name"));
                self.workloads.iter().any(|w| (text(w, "/kind"), text(w, "/metadata/name")) == target)
            }
            "PodDisruptionBudget" => self.selects_template(object.pointer("/spec/selector")),
            "NetworkPolicy" => self.selects_template(object.pointer("/spec/podSelector")),
            "RoleBinding" => self.binds(object),
            "Role" => roles.contains(text(object, "/metadata/name")),
            "CronJob" => self.selector.matches(&labels(object, "/spec/jobTemplate/spec/template/metadata/labels")),
            // A CronJob's Job is told by the CronJob.
            "Job" => controller_of(object).is_none() && is_ours(self.selector, object),
            "DaemonSet" => is_ours(self.selector, object),
            _ => false,
        }
    }
}

/// What of these objects belongs to the group: `Kind NAMESPACE/NAME`.
pub fn rest(mirrored: &Mirrored<'_>, objects: &[Value]) -> BTreeSet<String> {
    let bindings = objects.iter().filter(|o| text(o, "/kind") == "RoleBinding" && mirrored.binds(o));
    let roles = bindings.filter(|b| text(b, "/roleRef/kind") == "Role").map(|b| text(b, "/roleRef/name")).collect();
    objects.iter().filter(|o| mirrored.owns(o, &roles)).map(object_of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn objects(yaml: &[&str]) -> Vec<Value> {
        yaml.iter().map(|y| serde_yaml_ng::from_str(y).unwrap()).collect()
    }

    /// Of a usual chart, and of a stranger beside it in the namespace.
    const CHART: [&str; 19] = [
        "{kind: Ingress, metadata: {name: desk, namespace: case}, spec: {rules: [{http: {paths: [{path: /, backend: {service: {name: desk}}}]}}]}}",
        "{kind: Ingress, metadata: {name: all, namespace: case}, spec: {defaultBackend: {service: {name: desk}}}}",
        "{kind: Ingress, metadata: {name: other, namespace: case}, spec: {defaultBackend: {service: {name: other}}}}",
        "{kind: HorizontalPodAutoscaler, metadata: {name: desk, namespace: case}, spec: {scaleTargetRef: {kind: Deployment, name: desk}}}",
        "{kind: HorizontalPodAutoscaler, metadata: {name: other, namespace: case}, spec: {scaleTargetRef: {kind: StatefulSet, name: desk}}}",
        "{kind: PodDisruptionBudget, metadata: {name: desk, namespace: case}, spec: {selector: {matchExpressions: [{key: part, operator: In, values: [desk]}]}}}",
        "{kind: PodDisruptionBudget, metadata: {name: other, namespace: case}, spec: {selector: {matchLabels: {app: other}}}}",
        "{kind: NetworkPolicy, metadata: {name: deny, namespace: case}, spec: {podSelector: {}}}",
        "{kind: Role, metadata: {name: desk, namespace: case}}",
        "{kind: Role, metadata: {name: other, namespace: case}}",
        "{kind: RoleBinding, metadata: {name: desk, namespace: case}, roleRef: {kind: Role, name: desk}, subjects: [{kind: ServiceAccount, name: desk, namespace: case}]}",
        "{kind: RoleBinding, metadata: {name: other, namespace: case}, roleRef: {kind: Role, name: other}, subjects: [{kind: ServiceAccount, name: desk, namespace: elsewhere}]}",
        "{kind: RoleBinding, metadata: {name: beside, namespace: case}, roleRef: {kind: ClusterRole, name: view}, subjects: [{kind: ServiceAccount, name: desk, namespace: beside}]}",
        "{kind: RoleBinding, metadata: {name: everyone, namespace: case}, roleRef: {kind: ClusterRole, name: view}, subjects: [{kind: Group, name: 'system:serviceaccounts:case'}]}",
        "{kind: CronJob, metadata: {name: desk-night, namespace: case}, spec: {jobTemplate: {spec: {template: {metadata: {labels: {app: case}}}}}}}",
        "{kind: Job, metadata: {name: desk-night-1, namespace: case, ownerReferences: [{kind: CronJob, name: desk-night, uid: u, controller: true}]}, spec: {template: {metadata: {labels: {app: case}}}}}",
        "{kind: Job, metadata: {name: once, namespace: case}, spec: {template: {metadata: {labels: {app: case}}}}}",
        "{kind: DaemonSet, metadata: {name: logs, namespace: case}, spec: {template: {metadata: {labels: {app: case}}}}}",
        "{kind: DaemonSet, metadata: {name: other, namespace: case}, spec: {template: {metadata: {labels: {app: other}}}}}",
    ];

    #[test]
    fn the_rest_of_a_chart_is_named_and_what_is_anothers_is_not() {
        let desk = objects(&[
            "{kind: Deployment, metadata: {name: desk, namespace: case}, spec: {template: {metadata: {labels: {app: case, part: desk}}}}}",
        ]);
        let selector = Selector { match_labels: [("app".to_owned(), "case".to_owned())].into(), ..Selector::default() };
        let accounts = [("case".to_owned(), "desk".to_owned()), ("beside".to_owned(), "desk".to_owned())].into();
        let mirrored =
            Mirrored { selector: &selector, workloads: &desk, services: ["desk"].into(), accounts: &accounts };
        let named = rest(&mirrored, &objects(&CHART));
        let expected = [
            "CronJob case/desk-night",
            "DaemonSet case/logs",
            "HorizontalPodAutoscaler case/desk",
            "Ingress case/all",
            "Ingress case/desk",
            "Job case/once",
            "NetworkPolicy case/deny",
            "PodDisruptionBudget case/desk",
            "Role case/desk",
            "RoleBinding case/beside",
            "RoleBinding case/desk",
            "RoleBinding case/everyone",
        ];
        assert_eq!(named, expected.map(str::to_owned).into());
    }
}
