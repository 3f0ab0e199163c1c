//! Gate and fence on real processes, with a kubelet's calls and properly signed certificates.

mod common;

use std::time::Duration;

use common::federation::{GROUP, entry};
use common::node::{TestNode, work};
use common::{eventually, until};
use regent_core::event::names;
use regent_core::ids::Epoch;
use regent_core::instruction::Instruction;
use regent_core::plan::Protection::{Observed, Protected};
use regent_proto::v1::{self, PodState};

#[test]
#[ignore = "the program of the tests' pods"]
fn workload() {
    work();
}

const fn retire(term: u64) -> Instruction {
    Instruction::Retire(Epoch { term, site: 1 })
}

#[tokio::test]
async fn a_certificate_opens_the_gate_and_its_end_freezes_the_pod_although_the_agent_is_silent() {
    let mut node = TestNode::new(1000);
    node.start().await;
    let mut pod = node.gated_pod("shop-0", GROUP).await;
    assert_eq!(node.state_of(&pod).await.unwrap().state(), PodState::Gated);

    let certified = node.certify(&[entry(GROUP, "1.1", Protected)]).await;
    assert_eq!((certified.accepted_groups, certified.error.as_str()), (vec![GROUP.to_owned()], ""));
    pod.runs().await;
    assert_eq!(pod.epoch().unwrap(), "1.1");
    assert!(node.event(names::GATE_OPENED).await.boot_ns < pod.steps()[0]);

    let ended = node.event(names::LEASE_END).await;
    assert_eq!(ended.detail["pods"], serde_json::json!(["shop-0"]));
    assert_eq!(ended.epoch.unwrap().to_string(), "1.1");
    node.event(names::FROZEN).await;
    until(ended.boot_ns + 100_000_000).await;
    assert!(*pod.steps().last().unwrap() < ended.boot_ns, "an instruction was executed after the lease's end");
    assert!(pod.is_frozen() && pod.lives());
}

#[tokio::test]
async fn a_renewed_lease_pauses_nothing_and_a_pause_ends_under_the_same_epoch() {
    let (node, mut pod) = TestNode::running(1000).await;
    let start = pod.steps()[0];
    while *pod.steps().last().unwrap() < start + 2_500_000_000 {
        node.certify(&[entry(GROUP, "1.1", Protected)]).await;
        tokio::time::sleep(std::time::Duration::from_millis(150)).await;
    }
    assert!(node.events().iter().all(|e| e.event != names::FROZEN && e.event != names::LEASE_END));

    node.event(names::LEASE_END).await;
    assert!(pod.is_frozen());
    let paused = pod.steps().len();
    node.certify(&[entry(GROUP, "1.1", Protected)]).await;
    node.event(names::THAWED).await;
    eventually("steps after the pause", || (pod.steps().len() > paused).then_some(())).await;
    assert!(pod.lives(), "the same process goes on");
}

#[tokio::test]
async fn a_pod_that_was_frozen_under_one_epoch_is_killed_under_another_and_gated_again() {
    let (node, mut pod) = TestNode::running(1000).await;
    node.event(names::LEASE_END).await;
    let paused = pod.steps().len();
    assert_eq!(node.certify(&[entry(GROUP, "2.1", Protected)]).await.accepted_groups, [GROUP]);
    node.event(names::KILLED).await;
    assert!(!pod.lives());
    assert_eq!(pod.steps().len(), paused, "it never went on");
    assert!(!pod.is_frozen(), "its gate can ask");

    pod.start();
    node.certify(&[entry(GROUP, "2.1", Protected)]).await;
    pod.runs().await;
    assert_eq!(pod.epoch().unwrap(), "2.1");
}

