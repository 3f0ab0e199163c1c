//! Home's objects become a standby's copies, between two real API servers.

#![allow(clippy::unwrap_used, clippy::expect_used)] // A helper that fails fails its test.

mod common;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use common::{Clusters, release};
use ed25519_dalek::SigningKey;
use regent_api::{FailoverGroupSpec, SiteSpec};
use regent_controller::standby::apply::{Applier, ApplyError, Keep};
use regent_core::ids::GroupKey;
use regent_core::sign::{Envelope, PublicKey};
use regent_kinds::admit::admit;
use regent_kinds::bundle::{Bundle, digest_of, pack, unpack};
use regent_kinds::derive::{Mode, Place, Rollout, derive};
use regent_kinds::object::{object_of, text};
use regent_kinds::putback::put_back;
use serde_json::Value;

const SHOP: &str = r#"
apiVersion: v1
kind: ServiceAccount
metadata: {name: shop, namespace: shop}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: env, namespace: shop}
data: {COLOUR: green}
---
apiVersion: v1
kind: Secret
metadata: {name: key, namespace: shop}
stringData: {token: not-for-the-wire}
---
apiVersion: v1
kind: Service
metadata: {name: shop, namespace: shop}
spec:
  type: NodePort
  selector: {app: shop}
  ports: [{name: http, port: 8080, nodePort: 30080}, {name: other, port: 8081}]
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: shop, namespace: shop}
spec:
  replicas: 2
  selector: {matchLabels: {app: shop}}
  template:
    metadata: {labels: {app: shop}}
    spec:
      serviceAccountName: shop
      containers:
      - name: shop
        image: registry.example/shop:1
        envFrom: [{configMapRef: {name: env}}, {secretRef: {name: key}}]
"#;

fn key() -> SigningKey {
    SigningKey::from_bytes(&[7; 32])
}

fn group() -> GroupKey {
    "ireland/shop".parse().unwrap()
}

/// Captures at home and opens what is captured as a standby would.
async fn carried(home: &kube::Client) -> (Bundle, String) {
    let spec: FailoverGroupSpec = serde_json::from_value(serde_json::json!({
        "home": "ireland", "namespaces": ["shop"], "standbys": ["france"], "selector": { "matchLabels": { "app": "shop" } },
    }))
    .unwrap();
    let captured = release(home, &group(), &spec).await;
    let envelope = Envelope::sign(&captured.bundle, "ireland", &key());
    let digest = digest_of(&envelope).to_string();
    let packed = pack(&group(), &envelope).unwrap();
    let opened = unpack(&group(), &packed, &digest, &group().home, &PublicKey::of(&key())).unwrap();
    (opened, digest)
}

/// Makes the copies that a standby holds, and also what they are made of.
fn admitted_and_copies(bundle: &Bundle, rollout: Rollout) -> (Vec<Value>, Vec<Value>) {
    let (group, tables) = (group(), SiteSpec::default());
    let admitted = admit(&bundle.objects, &tables);
    assert_eq!(admitted.blocked(), None);
    let place = Place { group: &group, tables: &tables, idle: &bundle.idle };
    let copies = admitted.objects.iter().map(|o| derive(o, &place, Mode::Held(rollout))).collect();
    (admitted.objects, copies)
}

fn applier(clusters: &Clusters, site: usize) -> Applier {
    Applier { client: clusters.client(site), group: group(), permit: Arc::new(|| true) }
}

fn copies(bundle: &Bundle) -> Vec<Value> {
    admitted_and_copies(bundle, Rollout::Surge).1
}

