//! The rig's cgroups: how its processes are found, stopped and killed.
//!
//! Every process of a rig starts inside the rig's cgroup of the v2 tree and can't
//! leave it, so nothing depends on pid files: a rig whose own process was killed is
//! found again by its cgroup.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::error::{At, Error, Result};
use crate::run::wait_for;

/// The mounted cgroup hierarchies of this machine.
#[derive(Debug, Clone)]
pub struct Cgroups {
    v2: PathBuf,
    v1: Vec<PathBuf>,
}

impl Cgroups {
    /// Finds them in /proc/self/mountinfo; a machine may have v2 alone or v1 controllers beside a v2 tree.
    pub fn find() -> Result<Self> {
        let path = "/proc/self/mountinfo";
        Self::parse(&fs::read_to_string(path).at("read", path)?).ok_or_else(|| {
            Error::Needs(vec![
                "no cgroup v2 tree is mounted; mount one: mount -t cgroup2 cgroup2 /sys/fs/cgroup".into(),
            ])
        })
    }

    fn parse(mountinfo: &str) -> Option<Self> {
        let (mut v2, mut v1) = (None, Vec::new());
        for line in mountinfo.lines() {
            let Some((head, tail)) = line.split_once(" - ") else { continue };
            let Some(point) = head.split(' ').nth(4).map(PathBuf::from) else { continue };
            match tail.split(' ').next() {
                Some("cgroup2") if v2.is_none() => v2 = Some(point),
                Some("cgroup") if !v1.contains(&point) => v1.push(point),
                _ => {}
            }
        }
        v2.map(|v2| Self { v2, v1 })
    }

    /// A cgroup in the v2 tree.
    pub fn path(&self, cgroup: &str) -> PathBuf {
        self.v2.join(cgroup)
    }

    /// True if controllers live in v1 hierarchies: the kubelet must be told.
    pub fn is_hybrid(&self) -> bool {
        !self.v1.is_empty()
    }

    /// Makes a cgroup in the v2 tree.
    pub(crate) fn create(&self, cgroup: &str) -> Result<PathBuf> {
        let dir = self.path(cgroup);
        fs::create_dir_all(&dir).at("create cgroup", &dir)?;
        Ok(dir.join("cgroup.procs"))
    }

    /// Makes a kubelet's root in every hierarchy, with the controllers and CPU sets filled in down to it.
    pub(crate) fn create_root(&self, cgroup: &str) -> Result<()> {
        let mut dir = self.v2.clone();
        for part in Path::new(cgroup) {
            enable_controllers(&dir);
            dir.push(part);
            fs::create_dir_all(&dir).at("create cgroup", &dir)?;
        }
        enable_controllers(&dir);
        for root in &self.v1 {
            let mut dir = root.clone();
            for part in Path::new(cgroup) {
                let parent = dir.clone();
                dir.push(part);
                fs::create_dir_all(&dir).at("create cgroup", &dir)?;
                inherit_cpuset(&parent, &dir)?;
            }
        }
        Ok(())
    }

    /// Processes of a cgroup and of those below it.
    pub fn pids(&self, cgroup: &str) -> Vec<u32> {
        let mut pids = Vec::new();
        walk(&self.path(cgroup), &mut |dir| {
            let text = fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default();
            pids.extend(text.lines().filter_map(|l| l.parse::<u32>().ok()));
        });
        pids
    }

    /// Kills every process of a cgroup and of those below it, frozen ones too, and waits until they are gone.
    pub fn kill(&self, cgroup: &str) -> Result<()> {
        let dir = self.path(cgroup);
        if !dir.exists() {
            return Ok(());
        }
        let kill = dir.join("cgroup.kill");
        fs::write(&kill, "1").at("write", &kill)?;
        let events = dir.join("cgroup.events");
        let step = Duration::from_millis(5);
        wait_for(&format!("the end of all processes in {}", dir.display()), Duration::from_secs(30), step, "", || {
            let text = fs::read_to_string(&events).unwrap_or_default();
            Ok(!text.contains("populated 1"))
        })
    }

