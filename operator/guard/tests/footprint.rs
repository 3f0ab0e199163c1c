//! Measures a guard on a full node. Run by hand:
//! `cargo test -p regent-guard --test footprint -- --ignored --nocapture`

// The measuring functions may panic as tests do.
#![allow(clippy::unwrap_used)]

mod common;

use std::fs;
use std::time::Duration;

use common::eventually;
use common::federation::{GROUP, entry};
use common::node::TestNode;
use regent_core::plan::Protection::Protected;

const PODS: usize = 110;
const ROUNDS: u64 = 36;

/// Resident memory in KiB, all of it and what is not shared with the program's file.
fn resident(pid: u32) -> (u64, u64) {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let field = |key: &str| -> u64 {
        let line = status.lines().find(|l| l.starts_with(key)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    };
    (field("VmRSS:"), field("RssAnon:"))
}

/// Processor time in milliseconds: user and system ticks of 10 ms, of all threads that ever were.
fn used(pid: u32) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = text.rsplit_once(')').unwrap().1.split_whitespace().collect();
    10 * (fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap())
}

#[tokio::test]
#[ignore = "a measurement of half a minute"]
async fn memory_and_processor_of_a_guard_with_110_pods() {
    let mut node = TestNode::new(5000);
    node.start().await;
    let mut pods = Vec::new();
    for i in 0..PODS {
        let mut pod = node.pod(&format!("shop-{i}"));
        node.publish(&pod, GROUP).await.unwrap();
        pod.start_program(&["sleep", "1000"]);
        pods.push(pod);
    }
    let mut agent = node.agent().await;
    let renew = async |agent: &mut regent_proto::v1::guard_client::GuardClient<_>| {
        let nonce = agent.new_nonce(regent_proto::v1::NewNonceRequest {}).await.unwrap().into_inner().nonce;
        let certificate = node.federation.certificate("ireland", &nonce, &[entry(GROUP, "1.1", Protected)]);
        let answer = agent.certify(certificate).await.unwrap().into_inner();
        assert_eq!(answer.error, "");
    };
    let opened = || node.events().iter().filter(|e| e.event == "gate_opened").count();
    while opened() < PODS {
        renew(&mut agent).await;
        tokio::time::sleep(Duration::from_millis(500)).await;
    }

    let (supervisor, guard) = (node.supervisor(), node.guard_pid().unwrap());
    let before = (used(supervisor), used(guard));
    let began = common::now().boot_ns;
    for _ in 0..ROUNDS {
        renew(&mut agent).await;
        tokio::time::sleep(Duration::from_millis(833)).await;
    }
    let seconds = (common::now().boot_ns - began) as f64 / 1e9;
    for (name, pid, before) in [("guard", guard, before.1), ("supervisor", supervisor, before.0)] {
        let (all, own) = resident(pid);
        let cpu = used(pid) - before;
        println!(
            "{name}: {all} KiB resident, {own} KiB of it its own; {cpu} ms in {seconds:.1} s = {:.2} %",
            cpu as f64 / seconds / 10.0
        );
    }
    println!("journal: {} bytes", fs::metadata(node.path("state/journal.json")).unwrap().len());
    // The last lease ends: everything is frozen at one deadline.
    let ended = node.event("lease_end").await;
    let frozen = || node.events().into_iter().filter(|e| e.event == "frozen").map(|e| e.boot_ns).collect::<Vec<_>>();
    let at = eventually("all are frozen", || Some(frozen()).filter(|f| f.len() == PODS)).await;
    let before_end = |ns: u64| (ended.boot_ns as f64 - ns as f64) / 1e6;
    println!(
        "{PODS} pods frozen: first {:.1} ms, last {:.1} ms before the lease's end",
        before_end(*at.iter().min().unwrap()),
        before_end(*at.iter().max().unwrap())
    );
}
