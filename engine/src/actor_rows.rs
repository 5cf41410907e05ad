//! One actor's part of a structure: its rows by slot, their log, and how far they are known.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use hashbrown::HashTable;
use tallymesh_schemas::Version;
use tallymesh_schemas::rows::{RowState, RowWriter, WireRow};

use crate::canary::{self, Canary};
use crate::cells::Cells;
use crate::ledger::{Register, Registers};
use crate::log::Log;
use crate::radix::KeyOf;
use crate::row::{Row, row_hash};
use crate::slots::{CellId, EMPTY, Slot, Slots, VACANT};
use crate::time::Time;

/// What is known of one actor's rows: everything that changed in `(since, have]`.
#[derive(Debug, Default)]
pub(crate) struct ActorRows {
    slots: Slots,
    /// What changed when. Our own rows always have one; of others' rows it is made when somebody asks us for them, which
    /// happens while their owner cannot be reached.
    log: Option<Log>,
    /// Slots by the number of their cell. Our own are found by the cell, which names its slot.
    by_cell: Option<HashTable<u32>>,
    /// Vacant slots in the order in which they became so.
    vacated: VecDeque<(Version, u32)>,
    live: usize,
    fingerprint: u64,
    pub(crate) since: Version,
    pub(crate) applied: Version,
    /// Retirements up to this version may have been purged; none of the rows here is one that was.
    pub(crate) floor: Version,
    /// The keys of all rows that came to be up to this version are known: the owner said so once that it had sent all.
    /// Above it a slot may have another key than it has here, or one that is not known here.
    pub(crate) keys_complete: Version,
    /// Everything that its owner had at one moment up to this version is here, as somebody says who had it all.
    pub(crate) complete: Version,
    /// What it has up to this version was taken back from what was saved.
    pub(crate) restored: Version,
    /// Rows up to this version were there before they could come here: they may be older than that.
    pub(crate) inherited: Version,
    /// The probe whose answer tells whether it is what its owner has, when the owner has stated something else; 0 for none.
    pub(crate) doubted: u64,
    /// Whether its rows count in what is read (I4).
    pub(crate) counts: bool,
    /// When its owner last confirmed that `applied` is the head; of a cache's run that has ended, when somebody last had the same.
    pub(crate) confirmed: Time,
    /// At its owner's head it had another fingerprint: only a snapshot helps.
    pub(crate) diverged: bool,
    /// Another number whenever it becomes something else than what it was and rows above `applied`: whoever has copied it
    /// copies it anew then.
    pub(crate) edition: u64,
    /// Of a cache: cells of rows that others than their owner have told without the value. What outdid them there may be lost.
    pub(crate) without_value: BTreeSet<CellId>,
    /// For how many looks some of them have been lacking.
    pub(crate) rounds_without_value: u32,
    /// The first of those of which the value has come since this was last asked for.
    pub(crate) value_arrived: Option<Version>,
    /// A snapshot that is being received and will replace these rows.
    pub(crate) staging: Option<Box<ActorRows>>,
    /// Of a shadow: writes that lose to what its actor's rows have told here so far, by cell. What they lose to may be
    /// nothing that the owner has.
    pub(crate) losing: Option<BTreeMap<CellId, Register>>,
}

/// Rows cut for a peer: those of `(after, upto]` that have not moved on.
#[derive(Debug)]
pub(crate) struct Cut {
    pub(crate) upto: Version,
    pub(crate) low_water: Version,
    /// Set when `upto` is all there is.
    pub(crate) fingerprint: Option<u64>,
    pub(crate) rows: Vec<u8>,
}

