//! The sockets that a guard answers on. Their names lie on the node's disk, so they are
//! opened where it may hang.

use std::collections::BTreeMap;
use std::io;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use regent_lease::guard::PodUid;

use crate::csi::{DRIVER, REGISTRATION_SOCKET, SOCKET};
use crate::journal::Volume;
use crate::serve::{Options, ServeError, io_error};
use crate::socket::listen_in;
use crate::volume::Volumes;

/// All of them, listening.
pub struct Sockets {
    /// In the volumes of pods that were there before.
    pub gates: Vec<(PodUid, UnixListener)>,
    /// For the agent.
    pub agent: UnixListener,
    /// For the kubelet's calls.
    pub csi: UnixListener,
    /// For the kubelet to find those.
    pub registration: UnixListener,
}

impl Sockets {
    /// Opens them. A gate that can't be, because its volume is gone, is the kubelet's to
    /// publish or to take away.
    pub fn open(options: &Options, volumes: &BTreeMap<PodUid, Volume>) -> Result<Self, ServeError> {
        let gate = |(uid, volume): (&PodUid, &Volume)| match Volumes::listen(&volume.target) {
            Ok(listener) => Some((uid.clone(), listener)),
            Err(error) => {
                tracing::error!(pod = uid.0, %error, "a gate can't be answered");
                None
            }
        };
        let gates = volumes.iter().filter_map(gate).collect();
        let (dir, name) = split(&options.agent_socket)?;
        // The agent has another uid; nobody but the two sees this folder.
        let agent = listen(dir, name, 0o666)?;
        let csi = listen(&plugin(options), SOCKET, 0o600)?;
        // Last: the kubelet calls as soon as it sees this one.
        let registration = listen(&options.kubelet_dir.join("plugins_registry"), REGISTRATION_SOCKET, 0o600)?;
        Ok(Self { gates, agent, csi, registration })
    }
}

/// The driver's folder among the kubelet's plugins.
fn plugin(options: &Options) -> PathBuf {
    options.kubelet_dir.join("plugins").join(DRIVER)
}

/// Where the kubelet is to call.
pub fn csi_endpoint(options: &Options) -> PathBuf {
    plugin(options).join(SOCKET)
}

fn split(path: &Path) -> Result<(&Path, &str), ServeError> {
    let parts = path.parent().zip(path.file_name().and_then(|n| n.to_str()));
    parts.ok_or_else(|| {
        io_error(format!("{} is no path of a socket", path.display()))(io::ErrorKind::InvalidInput.into())
    })
}

fn listen(dir: &Path, name: &str, mode: u32) -> Result<UnixListener, ServeError> {
    let make = || -> io::Result<UnixListener> {
        std::fs::create_dir_all(dir)?;
        listen_in(dir, name, mode)
    };
    make().map_err(io_error(format!("listening on {}", dir.join(name).display())))
}
