//! Caches on simulated nodes: every acknowledged write, and what each node was seen to read.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use tallymesh_engine::{Cache, CacheError, Stamp};
use tallymesh_schemas::{Actor, StructureName, UnixMs, bounds};

use crate::check::seen::EVERYTHING;
use crate::truth::RunId;

/// An acknowledged write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// The process that wrote it.
    pub run: RunId,
    /// Its stamp.
    pub stamp: Stamp,
    /// The value; `None` for a removal.
    pub value: Option<Vec<u8>>,
    /// When it expires, in milliseconds since 1970; 0 for never.
    pub expires_ms: UnixMs,
    /// Whether the writer's clock was so far ahead that no node accepts the write as it is. The writer republishes it at some
    /// later time.
    pub ahead: bool,
}

/// A cache and a key in it.
pub(crate) type CacheKey = (StructureName, Vec<u8>);

/// The ledger of acknowledged writes.
#[derive(Debug, Default)]
pub struct Writes {
    writes: BTreeMap<CacheKey, Vec<Written>>,
    /// Processes that have ended or were forgotten. The checker demands of them only what others have read.
    void: std::collections::BTreeSet<RunId>,
    /// Processes that share their name with another one. Of the writes of both, the other nodes keep those of one of them.
    contested: std::collections::BTreeSet<RunId>,
}

/// The latest write of each key that a process was seen to have.
#[derive(Debug, Clone, Default)]
pub(crate) struct SeenWrites {
    latest: BTreeMap<CacheKey, Stamp>,
}

impl SeenWrites {
    pub(crate) fn get(&self, at: &CacheKey) -> Option<&Stamp> {
        self.latest.get(at)
    }

    /// The clock was set back. From now on the process may take back what it wrote ahead of it, also if nobody looks before the
    /// clock goes ahead again.
    pub(crate) fn clock_set(&mut self, unix_ms: UnixMs) {
        self.latest.retain(|_, stamp| is_reached(*stamp, unix_ms));
    }

    /// Records an entry that the node holds. A stamp that no clock can have issued may have been taken back.
    fn note(&mut self, at: CacheKey, stamp: Stamp, believable: impl Fn(&Stamp) -> bool) {
        let latest = self.latest.entry(at).or_default();
        *latest = if believable(latest) { stamp.max(*latest) } else { stamp };
    }
}

impl Writes {
    pub(crate) fn record(&mut self, cache: &StructureName, key: &[u8], written: Written) {
        self.writes.entry((cache.clone(), key.to_vec())).or_default().push(written);
    }

    /// Records that a process has ended, or was forgotten.
    pub(crate) fn end(&mut self, run: RunId) {
        self.void.insert(run);
    }

    /// Records that these processes have had the same name.
    pub(crate) fn contest(&mut self, runs: impl IntoIterator<Item = RunId>) {
        self.contested.extend(runs);
    }

    /// Whether a process that shares its name with another one wrote a key at this stamp or later.
    pub(crate) fn is_contested(&self, cache: &StructureName, key: &[u8], since: Stamp) -> bool {
        let mut late = self.of(cache, key).iter().filter(|written| written.stamp >= since);
        !self.contested.is_empty() && late.any(|written| self.contested.contains(&written.run))
    }

    /// The acknowledged writes of a key.
    pub fn of(&self, cache: &StructureName, key: &[u8]) -> &[Written] {
        self.writes.get(&(cache.clone(), key.to_vec())).map_or(&[], Vec::as_slice)
    }

    /// The keys of a cache that were written.
    pub fn keys<'a>(&'a self, cache: &'a StructureName) -> impl Iterator<Item = &'a [u8]> {
        self.writes.keys().filter(move |(of, _)| of == cache).map(|(_, key)| key.as_slice())
    }

    /// Which writes of a key were taken back: the stamps of those, and of the write that followed. A process whose clock was set
    /// back gives its earlier writes earlier stamps, and its next writes follow them. Of these, the last one counts if the
    /// process still runs, else any.
    pub(crate) fn taken_back(&self, cache: &StructureName, key: &[u8]) -> TakenBackWrites {
        let all = self.of(cache, key);
        let mut least: BTreeMap<RunId, Stamp> = BTreeMap::new();
        let mut taken_back = Vec::new();
        for (at, Written { run, stamp, .. }) in all.iter().enumerate().rev().filter(|(_, written)| !written.ahead) {
            let later = least.entry(*run).or_insert(*stamp);
            if *later < *stamp {
                let of_run = all.iter().skip(at).filter(|other| other.run == *run && !other.ahead);
                let last = of_run.map(|other| other.stamp).filter(|other| other < stamp).max();
                taken_back.push((*stamp, last.filter(|_| !self.void.contains(run)).unwrap_or(*later)));
            }
            *later = (*stamp).min(*later);
        }
        TakenBackWrites(taken_back)
    }

