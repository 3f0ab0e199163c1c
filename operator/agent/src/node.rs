//! This node's own Node object: the source of health, capacity and images.
//!
//! The API server may be gone for days. Then what was last seen stays, and the hub knows
//! by other signs that the node is there.

use std::time::Duration;

use k8s_openapi::api::core::v1::Node;
use kube::{Api, Client, Config};
use regent_core::ids::NodeName;
use regent_core::quantity::{milli, units};
use regent_shell::retry::RetryPolicy;
use tokio::sync::watch;

/// Between two looks at the Node; the kubelet itself writes every 10 s to 5 min.
const PERIOD: Duration = Duration::from_secs(10);
const CALL_TIMEOUT: Duration = Duration::from_secs(5);
const FIRST_RETRY: Duration = Duration::from_millis(500);
const LONGEST_RETRY: Duration = Duration::from_secs(30);

/// What a Node's status says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NodeStatus {
    /// Condition `Ready` is `True`.
    pub ready: bool,
    /// Allocatable CPU, in thousandths.
    pub cpu_milli: u64,
    /// Allocatable memory, in bytes.
    pub memory_bytes: u64,
    /// Allocatable pods.
    pub pods: u32,
    /// Every name of every image.
    pub images: Vec<String>,
}

fn read(node: Node) -> NodeStatus {
    let status = node.status.unwrap_or_default();
    let allocatable = status.allocatable.unwrap_or_default();
    let quantity = |name: &str| allocatable.get(name).map_or("", |q| q.0.as_str());
    let ready = |c: &k8s_openapi::api::core::v1::NodeCondition| c.type_ == "Ready" && c.status == "True";
    NodeStatus {
        ready: status.conditions.unwrap_or_default().iter().any(ready),
        cpu_milli: milli(quantity("cpu")).unwrap_or(0),
        memory_bytes: units(quantity("memory")).unwrap_or(0),
        pods: units(quantity("pods")).and_then(|n| u32::try_from(n).ok()).unwrap_or(0),
        images: status.images.unwrap_or_default().into_iter().flat_map(|i| i.names.unwrap_or_default()).collect(),
    }
}

/// Looks at the Node for ever. Outside a cluster there is none to look at.
pub async fn follow(name: &NodeName, status: &watch::Sender<NodeStatus>, seed: u64) {
    let client = match Config::incluster().map_err(|e| e.to_string()).and_then(connect) {
        Ok(client) => client,
        Err(error) => {
            tracing::warn!(error, "no API server to ask about this node: its health and capacity stay unknown");
            return;
        }
    };
    let api: Api<Node> = Api::all(client);
    let mut retry = RetryPolicy::new(FIRST_RETRY, LONGEST_RETRY, seed);
    loop {
        match tokio::time::timeout(CALL_TIMEOUT, api.get(&name.0)).await {
            Ok(Ok(node)) => {
                let new = read(node);
                status.send_if_modified(|old| {
                    let changed = *old != new;
                    *old = new;
                    changed
                });
                retry.reset();
                tokio::time::sleep(PERIOD).await;
            }
            Ok(Err(error)) => {
                tracing::debug!(%error, node = %name, "the Node can't be read; what was last seen stays");
                retry.wait().await;
            }
            Err(_) => retry.wait().await,
        }
    }
}

fn connect(config: Config) -> Result<Client, String> {
    Client::try_from(config).map_err(|e| e.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn health_capacity_and_images_come_from_the_status() {
        let node: Node = serde_json::from_value(serde_json::json!({
            "apiVersion": "v1", "kind": "Node", "metadata": { "name": "n1" },
            "status": {
                "allocatable": { "cpu": "1930m", "memory": "7Gi", "pods": "110" },
                "conditions": [
                    { "type": "MemoryPressure", "status": "False" },
                    { "type": "Ready", "status": "True" },
                ],
                "images": [
                    { "names": ["shop@sha256:aa", "shop:1"] },
                    { "names": ["pause:3"] },
                ],
            },
        }))
        .unwrap();
        let status = read(node);
        assert!(status.ready);
        assert_eq!((status.cpu_milli, status.memory_bytes, status.pods), (1930, 7 << 30, 110));
        assert_eq!(status.images, ["shop@sha256:aa", "shop:1", "pause:3"]);
        assert!(!read(Node::default()).ready);
    }
}
