//! A node: a kubelet's folders, a private part of the cgroup v2 tree, and a guard.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use regent_core::event::Event;
use regent_core::instruction::Instruction;
use regent_core::message::Entry;
use regent_core::plan::Protection::Protected;
use regent_proto::csi::node_client::NodeClient;
use regent_proto::csi::{NodePublishVolumeRequest, NodeUnpublishVolumeRequest};
use regent_proto::v1;
use regent_proto::v1::guard_client::GuardClient;
use tonic::Status;
use tonic::transport::{Channel, Endpoint};

use super::eventually;
use super::federation::{Federation, GROUP, entry};

static NEXT: AtomicU32 = AtomicU32::new(1);

pub struct TestNode {
    pub federation: Federation,
    pub dir: tempfile::TempDir,
    pub cgroup: PathBuf,
    guard: Option<Child>,
}

pub struct TestPod {
    pub name: String,
    pub uid: String,
    pub target: PathBuf,
    pub cgroup: PathBuf,
    pub journal: PathBuf,
    pub containers: Vec<Child>,
}

fn v2_mount() -> PathBuf {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let line = table.lines().find(|l| l.contains(" - cgroup2 ")).expect("a cgroup v2 tree");
    PathBuf::from(line.split(' ').nth(4).unwrap())
}

