//! The topology file: which sites a rig has, and who runs them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::error::{At, Error, Result};

/// A topology: sites and the parties that run them.
///
/// Fields that the rig doesn't know are kept (`extra`), so that other tools can put
/// theirs into the same file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Topology {
    /// The sites, each with a number of its own.
    pub sites: Vec<Site>,
    /// The legal entities.
    #[serde(default)]
    pub parties: Vec<Party>,
    /// Whatever else the file says.
    #[serde(flatten)]
    pub extra: BTreeMap<String, serde_yaml_ng::Value>,
}

/// One Kubernetes cluster.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Site {
    /// Name: lower case letters, digits and dashes.
    pub name: String,
    /// Number, 1 to 99: the last byte of its WAN address 10.88.0.NUMBER.
    pub number: u8,
    /// Full or witness.
    #[serde(default)]
    pub kind: Kind,
    /// Number of nodes (full sites only).
    #[serde(default)]
    pub nodes: u8,
    /// What the site's load balancer offers to the world.
    #[serde(default)]
    pub expose: Vec<Expose>,
    /// The party that runs it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub party: Option<String>,
    /// The country it stands in (ISO 3166, two letters).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub country: Option<String>,
    /// Whatever else the file says.
    #[serde(flatten)]
    pub extra: BTreeMap<String, serde_yaml_ng::Value>,
}

/// What a site consists of.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Control plane, registry and nodes.
    #[default]
    Full,
    /// etcd and API server alone.
    Witness,
}

/// One port of a site's load balancer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Expose {
    /// Port on the site's WAN address.
    pub port: u16,
    /// NodePort that it leads to, on any node of the site.
    pub node_port: u16,
    /// Transport protocol.
    #[serde(default)]
    pub protocol: Protocol,
}

/// Transport protocol of an exposed port.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// TCP.
    #[default]
    Tcp,
    /// UDP.
    Udp,
}

impl Protocol {
    /// The name that nftables uses.
    pub fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }
}

/// A legal entity.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Party {
    /// Short name, used as a reference.
    pub name: String,
    /// Name for people.
    pub display_name: String,
    /// Country of its seat.
    pub country: String,
    /// Country of its ultimate control.
    pub control: String,
    /// What it does in the federation.
    pub role: Role,
    /// Companies that form it, for a consortium.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub members: Vec<String>,
    /// Whatever else the file says.
    #[serde(flatten)]
    pub extra: BTreeMap<String, serde_yaml_ng::Value>,
}

/// What a party does in the federation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Operates the home sites.
    Primary,
    /// Has agreed to take over.
    Partner,
    /// Keeps the escrow.
    Keeper,
    /// Witnesses only.
    Neutral,
    /// Owns workloads and data.
    Customer,
}

/// Most nodes that a site may have: addresses 172.20.N.11 upward, pod networks 10.1NN.n.0/24.
pub const MAX_NODES: u8 = 50;

impl Topology {
    /// Reads and checks a topology file.
    pub fn load(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).at("read topology", path)?;
        let topology: Self = serde_yaml_ng::from_str(&text)
            .map_err(|e| Error::Format { path: path.to_path_buf(), problem: e.to_string() })?;
        topology.validate()?;
        Ok(topology)
    }

    /// Checks what the types can't say.
    pub fn validate(&self) -> Result<()> {
        if self.sites.is_empty() {
            return Err(problem("sites", "there is none", "name at least one site"));
        }
        let mut numbers = BTreeSet::new();
        let mut names: BTreeSet<String> = ["client", "wan"].map(String::from).into();
        for site in &self.sites {
            site.validate()?;
            let field = format!("sites[{}]", site.name);
            if !numbers.insert(site.number) {
                return Err(problem(&format!("{field}.number"), "is used twice", "give each site its own"));
            }
            for name in std::iter::once(site.name.clone()).chain(site.node_names()) {
                if !names.insert(name.clone()) {
                    let text = format!("name {name:?} is taken by another site, by a node or by the rig");
                    return Err(problem(&field, &text, "choose another name"));
                }
            }
            self.validate_party(site)?;
        }
        Ok(())
    }

    fn validate_party(&self, site: &Site) -> Result<()> {
        match &site.party {
            Some(party) if !self.parties.iter().any(|p| p.name == *party) => Err(problem(
                &format!("sites[{}].party", site.name),
                &format!("no party is called {party:?}"),
                "add it to parties",
            )),
            _ => Ok(()),
        }
    }
}

