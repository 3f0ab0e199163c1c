//! What the kernel says of a process and of the machine, read from /proc.

use std::fs;

use anyhow::{Context, Result};
use serde::Serialize;

/// Clock ticks per second of /proc/PID/stat: USER_HZ is 100 on every architecture that Regent runs on.
const MS_PER_TICK: u64 = 10;

/// How busy the machine was. Whatever else ran has slowed the measured programs and cooled their caches.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Machine {
    /// Its processors.
    pub cores: usize,
    /// Load average of the last minute (proc_loadavg(5)).
    pub load: f64,
}

impl Machine {
    /// The machine at this moment.
    pub fn now() -> Result<Self> {
        let text = fs::read_to_string("/proc/loadavg").context("read /proc/loadavg")?;
        let load = text.split_whitespace().next().and_then(|word| word.parse().ok());
        let load = load.with_context(|| format!("/proc/loadavg begins with no number: {text:?}"))?;
        Ok(Self { cores: std::thread::available_parallelism()?.get(), load })
    }
}

/// Resident memory (proc_pid_status(5)).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Memory {
    /// All of it, in KiB.
    pub resident_kib: u64,
    /// What isn't shared with a file, in KiB: the program's own.
    pub anonymous_kib: u64,
}

/// Reads a process's memory.
pub fn memory(pid: u32) -> Result<Memory> {
    let path = format!("/proc/{pid}/status");
    let text = fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
    parse_memory(&text).with_context(|| format!("{path} has no VmRSS or no RssAnon: has the process ended?"))
}

fn parse_memory(status: &str) -> Option<Memory> {
    let field = |key: &str| -> Option<u64> {
        let rest = status.lines().find_map(|line| line.strip_prefix(key))?;
        rest.split_whitespace().next()?.parse().ok()
    };
    Some(Memory { resident_kib: field("VmRSS:")?, anonymous_kib: field("RssAnon:")? })
}

/// Processor time of a process so far in milliseconds: user and system, of all threads that ever were.
pub fn cpu_ms(pid: u32) -> Result<u64> {
    let path = format!("/proc/{pid}/stat");
    let text = fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
    parse_cpu_ms(&text).with_context(|| format!("{path} has no utime or no stime: {text:?}"))
}

fn parse_cpu_ms(stat: &str) -> Option<u64> {
    // The name, in parentheses, may hold spaces and parentheses of its own.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks = |index: usize| fields.get(index)?.parse::<u64>().ok();
    Some(MS_PER_TICK * (ticks(11)? + ticks(12)?))
}

/// Name of a process, at most 15 characters; empty when it has ended.
pub fn name(pid: u32) -> String {
    fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default().trim().to_owned()
}

/// Words of the command line that started a process; none when it has ended.
pub fn arguments(pid: u32) -> Vec<String> {
    let bytes = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    bytes.split(|b| *b == 0).map(|word| String::from_utf8_lossy(word).into_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_memory_is_told_apart_from_shared_memory() {
        let status = "Name:\tregent-guard\nVmHWM:\t 9000 kB\nVmRSS:\t    8304 kB\nRssAnon:\t    2216 kB\n";
        assert_eq!(parse_memory(status), Some(Memory { resident_kib: 8304, anonymous_kib: 2216 }));
        assert_eq!(parse_memory("Name:\tzombie\nState:\tZ (zombie)\n"), None);
    }

    #[test]
    fn processor_time_is_found_behind_a_name_with_parentheses() {
        let stat = "7 (a) b (c)) S 1 7 7 0 -1 4194560 100 0 0 0 12 30 5 6 20 0 4 0 100 1 2";
        assert_eq!(parse_cpu_ms(stat), Some(420));
        assert_eq!(parse_cpu_ms("7 (short) S 1"), None);
    }

    #[test]
    fn this_process_has_memory_a_name_and_arguments() {
        let pid = std::process::id();
        assert!(memory(pid).unwrap().resident_kib > 0);
        assert!(cpu_ms(pid).is_ok());
        assert!(!name(pid).is_empty() && !arguments(pid).is_empty());
        assert!(Machine::now().unwrap().cores > 0);
    }
}
