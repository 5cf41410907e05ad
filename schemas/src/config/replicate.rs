//! `Replicate "NAME" { … }`: one replicated object of the cluster.

use std::num::NonZeroU64;

use hcl::edit::structure::Block;

use crate::bounds;
use crate::config::metric::Metric;
use crate::config::model::{CacheConfig, MetricsConfig, Pace, ThrottleClass, ThrottleConfig};
use crate::config::on_dead;
use crate::config::report::{Report, quoted};
use crate::config::scope::{Scope, label};
use crate::config::suggest::{did_you_mean, listed};
use crate::config::value::Setting;
use crate::structure::{Bounds, Class, OnDead, StructureName, StructureSpec};

/// A stanza.
pub(super) struct Replicate {
    pub(super) name: StructureName,
    /// The position of the name.
    pub(super) at: usize,
    /// `None` when name, type and class do not determine it; this is then reported.
    pub(super) what: Option<What>,
}

/// The object that a stanza replicates.
pub(super) enum What {
    Structure(StructureSpec),
    Cache(CacheConfig),
    Metrics(MetricsConfig),
    Throttle(ThrottleConfig),
}

/// The subject of a stanza, before its settings are read.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Subject {
    Class(Class),
    Cache,
    Metrics,
    Throttle(ThrottleClass),
}

/// One entry of `parameters`.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Parameter {
    Snapshot,
    Metric(Metric),
    AuditSeries,
    GaugeCache,
}

/// The settings of a stanza, as far as they could be read.
struct Settings {
    parameters: Vec<Parameter>,
    pace: Pace,
    bounds: Bounds,
    max_keys: Option<NonZeroU64>,
    on_dead: Option<OnDead>,
}

/// A stanza under check, with its wording for messages.
struct Stanza<'a> {
    name: &'a str,
    at: usize,
    title: String,
}

/// Reads a stanza. A stanza without a usable name is only reported.
pub(super) fn read(block: &Block, report: &mut Report<'_>) -> Option<Replicate> {
    let found = label(block, report, "inbound_cidr");
    let (text, at) = found.unwrap_or(("", 0));
    let title = if found.is_some() { format!("Replicate {}", quoted(text)) } else { "Replicate".to_owned() };
    let name = found.and_then(|_| structure_name(text, at, report));
    let mut scope = Scope::block(title.clone(), block);
    let [kind, class, parameters] = ["type", "class", "parameters"].map(|key| scope.take(key));
    let [max_delay, max_pending] = ["max_delay", "max_pending"].map(|key| scope.take(key));
    let [max_size, max_bytes, max_keys, on_dead] =
        ["max_size", "max_bytes", "max_keys", "on_dead"].map(|key| scope.take(key));
    scope.finish(report, "the keys of Replicate are");

    let stanza = Stanza { name: text, at, title };
    let subject = name.as_ref().and_then(|_| stanza.subject(kind, class, report));
    stanza.check_place(max_size, subject, report);
    stanza.check_place(max_bytes, subject, report);
    stanza.check_place(max_keys, subject, report);
    stanza.check_place(on_dead, subject, report);
    let settings = Settings {
        parameters: stanza.parameters(parameters, subject, report),
        pace: pace(max_delay, max_pending, report),
        bounds: Bounds {
            elements: max_size.and_then(|setting| setting.bound(report, &bounds::CACHE_ELEMENTS)),
            bytes: max_bytes.and_then(|setting| setting.bound(report, &bounds::CACHE_BYTES)),
        },
        max_keys: max_keys.and_then(|setting| setting.bound(report, &bounds::MAX_KEYS)),
        on_dead: on_dead.and_then(|setting| on_dead::read(setting, report)),
    };
    let name = name?;
    Some(Replicate { at, what: subject.map(|subject| settings.of(subject, name.clone())), name })
}

fn pace(max_delay: Option<Setting<'_>>, max_pending: Option<Setting<'_>>, report: &mut Report<'_>) -> Pace {
    let max_delay = max_delay.and_then(|setting| setting.seconds(report, &bounds::MAX_DELAY_SECONDS));
    let max_pending = max_pending.and_then(|setting| setting.count(report, &bounds::MAX_PENDING, None));
    let Pace { max_delay: delay, max_pending: pending } = Pace::default();
    Pace {
        max_delay: max_delay.unwrap_or(delay),
        max_pending: max_pending.and_then(|count| usize::try_from(count).ok()).unwrap_or(pending),
    }
}

