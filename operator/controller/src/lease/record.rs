//! The record of a takeover after a lapse: nobody asked for it, so its object is made
//! when the certificate is there.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::{Api, PostParams};
use regent_api::takeover::{Phase, Step, TakeoverType};
use regent_api::{Takeover, TakeoverSpec, TakeoverStatus};
use regent_core::ids::{Epoch, GroupKey};
use regent_shell::clock;

use super::LeaseShell;
use crate::objects::{ObjectError, bounded};

/// Who held a group before, as this site's own object says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Before {
    pub(super) site: String,
    pub(super) epoch: String,
}

/// Makes the record of a takeover by this site, unless another replica has.
pub(super) async fn lapse(
    shell: &LeaseShell,
    api: &Api<Takeover>,
    group: &GroupKey,
    epoch: Epoch,
    before: Before,
) -> Result<(), ObjectError> {
    let site = shell.context.site.to_string();
    let name = format!("{}-{}", regent_api::object_name(group), epoch.term);
    let object = format!("Takeover {name}");
    let spec = TakeoverSpec {
        group: group.to_string(),
        to: site.clone(),
        kind: TakeoverType::Lapse,
        reason: Some(format!("the lease of site {} has lapsed", before.site)),
        approve: false,
    };
    let made = bounded(&object, api.create(&PostParams::default(), &Takeover::new(&name, spec))).await;
    let mut made = match made {
        Err(e) if e.is_conflict() => return Ok(()),
        made => made?,
    };
    let at = Time(Timestamp::from_nanosecond(i128::from(clock::realtime_ns())).unwrap_or_default());
    made.status = Some(TakeoverStatus {
        observed_generation: made.metadata.generation,
        phase: Phase::Certified,
        from: Some(before.site),
        old_epoch: Some(before.epoch),
        epoch: Some(epoch.to_string()),
        timeline: vec![Step { event: "Certified".into(), at, site: Some(site), detail: Some(epoch.to_string()) }],
        ..TakeoverStatus::default()
    });
    bounded(&object, api.replace_status(&name, &PostParams::default(), &made)).await.map(drop)
}
