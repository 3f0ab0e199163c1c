//! A federation as a user would install it: a rig of real sites, a charter, the chart at
//! each full site, and a single process at each witness.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::ValueEnum;
use regent_rig::{ImageFile, Options, Rig, SitePlan, Topology, Where};

use crate::group::Group;

/// Namespace of Regent's own pods.
pub const NAMESPACE: &str = "regent-system";
/// Where a site's sink listens: an address of the site's own, the same at every site, so that
/// the mirrored manifests of the workload need no change.
pub const SINK: &str = "10.99.0.1:9999";
/// Name of the witness among the programs of a site without nodes.
pub const WITNESS: &str = "witness";

/// How the federation is timed.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum Timing {
    /// D = 5 s, W = 5 s.
    Default,
    /// D = 1 s, W = 0.
    Tightest,
    /// D = 3 s, W = 3 s: quick, and wide enough for a busy machine.
    #[value(skip)]
    Tests,
}

impl Timing {
    /// D, as the plugin reads it.
    pub fn lease_duration(self) -> &'static str {
        match self {
            Self::Default => "5s",
            Self::Tightest => "1s",
            Self::Tests => "3s",
        }
    }

    /// W (takeoverAfter) of groups.
    pub fn takeover_after(self) -> &'static str {
        match self {
            Self::Default => "5s",
            Self::Tightest => "0s",
            Self::Tests => "3s",
        }
    }
}

/// A running federation. All of it belongs to the rig, and ends with it.
pub struct Federation {
    /// The sites.
    pub rig: Rig,
    /// How it is timed.
    pub timing: Timing,
    options: Options,
    dir: PathBuf,
    bin: PathBuf,
}

impl Federation {
    /// Brings everything up: sites, charter, images, Regent. Returns when Regent runs everywhere.
    pub fn up(options: Options, topology: &Topology, timing: Timing) -> Result<Self> {
        let rig = Rig::up(&options, topology)?;
        let dir = rig.dir().join("regent");
        let bin = std::env::current_exe()?.parent().context("this program is in no folder")?.to_owned();
        // A test's executable lies one folder below the programs.
        let bin = if bin.ends_with("deps") { bin.join("..") } else { bin };
        fs::create_dir_all(&dir)?;
        let this = Self { rig, timing, options, dir, bin };
        this.make_charter()?;
        this.push_images()?;
        let sites: Vec<SitePlan> = this.rig.sites().to_vec();
        for site in sites.iter().filter(|s| !s.site.is_full()) {
            this.start_witness(site)?;
        }
        for site in this.full_sites() {
            this.start_sink(&site)?;
        }
        this.install(&sites)?;
        this.say("Regent runs at every site");
        Ok(this)
    }

    /// Tells the user how far it is.
    pub fn say(&self, line: &str) {
        (self.options.say)(line);
    }

    /// Names of the sites that run workloads.
    pub fn full_sites(&self) -> Vec<String> {
        self.rig.sites().iter().filter(|s| s.site.is_full()).map(|s| s.site.name.clone()).collect()
    }

    /// Path of one of the project's own programs.
    pub fn program(&self, name: &str) -> PathBuf {
        self.bin.join(name)
    }

    /// Runs kubectl at a site, inside its network, with an optional manifest on standard input.
    pub fn kubectl(&self, site: &str, args: &[&str], input: Option<&str>) -> Result<String> {
        let command = self.rig.command(&Where::Site(site.into()), "kubectl")?;
        run(command, args, input).with_context(|| format!("kubectl {} at {site}", args.join(" ")))
    }

    /// Runs the plugin at a site, inside its network, and returns what it printed.
    pub fn plugin(&self, site: &str, args: &[&str]) -> Result<String> {
        let program = self.program("kubectl-regent");
        let command = self.rig.command(&Where::Site(site.into()), &program.display().to_string())?;
        run(command, args, None).with_context(|| format!("kubectl regent {} at {site}", args.join(" ")))
    }

