//! What home wants for a group: the plan that home signs, standbys countersign and
//! witnesses persist.

mod verify;

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::ids::{GroupKey, SiteName};
use crate::sign::Statement;

pub use verify::{COUNTRIES, MAX_COUNTRIES, MAX_PLAN_BYTES, MAX_STANDBYS, PlanError, VerifiedPlan, is_country};

/// How far a group's protection has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Protection {
    /// Mirrored and measured, never frozen; no standby may acquire.
    Observed,
    /// Fence and gate are in force.
    Protected,
    /// Protection is being taken off, slowly (I9).
    Retiring,
}

/// What may start a takeover after a lapse.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Trigger {
    /// The standby acquires by itself.
    Automatic,
    /// Somebody with the verb `approve` on takeovers at the standby approves first.
    Approval,
}

/// What a standby does at a lapse when not all that it would run is ready, and no other
/// standby is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum WhenNotReady {
    /// It leaves the group held.
    Hold,
    /// It starts what is ready, unless a site whose all is ready asks too.
    Degraded,
}

/// The plan of a group. A higher version replaces a lower one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Plan {
    /// Whose plan this is.
    pub group: GroupKey,
    /// Grows with every change.
    pub version: u64,
    /// Who may take over, best first.
    pub standbys: Vec<SiteName>,
    /// Where the group is in its life.
    pub protection: Protection,
    /// `W`, in milliseconds.
    pub takeover_after_ms: u64,
    /// How long a pause may last before the pods are stopped for good, in milliseconds.
    pub thaw_limit_ms: u64,
    /// What may start a takeover.
    pub trigger: Trigger,
    /// What a standby does that is not ready.
    pub when_not_ready: WhenNotReady,
    /// Where the group may run, ISO 3166-1 alpha-2; empty means anywhere (I5).
    pub countries: Vec<String>,
}

impl Statement for Plan {
    const PAYLOAD_TYPE: &'static str = "application/vnd.regent.plan.v1+json";
}

impl Plan {
    /// `W`.
    pub fn takeover_after(&self) -> Duration {
        Duration::from_millis(self.takeover_after_ms)
    }

    /// The rank of a site: standbys by their place from 0, home behind them; none for others.
    pub fn rank(&self, site: &SiteName) -> Option<usize> {
        match self.standbys.iter().position(|s| s == site) {
            Some(place) => Some(place),
            None => (site == &self.group.home).then_some(self.standbys.len()),
        }
    }
}