impl Settings {
    /// The object that a stanza with these settings replicates.
    fn of(&self, subject: Subject, name: StructureName) -> What {
        let Pace { max_delay, max_pending } = self.pace;
        let has = |parameter| self.parameters.contains(&parameter);
        match subject {
            Subject::Class(class) => {
                let on_dead = self.on_dead.unwrap_or(class.on_dead());
                let (max_keys, spec) = (self.max_keys, StructureSpec::new(name, class));
                What::Structure(StructureSpec { max_delay, max_pending, max_keys, on_dead, ..spec })
            }
            Subject::Cache => What::Cache(CacheConfig {
                name,
                snapshot: has(Parameter::Snapshot),
                bounds: self.bounds,
                pace: self.pace,
            }),
            Subject::Metrics => What::Metrics(MetricsConfig {
                metrics: Metric::ALL.into_iter().filter(|metric| has(Parameter::Metric(*metric))).collect(),
                audit_series: has(Parameter::AuditSeries),
                gauge_cache: has(Parameter::GaugeCache),
                pace: self.pace,
            }),
            Subject::Throttle(class) => {
                What::Throttle(ThrottleConfig { class, pace: self.pace, max_keys: self.max_keys })
            }
        }
    }
}

fn structure_name(text: &str, at: usize, report: &mut Report<'_>) -> Option<StructureName> {
    StructureName::new(text)
        .map_err(|error| report.add(at, "this cannot be the name of a replicated object", error.to_string()))
        .ok()
}

