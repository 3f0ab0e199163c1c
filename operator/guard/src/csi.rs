//! What the kubelet asks: the registration, and the four calls of an ephemeral volume.

use std::path::{Path, PathBuf};

use regent_core::ids::GroupKey;
use regent_lease::guard::{Pod, PodUid};
use regent_proto::csi::identity_server::Identity;
use regent_proto::csi::node_server::Node;
use regent_proto::csi::{
    GetPluginInfoRequest, GetPluginInfoResponse, NodeGetCapabilitiesRequest, NodeGetCapabilitiesResponse,
    NodeGetInfoRequest, NodeGetInfoResponse, NodePublishVolumeRequest, NodePublishVolumeResponse,
    NodeUnpublishVolumeRequest, NodeUnpublishVolumeResponse, ProbeRequest, ProbeResponse,
};
use regent_proto::registration::registration_server::Registration;
use regent_proto::registration::{InfoRequest, PluginInfo, RegistrationStatus, RegistrationStatusResponse};
use tokio::sync::{mpsc, oneshot};
use tonic::{Request, Response, Status};

use crate::input::Input;
use crate::journal::Volume;
use crate::volume::{Published, VolumeError, Volumes};

/// The driver's name, in CSIDriver objects and volumes.
pub const DRIVER: &str = "gate.regent.dev";
/// The name of the registration socket. tonic refuses the kubelet's `:authority`, which is
/// the percent-encoded path of the socket, unless an `@` is in it.
pub const REGISTRATION_SOCKET: &str = "gate.regent.dev@reg.sock";
/// The name of the socket in the plugin's own folder.
pub const SOCKET: &str = "csi.sock";

/// Answers the kubelet; clones answer the same.
#[derive(Debug, Clone)]
pub struct Kubelet {
    /// Where the pod's volumes are made.
    pub volumes: Volumes,
    /// The guard.
    pub inputs: mpsc::Sender<Input>,
    /// This node's name.
    pub node: String,
    /// Where the kubelet finds the CSI socket.
    pub endpoint: PathBuf,
}

/// What a volume must say of its pod.
fn pod_of(request: &NodePublishVolumeRequest) -> Result<Pod, Status> {
    let field = |key: &str| {
        let value = request.volume_context.get(key).filter(|v| !v.is_empty()).cloned();
        value.ok_or_else(|| {
            Status::invalid_argument(format!(
                "volume {}: volumeAttributes lack {key}; the CSIDriver {DRIVER} must have podInfoOnMount: true, and the volume the attribute group: HOME/NAME",
                request.volume_id
            ))
        })
    };
    let uid = field("csi.storage.k8s.io/pod.uid")?;
    if uid.len() > 64 || !uid.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-') {
        return Err(Status::invalid_argument(format!("volume {}: pod uid {uid:?} is no UID", request.volume_id)));
    }
    let group: GroupKey = field("group")?
        .parse()
        .map_err(|e| Status::invalid_argument(format!("volume {}: volumeAttributes.group: {e}", request.volume_id)))?;
    let (namespace, name) = (field("csi.storage.k8s.io/pod.namespace")?, field("csi.storage.k8s.io/pod.name")?);
    Ok(Pod { uid: PodUid(uid), namespace, name, group })
}

fn refused(error: VolumeError) -> Status {
    match error {
        VolumeError::OutOfPlace { .. } => Status::invalid_argument(error.to_string()),
        VolumeError::Io { .. } => Status::internal(error.to_string()),
    }
}

fn stopping<E>(_: E) -> Status {
    Status::unavailable("the guard is stopping; the kubelet asks again")
}

/// The disk's work, off the thread that keeps the deadlines.
async fn on_disk<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, VolumeError> + Send + 'static,
) -> Result<T, Status> {
    tokio::task::spawn_blocking(work).await.map_err(stopping)?.map_err(refused)
}

#[tonic::async_trait]
impl Node for Kubelet {
    async fn node_publish_volume(
        &self,
        request: Request<NodePublishVolumeRequest>,
    ) -> Result<Response<NodePublishVolumeResponse>, Status> {
        let request = request.into_inner();
        let pod = pod_of(&request)?;
        let target = PathBuf::from(&request.target_path);
        self.volumes.check(&target, Some(&pod.uid)).map_err(refused)?;
        let published = Published { pod, volume: Volume { id: request.volume_id, target } };
        let (volumes, publishing) = (self.volumes.clone(), published.clone());
        let listener = on_disk(move || volumes.publish(&publishing)).await?;
        let (reply, done) = oneshot::channel();
        self.inputs.send(Input::Publish { published, listener, reply }).await.map_err(stopping)?;
        done.await.map_err(stopping)?.map_err(|e| Status::failed_precondition(e.to_string()))?;
        Ok(Response::new(NodePublishVolumeResponse {}))
    }

    async fn node_unpublish_volume(
        &self,
        request: Request<NodeUnpublishVolumeRequest>,
    ) -> Result<Response<NodeUnpublishVolumeResponse>, Status> {
        let NodeUnpublishVolumeRequest { volume_id: id, target_path } = request.into_inner();
        self.volumes.check(Path::new(&target_path), None).map_err(refused)?;
        let (reply, done) = oneshot::channel();
        self.inputs.send(Input::Unpublish { id, reply }).await.map_err(stopping)?;
        done.await.map_err(stopping)?.map_err(|e| Status::failed_precondition(e.to_string()))?;
        let volumes = self.volumes.clone();
        on_disk(move || volumes.unpublish(Path::new(&target_path))).await?;
        Ok(Response::new(NodeUnpublishVolumeResponse {}))
    }

    async fn node_get_capabilities(
        &self,
        _: Request<NodeGetCapabilitiesRequest>,
    ) -> Result<Response<NodeGetCapabilitiesResponse>, Status> {
        Ok(Response::new(NodeGetCapabilitiesResponse {}))
    }

    async fn node_get_info(&self, _: Request<NodeGetInfoRequest>) -> Result<Response<NodeGetInfoResponse>, Status> {
        Ok(Response::new(NodeGetInfoResponse { node_id: self.node.clone() }))
    }
}

#[tonic::async_trait]
impl Identity for Kubelet {
    async fn get_plugin_info(
        &self,
        _: Request<GetPluginInfoRequest>,
    ) -> Result<Response<GetPluginInfoResponse>, Status> {
        let vendor_version = env!("CARGO_PKG_VERSION").to_owned();
        Ok(Response::new(GetPluginInfoResponse { name: DRIVER.to_owned(), vendor_version }))
    }

    async fn probe(&self, _: Request<ProbeRequest>) -> Result<Response<ProbeResponse>, Status> {
        Ok(Response::new(ProbeResponse {}))
    }
}

#[tonic::async_trait]
impl Registration for Kubelet {
    async fn get_info(&self, _: Request<InfoRequest>) -> Result<Response<PluginInfo>, Status> {
        Ok(Response::new(PluginInfo {
            r#type: "CSIPlugin".to_owned(),
            name: DRIVER.to_owned(),
            endpoint: self.endpoint.display().to_string(),
            supported_versions: vec!["1.0.0".to_owned()],
        }))
    }

    async fn notify_registration_status(
        &self,
        request: Request<RegistrationStatus>,
    ) -> Result<Response<RegistrationStatusResponse>, Status> {
        let status = request.into_inner();
        if status.plugin_registered {
            tracing::info!("the kubelet has registered {DRIVER}");
        } else {
            tracing::error!(error = status.error, "the kubelet refuses {DRIVER}");
        }
        Ok(Response::new(RegistrationStatusResponse {}))
    }
}
