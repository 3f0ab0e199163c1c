//! The parts of a site that can be killed, paused and started one by one.

use std::fmt;
use std::str::FromStr;

use crate::error::Error;

/// A part of a site.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Component {
    /// Every process of the site, pods included.
    All,
    /// One program of the control plane: etcd, apiserver, controller-manager, scheduler, registry.
    Control(&'static str),
    /// One program of a node: containerd, kubelet, proxy.
    Daemon(&'static str, String),
    /// Every process of a node, pods included.
    Node(String),
    /// Every process of a node's pods.
    Pods(String),
    /// A program of others that [`Rig::daemon`](crate::Rig::daemon) started at the site.
    Program(String),
}

/// Programs of a control plane, in the order of their start.
pub(crate) const CONTROL: [&str; 5] = ["registry", "etcd", "apiserver", "controller-manager", "scheduler"];

/// True if `name` can name a program: lower case letters, digits and dashes.
pub(crate) fn is_program(name: &str) -> bool {
    !name.is_empty() && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
}

impl Component {
    /// The cgroup below its site's, or "" for all of it.
    pub(crate) fn cgroup(&self) -> String {
        match self {
            Self::All => String::new(),
            Self::Control(name) => (*name).to_owned(),
            Self::Daemon(name, node) => format!("{node}/{name}"),
            Self::Node(node) => node.clone(),
            Self::Pods(node) => format!("{node}/pods"),
            // A dot can't be in a node's name.
            Self::Program(name) => format!("program.{name}"),
        }
    }

    /// The node that it is on, if it is on one.
    pub fn node(&self) -> Option<&str> {
        match self {
            Self::All | Self::Control(_) | Self::Program(_) => None,
            Self::Daemon(_, node) | Self::Node(node) | Self::Pods(node) => Some(node),
        }
    }
}

impl fmt::Display for Component {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("all"),
            Self::Control(name) => f.write_str(name),
            Self::Daemon(name, node) => write!(f, "{name}:{node}"),
            Self::Node(node) => write!(f, "node:{node}"),
            Self::Pods(node) => write!(f, "pods:{node}"),
            Self::Program(name) => write!(f, "program:{name}"),
        }
    }
}

impl FromStr for Component {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let found = match text.split_once(':') {
            None if text == "all" => Some(Self::All),
            None => CONTROL.iter().find(|c| **c == text).map(|c| Self::Control(c)),
            Some((_, "")) => None,
            Some(("node", node)) => Some(Self::Node(node.into())),
            Some(("pods", node)) => Some(Self::Pods(node.into())),
            Some(("program", name)) if is_program(name) => Some(Self::Program(name.into())),
            Some((name, node)) => {
                crate::node::DAEMONS.iter().find(|d| **d == name).map(|d| Self::Daemon(d, node.into()))
            }
        };
        found.ok_or_else(|| {
            Error::Usage(format!(
                "component {text:?} is unknown; use all, {}, or containerd:NODE, kubelet:NODE, proxy:NODE, \
                 node:NODE, pods:NODE, program:NAME",
                CONTROL.join(", ")
            ))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn components_read_as_they_are_written() {
        for text in [
            "all",
            "etcd",
            "apiserver",
            "kubelet:a-1",
            "containerd:a-1",
            "proxy:a-1",
            "node:a-1",
            "pods:a-1",
            "program:op",
        ] {
            assert_eq!(text.parse::<Component>().unwrap().to_string(), text);
        }
        for bad in ["", "kubelet", "kubelet:", "etcd:a-1", "program:../x", "nonsense"] {
            assert!(bad.parse::<Component>().is_err(), "{bad}");
        }
    }
}
