//! The journal of one pod: append-only, continued by whatever process comes next.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;

/// Longest stretch read at the end of a journal to find its last line, in bytes.
const TAIL_BYTES: u64 = 64 * 1024;

/// An open journal file.
#[derive(Debug)]
pub struct Journal {
    file: File,
    next_seq: u64,
}

impl Journal {
    /// Opens `dir/SITE-POD.jsonl`, or makes it, and continues after its last whole line.
    ///
    /// What stands after the last newline was never a complete line (the disk was full, or the
    /// machine lost power), and is cut off: a line appended to it would be lost with it.
    ///
    /// # Errors
    /// Any error of the file system.
    pub fn open(dir: &Path, site: &str, pod: &str) -> io::Result<Journal> {
        let path = dir.join(format!("{site}-{pod}.jsonl"));
        let mut file = OpenOptions::new().read(true).append(true).create(true).open(path)?;
        let length = file.metadata()?.len();
        let from = length.saturating_sub(TAIL_BYTES);
        file.seek(SeekFrom::Start(from))?;
        let mut tail = Vec::new();
        file.read_to_end(&mut tail)?;
        let whole = tail.iter().rposition(|b| *b == b'\n').map_or(0, |at| at + 1);
        if whole < tail.len() {
            file.set_len(from + whole as u64)?;
        }
        let last = String::from_utf8_lossy(tail.get(..whole).unwrap_or_default());
        let next_seq = last.lines().last().and_then(seq_of).map_or(1, |seq| seq + 1);
        Ok(Journal { file, next_seq })
    }

    /// The number that the next line has to carry: 1 in a new journal.
    pub fn next_seq(&self) -> u64 {
        self.next_seq
    }

    /// Appends one line, newline included, with one `write(2)`.
    ///
    /// # Errors
    /// The error of the write; `WriteZero` when the kernel took only a part of the line.
    pub fn append(&mut self, line: &str) -> io::Result<()> {
        let written = self.file.write(line.as_bytes())?;
        if written != line.len() {
            return Err(io::Error::new(
                io::ErrorKind::WriteZero,
                format!("only {written} of {} bytes fitted", line.len()),
            ));
        }
        self.next_seq += 1;
        Ok(())
    }
}

fn seq_of(line: &str) -> Option<u64> {
    let (_, after) = line.rsplit_once("\"seq\":")?;
    let digits = after.split(|c: char| !c.is_ascii_digit()).next()?;
    digits.parse().ok()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn a_new_journal_begins_at_one() {
        let dir = tempfile::tempdir().unwrap();
        let journal = Journal::open(dir.path(), "ireland", "shop-0").unwrap();
        assert_eq!(journal.next_seq(), 1);
        assert!(dir.path().join("ireland-shop-0.jsonl").exists());
    }

    #[test]
    fn a_journal_opened_again_continues_its_numbers() {
        let dir = tempfile::tempdir().unwrap();
        let mut journal = Journal::open(dir.path(), "ireland", "p").unwrap();
        journal.append("{\"seq\":1,\"epoch\":null}\n").unwrap();
        journal.append("{\"seq\":2,\"epoch\":null}\n").unwrap();
        drop(journal);
        let journal = Journal::open(dir.path(), "ireland", "p").unwrap();
        assert_eq!(journal.next_seq(), 3);
    }

    #[test]
    fn a_torn_last_line_is_cut_off_and_its_number_used_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ireland-p.jsonl");
        fs::write(&path, "{\"seq\":7,\"epoch\":null}\n{\"boot_ns\":5,\"se").unwrap();
        let mut journal = Journal::open(dir.path(), "ireland", "p").unwrap();
        assert_eq!(journal.next_seq(), 8);
        journal.append("{\"seq\":8}\n").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "{\"seq\":7,\"epoch\":null}\n{\"seq\":8}\n");
    }

    #[test]
    fn only_the_tail_of_a_long_journal_is_read_and_nothing_of_it_is_lost() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ireland-p.jsonl");
        let lines: String = (1..=9000).map(|seq| format!("{{\"seq\":{seq}}}\n")).collect();
        assert!(lines.len() as u64 > TAIL_BYTES);
        fs::write(&path, &lines).unwrap();
        let journal = Journal::open(dir.path(), "ireland", "p").unwrap();
        assert_eq!(journal.next_seq(), 9001);
        assert_eq!(fs::read_to_string(&path).unwrap(), lines);
    }
}
