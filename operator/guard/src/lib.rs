//! The guard of a node: gate, fence and journal.
//!
//! A node must stop a group by itself when its lease ends, with the API server gone, the
//! kubelet unaware and the agent dead or lying (I10), and must start nothing without a
//! certificate. So that power is in one small process that talks to nobody over a
//! network, and decides nothing either: `regent_lease::guard` does.
//!
//! ```text
//!  kubelet --registration, CSI--> csi ---+                        +--> journal, epochs (disk's thread)
//!  agent ------- guard.sock ----> agent -+-> node -> core -> steps +--> cgroups (fence)
//!  pod's regent-gate, gate.sock > gates -+    ^                   +--> gates
//!                                           alarm (both clocks)   +--> events (output's thread)
//! ```
//!
//! [`node`] is one task that takes one input after the other, so nothing is shared.
//! Nothing in it waits: disks, pipes and slow cgroups are waited for elsewhere.
//! [`supervise`] has it back within 100 ms; [`journal`] tells what it goes on from.

pub mod agent;
pub mod cgroup;
pub mod clock;
pub mod csi;
pub mod disk;
pub mod fence;
pub mod gates;
pub mod input;
pub mod journal;
pub mod node;
pub mod output;
pub mod seccomp;
pub mod serve;
pub mod socket;
pub mod sockets;
pub mod steps;
pub mod supervise;
pub mod sys;
pub mod volume;
