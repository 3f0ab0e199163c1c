//! The pinned Kubernetes components, etcd and helm, built as Go tools.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::fs::FlockOperation;
use sha2::{Digest, Sha256};

use crate::error::{At, Error, Result};
use crate::host::Say;
use crate::run::{output, tail};

/// Time between two lines of progress of one build.
const PROGRESS_PERIOD: Duration = Duration::from_secs(15);

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

/// Linker flags. Kubernetes and helm learn their versions from the linker: unset, clients take
/// the one for 0.0.0, and the other refuses charts that ask for more than Kubernetes 1.20.
fn ldflags(module: &str, go_mod: &str) -> String {
    let pinned = |path: &str| -> Vec<String> {
        let line = go_mod.lines().find_map(|l| l.trim().strip_prefix(path)?.strip_prefix(" v"));
        let version = line.and_then(|l| l.split_whitespace().next()).unwrap_or_default();
        version.split('.').map(String::from).collect()
    };
    let mut flags = vec!["-s -w".to_owned()];
    let mut set = |variable: &str, value: &str| flags.push(format!("-X {variable}={value}"));
    match (module, &pinned("k8s.io/kubernetes")[..], &pinned("k8s.io/client-go")[..]) {
        ("k8s", [major, minor, patch], _) => {
            let package = "k8s.io/component-base/version";
            set(&format!("{package}.gitVersion"), &format!("v{major}.{minor}.{patch}"));
            set(&format!("{package}.gitMajor"), major);
            set(&format!("{package}.gitMinor"), minor);
        }
        ("helm", _, [_, minor, _]) => {
            for package in ["chartutil", "lint/rules"] {
                set(&format!("helm.sh/helm/v3/pkg/{package}.k8sVersionMajor"), "1");
                set(&format!("helm.sh/helm/v3/pkg/{package}.k8sVersionMinor"), minor);
            }
        }
        _ => {}
    }
    flags.join(" ")
}

impl Module {
    fn build(&self, bin: &Path, say: &Say) -> Result<()> {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tools").join(self.name);
        let stamp = bin.join(format!(".{}", self.name));
        let (wanted, flags) = self.fingerprint(&dir)?;
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
            command.args(["build", "-v", "-trimpath", "-buildvcs=false", "-ldflags", &flags, "-o"]);
            command.arg(target).arg(package);
            self.compile(command, self.packages(&dir, package)?, say)?;
        }
        say(&format!("built {} in {:.0} s", self.name, begin.elapsed().as_secs_f64()));
        fs::write(&stamp, wanted).at("write", &stamp)
    }

    /// Number of packages that a build may have to compile.
    fn packages(&self, dir: &Path, package: &str) -> Result<usize> {
        let list =
            output(Command::new("go").current_dir(dir).env("CGO_ENABLED", "0").args(["list", "-deps", package]))?;
        Ok(list.lines().count())
    }

    /// Runs `go build -v`, which names each package that it compiles, and tells how far it is.
    fn compile(&self, mut command: Command, total: usize, say: &Say) -> Result<()> {
        let failed = |status: String, output: String| Error::Command {
            command: format!("go build ({})", self.name),
            status,
            output,
        };
        let spawned = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn();
        let mut child = spawned.map_err(|e| failed(e.to_string(), String::new()))?;
        let (mut done, mut last, mut text) = (0, Instant::now(), String::new());
        for line in child.stderr.take().into_iter().flat_map(|e| BufReader::new(e).lines()) {
            let line = line.at("read", "go build's output")?;
            done += 1;
            text.push_str(&line);
            text.push('\n');
            if last.elapsed() > PROGRESS_PERIOD {
                say(&format!("{}: {done} of at most {total} packages compiled", self.name));
                last = Instant::now();
            }
        }
        let status = child.wait().at("wait for", "go build")?;
        if status.success() { Ok(()) } else { Err(failed(status.to_string(), tail(&text, 3000).to_owned())) }
    }

    /// Pinned versions and checksums decide what is built. Returns them as one hash, and the linker's flags.
    fn fingerprint(&self, dir: &Path) -> Result<(String, String)> {
        let path = dir.join("go.mod");
        let go_mod = fs::read_to_string(&path).at("read", &path)?;
        let flags = ldflags(self.name, &go_mod);
        let mut hash = Sha256::new();
        hash.update(go_mod);
        hash.update(fs::read(dir.join("go.sum")).at("read", dir.join("go.sum"))?);
        hash.update(&flags);
        Ok((hex::encode(hash.finalize()), flags))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_those_of_the_pinned_modules() {
        let k8s = ldflags("k8s", "require (\n\tk8s.io/kubernetes v1.36.3 // indirect\n\tk8s.io/client-go v0.0.0\n)");
        assert!(k8s.contains("version.gitVersion=v1.36.3 ") && k8s.contains("gitMinor=36"), "{k8s}");
        let helm = ldflags("helm", "\tk8s.io/client-go v0.37.0 // indirect\n");
        assert!(helm.contains("chartutil.k8sVersionMinor=37"), "{helm}");
        assert_eq!(ldflags("etcd", ""), "-s -w");
    }
}
