//! Running programs, and threads of one's own, inside a rig.

use std::fs::File;
use std::process::Command;

use rustix::fd::AsFd;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::component::{Component, is_program};
use crate::error::{At, Error, Result};
use crate::faults::CLIENT;
use crate::node;
use crate::rig::Rig;
use crate::run::Place;

/// A place on a rig.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Where {
    /// The client, outside all sites.
    Client,
    /// A site's own network: what is there reaches the site however it is cut.
    Site(String),
    /// A node, in its network and with its files.
    Node(String, String),
}

impl Where {
    /// Reads a site's name, or `client`, and optionally a node.
    pub fn new(site: &str, node: Option<&str>) -> Self {
        match node {
            _ if site == CLIENT => Self::Client,
            None => Self::Site(site.into()),
            Some(node) => Self::Node(site.into(), node.into()),
        }
    }
}

impl Rig {
    /// A command that will run at a place, with the site's kubeconfig in KUBECONFIG and the pinned tools in PATH.
    pub fn command(&self, at: &Where, program: &str) -> Result<Command> {
        let place = self.place(at)?;
        let mut command = place.command(program);
        let path = std::env::var("PATH").unwrap_or_default();
        command.env("PATH", format!("{}:{path}", self.host.bin.display()));
        if let Where::Site(site) | Where::Node(site, _) = at {
            command.env("KUBECONFIG", self.site(site)?.kubeconfig());
            // Discovery caches are named by address, and those are the same on every rig.
            command.env("KUBECACHEDIR", self.site(site)?.dir.join("kubectl-cache"));
        }
        Ok(command)
    }

    /// Runs a program at a place and returns what it printed.
    pub fn exec(&self, at: &Where, argv: &[&str]) -> Result<String> {
        let Some((program, args)) = argv.split_first() else { return Ok(String::new()) };
        crate::run::output(self.command(at, program)?.args(args))
    }

    /// Starts a program of the caller's own at a site or node, under a name (lower case letters, digits, dashes).
    ///
    /// It belongs to the site from then on: [`Rig::kill`] with [`Component::All`] or
    /// [`Component::Program`] and [`Rig::down`] end it, and its output is in
    /// [`Rig::logs`]. It outlives the caller. Nothing happens if it runs already.
    pub fn daemon(&self, at: &Where, name: &str, argv: &[String], env: &[(String, String)]) -> Result<()> {
        let (Where::Site(site) | Where::Node(site, _)) = at else {
            return Err(Error::Usage(format!("program {name:?}: the client is no site; name one")));
        };
        if !is_program(name) || argv.is_empty() {
            return Err(Error::Usage(format!(
                "program {name:?}: use lower case letters, digits, dashes, and a command"
            )));
        }
        let plan = self.site(site)?;
        let cgroup = format!("{}/{}", plan.cgroup, Component::Program(name.into()).cgroup());
        let assigned = env.iter().map(|(k, v)| format!("{k}={v}"));
        let argv = std::iter::once("env".to_owned()).chain(assigned).chain(argv.iter().cloned()).collect();
        self.host.daemon(&cgroup, &self.place(at)?, &plan.logs().join(format!("{name}.log")), argv)
    }

    /// Moves the calling thread into the network of a place, for good.
    ///
    /// Sockets that it opens from then on are there. Call it in each thread of a
    /// runtime (`on_thread_start`), never in one whose sockets belong elsewhere.
    pub fn enter(&self, at: &Where) -> Result<()> {
        let path = format!("/run/netns/{}", self.place(at)?.netns);
        let file = File::open(&path).at("open", &path)?;
        move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network)).at("enter", &path)
    }

    /// Name of the network namespace of a place, as `ip netns` knows it.
    pub fn netns(&self, at: &Where) -> Result<String> {
        Ok(self.place(at)?.netns)
    }

    fn place(&self, at: &Where) -> Result<Place> {
        match at {
            Where::Client => Ok(Place::net(self.host.rig.netns(CLIENT))),
            Where::Site(site) => Ok(Place::net(&self.site(site)?.netns)),
            Where::Node(site, node) => node::place(&self.host, &self.node(self.site(site)?, node)?),
        }
    }
}
