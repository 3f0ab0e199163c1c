//! What must hold after every step.

use std::collections::BTreeMap;

use crate::world::{NodeId, SITES};
use regent_core::ids::Epoch;

#[derive(Debug, Default)]
pub struct Check {
    /// The highest epoch of each site that was certified to it.
    certified: BTreeMap<usize, Epoch>,
    written: BTreeMap<(usize, usize), Epoch>,
    /// Which nodes execute, and since when it is so.
    pub executing: Vec<NodeId>,
    pub since: u64,
    /// When each new epoch was first certified, and to which site.
    pub changes: Vec<(u64, usize, Epoch)>,
    pub violation: Option<String>,
}

impl Check {
    fn violate(&mut self, what: String) {
        self.violation.get_or_insert(what);
    }

    /// A site has a certificate. A late one of a lower epoch may come, and must let nothing run.
    pub fn certificate(&mut self, t: u64, site: usize, epoch: Epoch) {
        let known = self.certified.entry(site).or_insert(Epoch { term: 0, site: 0 });
        if *known < epoch {
            *known = epoch;
            self.changes.push((t, site, epoch));
        }
    }

    /// I2: what lets a program run is above whatever let one run at another site before, and
    /// never falls at its node.
    pub fn epoch_written(&mut self, id: NodeId, epoch: Epoch) {
        let above = self.written.iter().filter(|((s, _), e)| *s != id.site && **e >= epoch).max_by_key(|(_, e)| **e);
        if let Some(((other, _), higher)) = above {
            let what = format!("I2: {} runs under {epoch} after {} did under {higher}", SITES[id.site], SITES[*other]);
            self.violate(what);
        }
        let before = self.written.insert((id.site, id.node), epoch);
        if before.is_some_and(|b| b > epoch) {
            self.violate(format!("I2: {} of {} was told {epoch} after {before:?}", id.node, SITES[id.site]));
        }
    }

    /// I1: at no instant at two sites.
    pub fn execution(&mut self, t: u64, executing: Vec<NodeId>) {
        if executing != self.executing {
            self.since = t;
            self.executing = executing;
        }
        let sites: std::collections::BTreeSet<usize> = self.executing.iter().map(|id| id.site).collect();
        if sites.len() > 1 {
            let names: Vec<&str> = sites.iter().map(|s| SITES[*s]).collect();
            self.violate(format!("I1: executes at {names:?}"));
        }
    }

    /// The site at which every node executes.
    pub fn holder(&self, nodes: usize) -> Option<usize> {
        let site = self.executing.first()?.site;
        (self.executing.len() == nodes).then_some(site)
    }
}
