//! The demo's sites without their nodes, and Regent's operators as plain processes in their networks.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;

use anyhow::{Context, Result, anyhow};
use kube::Client;
use kube::config::{Config, KubeConfigOptions, Kubeconfig};
use regent_demo::federation::{NAMESPACE, run, workspace};
use regent_rig::{Cgroups, Kind, Options, Rig, SitePlan, Where};

use crate::{options, topology};

/// Where the groups belong.
pub const HOME: &str = "ireland";
/// Who stands by, and votes.
pub const STANDBY: &str = "france";
/// Name of the operator among a site's programs.
const OPERATOR: &str = "operator";
/// As the chart writes it before an operator's first start.
const MARKER: &str = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: regent-witness, namespace: regent-system}\ndata: {starts: '0', objects: ''}\n";

/// A federation without nodes: home, one standby, and the witnesses that a charter must have.
pub struct Sites {
    rig: Rig,
    options: Options,
}

impl Sites {
    /// Path of one of the project's own programs.
    pub fn program(name: &str) -> Result<PathBuf> {
        Ok(std::env::current_exe()?.parent().context("this program is in no folder")?.join(name))
    }

    /// Brings the sites up, with this build of the operator at each.
    pub fn up(operator: &Path) -> Result<Self> {
        let options = options();
        let mut topology = topology("bench.yaml")?;
        for site in &mut topology.sites {
            (site.kind, site.nodes) = (Kind::Witness, 0);
            site.expose.clear();
        }
        let rig = Rig::up(&options, &topology)?;
        let this = Self { rig, options };
        this.make_charter()?;
        for site in this.rig.sites() {
            this.install(site, operator).with_context(|| format!("start the operator of {}", site.site.name))?;
        }
        Ok(this)
    }

    /// The sites that are measured.
    pub fn names(&self) -> [&'static str; 2] {
        [HOME, STANDBY]
    }

    /// Tells the user how far it is.
    pub fn say(&self, line: &str) {
        (self.options.say)(line);
    }

    fn folder(&self) -> PathBuf {
        self.rig.dir().join("regent")
    }

    fn make_charter(&self) -> Result<()> {
        let mut command = Command::new(Self::program("kubectl-regent")?);
        command.args(["charter", "init", "--topology"]).arg(self.rig.dir().join("topology.yaml"));
        command.arg("--out").arg(self.folder());
        for site in self.rig.sites() {
            command.arg("--address").arg(format!("{}={}:7443", site.site.name, site.wan_ip()));
        }
        run(command, &[], None).map(drop)
    }

    fn install(&self, site: &SitePlan, operator: &Path) -> Result<()> {
        let (name, at) = (&site.site.name, Where::Site(site.site.name.clone()));
        let kubectl = |args: &[&str], input| run(self.rig.command(&at, "kubectl")?, args, input);
        let crds = workspace().join("charts/regent/crds");
        kubectl(&["apply", "--server-side", "-f", &crds.display().to_string()], None)?;
        kubectl(&["wait", "--for=condition=Established", "--all", "crd"], None)?;
        kubectl(&["create", "namespace", NAMESPACE], None)?;
        kubectl(&["apply", "-f", "-"], Some(MARKER))?;
        let operator = std::path::absolute(operator)?;
        let paths = [operator, self.folder().join("charter.json"), self.folder().join(name), site.kubeconfig()];
        let [program, charter, keys, kubeconfig] = paths.map(|p| p.display().to_string());
        let listen = format!("{}:7443", site.wan_ip());
        let part: &[&str] = if self.names().contains(&name.as_str()) {
            &["run", "--federation-listen", &listen]
        } else {
            &["witness", "--listen", &listen]
        };
        let identity = ["--site", name, "--charter", &charter, "--keys", &keys, "--kubeconfig", &kubeconfig];
        let words = [program.as_str()].into_iter().chain(part.iter().copied()).chain(identity);
        let argv: Vec<String> = words.map(str::to_owned).collect();
        let env = [("POD_NAME".to_owned(), format!("{name}-0")), ("POD_IP".to_owned(), site.wan_ip())];
        Ok(self.rig.daemon(&at, OPERATOR, &argv, &env)?)
    }

    /// Runs work with a client of a site's API server, inside the site's network.
    pub fn at<T: Send>(&self, site: &str, work: impl AsyncFnOnce(Client) -> Result<T> + Send) -> Result<T> {
        let file = self.rig.kubeconfig(site)?;
        let body = || -> Result<T> {
            self.rig.enter(&Where::Site(site.to_owned()))?;
            tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
                let file = Kubeconfig::read_from(&file)?;
                let config = Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await?;
                work(Client::try_from(config)?).await
            })
        };
        // A thread of its own: it stays in that network.
        let done = thread::scope(|scope| scope.spawn(body).join());
        done.map_err(|_| anyhow!("the work at {site} panicked"))?
    }

    /// The process of the operator or of a program of the control plane.
    pub fn pid(&self, site: &str, program: &str) -> Result<u32> {
        let plan = self.rig.site(site)?;
        let cgroup = if program == OPERATOR { format!("program.{OPERATOR}") } else { program.to_owned() };
        let pids = Cgroups::find()?.pids(&format!("{}/{cgroup}", plan.cgroup));
        match pids[..] {
            [pid] => Ok(pid),
            _ => Err(anyhow!("{program} of {site} has {} processes instead of one: see `regent-rig logs`", pids.len())),
        }
    }

    /// Takes all of it down.
    pub fn down(self) -> Result<()> {
        Ok(Rig::down(&self.options, false)?)
    }
}
