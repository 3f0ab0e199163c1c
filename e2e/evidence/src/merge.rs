//! Gathers raw evidence: events out of many processes' logs, and the audit logs' writes.

use crate::clock::Clock;
use crate::error::EvidenceError;
use crate::event::{Actor, Event, Kind};
use crate::records::AuditLine;
use serde_json::{Map, Value};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Events out of logs.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Merged {
    /// In order of their time, each once.
    pub events: Vec<Event>,
    /// Lines that claim to be events and don't fit the schema, each with the reason.
    pub rejected: Vec<String>,
}

/// Reads the events out of log files, sorted, each once however many logs have it.
///
/// # Errors
/// If a log can't be read.
pub fn events_of_logs(paths: &[PathBuf]) -> Result<Merged, EvidenceError> {
    let mut all = Merged::default();
    for path in paths {
        let log = fs::read(path).map_err(EvidenceError::read(path))?;
        let found = events_of_log(&log);
        all.events.extend(found.events);
        let named = found.rejected.iter().map(|why| format!("{}: {why}", path.display()));
        all.rejected.extend(named);
    }
    sort_once(&mut all.events);
    Ok(all)
}

/// Sorts by time and drops what is there twice, as a log and its rotated copy may have it.
fn sort_once(events: &mut Vec<Event>) {
    events.sort_by_key(|e| e.boot_ns);
    let mut kept: Vec<Event> = Vec::with_capacity(events.len());
    for event in events.drain(..) {
        let same_time = kept.iter().rev().take_while(|k| k.boot_ns == event.boot_ns);
        let known = same_time.into_iter().any(|k| *k == event);
        if !known {
            kept.push(event);
        }
    }
    *events = kept;
}

/// Reads the events out of one log: the lines that are JSON objects with `boot_ns` and `event`,
/// bare or behind the prefix of the CRI log format, where a `P` line goes on in the next.
pub fn events_of_log(log: &[u8]) -> Merged {
    let mut merged = Merged::default();
    let mut partial: BTreeMap<&str, String> = BTreeMap::new();
    let text = String::from_utf8_lossy(log);
    for line in text.lines() {
        match cri(line) {
            Some((stream, false, part)) => partial.entry(stream).or_default().push_str(part),
            Some((stream, true, part)) => {
                let whole = partial.remove(stream).unwrap_or_default() + part;
                take_event(&whole, &mut merged);
            }
            None => take_event(line, &mut merged),
        }
    }
    merged
}

/// A line of the CRI log format, `TIME STREAM TAGS TEXT`: its stream, whether it is the last part
/// of its line, and its text.
fn cri(line: &str) -> Option<(&str, bool, &str)> {
    let mut parts = line.splitn(4, ' ');
    let (time, stream, tags) = (parts.next()?, parts.next()?, parts.next()?);
    let stamped = time.contains('T') && time.starts_with(|c: char| c.is_ascii_digit());
    let whole = match tags.split(':').next()? {
        "F" => true,
        "P" => false,
        _ => return None,
    };
    let known = stamped && matches!(stream, "stdout" | "stderr");
    known.then(|| (stream, whole, parts.next().unwrap_or_default()))
}

fn take_event(line: &str, merged: &mut Merged) {
    let line = line.trim();
    if !line.starts_with('{') {
        return;
    }
    let Ok(value) = serde_json::from_str::<Value>(line) else {
        return;
    };
    if value.get("boot_ns").is_none() || value.get("event").is_none() {
        return;
    }
    match serde_json::from_value(value) {
        Ok(event) => merged.events.push(event),
        Err(error) => merged.rejected.push(format!("{error}: {line}")),
    }
}

/// Adds the `eligible` event of each change of holder that has none: the moment when the q-th
/// witness saw the lapse, by the witnesses' own `lapsed` events.
///
/// A witness's latest `lapsed` between the old holder's first certificate and the new one's
/// counts, unless `proven` ended it. Before any certificate home holds the group. Planned changes
/// have no lapse and get no event.
pub fn add_eligible(events: &mut Vec<Event>, quorum: usize) {
    let groups: BTreeSet<String> = events.iter().filter_map(|e| e.group.clone()).collect();
    let mut added = Vec::new();
    for group in groups {
        let of_group: Vec<&Event> = events.iter().filter(|e| e.group.as_deref() == Some(&group)).collect();
        let mut holder = (group.split('/').next().unwrap_or_default(), 0);
        for event in of_group.iter().filter(|e| e.event == Kind::Certificate && e.epoch.is_some()) {
            let (site, since_ns) = holder;
            if site == event.site {
                holder = (site, if since_ns == 0 { event.boot_ns } else { since_ns });
                continue;
            }
            holder = (&event.site, event.boot_ns);
            let within: Vec<&Event> =
                of_group.iter().copied().filter(|e| (since_ns..=event.boot_ns).contains(&e.boot_ns)).collect();
            if within.iter().all(|e| e.event != Kind::Eligible) {
                added.extend(eligible(&within, event, site, quorum));
            }
        }
    }
    events.extend(added);
    events.sort_by_key(|e| e.boot_ns);
}

