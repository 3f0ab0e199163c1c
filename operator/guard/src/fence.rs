//! Freezing, thawing and killing pods, many at once.
//!
//! Pods that end at the same deadline are all told to stop before any is asked whether
//! it has: the kernel stops them side by side. What takes its time is looked at again
//! by [`Fence::poll`], so that nothing here waits.

use std::time::Duration;

use regent_core::time::Moment;
use regent_lease::guard::PodUid;

use crate::cgroup::{CgroupError, PodCgroup, Tree};
use crate::clock::now;

/// A pod that does not stand still after this is killed. Processes that wait inside the
/// kernel stop as soon as they leave it, and execute nothing before.
const FREEZE_LIMIT: Duration = Duration::from_secs(1);
/// Between two kills of a cgroup that is not empty yet.
const KILL_AGAIN: Duration = Duration::from_millis(20);

/// What has become of a pod that the fence was told to act on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Report {
    /// All its processes stand still; how long that took.
    Frozen(PodUid, Duration),
    /// They may not.
    FreezeFailed(PodUid),
    /// They go on, and had stood still before.
    Thawed(PodUid),
    /// All are dead.
    Killed(PodUid),
}

#[derive(Debug)]
struct Freezing {
    uid: PodUid,
    cgroup: PodCgroup,
    since: Moment,
}

#[derive(Debug)]
struct Killing {
    uid: PodUid,
    again: Moment,
}

/// The pods of one node that are being stopped.
#[derive(Debug)]
pub struct Fence {
    tree: Tree,
    freezing: Vec<Freezing>,
    killing: Vec<Killing>,
}

impl Fence {
    /// A fence in that tree.
    pub fn new(tree: Tree) -> Self {
        Self { tree, freezing: Vec::new(), killing: Vec::new() }
    }

    /// Whether the pod can be fenced: its cgroup is found.
    pub fn can_reach(&mut self, uid: &PodUid) -> Result<(), CgroupError> {
        self.tree.find(uid).map(drop)
    }

    /// Whether anything of the pod may be alive: what can't be told may be.
    pub fn may_live(&mut self, uid: &PodUid) -> bool {
        match self.tree.find(uid).and_then(|cgroup| cgroup.is_populated()) {
            Ok(lives) => lives,
            Err(CgroupError::NotFound(_)) => false,
            Err(error) => {
                tracing::warn!(pod = uid.0, %error, "whether a pod lives can't be told");
                true
            }
        }
    }

    /// Tells all of these pods to stop, then looks which have.
    pub fn freeze(&mut self, uids: &[PodUid]) -> Vec<Report> {
        let since = now();
        let mut failed = Vec::new();
        for uid in uids {
            match self.tree.find(uid).and_then(|cgroup| cgroup.freeze().map(|()| cgroup)) {
                Ok(cgroup) => self.freezing.push(Freezing { uid: uid.clone(), cgroup, since }),
                Err(error) => {
                    tracing::error!(pod = uid.0, %error, "a pod can't be frozen");
                    failed.push(Report::FreezeFailed(uid.clone()));
                }
            }
        }
        failed.extend(self.poll_frozen());
        failed
    }

    /// Lets a pod go on.
    pub fn thaw(&mut self, uid: &PodUid) -> Option<Report> {
        self.freezing.retain(|f| &f.uid != uid);
        match self.tree.find(uid).and_then(|cgroup| cgroup.thaw()) {
            Ok(was_told) => was_told.then(|| Report::Thawed(uid.clone())),
            Err(error) => {
                tracing::error!(pod = uid.0, %error, "a pod can't be thawed");
                None
            }
        }
    }

    /// Kills a pod's processes; [`Self::poll`] kills again until none is left.
    pub fn kill(&mut self, uid: &PodUid) {
        self.freezing.retain(|f| &f.uid != uid);
        self.killing.retain(|k| &k.uid != uid);
        self.killing.push(Killing { uid: uid.clone(), again: now() });
    }

    /// Forgets a pod that is gone.
    pub fn forget(&mut self, uid: &PodUid) {
        self.freezing.retain(|f| &f.uid != uid);
        self.killing.retain(|k| &k.uid != uid);
    }

    /// How soon [`Self::poll`] has something to look at, if at all.
    pub fn pace(&self) -> Option<Duration> {
        if !self.freezing.is_empty() {
            Some(Duration::from_millis(1))
        } else {
            (!self.killing.is_empty()).then_some(Duration::from_millis(5))
        }
    }

    /// Looks at whatever has not stopped yet.
    pub fn poll(&mut self) -> Vec<Report> {
        let mut reports = self.poll_frozen();
        let killing = std::mem::take(&mut self.killing);
        for mut pod in killing {
            match self.poll_killed(&mut pod) {
                Ok(true) => reports.push(Report::Killed(pod.uid)),
                Ok(false) => self.killing.push(pod),
                Err(error) => {
                    tracing::error!(pod = pod.uid.0, %error, "a pod can't be killed; trying again");
                    self.killing.push(pod);
                }
            }
        }
        reports
    }

    fn poll_frozen(&mut self) -> Vec<Report> {
        let mut reports = Vec::new();
        self.freezing.retain(|pod| {
            let took = Duration::from_nanos(now().boot_ns.saturating_sub(pod.since.boot_ns));
            let report = match pod.cgroup.is_frozen() {
                Ok(true) => Report::Frozen(pod.uid.clone(), took),
                Ok(false) if took < FREEZE_LIMIT => return true,
                Ok(false) => Report::FreezeFailed(pod.uid.clone()),
                Err(error) => {
                    tracing::error!(pod = pod.uid.0, %error, "whether a pod stands still can't be told");
                    Report::FreezeFailed(pod.uid.clone())
                }
            };
            reports.push(report);
            false
        });
        reports
    }

    /// Whether all of the pod's processes are dead; kills them again if it is time to.
    fn poll_killed(&mut self, pod: &mut Killing) -> Result<bool, CgroupError> {
        let cgroup = match self.tree.find(&pod.uid) {
            Ok(cgroup) => cgroup,
            Err(CgroupError::NotFound(_)) => return Ok(true),
            Err(error) => return Err(error),
        };
        if cgroup.is_populated()? {
            if pod.again.passed_for_waiting(now()) {
                pod.again = now().after(KILL_AGAIN);
                cgroup.kill()?;
            }
            return Ok(false);
        }
        // The kubelet starts the pod again in this cgroup: at its gate, which must be able to ask.
        cgroup.thaw()?;
        Ok(true)
    }
}
