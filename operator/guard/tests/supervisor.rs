//! Whatever befalls a guard, another is there, and goes on from the journal.

mod common;

use std::fs;

use common::federation::{GROUP, entry};
use common::node::{TestNode, send, work};
use common::{eventually, now, until};
use regent_core::event::names;
use regent_core::instruction::Instruction;
use regent_core::plan::Protection::Protected;
use regent_proto::v1::PodState;

#[test]
#[ignore = "the program of the tests' pods"]
fn workload() {
    work();
}

/// Ends the guard's process by a signal and waits for the next; how long that took.
async fn replaced(node: &TestNode, signal: &str) -> u64 {
    let old = eventually("a guard", || node.guard_pid()).await;
    let at = now().boot_ns;
    send(signal, old);
    eventually("another guard", || node.guard_pid().filter(|p| *p != old)).await;
    now().boot_ns - at
}

#[tokio::test]
async fn deadlines_outlive_a_killed_guard_whose_agent_is_silent() {
    let (node, mut pod) = TestNode::running(1500).await;
    let killed = now().boot_ns;
    let took = replaced(&node, "-KILL").await;
    node.agent().await;
    println!("started after {} ms, answers after {} ms", took / 1_000_000, (now().boot_ns - killed) / 1_000_000);
    let ended = node.event(names::LEASE_END).await;
    until(ended.boot_ns + 100_000_000).await;
    assert!(*pod.steps().last().unwrap() < ended.boot_ns);
    assert!(pod.is_frozen() && pod.lives());

    // And a guard that is killed over a frozen pod knows under which epoch it may go on.
    replaced(&node, "-KILL").await;
    let before = node.events().len();
    node.certify(&[entry(GROUP, "1.1", Protected)]).await;
    node.event_from(before, names::THAWED).await;
    pod.runs().await;
}

#[tokio::test]
async fn a_renewal_after_the_restart_pauses_nothing() {
    let (node, pod) = TestNode::running(3000).await;
    for signal in ["-KILL", "-ABRT", "-STOP"] {
        replaced(&node, signal).await;
        assert_eq!(node.certify(&[entry(GROUP, "1.1", Protected)]).await.error, "");
        pod.runs().await;
    }
    assert!(node.events().iter().all(|e| e.event != names::FROZEN));
    let starts = node.events().into_iter().filter(|e| e.event == names::STARTED).collect::<Vec<_>>();
    assert_eq!(starts.len(), 4);
    assert!(starts[0].detail["realtime_ns"].as_u64().unwrap() > 0);
}

/// Stops the node's guard, does something to the node, and starts another.
async fn restarted(node: &mut TestNode, meanwhile: impl FnOnce(&TestNode)) {
    node.end("-TERM").await;
    meanwhile(node);
    node.start().await;
}

#[tokio::test]
async fn a_guard_that_lost_its_journal_kills_what_it_cannot_know_and_retires_nothing_that_lives() {
    let mut node = TestNode::new(5000);
    node.start().await;
    let mut pods = [node.gated_pod("shop-0", GROUP).await, node.gated_pod("shop-1", GROUP).await];
    node.certify(&[entry(GROUP, "1.1", Protected)]).await;
    for pod in &pods {
        pod.runs().await;
    }
    let torn = pods[1].target.join("pod.json");
    restarted(&mut node, |node| {
        fs::remove_file(node.path("state/journal.json")).unwrap();
        fs::write(torn, "{").unwrap();
    })
    .await;
    let retired = node.instruct(GROUP, Instruction::Retire("1.1".parse().unwrap())).await;
    assert_eq!(retired, "");
    assert!(!pods[0].lives(), "confirmed, and it lives");
    eventually("the pod of which nothing is known dies too", || (!pods[1].lives()).then_some(())).await;
    // The one that said whose it is stands at its gate as before, and goes on by a certificate.
    pods[0].start();
    assert_eq!(node.state_of(&pods[0]).await.unwrap().state(), PodState::Gated);
    node.certify(&[entry(GROUP, "2.1", Protected)]).await;
    pods[0].runs().await;
}

#[tokio::test]
async fn another_journal_has_another_name_and_a_restart_has_not() {
    let mut node = TestNode::new(5000);
    node.start().await;
    let first = node.journal_id().await;
    node.gated_pod("shop-0", GROUP).await;
    restarted(&mut node, |_| {}).await;
    assert_eq!(node.journal_id().await, first);
    restarted(&mut node, |node| fs::remove_file(node.path("state/journal.json")).unwrap()).await;
    assert_ne!(node.journal_id().await, first);
}

