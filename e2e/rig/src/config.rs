//! Configuration files of a node's programs.

use std::path::Path;

use serde_json::json;

use crate::plan::{NodePlan, REGISTRY_NAME, SitePlan};

/// Reference of the image that holds a pod's namespaces.
pub(crate) fn pause_image() -> String {
    format!("{REGISTRY_NAME}/pause:dev")
}

/// containerd's configuration. `state` is a folder on the file system that will hold the images.
///
/// `restrict_oom_score_adj`: without CAP_SYS_RESOURCE runc can't lower it and dies with
/// "can't get final child's PID from pipe". The `opt` plugin would write to the machine's /opt.
pub(crate) fn containerd(state: &Path) -> String {
    let snapshotter = if is_overlay(state) { "native" } else { "overlayfs" };
    format!(
        r#"version = 2
root = "/var/lib/containerd"
state = "/run/containerd"
disabled_plugins = ["io.containerd.internal.v1.opt", "io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs"]
[grpc]
  address = "/run/containerd/containerd.sock"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{pause}"
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "{snapshotter}"
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "/var/lib/rig/cni"
  [plugins."io.containerd.grpc.v1.cri".registry]
    config_path = "/var/lib/rig/certs.d"
"#,
        pause = pause_image(),
    )
}

/// overlayfs can't be stacked on itself for writing.
fn is_overlay(path: &Path) -> bool {
    // OVERLAYFS_SUPER_MAGIC of linux/magic.h
    rustix::fs::statfs(path).is_ok_and(|s| s.f_type == 0x794c_7630)
}

/// The kubelet's configuration: quick to notice and to restart, never evicting.
pub(crate) fn kubelet(node: &NodePlan) -> String {
    json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "failCgroupV1": false,
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": format!("/{}", node.pods_cgroup()),
        "cgroupsPerQOS": true,
        "enforceNodeAllocatable": [],
        "failSwapOn": false,
        "containerRuntimeEndpoint": "unix:///run/containerd/containerd.sock",
        "volumePluginDir": "/var/lib/kubelet/volume-plugins",
        "authentication": {"anonymous": {"enabled": false}, "webhook": {"enabled": true},
                           "x509": {"clientCAFile": "/var/lib/rig/ca.crt"}},
        "authorization": {"mode": "Webhook"},
        "resolvConf": "",
        "syncFrequency": "1s",
        "nodeStatusUpdateFrequency": "2s",
        "serializeImagePulls": false,
        "registryPullQPS": 0,
        "eventRecordQPS": 0,
        "maxPods": 200,
        "crashLoopBackOff": {"maxContainerRestartPeriod": "1s"},
        "imageGCHighThresholdPercent": 100,
        "evictionHard": {"memory.available": "0%", "nodefs.available": "0%", "nodefs.inodesFree": "0%",
                         "imagefs.available": "0%", "imagefs.inodesFree": "0%"},
    })
    .to_string()
}

/// kube-proxy's configuration. Conntrack limits belong to the machine: left alone.
pub(crate) fn proxy(site: &SitePlan, node: &NodePlan) -> String {
    json!({
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": "nftables",
        "hostnameOverride": node.name,
        "clusterCIDR": site.pods_cidr(),
        "clientConnection": {"kubeconfig": "/var/lib/rig/proxy.kubeconfig"},
        "conntrack": {"maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
        "nftables": {"minSyncPeriod": "100ms"},
        "metricsBindAddress": "127.0.0.1:10249",
    })
    .to_string()
}

/// The pods' network on a node. The site's router masquerades, so pods keep their address inside the site.
pub(crate) fn cni(node: &NodePlan) -> String {
    json!({
        "cniVersion": "1.0.0", "name": "rig",
        "plugins": [
            {"type": "bridge", "bridge": "cni0", "isGateway": true, "ipMasq": false, "hairpinMode": true,
             "ipam": {"type": "host-local", "ranges": [[{"subnet": node.pod_cidr()}]],
                      "routes": [{"dst": "0.0.0.0/0"}]}},
            {"type": "portmap", "capabilities": {"portMappings": true}},
        ],
    })
    .to_string()
}

/// Sends pulls of `registry.rig/...` to the site's own registry.
pub(crate) fn registry_hosts(registry: &str) -> String {
    format!("server = \"http://{registry}\"\n[host.\"http://{registry}\"]\n  capabilities = [\"pull\", \"resolve\"]\n")
}
