//! The pinned Kubernetes components, etcd and helm, built as Go tools.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use rustix::fs::FlockOperation;
use sha2::{Digest, Sha256};

use crate::error::{At, Error, Result};
use crate::host::Say;
use crate::run::output;

/// A Go module under e2e/rig/tools, and what is built from it.
struct Module {
    name: &'static str,
    /// Package and file; `tool` stands for every tool line of the module.
    build: &'static [(&'static str, &'static str)],
    makes: &'static [&'static str],
    minutes: &'static str,
}

const MODULES: [Module; 3] = [
    Module {
        name: "k8s",
        build: &[("tool", "")],
        makes: &["kube-apiserver", "kube-controller-manager", "kube-proxy", "kube-scheduler", "kubectl", "kubelet"],
        minutes: "about 6 min",
    },
    Module {
        name: "etcd",
        build: &[("go.etcd.io/etcd/server/v3", "etcd")],
        makes: &["etcd"],
        minutes: "half a minute",
    },
    Module { name: "helm", build: &[("helm.sh/helm/v3/cmd/helm", "helm")], makes: &["helm"], minutes: "1 min" },
];

/// Builds what isn't up to date into `bin`. Several callers may do so at once: they take turns.
pub fn build(bin: &Path, say: &Say) -> Result<()> {
    fs::create_dir_all(bin).at("create", bin)?;
    let lock = fs::File::create(bin.join(".lock")).at("open", bin.join(".lock"))?;
    rustix::fs::flock(&lock, FlockOperation::LockExclusive).at("lock", bin)?;
    for module in &MODULES {
        module.build(bin, say)?;
    }
    Ok(())
}

/// Linker flags. Kubernetes learns its version from the linker; unset, clients take it for 0.0.0.
fn ldflags(dir: &Path) -> Result<String> {
    let path = dir.join("go.mod");
    let text = fs::read_to_string(&path).at("read", &path)?;
    let pinned = text.lines().find_map(|l| l.trim().strip_prefix("k8s.io/kubernetes v")).unwrap_or_default();
    let version = pinned.split_whitespace().next().unwrap_or_default();
    let mut flags = "-s -w".to_owned();
    if let [major, minor, _] = version.split('.').collect::<Vec<_>>()[..] {
        let package = "k8s.io/component-base/version";
        let values = [("gitVersion", format!("v{version}")), ("gitMajor", major.into()), ("gitMinor", minor.into())];
        for (name, value) in values {
            flags.push_str(&format!(" -X {package}.{name}={value}"));
        }
    }
    Ok(flags)
}

impl Module {
    fn build(&self, bin: &Path, say: &Say) -> Result<()> {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tools").join(self.name);
        let stamp = bin.join(format!(".{}", self.name));
        let wanted = self.fingerprint(&dir)?;
        let complete = self.makes.iter().all(|m| bin.join(m).exists());
        if complete && fs::read_to_string(&stamp).is_ok_and(|s| s == wanted) {
            return Ok(());
        }
        if output(Command::new("go").arg("version")).is_err() {
            return Err(Error::Needs(vec![
                "`go` is missing (Kubernetes is built from source); install Go 1.26 or later: https://go.dev/dl".into(),
            ]));
        }
        say(&format!("building {} with go (cold: {}; seconds when cached)", self.makes.join(", "), self.minutes));
        let begin = Instant::now();
        for (package, file) in self.build {
            let target: PathBuf = if file.is_empty() { bin.join("") } else { bin.join(file) };
            let mut command = Command::new("go");
            command.current_dir(&dir).env("CGO_ENABLED", "0");
            command.args(["build", "-trimpath", "-buildvcs=false", "-ldflags", &ldflags(&dir)?, "-o"]);
            command.arg(target).arg(package);
            output(&mut command)?;
        }
        say(&format!("built {} in {:.0} s", self.name, begin.elapsed().as_secs_f64()));
        fs::write(&stamp, wanted).at("write", &stamp)
    }

    /// Pinned versions and checksums decide what is built.
    fn fingerprint(&self, dir: &Path) -> Result<String> {
        let mut hash = Sha256::new();
        for file in ["go.mod", "go.sum"] {
            hash.update(fs::read(dir.join(file)).at("read", dir.join(file))?);
        }
        Ok(hex::encode(hash.finalize()))
    }
}
