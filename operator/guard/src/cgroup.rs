//! Pods' cgroups in the v2 tree: found by UID, frozen, thawed, killed.
//!
//! No API server, kubelet or runtime is asked. The tree is found in the mount table,
//! for it may be mounted anywhere (`/sys/fs/cgroup`, `/sys/fs/cgroup/unified` beside v1
//! controllers, or a hostPath of a container's).

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use regent_lease::guard::PodUid;

/// Deeper than any kubelet puts a pod; a tree that goes on is not walked further.
const DEEPEST: usize = 12;
/// What statfs says of a v2 tree (linux/magic.h).
const CGROUP2_SUPER_MAGIC: i64 = 0x6367_7270;

/// Why a cgroup can't be acted on.
#[derive(Debug, thiserror::Error)]
pub enum CgroupError {
    /// There is no v2 tree to look in.
    #[error("no cgroup v2 mount in {0}: mount the node's cgroup tree into the guard (hostPath /sys/fs/cgroup)")]
    NoTree(PathBuf),
    /// The mount table or the tree can't be read.
    #[error("reading {path}: {cause}")]
    Read {
        /// What was read.
        path: PathBuf,
        /// Why it failed.
        cause: io::Error,
    },
    /// A control file refuses.
    #[error("writing {path}: {cause}; the node's cgroup tree must be mounted writable into the guard")]
    Write {
        /// What was written.
        path: PathBuf,
        /// Why it failed.
        cause: io::Error,
    },
    /// The tree shows no pod at all, not even the guard's own: it is not the node's.
    #[error(
        "no pod in any cgroup v2 tree that the guard sees: mount the node's own tree into it (hostPath /sys/fs/cgroup)"
    )]
    Blind,
    /// The tree was read and the pod is not in it: none of its processes lives.
    #[error("no cgroup of pod {} in the v2 tree", .0.0)]
    NotFound(PodUid),
}

/// The pods' places in the v2 tree, remembered.
#[derive(Debug)]
pub struct Tree {
    roots: Vec<PathBuf>,
    known: BTreeMap<PodUid, PathBuf>,
}

impl Tree {
    /// The v2 trees that this process can see.
    pub fn mounted() -> Result<Self, CgroupError> {
        let table = PathBuf::from("/proc/self/mountinfo");
        let text = fs::read_to_string(&table).map_err(|cause| CgroupError::Read { path: table.clone(), cause })?;
        let roots = v2_mounts(&text);
        if roots.is_empty() { Err(CgroupError::NoTree(table)) } else { Ok(Self::at(roots)) }
    }

    /// The v2 tree at `root`, or those that are mounted below it, as in a hybrid layout.
    pub fn below(root: &Path) -> Result<Self, CgroupError> {
        let magic = rustix::fs::statfs(root).map(|fs| fs.f_type);
        let magic = magic.map_err(|e| CgroupError::Read { path: root.to_owned(), cause: e.into() })?;
        if magic == CGROUP2_SUPER_MAGIC {
            return Ok(Self::at(vec![root.to_owned()]));
        }
        let mut tree = Self::mounted()?;
        tree.roots.retain(|r| r.starts_with(root));
        if tree.roots.is_empty() { Err(CgroupError::NoTree(root.to_owned())) } else { Ok(tree) }
    }

    fn at(roots: Vec<PathBuf>) -> Self {
        Self { roots, known: BTreeMap::new() }
    }

    /// The pod's cgroup. Walks the tree if the pod is not where it was.
    pub fn find(&mut self, uid: &PodUid) -> Result<PodCgroup, CgroupError> {
        if let Some(path) = self.known.get(uid).filter(|p| p.is_dir()) {
            return Ok(PodCgroup { path: path.clone() });
        }
        self.known.clear();
        for root in &self.roots {
            walk(root, 0, &mut self.known)?;
        }
        match self.known.get(uid) {
            Some(path) => Ok(PodCgroup { path: path.clone() }),
            None if self.known.is_empty() => Err(CgroupError::Blind),
            None => Err(CgroupError::NotFound(uid.clone())),
        }
    }
}

/// Mount points of type cgroup2, as the kernel escapes them in mountinfo.
fn v2_mounts(table: &str) -> Vec<PathBuf> {
    let mount = |line: &str| {
        let (left, right) = line.split_once(" - ")?;
        let kind = right.split(' ').next()?;
        let point = left.split(' ').nth(4)?;
        (kind == "cgroup2").then(|| PathBuf::from(point.replace("\\040", " ")))
    };
    let mut found: Vec<PathBuf> = table.lines().filter_map(mount).collect();
    found.dedup();
    found
}

/// The UID in a pod's folder name, by the cgroupfs driver (`podUID`) or the systemd
/// driver (`kubepods-burstable-podU_I_D.slice`).
fn pod_of(name: &str) -> Option<PodUid> {
    let uid = match name.strip_suffix(".slice") {
        Some(slice) => slice.rsplit_once("-pod")?.1.replace('_', "-"),
        None => name.strip_prefix("pod")?.to_owned(),
    };
    let looks = uid.len() >= 32 && uid.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-');
    looks.then_some(PodUid(uid))
}

