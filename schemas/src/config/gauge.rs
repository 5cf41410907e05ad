//! `gauge_cache "NAME" { … }`: counters by name that expire.

use std::time::Duration;

use hcl::edit::structure::Block;

use crate::bounds;
use crate::config::model::{MetricsConfig, Pace};
use crate::config::report::{Report, quoted};
use crate::config::scope::{Scope, block_at, label};
use crate::config::suggest::did_you_mean;
use crate::gauge::GaugeCacheSpec;

/// A stanza and the position of its name.
pub(super) struct Named {
    pub(super) spec: GaugeCacheSpec,
    pub(super) at: usize,
}

/// Reads a stanza. An invalid stanza is only reported.
pub(super) fn read(block: &Block, metrics: Option<&MetricsConfig>, report: &mut Report<'_>) -> Option<Named> {
    let (text, at) = label(block, report, "logins").unwrap_or(("", block_at(block)));
    let title = if text.is_empty() { "gauge_cache".to_owned() } else { format!("gauge_cache {}", quoted(text)) };
    let mut scope = Scope::block(title, block);
    let [max_size, max_keys, ttl, replicate] = ["max_size", "max_keys", "ttl", "replicate"].map(|key| scope.take(key));
    scope.finish(report, "the keys of gauge_cache are");

    let max_elements = max_size.and_then(|setting| setting.bound(report, &bounds::CACHE_ELEMENTS));
    let max_keys = max_keys.and_then(|setting| setting.bound(report, &bounds::MAX_KEYS));
    let ttl = ttl.and_then(|setting| setting.count(report, &bounds::GAUGE_CACHE_TTL, None));
    let words = ["cluster", "none"];
    let said =
        replicate.and_then(|setting| Some((setting.text(report, "replicate = \"cluster\"")?.text, setting.at())));
    if let Some((word, at)) = said.filter(|(word, _)| !words.contains(word)) {
        let help = did_you_mean(word, &words, "a gauge cache is replicated by");
        report.add(at, format!("unknown replicate {}", quoted(word)), help);
    }
    if text.is_empty() {
        return None;
    }
    let wrong = |error: crate::NameError| report.add(at, "this cannot be the name of a gauge cache", error.to_string());
    let spec = GaugeCacheSpec::new(text).map_err(wrong).ok()?;
    let shared = metrics.filter(|metrics| metrics.gauge_cache);
    let Pace { max_delay, max_pending } = shared.map_or(Pace::default(), |metrics| metrics.pace);
    let spec = GaugeCacheSpec {
        max_elements,
        max_keys,
        ttl: Duration::from_secs(ttl.and_then(|seconds| u64::try_from(seconds).ok()).unwrap_or(0)),
        replicate: said.map_or(shared.is_some(), |(word, _)| word == "cluster"),
        max_delay,
        max_pending,
        ..spec
    };
    Some(Named { spec, at })
}

/// The gauge caches, each name once.
pub(super) fn unique(named: Vec<Named>, report: &mut Report<'_>) -> Vec<GaugeCacheSpec> {
    let mut specs: Vec<GaugeCacheSpec> = Vec::new();
    for Named { spec, at } in named {
        if specs.iter().any(|other| other.name == spec.name) {
            report.add(at, format!("gauge_cache \"{}\" stands twice", spec.name), "keep one of them");
        } else {
            specs.push(spec);
        }
    }
    specs
}
