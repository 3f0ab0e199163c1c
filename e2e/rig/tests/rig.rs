//! The rig shown on itself: needs root, and brings real sites up.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use regent_rig::{Cgroups, Component, ImageFile, Options, Rig, Topology, Where, say_on_stderr};

const SERVICE: &str = "10.88.0.1:8080";

fn topology() -> Topology {
    Topology::load(&topology_path()).unwrap()
}

fn topology_path() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../topologies/small.yaml")
}

fn options(name: &str) -> Options {
    let mut options = Options::new(name);
    options.say = say_on_stderr();
    options
}

/// The example program, which cargo builds beside this test.
fn hello() -> PathBuf {
    std::env::current_exe().unwrap().parent().unwrap().parent().unwrap().join("examples/hello")
}

/// Waits for a fact that others bring about.
fn eventually(what: &str, mut fact: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !fact() {
        assert!(begin.elapsed() < Duration::from_secs(90), "{what} never came true");
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// Everything by which a rig could be found on the machine.
fn traces(name: &str) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/run/netns").into_iter().flatten().flatten() {
        let netns = entry.file_name().into_string().unwrap();
        if netns.starts_with(&format!("{name}-")) {
            found.push(format!("netns {netns}"));
        }
    }
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    let cgroup = format!("regent-rig.{name}");
    for line in mounts.lines() {
        let point = line.split(' ').nth(4).unwrap();
        if line.contains(&format!("/rig/{name}/")) || point.contains(&format!("/{name}-")) {
            found.push(format!("mount {line}"));
        }
        let root = Path::new(point).join(&cgroup);
        if point.starts_with("/sys/fs/cgroup") && root.exists() {
            found.push(format!("cgroup {}", root.display()));
        }
    }
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let text = std::fs::read_to_string(entry.path().join("cgroup")).unwrap_or_default();
        // The dead that their parent has yet to collect are not the rig's any more.
        let stat = std::fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
        if text.contains(&format!("/{cgroup}/")) && !stat.contains(") Z ") {
            found.push(format!("process {:?}", entry.file_name()));
        }
    }
    found
}

fn links() -> String {
    let out = Command::new("ip").args(["-o", "-br", "addr"]).output().unwrap();
    String::from_utf8(out.stdout).unwrap()
}

/// A rig that is taken down however its test ends.
struct Up(Rig, Options);

impl Up {
    fn new(name: &str) -> Self {
        let options = options(name);
        Self(Rig::up(&options, &topology()).unwrap(), options)
    }

    fn kubectl(&self, line: &str) -> Result<String, String> {
        self.kubectl_args(&line.split(' ').collect::<Vec<_>>())
    }

    fn kubectl_args(&self, args: &[&str]) -> Result<String, String> {
        let argv: Vec<&str> = std::iter::once("kubectl").chain(args.iter().copied()).collect();
        self.0.exec(&Where::Site("alpha".into()), &argv).map_err(|e| e.to_string())
    }

    fn hello(&self, at: &Where, what: &str, address: &str) -> Result<String, String> {
        let program = hello();
        self.0.exec(at, &[program.to_str().unwrap(), what, address]).map_err(|e| e.to_string())
    }

    fn client_sees_service(&self) -> bool {
        self.hello(&Where::Client, "fetch", SERVICE).is_ok()
    }

    /// (name, address, node, restarts) of the pods.
    fn pods(&self) -> Vec<(String, String, String, u32)> {
        let template = "jsonpath={range .items[*]}{.metadata.name}|{.status.podIP}|{.spec.nodeName}|\
                        {.status.containerStatuses[0].restartCount};{end}";
        let text = self.kubectl_args(&["get", "pods", "-n", "hello", "-o", template]).unwrap();
        let parse = |pod: &str| {
            let f: Vec<&str> = pod.split('|').collect();
            (f[0].into(), f[1].into(), f[2].into(), f[3].parse().unwrap_or(0))
        };
        text.split(';').filter(|p| !p.is_empty()).map(parse).collect()
    }
}

impl Drop for Up {
    fn drop(&mut self) {
        Rig::down(&self.1, std::thread::panicking()).unwrap();
    }
}

