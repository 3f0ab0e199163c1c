//! What home gives its standbys, from real API servers: whose pods are whose, when a release
//! counts, what stays behind.

#![allow(clippy::unwrap_used)] // A helper that fails fails its test.

mod common;

use std::collections::BTreeSet;

use common::played::{Played, Pods};
use common::{Clusters, release};
use regent_api::FailoverGroupSpec;
use regent_core::ids::GroupKey;
use regent_kinds::object::{object_of, text};
use regent_kinds::release::{Release, Withheld};
use serde_json::{Value, json};

fn digest() -> String {
    format!("sha256:{}", "ab".repeat(32))
}

async fn captured(clusters: &Clusters) -> Release {
    captured_by(&clusters.client(0)).await
}

async fn captured_by(client: &kube::Client) -> Release {
    let group: GroupKey = "ireland/case".parse().unwrap();
    let spec: FailoverGroupSpec = serde_json::from_value(json!({
        "home": "ireland", "namespaces": ["case"], "standbys": ["france"], "selector": { "matchLabels": { "app": "case" } },
    }))
    .unwrap();
    release(client, &group, &spec).await
}

fn names(release: &Release) -> BTreeSet<String> {
    release.bundle.objects.iter().map(object_of).collect()
}

fn strings<const N: usize>(names: [&str; N]) -> BTreeSet<String> {
    names.map(str::to_owned).into()
}

fn object<'a>(release: &'a Release, name: &str) -> &'a Value {
    release.bundle.objects.iter().find(|o| object_of(o) == name).unwrap()
}

fn played(clusters: &Clusters) -> Played<'_> {
    let played = Played { clusters, site: 0, namespace: "case" };
    played.start();
    played
}

const EXPRESSIONS: &str = "
apiVersion: apps/v1
kind: Deployment
metadata: {name: ledger, namespace: case, labels: {app: case}}
spec:
  replicas: 2
  selector: {matchExpressions: [{key: role, operator: In, values: [ledger, ledger-old]}]}
  template:
    metadata: {labels: {app: case, role: ledger}}
    spec: {containers: [{name: app, image: 'registry.example/case:1'}]}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: desk, namespace: case, labels: {app: case}}
spec:
  replicas: 1
  selector:
    matchLabels: {app: case}
    matchExpressions: [{key: role, operator: NotIn, values: [ledger, ledger-old]}]
  template:
    metadata: {labels: {app: case, role: desk}}
    spec: {containers: [{name: app, image: 'registry.example/case:1'}]}
";

#[tokio::test(flavor = "multi_thread")]
async fn deployments_selected_by_expressions_are_mirrored_each_with_its_own_pods() {
    let clusters = Clusters::start(1).await;
    let home = played(&clusters);
    home.apply(EXPRESSIONS);
    home.complete("ledger", &Pods::Ready(&digest()));
    home.complete("desk", &Pods::Ready(&digest()));
    let release = captured(&clusters).await;
    assert_eq!(release.withheld, None);
    assert_eq!(names(&release), strings(["Deployment case/desk", "Deployment case/ledger"]));
    assert_eq!(release.unknown, BTreeSet::new(), "their ReplicaSets are known");
    let image = text(object(&release, "Deployment case/ledger"), "/spec/template/spec/containers/0/image").to_owned();
    assert_eq!(image, format!("registry.example/case:1@{}", digest()));
    assert_eq!(captured(&clusters).await.bundle, release.bundle, "the same objects make the same bundle");
}

const PULLS: &str = r#"
apiVersion: v1
kind: Secret
metadata: {name: pull-from-home, namespace: case}
type: kubernetes.io/dockerconfigjson
stringData: {.dockerconfigjson: '{"auths": {"registry.rig": {"auth": "bm9ib2R5Om5vdGhpbmc="}}}'}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: default, namespace: case}
imagePullSecrets: [{name: pull-from-home}]
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: till, namespace: case}
spec:
  replicas: 1
  selector: {matchLabels: {app: case}}
  template:
    metadata: {labels: {app: case}}
    spec: {containers: [{name: app, image: 'registry.example/case:1'}]}
