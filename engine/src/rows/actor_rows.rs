//! One actor's rows in a structure: the rows by slot, their log, and the versions up to which they are known.

use std::collections::VecDeque;

use hashbrown::HashTable;
use tallymesh_schemas::Version;
use tallymesh_schemas::rows::{RowState, RowWriter, WireRow};

use crate::canary::{self, Canary};
use crate::keyspace::cells::Cells;
use crate::keyspace::id::{CellId, EMPTY, KeyOf};
use crate::rows::change_log::Log;
use crate::rows::heartbeat::Statement;
use crate::rows::row::{Row, row_hash};
use crate::rows::slots::{Slot, Slots, VACANT};
use crate::rows::span::Span;
use crate::spare;
use crate::time::Time;

/// One actor's rows as this replica knows them: everything that changed in `(since, applied]`.
#[derive(Debug, Default)]
pub(crate) struct ActorRows {
    slots: Slots,
    /// The order of changes. Own rows always have a log. The log of another actor's rows is made when a peer asks this node
    /// for them, which happens while their owner is unreachable.
    log: Option<Log>,
    /// Slots by cell number. `None` for own rows: there the cell itself stores its slot.
    by_cell: Option<HashTable<u32>>,
    /// Vacant slots, in the order in which they became vacant.
    vacated: VecDeque<(Version, u32)>,
    live: usize,
    fingerprint: u64,
    pub(crate) since: Version,
    pub(crate) applied: Version,
    /// The low-water mark. Retirements up to this version may have been purged. No row here is one of those purged rows.
    pub(crate) low_water: Version,
    /// The keys of all rows created up to this version are known: the owner stated this after it had sent all of them. Above
    /// this version a slot may have another key at the owner, or a key that is unknown here.
    pub(crate) keys_complete: Version,
    /// Complete up to: everything that the owner had at one moment up to this version is here, according to a replica whose
    /// copy was complete.
    pub(crate) complete: Version,
    /// Rows up to this version were restored from saved state.
    pub(crate) restored: Version,
    /// Rows up to this version existed before they could reach this node, so they may be older than their arrival.
    pub(crate) inherited: Version,
    /// The probe whose answer decides whether this copy equals the owner's rows after the owner stated something different;
    /// 0 for none.
    pub(crate) doubted: u64,
    /// Whether these rows count in the views (I4).
    pub(crate) counts: bool,
    /// The last known moment of which everything that the owner had is here, apart from what the owner has `stated`.
    confirmed: Time,
    /// The owner's last statement.
    pub(crate) stated: Option<Statement>,
    /// At the owner's head this copy had a different fingerprint. Only a snapshot repairs that.
    pub(crate) diverged: bool,
    /// Changes whenever the rows become anything other than the previous rows plus rows above `applied`. A copy of an older
    /// edition has to start over.
    pub(crate) edition: u64,
}

/// The edition numbers of a structure's rows.
#[derive(Debug, Default)]
pub(crate) struct Editions(u64);

impl Editions {
    /// Returns a number that was not used before.
    pub(crate) fn next(&mut self) -> u64 {
        self.0 += 1;
        self.0
    }
}

/// Rows cut for a peer: the rows of `(after, upto]` that have not changed again since.
#[derive(Debug)]
pub(crate) struct Cut {
    pub(crate) upto: Version,
    pub(crate) low_water: Version,
    /// Set when `upto` is the end of the rows.
    pub(crate) fingerprint: Option<u64>,
    pub(crate) rows: Vec<u8>,
}

/// Returns whether a copy that knows retirements up to `retired` can continue with a delta of a sender with this low-water
/// mark. Below the mark it needs a snapshot.
pub(crate) fn is_above_low_water(retired: Version, low_water: Version) -> bool {
    low_water <= retired || canary::broken(Canary::LowWaterIgnored)
}

/// Returns whether a replica that knows the keys of the rows created in `known` knows the key of a row created at `born`.
fn knows_key(known: Span, born: Version) -> bool {
    born > known.since && (born <= known.upto || canary::broken(Canary::KeyOmitted))
}