fn deploy(rig: &Up) {
    let image = rig.0.image("hello", &[ImageFile { source: hello(), target: "/hello".into() }], &[]).unwrap();
    assert_eq!(image, "registry.rig/hello:dev");
    let manifest = rig.0.dir().join("hello.yaml");
    let text = format!(
        "apiVersion: v1\nkind: Namespace\nmetadata: {{name: hello}}\n---\n\
         apiVersion: v1\nkind: Service\nmetadata: {{name: hello, namespace: hello}}\n\
         spec: {{type: NodePort, clusterIP: 10.96.7.7, selector: {{app: hello}}, ports: [{{port: 80, targetPort: 8080, nodePort: 30080}}]}}\n---\n\
         apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: hello, namespace: hello}}\n\
         spec:\n  replicas: 2\n  selector: {{matchLabels: {{app: hello}}}}\n  template:\n    metadata: {{labels: {{app: hello}}}}\n\
         \x20   spec:\n      terminationGracePeriodSeconds: 0\n\
         \x20     topologySpreadConstraints: [{{maxSkew: 1, topologyKey: kubernetes.io/hostname, whenUnsatisfiable: DoNotSchedule, labelSelector: {{matchLabels: {{app: hello}}}}}}]\n\
         \x20     containers: [{{name: hello, image: '{image}', args: [serve, '8080'], volumeMounts: [{{name: trace, mountPath: /trace}}]}}]\n\
         \x20     volumes: [{{name: trace, hostPath: {{path: /var/lib/regent/trace, type: DirectoryOrCreate}}}}]\n"
    );
    std::fs::write(&manifest, text).unwrap();
    rig.kubectl(&format!("apply -f {}", manifest.display())).unwrap();
    rig.kubectl("rollout status -n hello deployment/hello --timeout=90s").unwrap();
}

fn pods_reach_each_other_services_and_other_sites(rig: &Up) {
    let pods = rig.pods();
    assert_eq!(pods.iter().map(|p| p.2.as_str()).collect::<BTreeSet<_>>(), ["alpha-1", "alpha-2"].into());
    let (first, second) = (&pods[0], &pods[1]);
    let inside = |what: &str, address: &str| {
        rig.kubectl(&format!("exec -n hello {} -- /hello {what} {address}", first.0)).unwrap()
    };
    assert_eq!(inside("fetch", &format!("{}:8080", second.1)).trim(), second.0);
    inside("fetch", "10.96.7.7:80");
    inside("dial", "10.96.0.1:443");
    inside("dial", "10.88.0.2:6443");
    for _ in 0..6 {
        inside("fetch", SERVICE);
    }
}

fn service_is_answered_at_the_wan_address_by_both_pods(rig: &Up) {
    let mut seen = BTreeSet::new();
    eventually("both pods answering the client", || {
        seen.extend(rig.hello(&Where::Client, "fetch", SERVICE).ok());
        seen.len() == 2
    });
}

fn nodes_have_files_of_their_own_which_show_outside(rig: &Up) {
    let site = rig.0.site("alpha").unwrap();
    for node in site.nodes() {
        assert!(node.outside("/var/lib/regent/trace").is_dir(), "{}", node.name);
        let place = Where::Node("alpha".into(), node.name.clone());
        rig.0.exec(&place, &["touch", &format!("/var/lib/regent/{}", node.name)]).unwrap();
        let names = std::fs::read_dir(node.outside("/var/lib/regent")).unwrap();
        assert_eq!(names.count(), 2, "only its own file and the trace");
    }
    assert!(!Path::new("/var/lib/regent/trace").exists(), "the machine's own folder is untouched");
}

fn a_cut_is_seen_outside_only_and_heals(rig: &Up) {
    let before = regent_rig::boot_ns();
    let at = rig.0.cut("alpha", &[], false).unwrap();
    assert!(before < at && at <= regent_rig::boot_ns());
    assert!(!rig.client_sees_service());
    assert!(rig.hello(&Where::Site("alpha".into()), "dial", "10.88.0.2:6443").is_err());
    rig.kubectl("get nodes").unwrap();
    rig.0.heal(None).unwrap();
    eventually("the healed service", || rig.client_sees_service());
}