#[tokio::test]
async fn a_guard_that_starts_over_a_full_disk_pauses_nothing_that_is_renewed() {
    let (mut node, pod) = TestNode::running(1500).await;
    // Nothing can be written under the name that the journal is written by.
    restarted(&mut node, |node| fs::create_dir(node.path("state/.journal.json")).unwrap()).await;
    let started = now().boot_ns;
    while now().boot_ns < started + 3_000_000_000 {
        node.certify(&[entry(GROUP, "1.1", Protected)]).await;
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    pod.runs().await;
    assert!(!pod.is_frozen());
    // And without renewal it stands still in time, though nothing can be journaled.
    eventually("it stands still", || pod.is_frozen().then_some(())).await;
}

#[tokio::test]
async fn a_disk_that_hangs_delays_no_deadline() {
    let (node, pod) = TestNode::running(1500).await;
    // Whoever opens a pipe for writing hangs until somebody reads.
    let hung = node.path("state/.journal.json");
    assert!(std::process::Command::new("mkfifo").arg(&hung).status().unwrap().success());
    let late = node.gated_pod("shop-1", GROUP);
    let (_, ()) = tokio::join!(tokio::time::timeout(std::time::Duration::from_millis(300), late), async {
        node.certify(&[entry(GROUP, "1.1", Protected)]).await;
    });
    eventually("it stands still", || pod.is_frozen().then_some(())).await;
    let last = *pod.steps().last().unwrap();
    fs::read(&hung).unwrap();
    let ended = node.event(names::LEASE_END).await;
    assert!(last < ended.boot_ns);
}

#[tokio::test]
async fn a_gate_opens_only_when_its_pod_can_read_the_epoch() {
    let mut node = TestNode::new(5000);
    node.start().await;
    let pod = node.gated_pod("shop-0", GROUP).await;
    let obstacle = pod.target.join(".epoch");
    fs::create_dir(&obstacle).unwrap();
    node.certify(&[entry(GROUP, "1.1", Protected)]).await;
    while node.state_of(&pod).await.unwrap().state() != PodState::Running {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    assert!(pod.steps().is_empty());
    fs::remove_dir(&obstacle).unwrap();
    pod.runs().await;
    assert_eq!(pod.epoch().unwrap(), "1.1");
}

#[tokio::test]
async fn a_gate_that_waits_finds_the_next_guard() {
    let mut node = TestNode::new(5000);
    node.start().await;
    let pods = [node.gated_pod("shop-0", GROUP).await, node.gated_pod("shop-1", GROUP).await];
    replaced(&node, "-KILL").await;
    node.certify(&[entry(GROUP, "1.1", Protected)]).await;
    for pod in &pods {
        pod.runs().await;
    }
}

#[tokio::test]
async fn a_guard_that_is_told_to_end_leaves_its_pods_as_they_are() {
    let (mut node, pod) = TestNode::running(5000).await;
    assert_eq!(node.end("-TERM").await, Some(0));
    pod.runs().await;
    assert!(pod.target.join("gate.sock").exists());
}

#[tokio::test]
async fn during_an_update_the_new_guard_waits_for_the_old_one_and_takes_its_sockets() {
    let mut node = TestNode::new(5000);
    node.start().await;
    let pod = node.gated_pod("shop-0", GROUP).await;
    let mut surge = node.command("supervise").stdin(std::process::Stdio::null()).spawn().unwrap();
    node.certify(&[entry(GROUP, "1.1", Protected)]).await;
    pod.runs().await;
    node.end("-TERM").await;
    // The same sockets, another guard: it knows the pod and under which epoch it runs.
    let state = node.state_of(&pod).await.unwrap();
    assert_eq!((state.state(), state.epoch.as_str()), (PodState::Running, "1.1"));
    assert_eq!(node.certify(&[entry(GROUP, "1.1", Protected)]).await.error, "");
    send("-TERM", surge.id());
    surge.wait().unwrap();
}

#[tokio::test]
async fn a_guard_has_no_network_in_any_thread() {
    let mut node = TestNode::new(5000);
    node.start().await;
    for pid in [node.supervisor(), node.guard_pid().unwrap()] {
        for task in fs::read_dir(format!("/proc/{pid}/task")).unwrap().flatten() {
            let status = fs::read_to_string(task.path().join("status")).unwrap();
            assert!(status.lines().any(|l| l == "Seccomp:\t2"), "{status}");
        }
        for fd in fs::read_dir(format!("/proc/{pid}/fd")).unwrap().flatten() {
            let Ok(target) = fs::read_link(fd.path()) else { continue };
            let Some(inode) = target.to_str().and_then(|t| t.strip_prefix("socket:[")?.strip_suffix(']')) else {
                continue;
            };
            assert!(fs::read_to_string(format!("/proc/{pid}/net/unix")).unwrap().contains(inode), "{target:?}");
        }
    }
}

#[tokio::test]
async fn a_charter_that_is_not_signed_ends_the_guard_with_the_remedy() {
    let node = TestNode::new(5000);
    let wrong = [
        (node.federation.signed(1), "1 of the 2 parties"),
        (node.federation.signed(2).replacen("\"sig\":\"", "\"sig\":\"AAAA", 1), "parties"),
        ("{}".to_owned(), "DSSE"),
    ];
    for (charter, why) in wrong {
        fs::write(node.path("charter.json"), charter).unwrap();
        let out = node.command("supervise").stdin(std::process::Stdio::null()).output().unwrap();
        let said = String::from_utf8(out.stderr).unwrap();
        assert_eq!(out.status.code(), Some(2));
        assert!(said.contains(why) && said.contains("charter.json"), "{said}");
    }
    fs::write(node.path("charter.json"), node.federation.signed(2)).unwrap();
    let out = node.command("supervise").args(["--site", "atlantis"]).output().unwrap();
    assert!(!out.status.success());
}
