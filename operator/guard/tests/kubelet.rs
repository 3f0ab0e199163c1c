//! What a kubelet sees of the guard.

mod common;

use common::eventually;
use common::federation::GROUP;
use common::node::TestNode;
use regent_proto::csi::identity_client::IdentityClient;
use regent_proto::csi::{GetPluginInfoRequest, NodeGetCapabilitiesRequest, NodeGetInfoRequest, ProbeRequest};
use regent_proto::registration::registration_client::RegistrationClient;
use regent_proto::registration::{InfoRequest, RegistrationStatus};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use tonic::Code;

#[tokio::test]
async fn the_kubelet_registers_the_driver_and_finds_its_socket() {
    let mut node = TestNode::new(5000);
    node.start().await;
    let mut registration = RegistrationClient::new(node.registration().await);
    let info = registration.get_info(InfoRequest {}).await.unwrap().into_inner();
    assert_eq!((info.r#type.as_str(), info.name.as_str()), ("CSIPlugin", "gate.regent.dev"));
    assert_eq!(info.supported_versions, ["1.0.0"]);
    assert!(std::fs::metadata(&info.endpoint).unwrap().file_type().is_socket());
    let status = RegistrationStatus { plugin_registered: true, error: String::new() };
    registration.notify_registration_status(status).await.unwrap();

    let mut csi = node.csi().await;
    let own = csi.node_get_info(NodeGetInfoRequest {}).await.unwrap().into_inner();
    assert_eq!(own.node_id, "node-1");
    csi.node_get_capabilities(NodeGetCapabilitiesRequest {}).await.unwrap();
}

#[tokio::test]
async fn the_registration_survives_the_kubelets_authority() {
    let mut node = TestNode::new(5000);
    node.start().await;
    let socket = node.path("kubelet/plugins_registry/gate.regent.dev@reg.sock");
    assert!(socket.exists());
    // What a Go client sends as :authority is the percent-encoded path; one with an `@` is an address.
    let encoded = format!("http://{}/", socket.display().to_string().replace('/', "%2F"));
    assert!(encoded.parse::<tonic::transport::Uri>().is_ok(), "{encoded}");
    assert!(encoded.replace('@', "-").parse::<tonic::transport::Uri>().is_err(), "why the @ is there");
    let mut identity = IdentityClient::new(node.channel(node.path("kubelet/plugins/gate.regent.dev/csi.sock")).await);
    identity.probe(ProbeRequest {}).await.unwrap();
    let info = identity.get_plugin_info(GetPluginInfoRequest {}).await.unwrap().into_inner();
    assert_eq!(info.name, "gate.regent.dev");
}

#[tokio::test]
async fn a_volume_is_published_again_and_taken_away_again() {
    let mut node = TestNode::new(5000);
    node.start().await;
    let mut pod = node.gated_pod("shop-0", GROUP).await;
    node.publish(&pod, GROUP).await.unwrap();
    let mode = |name: &str| std::fs::metadata(pod.target.join(name)).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode("gate.sock"), mode("regent-gate"), mode(".")), (0o666, 0o555, 0o755));
    assert!(pod.lives(), "its gate goes on waiting at the new socket");

    node.unpublish(&pod).await.unwrap();
    assert!(!pod.target.exists());
    assert!(node.state_of(&pod).await.is_none());
    node.unpublish(&pod).await.unwrap();
}

#[tokio::test]
async fn a_volume_that_is_not_right_is_refused_with_the_field_and_the_remedy() {
    let mut node = TestNode::new(5000);
    node.start().await;
    let pod = node.gated_pod("shop-0", GROUP).await;
    let two = node.publish(&pod, "ireland/other").await.unwrap_err();
    assert_eq!(two.code(), Code::FailedPrecondition);
    assert!(two.message().contains(GROUP) && two.message().contains("ireland/other"), "{}", two.message());

    let bad = node.publish(&node.pod("shop-1"), "Ireland").await.unwrap_err();
    assert!(bad.message().contains("group") && bad.message().contains("HOME/NAME"), "{}", bad.message());

    let mut elsewhere = node.pod("shop-2");
    elsewhere.target = node.path("kubelet/pods/another-uid/volumes/x/mount");
    let error = node.publish(&elsewhere, GROUP).await.unwrap_err();
    assert!(error.message().contains("--kubelet-dir"), "{}", error.message());
    assert!(!elsewhere.target.exists());
}

#[tokio::test]
async fn two_gates_of_one_pod_are_refused() {
    let mut node = TestNode::new(5000);
    node.start().await;
    let mut pod = node.gated_pod("shop-0", GROUP).await;
    let other = node.path(&format!("kubelet/pods/{}/volumes/kubernetes.io~csi/second/mount", pod.uid));
    let error = node.publish_as(&pod, "another-volume", &other, GROUP).await.unwrap_err();
    assert!(error.message().contains("two gate.regent.dev volumes"), "{}", error.message());
    assert!(pod.lives());
}

#[tokio::test]
async fn a_held_gate_says_what_it_waits_for_and_ends_when_it_is_told_to() {
    let mut node = TestNode::new(5000);
    node.start().await;
    let pod = node.pod("shop-0");
    node.publish(&pod, GROUP).await.unwrap();
    let out = node.path("gate.out");
    let mut gate = std::process::Command::new(pod.target.join("regent-gate"))
        .arg("wait")
        .stdout(std::fs::File::create(&out).unwrap())
        .spawn()
        .unwrap();
    let said = eventually("a line", || std::fs::read_to_string(&out).ok().filter(|t| t.ends_with('\n'))).await;
    assert!(said.contains("held") && said.lines().count() == 1, "{said}");
    common::node::send("-TERM", gate.id());
    assert_eq!(gate.wait().unwrap().code(), Some(143));
    let wrong = std::process::Command::new(pod.target.join("regent-gate")).arg("open").status().unwrap();
    assert_eq!(wrong.code(), Some(2), "no mistake opens a gate");
}

#[test]
fn a_try_asks_nobody_and_ends_well() {
    let run = |args: &[&str]| std::process::Command::new(env!("CARGO_BIN_EXE_regent-gate")).args(args).status();
    assert_eq!(run(&["try"]).unwrap().code(), Some(0));
    assert_eq!(run(&["try", "wait"]).unwrap().code(), Some(2));
}
