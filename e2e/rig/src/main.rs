//! `regent-rig`: the command line of the rig.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use comfy_table::Table;
use comfy_table::presets::NOTHING;
use regent_rig::{CLIENT, Component, ImageFile, Options, Rig, Topology, Where, build_tools, say_on_stderr, target_dir};

/// Several real Kubernetes sites on one machine, one network namespace each.
#[derive(Parser)]
#[command(name = "regent-rig", version)]
struct Cli {
    /// Name of the rig: lower case letters and digits.
    #[arg(long, global = true, env = "REGENT_RIG", default_value = "regent")]
    rig: String,
    /// Folder of the states of all rigs [default: target/rig].
    #[arg(long, global = true, env = "REGENT_RIG_STATE")]
    state: Option<PathBuf>,
    /// Folder of the built tools [default: target/tools/bin].
    #[arg(long, global = true, env = "REGENT_RIG_TOOLS")]
    tools: Option<PathBuf>,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Build the Kubernetes components, etcd and helm.
    Tools,
    /// Bring a rig up; what is left of an earlier one is removed first.
    Up {
        /// Topology file.
        topology: PathBuf,
    },
    /// Take the rig down: no process, namespace, mount or cgroup is left.
    Down {
        /// Keep its files (logs, audit, keys).
        #[arg(long)]
        keep: bool,
    },
    /// List the rigs of this machine and the sites of this one.
    List,
    /// Print the path of a site's kubeconfig (use it with `exec`: the addresses are on the rig).
    Kubeconfig {
        /// Site.
        site: String,
    },
    /// Cut a site off: packets vanish, nothing is closed. Prints CLOCK_BOOTTIME (ns).
    Cut {
        /// Site, or `client`.
        site: String,
        /// Only from these sites (or `client`).
        #[arg(long, num_args = 1..)]
        from: Vec<String>,
        /// Lose only what the site sends.
        #[arg(long)]
        one_way: bool,
    },
    /// Undo cuts: those that name a site, or all. Prints CLOCK_BOOTTIME (ns).
    Heal {
        /// Site, or `client`.
        site: Option<String>,
    },
    /// Kill (SIGKILL) a component: all, etcd, apiserver, controller-manager, scheduler, registry,
    /// containerd:NODE, kubelet:NODE, proxy:NODE, node:NODE, pods:NODE, program:NAME. Prints CLOCK_BOOTTIME (ns).
    Kill {
        /// Site.
        site: String,
        /// Component.
        component: Component,
    },
    /// Stop a component with SIGSTOP: it hangs. Prints CLOCK_BOOTTIME (ns).
    Pause {
        /// Site.
        site: String,
        /// Component.
        component: Component,
    },
    /// Continue a paused component. Prints CLOCK_BOOTTIME (ns).
    Resume {
        /// Site.
        site: String,
        /// Component.
        component: Component,
    },
    /// Start what doesn't run of a site, as after a reboot.
    Start {
        /// Site.
        site: String,
        /// Component.
        #[arg(default_value = "all")]
        component: Component,
    },
    /// Run a command in a site's network, with KUBECONFIG set and the pinned tools in PATH.
    Exec {
        /// In this node's network and with its files.
        #[arg(long)]
        node: Option<String>,
        /// Site, or `client`.
        site: String,
        /// Command and arguments.
        #[arg(trailing_var_arg = true, required = true, allow_hyphen_values = true)]
        command: Vec<String>,
    },
    /// List a site's log files, or print one: a component, `audit`, or `pod:NAMESPACE/POD`.
    Logs {
        /// Site.
        site: String,
        /// Which.
        component: Option<String>,
    },
    /// Build an image from static binaries and push it to every full site. Prints its reference.
    Image {
        /// Name: the reference is `registry.rig/NAME:dev`.
        name: String,
        /// `SOURCE` or `SOURCE:/TARGET`; the first is the entrypoint.
        #[arg(required = true)]
        files: Vec<String>,
        /// Another entrypoint.
        #[arg(long)]
        entrypoint: Vec<String>,
    },
}