#[tokio::test(flavor = "multi_thread")]
async fn a_standby_holds_what_home_has_and_never_takes_what_is_not_regents() {
    let clusters = Clusters::start(2).await;
    let (home, standby) = (clusters.client(0), applier(&clusters, 1));
    for i in [0, 1] {
        clusters.kubectl(i, &["create", "namespace", "shop"], "").unwrap();
    }
    clusters.kubectl(0, &["apply", "-f", "-"], SHOP).unwrap();
    let at_standby = |what: &str, path: &str| {
        let path = format!("jsonpath={{{path}}}");
        clusters.kubectl(1, &["-n", "shop", "get", what, "--ignore-not-found", "-o", &path], "").unwrap()
    };

    let (bundle, digest) = carried(&home).await;
    assert_eq!(bundle.objects.len(), 5, "{:?}", bundle.objects.iter().map(object_of).collect::<Vec<_>>());
    assert_eq!(carried(&home).await.1, digest, "nothing changed, so its name is the same");

    // Somebody else's ConfigMap has the name.
    clusters.kubectl(1, &["-n", "shop", "create", "configmap", "env", "--from-literal=COLOUR=red"], "").unwrap();
    let error = standby.apply(&copies(&bundle)).await.unwrap_err();
    assert!(
        matches!(error, ApplyError::NameTaken { .. }) && error.to_string().contains("ConfigMap shop/env"),
        "{error}"
    );
    assert_eq!(at_standby("configmap/env", ".data.COLOUR"), "red");
    assert_eq!(at_standby("deployment/shop", ".metadata.name"), "", "nothing at all is made then");
    clusters.kubectl(1, &["-n", "shop", "delete", "configmap", "env"], "").unwrap();

    standby.apply(&copies(&bundle)).await.unwrap();
    standby.apply(&copies(&bundle)).await.unwrap();
    assert_eq!(at_standby("configmap/env", ".data.COLOUR"), "green");
    assert_eq!(at_standby("deployment/shop", ".spec.template.spec.initContainers[*].name"), "regent-try-0 regent-gate");
    assert_eq!(at_standby("deployment/shop", ".spec.strategy.rollingUpdate.maxSurge"), "100%");
    assert_eq!(at_standby("service/shop", ".spec.ports[0].nodePort"), "30080");
    let own = |i| {
        clusters
            .kubectl(i, &["-n", "shop", "get", "service/shop", "-o", "jsonpath={.spec.ports[1].nodePort}"], "")
            .unwrap()
    };
    assert_ne!(own(0), "", "home's API server has chosen one");
    assert!(!bundle.objects.iter().any(|o| o.to_string().contains(&own(0))), "and it stays home's");

    // A change travels; what has left the group is removed, and nothing else.
    let changed = SHOP.replace("green", "blue").replace(", {secretRef: {name: key}}", "");
    clusters.kubectl(0, &["apply", "-f", "-"], &changed).unwrap();
    clusters.kubectl(1, &["-n", "shop", "create", "secret", "generic", "mine"], "").unwrap();
    let (bundle, next) = carried(&home).await;
    assert_ne!(next, digest);
    standby.apply(&copies(&bundle)).await.unwrap();
    let objects = copies(&bundle).iter().map(object_of).collect();
    let keep = Keep { objects, pruned: Some(BTreeSet::new()) };
    standby.prune(&["shop".to_owned()], &keep).await.unwrap();
    assert_eq!(at_standby("configmap/env", ".data.COLOUR"), "blue");
    assert_eq!(at_standby("secret/key", ".metadata.name"), "");
    assert_eq!(at_standby("secret/mine", ".metadata.name"), "mine");

    // The site may not hold the group any more.
    standby.gate_pods(&bundle.spec.namespaces, &bundle.spec.selector, None).await.unwrap();
    assert_eq!(at_standby("gatedpods/ireland.shop", ".spec.group"), "ireland/shop");
    let labels =
        || clusters.kubectl(1, &["get", "namespace", "shop", "-o", "jsonpath={.metadata.labels}"], "").unwrap();
    assert!(labels().contains("regent.dev/gated"), "{}", labels());
    standby.prune(&["shop".to_owned()], &Keep::default()).await.unwrap();
    standby.ungate(&["shop".to_owned()]).await.unwrap();
    assert!(!labels().contains("regent.dev/gated"), "{}", labels());
    for what in ["deployment/shop", "service/shop", "configmap/env", "gatedpods/ireland.shop"] {
        assert_eq!(at_standby(what, ".metadata.name"), "", "{what}");
    }
    assert_eq!(at_standby("secret/mine", ".metadata.name"), "mine");
}

/// A port that home's owner chose is the partner's already: which Service, and which port.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_port_that_is_taken_blocks_its_service_by_name() {
    let clusters = Clusters::start(2).await;
    for i in [0, 1] {
        clusters.kubectl(i, &["create", "namespace", "shop"], "").unwrap();
    }
    clusters.kubectl(0, &["apply", "-f", "-"], SHOP).unwrap();
    let (bundle, _) = carried(&clusters.client(0)).await;
    let own = ["create", "service", "nodeport", "own", "--tcp=80:80", "--node-port=30080"];
    clusters.kubectl(1, &own, "").unwrap();
    let error = applier(&clusters, 1).apply(&copies(&bundle)).await.unwrap_err();
    let said = error.to_string();
    assert_eq!(error.reason(), "Refused", "{said}");
    for words in ["Service shop/shop is refused here", "30080", "already allocated"] {
        assert!(said.contains(words), "{said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_standby_that_is_not_prepared_says_what_its_owner_has_to_apply() {
    let clusters = Clusters::start(1).await;
    let standby = applier(&clusters, 0);
    let copy: Value = serde_json::from_str(
        r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"env","namespace":"nowhere"},"data":{}}"#,
    )
    .unwrap();
    let (group, tables) = (group(), SiteSpec::default());
    let place = Place { group: &group, tables: &tables, idle: &[] };
    let copy = derive(&copy, &place, Mode::Held(Rollout::Surge));
    let error = standby.apply(&[copy]).await.unwrap_err();
    assert_eq!(error.reason(), "NotPrepared");
    assert!(error.to_string().contains("kubectl regent standby prepare --namespace nowhere"), "{error}");
}