impl TestNode {
    pub fn new(lease_ms: u64) -> Self {
        let federation = Federation::new(lease_ms);
        let dir = tempfile::tempdir().unwrap();
        let name = format!("regent-guard-test-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let cgroup = v2_mount().join(name);
        // Like the guard's own pod on a real node: a tree without any pod is the wrong tree.
        let own = cgroup.join("node-1/kubepods/burstable/pod00000000-0000-0000-0000-000000000000");
        fs::create_dir_all(own).expect("tests of the guard run as root");
        fs::create_dir_all(dir.path().join("kubelet/plugins_registry")).unwrap();
        fs::write(dir.path().join("charter.json"), federation.signed(2)).unwrap();
        Self { federation, dir, cgroup, guard: None }
    }

    /// A node with one pod that runs under epoch 1.1.
    pub async fn running(lease_ms: u64) -> (Self, TestPod) {
        let mut node = Self::new(lease_ms);
        node.start().await;
        let pod = node.gated_pod("shop-0", GROUP).await;
        assert_eq!(node.certify(&[entry(GROUP, "1.1", Protected)]).await.accepted_groups, [GROUP]);
        pod.runs().await;
        (node, pod)
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn command(&self, mode: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_regent-guard"));
        command.args([mode, "--site", "ireland", "--node", "node-1"]);
        let paths = [
            ("--charter", self.path("charter.json")),
            ("--state", self.path("state")),
            ("--agent-socket", self.path("run/guard.sock")),
            ("--kubelet-dir", self.path("kubelet")),
            ("--cgroup-root", self.cgroup.clone()),
        ];
        for (flag, path) in paths {
            command.arg(flag).arg(path);
        }
        command
    }

    /// Starts a guard under its supervisor and waits until it answers.
    pub async fn start(&mut self) {
        let out = File::options().create(true).append(true).open(self.path("events.jsonl")).unwrap();
        let child = self.command("supervise").stdout(out).stdin(Stdio::null()).spawn().unwrap();
        self.guard = Some(child);
        self.agent().await;
    }

    pub fn supervisor(&self) -> u32 {
        self.guard.as_ref().unwrap().id()
    }

    /// The guard's own process, a child of the supervisor.
    pub fn guard_pid(&self) -> Option<u32> {
        let supervisor = self.supervisor();
        let children = fs::read_to_string(format!("/proc/{supervisor}/task/{supervisor}/children")).ok()?;
        children.split_whitespace().next()?.parse().ok()
    }

    /// Ends the supervisor and with it the guard; its status.
    pub async fn end(&mut self, signal: &str) -> Option<i32> {
        let mut child = self.guard.take().unwrap();
        send(signal, child.id());
        eventually("the guard's end", || child.try_wait().unwrap()).await.code()
    }

    pub fn events(&self) -> Vec<Event> {
        let text = fs::read_to_string(self.path("events.jsonl")).unwrap_or_default();
        text.lines().filter_map(|l| serde_json::from_str(l).ok()).collect()
    }

    pub async fn event(&self, name: &str) -> Event {
        self.event_from(0, name).await
    }

    /// The first such event behind the first so many events.
    pub async fn event_from(&self, skip: usize, name: &str) -> Event {
        eventually(name, || self.events().into_iter().skip(skip).find(|e| e.event == name)).await
    }

    pub async fn channel(&self, socket: PathBuf) -> Channel {
        loop {
            let path = socket.clone();
            let connect = tower::service_fn(move |_| {
                let path = path.clone();
                async move { Ok::<_, io::Error>(TokioIo::new(tokio::net::UnixStream::connect(path).await?)) }
            });
            match Endpoint::from_static("http://localhost").connect_with_connector(connect).await {
                Ok(channel) => return channel,
                Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
            }
        }
    }

    pub async fn agent(&self) -> GuardClient<Channel> {
        GuardClient::new(self.channel(self.path("run/guard.sock")).await)
    }

    pub async fn registration(&self) -> Channel {
        self.channel(self.path("kubelet/plugins_registry/gate.regent.dev@reg.sock")).await
    }

    pub async fn csi(&self) -> NodeClient<Channel> {
        NodeClient::new(self.channel(self.path("kubelet/plugins/gate.regent.dev/csi.sock")).await)
    }

    pub async fn nonce(&self) -> Vec<u8> {
        self.agent().await.new_nonce(v1::NewNonceRequest {}).await.unwrap().into_inner().nonce
    }

    /// Has the witnesses certify entries for this node, as its agent would.
    pub async fn certify(&self, entries: &[Entry]) -> v1::CertifyResponse {
        let nonce = self.nonce().await;
        self.show(self.federation.certificate("ireland", &nonce, entries)).await
    }

    pub async fn show(&self, certificate: v1::NodeCertificate) -> v1::CertifyResponse {
        self.agent().await.certify(certificate).await.unwrap().into_inner()
    }

    /// Returns why it is refused, and nothing when it is done.
    pub async fn instruct(&self, group: &str, instruction: Instruction) -> String {
        let told = v1::Instruction::from((&group.parse().unwrap(), instruction));
        let answer = self.agent().await.instruct(told.clone()).await.unwrap().into_inner();
        assert_eq!(answer.instruction, Some(told), "a confirmation repeats what was told");
        answer.error
    }

    pub async fn publish(&self, pod: &TestPod, group: &str) -> Result<(), Status> {
        self.publish_as(pod, &format!("csi-{}", pod.uid), &pod.target, group).await
    }

    pub async fn publish_as(&self, pod: &TestPod, id: &str, target: &Path, group: &str) -> Result<(), Status> {
        let context = [
            ("csi.storage.k8s.io/pod.uid", pod.uid.as_str()),
            ("csi.storage.k8s.io/pod.name", pod.name.as_str()),
            ("csi.storage.k8s.io/pod.namespace", "shop"),
            ("csi.storage.k8s.io/ephemeral", "true"),
            ("group", group),
        ];
        let request = NodePublishVolumeRequest {
            volume_id: id.to_owned(),
            target_path: target.display().to_string(),
            readonly: true,
            volume_context: context.into_iter().map(|(k, v)| (k.to_owned(), v.to_owned())).collect(),
        };
        self.csi().await.node_publish_volume(request).await.map(drop)
    }

    pub async fn unpublish(&self, pod: &TestPod) -> Result<(), Status> {
        let (volume_id, target_path) = (format!("csi-{}", pod.uid), pod.target.display().to_string());
        let request = NodeUnpublishVolumeRequest { volume_id, target_path };
        self.csi().await.node_unpublish_volume(request).await.map(drop)
    }

    /// A pod with its cgroup, not yet published.
    pub fn pod(&self, name: &str) -> TestPod {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let uid = format!("0f6a3c1f-5b48-4b0d-91ea-{number:012x}");
        let cgroup = self.cgroup.join(format!("node-1/kubepods/burstable/pod{uid}"));
        let target = self.path(&format!("kubelet/pods/{uid}/volumes/kubernetes.io~csi/regent-gate/mount"));
        let journal = self.path(&format!("{name}.journal"));
        TestPod { name: name.into(), uid, target, cgroup, journal, containers: Vec::new() }
    }

    /// A published pod whose first container stands at the gate.
    pub async fn gated_pod(&self, name: &str, group: &str) -> TestPod {
        let mut pod = self.pod(name);
        self.publish(&pod, group).await.unwrap();
        pod.start();
        pod
    }

    async fn state(&self) -> v1::GuardState {
        let mut states = self.agent().await.watch(v1::WatchRequest {}).await.unwrap().into_inner();
        states.message().await.unwrap().unwrap()
    }

    pub async fn journal_id(&self) -> String {
        self.state().await.journal_id
    }

    pub async fn state_of(&self, pod: &TestPod) -> Option<v1::GatePod> {
        self.state().await.pods.into_iter().find(|p| p.uid == pod.uid)
    }
}

impl Drop for TestNode {
    fn drop(&mut self) {
        if let Some(mut guard) = self.guard.take() {
            let _ = guard.kill();
            let _ = guard.wait();
        }
        let _ = fs::write(self.cgroup.join("cgroup.kill"), "1");
        for _ in 0..500 {
            if remove(&self.cgroup).is_ok() {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        eprintln!("{} is left behind", self.cgroup.display());
    }
}

/// Removes a cgroup and those below it.
fn remove(dir: &Path) -> io::Result<()> {
    for entry in fs::read_dir(dir)?.flatten().filter(|e| e.file_type().is_ok_and(|t| t.is_dir())) {
        remove(&entry.path())?;
    }
    fs::remove_dir(dir)
}

impl TestPod {
    /// Starts the pod's container as a kubelet would: the gate, then the workload.
    pub fn start(&mut self) {
        let own = std::env::current_exe().unwrap().display().to_string();
        self.start_program(&[&own, "--ignored", "--exact", "workload"]);
    }

    /// The same, with another workload.
    pub fn start_program(&mut self, program: &[&str]) {
        let container = self.cgroup.join(format!("container-{}", self.containers.len()));
        fs::create_dir_all(&container).unwrap();
        let script = r#"echo $$ > "$0/cgroup.procs" && gate="$1/regent-gate" && shift && "$gate" wait && exec "$@""#;
        let child = Command::new("sh")
            .args(["-c", script])
            .args([&container, &self.target])
            .args(program)
            .env("WORKLOAD_JOURNAL", &self.journal)
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        self.containers.push(child);
    }

    /// CLOCK_BOOTTIME of every step that the workload made.
    pub fn steps(&self) -> Vec<u64> {
        let text = fs::read_to_string(&self.journal).unwrap_or_default();
        text.lines().filter_map(|l| l.parse().ok()).collect()
    }

    pub async fn runs(&self) {
        let before = self.steps().len();
        eventually("the workload makes steps", || (self.steps().len() > before + 3).then_some(())).await;
    }

    pub fn epoch(&self) -> Option<String> {
        fs::read_to_string(self.target.join("epoch")).ok()
    }

    pub fn is_frozen(&self) -> bool {
        fs::read_to_string(self.cgroup.join("cgroup.events")).unwrap().contains("frozen 1")
    }

    /// Whether the container that was started last lives.
    pub fn lives(&mut self) -> bool {
        self.containers.last_mut().unwrap().try_wait().unwrap().is_none()
    }
}

impl Drop for TestPod {
    fn drop(&mut self) {
        for child in &mut self.containers {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

pub fn send(signal: &str, pid: u32) {
    assert!(Command::new("kill").args([signal, &pid.to_string()]).status().unwrap().success());
}

/// What a pod runs: appends the time, every millisecond.
pub fn work() {
    use std::io::Write;
    let Ok(path) = std::env::var("WORKLOAD_JOURNAL") else { return };
    let mut journal = File::options().create(true).append(true).open(path).unwrap();
    loop {
        writeln!(journal, "{}", super::now().boot_ns).unwrap();
        std::thread::sleep(Duration::from_millis(1));
    }
}
