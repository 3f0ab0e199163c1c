//! report.json: the verdict, with everything needed to argue with it.

use crate::epoch::Epoch;
use crate::error::EvidenceError;
use crate::scenario::Scenario;
use serde::{Deserialize, Serialize};
use std::fs;
use std::path::Path;

/// The verdict.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Every rule holds.
    Pass,
    /// At least one doesn't; `reasons` say which.
    Fail,
}

/// Intervals in milliseconds; none where a moment is missing or doesn't apply.
///
/// `cut_…` counts from the first fault, whatever its kind. All but `outage` are about the first
/// fault; a report's `changes` have those of each.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Timings {
    /// From the fault to the last `lease_end` of the old site.
    pub cut_to_lease_end_max: Option<f64>,
    /// How long before its lease's end the latest pod wrote its last line; negative is too late.
    pub stopped_before_lease_end_min: Option<f64>,
    /// From `eligible` to the new site's certificate.
    pub eligible_to_certificate: Option<f64>,
    /// From the certificate to `first_started`.
    pub certificate_to_first_started: Option<f64>,
    /// From the certificate to `all_ready`.
    pub certificate_to_all_ready: Option<f64>,
    /// From the fault to `all_ready`.
    pub cut_to_all_ready: Option<f64>,
    /// The longest time without an answer for the client, from the end of one answer to the end
    /// of the next.
    pub outage: Option<f64>,
}

impl Timings {
    /// Each timing by its name in report.json.
    pub fn named(&self) -> [(&'static str, Option<f64>); 7] {
        [
            ("cut_to_lease_end_max", self.cut_to_lease_end_max),
            ("stopped_before_lease_end_min", self.stopped_before_lease_end_min),
            ("eligible_to_certificate", self.eligible_to_certificate),
            ("certificate_to_first_started", self.certificate_to_first_started),
            ("certificate_to_all_ready", self.certificate_to_all_ready),
            ("cut_to_all_ready", self.cut_to_all_ready),
            ("outage", self.outage),
        ]
    }

    /// The worse of two, timing by timing.
    pub fn worse(&self, other: &Timings) -> Timings {
        let max = |a: Option<f64>, b: Option<f64>| a.into_iter().chain(b).reduce(f64::max);
        let min = |a: Option<f64>, b: Option<f64>| a.into_iter().chain(b).reduce(f64::min);
        Timings {
            cut_to_lease_end_max: max(self.cut_to_lease_end_max, other.cut_to_lease_end_max),
            stopped_before_lease_end_min: min(self.stopped_before_lease_end_min, other.stopped_before_lease_end_min),
            eligible_to_certificate: max(self.eligible_to_certificate, other.eligible_to_certificate),
            certificate_to_first_started: max(self.certificate_to_first_started, other.certificate_to_first_started),
            certificate_to_all_ready: max(self.certificate_to_all_ready, other.certificate_to_all_ready),
            cut_to_all_ready: max(self.cut_to_all_ready, other.cut_to_all_ready),
            outage: max(self.outage, other.outage),
        }
    }
}

/// A user's object that was touched from the fault on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Touched {
    /// Milliseconds since the fault.
    pub at_ms: f64,
    /// Site whose API server recorded it.
    pub site: String,
    /// Who did it.
    pub user: String,
    /// What was done.
    pub verb: String,
    /// To what: namespace/resource/name/subresource.
    pub object: String,
    /// Why that counts.
    pub why: String,
}

/// One moment of the timeline.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Moment {
    /// Milliseconds since the first fault.
    pub at_ms: f64,
    /// CLOCK_BOOTTIME in nanoseconds.
    pub boot_ns: u64,
    /// Site that it is about.
    pub site: String,
    /// What happened.
    pub event: String,
    /// Node that it is about.
    pub node: Option<String>,
    /// The group's epoch.
    pub epoch: Option<Epoch>,
}

/// What followed from one fault.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Change {
    /// The fault: `cut`, `crash`, `takeover` or `failback`.
    pub fault: String,
    /// Site that ran the group before.
    pub from: Option<String>,
    /// Site that took it over; none when nobody did.
    pub to: Option<String>,
    /// The new epoch.
    pub epoch: Option<Epoch>,
    /// Its intervals, `outage` within it.
    pub timings_ms: Timings,
}

