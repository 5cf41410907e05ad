//! The bounds at which a running node drops or refuses something (I14). The node logs each bound once when it is reached,
//! counts it, and shows it in `tally cluster info`.
//!
//! Code that reaches a bound counts it in a [`Tally`]. The node's driver reads all tallies about once a second and keeps a
//! [`Log`] of the bounds that were reached and when.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::{Deserialize, Serialize};

use crate::bounds;

macro_rules! bounds {
    ($($(#[$doc:meta])* $variant:ident => $name:literal, $effect:literal;)*) => {
        /// A bound at which a running node drops or refuses something.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub enum Bound {
            $($(#[$doc])* $variant,)*
        }

        impl Bound {
            /// Every bound.
            pub const ALL: [Self; [$(Self::$variant),*].len()] = [$(Self::$variant),*];

            /// Its name, as in logs, `cluster info` and docs/bounds.md.
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// The effect of reaching it.
            pub fn effect(self) -> &'static str {
                match self { $(Self::$variant => $effect,)* }
            }
        }
    };
}

bounds! {
    /// [`bounds::ACTORS`] of one structure.
    Actors => "actors", "this node does not take the rows of further runs in this object";
    /// [`bounds::NODES`].
    Nodes => "nodes", "this node does not take what further nodes count";
    /// [`bounds::ROWS_PER_ACTOR`], of this node's own rows.
    Rows => "rows", "what this node counts of further keys stays on this node";
    /// [`bounds::TOMBSTONES`].
    Tombstones => "tombstones", "this node does not take note that further nodes were forgotten";
    /// [`bounds::SEEN_ENTRIES`].
    SeenEntries => "seen entries", "this node does not say what it has of this cache, so no node retires its rows";
    /// [`bounds::WANTS`].
    Wants => "wants", "this node asks for missing rows later";
    /// [`bounds::RUN_QUESTIONS`].
    RunQuestions => "run questions", "a peer is not asked about runs of its name that other nodes name";
    /// [`bounds::EVENTS`].
    Events => "events", "older events of the replication are not logged";
    /// [`bounds::SHARED_NAMES`].
    SharedNames => "shared names", "further hard limits are not asked for, and not lent";
    /// Processes with which the node exchanges shares of limits.
    Seats => "seats", "this node does not exchange shares of limits with further processes";
    /// [`bounds::WATCHED_CHANGES`].
    WatchedChanges => "watched changes", "a watcher that reads too slowly does not get older changes";
    /// [`bounds::ADMIN_STAYS`].
    AdminStays => "admin holds and watches", "the admin socket refuses further holds and watches";
    /// [`bounds::HTTP_CONNECTIONS`].
    HttpConnections => "http connections", "a new HTTP connection ends the one whose client has been silent for the longest time";
    /// Members of the transport.
    Members => "members", "this node does not take further members";
    /// Names that one member introduces to another.
    Introduced => "introduced names", "this node does not learn further names from this member";
    /// Handshakes in progress.
    Handshakes => "handshakes", "this node refuses further connections until one of the handshakes ends";
    /// Addresses of a seed.
    SeedAddresses => "seed addresses", "this node does not try further addresses of a seed";
    /// Refusals that wait for the reader.
    RefusedEvents => "refused events", "refused connections are counted and not told to the driver";
    /// Messages that wait for the task that owns the links.
    MeshInputs => "mesh inputs", "membership datagrams are dropped";
    /// [`bounds::SETTINGS`].
    Settings => "settings", "this node does not compare further settings with other nodes";
    /// A configured `max_keys` or `max_bytes`.
    Budget => "budget", "further keys do not fit: changes of this node fail, and rows and entries of other nodes wait";
}

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// How often each bound was reached. Any thread may count.
#[derive(Debug)]
pub struct Tally([AtomicU64; Bound::ALL.len()]);

impl Default for Tally {
    fn default() -> Self {
        Self(std::array::from_fn(|_| AtomicU64::new(0)))
    }
}

impl Tally {
    /// Counts that a bound was reached: something was dropped or refused.
    pub fn reached(&self, bound: Bound) {
        self.reached_times(bound, 1);
    }

    /// Counts that a bound was reached `times` times.
    pub fn reached_times(&self, bound: Bound, times: u64) {
        if let Some(count) = self.0.get(bound as usize) {
            count.fetch_add(times, Ordering::Relaxed);
        }
    }

    /// How often a bound was reached.
    pub fn times(&self, bound: Bound) -> u64 {
        self.0.get(bound as usize).map_or(0, |count| count.load(Ordering::Relaxed))
    }

    /// The bounds that were reached, with their `limit`.
    pub fn reports(&self, limit: impl Fn(Bound) -> u64) -> Vec<Report> {
        let reached = Bound::ALL.into_iter().map(|bound| (bound, self.times(bound))).filter(|(_, times)| *times > 0);
        reached.map(|(bound, times)| Report { bound, place: None, limit: limit(bound), times }).collect()
    }
}

/// A report that a bound was reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// The bound.
    pub bound: Bound,
    /// The object in which it was reached; `None` for a bound of the whole node.
    pub place: Option<String>,
    /// Its value.
    pub limit: u64,
    /// How often it was reached since the start.
    pub times: u64,
}

/// How often and when a bound was reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reached {
    /// The bound's value.
    pub limit: u64,
    /// How often it was reached.
    pub times: u64,
    /// When the node first noticed it, in milliseconds since 1970.
    pub first_ms: u64,
    /// When the node last noticed it.
    pub last_ms: u64,
    /// The number in the last report.
    reported: u64,
}

