//! Reads an evidence directory. What is missing or broken is noted, not hidden: the judge turns
//! every note into a reason to fail.

use crate::error::EvidenceError;
use crate::event::Event;
use crate::records::{AuditLine, ClientLine, JournalLine, SinkLine};
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Everything in an evidence directory. Lines are in order of their time.
#[derive(Debug, Clone, Default)]
pub struct Evidence {
    /// The directory.
    pub dir: PathBuf,
    /// events.jsonl.
    pub events: Vec<Event>,
    /// journal/*.jsonl, all pods together.
    pub journal: Vec<JournalLine>,
    /// sink/SITE.jsonl by site.
    pub sinks: BTreeMap<String, Vec<SinkLine>>,
    /// client.jsonl.
    pub client: Vec<ClientLine>,
    /// audit/SITE.jsonl by site.
    pub audit: BTreeMap<String, Vec<AuditLine>>,
    /// What is missing or broken, each a sentence.
    pub problems: Vec<String>,
}

impl Evidence {
    /// Reads `dir`.
    ///
    /// # Errors
    /// Only if `dir` itself can't be read; files that are missing or broken become
    /// [`Evidence::problems`].
    pub fn load(dir: &Path) -> Result<Evidence, EvidenceError> {
        fs::read_dir(dir).map_err(EvidenceError::read(dir))?;
        let mut found = Evidence { dir: dir.to_owned(), ..Evidence::default() };
        found.events = found.lines("events.jsonl");
        found.client = found.lines("client.jsonl");
        for (name, lines) in found.folder::<JournalLine>("journal") {
            found.check_journal(&name, &lines);
            found.journal.extend(lines);
        }
        for (name, lines) in found.folder::<SinkLine>("sink") {
            found.check_sink(&name, &lines);
            found.sinks.insert(name, lines);
        }
        found.audit = found.folder("audit");
        found.events.sort_by_key(|e| e.boot_ns);
        found.journal.sort_by_key(|l| l.boot_ns);
        found.client.sort_by_key(|l| l.start_ns);
        for lines in found.sinks.values_mut() {
            lines.sort_by_key(|l| l.received_ns);
        }
        for lines in found.audit.values_mut() {
            lines.sort_by_key(|l| l.stage_timestamp);
        }
        Ok(found)
    }

    /// Every line of every file in a folder, by the file's name without `.jsonl`.
    fn folder<T: DeserializeOwned>(&mut self, folder: &str) -> BTreeMap<String, Vec<T>> {
        let mut files = BTreeMap::new();
        let entries = match fs::read_dir(self.dir.join(folder)) {
            Ok(entries) => entries,
            Err(error) => {
                self.problems.push(format!("{folder}/ can't be read: {error}"));
                return files;
            }
        };
        for entry in entries.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if let Some(stem) = name.strip_suffix(".jsonl") {
                files.insert(stem.to_owned(), self.lines(&format!("{folder}/{name}")));
            }
        }
        if files.is_empty() {
            self.problems.push(format!("{folder}/ holds no .jsonl file"));
        }
        files
    }

    /// The lines of one file. A last line without its newline was cut short and is left out;
    /// any other line that can't be read is a problem.
    fn lines<T: DeserializeOwned>(&mut self, name: &str) -> Vec<T> {
        let bytes = match fs::read(self.dir.join(name)) {
            Ok(bytes) => bytes,
            Err(error) => {
                self.problems.push(format!("{name} can't be read: {error}"));
                return Vec::new();
            }
        };
        let whole = bytes.iter().rposition(|b| *b == b'\n').map_or(0, |at| at + 1);
        let mut lines = Vec::new();
        let mut bad = Vec::new();
        let text = bytes.get(..whole).unwrap_or_default().split(|b| *b == b'\n');
        for (number, line) in text.enumerate().filter(|(_, line)| !line.is_empty()) {
            match serde_json::from_slice(line) {
                Ok(line) => lines.push(line),
                Err(error) => bad.push((number + 1, error)),
            }
        }
        if let Some((number, error)) = bad.first() {
            self.problems.push(format!(
                "{name} has {} lines that can't be read, the first is line {number}: {error}",
                bad.len()
            ));
        }
        if lines.is_empty() {
            self.problems.push(format!("{name} is empty"));
        }
        lines
    }

    /// A journal is what the pods of one name wrote, in order, and each of them without a hole.
    fn check_journal(&mut self, name: &str, lines: &[JournalLine]) {
        let file = format!("journal/{name}.jsonl");
        let foreign = lines.iter().find(|l| format!("{}-{}", l.site, l.pod) != *name);
        if let Some(line) = foreign {
            self.problems.push(format!(
                "{file} holds a line of pod {} at {}: a journal belongs to one pod",
                line.pod, line.site
            ));
        }
        let steps = || lines.iter().zip(lines.iter().skip(1));
        if let Some((before, after)) = steps().find(|(b, a)| a.uid == b.uid && a.seq != b.seq + 1) {
            self.problems.push(format!(
                "{file} goes from seq {} to seq {}: lines are missing or out of order",
                before.seq, after.seq
            ));
        }
        if let Some((_, after)) = steps().find(|(b, a)| a.boot_ns < b.boot_ns) {
            self.problems.push(format!("{file} goes back in time at seq {}: its times can't be trusted", after.seq));
        }
    }

    fn check_sink(&mut self, name: &str, lines: &[SinkLine]) {
        if let Some(line) = lines.iter().find(|l| l.site != *name) {
            self.problems.push(format!(
                "sink/{name}.jsonl holds a line of site {}: a sink must stand in its own site's network",
                line.site
            ));
        }
    }
}
