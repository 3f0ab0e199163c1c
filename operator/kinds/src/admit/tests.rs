//! Bundles that people sign, and what a hostile one tries.

use regent_api::site::Mapping;

use super::*;

fn objects(yaml: &str) -> Vec<Value> {
    use serde::Deserialize;
    serde_yaml_ng::Deserializer::from_str(yaml).map(|d| Value::deserialize(d).unwrap()).collect()
}

fn deployment(pod: Value) -> Value {
    json!({ "apiVersion": "apps/v1", "kind": "Deployment", "metadata": { "name": "till", "namespace": "case" },
        "spec": { "selector": { "matchLabels": { "app": "case" } },
                  "template": { "metadata": { "labels": { "app": "case" } }, "spec": pod } } })
}

fn named(kind: &str, name: &str) -> Value {
    json!({ "apiVersion": "v1", "kind": kind, "metadata": { "name": name, "namespace": "case" } })
}

fn admitted(objects: &[Value]) -> Admitted {
    admit(objects, &SiteSpec::default())
}

const NAMED_TWICE: &str = "
apiVersion: apps/v1
kind: Deployment
metadata: {name: till, namespace: case}
spec:
  selector: {matchLabels: {app: case}}
  template:
    metadata: {labels: {app: case}}
    spec:
      serviceAccountName: till
      containers:
      - name: app
        image: shop:1
        env:
        - {name: MODE, value: trial}
        - {name: MODE, value: live}
        ports:
        - {name: web, containerPort: 8080}
        - {name: metrics, containerPort: 8080}
---
{apiVersion: v1, kind: ServiceAccount, metadata: {name: till, namespace: case}}
---
apiVersion: v1
kind: Service
metadata: {name: till, namespace: case}
spec: {selector: {app: case}, ports: [{port: 80, targetPort: metrics}]}
";

#[test]
fn what_is_named_twice_is_folded_to_what_counts_at_home_and_said() {
    let admitted = admitted(&objects(NAMED_TWICE));
    assert_eq!(admitted.blocked(), None);
    let container = &admitted.objects[0]["spec"]["template"]["spec"]["containers"][0];
    assert_eq!(container["env"], json!([{ "name": "MODE", "value": "live" }]));
    assert_eq!(container["ports"], json!([{ "name": "metrics", "containerPort": 8080 }]), "a Service names that one");
    assert_eq!(admitted.notices.len(), 2, "{:?}", admitted.notices);
    assert_eq!(admitted.notices[0], "Deployment case/till: container app has variable MODE twice: the last counts");
}

#[test]
fn a_service_without_a_selector_names_no_port_of_a_workload() {
    let mut objects = objects(NAMED_TWICE);
    let partner = json!({ "apiVersion": "v1", "kind": "Service", "metadata": { "name": "partner", "namespace": "case" },
        "spec": { "ports": [{ "port": 80, "targetPort": "web" }] } });
    objects.push(partner);
    assert_eq!(admitted(&objects).blocked(), None, "web is no name that a Service reaches it by");
}

#[test]
fn the_pull_secret_of_homes_default_account_travels_and_the_partners_account_is_untouched() {
    let mut account = named("ServiceAccount", "default");
    account["imagePullSecrets"] = json!([{ "name": "pull-from-home" }]);
    let bundle = [account, named("Secret", "pull-from-home"), deployment(json!({ "containers": [] }))];
    let admitted = admitted(&bundle);
    assert_eq!(admitted.blocked(), None);
    let kinds: Vec<&str> = admitted.objects.iter().map(|o| text(o, "/kind")).collect();
    assert_eq!(kinds, ["Secret", "Deployment"], "no ServiceAccount default is applied");
    let pod = &admitted.objects[1]["spec"]["template"]["spec"];
    assert_eq!(pod["imagePullSecrets"], json!([{ "name": "pull-from-home" }]));
    assert_eq!(pod["automountServiceAccountToken"], false);
    assert!(admitted.notices[0].contains("account default"), "{:?}", admitted.notices);
}

#[test]
fn a_secret_that_does_not_travel_blocks_with_who_needs_it() {
    let mut token = named("Secret", "robot");
    token["type"] = json!("kubernetes.io/service-account-token");
    let env = json!([{ "name": "ROBOT", "valueFrom": { "secretKeyRef": { "name": "robot", "key": "token" } } }]);
    let teller = deployment(json!({ "containers": [{ "name": "main", "image": "teller:1", "env": env }] }));
    for bundle in [vec![teller.clone()], vec![token, teller]] {
        let blocked = admitted(&bundle).blocked().unwrap();
        assert!(
            blocked.contains("Deployment case/till: container main, env ROBOT: needs Secret case/robot"),
            "{blocked}"
        );
    }
}

