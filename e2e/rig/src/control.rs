//! A site's control plane: keys, etcd, API server, controller manager, scheduler, registry.

use std::fs;
use std::path::Path;
use std::time::Duration;

use crate::error::{At, Result};
use crate::host::Host;
use crate::pki::Authority;
use crate::plan::{KUBERNETES_IP, SERVICE_CIDR, SitePlan};
use crate::run::{Place, output, wait_for, write};

/// Every write is recorded, and who made it; reads would drown them.
const AUDIT_POLICY: &str = "\
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
  - level: Metadata
    verbs: [create, update, patch, delete, deletecollection]
  - level: None
";

/// Makes the site's keys, kubeconfigs and configuration files, unless they exist.
pub(crate) fn prepare(plan: &SitePlan) -> Result<()> {
    if plan.kubeconfig().exists() {
        return Ok(());
    }
    let (pki, name, server) = (plan.pki(), plan.site.name.as_str(), plan.server());
    fs::create_dir_all(plan.logs()).at("create", plan.logs())?;
    write(&plan.dir.join("audit-policy.yaml"), AUDIT_POLICY)?;
    let authority = Authority::create(&pki, name)?;
    let (wan, router) = (plan.wan_ip(), plan.router_ip());
    let dns = ["localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc"];
    authority.issue("apiserver", "kube-apiserver", None, &[&wan, &router, "127.0.0.1", KUBERNETES_IP], &dns)?;
    authority.issue("kubelet-client", "kube-apiserver-kubelet-client", Some("system:masters"), &[], &[])?;
    if plan.site.is_full() {
        let users = ["kube-controller-manager", "kube-scheduler", "kube-proxy"];
        for user in users {
            let path = plan.dir.join(format!("{user}.kubeconfig"));
            authority.kubeconfig(&path, name, &server, &format!("system:{user}"), None)?;
        }
        for node in plan.nodes() {
            let (path, user) =
                (plan.dir.join(format!("{}.kubeconfig", node.name)), format!("system:node:{}", node.name));
            authority.kubeconfig(&path, name, &server, &user, Some("system:nodes"))?;
        }
    }
    authority.kubeconfig(&plan.kubeconfig(), name, &server, "admin", Some("system:masters"))
}

/// Starts etcd and the API server, and waits until it is ready.
pub(crate) fn start_api(host: &Host, plan: &SitePlan) -> Result<()> {
    start_etcd(host, plan)?;
    start_apiserver(host, plan)?;
    wait_ready(host, plan)
}

/// Starts etcd unless it runs. What it wrote survives its death, not the machine's: it doesn't fsync.
pub(crate) fn start_etcd(host: &Host, plan: &SitePlan) -> Result<()> {
    let argv = vec![
        host.tool("etcd"),
        format!("--name={}", plan.site.name),
        format!("--data-dir={}", plan.dir.join("etcd").display()),
        "--unsafe-no-fsync".into(),
        "--listen-client-urls=http://127.0.0.1:2379".into(),
        "--advertise-client-urls=http://127.0.0.1:2379".into(),
        "--listen-peer-urls=http://127.0.0.1:2380".into(),
        "--log-level=warn".into(),
    ];
    daemon(host, plan, "etcd", argv)
}

/// Starts the API server unless it runs.
pub(crate) fn start_apiserver(host: &Host, plan: &SitePlan) -> Result<()> {
    let pki = |file: &str| plan.pki().join(file).display().to_string();
    let argv = vec![
        host.tool("kube-apiserver"),
        "--etcd-servers=http://127.0.0.1:2379".into(),
        format!("--advertise-address={}", plan.wan_ip()),
        "--secure-port=6443".into(),
        format!("--tls-cert-file={}", pki("apiserver.crt")),
        format!("--tls-private-key-file={}", pki("apiserver.key")),
        format!("--client-ca-file={}", pki("ca.crt")),
        "--service-account-issuer=https://kubernetes.default.svc".into(),
        format!("--service-account-key-file={}", pki("sa.pub")),
        format!("--service-account-signing-key-file={}", pki("sa.key")),
        format!("--service-cluster-ip-range={SERVICE_CIDR}"),
        "--authorization-mode=Node,RBAC".into(),
        "--enable-admission-plugins=NodeRestriction".into(),
        "--allow-privileged".into(),
        format!("--kubelet-client-certificate={}", pki("kubelet-client.crt")),
        format!("--kubelet-client-key={}", pki("kubelet-client.key")),
        "--kubelet-preferred-address-types=InternalIP".into(),
        format!("--audit-policy-file={}", plan.dir.join("audit-policy.yaml").display()),
        format!("--audit-log-path={}", plan.audit_log().display()),
        "--audit-log-maxsize=10000".into(),
        // Nothing but the fence may stop a pod of a node that is cut off or paused.
        "--default-not-ready-toleration-seconds=86400".into(),
        "--default-unreachable-toleration-seconds=86400".into(),
    ];
    daemon(host, plan, "apiserver", argv)
}

