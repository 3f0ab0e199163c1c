//! A rig: bringing it up, finding it again, taking it down.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;

use rustix::fs::FlockOperation;

use crate::cgroup::Cgroups;
use crate::error::{At, Error, Result};
use crate::faults::Cuts;
use crate::host::{Host, Say, say_nothing};
use crate::image::{self, ImageFile};
use crate::plan::{NodePlan, REGISTRY_NAME, RigName, SitePlan};
use crate::run::{Place, output, write};
use crate::topology::Topology;
use crate::{control, needs, net, node, tools};

/// Where a rig is and whom it tells.
#[derive(Clone)]
pub struct Options {
    /// Name: lower case letters and digits.
    pub name: String,
    /// Folder of the states of all rigs.
    pub state: PathBuf,
    /// Folder of the built tools.
    pub tools: PathBuf,
    /// Receives progress lines.
    pub say: Say,
}

impl Options {
    /// A rig under the workspace's target folder that says nothing.
    pub fn new(name: &str) -> Self {
        let target = target_dir();
        Self { name: name.into(), state: target.join("rig"), tools: target.join("tools/bin"), say: say_nothing() }
    }
}

/// The workspace's target folder, where rigs and tools are unless told otherwise.
pub fn target_dir() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target");
    root.canonicalize().unwrap_or(root)
}

/// Several Kubernetes sites on this machine.
pub struct Rig {
    pub(crate) host: Host,
    pub(crate) dir: PathBuf,
    topology: Topology,
    sites: Vec<SitePlan>,
}

impl Rig {
    /// Checks the machine, builds the tools, removes what is left of a rig of this name, and brings it up.
    ///
    /// Returns when every API server answers and every node is Ready. On failure the
    /// rig is left as it is, so that its logs can be read.
    pub fn up(options: &Options, topology: &Topology) -> Result<Self> {
        topology.validate()?;
        let name = RigName::new(&options.name)?;
        let cgroups = needs::check(&options.say)?;
        tools::build(&options.tools, &options.say)?;
        let _lock = lock(options)?;
        let host = Host { rig: name, cgroups, bin: absolute(&options.tools)?, say: options.say.clone() };
        let dir = state_dir(options)?;
        check_state_dir(&dir)?;
        clean(&host, &dir)?;
        fs::create_dir_all(&dir).at("create", &dir)?;
        let rig = Self::assemble(host, dir, topology.clone());
        rig.save()?;
        net::world(&rig.host.rig)?;
        rig.for_each_site(|site| rig.start_site(site))?;
        rig.host.say("rig is up");
        Ok(rig)
    }

    /// Finds a rig that is up.
    pub fn open(options: &Options) -> Result<Self> {
        let name = RigName::new(&options.name)?;
        let dir = state_dir(options)?;
        let path = dir.join("topology.yaml");
        if !path.exists() {
            return Err(Error::NotUp { name: options.name.clone(), path });
        }
        let topology = Topology::load(&path)?;
        let host =
            Host { rig: name, cgroups: Cgroups::find()?, bin: absolute(&options.tools)?, say: options.say.clone() };
        Ok(Self::assemble(host, dir, topology))
    }

    /// Takes a rig down, whatever state it is in: processes, mounts, namespaces, cgroups. `keep` keeps its files.
    pub fn down(options: &Options, keep: bool) -> Result<()> {
        let host = Host {
            rig: RigName::new(&options.name)?,
            cgroups: Cgroups::find()?,
            bin: options.tools.clone(),
            say: options.say.clone(),
        };
        let _lock = lock(options)?;
        let dir = state_dir(options)?;
        remove(&host)?;
        if !keep && dir.exists() {
            fs::remove_dir_all(&dir).at("remove", &dir)?;
        }
        Ok(())
    }

    /// Names of the rigs of this machine, found by their cgroups.
    pub fn list() -> Result<Vec<String>> {
        let prefix = "regent-rig.";
        let roots = Cgroups::find()?.roots(prefix);
        Ok(roots.iter().filter_map(|r| r.strip_prefix(prefix)).map(String::from).collect())
    }

    fn assemble(host: Host, dir: PathBuf, topology: Topology) -> Self {
        let sites = topology.sites.iter().map(|s| SitePlan::new(&host.rig, &dir, s)).collect();
        Self { host, dir, topology, sites }
    }

    fn save(&self) -> Result<()> {
        let path = self.dir.join("topology.yaml");
        let text = serde_yaml_ng::to_string(&self.topology)
            .map_err(|e| Error::Format { path: path.clone(), problem: e.to_string() })?;
        write(&path, text)?;
        self.save_cuts(&Cuts::default())
    }

    /// Runs `work` for all sites at once and returns the first failure.
    fn for_each_site(&self, work: impl Fn(&SitePlan) -> Result<()> + Sync) -> Result<()> {
        at_once(&self.sites, work)
    }

    fn start_site(&self, site: &SitePlan) -> Result<()> {
        let (host, name) = (&self.host, &site.site.name);
        control::prepare(site)?;
        net::site(&host.rig, site)?;
        if site.site.is_full() {
            control::start_registry(host, site)?;
        }
        control::start_api(host, site)?;
        host.say(&format!("{name}: API server is ready at {}", site.server()));
        if site.site.is_full() {
            self.start_full(site)?;
        }
        Ok(())
    }

    fn start_full(&self, site: &SitePlan) -> Result<()> {
        let host = &self.host;
        control::start_controller_manager(host, site)?;
        control::start_scheduler(host, site)?;
        let pause = ImageFile { source: "/usr/bin/catatonit".into(), target: "/pause".into() };
        self.push(site, "pause", &[pause], &["/pause".into(), "-P".into()])?;
        at_once(&site.nodes(), |n: &NodePlan| {
            node::start_and_wait(host, site, n)?;
            host.say(&format!("{}: node {} is Ready", site.site.name, n.name));
            Ok(())
        })
    }

