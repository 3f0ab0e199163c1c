//! The workload of the demo and of the tests: a real service, and its outside observers.
//!
//! Nothing here links to Regent, and none of it reacts to a signal. That is the point: whoever
//! judges a failover looks at what an ordinary program did, not at what Regent says of itself.
//!
//! ```text
//!   shop ── a line every 50 ms ──> JOURNAL_DIR/SITE-POD.jsonl    what was executed, and when
//!     └──── the same line, UDP ──> sink ──> sink/SITE.jsonl      what left the pod, and when
//!   client ── HTTP, in turn ─────> every site's address          what a customer saw
//! ```
//!
//! Every time is CLOCK_BOOTTIME in nanoseconds, so that lines written in different network
//! namespaces of one machine can be put in order. Every line is one `write(2)`: a kill never
//! tears it.

pub mod journal;
pub mod line;
pub mod request;

use rustix::time::{ClockId, clock_gettime};

/// CLOCK_BOOTTIME of this machine, in nanoseconds.
pub fn boot_ns() -> u64 {
    let now = clock_gettime(ClockId::Boottime);
    u64::try_from(now.tv_sec).unwrap_or(0) * 1_000_000_000 + u64::try_from(now.tv_nsec).unwrap_or(0)
}

/// Appends `value` to `out` as a JSON string (RFC 8259, section 7), quotes included.
pub fn push_json_string(out: &mut String, value: &str) {
    out.push('"');
    for c in value.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            c if u32::from(c) < 0x20 => out.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boot_time_never_goes_back() {
        let first = boot_ns();
        assert!(first > 0);
        assert!(boot_ns() >= first);
    }

    #[test]
    fn a_json_string_survives_quotes_and_control_characters() {
        let mut out = String::new();
        push_json_string(&mut out, "a\"b\\c\nd\u{e9}");
        let back: String = serde_json::from_str(&out).unwrap_or_default();
        assert_eq!(back, "a\"b\\c\nd\u{e9}");
    }
}
