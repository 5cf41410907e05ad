//! `limits { … }`: throttles, and the maxima of open connections.
#![allow(clippy::indexing_slicing, reason = "each setting has at least one word")]

use std::time::Duration;

use hcl::edit::structure::Block;

use crate::actor::NodeName;
use crate::bounds;
use crate::config::model::RECLAIM_AFTER;
use crate::config::model::{InboundMaximum, LimitsConfig, NamedPermits, NamedThrottle, OutboundLimits};
use crate::config::outbound_scope::OutboundScope;
use crate::config::report::{Report, quoted};
use crate::config::scope::{Scope, block_at, label, no_label};
use crate::config::suggest::did_you_mean;
use crate::config::value::Setting;
use crate::key;
use crate::rate::Rate;
use crate::throttle::{OnPartition, Strength, ThrottleSpec};

/// Throttles and scopes that a file may have.
const ENTRIES: usize = 4096;

/// A scope from its name.
type NewScope = fn(String) -> OutboundScope;

pub(super) fn read(block: &Block, report: &mut Report<'_>) -> LimitsConfig {
    no_label(block, report);
    let mut scope = Scope::block("limits".to_owned(), block);
    let [founders, reclaim_after, stand_in] = ["founders", "reclaim_after", "stand_in"].map(|key| scope.take(key));
    let [throttles, pools, globals, domains, groups] =
        ["throttle", "permits", "global", "domain", "binding_group"].map(|name| scope.take_blocks(name));
    let [bindings, hosts, inbound] = ["binding", "host", "inbound"].map(|name| scope.take_blocks(name));
    scope.finish(report, "the keys and blocks of limits are");
    let mut config = LimitsConfig {
        founders: founders.map_or(Vec::new(), |setting| founder_names(setting, report)),
        reclaim_after: reclaim_after.and_then(|setting| reclaim(setting, report)).unwrap_or(RECLAIM_AFTER),
        stand_in: stand_in.and_then(|setting| setting.truth(report)).unwrap_or(true),
        throttles: Vec::new(),
        permits: Vec::new(),
        outbound: Vec::new(),
        inbound: Vec::new(),
    };
    let all = throttles.len() + pools.len() + domains.len() + groups.len() + bindings.len() + hosts.len();
    if all > ENTRIES {
        report.add(
            block_at(block),
            format!("{all} throttles and scopes, there may be {ENTRIES}"),
            "use \"*\" for all alike",
        );
        return config;
    }
    for block in throttles {
        if let Some(throttle) = throttle(block, &config, report) {
            if config.throttles.iter().any(|other| other.name == throttle.name) {
                report.add(
                    block_at(block),
                    format!("throttle {} stands twice", quoted(&throttle.name)),
                    "keep one of them",
                );
            }
            config.throttles.push(throttle);
        }
    }
    for block in pools {
        permits(block, &mut config, report);
    }
    let kinds: [(Vec<&Block>, NewScope); 4] = [
        (domains, OutboundScope::Domain),
        (groups, OutboundScope::BindingGroup),
        (bindings, OutboundScope::Binding),
        (hosts, OutboundScope::Host),
    ];
    for block in globals {
        no_label(block, report);
        outbound(block, OutboundScope::Global, "global".to_owned(), &mut config, report);
    }
    for (blocks, scope) in kinds {
        for block in blocks {
            let Some((name, at)) = label(block, report, "*") else { continue };
            let scope = scope(name.to_owned()).canonical();
            let title = format!("{} {}", block.ident.as_str(), quoted(name));
            match scope {
                Ok(scope) => outbound(block, scope, title, &mut config, report),
                Err(error) => report.add(at, format!("bad name of {title}"), error.to_string()),
            }
        }
    }
    for block in inbound {
        config.inbound.extend(inbound_maximum(block, report));
    }
    config
}

fn founder_names(setting: Setting<'_>, report: &mut Report<'_>) -> Vec<NodeName> {
    let texts = setting.texts(report, "founders = [\"relay-0-1\", \"relay-0-2\"]");
    if texts.len() > bounds::FOUNDERS {
        let message = format!("{} founders, there may be {}", texts.len(), bounds::FOUNDERS);
        report.add(setting.at(), message, "list the steady nodes: the others borrow from them");
        return Vec::new();
    }
    let mut names: Vec<NodeName> = Vec::new();
    for text in texts {
        match NodeName::new(text.text) {
            Ok(name) if names.contains(&name) => {
                report.add(text.at - 1, format!("{} stands twice", quoted(text.text)), "keep one of them")
            }
            Ok(name) => names.push(name),
            Err(error) => report.add(text.at - 1, format!("bad node name {}", quoted(text.text)), error.to_string()),
        }
    }
    names
}