#[test]
fn annotations_speak_to_operators_only_where_the_partner_lists_them() {
    let mut front = named("Service", "front");
    let name = "service.beta.kubernetes.io/example-load-balancer-name";
    front["metadata"]["annotations"] =
        json!({ name: "case-front", "metallb.io/loadBalancerIPs": "192.0.2.80", "team": "till" });
    let admitted = admit(&[front.clone()], &SiteSpec::default());
    assert_eq!(admitted.objects[0]["metadata"]["annotations"], json!({ "team": "till" }));
    assert_eq!(admitted.notices.len(), 1);
    assert!(admitted.notices[0].contains(name) && admitted.notices[0].contains("Service case/front"));
    let listed = SiteSpec { annotations: vec!["metallb.io/".into()], ..SiteSpec::default() };
    let admitted = admit(&[front], &listed);
    assert_eq!(admitted.objects[0]["metadata"]["annotations"]["metallb.io/loadBalancerIPs"], "192.0.2.80");

    let mut roll = deployment(json!({ "serviceAccountName": "", "automountServiceAccountToken": false }));
    roll["spec"]["template"]["metadata"]["annotations"] =
        json!({ "kubectl.kubernetes.io/restartedAt": "now", "checksum/config": "1", "container.example/x": "y" });
    let admitted = admit(&[roll], &SiteSpec::default());
    let kept = admitted.objects[0]["spec"]["template"]["metadata"]["annotations"].as_object().unwrap();
    assert_eq!(kept.len(), 2, "{kept:?}");
}

#[test]
fn a_foreign_registry_is_refused_by_container_and_image_after_the_table() {
    let pod = json!({ "automountServiceAccountToken": false,
        "initContainers": [{ "name": "schema", "image": "home.example/schema:7" }],
        "containers": [{ "name": "app", "image": "evil.example/app:1" }],
        "volumes": [{ "name": "model", "image": { "reference": "evil.example/model:1" } }] });
    let tables = SiteSpec {
        registries: vec![Mapping { from: "home.example".into(), to: "here.example/home".into() }],
        allowed_registries: vec!["here.example".into()],
        ..SiteSpec::default()
    };
    let refusals = admit(&[deployment(pod)], &tables).refusals;
    let fields: Vec<&str> = refusals.iter().map(|r| r.field.as_str()).collect();
    assert_eq!(fields, ["container app", "volume model"]);
    assert!(refusals[0].message.contains("evil.example/app:1") && refusals[0].message.contains("allowedRegistries"));
}

#[test]
fn what_a_hostile_home_signs_is_refused_or_loses_its_edge() {
    let mut token = named("Secret", "token");
    token["type"] = json!("kubernetes.io/service-account-token");
    let mut note = named("Secret", "note");
    note["metadata"]["annotations"] = json!({ "kubernetes.io/service-account.name": "admin" });
    note["metadata"]["finalizers"] = json!(["never.example/x"]);
    note["metadata"]["ownerReferences"] = json!([{ "kind": "Namespace", "name": "case", "uid": "u" }]);
    let mut addresses = named("Service", "addresses");
    addresses["spec"] = json!({ "externalIPs": ["192.0.2.1"], "clusterIP": "10.0.0.1", "loadBalancerIP": "192.0.2.2",
        "healthCheckNodePort": 30000, "type": "ExternalName", "externalName": "db.example" });
    let role = json!({ "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role",
        "metadata": { "name": "r", "namespace": "case" } });
    let pod = json!({ "hostNetwork": true, "serviceAccountName": "admin", "nodeName": "control-plane",
        "volumes": [{ "name": "root", "hostPath": { "path": "/" } }],
        "containers": [{ "name": "c", "image": "i", "securityContext": { "privileged": true } }] });
    let bundle = [token, note, addresses, role, named("ConfigMap", "kube-root-ca.crt"), deployment(pod)];
    let admitted = admitted(&bundle);
    let refused: Vec<String> = admitted.refusals.iter().map(|r| format!("{} {}", r.object, r.field)).collect();
    let expected = [
        "Secret case/token type",
        "Role case/r kind",
        "ConfigMap case/kube-root-ca.crt metadata.name",
        "Deployment case/till hostNetwork",
        "Deployment case/till volume root",
        "Deployment case/till container c, securityContext",
        "Deployment case/till serviceAccountName",
    ];
    assert_eq!(refused, expected);
    assert!(admitted.blocked().unwrap().ends_with("; and 2 more"));
    assert_eq!(admitted.objects[1]["metadata"], json!({ "name": "note", "namespace": "case" }));
    assert_eq!(admitted.objects[2]["spec"], json!({ "type": "ExternalName", "externalName": "db.example" }));
    assert_eq!(admitted.objects[5]["spec"]["template"]["spec"].get("nodeName"), None);
}

#[test]
fn what_a_bundle_says_of_any_length_makes_short_messages() {
    let long = "x".repeat(100_000);
    let pod = json!({ "automountServiceAccountToken": false,
        "volumes": (0..1000).map(|i| json!({ "name": format!("{i}{long}"), "hostPath": {} })).collect::<Vec<_>>() });
    let mut many = deployment(pod);
    many["metadata"]["name"] = json!(long);
    let admitted = admitted(&[many]);
    assert!(admitted.refusals.len() <= KEPT);
    assert!(admitted.blocked().unwrap().len() < 10_000);
}

#[test]
fn admitting_what_is_admitted_changes_nothing() {
    let once = admitted(&objects(NAMED_TWICE));
    let twice = admitted(&once.objects);
    assert_eq!((twice.objects, twice.notices), (once.objects, vec![]));
}

#[test]
fn a_readiness_gate_that_nobody_may_set_here_is_named() {
    let pod = json!({ "readinessGates": [{ "conditionType": "example/ready" }], "containers": [{ "name": "c", "image": "i:1" }] });
    let told = admitted(&[deployment(pod)]).notices;
    assert!(told.iter().any(|n| n.contains("readiness gate example/ready")), "{told:?}");
}
