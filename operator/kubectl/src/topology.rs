//! The topology file that `charter init` reads: who takes part, and where.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result, bail};
use regent_core::charter::Role;
use regent_core::ids::{PartyName, SiteName};
use serde::Deserialize;

/// Sites and parties. Fields for other tools are left alone.
#[derive(Debug, Deserialize)]
pub struct Topology {
    /// Legal entities.
    pub parties: Vec<Party>,
    /// Clusters.
    pub sites: Vec<Site>,
    /// Who votes; by default every site whose party is not the primary.
    pub witnesses: Option<Vec<SiteName>>,
}

/// A legal entity.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Party {
    /// Its short name.
    pub name: PartyName,
    /// Its name for people.
    #[serde(default)]
    pub display_name: String,
    /// What it is here.
    pub role: Role,
    /// Country of its seat.
    pub country: String,
    /// Country of its ultimate control.
    pub control: String,
}

/// A cluster.
#[derive(Debug, Deserialize)]
pub struct Site {
    /// Its name.
    pub name: SiteName,
    /// Its number in epochs.
    pub number: u32,
    /// Who runs it.
    pub party: PartyName,
    /// Where it is.
    pub country: String,
    /// Where its operator answers others, `IP:PORT`.
    #[serde(default)]
    pub addresses: Vec<String>,
}

impl Topology {
    /// Reads the file and puts the addresses of the command line in.
    pub fn load(path: &Path, addresses: &BTreeMap<SiteName, Vec<String>>) -> Result<Self> {
        let text = std::fs::read_to_string(path).with_context(|| format!("read topology {}", path.display()))?;
        let mut topology: Self =
            serde_yaml_ng::from_str(&text).with_context(|| format!("topology {} does not parse", path.display()))?;
        for (name, list) in addresses {
            let Some(site) = topology.sites.iter_mut().find(|s| &s.name == name) else {
                bail!("--address names site {name}, which topology {} does not have", path.display());
            };
            site.addresses.clone_from(list);
        }
        if let Some(site) = topology.sites.iter().find(|s| s.addresses.is_empty()) {
            bail!(
                "site {} has no address: add `addresses: [IP:PORT]` to it, or --address {}=IP:PORT",
                site.name,
                site.name
            );
        }
        Ok(topology)
    }

    /// Who votes.
    pub fn witnesses(&self) -> Vec<SiteName> {
        let is_primary = |site: &Site| self.parties.iter().any(|p| p.name == site.party && p.role == Role::Primary);
        match &self.witnesses {
            Some(list) => list.clone(),
            None => self.sites.iter().filter(|s| !is_primary(s)).map(|s| s.name.clone()).collect(),
        }
    }
}
