//! Two sites over real API servers: home holds, is lost, is overtaken, comes back, and
//! gets its group by a planned move.

#![allow(clippy::unwrap_used)] // A helper that fails fails its test.

mod common;

use std::time::Duration;

use common::played::{Played, Pods};
use common::two::Two;
use common::{Clusters, until};
use kube::api::{Api, PostParams};
use regent_api::condition;
use regent_api::group::{FailoverGroupSpec, FailoverGroupStatus, MIRRORED, Protection, StandbyState};
use regent_api::takeover::{Phase, TakeoverType};
use regent_api::{ControlLease, FailoverGroup, Takeover, TakeoverSpec};
use regent_controller::context::Context;
use regent_controller::federation::client::Peer;
use regent_core::ids::GroupKey;
use regent_kinds::object::number;
use regent_proto::v1;

fn shop_at(clusters: &Clusters, site: usize) -> Played<'_> {
    let played = Played { clusters, site, namespace: "shop" };
    played.start();
    played.let_in(&group());
    played
}

const SHOP: &str = "
apiVersion: apps/v1
kind: Deployment
metadata: {name: shop, namespace: shop}
spec:
  replicas: 1
  selector: {matchLabels: {app: shop}}
  template:
    metadata: {labels: {app: shop}}
    spec: {containers: [{name: shop, image: 'registry.example/shop:1'}]}
";

fn group() -> GroupKey {
    "home/shop".parse().unwrap()
}

/// Asks at home for a group of the namespace's pods.
async fn ask_for_the_group(at_home: &kube::Client, protection: &str) {
    let spec: FailoverGroupSpec = serde_json::from_value(serde_json::json!({
        "home": "home", "namespaces": ["shop"], "selector": { "matchLabels": { "app": "shop" } }, "standbys": ["partner"],
        "takeoverAfter": "0s", "protection": protection,
    }))
    .unwrap();
    let api: Api<FailoverGroup> = Api::all(at_home.clone());
    api.create(&PostParams::default(), &FailoverGroup::new("shop", spec)).await.unwrap();
}

/// The copies' controller and kubelet do their work as often as the copy changes.
fn hold_the_copy(partner: &Played<'_>) -> Option<()> {
    let copies = partner.clusters.kubectl(partner.site, &["-n", "shop", "get", "deployment", "-o", "name"], "");
    if !copies.ok()?.contains("deployment.apps/shop") {
        return None;
    }
    let copy = partner.get("deployment", "shop");
    if number(&copy, "/status/observedGeneration") < number(&copy, "/metadata/generation") {
        partner.complete("shop", &Pods::Held);
    }
    Some(())
}

/// The partner's copy of the group says that it is protected, and its copies armed.
async fn ready(at_partner: &kube::Client, partner: &Played<'_>) {
    let api: Api<FailoverGroup> = Api::all(at_partner.clone());
    until("a protected group with an armed standby", || async {
        hold_the_copy(partner)?;
        let status = api.get("home.shop").await.ok()?.status?;
        let armed = status.standbys.iter().any(|s| s.state == StandbyState::Armed);
        (armed && status.protection == Some(Protection::Protected)).then_some(())
    })
    .await;
}

async fn holder(client: &kube::Client) -> Option<(String, String)> {
    let api: Api<ControlLease> = Api::all(client.clone());
    let holder = api.get("home.shop").await.ok()?.status?.holder?;
    Some((holder.site, holder.epoch))
}

