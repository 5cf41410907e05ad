//! The configuration that the proof of hard limits rests on, compared between nodes.
//!
//! Each process writes one row with the fingerprint of its hard limits before it writes any other fact. A process with another
//! fingerprint is not talked to: its claims, supports and loans have no effect here, as those of another list of founders have none.
//! So a claim begins only when all founders have the same configuration, and shares of two configurations are never used at the same
//! time. A process that sees another configuration also writes its own limits one by one, so that both sides can say what differs.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use tallymesh_schemas::{NodeName, StructureId, ThrottleSpec};

use super::escrow::Founding;
use super::fact::Seat;
use crate::settings::Difference;
use crate::time::Time;

/// Limits that one process tells and that are kept of another one.
const VALUES: usize = 64;

/// Processes whose configuration is kept.
const SEATS: usize = 1024;

/// Differences that are listed.
const DIFFERENCES: usize = 64;

/// The longest value, in bytes: what a key holds beside its head and a name.
const VALUE_BYTES: usize = 200;

/// The hard limits of one process.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Agreement {
    values: BTreeMap<String, String>,
}

impl Agreement {
    /// Without any limit yet.
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

    /// What is the same for processes that agree.
    pub(super) fn fingerprint(&self) -> u64 {
        let mut text = String::new();
        for (name, value) in &self.values {
            let _ = writeln!(text, "{name} {value}");
        }
        StructureId::of(&text).0
    }

    /// What is told one by one.
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

/// What is known of the configurations of others.
#[derive(Clone, Debug, Default)]
pub(super) struct Configurations {
    others: BTreeMap<Seat, Other>,
}

impl Configurations {
    fn entry(&mut self, seat: &Seat, now: Time) -> Option<&mut Other> {
        if !self.others.contains_key(seat) {
            if self.others.len() >= SEATS {
                return None;
            }
            self.others.insert(seat.clone(), Other { fingerprint: None, values: BTreeMap::new(), seen: now });
        }
        let other = self.others.get_mut(seat)?;
        other.seen = now;
        Some(other)
    }

    /// A process tells the fingerprint of its limits.
    pub(super) fn note(&mut self, seat: &Seat, now: Time, fingerprint: u64) {
        if let Some(other) = self.entry(seat, now) {
            other.fingerprint = Some(fingerprint);
        }
    }

    /// A process tells one of its limits.
    pub(super) fn note_value(&mut self, seat: &Seat, now: Time, name: &str, value: &str) {
        let Some(other) = self.entry(seat, now) else { return };
        if other.values.len() < VALUES || other.values.contains_key(name) {
            other.values.insert(name.to_owned(), value.to_owned());
        }
    }

    /// Whether a process is known to have another configuration. One of an older build does not say.
    pub(super) fn differs(&self, seat: &Seat, ours: u64) -> bool {
        self.others.get(seat).and_then(|other| other.fingerprint).is_some_and(|theirs| theirs != ours)
    }

    /// Whether any process is known to have another configuration.
    pub(super) fn any_differs(&self, ours: u64) -> bool {
        self.others.values().filter_map(|other| other.fingerprint).any(|theirs| theirs != ours)
    }

    /// Forgets processes whose rows are gone.
    pub(super) fn forget(&mut self, now: Time, silent: Duration) {
        self.others.retain(|_, other| now.since(other.seen) <= silent);
    }

    /// What differs, as far as it is told.
    pub(super) fn differences(&self, ours: &Agreement) -> Vec<Difference> {
        let fingerprint = ours.fingerprint();
        let mut all = Vec::new();
        for (seat, other) in self.others.iter().filter(|(seat, _)| self.differs(seat, fingerprint)) {
            let difference = |what: &str, here: Option<&String>, there: Option<&String>| Difference {
                node: seat.node.clone(),
                what: what.to_owned(),
                here: here.cloned().unwrap_or_default(),
                there: there.cloned().unwrap_or_default(),
            };
            // Values come one by one, and only the first ones do.
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

/// The name of the value that is told last.
pub(super) const END: &str = "~";