"#;

#[tokio::test(flavor = "multi_thread")]
async fn pods_that_name_no_account_take_its_pull_secrets_along_and_the_account_stays() {
    let clusters = Clusters::start(1).await;
    let home = played(&clusters);
    home.apply(PULLS);
    home.complete("till", &Pods::Ready(&digest()));
    let release = captured(&clusters).await;
    assert_eq!(names(&release), strings(["Deployment case/till", "Secret case/pull-from-home"]));
    let pulls = &object(&release, "Deployment case/till")["spec"]["template"]["spec"]["imagePullSecrets"];
    assert_eq!(pulls, &json!([{ "name": "pull-from-home" }]));
}

const CHART: &str = "
apiVersion: apps/v1
kind: Deployment
metadata: {name: desk, namespace: case}
spec:
  replicas: 1
  selector: {matchLabels: {app: case, part: desk}}
  template:
    metadata: {labels: {app: case, part: desk}}
    spec: {serviceAccountName: desk, containers: [{name: desk, image: 'registry.ireland.example/desk:1'}]}
---
{apiVersion: v1, kind: ServiceAccount, metadata: {name: desk, namespace: case}}
---
{apiVersion: v1, kind: ConfigMap, metadata: {name: desk-live, namespace: case, labels: {app: case}}, data: {limit: '3'}}
---
{apiVersion: v1, kind: Service, metadata: {name: desk, namespace: case}, spec: {selector: {app: case, part: desk}, ports: [{port: 80}]}}
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: desk, namespace: case}
spec:
  rules: [{host: desk.example, http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: desk, port: {number: 80}}}}]}}]
---
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata: {name: desk, namespace: case}
spec:
  scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: desk}
  maxReplicas: 6
---
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata: {name: desk, namespace: case}
spec: {maxUnavailable: 1, selector: {matchLabels: {app: case, part: desk}}}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: desk, namespace: case}
spec: {podSelector: {matchLabels: {app: case}}, policyTypes: [Ingress], ingress: [{ports: [{port: 80}]}]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: desk, namespace: case}
rules: [{apiGroups: [''], resources: [configmaps], resourceNames: [desk-live], verbs: [get, watch]}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: desk, namespace: case}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: desk}
subjects: [{kind: ServiceAccount, name: desk, namespace: case}]
---
apiVersion: batch/v1
kind: CronJob
metadata: {name: desk-night, namespace: case}
spec:
  schedule: '0 3 * * *'
  jobTemplate: {spec: {template: {metadata: {labels: {app: case}}, spec: {restartPolicy: Never, containers: [{name: night, image: 'registry.ireland.example/desk:1'}]}}}}
---
{apiVersion: v1, kind: Service, metadata: {name: desk-db, namespace: case, labels: {app: case}}, spec: {ports: [{name: pg, port: 5432}]}}
---
{apiVersion: v1, kind: Service, metadata: {name: clearing, namespace: case, labels: {app: case}}, spec: {type: ExternalName, externalName: clearing.bank.example}}
";