/// What people create, and apply would not take: one variable and one port twice. With it what
/// is not home's while the gates are closed.
const CREATED: &str = r#"
apiVersion: apps/v1
kind: Deployment
metadata: {name: till, namespace: shop}
spec:
  replicas: 1
  strategy: {type: Recreate}
  selector: {matchLabels: {app: shop}}
  template:
    metadata: {labels: {app: shop}}
    spec:
      containers:
      - name: app
        image: registry.example/till:1
        imagePullPolicy: Always
        env: [{name: MODE, value: trial}, {name: MODE, value: live}]
        ports: [{name: web, containerPort: 8080}, {name: metrics, containerPort: 8080}]
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: ledger, namespace: shop}
spec:
  replicas: 1
  serviceName: ledger
  persistentVolumeClaimRetentionPolicy: {whenDeleted: Delete, whenScaled: Delete}
  selector: {matchLabels: {app: shop, part: ledger}}
  template:
    metadata: {labels: {app: shop, part: ledger}}
    spec: {containers: [{name: app, image: registry.example/ledger:1}]}
  volumeClaimTemplates:
  - metadata: {name: data}
    spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 64Mi}}}
---
apiVersion: v1
kind: Service
metadata: {name: front, namespace: shop}
spec:
  type: LoadBalancer
  externalTrafficPolicy: Local
  selector: {app: shop}
  ports: [{name: web, port: 80, targetPort: web}]
"#;

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_homes_while_gates_are_closed_is_put_back_once() {
    let clusters = Clusters::start(2).await;
    let (home, standby) = (clusters.client(0), applier(&clusters, 1));
    for i in [0, 1] {
        clusters.kubectl(i, &["create", "namespace", "shop"], "").unwrap();
    }
    clusters.kubectl(0, &["create", "-f", "-"], CREATED).unwrap();
    let (bundle, _) = carried(&home).await;
    let (objects, copies) = admitted_and_copies(&bundle, Rollout::Flip);
    standby.apply(&copies).await.unwrap();
    let (_, copies) = admitted_and_copies(&bundle, Rollout::Surge);
    standby.apply(&copies).await.unwrap();

    let get = |what: &str| -> Value {
        serde_json::from_str(&clusters.kubectl(1, &["-n", "shop", "get", what, "-o", "json"], "").unwrap()).unwrap()
    };
    let app = |till: &Value| till["spec"]["template"]["spec"]["containers"][0].clone();
    let till = get("deployment/till");
    assert_eq!(app(&till)["env"], serde_json::json!([{ "name": "MODE", "value": "live" }]));
    assert_eq!(
        (&app(&till)["ports"][0]["name"], &app(&till)["imagePullPolicy"]),
        (&"web".into(), &"IfNotPresent".into())
    );
    assert_eq!(get("service/front")["spec"]["type"], "ClusterIP");
    assert_eq!(get("service/front")["spec"].get("externalTrafficPolicy"), None);
    assert_eq!(get("statefulset/ledger")["spec"]["updateStrategy"], serde_json::json!({ "type": "OnDelete" }));

    // The group runs here, and somebody has scaled.
    clusters.kubectl(1, &["-n", "shop", "scale", "deployment/till", "--replicas=6"], "").unwrap();
    let (group, tables) = (group(), SiteSpec::default());
    let place = Place { group: &group, tables: &tables, idle: &bundle.idle };
    let mut patched = 0;
    for object in &objects {
        let what = format!("{}/{}", text(object, "/kind"), text(object, "/metadata/name"));
        if let Some(patch) = put_back(object, &get(&what), &place) {
            let args = ["-n", "shop", "patch", &what, "--type=merge", "-p", &patch.to_string()];
            clusters.kubectl(1, &args, "").unwrap();
            assert_eq!(put_back(object, &get(&what), &place), None, "{what}");
            patched += 1;
        }
    }
    assert_eq!(patched, 3);
    let (till, ledger, front) = (get("deployment/till"), get("statefulset/ledger"), get("service/front"));
    assert_eq!(till["spec"]["strategy"], serde_json::json!({ "type": "Recreate" }));
    assert_eq!((&till["spec"]["progressDeadlineSeconds"], &till["spec"]["replicas"]), (&600.into(), &6.into()));
    assert_eq!(ledger["spec"]["updateStrategy"]["type"], "RollingUpdate");
    assert_eq!(ledger["spec"]["persistentVolumeClaimRetentionPolicy"]["whenDeleted"], "Retain");
    assert_eq!(
        (&front["spec"]["type"], &front["spec"]["externalTrafficPolicy"]),
        (&"LoadBalancer".into(), &"Local".into())
    );

    // Home is back, and the gates are closed again.
    standby.apply(&copies).await.unwrap();
    assert_eq!(get("service/front")["spec"]["type"], "ClusterIP");
    assert_eq!(get("deployment/till")["spec"]["strategy"]["rollingUpdate"]["maxSurge"], "100%");
}

