//! A pod that the API server forgets while its process lives on.

use std::time::Duration;

use anyhow::{Result, bail, ensure};
use regent_demo::federation::wait_for;
use regent_demo::group::Group;
use regent_demo::scenario::move_to;
use regent_evidence::{Evidence, Kind, Scenario, boot_ns};
use regent_rig::Component;
use regent_scenarios::{LIMIT, Stage, pass};

const TEST: &str = "deleted-by-force";

/// Deleted by force while its kubelet hangs, a pod runs on with nobody knowing but its guard: a
/// planned move ends it first, and waits until it has.
pub fn deleted(stage: &Stage, shop: &Group) -> Result<()> {
    let (federation, home) = (&stage.federation, shop.home.as_str());
    let path = "jsonpath={.items[0].metadata.name} {.items[0].metadata.uid} {.items[0].spec.nodeName}";
    let first = federation.kubectl(home, &["-n", &shop.name, "get", "pods", "-o", path], None)?;
    let [name, uid, node] = first.split_whitespace().collect::<Vec<_>>()[..] else { bail!("no pod: {first:?}") };
    let kubelet = Component::Daemon("kubelet", node.to_owned());
    federation.rig.pause(home, &kubelet)?;
    let moved = move_without(stage, shop, name);
    federation.rig.resume(home, &kubelet)?;
    let (deleted_ns, evidence) = moved?;

    let lines = evidence.journal.iter().filter(|line| line.uid == uid);
    let last = lines.map(|line| line.boot_ns).max().unwrap_or_default();
    ensure!(last > deleted_ns + 1_000_000_000, "{name} did not outlive its deletion: nothing is shown");
    let ends = evidence.events.iter().filter(|e| e.event == Kind::LeaseEnd && e.site == home);
    let mut pods = ends.filter_map(|e| e.detail.get("pods")?.as_array()).flatten();
    ensure!(pods.any(|pod| pod == name), "no lease's end names {name}");

    // The kubelet is back, and cleans up what the guard let go.
    let on_node = federation.rig.site(home)?.nodes().into_iter().find(|n| n.name == node);
    let folder = on_node.map(|n| n.outside("/var/lib/kubelet/pods").join(uid)).unwrap_or_default();
    wait_for(&format!("the folder of {name} to be gone"), LIMIT, || Ok((!folder.exists()).then_some(())))?;
    stage.bring_home(shop, "france")
}

/// Deletes the pod's object and moves the group; when it was deleted, and what was recorded.
fn move_without(stage: &Stage, shop: &Group, pod: &str) -> Result<(u64, Evidence)> {
    let delete = ["-n", &shop.name, "delete", "pod", pod, "--force", "--grace-period=0"];
    stage.federation.kubectl(&shop.home, &delete, None)?;
    let deleted_ns = boot_ns();
    let mut recording = stage.record(TEST, shop, Scenario::Planned)?;
    recording.go_on(Duration::from_secs(3))?;
    move_to(&stage.federation, shop, &mut recording, &shop.home, "france", Kind::Takeover)?;
    recording.go_on(Duration::from_secs(6))?;
    let (report, evidence) = recording.finish()?;
    pass(&report, &stage.dir(TEST, shop))?;
    Ok((deleted_ns, evidence))
}
