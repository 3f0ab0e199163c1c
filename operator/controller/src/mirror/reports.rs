//! What standbys say they hold ready, kept in the group's object.
//!
//! A report reaches either replica, so either writes it: each standby's entry has a field
//! manager of its own, and is written when it differs from what the object says.

use kube::api::{Api, Patch, PatchParams};
use regent_api::FailoverGroup;
use regent_api::group::{Difference, StandbyState, StandbyStatus};
use regent_core::ids::{GroupKey, SiteName};
use regent_kinds::report::{MAX_DIFFERENCES, MAX_MESSAGE, MAX_NOTICES, MAX_TEXT, MAX_VALUE, StandbyReport};
use regent_proto::v1;
use tokio::sync::watch;

use crate::objects::{ObjectError, Snapshot, bounded};

/// Reads a report, or says which field is wrong. Everything is counted before it is believed.
pub fn from_wire(report: v1::ReadinessReport) -> Result<(GroupKey, StandbyReport), String> {
    let group = report.group.parse().map_err(|e| format!("group: {e}"))?;
    let texts = [
        ("reason", report.reason.len(), 64),
        ("message", report.message.len(), MAX_MESSAGE),
        ("bundle_digest", report.bundle_digest.len(), 64),
        ("next_digest", report.next_digest.len(), 64),
        ("epoch", report.epoch.len(), 64),
        ("notices", report.notices.len(), MAX_NOTICES),
        ("differences", report.differences.len(), MAX_DIFFERENCES),
        ("notices", report.notices.iter().map(String::len).max().unwrap_or_default(), MAX_TEXT),
        ("differences", report.differences.iter().map(longest).max().unwrap_or_default(), MAX_VALUE),
    ];
    if let Some((field, found, limit)) = texts.into_iter().find(|(_, found, limit)| found > limit) {
        return Err(format!("{field}: {found} is more than the limit of {limit}"));
    }
    let state = state_of(report.state()).ok_or_else(|| format!("state: {} is no state of a standby", report.state))?;
    let some = |s: String| (!s.is_empty()).then_some(s);
    let difference = |d: v1::Difference| Difference { object: d.object, path: d.path, home: d.home, here: d.here };
    let report = StandbyReport {
        state,
        revision: report.bundle_digest,
        next: some(report.next_digest),
        epoch: some(report.epoch),
        armed: report.armed_pods,
        wanted: report.wanted_pods,
        reason: report.reason,
        message: report.message,
        notices: report.notices,
        differences: report.differences.into_iter().map(difference).collect(),
    };
    Ok((group, report))
}

/// The longest text of a difference, in bytes.
fn longest(d: &v1::Difference) -> usize {
    let texts = [Some(&d.object), Some(&d.path), d.home.as_ref(), d.here.as_ref()];
    texts.into_iter().flatten().map(String::len).max().unwrap_or_default()
}

fn state_of(state: v1::StandbyState) -> Option<StandbyState> {
    Some(match state {
        v1::StandbyState::Unspecified => return None,
        v1::StandbyState::Waiting => StandbyState::Waiting,
        v1::StandbyState::Preparing => StandbyState::Preparing,
        v1::StandbyState::Armed => StandbyState::Armed,
        v1::StandbyState::NameTaken => StandbyState::NameTaken,
        v1::StandbyState::Unlawful => StandbyState::Unlawful,
        v1::StandbyState::Blocked => StandbyState::Blocked,
        v1::StandbyState::Starting => StandbyState::Starting,
        v1::StandbyState::Holding => StandbyState::Holding,
        v1::StandbyState::Left => StandbyState::Left,
    })
}

fn wire_of(state: StandbyState) -> v1::StandbyState {
    match state {
        StandbyState::Waiting => v1::StandbyState::Waiting,
        StandbyState::Preparing => v1::StandbyState::Preparing,
        StandbyState::Armed => v1::StandbyState::Armed,
        StandbyState::NameTaken => v1::StandbyState::NameTaken,
        StandbyState::Unlawful => v1::StandbyState::Unlawful,
        StandbyState::Blocked => v1::StandbyState::Blocked,
        StandbyState::Starting => v1::StandbyState::Starting,
        StandbyState::Holding => v1::StandbyState::Holding,
        StandbyState::Left => v1::StandbyState::Left,
    }
}

