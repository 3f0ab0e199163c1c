//! What standbys say they hold ready, kept in the group's object.
//!
//! A report reaches either replica, so either writes it: each standby's entry has a field
//! manager of its own, and is written when it differs from what the object says.

use kube::api::{Api, Patch, PatchParams};
use regent_api::FailoverGroup;
use regent_api::group::{StandbyState, StandbyStatus};
use regent_core::ids::{GroupKey, SiteName};
use regent_proto::v1;
use tokio::sync::watch;

use crate::objects::{ObjectError, Snapshot, bounded};

/// What a standby holds ready.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StandbyReport {
    /// The digest of the bundle that is held ready.
    pub revision: String,
    /// Pods that are held ready.
    pub armed: u32,
    /// Pods that are wanted.
    pub wanted: u32,
    /// What it has prepared, as one word.
    pub reason: String,
    /// Why it isn't ready, and what to do.
    pub message: String,
}

/// The state that a report's reason stands for; every other reason blocks.
pub fn state_of(reason: &str) -> StandbyState {
    match reason {
        "" => StandbyState::Armed,
        "Waiting" => StandbyState::Waiting,
        "Preparing" => StandbyState::Preparing,
        "NameTaken" => StandbyState::NameTaken,
        "Unlawful" => StandbyState::Unlawful,
        "Holding" => StandbyState::Holding,
        _ => StandbyState::Blocked,
    }
}

impl StandbyReport {
    /// Reads a report, or says which field is wrong.
    pub fn try_from_wire(report: v1::ReadinessReport) -> Result<(GroupKey, Self), String> {
        let group = report.group.parse().map_err(|e| format!("group: {e}"))?;
        if report.reason.len() > 64 || report.message.len() > 4096 || report.bundle_digest.len() > 64 {
            return Err("reason, message or bundle_digest is too long: at most 64, 4096 and 64 bytes".to_owned());
        }
        let (revision, reason, message) = (report.bundle_digest, report.reason, report.message);
        Ok((group, Self { revision, armed: report.armed_pods, wanted: report.wanted_pods, reason, message }))
    }

    /// The report, for another site.
    pub fn to_wire(&self, group: &GroupKey) -> v1::ReadinessReport {
        v1::ReadinessReport {
            group: group.to_string(),
            bundle_digest: self.revision.clone(),
            armed_pods: self.armed,
            wanted_pods: self.wanted,
            reason: self.reason.clone(),
            message: self.message.clone(),
        }
    }

    fn status(&self, site: &SiteName) -> StandbyStatus {
        let some = |s: &str| (!s.is_empty()).then(|| s.to_owned());
        StandbyStatus {
            site: site.to_string(),
            state: state_of(&self.reason),
            revision: some(&self.revision),
            armed_pods: i32::try_from(self.armed).unwrap_or(i32::MAX),
            wanted_pods: i32::try_from(self.wanted).unwrap_or(i32::MAX),
            reason: some(&self.reason),
            message: some(&self.message),
        }
    }
}

/// Writes a standby's report into the group's object at this site, if it is news.
pub async fn note_report(
    client: &kube::Client,
    groups: &watch::Receiver<Snapshot<FailoverGroup>>,
    here: &SiteName,
    standby: &SiteName,
    group: &GroupKey,
    report: &StandbyReport,
) -> Result<(), ObjectError> {
    let name = FailoverGroup::name_at(group, here);
    let status = report.status(standby);
    let known = groups.borrow().get(&name).map(|o| {
        let standbys = o.status.as_ref().map(|s| s.standbys.as_slice()).unwrap_or_default();
        standbys.contains(&status)
    });
    // Without an object there is nothing to write to yet.
    if known != Some(false) {
        return Ok(());
    }
    apply(client, &name, standby, vec![status]).await
}

/// Takes the entry of a site that is no standby any more out of the group's object.
pub async fn forget_report(client: &kube::Client, name: &str, standby: &SiteName) -> Result<(), ObjectError> {
    apply(client, name, standby, Vec::new()).await
}

async fn apply(
    client: &kube::Client,
    name: &str,
    standby: &SiteName,
    standbys: Vec<StandbyStatus>,
) -> Result<(), ObjectError> {
    let api: Api<FailoverGroup> = Api::all(client.clone());
    let patch = serde_json::json!({
        "apiVersion": "regent.dev/v1alpha1", "kind": "FailoverGroup", "metadata": { "name": name },
        "status": { "standbys": standbys },
    });
    let params = PatchParams::apply(&format!("regent-standby-{standby}")).force();
    let object = format!("FailoverGroup {name}");
    bounded(&object, api.patch_status(name, &params, &Patch::Apply(&patch))).await.map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_survives_the_wire_and_says_its_state() {
        let group: GroupKey = "ireland/shop".parse().unwrap();
        let report = StandbyReport {
            revision: "ab".into(),
            armed: 1,
            wanted: 2,
            reason: "Preparing".into(),
            message: "m".into(),
        };
        let (key, read) = StandbyReport::try_from_wire(report.to_wire(&group)).unwrap();
        assert_eq!((key, &read), (group.clone(), &report));
        let status = read.status(&"france".parse().unwrap());
        assert_eq!((status.state, status.armed_pods, status.wanted_pods), (StandbyState::Preparing, 1, 2));
        assert_eq!(state_of(""), StandbyState::Armed);
        assert_eq!(state_of("NoCapacity"), StandbyState::Blocked);
        let long = v1::ReadinessReport { reason: "x".repeat(65), ..report.to_wire(&group) };
        assert!(StandbyReport::try_from_wire(long).is_err());
        let bad = v1::ReadinessReport { group: "shop".into(), ..report.to_wire(&group) };
        assert!(StandbyReport::try_from_wire(bad).unwrap_err().starts_with("group:"));
    }
}
