//! A witness outside a cluster, over a real API server; and the election of leaders.

#![allow(clippy::unwrap_used)] // A helper that fails fails its test.

mod common;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use common::{Clusters, federation, free_address, until};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Api, DeleteParams};
use regent_api::{ControlLease, NAMESPACE};
use regent_controller::app::run_witness;
use regent_controller::context::Context;
use regent_controller::federation::client::{CallError, Peers};
use regent_controller::leader::{Elector, Leadership, USABLE};
use regent_controller::witness::{self, MARKER};
use regent_core::ids::Epoch;
use regent_core::plan::{Plan, Protection, Trigger, VerifiedPlan, WhenNotReady};
use regent_core::sign::Digest;
use regent_lease::contender::{Contender, GroupInput, Output, Readiness};
use regent_lease::witness::{Record, WitnessView};
use regent_proto::v1;
use regent_shell::clock;
use regent_shell::tls::install_provider;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

const CALL: Duration = Duration::from_secs(5);

struct Running(CancellationToken, JoinHandle<()>);

impl Running {
    async fn stop(self) {
        self.0.cancel();
        self.1.await.unwrap();
    }
}

fn start(context: &Context, client: &kube::Client, listen: SocketAddr) -> Running {
    let stop = CancellationToken::new();
    let (context, client, stopped) = (context.clone(), client.clone(), stop.clone());
    let task = tokio::spawn(async move { run_witness(context, client, listen, stopped).await.unwrap() });
    Running(stop, task)
}

fn contender(home: &Context) -> Contender {
    let plan = Plan {
        group: "home/shop".parse().unwrap(),
        version: 1,
        standbys: vec![],
        protection: Protection::Observed,
        takeover_after_ms: 0,
        thaw_limit_ms: 8000,
        trigger: Trigger::Automatic,
        when_not_ready: WhenNotReady::Hold,
        countries: vec![],
    };
    let mut contender = Contender::new(home.charter.clone(), home.site.clone()).unwrap();
    let plan = Arc::new(VerifiedPlan::open(&home.sign(&plan), &home.charter).unwrap());
    contender.set_plans(vec![GroupInput { plan, approved: false, readiness: Readiness::All }]);
    contender
}

