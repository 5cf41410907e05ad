//! Caches on simulated nodes: every acknowledged write, and what each node was seen to read.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use tallymesh_engine::{Cache, CacheError, Held, Stamp};
use tallymesh_schemas::message::Tombstone;
use tallymesh_schemas::{Incarnation, NodeName, StructureName, UnixMs, bounds};

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
    /// Writes that may be lost. A node still reads them while their key has rows. They count again only when a row carries
    /// them.
    doubtful: BTreeMap<CacheKey, Stamp>,
}

impl SeenWrites {
    pub(crate) fn get(&self, at: &CacheKey) -> Option<&Stamp> {
        self.latest.get(at)
    }

    /// Keeps only some of the latest writes.
    pub(crate) fn retain(&mut self, mut keep: impl FnMut(&CacheKey, Stamp) -> bool) {
        self.latest.retain(|at, stamp| keep(at, *stamp));
    }

    /// Those of the restored writes that are still the latest may be lost.
    fn doubt(&mut self, taken_back: &Self) {
        for (at, stamp) in &taken_back.latest {
            if self.latest.get(at) == Some(stamp) {
                self.latest.remove(at);
                self.doubtful.insert(at.clone(), *stamp);
            }
        }
    }

    /// Records a write, or a removal, that the node reads. `told` says whether a row carries it. A stamp that no clock can have
    /// issued may have been taken back.
    fn note(&mut self, at: CacheKey, stamp: Stamp, believable: impl Fn(&Stamp) -> bool, told: impl FnOnce() -> bool) {
        if self.doubtful.get(&at) == Some(&stamp) {
            if !told() {
                return;
            }
            self.doubtful.remove(&at);
        }
        let latest = self.latest.entry(at).or_default();
        *latest = if believable(latest) { stamp.max(*latest) } else { stamp };
    }
}

/// What a process has restored from its disk. It is valid until the process learns that a node was forgotten, or has renewed,
/// while the process was away.
#[derive(Debug, Clone)]
pub(crate) struct TakenBack {
    pub(crate) seen: SeenWrites,
    pub(crate) tombstones: Vec<Tombstone>,
}

impl TakenBack {
    /// Checks the tombstones that are known now. If there is a new one, the restored writes may be lost and leave `seen`: other
    /// nodes have republished the values of a forgotten node. If the node itself was forgotten, it starts over.
    pub(crate) fn hear(&mut self, node: &NodeName, tombstones: &[Tombstone], seen: &mut SeenWrites) {
        if *tombstones == self.tombstones {
            return;
        }
        seen.doubt(&self.seen);
        let new = tombstones.iter().filter(|tombstone| !self.tombstones.contains(tombstone));
        if new.into_iter().any(|tombstone| tombstone.node == *node && tombstone.from <= Incarnation(1)) {
            *seen = SeenWrites::default();
        }
        self.tombstones = tombstones.to_vec();
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
    /// What the structure held, and the clock's reading, when the last check passed.
    right: (Vec<Held>, u64),
    looks: u64,
}

impl SimCache {
    pub(crate) fn new(cache: Cache, writes: Rc<RefCell<Writes>>) -> Self {
        Self { cache, writes, right: (Vec::new(), 0), looks: 0 }
    }

    /// Forgets everything that was seen of it.
    pub(crate) fn start_over(&mut self) {
        self.right.0.clear();
    }

