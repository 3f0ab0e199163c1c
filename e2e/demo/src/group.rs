//! A protected group: the shop in a namespace of its own.

use std::time::Duration;

use anyhow::Result;

use crate::federation::{Federation, SINK, wait_for};

/// What runs a group's pods.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Workload {
    /// Interchangeable pods.
    Deployment,
    /// Pods with names of their own, started one after the other.
    StatefulSet,
}

/// A shop that is protected as a group of its home's.
#[derive(Debug, Clone)]
pub struct Group {
    /// Its name, also its namespace's.
    pub name: String,
    /// Where it belongs.
    pub home: String,
    /// Who may take it over, best first.
    pub standbys: Vec<String>,
    /// Number of pods.
    pub replicas: u32,
    /// What runs them.
    pub workload: Workload,
    /// Port of the sites' addresses at which it answers; its node port is 22,000 above.
    pub port: u16,
}

impl Group {
    /// The shop of the demo: home in Ireland, France before Germany.
    pub fn shop() -> Self {
        Self {
            name: "shop".into(),
            home: "ireland".into(),
            standbys: vec!["france".into(), "germany".into()],
            replicas: 3,
            workload: Workload::Deployment,
            port: 8080,
        }
    }

    /// The group's key everywhere, HOME/NAME.
    pub fn key(&self) -> String {
        format!("{}/{}", self.home, self.name)
    }

    /// The user's manifests.
    pub fn manifest(&self, federation: &Federation) -> String {
        let values = [
            ("NAMESPACE", self.name.clone()),
            ("NAME", self.name.clone()),
            ("GROUP", self.key()),
            ("HOME_SITE", self.home.clone()),
            ("STANDBYS", self.standbys.join(", ")),
            ("REPLICAS", self.replicas.to_string()),
            ("NODE_PORT", (self.port + 22_000).to_string()),
            ("TAKEOVER_AFTER", federation.timing.takeover_after().into()),
            ("SINK", SINK.into()),
            ("IMAGE", "registry.rig/shop:dev".into()),
        ];
        let mut manifest = include_str!("../manifests/shop.yaml").to_owned();
        if self.workload == Workload::StatefulSet {
            manifest = manifest.replace("kind: Deployment", "kind: StatefulSet");
            manifest = manifest.replace("  replicas:", "  serviceName: shop\n  replicas:");
        }
        values.iter().fold(manifest, |text, (name, value)| text.replace(&format!("${{{name}}}"), value))
    }

    /// Prepares the standbys' namespaces, as their owners would.
    pub fn prepare_standbys(&self, federation: &Federation) -> Result<()> {
        self.standbys
            .iter()
            .try_for_each(|standby| self.prepare(federation, standby, &["standby", "prepare", "--group", &self.key()]))
    }

    /// Prepares the standbys and applies the manifests at home.
    pub fn apply(&self, federation: &Federation) -> Result<()> {
        self.prepare_standbys(federation)?;
        federation.kubectl(&self.home, &["apply", "-f", "-"], Some(&self.manifest(federation)))?;
        self.prepare(federation, &self.home, &["home", "prepare"])
    }

    fn prepare(&self, federation: &Federation, site: &str, command: &[&str]) -> Result<()> {
        let manifest = federation.plugin(site, &[command, &["--namespace", &self.name]].concat())?;
        federation.kubectl(site, &["apply", "-f", "-"], Some(&manifest)).map(drop)
    }

    /// Takes the group to Protected and waits until every standby holds it ready.
    pub fn protect(&self, federation: &Federation) -> Result<()> {
        federation.say(&format!("{}: waiting until home holds the lease and copies stand by", self.key()));
        wait_for(&format!("the lease of {}", self.key()), Duration::from_secs(120), || {
            Ok(self.field(federation, "{.status.holder}")?.eq(&self.home).then_some(()))
        })?;
        federation.plugin(&self.home, &["protect", &self.name, "--yes", "--wait", "180s"])?;
        self.wait_armed(federation)
    }

    /// Waits until the group is Protected, every standby reports Armed, and the pods that were
    /// replaced on the way are gone: what they still write belongs to no recording.
    pub fn wait_armed(&self, federation: &Federation) -> Result<()> {
        wait_for(&format!("{} to be Protected and Armed", self.key()), Duration::from_secs(180), || {
            let protection = self.field(federation, "{.status.protection}")?;
            let states = self.field(federation, "{.status.standbys[*].state}")?;
            let pods = federation.kubectl(&self.home, &["-n", &self.name, "get", "pods", "-o", "name"], None)?;
            let armed = states.split_whitespace().filter(|s| *s == "Armed").count();
            let settled = pods.lines().count() == self.replicas as usize;
            Ok((protection == "Protected" && armed >= self.standbys.len() && settled).then_some(()))
        })?;
        federation.say(&format!("{}: protected, and held ready by {}", self.key(), self.standbys.join(" and ")));
        Ok(())
    }

    fn field(&self, federation: &Federation, path: &str) -> Result<String> {
        let path = format!("jsonpath={path}");
        federation.kubectl(&self.home, &["get", "failovergroup", &self.name, "-o", &path], None)
    }
}
