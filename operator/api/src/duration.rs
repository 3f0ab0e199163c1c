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

/// Writes a duration so that [`parse`] reads it.
pub fn format(duration: Duration) -> String {
    kube::core::Duration::from(duration).to_string()
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
        assert_eq!(parse(&format(Duration::from_millis(1500))), Some(Duration::from_millis(1500)));
    }
}
