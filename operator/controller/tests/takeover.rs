//! Two sites over real API servers: home holds, is lost, is overtaken, comes back, and
//! gets its group by a planned move.

#![allow(clippy::unwrap_used)] // A helper that fails fails its test.

mod common;

use std::net::SocketAddr;

use common::{Clusters, federation, free_address, until};
use k8s_openapi::api::core::v1::Namespace;
use kube::api::{Api, ObjectMeta, PostParams};
use regent_api::group::{FailoverGroupSpec, Protection, StandbyState};
use regent_api::takeover::{Phase, TakeoverType};
use regent_api::{ControlLease, FailoverGroup, Takeover, TakeoverSpec};
use regent_controller::app::{Pod, run_site};
use regent_controller::context::Context;
use regent_controller::witness;
use regent_shell::tls::install_provider;
use tokio_util::sync::CancellationToken;

const LEASE_MS: u64 = 2000;

fn operate(context: &Context, client: kube::Client, federation: SocketAddr) -> CancellationToken {
    let stop = CancellationToken::new();
    let pod = Pod {
        name: format!("{}-0", context.site),
        ip: federation.ip(),
        federation,
        hub: free_address(),
        views: free_address(),
    };
    let (context, stopped) = (context.clone(), stop.clone());
    tokio::spawn(async move { run_site(context, client, pod, stopped).await.unwrap() });
    stop
}

async fn namespace(client: &kube::Client) {
    let namespace = Namespace {
        metadata: ObjectMeta { name: Some("shop".into()), ..ObjectMeta::default() },
        ..Namespace::default()
    };
    Api::<Namespace>::all(client.clone()).create(&PostParams::default(), &namespace).await.unwrap();
}

/// Asks at home for a group without pods: nothing has to be scheduled.
async fn ask_for_the_group(at_home: &kube::Client) {
    let spec: FailoverGroupSpec = serde_json::from_value(serde_json::json!({
        "home": "home", "namespaces": ["shop"], "standbys": ["partner"],
        "takeoverAfter": "0s", "protection": "Protected",
    }))
    .unwrap();
    let api: Api<FailoverGroup> = Api::all(at_home.clone());
    api.create(&PostParams::default(), &FailoverGroup::new("shop", spec)).await.unwrap();
}

/// The partner's copy of the group says that it is protected, and its copies armed.
async fn ready(at_partner: &kube::Client) {
    let api: Api<FailoverGroup> = Api::all(at_partner.clone());
    until("a protected group with an armed standby", || async {
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
    install_provider();
    let clusters = Clusters::start(2).await;
    let (at_home, at_partner) = (clusters.client(0), clusters.client(1));
    let addresses = [free_address(), free_address()];
    let contexts = federation(&[("home", addresses[0]), ("partner", addresses[1])], &["partner"], LEASE_MS);
    witness::install(&at_partner).await.unwrap();
    namespace(&at_home).await;
    namespace(&at_partner).await;
    ask_for_the_group(&at_home).await;

    let home = operate(&contexts[0], at_home.clone(), addresses[0]);
    let partner = operate(&contexts[1], at_partner.clone(), addresses[1]);
    held_by(&at_home, "home", "1.1").await;
    held_by(&at_partner, "home", "1.1").await;
    ready(&at_partner).await;

    home.cancel();
    held_by(&at_partner, "partner", "2.2").await;

    let home = operate(&contexts[0], at_home.clone(), addresses[0]);
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