impl Site {
    /// Names of the nodes: SITE-1, SITE-2 and so on.
    pub fn node_names(&self) -> Vec<String> {
        (1..=self.nodes).map(|n| format!("{}-{n}", self.name)).collect()
    }

    /// True if the site runs workloads.
    pub fn is_full(&self) -> bool {
        self.kind == Kind::Full
    }

    fn validate(&self) -> Result<()> {
        let field = |f: &str| format!("sites[{}].{f}", self.name);
        let ok = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        let begins = self.name.starts_with(|c: char| c.is_ascii_lowercase());
        if !begins || self.name.len() > 24 || !self.name.chars().all(ok) || self.name.ends_with('-') {
            let text = "is no valid name";
            return Err(problem(&field("name"), text, "use 1 to 24 lower case letters, digits, dashes"));
        }
        if !(1..=99).contains(&self.number) {
            return Err(problem(&field("number"), "is out of range", "use 1 to 99"));
        }
        match (self.kind, self.nodes) {
            (Kind::Full, 0) => Err(problem(&field("nodes"), "a full site has none", "give it at least one")),
            (Kind::Witness, 1..) => Err(problem(&field("nodes"), "a witness site has none", "remove the field")),
            (_, n) if n > MAX_NODES => Err(problem(&field("nodes"), "are too many", "use at most 50")),
            (Kind::Witness, _) if !self.expose.is_empty() => {
                Err(problem(&field("expose"), "a witness site has no nodes to lead to", "remove the field"))
            }
            _ => Ok(()),
        }
    }
}

fn problem(field: &str, problem: &str, remedy: &str) -> Error {
    Error::Topology { field: field.into(), problem: problem.into(), remedy: remedy.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Topology> {
        let topology: Topology = serde_yaml_ng::from_str(text).unwrap();
        topology.validate().map(|()| topology)
    }

    #[test]
    fn shipped_topologies_are_valid_and_keep_what_the_rig_does_not_know() {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../topologies");
        for entry in std::fs::read_dir(dir).unwrap() {
            Topology::load(&entry.unwrap().path()).unwrap();
        }
        let t = parse("{sites: [{name: a, number: 1, nodes: 2, colour: red}], timing: {d: 5}}").unwrap();
        assert_eq!(t.sites[0].node_names(), ["a-1", "a-2"]);
        assert_eq!(t.sites[0].extra["colour"], "red");
        let again = serde_yaml_ng::to_string(&t).unwrap();
        assert!(again.contains("timing") && again.contains("colour"));
    }

    #[test]
    fn every_impossible_topology_is_refused_with_field_and_remedy() {
        for (text, field) in [
            ("{sites: []}", "sites"),
            ("{sites: [{name: A, number: 1, nodes: 1}]}", "sites[A].name"),
            ("{sites: [{name: a, number: 0, nodes: 1}]}", "sites[a].number"),
            ("{sites: [{name: a, number: 100, nodes: 1}]}", "sites[a].number"),
            ("{sites: [{name: a, number: 1}]}", "sites[a].nodes"),
            ("{sites: [{name: a, number: 1, kind: witness, nodes: 1}]}", "sites[a].nodes"),
            ("{sites: [{name: a, number: 1, nodes: 51}]}", "sites[a].nodes"),
            ("{sites: [{name: client, number: 1, nodes: 1}]}", "sites[client]"),
            ("{sites: [{name: a, number: 1, nodes: 1}, {name: b, number: 1, nodes: 1}]}", "sites[b].number"),
            ("{sites: [{name: a, number: 1, nodes: 1}, {name: a-1, number: 2, nodes: 1}]}", "sites[a-1]"),
            ("{sites: [{name: a, number: 1, nodes: 1, party: x}]}", "sites[a].party"),
            ("{sites: [{name: a, number: 1, kind: witness, expose: [{port: 1, nodePort: 30000}]}]}", "sites[a].expose"),
        ] {
            match parse(text) {
                Err(Error::Topology { field: f, remedy, .. }) => {
                    assert_eq!(f, field, "{text}");
                    assert!(!remedy.is_empty());
                }
                other => panic!("{text}: {other:?}"),
            }
        }
    }
}