/// The group ran here, and people patched it: held again, a copy is home's and nothing else.
#[tokio::test(flavor = "multi_thread")]
async fn what_people_changed_while_the_group_ran_is_gone_from_the_copy_that_is_held_again() {
    let clusters = Clusters::start(2).await;
    for i in [0, 1] {
        clusters.kubectl(i, &["create", "namespace", "shop"], "").unwrap();
    }
    clusters.kubectl(0, &["apply", "-f", "-"], SHOP).unwrap();
    let (bundle, _) = carried(&clusters.client(0)).await;
    let standby = applier(&clusters, 1);
    standby.apply(&copies(&bundle)).await.unwrap();
    let at_standby = |path: &str| {
        let path = format!("jsonpath={{{path}}}");
        clusters.kubectl(1, &["-n", "shop", "get", "deployment/shop", "-o", &path], "").unwrap()
    };
    let before = at_standby(".spec.template.spec");
    let run = |args: &[&str]| clusters.kubectl(1, &[&["-n", "shop"], args].concat(), "").unwrap();
    run(&["set", "env", "deployment/shop", "HOTFIX=1"]);
    run(&["set", "image", "deployment/shop", "shop=registry.example/shop:fixed"]);
    run(&["scale", "deployment/shop", "--replicas=6"]);
    let lifecycle = r#"{"spec":{"template":{"spec":{"priority":null,"containers":[{"name":"shop","stdin":true}]}}}}"#;
    run(&["patch", "deployment/shop", "-p", lifecycle]);
    assert!(at_standby(".spec.template.spec").contains("HOTFIX"));
    standby.apply(&copies(&bundle)).await.unwrap();
    assert_eq!(at_standby(".spec.template.spec"), before);
    assert_eq!(at_standby(".spec.replicas"), "2");
}

/// Leadership, or the group's role here, is gone after so many writes.
#[tokio::test(flavor = "multi_thread")]
async fn a_pass_that_outlives_its_leadership_or_role_writes_nothing_more() {
    let clusters = Clusters::start(2).await;
    for i in [0, 1] {
        clusters.kubectl(i, &["create", "namespace", "shop"], "").unwrap();
    }
    clusters.kubectl(0, &["apply", "-f", "-"], SHOP).unwrap();
    let (bundle, _) = carried(&clusters.client(0)).await;
    let made = || {
        let kinds = "serviceaccounts,configmaps,secrets,services,deployments";
        let path = "jsonpath={.items[?(@.metadata.labels.regent\\.dev/group)].metadata.name}";
        clusters.kubectl(1, &["-n", "shop", "get", kinds, "-o", path], "").unwrap().split_whitespace().count()
    };
    for writes in 0..5 {
        let asked = AtomicUsize::new(0);
        let permit = Arc::new(move || asked.fetch_add(1, Ordering::SeqCst) < writes);
        let standby = Applier { permit, ..applier(&clusters, 1) };
        let error = standby.apply(&copies(&bundle)).await.unwrap_err();
        assert!(matches!(error, ApplyError::Changed), "{error}");
        assert_eq!(made(), writes, "one object more than the time before");
    }
    let standby = Applier { permit: Arc::new(|| false), ..applier(&clusters, 1) };
    assert!(matches!(standby.prune(&["shop".to_owned()], &Keep::default()).await, Err(ApplyError::Changed)));
    assert_eq!(made(), 4, "nothing is removed either");
}