impl Stanza<'_> {
    /// The subject that the name, `type` and `class` together determine.
    fn subject(
        &self,
        kind: Option<Setting<'_>>,
        class: Option<Setting<'_>>,
        report: &mut Report<'_>,
    ) -> Option<Subject> {
        let own = Subject::named(self.name);
        match (kind, class) {
            (Some(kind), class) => {
                let text = kind.text(report, "type = \"cache\"")?.text;
                if text != "cache" {
                    let help = if Subject::named(text).is_some() {
                        format!("write class = {}: type is for caches", quoted(text))
                    } else {
                        did_you_mean(text, &["cache"], "take it out, or write the only type there is")
                    };
                    report.add(kind.at(), format!("unknown type {} in {}", quoted(text), self.title), help);
                    return None;
                }
                if let Some(class) = class {
                    report.add(class.key_at, format!("{} has both a type and a class", self.title), "keep one of them");
                    return None;
                }
                if own.is_some() {
                    let help = format!("give the cache another name, or take type out to replicate {}", self.name);
                    report.add(self.at, format!("\"{}\" is a class, it cannot be a cache", self.name), help);
                    return None;
                }
                Some(Subject::Cache)
            }
            (None, Some(class)) => {
                let text = class.text(report, "class = \"outbound_cidr\"")?.text;
                let built = Class::from_name(text).map(Subject::Class);
                if built.is_some() && own.is_none_or(|own| Some(own) == built) {
                    return built;
                }
                let (message, help) = if built.is_some() {
                    let help = format!("take class out, or give the second {text} a name of its own");
                    (format!("\"{}\" is itself a class", self.name), help)
                } else if let Some(subject) = Subject::named(text) {
                    let help = format!("name it so, and take class out: Replicate {} {{}}", quoted(subject.name()));
                    (format!("there is one {text} only"), help)
                } else {
                    let help = match text {
                        "cache" => "write type = \"cache\"".to_owned(),
                        _ => did_you_mean(text, &Class::ALL.map(Class::name), "the classes are"),
                    };
                    (format!("unknown class {} in {}", quoted(text), self.title), help)
                };
                report.add(class.at(), message, help);
                None
            }
            (None, None) => {
                if own.is_none() {
                    let second = "add class = \"outbound_cidr\" for a second object of a class or type = \"cache\" for \
                                  a cache; the classes are";
                    let help = did_you_mean(self.name, &Subject::names(), second);
                    report.add(self.at, format!("{} is neither a class nor given one", quoted(self.name)), help);
                }
                own
            }
        }
    }

    /// Reads the entries of `parameters` that belong to the subject.
    fn parameters(
        &self,
        setting: Option<Setting<'_>>,
        subject: Option<Subject>,
        report: &mut Report<'_>,
    ) -> Vec<Parameter> {
        let mut found: Vec<Parameter> = Vec::new();
        let text = setting.and_then(|setting| setting.text(report, "parameters = \"connect;reception\""));
        let mut readable = setting.is_none() || text.is_some();
        let mut at = text.map_or(0, |text| text.at);
        for entry in text.map_or("", |text| text.text).split(';') {
            let (place, word) = (at + entry.len() - entry.trim_start().len(), entry.trim());
            at += entry.len() + 1;
            match Parameter::named(word) {
                _ if word.is_empty() => {}
                None => {
                    readable = false;
                    let help = did_you_mean(word, &Parameter::all().map(Parameter::name), "the parameters are");
                    report.add(place, format!("unknown parameter {} in {}", quoted(word), self.title), help);
                }
                Some(parameter) if found.contains(&parameter) => {
                    report.add(place, format!("the parameter \"{word}\" stands twice"), "keep one of them");
                }
                Some(parameter) => {
                    found.push(parameter);
                    if parameter != Parameter::Snapshot && subject.is_some_and(|subject| subject != Subject::Metrics) {
                        let message = format!("the parameter \"{word}\" does not apply to {}", self.title);
                        report.add(place, message, "it belongs to Replicate \"metrics\"");
                    }
                }
            }
        }
        let counts = found.iter().any(|parameter| *parameter != Parameter::Snapshot);
        if subject == Some(Subject::Metrics) && readable && !counts {
            let help = "say what: parameters = \"connect;reception;rejection\", or audit_series, or gauge_cache";
            report.add(setting.map_or(self.at, |s| s.at()), format!("{} replicates nothing", self.title), help);
        }
        found
    }

    /// Reports `max_size`, `max_keys` and `on_dead` where they are not allowed.
    fn check_place(&self, setting: Option<Setting<'_>>, subject: Option<Subject>, report: &mut Report<'_>) {
        let (Some(setting), Some(subject)) = (setting, subject) else { return };
        let help = match (setting.key, subject) {
            ("max_size" | "max_bytes", Subject::Cache) | ("on_dead", Subject::Class(_)) => return,
            ("max_keys", Subject::Class(_) | Subject::Throttle(_)) => return,
            ("max_keys", Subject::Cache) => "a full cache removes its oldest entries: write max_size".to_owned(),
            ("max_keys", Subject::Metrics) => "write it in inbound_audit, audit_series or gauge_cache".to_owned(),
            ("max_size" | "max_bytes", _) => "it bounds a cache, and belongs to type = \"cache\"".to_owned(),
            _ => {
                let classes = listed(&Class::ALL.map(Class::name));
                format!("it says what becomes of open connections, and belongs to the classes {classes}")
            }
        };
        report.add(setting.key_at, format!("\"{}\" does not apply to {}", setting.key, self.title), help);
    }
}

impl Subject {
    /// The subject that a name determines without `type` and `class`.
    fn named(name: &str) -> Option<Self> {
        Self::classes().find(|subject| subject.name() == name)
    }

    fn names() -> Vec<&'static str> {
        Self::classes().map(Self::name).collect()
    }

    fn classes() -> impl Iterator<Item = Self> {
        let throttles = ThrottleClass::ALL.into_iter().map(Self::Throttle);
        Class::ALL.into_iter().map(Self::Class).chain(throttles).chain([Self::Metrics])
    }

    fn name(self) -> &'static str {
        match self {
            Self::Class(class) => class.name(),
            Self::Cache => "cache",
            Self::Metrics => "metrics",
            Self::Throttle(class) => class.name(),
        }
    }
}

impl Parameter {
    fn all() -> [Self; 9] {
        let [connect, reception, rejection, delivery, transfail, permfail] = Metric::ALL.map(Self::Metric);
        [
            Self::Snapshot,
            connect,
            reception,
            rejection,
            delivery,
            transfail,
            permfail,
            Self::AuditSeries,
            Self::GaugeCache,
        ]
    }

    fn named(word: &str) -> Option<Self> {
        Self::all().into_iter().find(|parameter| parameter.name() == word)
    }

    fn name(self) -> &'static str {
        match self {
            Self::Snapshot => "snapshot",
            Self::Metric(metric) => metric.name(),
            Self::AuditSeries => "audit_series",
            Self::GaugeCache => "gauge_cache",
        }
    }
}