fn hash_id(id: CellId) -> u64 {
    u64::from(id).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

impl ActorRows {
    /// Nothing known yet of what changed after `since`.
    pub(crate) fn new(since: Version) -> Self {
        Self { since, applied: since, keys_complete: since, by_cell: Some(HashTable::new()), ..Self::default() }
    }

    /// A snapshot that is about to be received.
    pub(crate) fn staging(since: Version) -> Self {
        Self { losing: Some(BTreeMap::new()), ..Self::new(since) }
    }

    /// The beginning of our own rows.
    pub(crate) fn ours() -> Self {
        Self { counts: true, log: Some(Log::default()), ..Self::default() }
    }

    /// The same, as another edition.
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

    /// Looks at slots that are about to be written to, all at once, so that they are at hand one by one.
    #[inline]
    pub(crate) fn warm(&self, slots: impl Iterator<Item = u32>) {
        std::hint::black_box(slots.fold(0, |sum, slot| sum ^ self.slots.version(slot)));
    }

    /// Live rows.
    pub(crate) fn len(&self) -> usize {
        self.live
    }

    /// The sum of the hashes of its live rows.
    pub(crate) fn fingerprint(&self) -> u64 {
        self.fingerprint
    }

    pub(crate) fn live(&self) -> impl Iterator<Item = (u32, Slot)> + '_ {
        self.slots.live()
    }

    /// Live rows, and slots of which it is known that they are vacant.
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

    /// The row of a version, with its slot. Makes the log that this needs, if there is none.
    pub(crate) fn find_version(&mut self, version: Version) -> Option<(u32, Slot)> {
        self.make_log();
        let noted = self.log.as_ref()?.above(version.saturating_sub(1)).next().filter(|(at, _)| *at == version);
        noted.map(|(_, slot)| (slot, self.slots.get(slot))).filter(|(_, state)| state.row.version == version)
    }

    /// Whether everything that its owner had at one moment up to `applied` is here. Rows that came in pieces may lack some that
    /// moved on before their turn came.
    pub(crate) fn is_complete(&self) -> bool {
        self.keys_complete.max(self.complete) >= self.applied
    }

    /// Whether it may be newer than what its owner states of the same version: a statement that is under way for longer than
    /// rows in pieces, which others pass on, or which came twice. What has moved on since is in neither.
    pub(crate) fn may_be_newer(&self) -> bool {
        !self.is_complete()
    }

    /// Takes note that it is what its owner has.
    pub(crate) fn agrees(&mut self) {
        (self.doubted, self.diverged) = (0, false);
    }

    /// Lets a live row go on to its next state, which is what nearly all changes are. Returns its cell, and the row as it
    /// was; `None` when it is not that simple, and nothing has changed.
    #[inline]
    pub(crate) fn advance(&mut self, slot: u32, next: &Row, cells: &Cells) -> Option<(CellId, Row)> {
        let (cell, old) = self.slots.advance(slot, next)?;
        self.note(next.version, slot);
        let key = cells.key_hash(cell);
        self.fingerprint = self.fingerprint.wrapping_sub(row_hash(key, &old)).wrapping_add(row_hash(key, next));
        Some((cell, old))
    }

    /// Puts a state into a slot, keeping log, fingerprint and finders in step. Returns the state that was there.
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

    /// Notes that a slot became vacant. Before the list grows, by a quarter, what has moved on since goes: so it stays within
    /// that of the vacant slots, whatever a peer says how often.
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

    /// Empties a slot without a trace.
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
        let by_cell = self.by_cell.as_mut();
        if let Some(Ok(entry)) = by_cell.map(|by_cell| by_cell.find_entry(hash_id(id), |other| *other == slot)) {
            entry.remove();
        }
    }

    /// Whether rows cut by one who has purged retirements up to `low_water` follow on what is here. If not, rows may be here
    /// that were retired since, and nobody would say so.
    pub(crate) fn follows(&self, floor: Version) -> bool {
        self.applied == self.since || floor <= self.applied.max(self.floor) || canary::broken(Canary::FloorIgnored)
    }

    /// Takes note that rows were joined whose sender knew retirements at least up to `upto`: one that knew fewer than we do
    /// may have sent rows that were retired since.
    pub(crate) fn mix(&mut self, upto: Version) {
        self.floor = self.floor.min(upto);
    }

    /// Takes note of the floor of whoever sent rows that follow on what is here.
    pub(crate) fn raise_low_water(&mut self, floor: Version) {
        self.purge(floor, |_| ());
        self.floor = self.floor.max(floor);
    }

    /// Purges vacant slots up to `low_water`, and tells each that is free now.
    pub(crate) fn purge(&mut self, floor: Version, mut freed: impl FnMut(u32)) {
        while let Some((version, slot)) = self.vacated.front().copied().filter(|(version, _)| *version <= floor) {
            self.vacated.pop_front();
            let state = self.slots.get(slot);
            if state.cell != VACANT || state.row.version != version {
                continue;
            }
            self.slots.set(slot, Slot::NONE);
            self.floor = self.floor.max(version);
            freed(slot);
        }
    }

    /// Whether rows can be cut from it.
    pub(crate) fn has_log(&self) -> bool {
        self.log.is_some()
    }

    /// Makes the log that [`ActorRows::cut`] needs, if there is none. O(rows log rows).
    pub(crate) fn make_log(&mut self) {
        let slots = &self.slots;
        self.log.get_or_insert_with(|| slots.used().map(|(slot, state)| (state.row.version, slot)).collect());
    }

    /// What changed above `after`, in order of version. Needs the log.
    pub(crate) fn changed(&self, after: Version) -> impl Iterator<Item = (u32, Slot)> + '_ {
        let entries = self.log.iter().flat_map(move |log| log.above(after));
        let states = entries.map(|(version, slot)| (version, slot, self.slots.get(slot)));
        states.filter(|(version, _, state)| state.row.version == *version).map(|(_, slot, state)| (slot, state))
    }

    /// Cuts the rows above `after` for a replica that knows the keys of rows born in `(since, known]`, up to about `budget`
    /// bytes of them; `None` without a log.
    ///
    /// A row that moves on before its turn comes is left out of the piece that it would have been in, so to have all
    /// versions up to some point is not to know all keys up to there. To have had everything at one moment is.
    pub(crate) fn cut(
        &self,
        (since, known): (Version, Version),
        after: Version,
        budget: usize,
        (cells, registers): (&Cells, &Registers),
    ) -> Option<Cut> {
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
            let known = state.born > since && (state.born <= known || canary::broken(Canary::KeyOmitted));
            let key = (state.is_live() && !known).then(|| cells.key_of(state.cell));
            rows.push(WireRow { slot, version: upto, state: wire_state(&state, key.as_deref(), registers) });
        }
        Some(Cut {
            upto: if complete { self.applied } else { upto },
            low_water: self.floor,
            fingerprint: complete.then_some(self.fingerprint),
            rows: rows.finish(),
        })
    }

    /// Bytes that it takes.
    pub(crate) fn bytes(&self) -> usize {
        self.slots.bytes()
            + self.log.as_ref().map_or(0, Log::bytes)
            + self.by_cell.as_ref().map_or(0, HashTable::allocation_size)
            + self.vacated.capacity() * 16
            + self.without_value.len() * size_of::<CellId>()
    }
}

fn wire_state<'a>(state: &Slot, key: Option<&'a [u8]>, registers: &'a Registers) -> RowState<'a> {
    if !state.is_live() {
        return RowState::Vacant;
    }
    // What another write wins over travels without its value: that is read nowhere any more.
    if let Some((expires_ms, value)) = registers.content(state.cell, &state.row) {
        return RowState::Content { key, stamp: state.row.added, expires_ms, value };
    }
    RowState::Live { key, added: state.row.added, removed: state.row.removed }
}
