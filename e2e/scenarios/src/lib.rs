//! The stage of the scenario tests: one federation, a namespace and a group for each thing
//! that is tested, and faults that are shared by every group which they can serve.
//!
//! Tests assert on journals, sinks, audit logs and clients, through the judge of
//! `regent-evidence`; Regent's own status is asserted on only where what it says is the point.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, bail};
use regent_demo::federation::{Federation, Timing, wait_for, workspace};
use regent_demo::group::{Group, Workload};
use regent_demo::record::Recording;
use regent_demo::screen::Screen;
use regent_evidence::{Event, Kind, Report, Scenario};
use regent_rig::{Options, Topology};

/// What takes longer than this will not happen any more.
pub const LIMIT: Duration = Duration::from_secs(90);

/// One federation and its groups.
pub struct Stage {
    /// The federation.
    pub federation: Federation,
}

/// A group of the stage: name, standbys, and a port of its own.
pub fn group(name: &str, standbys: &[&str], port: u16) -> Group {
    Group {
        name: name.into(),
        home: "ireland".into(),
        standbys: standbys.iter().map(|s| (*s).into()).collect(),
        replicas: 2,
        workload: Workload::Deployment,
        port,
    }
}

impl Stage {
    /// Brings the federation up, on a rig of its own.
    pub fn set() -> Result<Self> {
        let topology = Topology::load(&workspace().join("e2e/topologies/demo.yaml"))?;
        let mut options = Options::new("scenarios");
        options.say = regent_rig::say_on_stderr();
        let federation = Federation::up(options, &topology, Timing::Tests)?;
        Ok(Self { federation })
    }

    /// Where the recording of a test of a group goes.
    pub fn dir(&self, test: &str, group: &Group) -> PathBuf {
        workspace().join("target/scenarios").join(test).join(&group.name)
    }

    /// Starts a recording.
    pub fn record(&self, test: &str, group: &Group, scenario: Scenario) -> Result<Recording<'_>> {
        Recording::start(&self.federation, group, scenario, &self.dir(test, group), Screen::silent())
    }

    /// Cuts sites off at one time, and tells every recording.
    pub fn cut(&self, sites: &[&str], recordings: &mut [&mut Recording]) -> Result<u64> {
        let mut first = None;
        for site in sites {
            let at = self.federation.rig.cut(site, &[], false)?;
            first.get_or_insert(at);
            for recording in recordings.iter_mut() {
                recording.fault(site, Kind::Cut, at);
            }
        }
        first.map_or_else(|| bail!("no site to cut"), Ok)
    }

    /// Heals all cuts, and tells every recording.
    pub fn heal(&self, site: &str, recordings: &mut [&mut Recording]) -> Result<u64> {
        let at = self.federation.rig.heal(None)?;
        for recording in recordings.iter_mut() {
            recording.fault(site, Kind::Heal, at);
        }
        Ok(at)
    }

    /// Waits until the group's home holds it again and every standby is Armed.
    pub fn settled(&self, group: &Group) -> Result<()> {
        group.wait_armed(&self.federation)
    }

    /// Moves a group home with the plugin, from wherever it is.
    pub fn bring_home(&self, group: &Group, from: &str) -> Result<()> {
        self.federation.plugin(from, &["failback", &group.name, "--yes", "--wait", "90s"])?;
        self.settled(group)
    }

    /// Waits for a text in what the plugin says of a group at a site.
    pub fn said(&self, site: &str, group: &Group, text: &str) -> Result<()> {
        wait_for(&format!("{text:?} in the status of {} at {site}", group.key()), LIMIT, || {
            let path = ["get", "failovergroups", "-o", "yaml"];
            let said = self.federation.kubectl(site, &path, None)?;
            Ok(said.contains(text).then_some(()))
        })
    }
}

/// Fails with the judge's reasons.
pub fn pass(report: &Report, dir: &std::path::Path) -> Result<()> {
    if report.passed() {
        return Ok(());
    }
    bail!("{}\nthe recording is in {}", report.reasons.join("\n"), dir.display())
}

/// Whether all pods of a group became ready at a site.
pub fn ready_at<'a>(site: &'a str) -> impl Fn(&[&Event]) -> bool + 'a {
    move |events| events.iter().any(|e| e.event == Kind::AllReady && e.site == site)
}
