//! What the guard puts into a pod's volume: the program, the socket, the epoch.
//!
//! An ephemeral inline volume needs no mount: it is a folder that the runtime binds into
//! the pod, read-only. Being in the pod's own folder, the socket is the pod's identity.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::{Component, Path, PathBuf};

use regent_core::guard::PodUid;
use regent_core::ids::Epoch;

use crate::socket::listen_in;

/// The program that holds the pod.
pub const PROGRAM: &str = "regent-gate";
/// Where it asks.
pub const SOCKET: &str = "gate.sock";
/// The fencing token, `TERM.SITE`, for programs that want one.
pub const EPOCH: &str = "epoch";

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

    /// Makes the folder with the program in it and listens on its socket; done again, it
    /// replaces both.
    pub fn publish(&self, target: &Path) -> Result<UnixListener, VolumeError> {
        fs::create_dir_all(target).map_err(fail(target, "making the folder"))?;
        fs::set_permissions(target, Permissions::from_mode(0o755)).map_err(fail(target, "setting its mode"))?;
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
        let temporary = target.join(".epoch");
        let write = || {
            gone(fs::remove_file(&temporary))?;
            fs::write(&temporary, epoch.to_string())?;
            fs::set_permissions(&temporary, Permissions::from_mode(0o444))?;
            fs::rename(&temporary, target.join(EPOCH))
        };
        write().map_err(fail(target, "writing its epoch"))
    }

    /// Empties and removes the folder. That it is gone already is fine.
    pub fn unpublish(&self, target: &Path) -> Result<(), VolumeError> {
        self.check(target, None)?;
        let names = [PROGRAM, SOCKET, EPOCH, ".regent-gate", ".gate.sock", ".epoch"].map(|name| target.join(name));
        for path in &names {
            gone(fs::remove_file(path)).map_err(fail(target, "emptying it"))?;
        }
        gone(fs::remove_dir(target)).map_err(fail(target, "removing it"))
    }
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
        volumes.check(&target, Some(&PodUid("u1".into()))).unwrap();
        volumes.publish(&target).unwrap();
        fs::write(&program, "other").unwrap();
        volumes.publish(&target).unwrap();
        Volumes::write_epoch(&target, Epoch { term: 3, site: 2 }).unwrap();
        assert_eq!(fs::read_to_string(target.join(PROGRAM)).unwrap(), "other");
        assert_eq!(fs::metadata(target.join(PROGRAM)).unwrap().permissions().mode() & 0o777, 0o555);
        assert_eq!(fs::read_to_string(target.join(EPOCH)).unwrap(), "3.2");
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