    pub(crate) fn name(&self) -> &StructureName {
        &self.cache.structure().spec().name
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

/// The writes that a process was seen to have and has a row of. Only these can be saved. A value has no row while the rows of
/// its run are dropped already and those of the successor have not arrived.
pub(crate) fn told<'a>(caches: impl IntoIterator<Item = &'a SimCache>, seen: &SeenWrites) -> SeenWrites {
    let mut told = SeenWrites::default();
    for sim in caches {
        let structure = sim.cache.structure();
        for (key, row) in structure.held().iter().flat_map(|held| structure.rows_of(&held.actor)) {
            let at = (sim.name().clone(), key);
            if let Some(stamp) = seen.get(&at).filter(|seen| **seen <= row.stamp()) {
                told.latest.insert(at, *stamp);
            }
        }
    }
    told
}

/// Whether a stamp is no further ahead of a clock than a node accepts.
pub(crate) fn is_reached(stamp: Stamp, unix_ms: UnixMs) -> bool {
    stamp.unix_ms() <= unix_ms.after(bounds::MAX_DRIFT)
}

/// [`reads`] if something has changed since the last check passed, or if the clock was set back: the data that it compares with
/// only grows. Every [`EVERYTHING`]th call runs [`look`] in any case.
pub(crate) fn look_at_changes(sim: &mut SimCache, seen: &mut SeenWrites, unix_ms: UnixMs) -> Result<(), String> {
    sim.looks += 1;
    let structure = sim.cache.structure();
    let (held, at) = &sim.right;
    let same = structure.pending() == 0 && unix_ms >= UnixMs(*at) && structure.held() == *held;
    let everything = sim.looks.is_multiple_of(EVERYTHING);
    if same && !everything && !held.iter().any(|held| held.replacing) {
        return Ok(());
    }
    if everything { look(sim, seen, unix_ms) } else { reads(sim, seen, unix_ms) }?;
    sim.right = (sim.cache.structure().held(), unix_ms.0);
    Ok(())
}

/// Checks a cache of a process: [`reads`], and its aggregates match its rows.
///
/// # Errors
/// Says what does not hold.
pub(crate) fn look(sim: &SimCache, seen: &mut SeenWrites, unix_ms: UnixMs) -> Result<(), String> {
    sim.cache.structure().audit().map_err(|what| format!("{}: {what}", sim.name()))?;
    reads(sim, seen, unix_ms)
}

/// Every value that is read was written, and no superseded write returns on this node.
fn reads(sim: &SimCache, seen: &mut SeenWrites, unix_ms: UnixMs) -> Result<(), String> {
    let (cache, name) = (&sim.cache, sim.name());
    let writes = sim.writes.borrow();
    // A stamp from the time when this node's clock was far ahead may have been taken back.
    let believable = |stamp: &Stamp| is_reached(*stamp, unix_ms);
    let entries = cache.entries(None, usize::MAX, UnixMs::ZERO);
    for entry in &entries {
        let written = writes.of(name, &entry.key).iter();
        // If its writer's clock was ahead, or seemed to be, the write was republished with an earlier stamp than the
        // acknowledged one.
        let same = written.filter(|written| written.value.as_deref() == Some(&entry.value[..]));
        let same = same.filter(|written| written.stamp >= entry.stamp && written.expires_ms == entry.expires_ms);
        let Some(written) = same.map(|written| written.stamp).max() else {
            return Err(format!("{name}: nobody wrote what {:02x?} reads: {entry:?}", entry.key));
        };
        let latest = seen.get(&(name.clone(), entry.key.clone())).filter(|stamp| believable(stamp));
        let contested = |stamp: Stamp| writes.is_contested(name, &entry.key, stamp);
        let later = |latest: Stamp| latest > written && writes.taken_back(name, &entry.key).least(latest) > written;
        if let Some(latest) = latest.filter(|latest| later(**latest) && !contested(**latest)) {
            return Err(format!(
                "{name}: {:02x?} reads what was written at {:?}, and had {latest:?}",
                entry.key, entry.stamp
            ));
        }
    }
    let structure = cache.structure();
    let actors: Vec<_> = structure.held().into_iter().map(|held| held.actor).collect();
    for entry in entries {
        let stamp = entry.stamp;
        let tells = |actor| structure.rows_of(actor).iter().any(|(key, row)| *key == entry.key && row.stamp() == stamp);
        let told = || actors.iter().any(tells);
        seen.note((name.clone(), entry.key.clone()), stamp, believable, told);
    }
    for actor in &actors {
        let removed = structure.rows_of(actor).into_iter().filter(|(_, row)| row.content() == 0);
        removed.for_each(|(key, row)| seen.note((name.clone(), key), row.stamp(), believable, || true));
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
    fn a_lost_write_counts_again_when_a_row_states_it() {
        let at = (StructureName::new("sessions").unwrap(), b"key".to_vec());
        let note = |seen: &mut SeenWrites, stamp, told| seen.note(at.clone(), Stamp(stamp), |_| true, || told);
        let mut taken_back = SeenWrites::default();
        note(&mut taken_back, 7, true);
        let mut seen = taken_back.clone();
        seen.doubt(&taken_back);
        note(&mut seen, 7, false);
        assert_eq!(seen.get(&at), None);
        note(&mut seen, 7, true);
        assert_eq!(seen.get(&at), Some(&Stamp(7)));

        // Later writes were never on the disk.
        note(&mut seen, 9, false);
        seen.doubt(&taken_back);
        assert_eq!(seen.get(&at), Some(&Stamp(9)));
        note(&mut seen, 7, false);
        assert_eq!(seen.get(&at), Some(&Stamp(9)));
    }
}
