//! A real node: containerd, kubelet and kube-proxy in a network and a mount namespace.
//!
//! Nodes of one machine share its file system. Each therefore sees folders of the rig's
//! state as its /run, /var/lib and /var/log: hostPaths don't collide, and what a node
//! wrote can be read from outside under its folder, also after its death.

use std::fs;
use std::path::Path;
use std::time::Duration;

use crate::config;
use crate::control::kubectl;
use crate::error::{At, Error, Result};
use crate::host::Host;
use crate::plan::{NodePlan, SitePlan};
use crate::run::{Place, output, wait_for, write};

/// Folders that each node has of its own.
const OWN: [&str; 3] = ["/run", "/var/lib", "/var/log"];

/// Kernel settings that the kubelet writes; a node gets copies, for they aren't namespaced.
const SHIELDED: [&str; 6] = [
    "vm/overcommit_memory",
    "vm/panic_on_oom",
    "kernel/panic",
    "kernel/panic_on_oops",
    "kernel/keys/root_maxkeys",
    "kernel/keys/root_maxbytes",
];

/// The programs of a node, in the order of their start.
pub(crate) const DAEMONS: [&str; 3] = ["containerd", "kubelet", "proxy"];

/// Starts what doesn't run on a node. A node whose every process died starts as after a reboot.
pub(crate) fn start(host: &Host, site: &SitePlan, node: &NodePlan) -> Result<()> {
    if !host.runs(&format!("{}/holder", node.cgroup)) {
        host.cgroups.kill(&node.cgroup)?;
        prepare(host, site, node)?;
        hold_mounts(host, node)?;
    }
    for name in DAEMONS {
        start_daemon(host, node, name)?;
    }
    Ok(())
}

/// Starts one program of a running node, unless it runs.
pub(crate) fn start_daemon(host: &Host, node: &NodePlan, name: &str) -> Result<()> {
    let argv = match name {
        "containerd" => vec!["containerd".into(), "-c".into(), "/var/lib/rig/containerd.toml".into()],
        "kubelet" => vec![
            host.tool("kubelet"),
            "--config=/var/lib/rig/kubelet.yaml".into(),
            "--kubeconfig=/var/lib/rig/kubelet.kubeconfig".into(),
            format!("--hostname-override={}", node.name),
            format!("--node-ip={}", node.ip()),
        ],
        _ => vec![host.tool("kube-proxy"), "--config=/var/lib/rig/proxy.yaml".into()],
    };
    let place = place(host, node)?;
    let cgroup = format!("{}/{name}", node.cgroup);
    // Containers' shims outlive containerd in its cgroup; its own process is what counts.
    if main_pids(host, &cgroup, name).is_empty() {
        let joins = vec![host.cgroups.create(&cgroup)?];
        let log = log(node, name);
        crate::run::Daemon { joins, place: place.clone(), log, argv }.start()?;
    }
    if name == "containerd" {
        let what = format!("containerd on {}", node.name);
        let log = log(node, name);
        wait_for(&what, Duration::from_secs(60), Duration::from_millis(100), &log.to_string_lossy(), || {
            Ok(output(place.command("ctr").arg("version")).is_ok())
        })?;
    }
    Ok(())
}

/// Log of one of a node's programs.
pub(crate) fn log(node: &NodePlan, name: &str) -> std::path::PathBuf {
    node.dir.join(format!("{name}.log"))
}

/// Processes of a cgroup that run the program itself, not what it left behind there.
pub(crate) fn main_pids(host: &Host, cgroup: &str, name: &str) -> Vec<u32> {
    let program = if name == "proxy" { "kube-proxy" } else { name };
    let is_main = |pid: &u32| {
        let comm = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        // Between fork and exec it is still called by its starter's name.
        matches!(comm.trim(), "sh" | "setsid" | "nsenter") || comm.trim() == program
    };
    host.cgroups.pids(cgroup).into_iter().filter(is_main).collect()
}

/// Starts a node and waits until the API server calls it Ready, on word from this start.
///
/// A node that died is called Ready for a while; only a newer heartbeat tells that it is back.
pub(crate) fn start_and_wait(host: &Host, site: &SitePlan, node: &NodePlan) -> Result<()> {
    let before = heartbeat(host, site, node).unwrap_or_default();
    start(host, site, node)?;
    let what = format!("readiness of node {}", node.name);
    let log = log(node, "kubelet");
    wait_for(&what, Duration::from_secs(120), Duration::from_millis(300), &log.to_string_lossy(), || {
        let now = heartbeat(host, site, node).unwrap_or_default();
        Ok(now.starts_with("True") && now != before)
    })
}

