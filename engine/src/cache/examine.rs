//! Views of a cache for people: which runs have written, which write has won each key, and in which order writes arrived.
//!
//! A call reads one page: a bounded number of entries under the lock of the cache.

use std::collections::BTreeMap;
use std::ops::Bound;

use tallymesh_schemas::inspect::{ACTORS_PAGE, ActorView, EntryView, LOG_PAGE, LogView, ROWS_PAGE, Standing};
use tallymesh_schemas::{Actor, UnixMs, Version, admin, key};

use crate::cache::entry::Entry;
use crate::cache::handle::Cache;
use crate::cache::map::CacheMap;

/// A page of the entries of a cache in order of key.
#[derive(Debug, Default)]
pub struct EntriesPage {
    /// The entries, removed and expired ones too.
    pub entries: Vec<EntryView>,
    /// The last key that was read: the next page begins behind it. `None` at the end.
    pub last: Option<Vec<u8>>,
}

impl Cache {
    /// The runs behind `after` that have written and are not over, or that an entry names, in order, at most a page. Their peers'
    /// positions are not filled in.
    pub(crate) fn actor_views(&self, after: Option<&Actor>, known: &dyn Fn(&Actor) -> Standing) -> Vec<ActorView> {
        let map = self.shared.map.read();
        let mut runs: BTreeMap<&Actor, u64> = map.seen().runs().collect();
        for (run, _) in map.runs().iter() {
            runs.entry(run).or_insert(0);
        }
        let behind = runs.iter().filter(|(run, _)| after.is_none_or(|after| **run > after));
        behind.take(ACTORS_PAGE).map(|(run, number)| map.view_run(run, *number, known)).collect()
    }

    /// The entry of a key, also if it is removed or has expired; `None` when there is none. O(1).
    pub fn entry_view(&self, key: &[u8], unix_ms: UnixMs) -> Option<EntryView> {
        let time = self.time(unix_ms);
        let map = self.shared.map.read();
        map.get(key).map(|entry| map.view_entry(entry, time))
    }

    /// The entries behind `after`, in order of key, at most a page. The first call sorts the keys, in slices.
    pub fn entry_views(&self, after: Option<&[u8]>, unix_ms: UnixMs) -> EntriesPage {
        self.order_keys();
        let time = self.time(unix_ms);
        let map = self.shared.map.read();
        let behind = map.keys_from(after.map_or(Bound::Unbounded, Bound::Excluded)).take(ROWS_PAGE);
        let (mut page, mut bytes) = (EntriesPage::default(), 0);
        for entry in behind {
            page.entries.push(map.view_entry(entry, time));
            page.last = Some(entry.key().to_vec());
            bytes += entry.bytes.len().min(admin::SHOWN_BYTES);
            if bytes > admin::PAGE_BYTES {
                break;
            }
        }
        page
    }

    /// The entries behind a position of the log, in the order in which this replica wrote or received them, at most a page.
    pub fn log_view(&self, after: u64) -> Vec<LogView> {
        let map = self.shared.map.read();
        let behind = map.behind(after).take(LOG_PAGE);
        let view = |(position, entry): (u64, &Entry)| LogView {
            version: Version(position),
            slot: entry.number,
            actor: map.writer(entry).clone(),
            key: key::display_bytes(entry.key()),
            resets: None,
            added: 0,
            removed: 0,
            gone: entry.value().is_none(),
            is_write: true,
        };
        behind.map(view).collect()
    }

    /// The run in which this replica writes.
    pub fn viewer(&self) -> Actor {
        self.shared.map.read().me().clone()
    }
}

impl CacheMap {
    fn view_run(&self, run: &Actor, number: u64, known: &dyn Fn(&Actor) -> Standing) -> ActorView {
        let ((rows, highest), (skipped, collected)) = (self.runs().named(run), self.passed_over(run));
        ActorView {
            actor: run.clone(),
            counts: true,
            standing: known(run),
            since: Version(skipped),
            // Of a run that has ended all writes were taken in, and its last number is not kept.
            applied: Version(if number == 0 { highest } else { number }),
            low_water: Version(collected),
            rows,
            fingerprint: None,
            head: None,
            heard_ms: (run == self.me()).then_some(0),
            complete: self.seen().covers(run, highest),
            replacing: false,
            peers: Vec::new(),
        }
    }

    fn view_entry(&self, entry: &Entry, time: UnixMs) -> EntryView {
        let run = self.writer(entry);
        let value = entry.value().unwrap_or_default();
        EntryView {
            key: key::display_bytes(entry.key()),
            raw: entry.key().to_vec(),
            actor: run.clone(),
            number: entry.number,
            stamp: entry.stamp.0,
            expires_ms: entry.expires_ms.0,
            removed: entry.value().is_none(),
            readable: entry.value().is_some() && !entry.expired(time),
            value: value.get(..admin::SHOWN_BYTES).unwrap_or(value).to_vec(),
            bytes: value.len() as u64,
            hash: Some(entry.hash()),
            position: entry.position,
            taken_in: self.seen().covers(run, entry.number),
        }
    }
}