/// Asks until there is a certificate; returns its epoch. `courier` carries the messages.
async fn certificate(home: &Context, courier: &Peers) -> Option<Epoch> {
    let mut contender = contender(home);
    let peer = courier.get(&"voter".parse().unwrap()).unwrap();
    for n in 0u8..200 {
        let mut outputs = contender.tick(clock::now());
        while let Some(output) = outputs.pop() {
            match output {
                Output::Certified(c) => return Some(c.granted[0].epoch),
                Output::Send(outgoing) => {
                    let id = Digest::of(&[&[n], outgoing.round.0.to_be_bytes().as_slice()].concat());
                    let submission = contender.seal(&outgoing, id, Digest::of(&[]), &home.identity.key);
                    let message: v1::Submission = submission.into();
                    match peer.call(CALL, |mut client| async move { client.lease(message).await }).await {
                        Ok(answer) => {
                            let voter = "voter".parse().unwrap();
                            outputs.extend(contender.on_answer(clock::now(), &voter, &answer.into()));
                        }
                        Err(CallError::Failed { status, .. }) if status.code() == tonic::Code::PermissionDenied => {
                            return None;
                        }
                        Err(_) => {}
                    }
                }
                _ => {}
            }
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("no certificate came");
}

async fn view(peers: &Peers) -> WitnessView {
    until("a witness that explains itself", || async {
        let peer = peers.get(&"voter".parse().unwrap()).unwrap();
        let request = v1::ExplainRequest::default();
        let answer = peer.call(CALL, |mut client| async move { client.explain(request).await }).await.ok()?;
        serde_json::from_str(&answer.json).ok()
    })
    .await
}

async fn record(client: &kube::Client) -> Record {
    let lease = Api::<ControlLease>::all(client.clone()).get("home.shop").await.unwrap();
    serde_json::from_str(&lease.status.unwrap().record.unwrap()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_witness_keeps_its_votes_and_knows_when_they_are_lost() {
    install_provider();
    let clusters = Clusters::start(1).await;
    let client = clusters.client(0);
    let listen = free_address();
    let sites = [("home", free_address()), ("voter", listen), ("other", free_address())];
    let contexts = federation(&sites, &["voter"], 1000);
    let (home, voter, other) = (&contexts[0], &contexts[1], &contexts[2]);
    let peers = Peers::new(home).unwrap();
    let first: Epoch = "1.1".parse().unwrap();

    witness::install(&client).await.unwrap();
    let running = start(voter, &client, listen);
    assert_eq!(view(&peers).await.start, 1);
    assert_eq!(certificate(home, &peers).await, Some(first));
    let before = record(&client).await;
    assert_eq!((before.start, before.vote.as_ref().map(|v| v.epoch)), (1, Some(first)));
    assert_eq!(certificate(home, &Peers::new(other).unwrap()).await, None, "no site carries another's requests");
    running.stop().await;

    let running = start(voter, &client, listen);
    assert_eq!(certificate(home, &peers).await, Some(first), "a restarted witness grants its vote");
    let after = record(&client).await;
    assert_eq!((after.start, after.vote), (2, before.vote));
    assert!(!view(&peers).await.stale);
    running.stop().await;

    let leases: Api<ControlLease> = Api::all(client.clone());
    leases.delete("home.shop", &DeleteParams::default()).await.unwrap();
    let running = start(voter, &client, listen);
    assert!(view(&peers).await.stale, "an object that the marker lists is missing");
    running.stop().await;

    let markers: Api<ConfigMap> = Api::namespaced(client.clone(), NAMESPACE);
    markers.delete(MARKER, &DeleteParams::default()).await.unwrap();
    let running = start(voter, &client, listen);
    let view = view(&peers).await;
    assert!(view.stale && view.start > 1_000_000, "without a marker the state is lost: {view:?}");
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_replica_leads_at_a_time_and_a_dead_leader_is_followed_only_after_its_lease() {
    install_provider();
    let clusters = Clusters::start(1).await;
    let elect = |name: &str| {
        let elector = Elector::new(clusters.client(0), NAMESPACE, "test", &format!("{name}/127.0.0.1"));
        (elector.watch(), CancellationToken::new(), elector)
    };
    let (first, _, elector) = elect("first");
    let dies = tokio::spawn(elector.run(CancellationToken::new()));
    let sent = |l: &Leadership| match l {
        Leadership::Leading { sent, .. } => Some(*sent),
        Leadership::Following { .. } => None,
    };
    until("the first leads", || async { sent(&first.borrow()) }).await;
    let (second, stop, elector) = elect("second");
    let resigns = tokio::spawn(elector.run(stop.clone()));
    until("the second follows", || async { second.borrow().leader_ip().map(str::to_owned) }).await;
    assert!(first.borrow().term_at(clock::now()).is_some() && second.borrow().term_at(clock::now()).is_none());

    dies.abort();
    let _ = dies.await;
    let last = sent(&first.borrow()).unwrap();
    let since = until("the second leads", || async {
        match &*second.borrow() {
            Leadership::Leading { since, .. } => Some(*since),
            Leadership::Following { .. } => None,
        }
    })
    .await;
    assert!(last.after(USABLE).passed_for_waiting(since), "the dead leader's time is over");
    assert!(first.borrow().term_at(since).is_none());

    stop.cancel();
    resigns.await.unwrap();
    let lease = Api::<Lease>::namespaced(clusters.client(0), NAMESPACE).get("test").await.unwrap().spec.unwrap();
    assert_eq!(lease.holder_identity, None, "nobody waits for a leader that has resigned");
    let (third, stop_third, elector) = elect("third");
    let runs = tokio::spawn(elector.run(stop_third.clone()));
    until("the third leads", || async { sent(&third.borrow()) }).await;
    stop_third.cancel();
    runs.await.unwrap();
}