fn wait_ready(host: &Host, plan: &SitePlan) -> Result<()> {
    let log = plan.logs().join("apiserver.log");
    let what = format!("readiness of {}'s API server", plan.site.name);
    let step = Duration::from_millis(300);
    wait_for(&what, Duration::from_secs(180), step, &log.to_string_lossy(), || {
        Ok(output(kubectl(host, plan).args(["get", "--raw", "/readyz"])).is_ok())
    })
}

/// Starts the controller manager unless it runs.
pub(crate) fn start_controller_manager(host: &Host, plan: &SitePlan) -> Result<()> {
    let pki = |file: &str| plan.pki().join(file).display().to_string();
    let argv = vec![
        host.tool("kube-controller-manager"),
        format!("--kubeconfig={}", plan.dir.join("kube-controller-manager.kubeconfig").display()),
        format!("--service-account-private-key-file={}", pki("sa.key")),
        format!("--root-ca-file={}", pki("ca.crt")),
        format!("--cluster-signing-cert-file={}", pki("ca.crt")),
        format!("--cluster-signing-key-file={}", pki("ca.key")),
        "--leader-elect=false".into(),
        "--use-service-account-credentials".into(),
        // It makes this folder, by default on the machine itself.
        format!("--flex-volume-plugin-dir={}", plan.dir.join("flex-volumes").display()),
        "--kube-api-qps=200".into(),
        "--kube-api-burst=400".into(),
    ];
    daemon(host, plan, "controller-manager", argv)
}

/// Starts the scheduler unless it runs.
pub(crate) fn start_scheduler(host: &Host, plan: &SitePlan) -> Result<()> {
    let argv = vec![
        host.tool("kube-scheduler"),
        format!("--kubeconfig={}", plan.dir.join("kube-scheduler.kubeconfig").display()),
        "--leader-elect=false".into(),
        "--kube-api-qps=200".into(),
        "--kube-api-burst=400".into(),
    ];
    daemon(host, plan, "scheduler", argv)
}

/// Starts the image registry unless it runs.
pub(crate) fn start_registry(host: &Host, plan: &SitePlan) -> Result<()> {
    let config = plan.dir.join("registry.yaml");
    let store = plan.dir.join("registry");
    fs::create_dir_all(&store).at("create", &store)?;
    let text = serde_json::json!({
        "version": "0.1", "log": {"level": "warn"},
        "storage": {"filesystem": {"rootdirectory": store}},
        "http": {"addr": plan.registry()},
    });
    write(&config, text.to_string())?;
    let argv = vec!["docker-registry".into(), "serve".into(), config.to_string_lossy().into_owned()];
    daemon(host, plan, "registry", argv)
}

/// kubectl inside the site's network, as its administrator.
pub(crate) fn kubectl(host: &Host, plan: &SitePlan) -> std::process::Command {
    let mut command = Place::net(&plan.netns).command(host.tool("kubectl"));
    command.arg("--kubeconfig").arg(plan.kubeconfig());
    // Discovery caches under HOME would be shared by rigs whose addresses are the same.
    command.arg("--cache-dir").arg(plan.dir.join("kubectl-cache"));
    command
}

fn daemon(host: &Host, plan: &SitePlan, name: &str, argv: Vec<String>) -> Result<()> {
    let log: &Path = &plan.logs().join(format!("{name}.log"));
    host.daemon(&format!("{}/{name}", plan.cgroup), &Place::net(&plan.netns), log, argv)
}
