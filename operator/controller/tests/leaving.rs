//! What is taken out at home leaves nothing behind at a standby, on real API servers.

#![allow(clippy::unwrap_used)] // A helper that fails fails its test.

mod common;

use common::played::{Played, Pods};
use common::two::Two;
use common::{Clusters, until};
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use regent_api::FailoverGroup;
use regent_api::group::StandbyState;
use regent_core::ids::GroupKey;

fn group() -> GroupKey {
    "home/shop".parse().unwrap()
}

fn deployment(name: &str, namespace: &str) -> String {
    format!(
        "{{apiVersion: apps/v1, kind: Deployment, metadata: {{name: {name}, namespace: {namespace}}}, spec: {{replicas: 1, \
         selector: {{matchLabels: {{app: shop}}}}, template: {{metadata: {{labels: {{app: shop}}}}, \
         spec: {{containers: [{{name: c, image: 'registry.example/shop:1'}}]}}}}}}}}"
    )
}

/// Names of everything of the group in a namespace of the partner's.
fn left(clusters: &Clusters, namespace: &str) -> String {
    let kinds = "deployments,services,secrets,configmaps,gatedpods";
    let path = "jsonpath={.items[?(@.metadata.labels.regent\\.dev/group)].metadata.name}";
    clusters.kubectl(1, &["-n", namespace, "get", kinds, "-o", path], "").unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_namespace_and_a_group_that_are_taken_out_leave_nothing_behind_at_a_standby() {
    let two = Two::start().await;
    let Two { clusters, .. } = &two;
    let (at_home, at_partner) = (clusters.client(0), clusters.client(1));
    let played = |site, namespace| Played { clusters, site, namespace };
    for namespace in ["shop", "annex"] {
        played(0, namespace).start();
        played(0, namespace).apply(&deployment(namespace, namespace));
        played(0, namespace).complete(namespace, &Pods::Gated(&group()));
        played(1, namespace).start();
        played(1, namespace).let_in(&group());
    }
    let spec = serde_json::from_value(serde_json::json!({ "home": "home", "namespaces": ["shop", "annex"],
        "standbys": ["partner"], "selector": { "matchLabels": { "app": "shop" } } }));
    let groups: Api<FailoverGroup> = Api::all(at_home.clone());
    groups.create(&PostParams::default(), &FailoverGroup::new("shop", spec.unwrap())).await.unwrap();
    let home = two.operate(0);
    let partner = two.operate(1);
    let armed = |what: &'static str| {
        let groups = groups.clone();
        let played = &played;
        async move {
            until(what, || async {
                for namespace in ["shop", "annex"] {
                    if left(clusters, namespace).contains(namespace) {
                        played(1, namespace).complete(namespace, &Pods::Held);
                    }
                }
                let status = groups.get("shop").await.ok()?.status?;
                let is_armed = |s: &regent_api::group::StandbyStatus| s.state == StandbyState::Armed;
                status.standbys.iter().any(is_armed).then_some(())
            })
            .await;
        }
    };
    armed("a standby that holds both namespaces ready").await;
    assert!(left(clusters, "annex").contains("annex"));

    let patch = serde_json::json!({ "spec": { "namespaces": ["shop"] } });
    groups.patch("shop", &PatchParams::default(), &Patch::Merge(&patch)).await.unwrap();
    until("nothing of the group in the namespace that left it", || async {
        left(clusters, "annex").is_empty().then_some(())
    })
    .await;
    assert!(left(clusters, "shop").contains("shop"), "the other one stays");

    groups.delete("shop", &DeleteParams::default()).await.unwrap();
    until("nothing of a group that is deleted at home", || async {
        let copies: Api<FailoverGroup> = Api::all(at_partner.clone());
        let gone = copies.get_opt("home.shop").await.ok()?.is_none();
        (gone && left(clusters, "shop").is_empty()).then_some(())
    })
    .await;
    home.cancel();
    partner.cancel();
}
