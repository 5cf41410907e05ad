//! A strict reader of the text format of Prometheus, version 0.0.4: it refuses what the format forbids, and what its conventions
//! ask for and is missing.

use std::collections::{BTreeMap, BTreeSet};

/// A metric with its samples.
#[derive(Debug, Default)]
pub(crate) struct Family {
    pub(crate) kind: String,
    /// The values by the text of name and labels.
    pub(crate) samples: BTreeMap<String, f64>,
}

/// Reads a text; an error names the line.
pub(crate) fn parse(text: &str) -> Result<BTreeMap<String, Family>, String> {
    if !text.ends_with('\n') || text.contains('\r') {
        return Err("lines end with a line feed".to_owned());
    }
    let (mut families, mut helped, mut current) = (BTreeMap::<String, Family>::new(), BTreeSet::new(), String::new());
    for line in text.lines() {
        let wrong = |what: &str| format!("{what}: {line}");
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').ok_or_else(|| wrong("no help"))?;
            if !is_name(name) || help.is_empty() || !helped.insert(name.to_owned()) {
                return Err(wrong("a second help, or a bad name"));
            }
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').ok_or_else(|| wrong("no type"))?;
            if !["counter", "gauge", "histogram"].contains(&kind) || !helped.contains(name) {
                return Err(wrong("an unknown type, or no help before it"));
            }
            if (kind == "counter") != name.ends_with("_total") {
                return Err(wrong("counters, and only they, end with _total"));
            }
            let family = Family { kind: kind.to_owned(), ..Family::default() };
            if families.insert(name.to_owned(), family).is_some() {
                return Err(wrong("a second type"));
            }
            name.clone_into(&mut current);
        } else {
            let (name, series, value) = sample(line).ok_or_else(|| wrong("no sample"))?;
            let family = families.get_mut(&current).ok_or_else(|| wrong("a sample without a type"))?;
            let suffix = name.strip_prefix(&current).ok_or_else(|| wrong("a sample of another metric"))?;
            let suffixes: &[&str] = if family.kind == "histogram" { &["_bucket", "_sum", "_count"] } else { &[""] };
            if !suffixes.contains(&suffix) || (family.kind != "gauge" && value < 0.0) {
                return Err(wrong("a bad suffix or value"));
            }
            if family.samples.insert(series.to_owned(), value).is_some() {
                return Err(wrong("a second sample of a series"));
            }
        }
    }
    for (name, family) in &families {
        if family.samples.is_empty() {
            return Err(format!("no sample of {name}"));
        }
        if family.kind == "histogram" {
            check_histogram(name, family)?;
        }
    }
    Ok(families)
}

/// The name, the name with its labels, and the value.
fn sample(line: &str) -> Option<(&str, &str, f64)> {
    let name_len = line.find(['{', ' '])?;
    let (name, rest) = line.split_at(name_len);
    let rest = match rest.strip_prefix('{') {
        Some(labels) => labels_end(labels)?,
        None => rest,
    };
    let series = &line[..line.len() - rest.len()];
    let value = rest.strip_prefix(' ')?;
    let value = match value {
        "+Inf" | "-Inf" | "NaN" => return None,
        value => value.parse().ok()?,
    };
    is_name(name).then_some((name, series, value))
}

/// What follows the labels, if they are well formed and each occurs once.
fn labels_end(mut rest: &str) -> Option<&str> {
    let mut seen = BTreeSet::new();
    loop {
        let (label, value) = rest.split_once("=\"")?;
        let is_label = is_name(label) && !label.contains(':') && !label.starts_with("__");
        if !is_label || !seen.insert(label) {
            return None;
        }
        let mut escaped = false;
        let end = value.char_indices().find(|(_, c)| {
            let ends = *c == '"' && !escaped;
            escaped = *c == '\\' && !escaped;
            ends
        });
        rest = &value[end?.0 + 1..];
        match rest.strip_prefix(',') {
            Some(more) => rest = more,
            None => return rest.strip_prefix('}'),
        }
    }
}

fn is_name(name: &str) -> bool {
    let is_good = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b':';
    name.bytes().all(is_good) && name.bytes().next().is_some_and(|first| !first.is_ascii_digit())
}

/// The buckets of a histogram without labels grow, and the last one holds everything.
fn check_histogram(name: &str, family: &Family) -> Result<(), String> {
    let mut buckets = Vec::new();
    for (series, count) in &family.samples {
        if let Some(limit) = series.strip_prefix(&format!("{name}_bucket{{le=\"")) {
            let limit = limit.trim_end_matches("\"}").replace("+Inf", "inf");
            buckets.push((limit.parse::<f64>().map_err(|error| format!("{series}: {error}"))?, *count));
        }
    }
    buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
    let grows = buckets.is_sorted_by(|a, b| a.1 <= b.1);
    let all = family.samples.get(&format!("{name}_count"));
    let whole = buckets.last().is_some_and(|(limit, count)| limit.is_infinite() && all == Some(count));
    if grows && whole && family.samples.contains_key(&format!("{name}_sum")) {
        return Ok(());
    }
    Err(format!("{name} is no histogram: {family:?}"))
}

#[test]
fn the_reader_is_strict() {
    let good = "# HELP a_total Help.\n# TYPE a_total counter\na_total{x=\"1\",y=\"\\\"}\"} 2\na_total{x=\"2\"} 3\n";
    let families = parse(good).unwrap();
    assert_eq!(families["a_total"].samples["a_total{x=\"2\"}"], 3.0);
    for bad in [
        good.trim_end(),
        "a 1\n",
        "# HELP a Help.\n# TYPE a gauge\n",
        "# TYPE a gauge\na 1\n",
        "# HELP a Help.\n# TYPE a counter\na 1\n",
        "# HELP a_total Help.\n# TYPE a_total gauge\na_total 1\n",
        "# HELP a Help.\n# TYPE a gauge\na 1\na 2\n",
        "# HELP a Help.\n# TYPE a gauge\nb 1\n",
        "# HELP a Help.\n# TYPE a gauge\na{x=\"1\",x=\"2\"} 1\n",
        "# HELP a Help.\n# TYPE a gauge\na{x=\"1} 1\n",
        "# HELP a Help.\n# TYPE a gauge\na{x=\"1\"}1\n",
        "# HELP a Help.\n# TYPE a gauge\na NaN\n",
        "# HELP a Help.\n# TYPE a histogram\na_bucket{le=\"1\"} 2\na_bucket{le=\"+Inf\"} 1\na_sum 1\na_count 1\n",
        "# HELP a Help.\n# TYPE a histogram\na_bucket{le=\"1\"} 1\na_sum 1\na_count 1\n",
    ] {
        assert!(parse(bad).is_err(), "{bad}");
    }
}