/// report.json. With several groups the top level holds the worst of each field, and `groups`
/// one report for each.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// What was tried; none when the evidence doesn't say.
    pub scenario: Option<Scenario>,
    /// The groups that were judged, as HOME/NAME.
    pub group: String,
    /// The verdict.
    pub result: Verdict,
    /// Every rule that doesn't hold, as a sentence.
    pub reasons: Vec<String>,
    /// Intervals.
    pub timings_ms: Timings,
    /// Time in which journals show two sites running, in milliseconds.
    pub overlap_exec_ms: f64,
    /// Time in which sinks show two sites sending, in milliseconds.
    pub overlap_net_ms: f64,
    /// Users' objects deleted, evicted or scaled anywhere, or written by Regent at home.
    pub touched: Vec<Touched>,
    /// Every epoch of the evidence, lowest first.
    pub epochs: Vec<Epoch>,
    /// What followed from each fault.
    pub changes: Vec<Change>,
    /// The labelled moments, in order.
    pub timeline: Vec<Moment>,
    /// One report for each group when there are several.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<Report>,
}

impl Report {
    /// True for a pass.
    pub fn passed(&self) -> bool {
        self.result == Verdict::Pass
    }

    /// One report over several groups: every field's worst.
    pub fn over(scenario: Option<Scenario>, reports: Vec<Report>) -> Report {
        let failed = reports.iter().any(|r| !r.passed());
        let most = |of: fn(&Report) -> f64| reports.iter().map(of).fold(0.0, f64::max);
        let mut epochs: Vec<Epoch> = reports.iter().flat_map(|r| r.epochs.clone()).collect();
        epochs.sort_unstable();
        epochs.dedup();
        let mut timeline: Vec<Moment> = reports.iter().flat_map(|r| r.timeline.clone()).collect();
        timeline.sort_by_key(|m| m.boot_ns);
        timeline.dedup();
        let timings = reports.iter().map(|r| r.timings_ms.clone());
        Report {
            scenario,
            group: reports.iter().map(|r| r.group.as_str()).collect::<Vec<_>>().join(" "),
            result: if failed { Verdict::Fail } else { Verdict::Pass },
            reasons: reports.iter().flat_map(|r| r.reasons.iter().map(|s| format!("{}: {s}", r.group))).collect(),
            timings_ms: timings.reduce(|a, b| a.worse(&b)).unwrap_or_default(),
            overlap_exec_ms: most(|r| r.overlap_exec_ms),
            overlap_net_ms: most(|r| r.overlap_net_ms),
            touched: reports.iter().flat_map(|r| r.touched.clone()).collect(),
            epochs,
            changes: reports.iter().flat_map(|r| r.changes.clone()).collect(),
            timeline,
            groups: reports,
        }
    }

    /// Writes `dir/report.json`.
    ///
    /// # Errors
    /// If it can't be written.
    pub fn write(&self, dir: &Path) -> Result<(), EvidenceError> {
        let path = dir.join("report.json");
        let json = serde_json::to_string_pretty(self).map_err(|source| EvidenceError::Parse {
            path: path.clone(),
            what: "report",
            source,
        })?;
        fs::write(&path, json + "\n").map_err(EvidenceError::write(path))
    }

    /// Reads a report.json.
    ///
    /// # Errors
    /// If it can't be read or is no report.
    pub fn read(path: &Path) -> Result<Report, EvidenceError> {
        let text = fs::read(path).map_err(EvidenceError::read(path))?;
        serde_json::from_slice(&text).map_err(|source| EvidenceError::Parse {
            path: path.to_owned(),
            what: "report",
            source,
        })
    }
}

/// Nanoseconds as milliseconds, to the microsecond.
pub fn ms(ns: i128) -> f64 {
    // Intervals are far below 2^53 microseconds, so nothing is lost.
    ((ns as f64) / 1e3).round() / 1e3
}
