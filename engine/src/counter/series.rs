//! A series, shared by handles and driver: events counted in windows of time.
//!
//! Each window is a [`Structure`] of its own, numbered by absolute time. The replica turns the ring. It creates the next
//! window before its time, so that rows of the window can be replicated from the first one on. It drops the window that has
//! aged out; expiry needs nothing else.

use std::collections::VecDeque;
use std::fmt;
use std::num::NonZeroU64;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use ipnet::IpNet;
use tallymesh_schemas::key::{self, KeyError};
use tallymesh_schemas::{Kind, NodeName, SeriesSpec, Window};

use crate::budget::{Budget, Usage};
use crate::counter::listing::Listing;
use crate::counter::structure::{Count, Entry, Structure};
use crate::time::{Now, Time};

/// A series: keys, each with a count in every retained window.
///
/// All methods may be called from any number of threads. Windows are identified by their age: 0 is the current window, 1 the
/// previous one, up to the number of retained windows minus one.
pub struct Series {
    spec: SeriesSpec,
    /// What all windows may hold together.
    budget: Arc<Budget>,
    ring: ArcSwap<Ring>,
    /// How many windows are kept now.
    kept: AtomicU32,
    /// The configuration does not name it any more.
    detached: AtomicBool,
}

/// The windows at one moment.
#[derive(Debug)]
pub(crate) struct Ring {
    /// The window that counts now.
    pub(crate) current: Window,
    /// The next window, the current one, and the earlier ones.
    pub(crate) windows: Vec<Arc<Structure>>,
}

/// What to count: a key, or everything under a block of addresses.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Scope<'a> {
    /// One key, as bytes.
    Key(&'a [u8]),
    /// The keys in an address block.
    Net(IpNet),
}

impl Series {
    pub(crate) fn new(spec: SeriesSpec, budget: Arc<Budget>, ring: Ring) -> Self {
        let (kept, detached) = (AtomicU32::new(spec.windows), AtomicBool::new(false));
        Self { spec, budget, ring: ArcSwap::from_pointee(ring), kept, detached }
    }

    /// How many windows are kept now. A running node may change that.
    pub fn kept(&self) -> u32 {
        self.kept.load(Ordering::Relaxed)
    }

    pub(crate) fn keep(&self, windows: u32) {
        self.kept.store(windows, Ordering::Relaxed);
    }

    /// Changes the most keys of all windows together. Keys that are there stay.
    pub fn limit_keys(&self, max: Option<NonZeroU64>) {
        self.budget.set_max(max);
    }

    /// The configuration does not name the series any more: events are refused. Its windows age out as before.
    pub fn detach(&self) {
        self.detached.store(true, Ordering::Relaxed);
    }

    /// The configuration names the series again.
    pub fn attach(&self) {
        self.detached.store(false, Ordering::Relaxed);
    }

    /// What all windows may hold together.
    pub(crate) fn budget(&self) -> &Arc<Budget> {
        &self.budget
    }

    /// Keys in use in all windows together, and the most of them.
    pub fn usage(&self) -> Usage {
        self.budget.usage()
    }

    pub(crate) fn ring(&self) -> arc_swap::Guard<Arc<Ring>> {
        self.ring.load()
    }

    pub(crate) fn turn(&self, ring: Ring) {
        self.ring.store(Arc::new(ring));
    }

    /// The configuration that the series began with: see [`Series::kept`].
    pub fn spec(&self) -> &SeriesSpec {
        &self.spec
    }

    /// The number of the current window.
    pub fn current(&self) -> Window {
        self.ring().current
    }

    /// Adds `n` to this node's count of the current window; a negative `n` subtracts. One step moves a count by at most
    /// [`bounds::STEP`](tallymesh_schemas::bounds::STEP). O(1); no allocation for a key that the window has.
    ///
    /// # Errors
    /// [`KeyError`] when `key` is not a key of the series' kind, or when there is no room for another key; then nothing is
    /// counted.
    #[inline]
    pub fn add(&self, key: &[u8], n: i64) -> Result<(), KeyError> {
        if self.detached.load(Ordering::Relaxed) {
            return Err(KeyError::Detached);
        }
        match self.ring().windows.get(1) {
            Some(window) => window.add(key, n),
            None => Ok(()),
        }
    }

    /// The retained windows, the current one first.
    pub fn windows(&self) -> Vec<Arc<Structure>> {
        self.ring().windows.iter().skip(1).cloned().collect()
    }

    /// Returns the sum over windows of the given ages. Ages beyond the oldest window count nothing. O(windows) times the
    /// cost of [`Structure::count`] or [`Structure::count_net`].
    pub fn count(&self, scope: Scope<'_>, ages: RangeInclusive<u32>, now: Time) -> Count {
        let none = Count { total: 0, local: 0, actors: 1, stalest: Duration::ZERO };
        self.ages(ages).map(|window| scope.count(&window, now)).fold(none, |sum, count| Count {
            total: sum.total.saturating_add(count.total),
            local: sum.local.saturating_add(count.local),
            actors: sum.actors.max(count.actors),
            stalest: sum.stalest.max(count.stalest),
        })
    }