fn hash_id(id: CellId) -> u64 {
    u64::from(id).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

impl ActorRows {
    /// Actor rows of which nothing is known yet after `since`.
    pub(crate) fn new(since: Version) -> Self {
        Self { since, applied: since, keys_complete: since, by_cell: Some(HashTable::new()), ..Self::default() }
    }

    /// The staging copy of a snapshot that is about to be received.
    pub(crate) fn staging(since: Version) -> Self {
        Self::new(since)
    }

    /// This node's own rows, empty.
    pub(crate) fn ours() -> Self {
        Self { counts: true, log: Some(Log::default()), ..Self::default() }
    }

    /// The same rows under another edition number.
    pub(crate) fn of_edition(self, edition: u64) -> Self {
        Self { edition, ..self }
    }

    pub(crate) fn get(&self, slot: u32) -> Slot {
        self.slots.get(slot)
    }

    /// The cell of a slot.
    #[inline]
    pub(crate) fn cell(&self, slot: u32) -> CellId {
        self.slots.cell(slot)
    }

    /// Reads slots that are about to be written, all at once, so that their memory accesses overlap.
    #[inline]
    pub(crate) fn warm(&self, slots: impl Iterator<Item = u32>) {
        std::hint::black_box(slots.fold(0, |sum, slot| sum ^ self.slots.version(slot).0));
    }

    /// Number of live rows.
    pub(crate) fn len(&self) -> usize {
        self.live
    }

    /// The sum of the hashes of the live rows.
    pub(crate) fn fingerprint(&self) -> u64 {
        self.fingerprint
    }

    pub(crate) fn live(&self) -> impl Iterator<Item = (u32, Slot)> + '_ {
        self.slots.live()
    }

    /// Live rows, and slots that are known to be vacant.
    pub(crate) fn used(&self) -> impl Iterator<Item = (u32, Slot)> + '_ {
        self.slots.used()
    }

    /// The row of a cell, with its slot.
    pub(crate) fn find(&self, id: CellId, cells: &Cells) -> Option<(u32, Slot)> {
        let slot = match &self.by_cell {
            Some(by_cell) => *by_cell.find(hash_id(id), |slot| self.slots.get(*slot).cell == id)?,
            None => Some(cells.get(id).own_slot()).filter(|slot| *slot != EMPTY)?,
        };
        Some((slot, self.slots.get(slot)))
    }

    /// The row of a version, with its slot. Makes the log if there is none.
    pub(crate) fn find_version(&mut self, version: Version) -> Option<(u32, Slot)> {
        self.make_log();
        let noted = self.log.as_ref()?.above(version.previous()).next().filter(|(at, _)| *at == version);
        noted.map(|(_, slot)| (slot, self.slots.get(slot))).filter(|(_, state)| state.row.version == version)
    }

    /// Returns whether everything that the owner had at one moment up to `applied` is here. Rows received in pieces may lack
    /// rows that changed before their piece was cut.
    pub(crate) fn is_complete(&self) -> bool {
        self.is_complete_at(self.applied)
    }

    /// Returns whether everything that the owner had when `head` was its head is here, in that state or a later one.
    pub(crate) fn is_complete_at(&self, head: Version) -> bool {
        self.keys_complete.max(self.complete) >= head
    }

    /// The last known moment of which everything that the owner had is here.
    pub(crate) fn confirmed(&self) -> Time {
        let stated = self.stated.as_ref().filter(|stated| self.is_complete_at(stated.head));
        stated.map_or(self.confirmed, |stated| self.confirmed.max(stated.heartbeat.last()))
    }

    /// Everything that the owner had at that moment is here.
    pub(crate) fn confirm(&mut self, at: Time) {
        self.confirmed = at;
    }

    /// Takes over from the copy that this one replaces: whether its rows count, and what is known of their age.
    pub(crate) fn take_over(&mut self, old: &Self) {
        (self.counts, self.inherited) = (old.counts, old.inherited);
        (self.confirmed, self.stated) = (old.confirmed(), old.stated.clone());
    }

    /// Returns whether this copy may be newer than what the owner states about the same version. The statement can travel
    /// longer than rows that arrive in pieces, through relays, or twice. Rows that have changed since are in neither of the
    /// two.
    pub(crate) fn may_be_newer(&self) -> bool {
        !self.is_complete()
    }

    /// Records that this copy equals the owner's rows.
    pub(crate) fn agrees(&mut self) {
        (self.doubted, self.diverged) = (0, false);
    }

    /// Moves a live row to its next state; nearly all changes are of this kind. Returns its cell and the previous row.
    /// Returns `None`, without a change, when the change is of another kind.
    #[inline(always)]
    pub(crate) fn advance(&mut self, slot: u32, next: &Row, cells: &Cells) -> Option<(CellId, Row)> {
        let (cell, old) = self.slots.advance(slot, next)?;
        self.note(next.version, slot);
        let key = cells.key_hash(cell);
        self.fingerprint = self.fingerprint.wrapping_sub(row_hash(key, &old)).wrapping_add(row_hash(key, next));
        Some((cell, old))
    }

    /// Writes a state into a slot and updates log, fingerprint and lookup tables. Returns the previous state.
    pub(crate) fn put(&mut self, slot: u32, new: Slot, cells: &Cells) -> Slot {
        let old = self.slots.get(slot);
        if old.cell != new.cell && old.is_live() {
            self.unfind(slot, old.cell);
        }
        self.slots.set(slot, new);
        self.note(new.row.version, slot);
        if old.is_live() {
            self.live -= 1;
            let hash = row_hash(cells.key_hash(old.cell), &old.row);
            self.fingerprint = self.fingerprint.wrapping_sub(hash);
        }
        if new.is_live() {
            self.live += 1;
            let hash = row_hash(cells.key_hash(new.cell), &new.row);
            self.fingerprint = self.fingerprint.wrapping_add(hash);
            if old.cell != new.cell
                && let Some(by_cell) = &mut self.by_cell
            {
                let slots = &self.slots;
                by_cell.insert_unique(hash_id(new.cell), slot, |slot| hash_id(slots.get(*slot).cell));
            }
        } else {
            self.vacate(new.row.version, slot);
        }
        old
    }

    /// Notes in the log that a slot changed.
    #[inline(always)]
    fn note(&mut self, version: Version, slot: u32) {
        let Some(log) = &mut self.log else { return };
        log.insert(version, slot);
        if log.is_due(self.slots.len()) {
            let slots = &self.slots;
            log.sweep(|version, slot| slots.version(slot) == version);
        }
    }

    /// Notes that a slot became vacant. Before the list grows (by a quarter), it drops entries of slots that have changed
    /// since. So the list never exceeds the number of vacant slots by more than that, whatever a peer sends.
    fn vacate(&mut self, version: Version, slot: u32) {
        if self.vacated.len() == self.vacated.capacity() {
            let slots = &self.slots;
            let lies = |(version, slot): &(Version, u32)| {
                let state = slots.get(*slot);
                state.cell == VACANT && state.row.version == *version
            };
            self.vacated.retain(lies);
            self.vacated.reserve_exact((self.vacated.len() / 4).max(16));
        }
        self.vacated.push_back((version, slot));
    }

    /// Empties a slot and keeps no record of it.
    pub(crate) fn clear(&mut self, slot: u32, cells: &Cells) {
        let old = self.slots.get(slot);
        if old.is_live() {
            self.unfind(slot, old.cell);
            self.live -= 1;
            let hash = row_hash(cells.key_hash(old.cell), &old.row);
            self.fingerprint = self.fingerprint.wrapping_sub(hash);
        }
        self.slots.set(slot, Slot::NONE);
    }

    fn unfind(&mut self, slot: u32, id: CellId) {
        let Some(by_cell) = &mut self.by_cell else { return };
        if let Ok(entry) = by_cell.find_entry(hash_id(id), |other| *other == slot) {
            entry.remove();
        }
        if let Some(kept) = spare::kept(by_cell.len(), by_cell.capacity()) {
            let slots = &self.slots;
            by_cell.shrink_to(kept, |slot| hash_id(slots.get(*slot).cell));
        }
    }

    /// Returns whether rows from a sender that has purged retirements up to `low_water` can follow the rows held here. If
    /// not, this copy may hold rows that were retired since, and no peer would report that.
    pub(crate) fn follows(&self, low_water: Version) -> bool {
        self.applied == self.since || is_above_low_water(self.applied.max(self.low_water), low_water)
    }

    /// Lowers the low-water mark after a join of rows whose sender knew retirements at least up to `upto`. A sender that
    /// knew fewer retirements than this replica may have sent rows that were retired since.
    pub(crate) fn mix(&mut self, upto: Version) {
        self.low_water = self.low_water.min(upto);
    }

    /// Adopts the low-water mark of a sender whose rows follow the rows held here.
    pub(crate) fn raise_low_water(&mut self, low_water: Version) {
        self.purge(low_water, |_| ());
        self.low_water = self.low_water.max(low_water);
    }

    /// Purges vacant slots up to the low-water mark and passes each freed slot to `freed`.
    pub(crate) fn purge(&mut self, low_water: Version, mut freed: impl FnMut(u32)) {
        let mut gone = 0;
        while let Some((version, slot)) = self.vacated.front().copied().filter(|(version, _)| *version <= low_water) {
            self.vacated.pop_front();
            gone += 1;
            let state = self.slots.get(slot);
            if state.cell != VACANT || state.row.version != version {
                continue;
            }
            self.slots.set(slot, Slot::NONE);
            self.low_water = self.low_water.max(version);
            freed(slot);
        }
        spare::trim_queue(&mut self.vacated);
        if let Some(log) = &mut self.log {
            let slots = &self.slots;
            log.sweep_after(gone, slots.len(), |version, slot| slots.version(slot) == version);
        }
    }

    /// Returns whether rows can be cut from these rows.
    pub(crate) fn has_log(&self) -> bool {
        self.log.is_some()
    }

    /// Makes the log that [`ActorRows::cut`] needs, if there is none. O(rows log rows).
    pub(crate) fn make_log(&mut self) {
        let slots = &self.slots;
        self.log.get_or_insert_with(|| slots.used().map(|(slot, state)| (state.row.version, slot)).collect());
    }

    /// The rows that changed above `after`, in order of version. Needs the log.
    pub(crate) fn changed(&self, after: Version) -> impl Iterator<Item = (u32, Slot)> + '_ {
        let entries = self.log.iter().flat_map(move |log| log.above(after));
        let states = entries.map(|(version, slot)| (version, slot, self.slots.get(slot)));
        states.filter(|(version, _, state)| state.row.version == *version).map(|(_, slot, state)| (slot, state))
    }

    /// Cuts the rows above `after`, up to about `budget` bytes, for a replica that knows the keys of the rows created in
    /// `known`; `None` without a log.
    ///
    /// A row that changes again before its piece is cut is left out of that piece. So a replica that holds all versions up
    /// to some point does not necessarily know all keys up to it. A replica that held everything at one moment does.
    pub(crate) fn cut(&self, known: Span, after: Version, budget: usize, cells: &Cells) -> Option<Cut> {
        self.log.as_ref()?;
        let mut rows = RowWriter::new(after);
        let mut upto = after;
        let mut complete = true;
        for (slot, state) in self.changed(after) {
            if state.row.version > self.applied {
                break;
            }
            if rows.len() >= budget {
                complete = false;
                break;
            }
            upto = state.row.version;
            let key = (state.is_live() && !knows_key(known, state.born)).then(|| cells.key_of(state.cell));
            rows.push(WireRow { slot, version: upto, state: wire_state(&state, key.as_deref()) });
        }
        Some(Cut {
            upto: if complete { self.applied } else { upto },
            low_water: self.low_water,
            fingerprint: complete.then_some(self.fingerprint),
            rows: rows.finish(),
        })
    }

    /// Memory in bytes.
    pub(crate) fn bytes(&self) -> usize {
        self.slots.bytes()
            + self.log.as_ref().map_or(0, Log::bytes)
            + self.by_cell.as_ref().map_or(0, HashTable::allocation_size)
            + self.vacated.capacity() * 16
    }
}

fn wire_state<'a>(state: &Slot, key: Option<&'a [u8]>) -> RowState<'a> {
    if !state.is_live() {
        return RowState::Vacant;
    }
    RowState::Live { key, added: state.row.added, removed: state.row.removed }
}