    fn make_charter(&self) -> Result<()> {
        self.say("charter: making keys and signing");
        let mut command = Command::new(self.program("kubectl-regent"));
        command.args(["charter", "init", "--lease-duration", self.timing.lease_duration()]);
        // Test after test moves the same group: the brake on that is tested elsewhere.
        command.args(["--changes-per-group-hour", "256", "--changes-per-party-hour", "1000", "--topology"]);
        command.arg(self.rig.dir().join("topology.yaml")).arg("--out").arg(&self.dir);
        for site in self.rig.sites() {
            command.arg("--address").arg(format!("{}={}:7443", site.site.name, site.wan_ip()));
        }
        run(command, &[], None).map(drop)
    }

    /// The signed charter.
    pub fn charter(&self) -> PathBuf {
        self.dir.join("charter.json")
    }

    /// Folder of a site's keys.
    pub fn keys(&self, site: &str) -> PathBuf {
        self.dir.join(site)
    }

    fn push_images(&self) -> Result<()> {
        self.say("images: building and pushing to each site's registry");
        let file = |name: &str| ImageFile { source: self.program(name), target: format!("/{name}") };
        let regent = ["regent-operator", "regent-agent", "regent-guard", "regent-gate"].map(file);
        self.rig.image("regent", &regent, &["/regent-operator".into()])?;
        self.rig.image("shop", &[file("shop")], &["/shop".into()])?;
        Ok(())
    }

    /// A witness outside a cluster: a single process that belongs to its site.
    fn start_witness(&self, site: &SitePlan) -> Result<()> {
        let name = &site.site.name;
        let crds = workspace().join("charts/regent/crds");
        self.kubectl(name, &["apply", "--server-side", "-f", &crds.display().to_string()], None)?;
        self.kubectl(name, &["create", "namespace", NAMESPACE], None)?;
        let listen = format!("{}:7443", site.wan_ip());
        let paths = [self.program("regent-operator"), self.charter(), self.keys(name), site.kubeconfig()];
        let [program, charter, keys, kubeconfig] = paths.map(|path| path.display().to_string());
        let argv = [
            &program,
            "witness",
            "--install",
            "--site",
            name,
            "--charter",
            &charter,
            "--keys",
            &keys,
            "--kubeconfig",
            &kubeconfig,
            "--listen",
            &listen,
        ];
        let argv: Vec<String> = argv.iter().map(|a| (*a).to_owned()).collect();
        self.rig.daemon(&Where::Site(name.clone()), WITNESS, &argv, &[])?;
        self.say(&format!("{name}: witness started"));
        Ok(())
    }

    /// The receiver of a site's datagrams, inside the site's network.
    fn start_sink(&self, site: &str) -> Result<()> {
        let at = Where::Site(site.to_owned());
        let address = SINK.split(':').next().unwrap_or(SINK);
        self.rig.exec(&at, &["ip", "addr", "replace", &format!("{address}/32"), "dev", "lo"])?;
        let (program, out) = (self.program("sink").display().to_string(), self.sink_file(site).display().to_string());
        let argv = [program.as_str(), "--listen", SINK, "--out", &out].map(String::from);
        Ok(self.rig.daemon(&at, "sink", &argv, &[])?)
    }

    fn install(&self, sites: &[SitePlan]) -> Result<()> {
        let full: Vec<&SitePlan> = sites.iter().filter(|s| s.site.is_full()).collect();
        std::thread::scope(|scope| {
            let jobs: Vec<_> = full.iter().map(|site| scope.spawn(|| self.install_at(site))).collect();
            jobs.into_iter().try_for_each(|job| match job.join() {
                Ok(result) => result,
                Err(_) => bail!("an installation panicked"),
            })
        })
    }

