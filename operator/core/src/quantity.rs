//! Kubernetes quantities (`k8s.io/apimachinery/pkg/api/resource`), without a sign: nothing that
//! a pod asks for or a node has is negative.

/// Digits after the point that Kubernetes keeps.
const DIGITS: usize = 9;
const NANO: u128 = 1_000_000_000;

/// The quantity in billionths; none if it is no quantity.
pub fn nano(text: &str) -> Option<u128> {
    let split = text.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(text.len());
    let (number, suffix) = text.split_at(split);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() && fraction.is_empty() {
        return None;
    }
    let whole: u128 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    let padded: String = fraction.chars().chain(std::iter::repeat('0')).take(DIGITS).collect();
    let number = whole.checked_mul(NANO)?.checked_add(padded.parse().ok()?)?;
    let (times, over): (u128, u128) = match suffix {
        "n" => (1, NANO),
        "u" => (1, 1_000_000),
        "m" => (1, 1000),
        "" => (1, 1),
        "k" => (1000, 1),
        "M" => (1_000_000, 1),
        "G" => (NANO, 1),
        "T" => (1000 * NANO, 1),
        "P" => (1_000_000 * NANO, 1),
        "E" => (NANO * NANO, 1),
        "Ki" => (1 << 10, 1),
        "Mi" => (1 << 20, 1),
        "Gi" => (1 << 30, 1),
        "Ti" => (1 << 40, 1),
        "Pi" => (1 << 50, 1),
        "Ei" => (1 << 60, 1),
        other => exponent(other)?,
    };
    Some(number.checked_mul(times)? / over)
}

/// `e3` or `E-3`, as a factor and a divisor.
fn exponent(suffix: &str) -> Option<(u128, u128)> {
    let power: i32 = suffix.strip_prefix(['e', 'E'])?.parse().ok()?;
    let factor = 10u128.checked_pow(power.unsigned_abs())?;
    Some(if power < 0 { (1, factor) } else { (factor, 1) })
}

/// The quantity in whole thousandths, rounded down.
pub fn milli(text: &str) -> Option<u64> {
    u64::try_from(nano(text)? / (NANO / 1000)).ok()
}

/// The quantity in whole units, rounded down.
pub fn units(text: &str) -> Option<u64> {
    u64::try_from(nano(text)? / NANO).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_are_read_as_kubernetes_writes_them() {
        for (text, thousandths) in
            [("2", 2000), ("1930m", 1930), ("0.5", 500), ("1.25", 1250), ("100u", 0), ("2k", 2_000_000), (".5", 500)]
        {
            assert_eq!(milli(text), Some(thousandths), "{text}");
        }
        for (text, whole) in [
            ("16384Ki", 16 << 20),
            ("24Gi", 24 << 30),
            ("110", 110),
            ("1e3", 1000),
            ("5E-1", 0),
            ("1E", 1_000_000_000_000_000_000),
            ("2.", 2),
        ] {
            assert_eq!(units(text), Some(whole), "{text}");
        }
        assert_eq!(nano("1n"), Some(1));
        for bad in ["", "m", ".", "-1", "1e", "e3", "1e999", "two", "1 Gi", "1.2.3", "nan"] {
            assert_eq!(nano(bad), None, "{bad}");
        }
    }
}