fn eligible(within: &[&Event], certificate: &Event, old: &str, quorum: usize) -> Option<Event> {
    let mut latest: BTreeMap<&str, u64> = BTreeMap::new();
    for event in within {
        match event.event {
            Kind::Lapsed => latest.insert(&event.site, event.boot_ns),
            Kind::Proven => latest.remove(event.site.as_str()),
            _ => None,
        };
    }
    let mut moments: Vec<(u64, &str)> = latest.into_iter().map(|(site, at)| (at, site)).collect();
    moments.sort_unstable();
    let boot_ns = moments.get(quorum.checked_sub(1)?)?.0;
    let witnesses: Vec<Value> = moments.iter().map(|(_, site)| (*site).into()).collect();
    let mut detail = Map::new();
    detail.insert("lapsed".to_owned(), old.into());
    detail.insert("quorum".to_owned(), quorum.into());
    detail.insert("witnesses".to_owned(), witnesses.into());
    Some(Event {
        boot_ns,
        site: certificate.site.clone(),
        actor: Actor::Witness,
        event: Kind::Eligible,
        group: certificate.group.clone(),
        epoch: certificate.epoch,
        node: None,
        detail,
    })
}

/// Writes `dir/events.jsonl`.
///
/// # Errors
/// If it can't be written.
pub fn write_events(dir: &Path, events: &[Event]) -> Result<(), EvidenceError> {
    let path = dir.join("events.jsonl");
    let mut text = String::new();
    for event in events {
        let line = serde_json::to_string(event).map_err(|source| EvidenceError::Parse {
            path: path.clone(),
            what: "event",
            source,
        })?;
        text.push_str(&line);
        text.push('\n');
    }
    fs::write(&path, text).map_err(EvidenceError::write(path))
}

/// Which lines of an audit log are evidence.
#[derive(Debug, Clone, Default)]
pub struct AuditFilter {
    /// Only from this moment on, with the clock that places it: CLOCK_BOOTTIME, nanoseconds.
    pub since: Option<(Clock, u64)>,
    /// Only these users' namespaces, and what belongs to the cluster; all when empty. Several
    /// tests share a rig, and each judges its own namespace.
    pub namespaces: Vec<String>,
}

impl AuditFilter {
    fn keeps(&self, line: &AuditLine) -> bool {
        let writes = ["create", "update", "patch", "delete", "deletecollection"];
        let recent = self
            .since
            .as_ref()
            .is_none_or(|(clock, since_ns)| clock.boot_ns(line.stage_timestamp) >= i128::from(*since_ns));
        writes.contains(&line.verb.as_str()) && recent && self.concerns(line)
    }

    fn concerns(&self, line: &AuditLine) -> bool {
        let Some(object) = &line.object_ref else {
            return true;
        };
        let namespace = match object.resource.as_str() {
            "namespaces" => &object.name,
            _ => &object.namespace,
        };
        self.namespaces.is_empty()
            || namespace.is_empty()
            || crate::judge::INFRASTRUCTURE_NAMESPACES.contains(&namespace.as_str())
            || self.namespaces.contains(namespace)
    }
}

/// Copies what is evidence of one site's audit logs, as it stands, in order of time, to
/// `dir/audit/SITE.jsonl`. Returns the number of lines that are no audit events; a log may end
/// in the middle of one.
///
/// # Errors
/// If a log can't be read or the copy not written.
pub fn copy_audit(dir: &Path, site: &str, logs: &[PathBuf], filter: &AuditFilter) -> Result<usize, EvidenceError> {
    let (mut kept, mut unreadable) = (Vec::new(), 0);
    for path in logs {
        let log = fs::read(path).map_err(EvidenceError::read(path))?;
        for line in log.split(|b| *b == b'\n').filter(|line| !line.is_empty()) {
            match serde_json::from_slice::<AuditLine>(line) {
                Ok(parsed) if filter.keeps(&parsed) => {
                    kept.push((parsed.stage_timestamp, line.to_vec()));
                }
                Ok(_) => {}
                Err(_) => unreadable += 1,
            }
        }
    }
    kept.sort();
    kept.dedup();
    let folder = dir.join("audit");
    fs::create_dir_all(&folder).map_err(EvidenceError::write(&folder))?;
    let mut text = Vec::new();
    for (_, line) in kept {
        text.extend(line);
        text.push(b'\n');
    }
    let path = folder.join(format!("{site}.jsonl"));
    fs::write(&path, text).map_err(EvidenceError::write(&path))?;
    Ok(unreadable)
}