fn reclaim(setting: Setting<'_>, report: &mut Report<'_>) -> Option<Duration> {
    let text = setting.text(report, "reclaim_after = \"30s\"")?.text;
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let unit = match unit {
        "s" => Some(1),
        "m" => Some(60),
        "h" => Some(3600),
        _ => None,
    };
    let time = number.parse::<u64>().ok().zip(unit).and_then(|(n, unit)| n.checked_mul(unit)).map(Duration::from_secs);
    if time.is_none_or(|time| !bounds::RECLAIM_AFTER.contains(&time)) {
        let help = "write a whole number and s, m or h, from \"1s\" to \"24h\"";
        report.add(setting.at(), format!("bad reclaim_after {}", quoted(text)), help);
        return None;
    }
    time
}

/// The keys of a throttle, independent of its name.
struct Keys<'a> {
    burst: Option<Setting<'a>>,
    strength: Option<Setting<'a>>,
    on_partition: Option<Setting<'a>>,
    epsilon: Option<Setting<'a>>,
}

impl<'a> Keys<'a> {
    fn take(scope: &mut Scope<'a>) -> Self {
        let [burst, strength] = ["burst", "strength"].map(|key| scope.take(key));
        let [on_partition, epsilon] = ["on_partition", "epsilon"].map(|key| scope.take(key));
        Self { burst, strength, on_partition, epsilon }
    }

    /// The throttle for a rate.
    fn spec(&self, setting: Setting<'_>, config: &LimitsConfig, report: &mut Report<'_>) -> Option<ThrottleSpec> {
        let text = setting.text(report, &format!("{} = \"300/5m\"", setting.key))?.text;
        let rate = text
            .parse::<Rate>()
            .map_err(|error| report.add(setting.at(), format!("bad rate {}", quoted(text)), error.to_string()))
            .ok()?;
        let burst = self.burst.and_then(|burst| burst.count(report, &(1..=Rate::TOKENS), None));
        let rate = burst
            .and_then(|burst| u64::try_from(burst).ok())
            .and_then(|burst| rate.with_burst(burst).ok())
            .unwrap_or(rate);
        let strength = match self.strength {
            None => Strength::Soft,
            Some(setting) => word(setting, &[Strength::Soft, Strength::Hard], Strength::name, report)?,
        };
        if let Some(setting) = self.strength.filter(|_| strength == Strength::Hard && config.founders.is_empty()) {
            let help = "add founders = [\"NODE\", …] to limits, on all nodes alike: a hard limit is divided among them";
            report.add(setting.at(), "a hard limit without founders", help);
        }
        let on_partition = match self.on_partition {
            None => strength.on_partition(),
            Some(setting) => {
                let all = [OnPartition::FairShare, OnPartition::FailClosed, OnPartition::FailOpen];
                word(setting, &all, OnPartition::name, report)?
            }
        };
        let epsilon = self.epsilon.and_then(|setting| setting.fraction(report)).unwrap_or(ThrottleSpec::EPSILON);
        if let Some(setting) = self.epsilon.filter(|_| strength == Strength::Hard) {
            report.add(
                setting.key_at,
                "\"epsilon\" does not apply to a hard limit",
                "take it out: a hard limit is never overshot",
            );
        }
        Some(ThrottleSpec { rate, strength, on_partition, epsilon })
    }
}

/// Reads one of a few words.
pub(super) fn word<T: Copy>(
    setting: Setting<'_>,
    all: &[T],
    name: fn(T) -> &'static str,
    report: &mut Report<'_>,
) -> Option<T> {
    let names: Vec<_> = all.iter().map(|value| name(*value)).collect();
    let text = setting.text(report, &format!("{} = \"{}\"", setting.key, names[0]))?.text;
    let found = all.iter().copied().find(|value| name(*value) == text);
    if found.is_none() {
        let help = did_you_mean(text, &names, "the words are");
        report.add(setting.at(), format!("unknown {} {}", setting.key, quoted(text)), help);
    }
    found
}

fn throttle(block: &Block, config: &LimitsConfig, report: &mut Report<'_>) -> Option<NamedThrottle> {
    let (name, at) = label(block, report, "campaign")?;
    let mut scope = Scope::block(format!("throttle {}", quoted(name)), block);
    let rate = scope.require("rate", report, "\"300/5m\"");
    let keys = Keys::take(&mut scope);
    scope.finish(report, "the keys of throttle are");
    if let Err(error) = key::throttle(name) {
        report.add(at, "this cannot be the name of a throttle", error.to_string());
        return None;
    }
    Some(NamedThrottle { name: name.to_owned(), spec: keys.spec(rate?, config, report)? })
}