#[tokio::test]
async fn a_pause_beyond_the_thaw_limit_ends_in_a_pod_that_stands_at_its_gate() {
    let (node, mut pod) = TestNode::running(1000).await;
    assert_eq!(node.instruct(GROUP, Instruction::Configure(Duration::from_millis(200))).await, "");
    node.event(names::KILLED).await;
    pod.start();
    eventually("the new container in its cgroup", || {
        std::fs::read_to_string(pod.cgroup.join("cgroup.events")).unwrap().contains("populated 1").then_some(())
    })
    .await;
    assert_eq!(node.state_of(&pod).await.unwrap().state(), PodState::Gated);
    assert!(pod.lives());
}

/// Cuts a node off for its `thawLimit` and so many milliseconds more; how each pod's pause ended.
async fn cut_for(limit_ms: u64, more_ms: i64) -> Vec<&'static str> {
    let mut node = TestNode::new(1000);
    node.start().await;
    let mut pods = [node.gated_pod("shop-0", GROUP).await, node.gated_pod("shop-1", GROUP).await];
    node.instruct(GROUP, Instruction::Configure(Duration::from_millis(limit_ms))).await;
    let lease = [entry(GROUP, "1.1", Protected)];
    node.certify(&lease).await;
    let ended = node.event(names::LEASE_END).await.boot_ns;
    let over = ended + limit_ms * 1_000_000;
    until(over.saturating_add_signed(more_ms * 1_000_000)).await;
    // Connected again: renewed each P, as by its agent.
    for _ in 0..4 {
        node.certify(&lease).await;
        tokio::time::sleep(std::time::Duration::from_millis(150)).await;
    }
    let mut ends = Vec::new();
    for pod in &mut pods {
        let of_pod = |name: &str| {
            let events = node.events();
            events.into_iter().filter(|e| e.event == name && e.detail["pod"] == pod.name.as_str()).collect::<Vec<_>>()
        };
        let (thawed, killed) = (of_pod(names::THAWED), of_pod(names::KILLED));
        assert_eq!(thawed.len() + killed.len(), 1, "{more_ms} ms past the limit, {}: {thawed:?} {killed:?}", pod.name);
        assert_eq!(pod.lives(), killed.is_empty(), "{more_ms} ms past the limit, {}", pod.name);
        if let Some(killed) = killed.first() {
            assert!(killed.boot_ns >= over, "{more_ms} ms: killed {} ns before its time", over - killed.boot_ns);
            pod.start();
        }
        node.certify(&lease).await;
        pod.runs().await;
        assert!(!pod.is_frozen());
        ends.push(if killed.is_empty() { names::THAWED } else { names::KILLED });
    }
    ends
}

#[tokio::test]
async fn ten_cuts_around_the_thaw_limit_end_each_pause_once_and_leave_nothing_frozen() {
    let cuts = [-700, -40, -15, -5, -1, 1, 5, 15, 40, 200].map(|more_ms| tokio::spawn(cut_for(1000, more_ms)));
    let mut ends = Vec::new();
    for cut in cuts {
        ends.push(cut.await.unwrap());
    }
    println!("{ends:?}");
    assert_eq!(ends[0], [names::THAWED; 2], "back in time");
    assert_eq!(ends[9], [names::KILLED; 2], "back too late");
}

#[tokio::test]
async fn a_pod_that_is_deleted_by_force_and_lives_on_is_fenced_and_a_release_waits_for_it() {
    let (node, mut pod) = TestNode::running(1000).await;
    // The API server has forgotten it, and so has a kubelet that was restarted.
    let error = node.unpublish(&pod).await.unwrap_err();
    assert_eq!(error.code(), tonic::Code::FailedPrecondition);
    assert!(error.message().contains("shop/shop-0") && error.message().contains("live processes"), "{error}");
    let ended = node.event(names::LEASE_END).await;
    assert_eq!(ended.detail["pods"], serde_json::json!(["shop-0"]));
    until(ended.boot_ns + 100_000_000).await;
    assert!(*pod.steps().last().unwrap() < ended.boot_ns);
    assert!(pod.is_frozen() && pod.lives());
    assert!(node.unpublish(&pod).await.is_err(), "it is dead only when it is");

    assert_eq!(node.instruct(GROUP, retire(1)).await, "");
    assert!(!pod.lives(), "the release went on, and it lives");
    node.unpublish(&pod).await.unwrap();
    assert!(!pod.target.exists() && node.state_of(&pod).await.is_none());
}

