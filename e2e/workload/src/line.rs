//! One line of a journal, and the same line as it arrives at a sink.

use crate::push_json_string;

/// Who writes: the fields that are the same in every line of a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Writer {
    /// Site where the pod runs.
    pub site: String,
    /// Failover group, as HOME/NAME.
    pub group: String,
    /// Name of the pod.
    pub pod: String,
    /// UID of the pod.
    pub uid: String,
}

const TIME_AT_WRITER: &str = "{\"boot_ns\":";
const TIME_AT_SINK: &str = "{\"received_ns\":";

impl Writer {
    /// The journal line for one moment, newline included.
    ///
    /// `boot_ns` is CLOCK_BOOTTIME in nanoseconds; `epoch` is the group's fencing token as
    /// `term.site`, or `None` when the pod was told none.
    pub fn line(&self, boot_ns: u64, seq: u64, epoch: Option<&str>) -> String {
        let mut out = format!("{TIME_AT_WRITER}{boot_ns},\"site\":");
        push_json_string(&mut out, &self.site);
        out.push_str(",\"group\":");
        push_json_string(&mut out, &self.group);
        out.push_str(",\"pod\":");
        push_json_string(&mut out, &self.pod);
        out.push_str(",\"uid\":");
        push_json_string(&mut out, &self.uid);
        out.push_str(&format!(",\"seq\":{seq},\"epoch\":"));
        match epoch {
            Some(epoch) => push_json_string(&mut out, epoch),
            None => out.push_str("null"),
        }
        out.push_str("}\n");
        out
    }
}

/// A writer's line as it arrived: `received_ns` in place of `boot_ns`, newline included.
///
/// `None` when the datagram is not exactly one line of a [`Writer`].
pub fn as_received(datagram: &[u8], received_ns: u64) -> Option<String> {
    let text = std::str::from_utf8(datagram).ok()?;
    let rest = text.strip_prefix(TIME_AT_WRITER)?;
    let fields = rest.trim_start_matches(|c: char| c.is_ascii_digit());
    let body = fields.trim_end_matches('\n');
    let whole = fields.len() < rest.len() && body.starts_with(',') && body.ends_with('}') && !body.contains('\n');
    whole.then(|| format!("{TIME_AT_SINK}{received_ns}{body}\n"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use serde_json::Value;

    fn writer() -> Writer {
        Writer { site: "ireland".into(), group: "ireland/shop".into(), pod: "shop-0".into(), uid: "u-1".into() }
    }

    #[test]
    fn a_line_carries_every_field_and_one_newline() {
        let line = writer().line(17, 3, Some("2.1"));
        assert_eq!(line.matches('\n').count(), 1);
        let value: Value = serde_json::from_str(&line).unwrap();
        let want = serde_json::json!({
            "boot_ns": 17, "site": "ireland", "group": "ireland/shop", "pod": "shop-0",
            "uid": "u-1", "seq": 3, "epoch": "2.1"
        });
        assert_eq!(value, want);
    }

    #[test]
    fn a_line_without_an_epoch_says_null() {
        let value: Value = serde_json::from_str(&writer().line(1, 1, None)).unwrap();
        assert_eq!(value["epoch"], Value::Null);
    }

    #[test]
    fn a_received_line_differs_in_its_time_only() {
        let line = writer().line(17, 3, Some("2.1"));
        let received: Value = serde_json::from_str(&as_received(line.as_bytes(), 99).unwrap()).unwrap();
        let mut want: Value = serde_json::from_str(&line).unwrap();
        want.as_object_mut().unwrap().remove("boot_ns");
        want["received_ns"] = 99.into();
        assert_eq!(received, want);
    }

    #[test]
    fn what_no_writer_sent_is_not_a_line() {
        let two = writer().line(1, 1, None) + &writer().line(2, 2, None);
        for datagram in ["", "{}", "{\"boot_ns\":,}", "{\"boot_ns\":12", "hello\n", &two] {
            assert_eq!(as_received(datagram.as_bytes(), 1), None, "{datagram:?}");
        }
        assert_eq!(as_received(&[0xff, 0xfe], 1), None);
    }
}
