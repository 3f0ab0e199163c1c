//! Names and addresses: a pure function of the rig's name and the topology.
//!
//! Everything lives in namespaces of the rig, so the address ranges are the same on
//! every rig and never meet.

use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::topology::{Expose, Site};

/// Network of the world between sites, without its last byte.
pub const WAN: &str = "10.88.0";
/// Last byte of the client's address.
pub const CLIENT_HOST: u8 = 250;
/// Last byte of the bridge's own address.
pub const BRIDGE_HOST: u8 = 254;
/// Service addresses, the same at every site.
pub const SERVICE_CIDR: &str = "10.96.0.0/16";
/// Address of the Service `kubernetes`.
pub const KUBERNETES_IP: &str = "10.96.0.1";
/// Host name of the images' references, `registry.rig/NAME:dev`; resolved by containerd's mirror table alone.
pub const REGISTRY_NAME: &str = "registry.rig";

/// Name of a rig: lower case letters and digits, so that `NAME-` begins the names of this rig only.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RigName(String);

impl RigName {
    /// Checks a name.
    pub fn new(name: &str) -> Result<Self> {
        let ok = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
        let begins = name.starts_with(|c: char| c.is_ascii_lowercase());
        if !begins || name.len() > 16 || !name.chars().all(ok) {
            return Err(Error::Usage(format!(
                "rig name {name:?} is not valid; use 1 to 16 lower case letters and digits, a letter first"
            )));
        }
        Ok(Self(name.to_owned()))
    }

    /// The name itself.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Prefix of all its network namespaces.
    pub fn netns_prefix(&self) -> String {
        format!("{}-", self.0)
    }

    /// Network namespace of a site, a node, `client` or `wan`.
    pub fn netns(&self, place: &str) -> String {
        format!("{}-{place}", self.0)
    }

    /// The rig's directory in every cgroup hierarchy.
    pub fn cgroup(&self) -> String {
        format!("regent-rig.{}", self.0)
    }
}

/// Where one site's things are.
#[derive(Debug, Clone)]
pub struct SitePlan {
    /// The site.
    pub site: Site,
    /// Its folder in the rig's state.
    pub dir: PathBuf,
    /// Its network namespace.
    pub netns: String,
    /// Its cgroup, relative to a hierarchy's root.
    pub cgroup: String,
}

impl SitePlan {
    /// Places a site on a rig.
    pub fn new(rig: &RigName, state: &Path, site: &Site) -> Self {
        Self {
            site: site.clone(),
            dir: state.join("sites").join(&site.name),
            netns: rig.netns(&site.name),
            cgroup: format!("{}/{}", rig.cgroup(), site.name),
        }
    }

    /// Address of the site in the world.
    pub fn wan_ip(&self) -> String {
        format!("{WAN}.{}", self.site.number)
    }

    /// Port of the WAN bridge that leads to the site.
    pub fn wan_port(&self) -> String {
        wan_port(self.site.number)
    }

    /// URL of the site's API server.
    pub fn server(&self) -> String {
        format!("https://{}:6443", self.wan_ip())
    }

    /// Address of the site's router on the network of its nodes.
    pub fn router_ip(&self) -> String {
        format!("172.20.{}.1", self.site.number)
    }

    /// Network of the site's nodes.
    pub fn node_cidr(&self) -> String {
        format!("172.20.{}.0/24", self.site.number)
    }

    /// Network of all pods of the site.
    pub fn pods_cidr(&self) -> String {
        format!("10.{}.0.0/16", 100 + u16::from(self.site.number))
    }

    /// Address and port of the site's image registry.
    pub fn registry(&self) -> String {
        format!("{}:5000", self.router_ip())
    }

    /// The site's audit log.
    pub fn audit_log(&self) -> PathBuf {
        self.dir.join("audit.jsonl")
    }

    /// Folder of keys and certificates.
    pub fn pki(&self) -> PathBuf {
        self.dir.join("pki")
    }

    /// The administrator's kubeconfig.
    pub fn kubeconfig(&self) -> PathBuf {
        self.dir.join("kubeconfig")
    }

    /// Folder of the components' logs.
    pub fn logs(&self) -> PathBuf {
        self.dir.join("logs")
    }

    /// The site's nodes.
    pub fn nodes(&self) -> Vec<NodePlan> {
        (1..=self.site.nodes).map(|n| NodePlan::new(self, n)).collect()
    }

    /// nftables rules of the site's router: load balancer in, masquerade out.
    pub fn router_rules(&self) -> String {
        let mut dnat = String::new();
        for expose in &self.site.expose {
            dnat.push_str(&self.dnat_rule(expose));
        }
        format!(
            "table ip rig {{\n  chain prerouting {{\n    type nat hook prerouting priority dstnat;\n{dnat}  }}\n  \
             chain output {{\n    type nat hook output priority -100;\n{dnat}  }}\n  \
             chain postrouting {{\n    type nat hook postrouting priority srcnat;\n    \
             oifname \"wan\" ip saddr != {wan} masquerade\n    \
             oifname \"nodes\" ip saddr {{ {nodes}, {pods} }} ct status dnat masquerade\n  }}\n}}\n",
            wan = self.wan_ip(),
            nodes = self.node_cidr(),
            pods = self.pods_cidr(),
        )
    }

