//! Where logs are.

use std::fs;
use std::path::{Path, PathBuf};

use crate::component::Component;
use crate::error::{Error, Result};
use crate::node::{self, DAEMONS};
use crate::rig::Rig;

impl Rig {
    /// The log files of a site: (name, path). Pods' are called `pod:NAMESPACE/POD/CONTAINER`.
    pub fn logs(&self, site: &str) -> Result<Vec<(String, PathBuf)>> {
        let plan = self.site(site)?;
        let stem = |path: &Path| path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let mut found: Vec<(String, PathBuf)> = list(&plan.logs()).into_iter().map(|p| (stem(&p), p)).collect();
        found.push(("audit".into(), plan.audit_log()));
        for node in plan.nodes() {
            for daemon in DAEMONS {
                let name = Component::Daemon(daemon, node.name.clone()).to_string();
                found.push((name, node::log(&node, daemon)));
            }
            found.extend(pods(&node.outside("/var/log/pods")));
        }
        found.retain(|(_, path)| path.exists());
        Ok(found)
    }

    /// The log files whose name is `name`, or begins with it in the case of pods.
    pub fn log(&self, site: &str, name: &str) -> Result<Vec<(String, PathBuf)>> {
        let all = self.logs(site)?;
        let known = all.iter().map(|(n, _)| n.as_str()).collect::<Vec<_>>().join(", ");
        let fits = |n: &str| n == name || (name.starts_with("pod:") && n.starts_with(name));
        let found: Vec<_> = all.iter().filter(|(n, _)| fits(n)).cloned().collect();
        if found.is_empty() {
            return Err(Error::Unknown { kind: "log", name: name.into(), rig: self.name().as_str().into(), known });
        }
        Ok(found)
    }
}

fn list(dir: &Path) -> Vec<PathBuf> {
    let mut paths: Vec<PathBuf> = fs::read_dir(dir).into_iter().flatten().flatten().map(|e| e.path()).collect();
    paths.sort();
    paths
}

/// Kubelets write NAMESPACE_POD_UID/CONTAINER/RESTART.log.
fn pods(dir: &Path) -> Vec<(String, PathBuf)> {
    let name = |path: &Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let mut found = Vec::new();
    for pod in list(dir) {
        let title = name(&pod).splitn(3, '_').take(2).collect::<Vec<_>>().join("/");
        for container in list(&pod) {
            for file in list(&container) {
                found.push((format!("pod:{title}/{}", name(&container)), file));
            }
        }
    }
    found
}
