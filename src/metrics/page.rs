//! docs/metrics.md says what the definitions say.

use std::collections::BTreeSet;
use std::fmt::Write;

use crate::metrics::definition::{Definition, Kind, Metric};
use crate::metrics::figures::PREFIX;

const PAGE: &str = include_str!("../../docs/metrics.md");

/// What is made from the definitions begins behind this line.
const MARK: &str = "<!-- The rest of this page is made from src/metrics/definition.rs: see CONTRIBUTING.md. -->\n";

fn all() -> impl Iterator<Item = Metric> {
    Metric::GROUPS.iter().flat_map(|(_, metrics)| *metrics).copied()
}

/// The tables of all metrics.
fn tables() -> String {
    let mut page = String::new();
    for (group, metrics) in Metric::GROUPS {
        write!(page, "\n## {group}\n\n| metric | kind | labels | meaning |\n|---|---|---|---|\n").unwrap();
        for Definition { name, kind, unit, labels, help } in metrics.iter().map(|metric| metric.definition()) {
            let unit = unit.map(|unit| format!("_{unit}")).unwrap_or_default();
            let (kind, suffix) = match kind {
                Kind::Counter => ("counter", "_total"),
                Kind::Gauge => ("gauge", ""),
                Kind::Histogram => ("histogram", ""),
                Kind::Info => ("info", "_info"),
            };
            let labels = labels.iter().map(|label| format!("`{label}`")).collect::<Vec<_>>().join(", ");
            let labels = if labels.is_empty() { "–".to_owned() } else { labels };
            writeln!(page, "| `{PREFIX}_{name}{unit}{suffix}` | {kind} | {labels} | {help} |").unwrap();
        }
    }
    page
}

#[test]
fn the_page_has_each_metric_as_it_is_defined() {
    let (_, rest) = PAGE.split_once(MARK).expect("the page has the mark");
    assert_eq!(rest, tables(), "cargo test -p tallymesh --features http --lib write_the_page -- --ignored");
}

#[test]
#[ignore = "writes the tables into docs/metrics.md"]
fn write_the_page() {
    let (head, _) = PAGE.split_once(MARK).expect("the page has the mark");
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/metrics.md");
    std::fs::write(path, format!("{head}{MARK}{}", tables())).unwrap();
}

/// Names as Prometheus asks for: https://prometheus.io/docs/practices/naming/.
#[test]
fn names_follow_the_conventions() {
    let mut names = BTreeSet::new();
    for metric in all() {
        let Definition { name, kind, unit, labels, help } = metric.definition();
        let plain = |word: &str| !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
        assert!(plain(name) && labels.iter().all(|label| plain(label)), "{name}");
        assert!(names.insert((name, unit)), "{name} is defined once");
        for suffix in ["_total", "_info", "_count", "_sum", "_bucket", "_seconds", "_bytes", "_created"] {
            assert!(!name.ends_with(suffix), "{name}: unit and kind add the suffix");
        }
        assert!(unit.is_none_or(|unit| ["seconds", "bytes", "ratio", "versions", "tokens"].contains(&unit)), "{name}");
        assert!(!labels.iter().any(|label| ["key", "le", "job", "instance"].contains(label)), "{name}");
        assert!(kind != Kind::Histogram || unit.is_some(), "{name}");
        assert!(help.ends_with('.') && help.len() <= 200 && !help.contains(['\\', '\n', '|']), "{name}: {help}");
    }
}

/// The rules for alerts, their tests and the dashboard use only metrics that there are.
#[test]
fn alerts_and_dashboard_use_defined_metrics() {
    let files = [
        include_str!("../../docs/alerts.yml"),
        include_str!("../../docs/alerts_test.yml"),
        include_str!("../../docs/dashboards/tallymesh.json"),
        include_str!("../../docs/operation.md"),
    ];
    let mut count = 0;
    for word in files.iter().flat_map(|text| text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_')) {
        if !word.starts_with(&format!("{PREFIX}_")) {
            continue;
        }
        let name = word.strip_suffix("_bucket").unwrap_or(word);
        assert!(PAGE.contains(&format!("| `{name}` |")), "{word} is no metric");
        count += 1;
    }
    assert!(count > 50, "{count} uses were found");
}
