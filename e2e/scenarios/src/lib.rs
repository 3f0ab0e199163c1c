//! The stage of the scenario tests: one federation, a namespace and a group for each thing
//! that is tested, and faults that are shared by every group which they can serve.
//!
//! Tests assert on journals, sinks, audit logs and clients, through the judge of
//! `regent-evidence`; Regent's own status is asserted on only where what it says is the point.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use regent_demo::federation::{Federation, Timing, wait_for, workspace};
use regent_demo::group::{Group, Workload};
use regent_demo::record::Recording;
use regent_demo::screen::Screen;
use regent_evidence::{Event, Kind, Report, Scenario};
use regent_rig::{Options, Topology, Where};

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

    /// What a site's object says of a standby of a group: one field of its entry.
    pub fn entry(&self, at: &str, group: &Group, standby: &str, field: &str) -> Result<String> {
        let name = if at == group.home { group.name.clone() } else { format!("{}.{}", group.home, group.name) };
        let path = format!("jsonpath={{.status.standbys[?(@.site==\"{standby}\")].{field}}}");
        self.federation.kubectl(at, &["get", "failovergroup", &name, "-o", &path], None)
    }

    /// Waits until home has heard a standby say what it is waited for: state and message.
    pub fn heard(
        &self,
        group: &Group,
        standby: &str,
        limit: Duration,
        is_it: impl Fn(&str, &str) -> bool,
    ) -> Result<()> {
        let (mut last, begun) = (String::new(), std::time::Instant::now());
        let waited = wait_for(&format!("{standby}'s word on {}", group.key()), limit, || {
            let state = self.entry(&group.home, group, standby, "state")?;
            let message = self.entry(&group.home, group, standby, "message")?;
            last = format!("{state}: {message}");
            Ok(is_it(&state, &message).then_some(()))
        });
        waited.with_context(|| format!("it says {last:?}"))?;
        println!("{{\"group\":\"{}\",\"heard_after_ms\":{}}}", group.name, begun.elapsed().as_millis());
        Ok(())
    }

    /// Keeps what the plugin prints, for the documents: whatever it thinks of the state of things.
    pub fn keep(&self, name: &str, site: &str, args: &[&str]) -> Result<()> {
        let dir = workspace().join("target/scenarios/said");
        std::fs::create_dir_all(&dir)?;
        let program = self.federation.program("kubectl-regent");
        let mut command = self.federation.rig.command(&Where::Site(site.into()), &program.display().to_string())?;
        let out = command.args(args).stdin(std::process::Stdio::null()).output()?;
        let text =
            format!("$ kubectl regent {}   # in {site}\n{}", args.join(" "), String::from_utf8_lossy(&out.stdout));
        Ok(std::fs::write(dir.join(format!("{name}.txt")), text)?)
    }

    /// Deletes a group at its home, and its namespace everywhere.
    pub fn clear(&self, home: &str, name: &str) -> Result<()> {
        let mean_it = format!("regent.dev/confirm-delete={name}");
        self.federation.kubectl(home, &["annotate", "failovergroup", name, &mean_it], None)?;
        self.federation.kubectl(home, &["delete", "failovergroup", name, "--wait=false"], None)?;
        for site in self.federation.full_sites() {
            self.federation.kubectl(
                &site,
                &["delete", "namespace", name, "--ignore-not-found", "--wait=false"],
                None,
            )?;
        }
        Ok(())
    }

    /// Waits until namespaces are gone everywhere: what is being deleted keeps a machine busy.
    pub fn cleared(&self, names: &[&str]) -> Result<()> {
        wait_for("deleted namespaces to be gone", LIMIT, || {
            for site in self.federation.full_sites() {
                let left = self.federation.kubectl(&site, &["get", "namespaces", "-o", "name"], None)?;
                let is_left = |name: &&str| left.lines().any(|l| l == format!("namespace/{name}"));
                if names.iter().any(is_left) {
                    return Ok(None);
                }
            }
            Ok(Some(()))
        })
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