async fn held_by(client: &kube::Client, site: &str, epoch: &str) {
    until(&format!("{site} holds under {epoch}"), || async {
        (holder(client).await? == (site.to_owned(), epoch.to_owned())).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_home_is_overtaken_and_gets_its_group_back_by_a_planned_move() {
    let two = Two::start().await;
    let Two { clusters, .. } = &two;
    let (at_home, at_partner) = (clusters.client(0), clusters.client(1));
    let (of_home, of_partner) = (shop_at(clusters, 0), shop_at(clusters, 1));
    of_home.apply(SHOP);
    of_home.complete("shop", &Pods::Gated(&group()));
    ask_for_the_group(&at_home, "Protected").await;

    let home = two.operate(0);
    let partner = two.operate(1);
    held_by(&at_home, "home", "1.1").await;
    held_by(&at_partner, "home", "1.1").await;
    ready(&at_partner, &of_partner).await;

    home.cancel();
    held_by(&at_partner, "partner", "2.2").await;

    let home = two.operate(0);
    held_by(&at_home, "partner", "2.2").await;

    let takeovers: Api<Takeover> = Api::all(at_partner.clone());
    let spec = TakeoverSpec {
        group: "home/shop".into(),
        to: "home".into(),
        kind: TakeoverType::Planned,
        reason: None,
        approve: false,
    };
    takeovers.create(&PostParams::default(), &Takeover::new("back", spec)).await.unwrap();
    held_by(&at_home, "home", "3.1").await;
    let done = until("a complete takeover", || async {
        takeovers.get("back").await.ok()?.status.filter(|s| s.phase == Phase::Complete)
    })
    .await;
    assert_eq!((done.old_epoch.as_deref(), done.epoch.as_deref()), (Some("2.2"), Some("3.1")));
    let lease = Api::<ControlLease>::all(at_partner).get("home.shop").await.unwrap().status.unwrap();
    assert!(!lease.nodes_closed, "the list of nodes opens again");
    home.cancel();
    partner.cancel();
}

/// What home answers to a standby that has a revision: the pieces' data, and the notice.
async fn asked(partner: &Context, have: &str) -> Option<(usize, String)> {
    let home = Peer::new(partner, partner.charter.sites.first()?).ok()?;
    let request = v1::BundleRequest { group: group().to_string(), have_digest: have.to_owned() };
    let call = home.call(Duration::from_secs(5), |mut client| async move { client.bundle(request).await });
    let (mut stream, mut bytes, mut notice) = (call.await.ok()?, 0, String::new());
    while let Some(chunk) = stream.message().await.ok()? {
        bytes += chunk.data.len();
        notice.push_str(&chunk.notice);
    }
    Some((bytes, notice))
}

/// The group's status at home once its condition Mirrored has a reason.
async fn mirrored(at_home: &kube::Client, is_it: impl Fn(&str) -> bool) -> FailoverGroupStatus {
    let api: Api<FailoverGroup> = Api::all(at_home.clone());
    until("that reason of the condition Mirrored", || async {
        let status = api.get("shop").await.ok()?.status?;
        let reason = &condition::get(&status.conditions, MIRRORED)?.reason;
        is_it(reason).then_some(status)
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_emptied_home_gives_nothing_new_and_says_since_when_also_after_a_restart() {
    let two = Two::start().await;
    let Two { clusters, contexts, addresses } = &two;
    let at_home = clusters.client(0);
    let (of_home, _of_partner) = (shop_at(clusters, 0), shop_at(clusters, 1));
    ask_for_the_group(&at_home, "Observed").await;
    let home = two.operate(0);
    let partner = two.operate(1);
    mirrored(&at_home, |reason| reason == "Empty").await;
    let (bytes, notice) = until("an answer", || asked(&contexts[1], "")).await;
    assert!(bytes == 0 && notice.starts_with("the selector matches nothing that is mirrored"), "{notice}");

    of_home.apply(SHOP);
    of_home.complete("shop", &Pods::Gated(&group()));
    let revision = mirrored(&at_home, |reason| reason == "Current").await.revision.unwrap();
    assert!(asked(&contexts[1], "").await.unwrap().0 > 0);
    assert_eq!(asked(&contexts[1], &revision).await, Some((0, String::new())), "there is nothing to say");

    clusters
        .kubectl(
            0,
            &[
                "-n",
                "shop",
                "delete",
                "deployment/shop",
                "replicaset/shop-1",
                "pod/shop-1-0",
                "--grace-period=0",
                "--force",
            ],
            "",
        )
        .unwrap();
    let emptied = mirrored(&at_home, |reason| reason == "Emptied").await;
    assert_eq!(emptied.revision.as_ref(), Some(&revision), "it is what standbys keep");
    let message = condition::get(&emptied.conditions, MIRRORED).unwrap().message.clone();
    home.cancel();
    until("home has stopped", || async { std::net::TcpListener::bind(addresses[0]).ok() }).await;
    let home = two.operate(0);
    let told = until("an answer", || async {
        asked(&contexts[1], &revision).await.filter(|(_, notice)| notice.starts_with("home is empty since"))
    })
    .await;
    assert_eq!(told, (0, message), "the same words, with the same time");
    assert_eq!(
        clusters.kubectl(1, &["-n", "shop", "get", "deployment", "-o", "name"], "").unwrap().trim(),
        "deployment.apps/shop"
    );

    of_home.apply(SHOP);
    of_home.complete("shop", &Pods::Gated(&group()));
    let back = mirrored(&at_home, |reason| matches!(reason, "Current" | "Behind")).await;
    assert_eq!((back.empty_since, back.revision), (None, Some(revision)), "the same objects are the same revision");
    home.cancel();
    partner.cancel();
}
