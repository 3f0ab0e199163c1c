//! Breaking things, and mending them: cut, heal, kill, pause, resume, start.

use std::fs;
use std::time::Duration;

use rustix::process::Signal;
use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

use crate::cgroup::signal;
use crate::component::{CONTROL, Component};
use crate::error::{At, Error, Result};
use crate::plan::{NodePlan, SitePlan, wan_port};
use crate::rig::{Rig, at_once};
use crate::run::{wait_for, write};
use crate::{control, net, node};

/// The client's name among the places of the world.
pub const CLIENT: &str = "client";

/// Nanoseconds of CLOCK_BOOTTIME.
pub fn boot_ns() -> u64 {
    let t = clock_gettime(ClockId::Boottime);
    u64::try_from(t.tv_sec).unwrap_or(0) * 1_000_000_000 + u64::try_from(t.tv_nsec).unwrap_or(0)
}

/// The cuts in force.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cuts {
    /// In the order in which they were made.
    pub cuts: Vec<Cut>,
}

/// One cut: what it parts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cut {
    /// The site (or `client`) that is cut off.
    pub site: String,
    /// From whom: sites or `client`; empty means from the whole world.
    pub from: Vec<String>,
    /// Only what the site sends is lost; it still hears the others.
    pub one_way: bool,
}

impl Rig {
    /// Cuts a site off: from the whole world, or `from` some, or `one_way` (what it sends is lost).
    ///
    /// Packets vanish and nothing is closed. Returns CLOCK_BOOTTIME in ns right after the cut.
    pub fn cut(&self, site: &str, from: &[String], one_way: bool) -> Result<u64> {
        self.port(site)?;
        for other in from {
            self.port(other)?;
        }
        let mut cuts = self.cuts()?;
        let cut = Cut { site: site.into(), from: from.to_vec(), one_way };
        if !cuts.cuts.contains(&cut) {
            cuts.cuts.push(cut);
        }
        self.apply(&cuts)
    }

    /// Undoes the cuts that name a site, or all. Returns CLOCK_BOOTTIME in ns right after it.
    pub fn heal(&self, site: Option<&str>) -> Result<u64> {
        let mut cuts = self.cuts()?;
        match site {
            None => cuts.cuts.clear(),
            Some(site) => {
                self.port(site)?;
                cuts.cuts.retain(|c| c.site != site && !c.from.iter().any(|f| f == site));
            }
        }
        self.apply(&cuts)
    }

    /// The cuts in force.
    pub fn cuts(&self) -> Result<Cuts> {
        let path = self.dir.join("cuts.json");
        let text = fs::read_to_string(&path).at("read", &path)?;
        serde_json::from_str(&text).map_err(|e| Error::Format { path, problem: e.to_string() })
    }

    pub(crate) fn save_cuts(&self, cuts: &Cuts) -> Result<()> {
        let path = self.dir.join("cuts.json");
        write(&path, serde_json::to_vec(cuts).map_err(|e| Error::Usage(format!("cuts: {e}")))?)
    }

    /// Makes links and rules say what `cuts` says. Only what differs is touched.
    fn apply(&self, cuts: &Cuts) -> Result<u64> {
        let before = self.cuts()?;
        let (old, new) = (self.effects(&before)?, self.effects(cuts)?);
        for port in old.down.iter().filter(|p| !new.down.contains(p)) {
            net::set_port(&self.host.rig, port, true)?;
        }
        for port in new.down.iter().filter(|p| !old.down.contains(p)) {
            net::set_port(&self.host.rig, port, false)?;
        }
        if old.drops != new.drops {
            net::set_drops(&self.host.rig, &new.drops)?;
        }
        let at = boot_ns();
        self.save_cuts(cuts)?;
        Ok(at)
    }

    fn effects(&self, cuts: &Cuts) -> Result<Effects> {
        let mut effects = Effects::default();
        let everyone = || self.sites().iter().map(|s| s.site.name.clone()).chain([CLIENT.to_owned()]);
        for cut in &cuts.cuts {
            let port = self.port(&cut.site)?;
            if cut.from.is_empty() && !cut.one_way {
                effects.down.push(port);
                continue;
            }
            let others: Vec<String> = if cut.from.is_empty() { everyone().collect() } else { cut.from.clone() };
            for other in others.iter().filter(|o| **o != cut.site) {
                let other = self.port(other)?;
                effects.drops.push((port.clone(), other.clone()));
                if !cut.one_way {
                    effects.drops.push((other, port.clone()));
                }
            }
        }
        Ok(effects)
    }

    /// The port of the world's bridge that leads to a site or to the client.
    fn port(&self, place: &str) -> Result<String> {
        if place == CLIENT { Ok(CLIENT.to_owned()) } else { Ok(wan_port(self.site(place)?.site.number)) }
    }

    /// Kills a part of a site with SIGKILL and waits until it is gone. Returns CLOCK_BOOTTIME in ns right after it.
    pub fn kill(&self, site: &str, component: &Component) -> Result<u64> {
        let plan = self.check(site, component)?;
        let cgroup = cgroup(plan, component);
        let Component::Daemon(name, _) = component else {
            self.host.cgroups.kill(&cgroup)?;
            return Ok(boot_ns());
        };
        // Containers' shims and mount helpers share the cgroup; only the program itself is to die.
        let pids = node::main_pids(&self.host, &cgroup, name);
        for pid in &pids {
            signal(*pid, Signal::KILL)?;
        }
        let what = format!("the end of {component}");
        wait_for(&what, Duration::from_secs(20), Duration::from_millis(2), "", || {
            Ok(node::main_pids(&self.host, &cgroup, name).iter().all(|p| !pids.contains(p)))
        })?;
        Ok(boot_ns())
    }