fn partial_and_one_way_cuts_part_only_whom_they_name(rig: &Up) {
    let omega = Where::Site("omega".into());
    rig.0.cut("alpha", &["client".into()], false).unwrap();
    assert!(!rig.client_sees_service());
    rig.hello(&omega, "fetch", SERVICE).unwrap();
    rig.0.heal(Some("alpha")).unwrap();
    rig.hello(&Where::Client, "fetch", SERVICE).unwrap();
    rig.0.cut("alpha", &["omega".into()], true).unwrap();
    let count = |side: &str| {
        let rules = rig.0.exec(&Where::Site(side.into()), &["cat", "/proc/net/snmp"]).unwrap();
        let line = rules.lines().filter(|l| l.starts_with("Udp:")).nth(1).unwrap().to_owned();
        line.split(' ').nth(2).unwrap().parse::<u64>().unwrap()
    };
    // A datagram to a closed port is counted as NoPorts where it arrives.
    let send = |from: &str, to: &str| {
        let script = format!("echo x > /dev/udp/{to}/9");
        rig.0.exec(&Where::Site(from.into()), &["bash", "-c", &script]).unwrap();
    };
    let (alpha, omega_before) = (count("alpha"), count("omega"));
    send("alpha", "10.88.0.2");
    send("omega", "10.88.0.1");
    eventually("what omega sends arriving", || count("alpha") > alpha);
    assert_eq!(count("omega"), omega_before, "what alpha sends is lost");
    rig.0.heal(None).unwrap();
    send("alpha", "10.88.0.2");
    eventually("what alpha sends arriving again", || count("omega") > omega_before);
}

fn a_killed_component_is_gone_and_can_be_started(rig: &Up) {
    for component in ["kubelet:alpha-1", "containerd:alpha-1", "etcd", "apiserver", "scheduler"] {
        let component: Component = component.parse().unwrap();
        rig.0.kill("alpha", &component).unwrap();
        assert!(rig.client_sees_service(), "pods live on without {component}");
        rig.0.start("alpha", &component).unwrap();
    }
    eventually("the API server", || rig.kubectl("get --raw /readyz").is_ok());
}

fn killed_pods_come_back_as_the_same_pods(rig: &Up) {
    let before = rig.pods();
    rig.0.kill("alpha", &Component::Pods("alpha-1".into())).unwrap();
    eventually("the pod of alpha-1 restarted", || {
        let now = rig.pods();
        now.iter().zip(&before).any(|(n, b)| n.0 == b.0 && n.2 == "alpha-1" && n.3 > b.3)
    });
    rig.kubectl("rollout status -n hello deployment/hello --timeout=90s").unwrap();
    let names = |pods: &[(String, String, String, u32)]| pods.iter().map(|p| p.0.clone()).collect::<Vec<_>>();
    assert_eq!(names(&rig.pods()), names(&before));
}

fn a_paused_api_server_hangs_until_resumed(rig: &Up) {
    let api = Component::Control("apiserver");
    rig.0.pause("alpha", &api).unwrap();
    assert!(rig.kubectl("get nodes --request-timeout=1s").is_err());
    rig.0.resume("alpha", &api).unwrap();
    eventually("the API server", || rig.kubectl("get nodes --request-timeout=5s").is_ok());
}

fn a_site_killed_as_a_whole_starts_as_after_a_reboot(rig: &Up) {
    rig.0.kill("alpha", &Component::All).unwrap();
    let plan = rig.0.site("alpha").unwrap();
    assert!(Cgroups::find().unwrap().pids(&plan.cgroup).is_empty());
    assert!(!rig.client_sees_service());
    rig.0.start("alpha", &Component::All).unwrap();
    eventually("the service after the reboot", || rig.client_sees_service());
}

fn a_program_of_others_is_part_of_its_site(rig: &Up) {
    let omega = Where::Site("omega".into());
    let argv = ["serve", "9000"].map(String::from);
    let argv: Vec<String> = std::iter::once(hello().display().to_string()).chain(argv).collect();
    rig.0.daemon(&omega, "greeter", &argv, &[]).unwrap();
    eventually("the program answering", || rig.hello(&Where::Client, "fetch", "10.88.0.2:9000").is_ok());
    rig.0.kill("omega", &Component::Program("greeter".into())).unwrap();
    assert!(rig.hello(&Where::Client, "fetch", "10.88.0.2:9000").is_err());
    rig.0.daemon(&omega, "greeter", &argv, &[]).unwrap();
    assert!(rig.0.daemon(&Where::Client, "greeter", &argv, &[]).is_err());
}