/// The report, for another site.
pub fn to_wire(report: &StandbyReport, group: &GroupKey) -> v1::ReadinessReport {
    let difference = |d: &Difference| v1::Difference {
        object: d.object.clone(),
        path: d.path.clone(),
        home: d.home.clone(),
        here: d.here.clone(),
    };
    v1::ReadinessReport {
        group: group.to_string(),
        bundle_digest: report.revision.clone(),
        armed_pods: report.armed,
        wanted_pods: report.wanted,
        reason: report.reason.clone(),
        message: report.message.clone(),
        state: wire_of(report.state).into(),
        next_digest: report.next.clone().unwrap_or_default(),
        epoch: report.epoch.clone().unwrap_or_default(),
        notices: report.notices.clone(),
        differences: report.differences.iter().map(difference).collect(),
    }
}

fn status_of(report: &StandbyReport, site: &SiteName) -> StandbyStatus {
    let some = |s: &str| (!s.is_empty()).then(|| s.to_owned());
    StandbyStatus {
        site: site.to_string(),
        state: report.state,
        revision: some(&report.revision),
        next_revision: report.next.clone(),
        epoch: report.epoch.clone(),
        armed_pods: i32::try_from(report.armed).unwrap_or(i32::MAX),
        wanted_pods: i32::try_from(report.wanted).unwrap_or(i32::MAX),
        reason: some(&report.reason),
        message: some(&report.message),
        notices: report.notices.clone(),
        differences: report.differences.clone(),
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
    let status = status_of(report, standby);
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
    fn a_report_survives_the_wire_whole() {
        let group: GroupKey = "ireland/shop".parse().unwrap();
        let report = StandbyReport {
            state: StandbyState::Starting,
            revision: "ab".into(),
            next: Some("cd".into()),
            epoch: Some("2.2".into()),
            armed: 1,
            wanted: 2,
            reason: "NotReady".into(),
            message: "m".into(),
            notices: vec!["n".into()],
            differences: vec![Difference { object: "o".into(), path: "/p".into(), home: Some("1".into()), here: None }],
        };
        let (key, read) = from_wire(to_wire(&report, &group)).unwrap();
        assert_eq!((key, &read), (group.clone(), &report));
        let status = status_of(&read, &"france".parse().unwrap());
        assert_eq!((status.state, status.armed_pods, status.wanted_pods), (StandbyState::Starting, 1, 2));
    }

    #[test]
    fn every_state_of_a_standby_survives_the_wire() {
        let on_the_wire = (0..).map_while(|n| v1::StandbyState::try_from(n).ok());
        let read: Vec<Option<StandbyState>> = on_the_wire.clone().map(state_of).collect();
        assert_eq!((read.len(), read[0]), (10, None));
        assert!(on_the_wire.zip(read).skip(1).all(|(wire, state)| state.map(wire_of) == Some(wire)));
    }

    #[test]
    fn a_report_beyond_its_bounds_is_refused_by_field() {
        let good = v1::ReadinessReport {
            group: "ireland/shop".into(),
            state: v1::StandbyState::Armed.into(),
            ..Default::default()
        };
        let long = |n: usize| "x".repeat(n);
        let cases = [
            (v1::ReadinessReport { group: "shop".into(), ..good.clone() }, "group"),
            (v1::ReadinessReport { state: 99, ..good.clone() }, "state"),
            (v1::ReadinessReport { reason: long(65), ..good.clone() }, "reason"),
            (v1::ReadinessReport { message: long(MAX_MESSAGE + 1), ..good.clone() }, "message"),
            (v1::ReadinessReport { notices: vec![String::new(); MAX_NOTICES + 1], ..good.clone() }, "notices"),
            (v1::ReadinessReport { notices: vec![long(MAX_TEXT + 1)], ..good.clone() }, "notices"),
            (
                v1::ReadinessReport {
                    differences: vec![v1::Difference { here: Some(long(MAX_VALUE + 1)), ..Default::default() }],
                    ..good.clone()
                },
                "differences",
            ),
        ];
        for (bad, field) in cases {
            let error = from_wire(bad).unwrap_err();
            assert!(error.starts_with(&format!("{field}:")), "{error}");
        }
        from_wire(good).unwrap();
    }
}
