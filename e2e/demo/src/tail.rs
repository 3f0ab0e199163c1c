//! Follows what the parts of the federation say on standard output, wherever it ends up.

use std::collections::HashMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::PathBuf;

use anyhow::Result;
use regent_evidence::Event;
use regent_evidence::merge::events_of_log;

use crate::federation::{Federation, NAMESPACE, WITNESS};

/// Reads new events of all logs, each once.
#[derive(Debug, Default)]
pub struct Tail {
    offsets: HashMap<PathBuf, u64>,
}

/// The logs that may hold events: of Regent's pods at every full site, and of the witnesses.
pub fn event_logs(federation: &Federation) -> Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    for site in federation.rig.sites() {
        let name = &site.site.name;
        if site.site.is_full() {
            let prefix = format!("pod:{NAMESPACE}/");
            let logs = federation.rig.logs(name)?;
            paths.extend(logs.into_iter().filter(|(log, _)| log.starts_with(&prefix)).map(|(_, path)| path));
        } else {
            let logs = federation.rig.log(name, WITNESS)?;
            paths.extend(logs.into_iter().map(|(_, path)| path));
        }
    }
    Ok(paths)
}

impl Tail {
    /// Events that were written since the last call, in order of their time.
    pub fn news(&mut self, federation: &Federation) -> Result<Vec<Event>> {
        let mut news = Vec::new();
        for path in event_logs(federation)? {
            // A log that was rotated away between the listing and now has nothing new.
            let Ok(mut file) = File::open(&path) else { continue };
            let offset = self.offsets.entry(path).or_default();
            file.seek(SeekFrom::Start(*offset))?;
            let mut bytes = Vec::new();
            file.read_to_end(&mut bytes)?;
            let whole = bytes.iter().rposition(|b| *b == b'\n').map_or(0, |end| end + 1);
            *offset += whole as u64;
            news.extend(events_of_log(&bytes[..whole]).events);
        }
        news.sort_by_key(|e| e.boot_ns);
        Ok(news)
    }
}
