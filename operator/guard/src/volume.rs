//! What the guard puts into a pod's volume: whose it is, the program, the socket, the epoch.
//!
//! An ephemeral inline volume needs no mount: it is a folder that the runtime binds into
//! the pod, read-only. Being in the pod's own folder, the socket is the pod's identity.

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::{Component, Path, PathBuf};

use regent_core::ids::Epoch;
use regent_lease::guard::{Pod, PodUid};
use serde::{Deserialize, Serialize};

use crate::journal::Volume;
use crate::socket::listen_in;

/// Whose volume it is: a guard whose journal was lost finds the node's pods by it.
pub const POD: &str = "pod.json";
/// The program that holds the pod.
pub const PROGRAM: &str = "regent-gate";
/// Where it asks.
pub const SOCKET: &str = "gate.sock";
/// The fencing token, `TERM.SITE`, for programs that want one.
pub const EPOCH: &str = "epoch";

/// What [`POD`] says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Published {
    /// The pod.
    pub pod: Pod,
    /// The volume.
    pub volume: Volume,
}

/// Why a volume can't be made or taken away.
#[derive(Debug, thiserror::Error)]
pub enum VolumeError {
    /// Not the folder of a volume of that pod.
    #[error(
        "target path {path} is not a volume below {below}; is the guard started with the kubelet's --root-dir as --kubelet-dir?"
    )]
    OutOfPlace {
        /// What the kubelet asked for.
        path: PathBuf,
        /// Where it must be.
        below: PathBuf,
    },
    /// The disk refuses.
    #[error("volume {path}: {what}: {cause}")]
    Io {
        /// Which volume.
        path: PathBuf,
        /// What was tried.
        what: &'static str,
        /// Why it failed.
        cause: io::Error,
    },
}

/// Makes and removes volumes below one kubelet's folder.
#[derive(Debug, Clone)]
pub struct Volumes {
    pods: PathBuf,
    program: PathBuf,
}

fn fail(path: &Path, what: &'static str) -> impl FnOnce(io::Error) -> VolumeError {
    let path = path.to_owned();
    move |cause| VolumeError::Io { path, what, cause }
}

impl Volumes {
    /// Below `kubelet_dir/pods`, with copies of `program`.
    pub fn new(kubelet_dir: &Path, program: PathBuf) -> Self {
        Self { pods: kubelet_dir.join("pods"), program }
    }

    /// Refuses a target that is no volume's folder of a pod (of this one, if one is given).
    pub fn check(&self, target: &Path, uid: Option<&PodUid>) -> Result<(), VolumeError> {
        let below = uid.map_or_else(|| self.pods.clone(), |uid| self.pods.join(&uid.0));
        let inside = target.strip_prefix(&below).is_ok_and(|rest| {
            rest.components().count() >= 2 && rest.components().all(|c| matches!(c, Component::Normal(_)))
        });
        if inside { Ok(()) } else { Err(VolumeError::OutOfPlace { path: target.to_owned(), below }) }
    }

    /// The volumes that lie on the node, by their pods' UIDs; of one that can't say whose it
    /// is, the UID alone.
    pub fn found(&self) -> BTreeMap<PodUid, Option<Published>> {
        let mut found = BTreeMap::new();
        for pod in folders(&self.pods) {
            let Some(uid) = pod.file_name().and_then(|n| n.to_str()).map(|n| PodUid(n.to_owned())) else { continue };
            for volume in folders(&pod.join("volumes/kubernetes.io~csi")) {
                let target = volume.join("mount");
                if target.join(PROGRAM).exists() {
                    found.insert(uid.clone(), published(&target).filter(|p| p.pod.uid == uid));
                }
            }
        }
        found
    }

    /// Makes the folder with the program in it and listens on its socket; done again, it
    /// replaces both.
    pub fn publish(&self, published: &Published) -> Result<UnixListener, VolumeError> {
        let target = &published.volume.target;
        fs::create_dir_all(target).map_err(fail(target, "making the folder"))?;
        fs::set_permissions(target, Permissions::from_mode(0o755)).map_err(fail(target, "setting its mode"))?;
        // Before the program, without which nothing of the pod starts.
        let text = serde_json::to_vec(published).map_err(io::Error::from);
        text.and_then(|text| replace(target, POD, &text)).map_err(fail(target, "writing whose it is"))?;
        self.copy_program(target).map_err(fail(target, "copying regent-gate into it"))?;
        Self::listen(target)
    }

    /// Listens on the socket of a volume that is there.
    pub fn listen(target: &Path) -> Result<UnixListener, VolumeError> {
        listen_in(target, SOCKET, 0o666).map_err(fail(target, "listening on its gate.sock"))
    }

