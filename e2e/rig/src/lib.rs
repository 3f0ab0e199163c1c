//! Several real Kubernetes sites on one machine.
//!
//! A failover across clusters can only be tested on clusters. A rig gives each *site* a
//! network namespace of its own, with a real etcd, API server and, if it is a *full*
//! site, controller manager, scheduler, image registry and nodes (containerd, kubelet,
//! kube-proxy). The world between the sites is a bridge in one more namespace, so a site
//! can be cut off by taking one link down, and nothing on the machine itself changes.
//!
//! ```text
//!  NAME-client      NAME-wan             NAME-ireland                 NAME-ireland-1
//!  10.88.0.250 ---- bridge ------------- 10.88.0.1  API server,   --- 172.20.1.11
//!                     |                  etcd, router,                containerd, kubelet,
//!                     +---- NAME-france  load balancer, registry      pods 10.101.1.0/24
//! ```
//!
//! Every process of a rig lives in the rig's cgroup of the v2 tree. That is how it is
//! found, killed and cleaned up, also after the rig's own process was killed.
//!
//! Start with [`Rig::up`] and [`Options::new`].

mod cgroup;
mod component;
mod config;
mod control;
mod error;
mod faults;
mod host;
mod image;
mod inside;
mod logs;
mod needs;
mod net;
mod node;
mod pki;
mod plan;
mod rig;
mod run;
mod tools;
mod topology;

pub use cgroup::Cgroups;
pub use component::Component;
pub use error::{Error, Result};
pub use faults::{CLIENT, Cut, Cuts, boot_ns};
pub use host::{Say, say_nothing, say_on_stderr};
pub use image::ImageFile;
pub use inside::Where;
pub use needs::check as check_needs;
pub use plan::{NodePlan, REGISTRY_NAME, RigName, SitePlan};
pub use rig::{Options, Rig, target_dir};
pub use tools::build as build_tools;
pub use topology::{Expose, Kind, MAX_NODES, Party, Protocol, Role, Site, Topology};