fn permits(block: &Block, config: &mut LimitsConfig, report: &mut Report<'_>) {
    let Some((name, at)) = label(block, report, "sessions") else { return };
    let mut scope = Scope::block(format!("permits {}", quoted(name)), block);
    let maximum = scope.require("maximum", report, "100");
    scope.finish(report, "the key of permits is");
    let maximum = maximum.and_then(|setting| setting.count(report, &bounds::PERMITS, None));
    let Some(maximum) = maximum.and_then(|maximum| u64::try_from(maximum).ok()) else { return };
    if let Err(error) = key::throttle(name) {
        report.add(at, "this cannot be the name of permits", error.to_string());
        return;
    }
    if config.founders.is_empty() {
        let help = "add founders = [\"NODE\", …] to limits, on all nodes alike: permits are divided among them";
        report.add(block_at(block), "permits without founders", help);
    }
    let taken = config.throttles.iter().map(|throttle| &throttle.name);
    if taken.chain(config.permits.iter().map(|permits| &permits.name)).any(|other| other == name) {
        let message = format!("the name {} of permits stands twice", quoted(name));
        report.add(block_at(block), message, "a name is of one throttle or of one pool of permits: rename one");
    }
    config.permits.push(NamedPermits { name: name.to_owned(), maximum });
}

fn outbound(block: &Block, at: OutboundScope, title: String, config: &mut LimitsConfig, report: &mut Report<'_>) {
    let mut scope = Scope::block(title.clone(), block);
    let [messages, connections] =
        ["cluster_outbound_throttle_messages", "cluster_outbound_throttle_connections"].map(|key| scope.take(key));
    let maxima = [
        "cluster_max_outbound_connections",
        "cluster_scope_max_outbound_connections",
        "cluster_server_max_outbound_connections",
    ];
    let settings = maxima.map(|key| scope.take(key));
    let keys = Keys::take(&mut scope);
    scope.finish(report, "the keys of a scope are");
    if config.outbound.iter().any(|other| other.scope == at) {
        report.add(block_at(block), format!("{title} stands twice"), "keep one of them, with the settings of both");
        return;
    }
    let rates = matches!(at, OutboundScope::Global | OutboundScope::Domain(_) | OutboundScope::BindingGroup(_));
    for setting in [messages, connections].into_iter().flatten().filter(|_| !rates) {
        let message = format!("\"{}\" does not apply to {title}", setting.key);
        report.add(setting.key_at, message, "rates have the scopes global, domain and binding_group");
    }
    let applies = |key: &str| match key {
        "cluster_max_outbound_connections" => {
            matches!(at, OutboundScope::Domain(_) | OutboundScope::Binding(_) | OutboundScope::BindingDomain(..))
        }
        "cluster_server_max_outbound_connections" => at == OutboundScope::Global,
        _ => !matches!(at, OutboundScope::Binding(_)),
    };
    let mut maximum = None;
    for setting in settings.into_iter().flatten() {
        if !applies(setting.key) {
            let help = "cluster_server_max_… is of global, cluster_max_… of domain and binding, cluster_scope_max_… of the others";
            report.add(setting.key_at, format!("\"{}\" does not apply to {title}", setting.key), help);
            continue;
        }
        let count = setting.count(report, &(0..=u64::from(u32::MAX)), Some(-1));
        // The smaller of the two applies; -1 means no bound.
        let count = count.and_then(|count| u64::try_from(count).ok());
        maximum = [maximum, count].into_iter().flatten().min();
    }
    let mut spec = |setting: Option<Setting<'_>>| setting.and_then(|setting| keys.spec(setting, config, report));
    let limits = OutboundLimits { messages: spec(messages), connections: spec(connections), maximum, scope: at };
    config.outbound.push(limits);
}

fn inbound_maximum(block: &Block, report: &mut Report<'_>) -> Option<InboundMaximum> {
    let (text, at) = label(block, report, "/24")?;
    let mut scope = Scope::block(format!("inbound {}", quoted(text)), block);
    let maximum = scope.require("max_connections", report, "20");
    let version = scope.take("ip_version");
    scope.finish(report, "the keys of inbound are");
    let maximum = maximum?.count(report, &(0..=u64::from(u32::MAX)), None).and_then(|count| u64::try_from(count).ok());
    let version = version.and_then(|setting| setting.count(report, &(4..=6), None));
    let len = text.strip_prefix('/').and_then(|digits| digits.parse::<u8>().ok()).filter(|len| *len <= 128);
    let Some(len) = len else {
        report.add(
            at,
            format!("{} is not a prefix length", quoted(text)),
            "write inbound \"/24\" { max_connections = 20 }",
        );
        return None;
    };
    // A prefix that is valid in both versions is IPv4's, up to a whole address, unless the version is given.
    let v6 = version.map_or(len > 32, |version| version == 6);
    if !v6 && len > 32 {
        report.add(at, format!("an IPv4 address has 32 bits, not {len}"), "write ip_version = 6, or a shorter prefix");
        return None;
    }
    Some(InboundMaximum { prefix_len: len, v6, maximum: maximum? })
}
