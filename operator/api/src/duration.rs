//! Durations as Kubernetes writes them: `5s`, `1m30s`, `250ms`.

use std::time::Duration;

/// The longest text of a duration, in bytes: kube's parser panics where a number of
/// hours overflows, which takes more digits than this.
pub const MAX_BYTES: usize = 16;

/// Reads a duration. None for a negative one and for anything else.
pub fn parse(text: &str) -> Option<Duration> {
    if text.is_empty() || text.len() > MAX_BYTES {
        return None;
    }
    let parsed: kube::core::Duration = text.parse().ok()?;
    (!parsed.is_negative()).then(|| parsed.into())
}

/// Writes a duration, to the millisecond, so that [`parse`] reads it.
pub fn format(duration: Duration) -> String {
    let ms = duration.as_millis();
    if ms.is_multiple_of(1000) { format!("{}s", ms / 1000) } else { format!("{ms}ms") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_kubernetes_writes_them() {
        assert_eq!(parse("5s"), Some(Duration::from_secs(5)));
        assert_eq!(parse("1m30s"), Some(Duration::from_secs(90)));
        assert_eq!(parse("0"), Some(Duration::ZERO));
        for bad in ["", "5", "-5s", "five", "5 s", "1d", "999999999999999999999999h"] {
            assert_eq!(parse(bad), None, "{bad}");
        }
        for ms in [0, 1, 1500, 5000, 90_000] {
            assert_eq!(parse(&format(Duration::from_millis(ms))), Some(Duration::from_millis(ms)));
        }
        assert_eq!((format(Duration::ZERO), format(Duration::from_millis(1500))), ("0s".into(), "1500ms".into()));
    }
}