/// The reached bounds, by bound and place. At most [`bounds::BOUND_PLACES`] entries: further places are counted together,
/// without their names.
#[derive(Debug, Clone, Default)]
pub struct Log(BTreeMap<(Bound, Option<String>), Reached>);

impl Log {
    /// Records a report. Returns whether the bound was reached since the last one.
    pub fn note(&mut self, unix_ms: u64, report: Report) -> bool {
        let Report { bound, mut place, limit, times } = report;
        if self.0.len() >= bounds::BOUND_PLACES && !self.0.contains_key(&(bound, place.clone())) {
            place = None;
        }
        let new = Reached { limit, times: 0, first_ms: unix_ms, last_ms: unix_ms, reported: 0 };
        let reached = self.0.entry((bound, place)).or_insert(new);
        // A lower count started again from zero, together with its object.
        let more = if times < reached.reported { times } else { times - reached.reported };
        reached.reported = times;
        if more > 0 {
            (reached.times, reached.last_ms) = (reached.times.saturating_add(more), unix_ms);
        }
        more > 0
    }

    /// All entries, in order of bound and place.
    pub fn iter(&self) -> impl Iterator<Item = (Bound, Option<&str>, &Reached)> {
        self.0.iter().map(|((bound, place), reached)| (*bound, place.as_deref(), reached))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(times: u64) -> Report {
        Report { bound: Bound::Actors, place: Some("inbound_cidr".to_owned()), limit: 4096, times }
    }

    #[test]
    fn names_differ() {
        let mut names: Vec<_> = Bound::ALL.into_iter().map(Bound::name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), Bound::ALL.len());
    }

    #[test]
    fn a_tally_reports_reached_bounds() {
        let tally = Tally::default();
        assert_eq!(tally.reports(|_| 7), []);
        for (at, bound) in Bound::ALL.into_iter().enumerate() {
            assert_eq!(bound as usize, at);
            tally.reached(bound);
            tally.reached_times(bound, 2);
            assert_eq!(tally.times(bound), 3);
        }
        assert_eq!(tally.reports(|_| 7).len(), Bound::ALL.len());
    }

    #[test]
    fn a_log_knows_the_first_and_the_last_time() {
        let mut log = Log::default();
        assert!(log.note(1000, report(2)));
        assert!(!log.note(2000, report(2)), "nothing happened since");
        assert!(log.note(3000, report(5)));
        // The object was dropped and created again.
        assert!(log.note(4000, report(1)));
        let all: Vec<_> = log.iter().map(|(bound, place, r)| (bound, place, r.times, r.first_ms, r.last_ms)).collect();
        assert_eq!(all, [(Bound::Actors, Some("inbound_cidr"), 6, 1000, 4000)]);
    }

    #[test]
    fn a_log_is_bounded() {
        let mut log = Log::default();
        for place in 0..100_000 {
            log.note(1, Report { place: Some(place.to_string()), ..report(1) });
        }
        assert!(log.0.len() <= bounds::BOUND_PLACES + 1);
    }
}
