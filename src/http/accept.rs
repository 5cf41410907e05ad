//! The `Accept` field of a request: which of the two text formats the client prefers.

use crate::metrics::figures::Format;

/// A weight of a media range in thousandths: `q=0.5` is 500.
type Weight = u16;

/// The weight of a range that names none.
const WHOLE: Weight = 1000;

/// The format that a client prefers, by the values of its `Accept` fields. It gets OpenMetrics if it asks for that by name, in a
/// version that the node has, and likes plain text no better. What cannot be read is passed over.
pub(super) fn preferred<'a>(fields: impl Iterator<Item = &'a str>) -> Format {
    let (mut open, mut plain) = (0, 0);
    for range in fields.flat_map(|field| field.split(',')) {
        let mut parts = range.split(';').map(str::trim);
        let Some(kind) = parts.next() else { continue };
        let (mut weight, mut version) = (WHOLE, None);
        for (name, value) in parts.filter_map(|part| part.split_once('=')) {
            match name.trim() {
                name if name.eq_ignore_ascii_case("q") => weight = read_weight(value.trim()),
                name if name.eq_ignore_ascii_case("version") => version = Some(value.trim().trim_matches('"')),
                _ => {}
            }
        }
        if kind.eq_ignore_ascii_case("application/openmetrics-text") && version.is_none_or(|version| version == "1.0.0")
        {
            open = open.max(weight);
        } else if kind.eq_ignore_ascii_case("text/plain") {
            plain = plain.max(weight);
        }
    }
    if open > 0 && open >= plain { Format::OpenMetrics } else { Format::Prometheus }
}

/// Reads `0`, `1` or `0.25`, with three digits behind the point at most; 0 for anything else.
fn read_weight(text: &str) -> Weight {
    let (whole, part) = text.split_once('.').unwrap_or((text, ""));
    if !matches!(whole, "0" | "1") || part.len() > 3 || !part.bytes().all(|byte| byte.is_ascii_digit()) {
        return 0;
    }
    let digits = format!("{whole}{part:0<3}");
    digits.parse::<Weight>().unwrap_or(0).min(WHOLE)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(field: &str) -> Format {
        preferred([field].into_iter())
    }

    #[test]
    fn what_scrapers_send_is_understood() {
        for (field, expected) in [
            // Prometheus 2.42, and 3.
            (
                "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,\
                 text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
                Format::OpenMetrics,
            ),
            (
                "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited;q=0.6,\
                 application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,text/plain;version=0.0.4;q=0.3,*/*;q=0.2",
                Format::OpenMetrics,
            ),
            // A scraper that wants only text, a browser, and curl.
            ("text/plain;version=0.0.4", Format::Prometheus),
            ("text/html,application/xhtml+xml,*/*;q=0.8", Format::Prometheus),
            ("*/*", Format::Prometheus),
            ("", Format::Prometheus),
            ("application/openmetrics-text", Format::OpenMetrics),
            ("Application/OpenMetrics-Text ; Version=\"1.0.0\" ; Q=0.001", Format::OpenMetrics),
            ("application/openmetrics-text;version=0.0.1", Format::Prometheus),
            ("application/openmetrics-text;q=0", Format::Prometheus),
            ("application/openmetrics-text;q=0.4,text/plain;q=0.5", Format::Prometheus),
            ("application/openmetrics-text;q=0.5,text/plain;q=0.5", Format::OpenMetrics),
        ] {
            assert_eq!(of(field), expected, "{field}");
        }
    }

    #[test]
    fn weights_are_thousandths() {
        for (text, weight) in [("1", 1000), ("1.000", 1000), ("1.001", 1000), ("0", 0), ("0.5", 500), ("0.25", 250)] {
            assert_eq!(read_weight(text), weight, "{text}");
        }
        for text in ["", "2", "0.1234", "-1", "0.x", ".5", "1e3", "٠"] {
            assert_eq!(read_weight(text), 0, "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_fields_are_read(fields: Vec<String>) {
            preferred(fields.iter().map(String::as_str));
        }

        /// Only the weights of the two formats decide, in whichever order and with whatever between them.
        #[test]
        fn the_heavier_one_is_preferred(open in 0_u16..=1000, plain in 0_u16..=1000, noise in "[a-z/;=, .0-9]{0,40}") {
            let weight = |w: u16| format!("{}.{:03}", w / 1000, w % 1000);
            let ranges = [
                format!("application/openmetrics-text;version=1.0.0;q={}", weight(open)),
                noise,
                format!("text/plain;q={}", weight(plain)),
            ];
            let expected = if open > 0 && open >= plain { Format::OpenMetrics } else { Format::Prometheus };
            prop_assert_eq!(of(&ranges.join(",")), expected);
            prop_assert_eq!(preferred(ranges.iter().rev().map(String::as_str)), expected);
        }
    }
}