#[tokio::test]
async fn a_retired_epoch_is_confirmed_when_its_pods_are_dead_and_never_runs_again() {
    let (node, mut pod) = TestNode::running(5000).await;
    assert_eq!(node.instruct(GROUP, retire(1)).await, "");
    assert!(!pod.lives());
    let ended = node.event(names::LEASE_END).await;
    assert_eq!(ended.detail["pods"], serde_json::json!(["shop-0"]));
    assert!(*pod.steps().last().unwrap() < ended.boot_ns);
    let again = node.certify(&[entry(GROUP, "1.1", Protected)]).await;
    assert!(again.accepted_groups.is_empty() && again.error.contains("retired"), "{}", again.error);
    // A node that runs nothing of the group confirms as well, and so does a repeated order.
    assert_eq!(node.instruct(GROUP, retire(1)).await, "");
    assert_eq!(node.instruct("ireland/other", retire(4)).await, "");
}

#[tokio::test]
async fn wrong_signatures_open_nothing() {
    let mut node = TestNode::new(5000);
    node.start().await;
    let pod = node.gated_pod("shop-0", GROUP).await;
    let wanted = [entry(GROUP, "1.1", Protected)];
    let refused = async |certificate: v1::NodeCertificate, why: &str| {
        let answer = node.show(certificate).await;
        assert!(answer.accepted_groups.is_empty() && answer.error.contains(why), "{why}: {}", answer.error);
    };
    let fed = &node.federation;
    refused(fed.certificate("ireland", &[7; 32], &wanted), "no nonce of this guard").await;
    refused(fed.certificate_by(2, "ireland", &node.nonce().await, &wanted), "quorum").await;
    let other = [entry("ireland/other", "1.1", Protected)];
    let mut swapped = fed.certificate("ireland", &node.nonce().await, &other);
    swapped.entries[0].entry.as_mut().unwrap().group = GROUP.into();
    refused(swapped, "root of the request").await;
    let mut forged = fed.certificate("ireland", &node.nonce().await, &wanted);
    for grant in &mut forged.round.as_mut().unwrap().grants {
        grant.signatures[0].sig[5] ^= 1;
    }
    refused(forged, "quorum").await;
    let mut unsigned = fed.certificate("ireland", &node.nonce().await, &wanted);
    unsigned.round.as_mut().unwrap().request.as_mut().unwrap().signatures.clear();
    refused(unsigned, "no valid signature of ireland").await;
    assert_eq!(node.state_of(&pod).await.unwrap().state(), PodState::Gated);
    assert!(pod.steps().is_empty() && pod.epoch().is_none());

    node.certify(&wanted).await;
    pod.runs().await;
}

#[tokio::test]
async fn the_gate_of_a_group_without_a_certificate_or_of_a_pod_without_a_cgroup_stays_closed() {
    let mut node = TestNode::new(5000);
    node.start().await;
    let stranger = node.gated_pod("stranger-0", "ireland/unknown").await;
    let homeless = node.pod("shop-1");
    node.publish(&homeless, GROUP).await.unwrap();
    let mut gate = std::process::Command::new(homeless.target.join("regent-gate")).arg("wait").spawn().unwrap();
    let pod = node.gated_pod("shop-0", GROUP).await;
    node.certify(&[entry(GROUP, "1.1", Protected)]).await;
    pod.runs().await;
    for held in [&stranger, &homeless] {
        assert_eq!(node.state_of(held).await.unwrap().state(), PodState::Gated);
    }
    assert!(stranger.steps().is_empty());
    assert!(gate.try_wait().unwrap().is_none());

    std::fs::create_dir_all(&homeless.cgroup).unwrap();
    assert!(eventually("the gate opens", || gate.try_wait().unwrap()).await.success());
}