    fn copy_program(&self, target: &Path) -> io::Result<()> {
        let (copy, temporary) = (target.join(PROGRAM), target.join(".regent-gate"));
        let same = |a: &Path, b: &Path| -> io::Result<bool> {
            Ok(fs::metadata(a)?.len() == fs::metadata(b)?.len() && fs::read(a)? == fs::read(b)?)
        };
        if copy.exists() && same(&copy, &self.program)? {
            return Ok(());
        }
        // By rename: a program that is running can't be written to. Without capabilities
        // even root can't write to what a guard before left here half done, read-only.
        gone(fs::remove_file(&temporary))?;
        fs::copy(&self.program, &temporary)?;
        fs::set_permissions(&temporary, Permissions::from_mode(0o555))?;
        fs::rename(&temporary, &copy)
    }

    /// Writes the epoch that programs in the pod read.
    pub fn write_epoch(target: &Path, epoch: Epoch) -> Result<(), VolumeError> {
        replace(target, EPOCH, epoch.to_string().as_bytes()).map_err(fail(target, "writing its epoch"))
    }

    /// Empties and removes the folder. That it is gone already is fine.
    pub fn unpublish(&self, target: &Path) -> Result<(), VolumeError> {
        self.check(target, None)?;
        // The program last: while it is there, so is whose volume it is.
        for name in [SOCKET, EPOCH, PROGRAM, POD] {
            for path in [target.join(format!(".{name}")), target.join(name)] {
                gone(fs::remove_file(path)).map_err(fail(target, "emptying it"))?;
            }
        }
        gone(fs::remove_dir(target)).map_err(fail(target, "removing it"))
    }
}

/// Writes a file for the pod to read, whole or not at all.
fn replace(target: &Path, name: &str, text: &[u8]) -> io::Result<()> {
    let temporary = target.join(format!(".{name}"));
    gone(fs::remove_file(&temporary))?;
    fs::write(&temporary, text)?;
    fs::set_permissions(&temporary, Permissions::from_mode(0o444))?;
    fs::rename(&temporary, target.join(name))
}

fn published(target: &Path) -> Option<Published> {
    let text = fs::read(target.join(POD)).ok()?;
    serde_json::from_slice(&text).ok()
}

/// The folders in a folder; none if there is no such folder.
fn folders(dir: &Path) -> Vec<PathBuf> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(e) => {
            if e.kind() != io::ErrorKind::NotFound {
                tracing::error!(path = %dir.display(), error = %e, "the pods' volumes can't be looked through");
            }
            return Vec::new();
        }
    };
    entries.flatten().filter(|e| e.file_type().is_ok_and(|t| t.is_dir())).map(|e| e.path()).collect()
}

fn gone(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_volume_is_published_twice_and_removed_twice() {
        let root = tempfile::tempdir().unwrap();
        let program = root.path().join("program");
        fs::write(&program, "first").unwrap();
        let volumes = Volumes::new(root.path(), program.clone());
        let target = root.path().join("pods/u1/volumes/kubernetes.io~csi/regent-gate/mount");
        let uid = PodUid("u1".into());
        let (group, volume) = ("ireland/shop".parse().unwrap(), Volume { id: "csi-1".into(), target: target.clone() });
        let pod = Pod { uid: uid.clone(), namespace: "shop".into(), name: "shop-0".into(), group };
        let published = Published { pod, volume };
        volumes.check(&target, Some(&uid)).unwrap();
        assert_eq!(volumes.found(), BTreeMap::new());
        volumes.publish(&published).unwrap();
        assert_eq!(volumes.found(), BTreeMap::from([(uid.clone(), Some(published.clone()))]));
        fs::write(&program, "other").unwrap();
        volumes.publish(&published).unwrap();
        Volumes::write_epoch(&target, Epoch { term: 3, site: 2 }).unwrap();
        assert_eq!(fs::read_to_string(target.join(PROGRAM)).unwrap(), "other");
        assert_eq!(fs::metadata(target.join(PROGRAM)).unwrap().permissions().mode() & 0o777, 0o555);
        assert_eq!(fs::read_to_string(target.join(EPOCH)).unwrap(), "3.2");
        fs::remove_file(target.join(POD)).unwrap();
        assert_eq!(volumes.found(), BTreeMap::from([(uid, None)]));
        volumes.unpublish(&target).unwrap();
        assert!(!target.exists());
        volumes.unpublish(&target).unwrap();
    }

    #[test]
    fn a_target_outside_of_the_pods_folder_is_refused_with_the_remedy() {
        let volumes = Volumes::new(Path::new("/var/lib/kubelet"), "/regent-gate".into());
        for bad in [
            "/etc",
            "/var/lib/kubelet/pods/u1",
            "/var/lib/kubelet/pods/../../etc/x",
            "/var/lib/kubelet/pods/u2/v/mount",
        ] {
            let error = volumes.check(Path::new(bad), Some(&PodUid("u1".into()))).unwrap_err().to_string();
            assert!(error.contains("--kubelet-dir"), "{error}");
        }
        assert!(volumes.unpublish(Path::new("/etc/ssl")).is_err());
    }
}
