//! What a rig needs of the machine. What may be installed is installed, the rest is named.

use std::path::Path;
use std::process::Command;

use crate::cgroup::Cgroups;
use crate::error::{Error, Result};
use crate::host::Say;
use crate::run::output;

/// A program that the rig runs, the Debian package that has it, and what for.
struct Need {
    file: &'static str,
    package: &'static str,
    why: &'static str,
}

const fn need(file: &'static str, package: &'static str, why: &'static str) -> Need {
    Need { file, package, why }
}

const NEEDS: [Need; 12] = [
    need("/usr/bin/nsenter", "util-linux", "processes are put into namespaces with it"),
    need("/usr/bin/mount", "mount", "each node has mounts of its own"),
    need("/usr/sbin/ip", "iproute2", "networks of sites and nodes"),
    need("/usr/sbin/nft", "nftables", "load balancers, kube-proxy, partial cuts"),
    need("/usr/sbin/iptables", "iptables", "the CNI plugin portmap calls it"),
    need("/usr/sbin/conntrack", "conntrack", "kube-proxy cleans up with it"),
    need("/usr/bin/containerd", "containerd", "nodes run their containers with it"),
    need("/usr/sbin/runc", "runc", "nodes run their containers with it"),
    need("/usr/lib/cni/bridge", "containernetworking-plugins", "pods' networks"),
    need("/usr/bin/docker-registry", "docker-registry", "each full site serves its images with it"),
    need("/usr/bin/skopeo", "skopeo", "images are pushed to the sites' registries with it"),
    need("/usr/bin/catatonit", "catatonit", "it is the program of the pause image"),
];

/// Checks the machine, and installs missing packages.
pub fn check(say: &Say) -> Result<Cgroups> {
    let mut problems = Vec::new();
    if !rustix::process::geteuid().is_root() {
        problems.push("you are not root; namespaces, cgroups and containers need it: run this with sudo".to_owned());
    }
    let cgroups = Cgroups::find();
    if let Err(Error::Needs(more)) = &cgroups {
        problems.extend(more.iter().cloned());
    }
    let missing: Vec<&Need> = NEEDS.iter().filter(|n| !present(n.file)).collect();
    if problems.is_empty() && !missing.is_empty() {
        install(say, &missing);
    }
    let missing = NEEDS.iter().filter(|n| !present(n.file));
    problems.extend(
        missing.map(|n| format!("{} is missing ({}); install it: apt-get install {}", n.file, n.why, n.package)),
    );
    match cgroups {
        Ok(cgroups) if problems.is_empty() => Ok(cgroups),
        Err(e) if problems.is_empty() => Err(e),
        _ => Err(Error::Needs(problems)),
    }
}

/// Debian's merged /usr has the same files under /bin and /sbin; others keep them apart.
fn present(file: &str) -> bool {
    let name = file.rsplit('/').next().unwrap_or(file);
    Path::new(file).exists()
        || ["/usr/bin", "/usr/sbin", "/bin", "/sbin"].iter().any(|d| Path::new(d).join(name).is_file())
}

/// Installs packages. Services that Debian starts for them are left alone: the rig runs its own.
fn install(say: &Say, missing: &[&Need]) {
    let mut packages: Vec<&str> = missing.iter().map(|n| n.package).collect();
    packages.dedup();
    say(&format!("installing {}", packages.join(" ")));
    for args in [vec!["install"], vec!["update"], vec!["install"]] {
        let mut command = Command::new("apt-get");
        command.env("DEBIAN_FRONTEND", "noninteractive");
        command.args(["-q", "-y", "-o", "Dpkg::Use-Pty=0"]).args(&args);
        if args == ["install"] {
            command.arg("--no-install-recommends").args(&packages);
        }
        match output(&mut command) {
            Ok(_) if args == ["install"] => return,
            Ok(_) => {}
            Err(e) => say(&format!("{e}")),
        }
    }
}
