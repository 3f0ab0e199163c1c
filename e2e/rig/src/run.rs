//! Running programs: in the foreground, and as daemons inside the rig's namespaces.

use std::ffi::OsStr;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::error::{At, Error, Result};

/// Runs a command and returns its standard output.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let shown = show(command);
    let failed = |status: String, output: &str| Error::Command {
        command: shown.clone(),
        status,
        output: tail(output, 2000).trim().to_owned(),
    };
    let out = command.stdin(Stdio::null()).output().map_err(|e| failed(e.to_string(), ""))?;
    let stdout = String::from_utf8_lossy(&out.stdout).into_owned();
    if !out.status.success() {
        let stderr = String::from_utf8_lossy(&out.stderr);
        return Err(failed(out.status.to_string(), &format!("{stdout}{stderr}")));
    }
    Ok(stdout)
}

/// Runs a program with arguments; see [`output`].
pub(crate) fn run<S: AsRef<OsStr>>(program: &str, args: impl IntoIterator<Item = S>) -> Result<String> {
    output(Command::new(program).args(args))
}

/// Runs a program and feeds it `input`.
pub(crate) fn feed(command: &mut Command, input: &str) -> Result<()> {
    let shown = show(command);
    let failed = |status: String, output: String| Error::Command { command: shown.clone(), status, output };
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|e| failed(e.to_string(), String::new()))?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(input.as_bytes()).at("write to", &shown)?;
    }
    let out = child.wait_with_output().at("wait for", &shown)?;
    if out.status.success() {
        return Ok(());
    }
    Err(failed(out.status.to_string(), String::from_utf8_lossy(&out.stderr).into_owned()))
}

/// The namespaces a program runs in.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    /// Name of the network namespace.
    pub netns: String,
    /// Process whose mount namespace to join.
    pub mounts_of: Option<u32>,
}

impl Place {
    /// A network namespace with the machine's own mounts.
    pub fn net(netns: impl Into<String>) -> Self {
        Self { netns: netns.into(), mounts_of: None }
    }

    /// nsenter with its options. `ip netns exec` would hide the cgroups behind a fresh /sys.
    pub fn args(&self) -> Vec<String> {
        let mut args = vec!["nsenter".to_owned(), format!("--net=/run/netns/{}", self.netns)];
        if let Some(pid) = self.mounts_of {
            args.push(format!("--mount=/proc/{pid}/ns/mnt"));
        }
        args.push("--".into());
        args
    }

    /// A command that runs here.
    pub fn command<S: AsRef<OsStr>>(&self, program: S) -> Command {
        let args = self.args();
        let mut command = Command::new(&args[0]);
        command.args(&args[1..]).arg(program);
        command
    }
}

/// A long-running program of the rig.
#[derive(Debug)]
pub(crate) struct Daemon {
    /// `cgroup.procs` of the cgroups that it joins before it starts.
    pub joins: Vec<PathBuf>,
    /// Its namespaces.
    pub place: Place,
    /// Where its output goes.
    pub log: PathBuf,
    /// Program and arguments.
    pub argv: Vec<String>,
}

/// The shell joins the cgroups first, so that whatever starts later is inside and found there;
/// `setsid --fork` makes the program nobody's child, so that it outlives the rig's own process.
const JOIN: &str = r#"n=$1; shift; while [ "$n" -gt 0 ]; do echo 0 > "$1" || exit 1; n=$((n-1)); shift; done; exec setsid --fork "$@""#;

impl Daemon {
    /// Starts it. The program's own failure shows in its log.
    pub fn start(&self) -> Result<()> {
        let log = OpenOptions::new().create(true).append(true).open(&self.log).at("open", &self.log)?;
        let err = log.try_clone().at("open", &self.log)?;
        let mut command = Command::new("sh");
        command.args(["-c", JOIN, "sh", &self.joins.len().to_string()]).args(&self.joins);
        command.args(self.place.args()).args(&self.argv);
        command.current_dir("/").stdin(Stdio::null()).stdout(log).stderr(err);
        let status = command.status().at("start", &self.argv[0])?;
        if status.success() {
            return Ok(());
        }
        Err(Error::Command {
            command: show(&command),
            status: status.to_string(),
            output: tail(&fs::read_to_string(&self.log).unwrap_or_default(), 1000).to_owned(),
        })
    }
}

/// Asks every `step` until `ready` says so; `hint` tells where to look when it never does.
pub(crate) fn wait_for(
    what: &str,
    limit: Duration,
    step: Duration,
    hint: &str,
    mut ready: impl FnMut() -> Result<bool>,
) -> Result<()> {
    let begin = Instant::now();
    while !ready()? {
        if begin.elapsed() > limit {
            let hint = if hint.is_empty() { String::new() } else { format!("; see {hint}") };
            return Err(Error::Timeout { what: what.into(), seconds: limit.as_secs(), hint });
        }
        std::thread::sleep(step);
    }
    Ok(())
}

/// Writes a file and the folders above it.
pub(crate) fn write(path: &Path, text: impl AsRef<[u8]>) -> Result<()> {
    if let Some(dir) = path.parent() {
        fs::create_dir_all(dir).at("create", dir)?;
    }
    fs::write(path, text).at("write", path)
}

fn show(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|w| w.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
}

/// The last `max` bytes of a text, cut at a character.
pub(crate) fn tail(text: &str, max: usize) -> &str {
    let mut from = text.len().saturating_sub(max);
    while !text.is_char_boundary(from) {
        from += 1;
    }
    &text[from..]
}