    /// The latest write of a key by processes that still run. What a process wrote before its clock went ahead may exist only
    /// there, if it has written the same key since: its row then has only the later write, which waits while the clock
    /// `is_ahead`.
    pub(crate) fn latest_of_the_living(
        &self,
        cache: &StructureName,
        key: &[u8],
        is_ahead: impl Fn(RunId) -> bool,
    ) -> Option<Stamp> {
        let all = self.of(cache, key);
        let waits = |run: RunId| is_ahead(run) && all.iter().any(|written| written.ahead && written.run == run);
        let living = all.iter().filter(|written| !written.ahead && !self.void.contains(&written.run));
        living.filter(|written| !waits(written.run)).map(|written| written.stamp).max()
    }
}

/// See [`Writes::taken_back`].
pub(crate) struct TakenBackWrites(Vec<(Stamp, Stamp)>);

impl TakenBackWrites {
    /// The earliest write that may supersede everything up to a stamp: the write at that stamp, or one that follows a write
    /// which had superseded it and was taken back.
    pub(crate) fn least(&self, stamp: Stamp) -> Stamp {
        let later = self.0.iter().filter(|(was, _)| *was >= stamp).map(|(_, is)| *is);
        later.min().map_or(stamp, |later| later.min(stamp))
    }
}

/// The reading of a node's clock, and the correct time.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Moment {
    pub(crate) unix_ms: UnixMs,
    pub(crate) true_ms: u64,
}

impl Moment {
    /// Whether a stamp is further ahead than that of any correctly set clock.
    fn is_before(self, stamp: Stamp) -> bool {
        stamp.unix_ms() > UnixMs(self.true_ms + bounds::MAX_DRIFT.as_millis() as u64)
    }
}

/// The caches of a process, with the ledger that records its writes.
#[derive(Debug, Clone)]
pub(crate) struct SimCache {
    pub(crate) cache: Cache,
    pub(crate) writes: Rc<RefCell<Writes>>,
    /// What the cache held, and the clock's reading, when the last check passed.
    right: Option<(State, UnixMs)>,
    looks: u64,
}

/// What a cache holds, in short: the writes taken in, keys and sum.
type State = (Vec<(Actor, u64)>, usize, u64);

fn state(cache: &Cache) -> State {
    (cache.seen(), cache.held(), cache.fingerprint(UnixMs::ZERO))
}

impl SimCache {
    pub(crate) fn new(cache: Cache, writes: Rc<RefCell<Writes>>) -> Self {
        Self { cache, writes, right: None, looks: 0 }
    }

    pub(crate) fn name(&self) -> &StructureName {
        &self.cache.spec().name
    }

    pub(crate) fn set(
        &self,
        run: RunId,
        key: &[u8],
        value: &[u8],
        ttl: std::time::Duration,
        now: Moment,
    ) -> Result<Stamp, CacheError> {
        let unix_ms = now.unix_ms;
        let stamp = self.cache.set(key, value, ttl, unix_ms)?;
        let expires_ms = if ttl.is_zero() { UnixMs::ZERO } else { self.cache.time(unix_ms).after(ttl) };
        let written = Written { run, stamp, value: Some(value.to_vec()), expires_ms, ahead: now.is_before(stamp) };
        self.writes.borrow_mut().record(self.name(), key, written);
        Ok(stamp)
    }

    pub(crate) fn remove(&self, run: RunId, key: &[u8], now: Moment) -> Result<bool, CacheError> {
        let Some(stamp) = self.cache.remove(key, now.unix_ms)? else { return Ok(false) };
        let written = Written { run, stamp, value: None, expires_ms: UnixMs::ZERO, ahead: now.is_before(stamp) };
        self.writes.borrow_mut().record(self.name(), key, written);
        Ok(true)
    }
}

/// Whether a stamp is no further ahead of a clock than a node accepts.
pub(crate) fn is_reached(stamp: Stamp, unix_ms: UnixMs) -> bool {
    stamp.unix_ms() <= unix_ms.after(bounds::MAX_DRIFT)
}

