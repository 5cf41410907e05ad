//! The whole file: its blocks, and the rules that several of them can break together.

use std::collections::BTreeMap;

use hcl::edit::structure::{Block, Body};

use crate::bounds;
use crate::config::audit::{self, Audit};
use crate::config::caches::{self, Datasource};
use crate::config::gauge;
use crate::config::limits as limiting;
use crate::config::model::{Config, LimitsConfig, OutboundLimits, ThrottleConfig};
use crate::config::node;
use crate::config::replicate::{self, Replicate, What};
use crate::config::report::{ConfigErrors, Report, quoted};
use crate::config::scope::{Scope, block_at, no_label};
use crate::config::series;
use crate::config::suggest::nearest;
use crate::config::syntax;
use crate::structure::{Class, StructureId, StructureName, StructureSpec};

impl Config {
    /// Parses a configuration. Errors use `file` as the file's name; this function opens no file.
    ///
    /// # Errors
    /// All errors of the text, in its order.
    pub fn parse(text: &str, file: &str) -> Result<Self, ConfigErrors> {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        read(&syntax::parse(text, file)?, text, file)
    }
}

fn read(body: &Body, text: &str, file: &str) -> Result<Config, ConfigErrors> {
    let mut report = Report::new(file, text);
    let mut scope = Scope::file(body);
    let node = scope.take_block("node", &mut report, "a file is one node's: keep one");
    let clusters = scope.take_blocks("cluster");
    let audit = scope.take_block("inbound_audit", &mut report, "write all monitors as a list in the first one");
    let datasources = scope.take_blocks("Datasource");
    let named = scope.take_blocks("audit_series");
    let gauges = scope.take_blocks("gauge_cache");
    let limiting = scope.take_block("limits", &mut report, "all limits stand in one block");
    scope.finish(&mut report, "the blocks are");

    let audit = audit.map_or_else(Audit::default, |block| audit::read(block, &mut report));
    let mut config = Config {
        node: node.and_then(|block| node::read(block, &mut report)),
        structures: Vec::new(),
        caches: Vec::new(),
        metrics: None,
        throttles: Vec::new(),
        limits: limiting.map(|block| limiting::read(block, &mut report)),
        monitors: audit.monitors,
        series: Vec::new(),
        gauge_caches: Vec::new(),
        file: file.to_owned(),
    };
    let declared: Vec<_> = datasources.into_iter().filter_map(|block| caches::read(block, &mut report)).collect();
    let declared = unique(declared, &mut report);

    read_clusters(&clusters, &declared, &mut config, &mut report);
    if let (Some(limits), Some(block)) = (&config.limits, limiting) {
        check_structures(limits, block_at(block), &config.structures, &mut report);
    }
    let named: Vec<_> = named.into_iter().filter_map(|block| series::read(block, &mut report)).collect();
    let audited = Audit { monitors: config.monitors.clone(), ..audit };
    config.series = series::all(&audited, config.metrics.as_ref(), &named, &mut report);
    let metrics = config.metrics.as_ref();
    let gauges: Vec<_> = gauges.into_iter().filter_map(|block| gauge::read(block, metrics, &mut report)).collect();
    config.gauge_caches = gauge::unique(gauges, &mut report);
    check_persisted(&config, &named, &mut report);
    report.finish().map(|()| config)
}

/// Reads the `cluster` blocks: what is replicated.
fn read_clusters(
    clusters: &[&Block],
    declared: &BTreeMap<StructureName, usize>,
    config: &mut Config,
    report: &mut Report<'_>,
) {
    let (mut names, mut replicates) = (Names::default(), Vec::new());
    for cluster in clusters {
        no_label(cluster, report);
        let mut scope = Scope::block("cluster".to_owned(), cluster);
        for block in scope.take_blocks("Replicate") {
            if let Some(replicate) = replicate::read(block, report) {
                names.add(replicate.name.clone(), replicate.at, report);
                replicates.push(replicate);
            }
        }
        scope.finish(
            report,
            "Momentum's other cluster settings have no meaning here, take it out; a cluster block holds",
        );
    }
    for Replicate { at, what, .. } in replicates {
        let Some(what) = what else { continue };
        match what {
            What::Structure(spec) => config.structures.push(spec),
            What::Metrics(metrics) => config.metrics = Some(metrics),
            What::Throttle(throttle) => {
                let ThrottleConfig { class, pace, max_keys } = throttle;
                let (max_delay, max_pending) = (pace.max_delay, pace.max_pending);
                let spec = StructureSpec::from(class.class());
                config.structures.push(StructureSpec { max_delay, max_pending, max_keys, ..spec });
                config.throttles.push(throttle);
            }
            What::Cache(cache) => {
                check_declared(&cache.name, at, declared, report);
                config.caches.push(cache);
            }
        }
    }
}