fn a_thread_can_enter_the_network_of_a_place(rig: &Up) {
    let network = || std::fs::read_link("/proc/thread-self/ns/net").unwrap().display().to_string();
    let before = network();
    let entered = std::thread::scope(|s| {
        let thread = s.spawn(|| {
            rig.0.enter(&Where::Client).unwrap();
            std::net::TcpStream::connect("10.88.0.2:6443").unwrap();
            network()
        });
        thread.join().unwrap()
    });
    let client = rig.0.exec(&Where::Client, &["readlink", "/proc/self/ns/net"]).unwrap();
    assert_eq!(entered, client.trim());
    assert_eq!(network(), before, "other threads stay where they are");
}

fn the_audit_log_tells_writes_and_logs_are_found(rig: &Up) {
    let text = std::fs::read_to_string(rig.0.site("alpha").unwrap().audit_log()).unwrap();
    let created = text.lines().any(|l| l.contains(r#""verb":"create""#) || l.contains("deployments"));
    assert!(created && !text.contains(r#""verb":"get""#));
    assert!(!rig.0.log("alpha", "pod:hello/hello").unwrap().is_empty());
    assert!(!rig.0.log("alpha", "kubelet:alpha-2").unwrap().is_empty());
    assert!(rig.0.log("alpha", "nonsense").is_err());
}

fn wrong_names_are_refused(rig: &Up) {
    assert!(rig.0.cut("nowhere", &[], false).unwrap_err().to_string().contains("alpha, omega"));
    assert!(rig.0.kill("omega", &Component::Control("scheduler")).is_err());
    assert!(rig.0.kill("alpha", &Component::Node("alpha-9".into())).unwrap_err().to_string().contains("alpha-1"));
}

#[test]
fn a_rig_carries_a_service_through_cuts_kills_and_pauses_and_leaves_nothing() {
    let links_before = links();
    let rig = Up::new("rigtest");
    assert_eq!(links(), links_before, "the machine's own network is untouched");
    assert!(Rig::list().unwrap().contains(&"rigtest".to_owned()));
    deploy(&rig);
    pods_reach_each_other_services_and_other_sites(&rig);
    service_is_answered_at_the_wan_address_by_both_pods(&rig);
    nodes_have_files_of_their_own_which_show_outside(&rig);
    a_cut_is_seen_outside_only_and_heals(&rig);
    partial_and_one_way_cuts_part_only_whom_they_name(&rig);
    a_paused_api_server_hangs_until_resumed(&rig);
    killed_pods_come_back_as_the_same_pods(&rig);
    a_killed_component_is_gone_and_can_be_started(&rig);
    a_site_killed_as_a_whole_starts_as_after_a_reboot(&rig);
    the_audit_log_tells_writes_and_logs_are_found(&rig);
    a_program_of_others_is_part_of_its_site(&rig);
    a_thread_can_enter_the_network_of_a_place(&rig);
    wrong_names_are_refused(&rig);
    drop(rig);
    assert_eq!(traces("rigtest"), Vec::<String>::new());
    assert_eq!(links(), links_before);
}

#[test]
fn up_after_a_killed_up_cleans_up_first_and_down_leaves_nothing() {
    let name = "rigkill";
    regent_rig::build_tools(&options(name).tools, &say_on_stderr()).unwrap();
    let mut up = Command::new(env!("CARGO_BIN_EXE_regent-rig"));
    up.args(["--rig", name, "up"]).arg(topology_path()).stderr(Stdio::null());
    let mut child = up.spawn().unwrap();
    let cgroups = Cgroups::find().unwrap();
    eventually("an API server of the first run", || {
        !cgroups.pids(&format!("regent-rig.{name}/alpha/apiserver")).is_empty()
    });
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(!traces(name).is_empty(), "the killed run left something to clean");
    let rig = Up::new(name);
    rig.kubectl("wait --for=condition=Ready node --all --timeout=60s").unwrap();
    drop(rig);
    assert_eq!(traces(name), Vec::<String>::new());
    Rig::down(&options(name), false).unwrap();
}
