//! What every part of a rig needs to know about the machine it is on.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use crate::cgroup::Cgroups;
use crate::error::Result;
use crate::plan::RigName;
use crate::run::{Daemon, Place};

/// Receives progress lines.
pub type Say = Arc<dyn Fn(&str) + Send + Sync>;

/// Says progress on standard error, each line with the seconds since the start.
pub fn say_on_stderr() -> Say {
    let begin = Instant::now();
    Arc::new(move |line| eprintln!("[{:6.1} s] {line}", begin.elapsed().as_secs_f64()))
}

/// Says nothing.
pub fn say_nothing() -> Say {
    Arc::new(|_| {})
}

/// Name, machine and tools of one rig.
#[derive(Clone)]
pub(crate) struct Host {
    pub rig: RigName,
    pub cgroups: Cgroups,
    /// Folder of the Kubernetes binaries.
    pub bin: PathBuf,
    pub say: Say,
}

impl Host {
    /// Path of one of the pinned tools.
    pub fn tool(&self, name: &str) -> String {
        self.bin.join(name).to_string_lossy().into_owned()
    }

    /// True if a process runs in the cgroup.
    pub fn runs(&self, cgroup: &str) -> bool {
        !self.cgroups.pids(cgroup).is_empty()
    }

    /// Starts a daemon in a cgroup of its own, unless one runs there.
    pub fn daemon(&self, cgroup: &str, place: &Place, log: &Path, argv: Vec<String>) -> Result<()> {
        if self.runs(cgroup) {
            return Ok(());
        }
        let joins = vec![self.cgroups.create(cgroup)?];
        Daemon { joins, place: place.clone(), log: log.to_path_buf(), argv }.start()
    }

    pub fn say(&self, line: &str) {
        (self.say)(line);
    }
}
