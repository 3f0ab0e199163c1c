//! The rig's networks: the world between sites, each site's own, and cutting them.
//!
//! ```text
//!   NAME-client        NAME-wan (bridge 10.88.0.254)        NAME-SITE            NAME-SITE-n
//!   eth0 .250 -------- client      s1 --------------------- wan 10.88.0.1
//!                                  s2 ...                   nodes 172.20.1.1 --- eth0 172.20.1.1n
//! ```
//! Nothing touches the machine's own network namespace.

use std::fs;

use crate::error::{At, Result};
use crate::plan::{BRIDGE_HOST, CLIENT_HOST, NodePlan, RigName, SitePlan, WAN};
use crate::run::{Place, feed, output, run};

/// Runs a batch of ip commands in a namespace.
fn ip(netns: &str, batch: &str) -> Result<()> {
    feed(Place::net(netns).command("ip").args(["-batch", "-"]), batch)
}

/// Feeds rules to nft in a namespace.
pub(crate) fn nft(netns: &str, rules: &str) -> Result<()> {
    feed(Place::net(netns).command("nft").args(["-f", "-"]), rules)
}

fn sysctl(netns: &str, key: &str, value: &str) -> Result<()> {
    let path = format!("/proc/sys/{key}");
    output(Place::net(netns).command("sh").args(["-c", r#"echo "$1" > "$2""#, "sh", value, &path])).map(drop)
}

/// A bridge that shows its frames to the router's rules would translate what comes back to
/// the same network without routing it, and answers would pass the router by.
fn route_what_is_routed(netns: &str) -> Result<()> {
    let key = "net/bridge/bridge-nf-call-iptables";
    let loaded = output(Place::net(netns).command("test").args(["-e", &format!("/proc/sys/{key}")])).is_ok();
    if loaded { sysctl(netns, key, "0") } else { Ok(()) }
}

fn add_netns(name: &str) -> Result<()> {
    run("ip", ["netns", "add", name])?;
    run("ip", ["-n", name, "link", "set", "lo", "up"]).map(drop)
}

/// Makes the world: a bridge in a namespace of its own, and the client.
///
/// The bridge has a fixed address: it otherwise takes its lowest port's, and open
/// connections stall when a site joins.
pub(crate) fn world(rig: &RigName) -> Result<()> {
    let (wan, client) = (rig.netns("wan"), rig.netns("client"));
    add_netns(&wan)?;
    add_netns(&client)?;
    ip(
        &wan,
        &format!(
            "link add wan address 02:00:0a:58:00:fe type bridge\n\
             addr add {WAN}.{BRIDGE_HOST}/24 dev wan\n\
             link set wan up\n\
             link add client type veth peer name eth0 netns {client}\n\
             link set client master wan up\n"
        ),
    )?;
    ip(
        &client,
        &format!(
            "addr add {WAN}.{CLIENT_HOST}/24 dev eth0\nlink set eth0 up\nroute add default via {WAN}.{BRIDGE_HOST}\n"
        ),
    )
}

/// Makes a site's network and joins it to the world.
pub(crate) fn site(rig: &RigName, plan: &SitePlan) -> Result<()> {
    let (world, netns, port) = (rig.netns("wan"), &plan.netns, plan.wan_port());
    add_netns(netns)?;
    ip(&world, &format!("link add {port} type veth peer name wan netns {netns}\nlink set {port} master wan up\n"))?;
    let mut batch =
        format!("addr add {}/24 dev wan\nlink set wan up\nroute add default via {WAN}.{BRIDGE_HOST}\n", plan.wan_ip());
    if plan.site.is_full() {
        batch.push_str(&format!(
            "link add nodes address 02:00:ac:14:{:02x}:01 type bridge\naddr add {}/24 dev nodes\nlink set nodes up\n",
            plan.site.number,
            plan.router_ip(),
        ));
    }
    ip(netns, &batch)?;
    if plan.site.is_full() {
        sysctl(netns, "net/ipv4/ip_forward", "1")?;
        route_what_is_routed(netns)?;
        nft(netns, &plan.router_rules())?;
        for node in plan.nodes() {
            self::node(plan, &node)?;
        }
    }
    Ok(())
}

fn node(site: &SitePlan, node: &NodePlan) -> Result<()> {
    add_netns(&node.netns)?;
    let port = node.port();
    ip(
        &site.netns,
        &format!(
            "link add {port} type veth peer name eth0 netns {}\nlink set {port} master nodes up\nroute add {} via {}\n",
            node.netns,
            node.pod_cidr(),
            node.ip()
        ),
    )?;
    let mut batch =
        format!("addr add {}/24 dev eth0\nlink set eth0 up\nroute add default via {}\n", node.ip(), site.router_ip());
    for other in site.nodes().iter().filter(|o| o.number != node.number) {
        batch.push_str(&format!("route add {} via {}\n", other.pod_cidr(), other.ip()));
    }
    ip(&node.netns, &batch)?;
    sysctl(&node.netns, "net/ipv4/ip_forward", "1")
}

/// All network namespaces of a rig.
pub(crate) fn netns_of(rig: &RigName) -> Vec<String> {
    let prefix = rig.netns_prefix();
    let entries = fs::read_dir("/run/netns").into_iter().flatten().flatten();
    let mut names: Vec<String> =
        entries.filter_map(|e| e.file_name().into_string().ok()).filter(|n| n.starts_with(&prefix)).collect();
    names.sort();
    names
}

/// Deletes all network namespaces of a rig; links and rules go with them.
pub(crate) fn remove_all(rig: &RigName) -> Result<()> {
    for name in netns_of(rig) {
        // A run that was killed while it made a namespace leaves a plain file, which `ip` refuses to delete.
        if run("ip", ["netns", "delete", &name]).is_err() {
            let path = format!("/run/netns/{name}");
            if std::path::Path::new(&path).exists() {
                fs::remove_file(&path).at("remove", &path)?;
            }
        }
    }
    Ok(())
}

/// Takes a port of the world's bridge down or up.
pub(crate) fn set_port(rig: &RigName, port: &str, up: bool) -> Result<()> {
    let state = if up { "up" } else { "down" };
    run("ip", ["-n", &rig.netns("wan"), "link", "set", port, state]).map(drop)
}

/// Replaces the rules of partial cuts: each pair of ports (from, to) loses what goes that way.
pub(crate) fn set_drops(rig: &RigName, drops: &[(String, String)]) -> Result<()> {
    nft(&rig.netns("wan"), &drop_rules(drops))
}

fn drop_rules(drops: &[(String, String)]) -> String {
    let mut rules = "table bridge cut {}\ndelete table bridge cut\n".to_owned();
    if !drops.is_empty() {
        rules.push_str("table bridge cut {\n  chain forward {\n    type filter hook forward priority 0;\n");
        for (from, to) in drops {
            rules.push_str(&format!("    iifname \"{from}\" oifname \"{to}\" drop\n"));
        }
        rules.push_str("  }\n}\n");
    }
    rules
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drops_replace_what_was_there_and_none_means_no_table() {
        let rules = drop_rules(&[("s1".into(), "s2".into())]);
        assert!(rules.contains("delete table bridge cut"));
        assert!(rules.contains("iifname \"s1\" oifname \"s2\" drop"));
        assert!(!drop_rules(&[]).contains("chain"));
    }
}