/// Checks that a node that keeps series over a restart has a place to save them.
fn check_persisted(config: &Config, named: &[series::Named], report: &mut Report<'_>) {
    if config.node.as_ref().is_some_and(|node| node.data_dir.is_none()) {
        for (series, at) in named.iter().filter_map(|series| Some((series, series.persist?))) {
            let message =
                format!("audit_series \"{}\" is to outlive a restart, and this node saves nothing", series.name);
            report.add(at, message, "add to the node block: data_dir = \"state\", or leave persist out");
        }
    }
}

/// Checks that all nodes count everything that a limit uses.
fn check_structures(limits: &LimitsConfig, at: usize, structures: &[StructureSpec], report: &mut Report<'_>) {
    let outbound = |needs: &dyn Fn(&OutboundLimits) -> bool| limits.outbound.iter().any(needs);
    let maximum = |limits: &OutboundLimits| limits.maximum.is_some();
    let needs = [
        (Class::SharedNamedThrottles, !limits.throttles.is_empty() || !limits.permits.is_empty()),
        (Class::OutboundMessages, outbound(&|limits| limits.messages.is_some())),
        (Class::OutboundConnections, outbound(&|limits| limits.connections.is_some() || maximum(limits))),
        (Class::InboundCidr, !limits.inbound.is_empty()),
    ];
    for (class, needed) in needs {
        if needed && !structures.iter().any(|spec| spec.name.as_str() == class.name()) {
            let message = format!("limits has limits that {} counts, which is not replicated", class.name());
            report.add(at, message, format!("add to a cluster block: Replicate \"{}\" {{}}", class.name()));
        }
    }
}

/// The names of the replicated objects. Each may occur once.
#[derive(Default)]
struct Names {
    seen: BTreeMap<StructureId, (StructureName, usize)>,
}

impl Names {
    fn add(&mut self, name: StructureName, at: usize, report: &mut Report<'_>) {
        if let Some((first, first_at)) = self.seen.get(&name.id()) {
            let line = report.line(*first_at);
            if *first == name {
                let message = format!("Replicate \"{name}\" stands twice, first on line {line}");
                report.add(at, message, "keep one, with the settings of both");
            } else {
                let message = format!("\"{name}\" and \"{first}\" (line {line}) have the same id on the wire");
                report.add(at, message, "rename one of them, on all nodes");
            }
            return;
        }
        if self.seen.len() == bounds::STRUCTURES {
            let message = format!("more than {} replicated objects", bounds::STRUCTURES);
            report.add(at, message, "put what belongs together into one object, by its keys");
        }
        self.seen.insert(name.id(), (name, at));
    }
}

/// The declared caches by name; a second declaration is reported.
fn unique(declared: Vec<Datasource>, report: &mut Report<'_>) -> BTreeMap<StructureName, usize> {
    let mut first: BTreeMap<StructureName, usize> = BTreeMap::new();
    for Datasource { name, at } in declared {
        if let Some(first) = first.get(&name) {
            let line = report.line(*first);
            report.add(at, format!("Datasource \"{name}\" stands twice, first on line {line}"), "keep one of them");
            continue;
        }
        first.insert(name, at);
    }
    first
}

fn check_declared(name: &StructureName, at: usize, declared: &BTreeMap<StructureName, usize>, report: &mut Report<'_>) {
    if declared.contains_key(name) {
        return;
    }
    let names: Vec<_> = declared.keys().map(StructureName::as_str).collect();
    let help = match nearest(name.as_str(), &names) {
        Some(near) => format!("did you mean {}, which is declared?", quoted(near)),
        None => format!("declare it, outside the cluster block: Datasource \"{name}\" {{}}"),
    };
    report.add(at, format!("the cache \"{name}\" is not declared"), help);
}