    /// New connections are spread over the nodes at random, as a cloud's load balancer does.
    fn dnat_rule(&self, expose: &Expose) -> String {
        let nodes = self.nodes();
        let targets: Vec<String> =
            nodes.iter().enumerate().map(|(i, n)| format!("{i} : {} . {}", n.ip(), expose.node_port)).collect();
        format!(
            "    ip daddr {} {proto} dport {} dnat ip addr . port to numgen random mod {} map {{ {} }}\n",
            self.wan_ip(),
            expose.port,
            nodes.len(),
            targets.join(", "),
            proto = expose.protocol.name(),
        )
    }
}

/// Port of the WAN bridge that leads to site `number`.
pub fn wan_port(number: u8) -> String {
    format!("s{number}")
}

/// Where one node's things are.
#[derive(Debug, Clone)]
pub struct NodePlan {
    /// Name of the node.
    pub name: String,
    /// Number of the node in its site, from 1.
    pub number: u8,
    /// Number of the site.
    pub site_number: u8,
    /// Its folder in the rig's state; what the node sees as /run, /var/lib and /var/log is under it.
    pub dir: PathBuf,
    /// Its network namespace.
    pub netns: String,
    /// Its cgroup, relative to a hierarchy's root.
    pub cgroup: String,
}

impl NodePlan {
    fn new(site: &SitePlan, number: u8) -> Self {
        let name = format!("{}-{number}", site.site.name);
        Self {
            number,
            site_number: site.site.number,
            dir: site.dir.join("nodes").join(&name),
            netns: format!("{}-{number}", site.netns),
            cgroup: format!("{}/{name}", site.cgroup),
            name,
        }
    }

    /// Address of the node on its site's network.
    pub fn ip(&self) -> String {
        format!("172.20.{}.{}", self.site_number, 10 + self.number)
    }

    /// Network of the node's pods.
    pub fn pod_cidr(&self) -> String {
        format!("10.{}.{}.0/24", 100 + u16::from(self.site_number), self.number)
    }

    /// Port of the site's bridge that leads to the node.
    pub fn port(&self) -> String {
        format!("n{}", self.number)
    }

    /// The kubelet's `cgroupRoot`.
    pub fn pods_cgroup(&self) -> String {
        format!("{}/pods", self.cgroup)
    }

    /// Where a file that the node sees at `path` is outside (below /run, /var/lib, /var/log only).
    pub fn outside(&self, path: &str) -> PathBuf {
        self.dir.join(path.trim_start_matches('/'))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::topology::Protocol;

    #[test]
    fn rig_names_are_prefixes_of_their_own_namespaces_only() {
        for bad in ["", "a-b", "1a", "A", "a.b", "abcdefghijklmnopq"] {
            assert!(RigName::new(bad).is_err(), "{bad}");
        }
        let (a, ab) = (RigName::new("a").unwrap(), RigName::new("ab").unwrap());
        assert!(!ab.netns("wan").starts_with(&a.netns_prefix()));
        assert_ne!(a.cgroup(), ab.cgroup());
    }

    #[test]
    fn addresses_follow_from_the_numbers() {
        let site = Site {
            name: "alpha".into(),
            number: 7,
            kind: crate::topology::Kind::Full,
            nodes: 2,
            expose: vec![Expose { port: 80, node_port: 30080, protocol: Protocol::Udp }],
            party: None,
            country: None,
            extra: Default::default(),
        };
        let plan = SitePlan::new(&RigName::new("r").unwrap(), Path::new("/s"), &site);
        let nodes = plan.nodes();
        assert_eq!((plan.wan_ip().as_str(), plan.pods_cidr().as_str()), ("10.88.0.7", "10.107.0.0/16"));
        assert_eq!((nodes[1].ip().as_str(), nodes[1].pod_cidr().as_str()), ("172.20.7.12", "10.107.2.0/24"));
        assert_eq!((nodes[1].netns.as_str(), nodes[1].name.as_str()), ("r-alpha-2", "alpha-2"));
        assert_eq!(nodes[0].outside("/var/lib/regent"), Path::new("/s/sites/alpha/nodes/alpha-1/var/lib/regent"));
        let rules = plan.router_rules();
        assert!(rules.contains("udp dport 80 dnat ip addr . port to numgen random mod 2 map"));
        assert!(rules.contains("0 : 172.20.7.11 . 30080, 1 : 172.20.7.12 . 30080"));
    }
}