    /// Removes a cgroup and those below it from every hierarchy. They must be empty of processes.
    pub(crate) fn remove(&self, cgroup: &str) -> Result<()> {
        for root in std::iter::once(&self.v2).chain(&self.v1) {
            let top = root.join(cgroup);
            let mut failed = None;
            walk(&top, &mut |dir| {
                // A killed process leaves its v1 cgroups a moment after it has left the v2 tree.
                for _ in 0..200 {
                    match fs::remove_dir(dir) {
                        Err(e) if e.kind() == std::io::ErrorKind::ResourceBusy => {
                            failed = Some(e);
                            std::thread::sleep(Duration::from_millis(10));
                        }
                        _ => {
                            failed = None;
                            break;
                        }
                    }
                }
            });
            if let Some(e) = failed {
                return Err(e).at("remove cgroup", &top);
            }
        }
        Ok(())
    }

    /// Cgroups of the v2 tree whose name begins with `prefix`, and those of the v1 hierarchies.
    pub(crate) fn roots(&self, prefix: &str) -> Vec<String> {
        let mut found: Vec<String> = std::iter::once(&self.v2)
            .chain(&self.v1)
            .filter_map(|root| fs::read_dir(root).ok())
            .flatten()
            .filter_map(|e| e.ok()?.file_name().into_string().ok())
            .filter(|name| name.starts_with(prefix))
            .collect();
        found.sort();
        found.dedup();
        found
    }
}

/// Calls `visit` for a cgroup and those below it, the deepest first.
fn walk(dir: &Path, visit: &mut dyn FnMut(&Path)) {
    let Ok(entries) = fs::read_dir(dir) else { return };
    for entry in entries.flatten() {
        if entry.file_type().is_ok_and(|t| t.is_dir()) {
            walk(&entry.path(), visit);
        }
    }
    visit(dir);
}

/// A controller that can't be enabled is missed by the kubelet, which says which one.
fn enable_controllers(dir: &Path) {
    let text = fs::read_to_string(dir.join("cgroup.controllers")).unwrap_or_default();
    for controller in text.split_whitespace() {
        let _ = fs::write(dir.join("cgroup.subtree_control"), format!("+{controller}"));
    }
}

/// A new v1 cpuset is empty, and nothing can join it before it has CPUs and memory nodes.
fn inherit_cpuset(parent: &Path, child: &Path) -> Result<()> {
    for file in ["cpuset.cpus", "cpuset.mems"] {
        let from = parent.join(file);
        if from.exists() {
            let value = fs::read_to_string(&from).at("read", &from)?;
            fs::write(child.join(file), value.trim()).at("write", child.join(file))?;
        }
    }
    Ok(())
}

/// Sends a signal; a process that is gone already is no error.
pub(crate) fn signal(pid: u32, signal: Signal) -> Result<()> {
    let Some(target) = i32::try_from(pid).ok().and_then(Pid::from_raw) else { return Ok(()) };
    match kill_process(target, signal) {
        Err(rustix::io::Errno::SRCH) | Ok(()) => Ok(()),
        Err(e) => Err(e).at("signal process", format!("/proc/{pid}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hybrid_and_unified_layouts_are_told_apart() {
        let hybrid = "32 31 0:29 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n\
                      41 31 0:38 / /sys/fs/cgroup/unified rw shared:4 - cgroup2 cgroup2 rw\n";
        let c = Cgroups::parse(hybrid).unwrap();
        assert_eq!(c.path("x"), Path::new("/sys/fs/cgroup/unified/x"));
        assert!(c.is_hybrid());
        let pure = "30 23 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n";
        let c = Cgroups::parse(pure).unwrap();
        assert!(!c.is_hybrid() && c.path("x") == Path::new("/sys/fs/cgroup/x"));
        assert!(Cgroups::parse("22 27 0:21 / /proc rw - proc proc rw\n").is_none());
    }
}