    /// Builds an image from static binaries and pushes it to every full site's registry.
    ///
    /// Returns its reference, the same at each site. The entrypoint is the first file, unless given.
    pub fn image(&self, name: &str, files: &[ImageFile], entrypoint: &[String]) -> Result<String> {
        let full: Vec<&SitePlan> = self.sites.iter().filter(|s| s.site.is_full()).collect();
        at_once(&full, |site| self.push(site, name, files, entrypoint))?;
        Ok(format!("{REGISTRY_NAME}/{name}:dev"))
    }

    fn push(&self, site: &SitePlan, name: &str, files: &[ImageFile], entrypoint: &[String]) -> Result<()> {
        let dir = site.dir.join("images").join(name);
        image::build(&dir, files, entrypoint)?;
        let (from, to) = (format!("oci:{}:dev", dir.display()), format!("docker://{}/{name}:dev", site.registry()));
        let args = ["--insecure-policy", "copy", "-q", "--preserve-digests", "--dest-tls-verify=false", &from, &to];
        output(Place::net(&site.netns).command("skopeo").args(args))?;
        fs::remove_dir_all(&dir).at("remove", &dir)
    }

    /// The rig's name.
    pub fn name(&self) -> &RigName {
        &self.host.rig
    }

    /// The rig's folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The topology that it was brought up with.
    pub fn topology(&self) -> &Topology {
        &self.topology
    }

    /// All sites.
    pub fn sites(&self) -> &[SitePlan] {
        &self.sites
    }

    /// Number of a site's processes, pods included.
    pub fn processes(&self, site: &SitePlan) -> usize {
        self.host.cgroups.pids(&site.cgroup).len()
    }

    /// One site.
    pub fn site(&self, name: &str) -> Result<&SitePlan> {
        self.sites.iter().find(|s| s.site.name == name).ok_or_else(|| {
            let known = self.sites.iter().map(|s| s.site.name.as_str()).collect::<Vec<_>>().join(", ");
            self.unknown("site", name, known)
        })
    }

    /// One node of a site.
    pub fn node(&self, site: &SitePlan, name: &str) -> Result<NodePlan> {
        let known = site.site.node_names().join(", ");
        site.nodes().into_iter().find(|n| n.name == name).ok_or_else(|| self.unknown("node", name, known))
    }

    /// Path of the administrator's kubeconfig of a site. Its address is reachable on the rig only.
    pub fn kubeconfig(&self, site: &str) -> Result<PathBuf> {
        Ok(self.site(site)?.kubeconfig())
    }

    /// Path of a pinned tool (kubectl, helm, …).
    pub fn tool(&self, name: &str) -> PathBuf {
        self.host.bin.join(name)
    }

    pub(crate) fn unknown(&self, kind: &'static str, name: &str, known: String) -> Error {
        Error::Unknown { kind, name: name.into(), rig: self.host.rig.as_str().into(), known }
    }
}

/// Runs `work` for all items at once; the first failure is returned when all have ended.
pub(crate) fn at_once<T: Sync>(items: &[T], work: impl Fn(&T) -> Result<()> + Sync) -> Result<()> {
    let work = &work;
    thread::scope(|scope| {
        let threads: Vec<_> = items.iter().map(|item| scope.spawn(move || work(item))).collect();
        let mut result = Ok(());
        for thread in threads {
            let outcome = thread.join().unwrap_or_else(|_| Err(Error::Usage("a thread of the rig panicked".into())));
            result = result.and(outcome);
        }
        result
    })
}

fn absolute(path: &Path) -> Result<PathBuf> {
    std::path::absolute(path).at("resolve", path)
}

fn state_dir(options: &Options) -> Result<PathBuf> {
    Ok(absolute(&options.state)?.join(&options.name))
}

/// Nodes see folders of the state as /run, /var/lib and /var/log; the state itself must not be behind them.
fn check_state_dir(dir: &Path) -> Result<()> {
    if ["/run", "/var/run", "/var/lib", "/var/log"].iter().any(|hidden| dir.starts_with(hidden)) {
        return Err(Error::Usage(format!(
            "state folder {}: use one outside /run, /var/lib and /var/log",
            dir.display()
        )));
    }
    Ok(())
}

/// Two processes that change one rig take turns.
fn lock(options: &Options) -> Result<fs::File> {
    fs::create_dir_all(&options.state).at("create", &options.state)?;
    let path = options.state.join(format!(".{}.lock", options.name));
    let file = fs::File::create(&path).at("open", &path)?;
    rustix::fs::flock(&file, FlockOperation::LockExclusive).at("lock", &path)?;
    Ok(file)
}

fn clean(host: &Host, dir: &Path) -> Result<()> {
    let left = !net::netns_of(&host.rig).is_empty() || host.cgroups.path(&host.rig.cgroup()).exists() || dir.exists();
    if left {
        host.say(&format!("removing what is left of rig {}", host.rig.as_str()));
        remove(host)?;
        if dir.exists() {
            fs::remove_dir_all(dir).at("remove", dir)?;
        }
    }
    Ok(())
}

/// Ends processes, then mounts and namespaces (they go with the processes or by name), then cgroups.
///
/// Everything dies at one instant by SIGKILL, so no component waits for another that is
/// gone already, as an API server without its etcd would.
fn remove(host: &Host) -> Result<()> {
    let cgroup = host.rig.cgroup();
    host.cgroups.kill(&cgroup)?;
    net::remove_all(&host.rig)?;
    host.cgroups.remove(&cgroup)?;
    Ok(())
}
