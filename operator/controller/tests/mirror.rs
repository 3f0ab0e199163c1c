//! Home's objects become a standby's copies, between two real API servers.

#![allow(clippy::unwrap_used, clippy::expect_used)] // A helper that fails fails its test.

mod common;

use common::Clusters;
use ed25519_dalek::SigningKey;
use regent_api::{FailoverGroupSpec, SiteSpec};
use regent_controller::mirror::bundle::{Bundle, digest_of, object_of, pack, unpack};
use regent_controller::mirror::capture::capture;
use regent_controller::standby::apply::{Applier, ApplyError};
use regent_controller::standby::derive::{Mode, derive};
use regent_core::ids::GroupKey;
use regent_core::sign::{Envelope, PublicKey};
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
    let captured = capture(home, &group(), &spec).await.unwrap();
    let envelope = Envelope::sign(&captured.bundle, "ireland", &key());
    let digest = digest_of(&envelope).to_string();
    let packed = pack(&group(), &envelope).unwrap();
    let opened = unpack(&group(), &packed, &digest, &group().home, &PublicKey::of(&key())).unwrap();
    (opened, digest)
}

fn copies(bundle: &Bundle) -> Vec<Value> {
    bundle.objects.iter().map(|o| derive(o, &group(), &SiteSpec::default(), Mode::Held)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_standby_holds_what_home_has_and_never_takes_what_is_not_regents() {
    let clusters = Clusters::start(2).await;
    let (home, standby) = (clusters.client(0), Applier { client: clusters.client(1) });
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
    let error = standby.apply(&group(), &copies(&bundle), || true).await.unwrap_err();
    assert!(
        matches!(error, ApplyError::NameTaken { .. }) && error.to_string().contains("ConfigMap shop/env"),
        "{error}"
    );
    assert_eq!(at_standby("configmap/env", ".data.COLOUR"), "red");
    assert_eq!(at_standby("deployment/shop", ".metadata.name"), "", "nothing at all is made then");
    clusters.kubectl(1, &["-n", "shop", "delete", "configmap", "env"], "").unwrap();

    standby.apply(&group(), &copies(&bundle), || true).await.unwrap();
    standby.apply(&group(), &copies(&bundle), || true).await.unwrap();
    assert_eq!(at_standby("configmap/env", ".data.COLOUR"), "green");
    assert_eq!(at_standby("deployment/shop", ".spec.template.spec.initContainers[0].name"), "regent-gate");
    assert_eq!(at_standby("deployment/shop", ".spec.strategy.rollingUpdate.maxUnavailable"), "100%");
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
    standby.apply(&group(), &copies(&bundle), || true).await.unwrap();
    standby.prune(&group(), &["shop".to_owned()], &copies(&bundle)).await.unwrap();
    assert_eq!(at_standby("configmap/env", ".data.COLOUR"), "blue");
    assert_eq!(at_standby("secret/key", ".metadata.name"), "");
    assert_eq!(at_standby("secret/mine", ".metadata.name"), "mine");

    // The site may not hold the group any more.
    standby.gate_pods(&group(), &bundle.spec, None).await.unwrap();
    assert_eq!(at_standby("gatedpods/ireland.shop", ".spec.group"), "ireland/shop");
    standby.remove_all(&group(), &["shop".to_owned()]).await.unwrap();
    for what in ["deployment/shop", "service/shop", "configmap/env", "gatedpods/ireland.shop"] {
        assert_eq!(at_standby(what, ".metadata.name"), "", "{what}");
    }
    assert_eq!(at_standby("secret/mine", ".metadata.name"), "mine");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_standby_that_is_not_prepared_says_what_its_owner_has_to_apply() {
    let clusters = Clusters::start(1).await;
    let standby = Applier { client: clusters.client(0) };
    let copy: Value = serde_json::from_str(
        r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"env","namespace":"nowhere"},"data":{}}"#,
    )
    .unwrap();
    let copy = derive(&copy, &group(), &SiteSpec::default(), Mode::Held);
    let error = standby.apply(&group(), &[copy], || true).await.unwrap_err();
    assert_eq!(error.reason(), "NotPrepared");
    assert!(error.to_string().contains("kubectl regent standby prepare --namespace nowhere"), "{error}");
}