#[tokio::test(flavor = "multi_thread")]
async fn the_rest_of_a_chart_is_named_and_what_a_pod_needs_is_asked_for() {
    let clusters = Clusters::start(1).await;
    let home = played(&clusters);
    home.apply(CHART);
    home.complete("desk", &Pods::Ready(&digest()));
    let release = captured(&clusters).await;
    let stays = [
        "CronJob case/desk-night",
        "HorizontalPodAutoscaler case/desk",
        "Ingress case/desk",
        "NetworkPolicy case/desk",
        "PodDisruptionBudget case/desk",
        "Role case/desk",
        "RoleBinding case/desk",
        "Service case/desk-db",
    ];
    assert_eq!(release.unknown, strings(stays));
    let travels = [
        "ConfigMap case/desk-live",
        "Deployment case/desk",
        "Service case/clearing",
        "Service case/desk",
        "ServiceAccount case/desk",
    ];
    assert_eq!(names(&release), strings(travels));
    assert_eq!((release.unmet.as_slice(), release.notices.as_slice()), (&[][..], &[][..]));

    let env = "containers: [{name: desk, env: [{name: LATE, valueFrom: {secretKeyRef: {name: late, key: k}}}], ";
    home.apply(&CHART.replace("containers: [{name: desk, ", env));
    let late = "Secret case/late is missing at home; container desk, env LATE needs it";
    assert_eq!(captured(&clusters).await.unmet, [late]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_roll_out_that_never_gets_ready_is_withheld() {
    let clusters = Clusters::start(1).await;
    let home = played(&clusters);
    let rates = |tag: &str| {
        PULLS.replace("name: till", "name: rates").replace("replicas: 1", "replicas: 2").replace("case:1", tag)
    };
    home.apply(&rates("case:good"));
    home.complete("rates", &Pods::Ready(&digest()));
    assert_eq!(captured(&clusters).await.withheld, None);

    home.apply(&rates("case:bad"));
    let unseen = captured(&clusters).await.withheld;
    assert!(matches!(&unseen, Some(Withheld::Unsettled(why)) if why.contains("Deployment case/rates")), "{unseen:?}");
    home.status("rates", (3, 1, 2));
    let why = "home is between two revisions: Deployment case/rates has 0 of 2 updated pods available";
    assert_eq!(captured(&clusters).await.withheld, Some(Withheld::Unsettled(why.to_owned())));
}

/// What an operator could read before it had the rights to name what stays at home.
const FEW_RIGHTS: &str = "
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: few, namespace: case}
rules:
- {apiGroups: [''], resources: [pods, services, configmaps, secrets, serviceaccounts], verbs: [list]}
- {apiGroups: [apps], resources: [deployments, statefulsets, replicasets], verbs: [list]}
- {apiGroups: [batch], resources: [cronjobs, jobs], verbs: [list]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: few, namespace: case}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: few}
subjects: [{apiGroup: rbac.authorization.k8s.io, kind: User, name: operator}]
";

#[tokio::test(flavor = "multi_thread")]
async fn a_kind_that_may_not_be_listed_is_said_and_does_not_stop_the_capture() {
    let clusters = Clusters::start(1).await;
    let home = played(&clusters);
    home.apply(CHART);
    home.apply(FEW_RIGHTS);
    home.complete("desk", &Pods::Ready(&digest()));
    let release = captured_by(&clusters.client_as(0, "operator")).await;
    assert_eq!(release.bundle, captured(&clusters).await.bundle, "what travels is the same");
    assert_eq!(release.unknown, strings(["CronJob case/desk-night", "Service case/desk-db"]));
    let told: Vec<&str> = release.notices.iter().filter_map(|n| n.split(' ').next()).collect();
    let kinds = [
        "Ingress",
        "HorizontalPodAutoscaler",
        "PodDisruptionBudget",
        "NetworkPolicy",
        "RoleBinding",
        "Role",
        "DaemonSet",
    ];
    assert_eq!(told, kinds);
    assert!(release.notices[0].contains("kubectl regent home prepare --namespace case"), "{:?}", release.notices);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_stays_at_home_is_accepted_by_kind_namespace_and_name_only() {
    let clusters = Clusters::start(1).await;
    let asked = |accepted: &str| {
        let group = json!({ "apiVersion": "regent.dev/v1alpha1", "kind": "FailoverGroup", "metadata": { "name": "case" },
            "spec": { "home": "ireland", "namespaces": ["case"], "selector": { "matchLabels": { "app": "case" } },
                "staysHome": [accepted] } });
        clusters.kubectl(0, &["apply", "-f", "-"], &group.to_string())
    };
    for wrong in ["Ingress", "Ingress desk", "ingress/desk", "case/desk"] {
        let error = asked(wrong).unwrap_err();
        assert!(error.contains("Kind NAMESPACE/NAME"), "{wrong}: {error}");
    }
    asked("Role case/system:desk").unwrap();
}
