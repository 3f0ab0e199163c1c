//! Kubernetes quantities (`k8s.io/apimachinery/pkg/api/resource`), as far as a Node's
//! status uses them.

/// The quantity in thousandths, rounded down; none if it is no quantity.
pub fn milli(text: &str) -> Option<u64> {
    let split = text.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(text.len());
    let (number, suffix) = text.split_at(split);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let whole: u128 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    // Digits beyond a millionth do not occur in a status.
    let padded: String = fraction.chars().chain(std::iter::repeat('0')).take(6).collect();
    let millionths = whole.checked_mul(1_000_000)?.checked_add(padded.parse().ok()?)?;
    if number.is_empty() || number == "." {
        return None;
    }
    let (times, over): (u128, u128) = match suffix {
        "n" => (1, 1_000_000_000),
        "u" => (1, 1_000_000),
        "m" => (1, 1000),
        "" => (1, 1),
        "k" => (1000, 1),
        "M" => (1_000_000, 1),
        "G" => (1_000_000_000, 1),
        "T" => (1_000_000_000_000, 1),
        "P" => (1_000_000_000_000_000, 1),
        "Ki" => (1 << 10, 1),
        "Mi" => (1 << 20, 1),
        "Gi" => (1 << 30, 1),
        "Ti" => (1 << 40, 1),
        "Pi" => (1 << 50, 1),
        _ => return None,
    };
    u64::try_from(millionths.checked_mul(times)?.checked_mul(1000)? / (over * 1_000_000)).ok()
}

/// The quantity in whole units, rounded down.
pub fn units(text: &str) -> Option<u64> {
    // Bytes in thousandths overflow 64 bits above 16 PiB, which no node has.
    milli(text).map(|m| m / 1000)
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
        assert_eq!(units("16384Ki"), Some(16 << 20));
        assert_eq!(units("24Gi"), Some(24 << 30));
        assert_eq!(units("110"), Some(110));
        for bad in ["", "m", ".", "-1", "1e3", "two", "1 Gi"] {
            assert_eq!(milli(bad), None, "{bad}");
        }
    }
}