fn main() -> ExitCode {
    match run(Cli::parse()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("regent-rig: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn options(cli: &Cli) -> Options {
    let mut options = Options::new(&cli.rig);
    options.say = say_on_stderr();
    if let Some(state) = &cli.state {
        options.state = state.clone();
    }
    options.tools = cli.tools.clone().unwrap_or_else(|| target_dir().join("tools/bin"));
    options
}

fn run(cli: Cli) -> Result<ExitCode> {
    let options = options(&cli);
    let open = || Rig::open(&options);
    match cli.verb {
        Verb::Tools => build_tools(&options.tools, &options.say)?,
        Verb::Up { topology } => {
            Rig::up(&options, &Topology::load(&topology)?)?;
        }
        Verb::Down { keep } => Rig::down(&options, keep)?,
        Verb::List => list(&options)?,
        Verb::Kubeconfig { site } => println!("{}", open()?.kubeconfig(&site)?.display()),
        Verb::Cut { site, from, one_way } => println!("{}", open()?.cut(&site, &from, one_way)?),
        Verb::Heal { site } => println!("{}", open()?.heal(site.as_deref())?),
        Verb::Kill { site, component } => println!("{}", open()?.kill(&site, &component)?),
        Verb::Pause { site, component } => println!("{}", open()?.pause(&site, &component)?),
        Verb::Resume { site, component } => println!("{}", open()?.resume(&site, &component)?),
        Verb::Start { site, component } => open()?.start(&site, &component)?,
        Verb::Exec { node, site, command } => {
            return exec(&open()?, &Where::new(&site, node.as_deref()), &command);
        }
        Verb::Logs { site, component } => logs(&open()?, &site, component.as_deref())?,
        Verb::Image { name, files, entrypoint } => {
            let files = files.iter().map(|f| ImageFile::parse(f)).collect::<Result<Vec<_>, _>>()?;
            println!("{}", open()?.image(&name, &files, &entrypoint)?);
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn list(options: &Options) -> Result<()> {
    let rigs = Rig::list()?;
    println!("rigs: {}", if rigs.is_empty() { "none".into() } else { rigs.join(", ") });
    if !rigs.contains(&options.name) {
        return Ok(());
    }
    let rig = Rig::open(options)?;
    let cuts = rig.cuts()?;
    let mut table = Table::new();
    table.load_style(NOTHING).set_header(["SITE", "ADDRESS", "KIND", "NODES", "PROCESSES", "CUT"]);
    for plan in rig.sites() {
        let cut: Vec<String> = cuts.cuts.iter().filter(|c| c.site == plan.site.name).map(describe).collect();
        table.add_row([
            plan.site.name.clone(),
            plan.wan_ip(),
            format!("{:?}", plan.site.kind).to_lowercase(),
            plan.site.node_names().join(" "),
            rig.processes(plan).to_string(),
            cut.join("; "),
        ]);
    }
    println!("{table}");
    Ok(())
}

fn describe(cut: &regent_rig::Cut) -> String {
    let from = if cut.from.is_empty() { "all".to_owned() } else { cut.from.join(" ") };
    format!("{}{from}", if cut.one_way { "towards " } else { "from " })
}

fn exec(rig: &Rig, at: &Where, argv: &[String]) -> Result<ExitCode> {
    let (program, args) = argv.split_first().context("no command given")?;
    let status = rig.command(at, program)?.args(args).status().with_context(|| format!("run {program}"))?;
    Ok(ExitCode::from(u8::try_from(status.code().unwrap_or(255)).unwrap_or(255)))
}

fn logs(rig: &Rig, site: &str, name: Option<&str>) -> Result<()> {
    anyhow::ensure!(site != CLIENT, "the client has no logs; name a site");
    let Some(name) = name else {
        for (name, path) in rig.logs(site)? {
            println!("{name}\t{}", path.display());
        }
        return Ok(());
    };
    for (_, path) in rig.log(site, name)? {
        let mut file = std::fs::File::open(&path).with_context(|| format!("open {}", path.display()))?;
        std::io::copy(&mut file, &mut std::io::stdout())?;
    }
    Ok(())
}
