//! Compares the configuration of hard limits between nodes. The proof of hard limits requires that it is equal.
//!
//! Each process writes one row with the fingerprint of its hard limits before any other fact. A node ignores the claims,
//! supports and loans of a process with another fingerprint, as it ignores those of a process with another list of founders. So
//! a claim begins only when all founders have the same configuration, and shares of two configurations are never used at the
//! same time. A process that sees another configuration also writes its own limits one by one, so that both sides can report
//! the differences.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use tallymesh_schemas::{NodeName, StructureId, ThrottleSpec};

use crate::difference::Difference;
use crate::limiter::escrow::founding::Founding;
use crate::limiter::fact::Process;
use crate::time::Time;

/// The most limits that one process publishes, and that this node keeps of another process.
const VALUES: usize = 64;

/// The most processes whose configuration is kept.
const PROCESSES: usize = 1024;

/// The most differences that are listed.
const DIFFERENCES: usize = 64;

/// The longest value, in bytes: a key holds it beside its prefix and a name.
const VALUE_BYTES: usize = 200;

/// The hard limits of one process.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Agreement {
    values: BTreeMap<String, String>,
}

impl Agreement {
    /// The configuration of the founders, without limits.
    pub fn new(founding: &Founding) -> Self {
        let mut values = BTreeMap::new();
        let names = founding.founders().iter().map(NodeName::as_str).collect::<Vec<_>>().join(",");
        let names = if names.len() > VALUE_BYTES { format!("{:016x}", StructureId::of(&names).0) } else { names };
        values.insert("founders".to_owned(), names);
        values.insert("reclaim_after".to_owned(), format!("{}ms", founding.reclaim_after().as_millis()));
        values.insert("stand_in".to_owned(), founding.stands_in().to_string());
        Self { values }
    }

    /// Adds a throttle.
    pub fn throttle(&mut self, name: &str, spec: &ThrottleSpec) {
        let rate = spec.rate;
        let mut value = String::new();
        let _ = write!(value, "{}/{}ms,burst={}", rate.tokens(), rate.period().as_millis(), rate.burst());
        let _ = write!(value, ",{}", spec.on_partition.name());
        self.values.insert(format!("throttle {name}"), value);
    }

    /// Adds a pool of permits.
    pub fn permits(&mut self, name: &str, maximum: u64) {
        self.values.insert(format!("permits {name}"), maximum.to_string());
    }

    /// The fingerprint: equal for processes with equal configurations.
    pub(super) fn fingerprint(&self) -> u64 {
        let mut text = String::new();
        for (name, value) in &self.values {
            let _ = writeln!(text, "{name} {value}");
        }
        StructureId::of(&text).0
    }

    /// The limits that are published one by one.
    pub(super) fn published(&self) -> impl Iterator<Item = (&String, &String)> {
        self.values.iter().take(VALUES)
    }
}

#[derive(Clone, Debug)]
struct Other {
    fingerprint: Option<u64>,
    values: BTreeMap<String, String>,
    seen: Time,
}

/// What this node knows of the configurations of other processes.
#[derive(Clone, Debug, Default)]
pub(super) struct Configurations {
    others: BTreeMap<Process, Other>,
}

impl Configurations {
    fn entry(&mut self, process: &Process, now: Time) -> Option<&mut Other> {
        if !self.others.contains_key(process) {
            if self.others.len() >= PROCESSES {
                return None;
            }
            self.others.insert(process.clone(), Other { fingerprint: None, values: BTreeMap::new(), seen: now });
        }
        let other = self.others.get_mut(process)?;
        other.seen = now;
        Some(other)
    }

    /// Records the fingerprint that a process published.
    pub(super) fn note(&mut self, process: &Process, now: Time, fingerprint: u64) {
        if let Some(other) = self.entry(process, now) {
            other.fingerprint = Some(fingerprint);
        }
    }

    /// Records one limit that a process published.
    pub(super) fn note_value(&mut self, process: &Process, now: Time, name: &str, value: &str) {
        let Some(other) = self.entry(process, now) else { return };
        if other.values.len() < VALUES || other.values.contains_key(name) {
            other.values.insert(name.to_owned(), value.to_owned());
        }
    }

    /// Whether a process is known to have another configuration. A process of an older build publishes none.
    pub(super) fn differs(&self, process: &Process, ours: u64) -> bool {
        self.others.get(process).and_then(|other| other.fingerprint).is_some_and(|theirs| theirs != ours)
    }

    /// Whether any process is known to have another configuration.
    pub(super) fn any_differs(&self, ours: u64) -> bool {
        self.others.values().filter_map(|other| other.fingerprint).any(|theirs| theirs != ours)
    }

    /// Forgets silent processes: their rows are gone.
    pub(super) fn forget(&mut self, now: Time, silent: Duration) {
        self.others.retain(|_, other| now.since(other.seen) <= silent);
    }

    /// The differences that are known so far.
    pub(super) fn differences(&self, ours: &Agreement) -> Vec<Difference> {
        let fingerprint = ours.fingerprint();
        let mut all = Vec::new();
        for (process, other) in self.others.iter().filter(|(process, _)| self.differs(process, fingerprint)) {
            let difference = |what: &str, here: Option<&String>, there: Option<&String>| Difference {
                node: process.node.clone(),
                what: what.to_owned(),
                here: here.cloned().unwrap_or_default(),
                there: there.cloned().unwrap_or_default(),
            };
            // Values arrive one by one, and a process publishes only the first ones.
            let complete = other.values.contains_key(END);
            let names = ours.values.keys().chain(other.values.keys()).filter(|name| *name != END);
            let mut names: Vec<_> = names.collect();
            names.sort();
            names.dedup();
            let differ = names.into_iter().filter_map(|name| {
                let (here, there) = (ours.values.get(name), other.values.get(name));
                (here != there && (complete || there.is_some())).then(|| difference(name, here, there))
            });
            let before = all.len();
            all.extend(differ);
            if all.len() == before && complete {
                let text = format!("{fingerprint:016x}");
                let theirs = other.fingerprint.map(|theirs| format!("{theirs:016x}"));
                all.push(difference("the fingerprint of all hard limits", Some(&text), theirs.as_ref()));
            }
        }
        all.sort();
        all.dedup();
        all.truncate(DIFFERENCES);
        all
    }
}

/// The name of the value that is published last.
pub(super) const END: &str = "~";