#[tokio::test]
async fn an_observed_group_is_gated_but_never_frozen_until_it_is_protected_under_a_lease() {
    let mut node = TestNode::new(1000);
    node.start().await;
    let mut pod = node.gated_pod("shop-0", GROUP).await;
    let early = node.certify(&[entry(GROUP, "1.1", Observed)]).await;
    assert!(early.accepted_groups.is_empty() && early.error.contains("list"), "{}", early.error);
    assert_eq!(node.instruct(GROUP, Instruction::Listed).await, "");
    assert_eq!(node.certify(&[entry(GROUP, "1.1", Observed)]).await.accepted_groups, [GROUP]);
    pod.runs().await;
    let started = pod.steps()[0];
    eventually("it outlives its lease", || (*pod.steps().last()? > started + 1_500_000_000).then_some(())).await;

    let refused = node.instruct(GROUP, Instruction::Protect).await;
    assert!(refused.contains("without a valid lease"), "{refused}");
    node.certify(&[entry(GROUP, "1.1", Observed)]).await;
    assert_eq!(node.instruct(GROUP, Instruction::Protect).await, "");
    node.event(names::LEASE_END).await;
    assert!(pod.is_frozen() && pod.lives());
}

#[tokio::test]
async fn all_of_many_pods_stand_still_at_their_common_deadline() {
    let mut node = TestNode::new(2000);
    node.start().await;
    let mut pods = Vec::new();
    for i in 0..40 {
        pods.push(node.gated_pod(&format!("shop-{i}"), GROUP).await);
    }
    node.certify(&[entry(GROUP, "1.1", Protected)]).await;
    let ended = loop {
        // Starting so many takes its time on a busy machine.
        if pods.iter().all(|p| !p.steps().is_empty()) {
            break node.event(names::LEASE_END).await;
        }
        if node.events().iter().all(|e| e.event != names::FROZEN) {
            node.certify(&[entry(GROUP, "1.1", Protected)]).await;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    };
    until(ended.boot_ns + 100_000_000).await;
    let last = pods.iter().map(|p| *p.steps().last().unwrap()).max().unwrap();
    assert!(last < ended.boot_ns, "{} ns late", last - ended.boot_ns);
    assert_eq!(ended.detail["pods"].as_array().unwrap().len(), pods.len());
    let frozen = || node.events().iter().filter(|e| e.event == names::FROZEN).count();
    eventually("every pod is reported frozen", || (frozen() == pods.len()).then_some(())).await;
    let first = node.event(names::FROZEN).await.boot_ns;
    println!(
        "first report {} ms, last step {} ms before the end",
        (ended.boot_ns - first) / 1_000_000,
        (ended.boot_ns - last) / 1_000_000
    );
}

#[tokio::test]
async fn the_journal_tells_the_lease_ends_when_nothing_is_left_to_ask() {
    let (mut node, pod) = TestNode::running(5000).await;
    let left = node.state_of(&pod).await.unwrap().lease_left_ms;
    assert!(left > 0 && left < 5000);
    node.end("-KILL").await;
    let ends = regent_guard::journal::lease_ends(&node.path("state/journal.json")).unwrap();
    assert_eq!(ends.len(), 1);
    assert_eq!((ends[0].group.to_string().as_str(), ends[0].epoch.to_string().as_str()), (GROUP, "1.1"));
    assert_eq!((ends[0].node.0.as_str(), &ends[0].pods), ("node-1", &vec!["shop-0".to_owned()]));
    assert!(ends[0].boot_ns > pod.steps()[0] && ends[0].boot_ns < pod.steps()[0] + 5_000_000_000);
}
