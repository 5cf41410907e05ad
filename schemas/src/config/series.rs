//! `audit_series "NAME" { … }`: a named series. Also all series of a file, those of the audit included.
#![allow(clippy::indexing_slicing, reason = "a position of an enumeration is inside its list")]

use std::num::NonZeroU64;

use hcl::edit::structure::Block;

use crate::bounds;
use crate::config::audit::Audit;
use crate::config::metric::Metric;
use crate::config::model::{MetricsConfig, Monitor, Pace};
use crate::config::report::{Report, quoted};
use crate::config::scope::{Scope, block_at, label};
use crate::config::suggest::did_you_mean;
use crate::config::value::Setting;
use crate::series::{SeriesName, SeriesSpec};
use crate::structure::Kind;

/// A stanza.
pub(super) struct Named {
    pub(super) name: SeriesName,
    pub(super) at: usize,
    kind: Kind,
    monitor: Monitor,
    max_keys: Option<NonZeroU64>,
    /// `None` where the stanza does not say.
    replicate: Option<bool>,
    /// The position of the setting that keeps the series over a restart of the whole cluster.
    pub(super) persist: Option<usize>,
}

/// Reads a stanza. An invalid stanza is only reported.
pub(super) fn read(block: &Block, report: &mut Report<'_>) -> Option<Named> {
    let (text, at) = label(block, report, "logins").unwrap_or(("", block_at(block)));
    let title = if text.is_empty() { "audit_series".to_owned() } else { format!("audit_series {}", quoted(text)) };
    let mut scope = Scope::block(title, block);
    let kind = scope.require("type", report, "\"cidr\"");
    let interval = scope.require("interval", report, "300");
    let windows = scope.require("windows", report, "6");
    let [replicate, persist, max_keys] = ["replicate", "persist", "max_keys"].map(|key| scope.take(key));
    scope.finish(report, "the keys of audit_series are");

    let name = if text.is_empty() { None } else { name(text, at, report) };
    let kinds = [("cidr", Kind::CidrTree), ("string", Kind::GaugeTable)];
    let kind = kind.and_then(|setting| one_of(setting, &kinds, "the types are", report));
    let replicates = [("cluster", true), ("none", false)];
    let replicate = replicate.map(|setting| one_of(setting, &replicates, "a series is replicated by", report));
    let interval = interval.and_then(|setting| number(setting, &bounds::MONITOR_INTERVAL, report));
    let windows = windows.and_then(|setting| number(setting, &bounds::MONITOR_WINDOWS, report));
    let persist = persist.filter(|setting| setting.truth(report) == Some(true)).map(|setting| setting.key_at);
    let max_keys = max_keys.and_then(|setting| setting.bound(report, &bounds::MAX_KEYS));
    let monitor = Monitor { interval: interval?, windows: windows? };
    Some(Named { name: name?, at, kind: kind?, monitor, max_keys, replicate: replicate.flatten(), persist })
}

fn name(text: &str, at: usize, report: &mut Report<'_>) -> Option<SeriesName> {
    let wrong = |error: crate::NameError| report.add(at, "this cannot be the name of a series", error.to_string());
    SeriesName::new(text).map_err(wrong).ok()
}

fn one_of<T: Copy>(setting: Setting<'_>, words: &[(&str, T)], what: &str, report: &mut Report<'_>) -> Option<T> {
    let example = format!("{} = {}", setting.key, quoted(words.first().map_or("", |(word, _)| word)));
    let text = setting.text(report, &example)?.text;
    let found = words.iter().find(|(word, _)| *word == text).map(|(_, value)| *value);
    if found.is_none() {
        let known: Vec<_> = words.iter().map(|(word, _)| *word).collect();
        report.add(setting.at(), format!("unknown {} {}", setting.key, quoted(text)), did_you_mean(text, &known, what));
    }
    found
}

fn number(setting: Setting<'_>, range: &std::ops::RangeInclusive<u32>, report: &mut Report<'_>) -> Option<u32> {
    let count = setting.count(report, &(u64::from(*range.start())..=u64::from(*range.end())), None)?;
    u32::try_from(count).ok()
}

/// The windows of the audit where the file names metrics and no windows: Momentum's own.
const DEFAULT_MONITOR: Monitor = Monitor { interval: 300, windows: 6 };

/// What the inbound audit always counts.
const INBOUND: [Metric; 3] = [Metric::Connect, Metric::Reception, Metric::Rejection];

/// All series of a file: those of the audit, metric by metric, and then the named ones.
pub(super) fn all(
    audit: &Audit,
    metrics: Option<&MetricsConfig>,
    named: &[Named],
    report: &mut Report<'_>,
) -> Vec<SeriesSpec> {
    let shared = |metric| metrics.is_some_and(|metrics| metrics.metrics.contains(&metric));
    let pace = metrics.map_or(Pace::default(), |metrics| metrics.pace);
    let spec = |name, kind, monitor: Monitor, replicate, persist| SeriesSpec {
        replicate,
        persist,
        max_delay: pace.max_delay,
        max_pending: pace.max_pending,
        ..SeriesSpec::new(name, kind, monitor.interval, monitor.windows)
    };
    let monitors = &audit.monitors;
    let audits = !monitors.is_empty() || Metric::ALL.into_iter().any(shared);
    let monitors = if monitors.is_empty() { &[DEFAULT_MONITOR] } else { monitors.as_slice() };
    let mut all = Vec::new();
    for metric in Metric::ALL.into_iter().filter(|metric| audits && (shared(*metric) || INBOUND.contains(metric))) {
        let name = metric.series();
        let max_keys = audit.max_keys;
        all.extend(monitors.iter().map(|monitor| {
            let spec = spec(name.clone(), Kind::CidrTree, *monitor, shared(metric), false);
            SeriesSpec { max_keys, ..spec }
        }));
    }
    let switched_on = metrics.is_some_and(|metrics| metrics.audit_series);
    for (n, series) in named.iter().enumerate() {
        if let Some(first) = named[..n].iter().find(|first| first.name == series.name) {
            let message =
                format!("audit_series \"{}\" stands twice, first on line {}", series.name, report.line(first.at));
            report.add(series.at, message, "keep one of them");
        }
        if series.replicate == Some(true) && !switched_on {
            let message = format!("audit_series \"{}\" is replicated, and named series are not", series.name);
            report.add(
                series.at,
                message,
                "switch them on, in cluster: Replicate \"metrics\" { parameters = \"audit_series\" }",
            );
        }
        let replicate = series.replicate.unwrap_or(switched_on);
        let spec = spec(series.name.clone(), series.kind, series.monitor, replicate, series.persist.is_some());
        all.push(SeriesSpec { max_keys: series.max_keys, ..spec });
    }
    let windows: u64 = all.iter().map(|spec| u64::from(spec.windows)).sum();
    if windows > bounds::WINDOWS as u64 {
        let message = format!("{windows} windows of all series together, there may be {}", bounds::WINDOWS);
        report.add(0, message, "keep fewer windows of each, or longer ones");
    }
    all
}