/// [`reads`] if something has changed since the last check passed, or if the clock was set back: the data that it compares with
/// only grows. Every [`EVERYTHING`]th call runs [`look`] in any case.
pub(crate) fn look_at_changes(sim: &mut SimCache, seen: &mut SeenWrites, unix_ms: UnixMs) -> Result<(), String> {
    sim.looks += 1;
    let now = state(&sim.cache);
    let same = sim.right.as_ref().is_some_and(|(right, at)| unix_ms >= *at && *right == now);
    let everything = sim.looks.is_multiple_of(EVERYTHING);
    if same && !everything {
        return Ok(());
    }
    if everything { look(sim, seen, unix_ms) } else { reads(sim, seen, unix_ms) }?;
    sim.right = Some((now, unix_ms));
    Ok(())
}

/// Checks a cache of a process: [`reads`], and its aggregates match its entries.
///
/// # Errors
/// Says what does not hold.
pub(crate) fn look(sim: &SimCache, seen: &mut SeenWrites, unix_ms: UnixMs) -> Result<(), String> {
    sim.cache.audit().map_err(|what| format!("{}: {what}", sim.name()))?;
    reads(sim, seen, unix_ms)
}

/// Every value that is held was written, and no superseded write returns on this node.
fn reads(sim: &SimCache, seen: &mut SeenWrites, unix_ms: UnixMs) -> Result<(), String> {
    let (cache, name) = (&sim.cache, sim.name());
    let writes = sim.writes.borrow();
    // A stamp from the time when this node's clock was far ahead may have been taken back.
    let believable = |stamp: &Stamp| is_reached(*stamp, unix_ms);
    for entry in cache.held_entries(None, usize::MAX) {
        let at = (name.clone(), entry.key.clone());
        if let Some(value) = &entry.value {
            let written = writes.of(name, &entry.key).iter();
            // If its writer's clock was ahead, or seemed to be, the write was written again with an earlier stamp than the
            // acknowledged one.
            let same = written.filter(|written| written.value.as_deref() == Some(&value[..]));
            let same = same.filter(|written| written.stamp >= entry.stamp && written.expires_ms == entry.expires_ms);
            let Some(written) = same.map(|written| written.stamp).max() else {
                return Err(format!("{name}: nobody wrote what {:02x?} reads: {entry:?}", entry.key));
            };
            let latest = seen.get(&at).filter(|stamp| believable(stamp));
            let contested = |stamp: Stamp| writes.is_contested(name, &entry.key, stamp);
            let later = |latest: Stamp| latest > written && writes.taken_back(name, &entry.key).least(latest) > written;
            if let Some(latest) = latest.filter(|latest| later(**latest) && !contested(**latest)) {
                return Err(format!(
                    "{name}: {:02x?} reads what was written at {:?}, and had {latest:?}",
                    entry.key, entry.stamp
                ));
            }
        }
        seen.note(at, entry.stamp, believable);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_that_was_taken_back_is_superseded_by_the_next_one_of_its_process() {
        let (cache, mut writes) = (StructureName::new("sessions").unwrap(), Writes::default());
        for (run, stamp) in [(1, 50), (0, 60), (0, 10), (0, 12), (0, 70), (2, 65)] {
            let written = Written { run, stamp: Stamp(stamp), value: None, expires_ms: UnixMs::ZERO, ahead: false };
            writes.record(&cache, b"key", written);
        }
        let least = |writes: &Writes, stamp| writes.taken_back(&cache, b"key").least(Stamp(stamp)).0;
        // The write at 60 superseded the one at 50, and stands at no more than 12 now.
        assert_eq!([5, 12, 50, 60, 65, 70].map(|stamp| least(&writes, stamp)), [5, 12, 12, 12, 65, 70]);
        writes.end(0);
        assert_eq!(least(&writes, 60), 10, "nobody may have got the writes of a process that has ended");
    }

    #[test]
    fn what_was_written_ahead_may_be_taken_back_once_the_clock_is_right() {
        let (at, ahead) = ((StructureName::new("sessions").unwrap(), b"key".to_vec()), UnixMs(3_600_000));
        let mut seen = SeenWrites::default();
        seen.note(at.clone(), Stamp::at(ahead), |_| true);
        seen.clock_set(ahead);
        assert_eq!(seen.get(&at), Some(&Stamp::at(ahead)));
        seen.clock_set(UnixMs(1000));
        assert_eq!(seen.get(&at), None);
    }
}