/// The Ready condition and its heartbeat, if the node is known.
fn heartbeat(host: &Host, site: &SitePlan, node: &NodePlan) -> Option<String> {
    let path = "jsonpath={range .status.conditions[?(@.type==\"Ready\")]}{.status} {.lastHeartbeatTime}{end}";
    let args = ["get", "node", &node.name, "--ignore-not-found", "--request-timeout=5s", "-o", path];
    output(kubectl(host, site).args(args)).ok()
}

/// The namespaces of a node that has been started.
pub(crate) fn place(host: &Host, node: &NodePlan) -> Result<Place> {
    let pids = host.cgroups.pids(&format!("{}/holder", node.cgroup));
    let Some(pid) = pids.first() else {
        return Err(Error::Usage(format!("node {0} is down; start it: regent-rig start SITE node:{0}", node.name)));
    };
    Ok(Place { netns: node.netns.clone(), mounts_of: Some(*pid) })
}

/// Makes the folders, files and cgroups of a node. Its /run is empty, as after a boot.
fn prepare(host: &Host, site: &SitePlan, node: &NodePlan) -> Result<()> {
    let run = node.outside("/run");
    if run.exists() {
        fs::remove_dir_all(&run).at("empty", &run)?;
    }
    let folders =
        ["/run/netns", "/run/lock", "/var/lib/kubelet", "/var/lib/containerd", "/var/lib/regent", "/var/log/pods"];
    for folder in folders.map(|f| node.outside(f)) {
        fs::create_dir_all(&folder).at("create", &folder)?;
    }
    host.cgroups.create_root(&node.pods_cgroup())?;
    let rig = node.outside("/var/lib/rig");
    let copies = [
        (site.pki().join("ca.crt"), "ca.crt"),
        (site.dir.join(format!("{}.kubeconfig", node.name)), "kubelet.kubeconfig"),
        (site.dir.join("kube-proxy.kubeconfig"), "proxy.kubeconfig"),
    ];
    write(&rig.join("containerd.toml"), config::containerd(&node.dir))?;
    write(&rig.join("kubelet.yaml"), config::kubelet(node))?;
    write(&rig.join("proxy.yaml"), config::proxy(site, node))?;
    write(&rig.join("cni/10-rig.conflist"), config::cni(node))?;
    let hosts = format!("certs.d/{}/hosts.toml", crate::plan::REGISTRY_NAME);
    write(&rig.join(hosts), config::registry_hosts(&site.registry()))?;
    for (from, to) in copies {
        fs::copy(&from, rig.join(to)).at("copy", &from)?;
    }
    for key in SHIELDED {
        let from = Path::new("/proc/sys").join(key);
        if let Ok(value) = fs::read(&from) {
            write(&rig.join("sysctl").join(key), value)?;
        }
    }
    Ok(())
}

/// Starts the process whose mount namespace is the node's, and fills it.
fn hold_mounts(host: &Host, node: &NodePlan) -> Result<()> {
    let cgroup = format!("{}/holder", node.cgroup);
    let argv = ["unshare", "--mount", "--propagation", "private", "--", "sleep", "infinity"].map(String::from);
    host.daemon(&cgroup, &Place::net(&node.netns), &log(node, "holder"), argv.to_vec())?;
    wait_for(
        &format!("mount namespace of {}", node.name),
        Duration::from_secs(20),
        Duration::from_millis(5),
        "",
        || {
            let is_sleep =
                |pid: &u32| fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|c| c.trim() == "sleep");
            Ok(host.cgroups.pids(&cgroup).iter().any(is_sleep))
        },
    )?;
    let place = place(host, node)?;
    let mount = |args: &[&str]| output(place.command("mount").arg("-n").args(args)).map(drop);
    for key in SHIELDED {
        let from = node.outside("/var/lib/rig/sysctl").join(key);
        if from.exists() {
            mount(&["--bind", &from.to_string_lossy(), &format!("/proc/sys/{key}")])?;
        }
    }
    for folder in OWN {
        mount(&["--bind", &node.outside(folder).to_string_lossy(), folder])?;
    }
    // Mounts in pods' volumes must reach containers (HostToContainer), as on any node.
    mount(&["--make-rshared", "/"])
}