fn walk(dir: &Path, depth: usize, found: &mut BTreeMap<PodUid, PathBuf>) -> Result<(), CgroupError> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        // A cgroup may go while the tree is walked.
        Err(e) if depth > 0 && e.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(cause) => return Err(CgroupError::Read { path: dir.to_owned(), cause }),
    };
    for entry in entries.flatten() {
        if !entry.file_type().is_ok_and(|t| t.is_dir()) {
            continue;
        }
        if let Some(uid) = entry.file_name().to_str().and_then(pod_of) {
            found.insert(uid, entry.path());
        } else if depth < DEEPEST {
            walk(&entry.path(), depth + 1, found)?;
        }
    }
    Ok(())
}

/// One pod's cgroup, with all of its containers below it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodCgroup {
    path: PathBuf,
}

impl PodCgroup {
    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn write(&self, file: &str, value: &str) -> Result<(), CgroupError> {
        let path = self.path.join(file);
        fs::write(&path, value).map_err(|cause| CgroupError::Write { path, cause })
    }

    /// A flag of `cgroup.events`.
    fn event(&self, key: &str) -> Result<bool, CgroupError> {
        let path = self.path.join("cgroup.events");
        let text = fs::read_to_string(&path).map_err(|cause| CgroupError::Read { path, cause })?;
        Ok(text.lines().any(|l| l.strip_prefix(key).is_some_and(|v| v == " 1")))
    }

    /// Has all processes stop; [`Self::is_frozen`] tells when all have.
    pub fn freeze(&self) -> Result<(), CgroupError> {
        self.write("cgroup.freeze", "1")
    }

    /// Lets them go on. Whether they had been told to stop.
    pub fn thaw(&self) -> Result<bool, CgroupError> {
        let path = self.path.join("cgroup.freeze");
        let told = fs::read_to_string(&path).map_err(|cause| CgroupError::Read { path, cause })?;
        self.write("cgroup.freeze", "0")?;
        Ok(told.trim() == "1")
    }

    /// Kills every process in it, frozen ones too; [`Self::is_populated`] tells when all are dead.
    pub fn kill(&self) -> Result<(), CgroupError> {
        self.write("cgroup.kill", "1")
    }

    /// Whether every process stands still.
    pub fn is_frozen(&self) -> Result<bool, CgroupError> {
        self.event("frozen")
    }

    /// Whether any process lives in it.
    pub fn is_populated(&self) -> Result<bool, CgroupError> {
        self.event("populated")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const UID: &str = "0f6a3c1f-5b48-4b0d-91ea-6b09cdc93783";

    #[test]
    fn a_pod_is_found_under_either_drivers_name_and_any_root() {
        let dir = tempfile::tempdir().unwrap();
        let other = "1f6a3c1f-5b48-4b0d-91ea-6b09cdc93783";
        let cgroupfs = dir.path().join(format!("rig/node-1/kubepods/burstable/pod{UID}"));
        let systemd = dir.path().join(format!(
            "kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod{}.slice",
            other.replace('-', "_")
        ));
        fs::create_dir_all(cgroupfs.join("container")).unwrap();
        fs::create_dir_all(&systemd).unwrap();
        let mut tree = Tree::at(vec![dir.path().to_owned()]);
        assert_eq!(tree.find(&PodUid(UID.into())).unwrap().path(), cgroupfs);
        assert_eq!(tree.find(&PodUid(other.into())).unwrap().path(), systemd);
        fs::remove_dir_all(&cgroupfs).unwrap();
        assert!(matches!(tree.find(&PodUid(UID.into())), Err(CgroupError::NotFound(_))));
        fs::remove_dir_all(&systemd).unwrap();
        assert!(matches!(tree.find(&PodUid(UID.into())), Err(CgroupError::Blind)));
        assert!(matches!(Tree::below(dir.path()), Err(CgroupError::NoTree(_))));
        assert!(matches!(Tree::at(vec!["/nowhere".into()]).find(&PodUid(UID.into())), Err(CgroupError::Read { .. })));
    }

    #[test]
    fn only_pods_names_are_taken_for_pods() {
        assert_eq!(pod_of(&format!("pod{UID}")), Some(PodUid(UID.into())));
        for other in [
            "pods",
            "podman",
            "kubepods",
            "kubepods.slice",
            "kubepods-burstable.slice",
            "pod../../../../../../../../../../x",
        ] {
            assert_eq!(pod_of(other), None, "{other}");
        }
    }

    #[test]
    fn the_v2_tree_is_found_wherever_it_is_mounted() {
        let table = "31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755\n\
                     32 31 0:29 / /sys/fs/cgroup/cpu rw shared:5 - cgroup cgroup rw,cpu\n\
                     41 31 0:38 / /sys/fs/cgroup/unified rw,relatime shared:9 master:2 - cgroup2 cgroup2 rw\n\
                     42 31 0:38 /.. /host\\040tree rw - cgroup2 cgroup2 rw\n";
        assert_eq!(v2_mounts(table), [PathBuf::from("/sys/fs/cgroup/unified"), PathBuf::from("/host tree")]);
    }
}