    fn install_at(&self, site: &SitePlan) -> Result<()> {
        let name = &site.site.name;
        let namespace = format!(
            "apiVersion: v1\nkind: Namespace\nmetadata:\n  name: {NAMESPACE}\n  labels:\n    \
             pod-security.kubernetes.io/enforce: privileged\n"
        );
        self.kubectl(name, &["apply", "-f", "-"], Some(&namespace))?;
        let secret = self.keys(name).join("secret.yaml");
        self.kubectl(name, &["apply", "-f", &secret.display().to_string()], None)?;
        let mut helm = self.rig.command(&Where::Site(name.clone()), "helm")?;
        helm.args(["install", "regent"]).arg(workspace().join("charts/regent"));
        helm.args(["--namespace", NAMESPACE, "--values"]).arg(self.keys(name).join("values.yaml"));
        helm.args(["--set", "image.repository=registry.rig/regent,image.tag=dev"]);
        helm.args(["--set", "cgroupRoot=/sys/fs/cgroup/unified", "--wait", "--timeout", "180s"]);
        run(helm, &[], None).with_context(|| format!("helm install at {name}"))?;
        self.say(&format!("{name}: Regent installed"));
        Ok(())
    }

    /// Where the sink of a site writes.
    pub fn sink_file(&self, site: &str) -> PathBuf {
        self.dir.join(format!("{site}.sink.jsonl"))
    }

    /// q of the charter: every site but home is a witness.
    pub fn quorum(&self) -> usize {
        let witnesses = self.rig.sites().len() - 1;
        let faulty = (witnesses - 1) / 3;
        (witnesses + faulty) / 2 + 1
    }

    /// Nodes of the group's home that run pods of it.
    pub fn nodes_with_pods(&self, group: &Group) -> Result<Vec<String>> {
        let path = "jsonpath={.items[*].spec.nodeName}";
        let names = self.kubectl(&group.home, &["-n", &group.name, "get", "pods", "-o", path], None)?;
        let nodes: BTreeSet<&str> = names.split_whitespace().collect();
        Ok(nodes.into_iter().map(String::from).collect())
    }

    /// Kills a program of the first pod whose name begins with `prefix`, with SIGKILL, as a
    /// crash would. Returns CLOCK_BOOTTIME in ns right after.
    pub fn kill_in_pod(&self, site: &str, prefix: &str, program: &str) -> Result<u64> {
        let path = "jsonpath={range .items[*]}{.metadata.name} {.metadata.uid}{'\\n'}{end}";
        let pods = self.kubectl(site, &["-n", NAMESPACE, "get", "pods", "-o", path], None)?;
        let pod = pods.lines().find(|line| line.starts_with(prefix)).and_then(|line| line.split(' ').nth(1));
        let uid = pod.with_context(|| format!("no pod {prefix}* in {NAMESPACE} at {site}"))?;
        Ok(self.rig.kill_in_pod(site, uid, program)?)
    }

    /// Takes the rig down, and Regent with it.
    pub fn down(self) -> Result<()> {
        Ok(Rig::down(&self.options, false)?)
    }
}

/// Runs a command to its end and returns what it printed; its errors carry all it said.
pub fn run(mut command: Command, args: &[&str], input: Option<&str>) -> Result<String> {
    command.args(args).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.stdin(if input.is_some() { Stdio::piped() } else { Stdio::null() });
    let mut child = command.spawn().with_context(|| format!("start {command:?}"))?;
    if let (Some(text), Some(mut stdin)) = (input, child.stdin.take()) {
        stdin.write_all(text.as_bytes())?;
    }
    let out = child.wait_with_output()?;
    let stdout = String::from_utf8_lossy(&out.stdout).into_owned();
    if out.status.success() {
        return Ok(stdout);
    }
    bail!("{}: {}{}", out.status, stdout, String::from_utf8_lossy(&out.stderr))
}

/// Waits for a fact: asks again until it holds, and says what it waited for when it doesn't.
pub fn wait_for<T>(what: &str, limit: Duration, mut ask: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let begun = Instant::now();
    let mut last = String::new();
    loop {
        match ask() {
            Ok(Some(found)) => return Ok(found),
            Ok(None) => {}
            Err(error) => last = format!("; the last answer was: {error:#}"),
        }
        if begun.elapsed() > limit {
            bail!("{what} did not happen within {limit:?}{last}");
        }
        // Each look is a program that starts: more of them would slow down what is waited for.
        sleep(Duration::from_millis(250));
    }
}

/// The project's root folder.
pub fn workspace() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors().nth(2).unwrap_or(here).to_owned()
}