    /// Kills one program of one pod with SIGKILL, as if it had crashed; the pod's other processes live on.
    ///
    /// `program` is what /proc/PID/comm says: at most 15 characters. Returns CLOCK_BOOTTIME in ns right after it.
    pub fn kill_in_pod(&self, site: &str, pod_uid: &str, program: &str) -> Result<u64> {
        let plan = self.check(site, &Component::All)?;
        let is_it = |pid: &u32| {
            let read = |file: &str| fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap_or_default();
            read("comm").trim() == program && read("cgroup").contains(pod_uid)
        };
        let pids: Vec<u32> = self.host.cgroups.pids(&plan.cgroup).into_iter().filter(is_it).collect();
        if pids.is_empty() {
            return Err(self.unknown(
                "program",
                program,
                format!("the processes of pod {pod_uid} are called otherwise"),
            ));
        }
        for pid in pids {
            signal(pid, Signal::KILL)?;
        }
        Ok(boot_ns())
    }

    /// Stops a part of a site with SIGSTOP: it hangs, and nothing is closed. Returns CLOCK_BOOTTIME in ns after it.
    pub fn pause(&self, site: &str, component: &Component) -> Result<u64> {
        self.signal_all(site, component, Signal::STOP)
    }

    /// Continues what [`Rig::pause`] stopped.
    pub fn resume(&self, site: &str, component: &Component) -> Result<u64> {
        self.signal_all(site, component, Signal::CONT)
    }

    fn signal_all(&self, site: &str, component: &Component, sig: Signal) -> Result<u64> {
        let plan = self.check(site, component)?;
        let cgroup = cgroup(plan, component);
        let mut done: Vec<u32> = Vec::new();
        // Whatever is forked while signals go out is caught by the next round.
        loop {
            let pids = match component {
                Component::Daemon(name, _) => node::main_pids(&self.host, &cgroup, name),
                _ => self.host.cgroups.pids(&cgroup),
            };
            let new: Vec<u32> = pids.into_iter().filter(|p| !done.contains(p)).collect();
            if new.is_empty() {
                break;
            }
            for pid in &new {
                signal(*pid, sig)?;
            }
            done.extend(new);
        }
        if done.is_empty() {
            return Err(Error::Usage(format!(
                "{component} of {site} doesn't run; start it: regent-rig start {site} {component}"
            )));
        }
        Ok(boot_ns())
    }

    /// Starts what doesn't run of a site: after `kill`, or the whole site as after a reboot.
    pub fn start(&self, site: &str, component: &Component) -> Result<()> {
        let plan = self.check(site, component)?;
        match component {
            Component::All => {
                control::start_api(&self.host, plan)?;
                if plan.site.is_full() {
                    CONTROL.iter().try_for_each(|c| self.start_control(plan, c))?;
                }
                at_once(&plan.nodes(), |n: &NodePlan| node::start_and_wait(&self.host, plan, n))
            }
            Component::Control(name) => self.start_control(plan, name),
            Component::Daemon(name, node) => node::start_daemon(&self.host, &self.node(plan, node)?, name),
            Component::Node(node) => node::start_and_wait(&self.host, plan, &self.node(plan, node)?),
            Component::Pods(_) => {
                Err(Error::Usage("pods are started by their kubelet; start node:NODE instead".into()))
            }
            Component::Program(name) => {
                Err(Error::Usage(format!("program {name:?} is not the rig's own; start it as it was started first")))
            }
        }
    }

    fn start_control(&self, plan: &SitePlan, name: &str) -> Result<()> {
        let host = &self.host;
        match name {
            "registry" => control::start_registry(host, plan),
            "etcd" => control::start_etcd(host, plan),
            "apiserver" => control::start_apiserver(host, plan),
            "controller-manager" => control::start_controller_manager(host, plan),
            _ => control::start_scheduler(host, plan),
        }
    }

    /// Finds the site, and refuses a component that it can't have.
    fn check(&self, site: &str, component: &Component) -> Result<&SitePlan> {
        let plan = self.site(site)?;
        if let Some(node) = component.node() {
            self.node(plan, node)?;
        }
        match component {
            Component::Program(_) => Ok(plan),
            Component::Control(name) if !plan.site.is_full() && !["etcd", "apiserver"].contains(name) => {
                Err(self.unknown("component", name, "etcd, apiserver, all (a witness site)".into()))
            }
            _ => Ok(plan),
        }
    }
}

fn cgroup(plan: &SitePlan, component: &Component) -> String {
    match component.cgroup().as_str() {
        "" => plan.cgroup.clone(),
        below => format!("{}/{below}", plan.cgroup),
    }
}

/// What cuts mean for links and rules.
#[derive(Debug, Default, PartialEq, Eq)]
struct Effects {
    down: Vec<String>,
    drops: Vec<(String, String)>,
}
