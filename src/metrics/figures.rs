//! The figures of one scrape, and their text.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet, prometheus_text, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::{Registry, Unit};

use crate::metrics::definition::{Definition, Kind, Metric};
use crate::metrics::histogram::Histogram;

/// The prefix of all names.
pub(crate) const PREFIX: &str = "tallymesh";

/// A text format for scrapers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    /// The text format of Prometheus, version 0.0.4. Every client takes it.
    Prometheus,
    /// OpenMetrics, version 1.0.0.
    OpenMetrics,
}

impl Format {
    /// The value of `Content-Type`.
    pub(crate) fn content_type(self) -> &'static str {
        match self {
            Self::Prometheus => prometheus_text::CONTENT_TYPE,
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// A value of a metric.
#[derive(Debug, Clone)]
enum Value {
    Whole(u64),
    Float(f64),
    Spread(Histogram),
    /// The constant of an info.
    One,
}

/// A value with the values of its labels.
#[derive(Debug, Clone)]
struct Sample {
    labels: Vec<(&'static str, String)>,
    value: Value,
}

/// The figures of one scrape.
#[derive(Debug, Default)]
pub(crate) struct Figures(BTreeMap<Metric, Vec<Sample>>);

impl Figures {
    /// Adds a whole number. `labels` are the values of the metric's labels, in their order.
    pub(crate) fn whole(&mut self, metric: Metric, labels: &[&str], value: u64) {
        self.add(metric, labels, Value::Whole(value));
    }

    /// As [`Figures::whole`], for a number of things in memory.
    pub(crate) fn count(&mut self, metric: Metric, labels: &[&str], value: usize) {
        self.whole(metric, labels, value as u64);
    }

    /// Adds a number.
    pub(crate) fn float(&mut self, metric: Metric, labels: &[&str], value: f64) {
        self.add(metric, labels, Value::Float(value));
    }

    /// Adds a time, in seconds.
    pub(crate) fn time(&mut self, metric: Metric, labels: &[&str], value: Duration) {
        self.float(metric, labels, value.as_secs_f64());
    }

    /// Adds facts.
    pub(crate) fn info(&mut self, metric: Metric, labels: &[&str]) {
        self.add(metric, labels, Value::One);
    }

    /// Adds a histogram.
    pub(crate) fn spread(&mut self, metric: Metric, labels: &[&str], value: Histogram) {
        self.add(metric, labels, Value::Spread(value));
    }

    fn add(&mut self, metric: Metric, values: &[&str], value: Value) {
        let names = metric.definition().labels;
        debug_assert_eq!(names.len(), values.len(), "{metric:?} has a value for each label");
        let labels = names.iter().copied().zip(values.iter().map(|value| (*value).to_owned())).collect();
        self.0.entry(metric).or_default().push(Sample { labels, value });
    }

    /// The text of all figures.
    pub(crate) fn text(self, format: Format) -> Result<String, fmt::Error> {
        let mut registry = Registry::with_prefix(PREFIX);
        registry.register_collector(Box::new(self));
        let mut written = String::new();
        match format {
            Format::Prometheus => prometheus_text::encode(&mut written, &registry)?,
            Format::OpenMetrics => text::encode(&mut written, &registry)?,
        }
        Ok(written)
    }
}

impl Collector for Figures {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        for (metric, samples) in &self.0 {
            let Definition { name, kind, unit, help, .. } = metric.definition();
            let unit = unit.map(|unit| Unit::Other(unit.to_owned()));
            let mut family = encoder.encode_descriptor(name, help, unit.as_ref(), type_of(kind))?;
            for Sample { labels, value } in samples {
                match (kind, value) {
                    (Kind::Info, _) => family.encode_info(labels)?,
                    _ if labels.is_empty() => encode(&mut family, kind, value)?,
                    _ => encode(&mut family.encode_family(labels)?, kind, value)?,
                }
            }
        }
        Ok(())
    }
}

fn encode(encoder: &mut MetricEncoder<'_>, kind: Kind, value: &Value) -> Result<(), fmt::Error> {
    match (kind, value) {
        (Kind::Counter, Value::Whole(value)) => encoder.encode_counter::<NoLabelSet, _, f64>(value, None),
        (Kind::Counter, Value::Float(value)) => encoder.encode_counter::<NoLabelSet, _, f64>(value, None),
        (_, Value::Whole(value)) => encoder.encode_gauge(&i64::try_from(*value).unwrap_or(i64::MAX)),
        (_, Value::Float(value)) => encoder.encode_gauge(value),
        (_, Value::Spread(spread)) => {
            encoder.encode_histogram::<NoLabelSet>(spread.sum(), spread.count(), &spread.buckets(), None)
        }
        (_, Value::One) => encoder.encode_gauge(&1_i64),
    }
}

fn type_of(kind: Kind) -> MetricType {
    match kind {
        Kind::Counter => MetricType::Counter,
        Kind::Gauge => MetricType::Gauge,
        Kind::Histogram => MetricType::Histogram,
        Kind::Info => MetricType::Info,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_formats_are_written() {
        let figures = || {
            let mut figures = Figures::default();
            figures.info(Metric::Build, &["n1", "0.1.0", "2"]);
            figures.time(Metric::Uptime, &[], Duration::from_millis(1500));
            figures.whole(Metric::PeerBytes, &["a\"b\\c\nd", "out"], 7);
            figures.count(Metric::Links, &[], 3);
            let mut spread = Histogram::default();
            [1, 3_000_000].into_iter().for_each(|micros| spread.note(Duration::from_micros(micros)));
            figures.spread(Metric::DriverStep, &[], spread);
            figures
        };
        let text = figures().text(Format::Prometheus).unwrap();
        for line in [
            "# TYPE tallymesh_build_info gauge",
            "tallymesh_build_info{node=\"n1\",version=\"0.1.0\",protocol=\"2\"} 1",
            "# HELP tallymesh_uptime_seconds Time since the start of the node.",
            "# TYPE tallymesh_uptime_seconds gauge",
            "tallymesh_uptime_seconds 1.5",
            "# TYPE tallymesh_peer_datagram_bytes_total counter",
            "tallymesh_peer_datagram_bytes_total{peer=\"a\\\"b\\\\c\\nd\",direction=\"out\"} 7",
            "tallymesh_links 3",
            "# TYPE tallymesh_driver_step_seconds histogram",
            "tallymesh_driver_step_seconds_bucket{le=\"+Inf\"} 2",
            "tallymesh_driver_step_seconds_count 2",
        ] {
            assert!(text.lines().any(|written| written == line), "{line} in\n{text}");
        }
        let text = figures().text(Format::OpenMetrics).unwrap();
        for line in [
            "# TYPE tallymesh_build info",
            "# UNIT tallymesh_peer_datagram_bytes bytes",
            "# TYPE tallymesh_peer_datagram_bytes counter",
            "tallymesh_peer_datagram_bytes_total{peer=\"a\\\"b\\\\c\\nd\",direction=\"out\"} 7",
        ] {
            assert!(text.lines().any(|written| written == line), "{line} in\n{text}");
        }
        assert!(text.ends_with("# EOF\n"), "{text}");
    }
}
