//! Unix sockets at paths of any length, put in place atomically.

use std::fs::{self, Permissions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::Path;

use rustix::fs::{AtFlags, Mode, OFlags, open, renameat, unlinkat};

/// Listens at `dir/name`, in place of whatever socket is there. Whoever connects to the
/// name meets the old socket or this one, never none.
///
/// A socket's path has 108 bytes at most and a kubelet's volumes are longer: it is bound
/// through the directory's descriptor. Nobody ever removes the name of a socket that he
/// leaves: it may be his successor's by then.
pub fn listen_in(dir: &Path, name: &str, mode: u32) -> io::Result<UnixListener> {
    let folder = open(dir, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let temporary = format!(".{name}");
    match unlinkat(&folder, &temporary, AtFlags::empty()) {
        Ok(()) | Err(rustix::io::Errno::NOENT) => {}
        Err(e) => return Err(e.into()),
    }
    let short = format!("/proc/self/fd/{}/{temporary}", folder.as_raw_fd());
    let listener = UnixListener::bind(&short)?;
    fs::set_permissions(&short, Permissions::from_mode(mode))?;
    listener.set_nonblocking(true)?;
    renameat(&folder, &temporary, &folder, name)?;
    Ok(listener)
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn a_socket_replaces_its_predecessor_at_a_path_that_no_address_could_hold() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("x".repeat(120));
        fs::create_dir(&dir).unwrap();
        let old = listen_in(&dir, "gate.sock", 0o666).unwrap();
        let new = listen_in(&dir, "gate.sock", 0o666).unwrap();
        let folder = open(&dir, OFlags::PATH, Mode::empty()).unwrap();
        UnixStream::connect(format!("/proc/self/fd/{}/gate.sock", folder.as_raw_fd())).unwrap();
        assert!(new.accept().is_ok());
        assert_eq!(old.accept().unwrap_err().kind(), io::ErrorKind::WouldBlock);
        assert_eq!(fs::metadata(dir.join("gate.sock")).unwrap().permissions().mode() & 0o777, 0o666);
    }
}