    /// Returns one node's count in windows of the given ages, in all its runs; `None` when this node knows nothing of that
    /// node. For a block O(rows of that node).
    pub fn count_from(&self, node: &NodeName, scope: Scope<'_>, ages: RangeInclusive<u32>) -> Option<i64> {
        let counts = self.ages(ages).map(|window| scope.count_from(&window, node));
        counts.fold(None, |sum, count| match (sum, count) {
            (Some(sum), Some(count)) => Some(i64::saturating_add(sum, count)),
            (sum, count) => sum.or(count),
        })
    }

    fn ages(&self, ages: RangeInclusive<u32>) -> impl Iterator<Item = Arc<Structure>> {
        let (from, to) = (*ages.start() as usize, *ages.end() as usize);
        let windows = self.windows();
        let count = windows.len().min(to.saturating_add(1)).saturating_sub(from);
        windows.into_iter().skip(from).take(count)
    }

    /// Returns the count of every retained window, the current one first.
    pub fn counts(&self, scope: Scope<'_>, now: Time) -> Vec<Count> {
        self.windows().iter().map(|window| scope.count(window, now)).collect()
    }

    /// Returns an estimate of the count over the last interval: the current window, plus the share of the previous window
    /// that the interval up to now still covers. Exact when events arrive evenly. After Cloudflare's "sliding window
    /// counter".
    pub fn sliding(&self, scope: Scope<'_>, now: Now) -> f64 {
        let interval = self.spec.interval_ms();
        let into = now.unix_ms.0.saturating_sub(self.current().saturating_mul(interval)).min(interval);
        let share = 1.0 - into as f64 / interval as f64;
        let counts = [0, 1].map(|age| self.count(scope, age..=age, now.mono).total as f64);
        counts[0] + counts[1] * share
    }

    /// Clears a key in all windows, on all nodes: see [`Structure::clear`].
    ///
    /// # Errors
    /// [`KeyError`] when `key` is not a key of the series' kind, or when there is no room for the rows that state the removal.
    /// Then the key is removed from the windows before that one only.
    pub fn remove(&self, key: &[u8]) -> Result<(), KeyError> {
        key::check(self.spec.kind, key)?;
        self.ring().windows.iter().try_for_each(|window| window.clear(key))
    }

    /// Bytes of all windows, without allocator overhead.
    pub fn bytes(&self) -> usize {
        self.ring().windows.iter().map(|window| window.bytes()).sum()
    }
}

/// The keys of all windows in order, page by page, each with its count in every window. It merges the listings of the
/// windows; each of them is read as described for [`Listing`].
#[derive(Debug)]
pub struct SeriesListing {
    windows: Vec<Ahead>,
}

/// A window's listing with the entries that were read and not listed yet.
#[derive(Debug)]
struct Ahead {
    listing: Option<Listing>,
    entries: VecDeque<Entry>,
}

/// A key and its count in each window, the current one first.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize)]
pub struct SeriesEntry {
    /// The key's bytes; [`key::display`] makes them readable.
    pub key: Vec<u8>,
    /// Its counts.
    pub counts: Vec<i64>,
}

impl Series {
    /// Lists the cluster-wide view, or the view of one node; `None` when this node knows nothing of that node.
    pub fn list(&self, from: Option<&NodeName>) -> Option<SeriesListing> {
        let listings: Vec<_> = self.windows().iter().map(|window| window.list(from)).collect();
        let known = listings.iter().any(Option::is_some);
        let windows = listings.into_iter().map(|listing| Ahead { listing, entries: VecDeque::new() });
        known.then(|| SeriesListing { windows: windows.collect() })
    }
}

impl SeriesListing {
    /// Returns the next entries, at most `limit`, without keys that count zero in all windows. Empty at the end.
    pub fn entries(&mut self, limit: usize) -> Vec<SeriesEntry> {
        let mut page = Vec::new();
        while page.len() < limit {
            for window in &mut self.windows {
                window.read(limit);
            }
            let first = self.windows.iter().filter_map(|window| window.entries.front()).map(|entry| &entry.key).min();
            let Some(key) = first.cloned() else { break };
            let counts = self.windows.iter_mut().map(|window| window.take(&key)).collect();
            page.push(SeriesEntry { key, counts });
        }
        page
    }
}

impl Ahead {
    fn read(&mut self, limit: usize) {
        if self.entries.is_empty()
            && let Some(listing) = &mut self.listing
        {
            self.entries = listing.entries(limit).into();
            if self.entries.is_empty() {
                self.listing = None;
            }
        }
    }

    fn take(&mut self, key: &[u8]) -> i64 {
        let entry =
            if self.entries.front().is_some_and(|entry| entry.key == key) { self.entries.pop_front() } else { None };
        entry.map_or(0, |entry| entry.count)
    }
}

impl fmt::Debug for Series {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Series").field("name", &self.spec.name).finish_non_exhaustive()
    }
}

impl Scope<'_> {
    fn count(&self, window: &Structure, now: Time) -> Count {
        match *self {
            Self::Key(key) => window.count(key, now),
            Self::Net(net) if window.kind() == Kind::CidrTree => window.count_net(net, now),
            Self::Net(_) => window.count(&[], now),
        }
    }

    fn count_from(&self, window: &Structure, node: &NodeName) -> Option<i64> {
        match *self {
            Self::Key(key) => window.count_from(node, key),
            Self::Net(net) if window.kind() == Kind::CidrTree => window.count_net_from(node, net),
            Self::Net(_) => window.count_from(node, &[]),
        }
    }
}
