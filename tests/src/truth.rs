//! Ground truth: every acknowledged operation of a simulated node, run by run, key by key. Replicas are compared with it, not
//! only with each other.

mod track;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tallymesh_engine::{Row, Time};
use tallymesh_schemas::{Actor, NodeName, StructureName, key};

pub use track::Track;

/// One start of one process.
pub type RunId = usize;

/// Totals of a row, `(added, removed)`.
pub type Totals = (u64, u64);

/// The maximum of both, component by component.
pub(crate) fn most(a: Totals, b: Totals) -> Totals {
    (a.0.max(b.0), a.1.max(b.1))
}

/// The difference of two totals, component by component.
pub(crate) fn less(a: Totals, b: Totals) -> Totals {
    (a.0.saturating_sub(b.0), a.1.saturating_sub(b.1))
}

/// What was counted in one structure.
#[derive(Debug, Clone, Default)]
struct Tracks {
    by_key: BTreeMap<Vec<u8>, Track>,
    operations: u64,
}

/// What was left behind of the totals of each key.
type Bases = BTreeMap<Vec<u8>, Totals>;

type ByStructure<T> = BTreeMap<StructureName, T>;

#[derive(Debug, Clone, Default)]
struct Run {
    /// The actors that it has been, in order.
    actors: Vec<Actor>,
    tracks: ByStructure<Tracks>,
    /// What it has counted in windows of series, and, under [`key::cleared`], what its removals had seen.
    windows: ByStructure<Tracks>,
    /// What it had counted in windows that it dropped and created again, with what each actor had left behind.
    dropped: ByStructure<Vec<(Tracks, BTreeMap<Actor, Bases>)>>,
    /// What each actor has left behind of its totals, because it was removed when the process renewed.
    bases: BTreeMap<Actor, ByStructure<Bases>>,
    /// Later operations do not count any more: the process has left, or is gone.
    over: bool,
}

impl Run {
    /// What it has counted in a structure or window.
    fn tracks(&self, structure: &StructureName) -> Option<&Tracks> {
        self.tracks.get(structure).or_else(|| self.windows.get(structure))
    }
}

/// The track of a key, before an operation on it is recorded.
fn track_in<'a>(all: &'a mut ByStructure<Tracks>, structure: &StructureName, key: &[u8]) -> &'a mut Track {
    // Looked up twice, so that names and keys are not copied for every operation.
    if !all.contains_key(structure) {
        all.insert(structure.clone(), Tracks::default());
    }
    let tracks = all.get_mut(structure).unwrap_or_else(|| unreachable!("it was put there"));
    tracks.operations += 1;
    if !tracks.by_key.contains_key(key) {
        tracks.by_key.insert(key.to_vec(), Track::default());
    }
    tracks.by_key.get_mut(key).unwrap_or_else(|| unreachable!("it was put there"))
}

/// What the processes that were an actor have counted in one structure.
pub(crate) struct History<'a> {
    actor: &'a Actor,
    structure: &'a StructureName,
    runs: Vec<(&'a Tracks, Option<&'a Bases>)>,
}

impl History<'_> {
    /// As [`Truth::position`].
    pub(crate) fn position(&self, key: &[u8], row: &Row, from: usize) -> Result<usize, String> {
        let positions = self.runs.iter().filter_map(|(tracks, bases)| {
            let base = bases.and_then(|bases| bases.get(key)).copied().unwrap_or_default();
            tracks.by_key.get(key)?.position((row.added, row.removed), base, from)
        });
        let (actor, structure) = (self.actor, self.structure);
        positions
            .min()
            .ok_or_else(|| format!("{actor} never had {row:?} for {key:02x?} in {structure} after {from} operations"))
    }
}

/// The ledger of acknowledged operations.
#[derive(Debug, Clone, Default)]
pub struct Truth {
    runs: Vec<Run>,
    actors: BTreeMap<Actor, Vec<RunId>>,
    operations: u64,
    /// Nodes with an identity conflict: they had to renew, because another process had written under their run.
    conflicted: BTreeSet<NodeName>,
    /// The last forgotten run of each node.
    forgotten: BTreeSet<Actor>,
    /// The last change of each entry of gauge caches.
    changes: BTreeMap<(StructureName, Vec<u8>), Time>,
    clock_error: Duration,
}

impl Truth {
    /// A process starts.
    pub fn begin(&mut self, actor: Actor) -> RunId {
        self.runs.push(Run::default());
        let run = self.runs.len() - 1;
        self.also(run, actor);
        run
    }

    /// A process starts with the memory that a run had in an earlier state of the ledger, and continues from there.
    pub(crate) fn restore(&mut self, earlier: &Self, run: RunId) -> RunId {
        let copy = earlier.runs.get(run).cloned().unwrap_or_default();
        self.runs.push(Run { over: false, ..copy });
        self.runs.len() - 1
    }

    /// A process continues under another incarnation.
    pub fn also(&mut self, run: RunId, actor: Actor) {
        self.runs[run].actors.push(actor.clone());
        let runs = self.actors.entry(actor).or_default();
        if !runs.contains(&run) {
            runs.push(run);
        }
    }

    /// A process has renewed and stated its counts again under its current run, except `base` of its totals of this key.
    pub(crate) fn left_behind(&mut self, run: RunId, structure: &StructureName, key: &[u8], base: Totals) {
        let Some(run) = self.runs.get_mut(run) else { return };
        let Some(actor) = run.actors.last() else { return };
        let bases = run.bases.entry(actor.clone()).or_default().entry(structure.clone()).or_default();
        bases.insert(key.to_vec(), base);
    }

    /// A process has dropped a window and created it again; it counts from zero. Other nodes may hold its earlier rows.
    pub(crate) fn begin_anew(&mut self, run: RunId, window: &StructureName) {
        let Some(run) = self.runs.get_mut(run) else { return };
        let Some(tracks) = run.windows.remove(window) else { return };
        let bases = run.bases.iter_mut().filter_map(|(actor, bases)| Some((actor.clone(), bases.remove(window)?)));
        let bases = bases.collect();
        run.dropped.entry(window.clone()).or_default().push((tracks, bases));
    }

    /// What an actor has left behind of its process's totals of a key.
    pub(crate) fn base(&self, run: RunId, actor: &Actor, structure: &StructureName, key: &[u8]) -> Totals {
        let bases = self.runs.get(run).and_then(|run| run.bases.get(actor)?.get(structure));
        bases.and_then(|bases| bases.get(key)).copied().unwrap_or_default()
    }

    /// A node has detected an identity conflict.
    pub(crate) fn conflict(&mut self, node: NodeName) {
        self.conflicted.insert(node);
    }

    /// A node's runs up to this one were forgotten.
    pub(crate) fn forget(&mut self, actor: Actor) {
        self.forgotten.insert(actor);
    }

    pub(crate) fn is_forgotten(&self, actor: &Actor) -> bool {
        self.forgotten.iter().any(|last| last.node == actor.node && last.incarnation >= actor.incarnation)
    }

    /// Whether an actor's counts may be void: its process has renewed and stated its counts again, it was forgotten, or its
    /// node has an identity conflict. Of two processes with one name, each voids the runs between those that it was, and those
    /// may belong to the other process.
    pub(crate) fn may_be_void(&self, actor: &Actor) -> bool {
        let covered = |run: &Run| match run.actors.as_slice() {
            [first, .., last] => {
                first.node == actor.node && (first.incarnation..last.incarnation).contains(&actor.incarnation)
            }
            _ => false,
        };
        self.runs.iter().any(covered)
            || self.is_forgotten(actor)
            || self.conflicted.contains(&actor.node)
            || self.contested(actor)
    }

    /// Whether a running process has renewed from this actor to a later run.
    pub(crate) fn has_gone_on(&self, actor: &Actor) -> bool {
        let went_on = |run: &Run| !run.over && run.actors.split_last().is_some_and(|(_, was)| was.contains(actor));
        self.runs.iter().any(went_on)
    }

    /// Whether rows may be void that a removal relied on. What the removal did not state, because another node had stated it,
    /// may count again.
    pub(crate) fn disturbed(&self) -> bool {
        !self.forgotten.is_empty() || !self.conflicted.is_empty() || self.actors.values().any(|runs| runs.len() > 1)
    }

    /// The process that an actor's rows belong to; `None` when several processes have been this actor.
    pub(crate) fn run_of(&self, actor: &Actor) -> Option<RunId> {
        self.actors.get(actor).filter(|runs| runs.len() == 1).and_then(|runs| runs.first().copied())
    }

    /// The actors that a process has been, in order.
    pub(crate) fn actors_of(&self, run: RunId) -> &[Actor] {
        self.runs.get(run).map_or(&[], |run| &run.actors)
    }

    /// The number of runs so far.
    pub(crate) fn runs(&self) -> usize {
        self.actors.len()
    }

    /// Whether a process has left or is gone.
    pub(crate) fn is_over(&self, run: RunId) -> bool {
        self.runs.get(run).is_none_or(|run| run.over)
    }

    /// Events were counted in a window.
    pub fn record_events(&mut self, run: RunId, window: &StructureName, key: &[u8], n: i64) {
        let Some(run) = self.runs.get_mut(run).filter(|run| !run.over) else { return };
        self.operations += 1;
        track_in(&mut run.windows, window, key).push(n);
    }

    /// A clock was set, or started, with this error.
    pub fn clock_off(&mut self, by: Duration) {
        self.clock_error = self.clock_error.saturating_add(by);
    }

    /// The greatest difference between any two clocks.
    pub fn clock_error(&self) -> Duration {
        self.clock_error
    }

    /// A node has changed an entry of a gauge cache.
    pub fn note_change(&mut self, window: &StructureName, key: &[u8], at: Time) {
        self.changes.insert((window.clone(), key.to_vec()), at);
    }

    /// The last change of an entry of a gauge cache, on any node.
    pub fn changed(&self, window: &StructureName, key: &[u8]) -> Option<Time> {
        self.changes.get(&(window.clone(), key.to_vec())).copied()
    }

    /// A process removed a key in a window, and had seen these totals of an actor.
    pub fn record_removal(&mut self, run: RunId, window: &StructureName, key: &[u8], actor: &Actor, seen: Totals) {
        let Some(run) = self.runs.get_mut(run).filter(|run| !run.over) else { return };
        self.operations += 1;
        let track = track_in(&mut run.windows, window, &key::cleared(actor, key));
        let next = most(track.totals(), seen);
        if next != track.totals() {
            track.enter(next);
        }
    }

    /// The maximum of an actor's totals of a key that removals in a window had seen: over all acknowledged removals, or those
    /// of some processes.
    pub fn removed(&self, window: &StructureName, key: &[u8], actor: &Actor, by: impl Fn(RunId) -> bool) -> Totals {
        let note = key::cleared(actor, key);
        let runs = (0..self.runs.len()).filter(|run| by(*run));
        runs.filter_map(|run| self.track(run, window, &note)).map(Track::totals).fold((0, 0), most)
    }

    /// The totals of an actor that each removal of a key in a window had seen.
    pub(crate) fn removals(&self, window: &StructureName, key: &[u8], actor: &Actor) -> impl Iterator<Item = Totals> {
        let note = key::cleared(actor, key);
        let tracks = (0..self.runs.len()).filter_map(move |run| self.track(run, window, &note));
        tracks.flat_map(|track| track.states.iter().copied())
    }

    /// [`Truth::removed`] for every key and actor of a window, under [`key::cleared`].
    pub(crate) fn all_removed(&self, window: &StructureName, by: impl Fn(RunId) -> bool) -> BTreeMap<&[u8], Totals> {
        let mut removed: BTreeMap<&[u8], Totals> = BTreeMap::new();
        for run in (0..self.runs.len()).filter(|run| by(*run)) {
            for (note, track) in self.tracks(run, window).filter(|(key, _)| key::is_cleared(key)) {
                let seen = removed.entry(note).or_default();
                *seen = most(*seen, track.totals());
            }
        }
        removed
    }

    /// An operation was acknowledged.
    pub fn record(&mut self, run: RunId, structure: &StructureName, key: &[u8], n: i64) {
        let Some(run) = self.runs.get_mut(run).filter(|run| !run.over) else { return };
        self.operations += 1;
        track_in(&mut run.tracks, structure, key).push(n);
    }

    /// A process leaves: all its gauges are zero from now on; its events remain.
    pub fn leave(&mut self, run: RunId) {
        let Some(run) = self.runs.get_mut(run) else { return };
        run.over = true;
        for track in run.tracks.values_mut().flat_map(|tracks| tracks.by_key.values_mut()) {
            let (added, removed) = track.totals();
            if added != removed {
                track.enter((added.max(removed), added.max(removed)));
            }
        }
    }

    /// A process ends without a goodbye: its last counts remain.
    pub fn end(&mut self, run: RunId) {
        if let Some(run) = self.runs.get_mut(run) {
            run.over = true;
        }
    }

    /// Operations so far.
    pub fn operations(&self) -> u64 {
        self.operations
    }

    /// The count of a run for a key.
    pub fn value(&self, run: RunId, structure: &StructureName, key: &[u8]) -> i64 {
        self.track(run, structure, key).map_or(0, Track::value)
    }

    /// What a run has counted for a key so far.
    pub fn track(&self, run: RunId, structure: &StructureName, key: &[u8]) -> Option<&Track> {
        self.runs.get(run)?.tracks(structure)?.by_key.get(key)
    }

    /// Operations of a run in a structure or window so far.
    pub(crate) fn operations_in(&self, run: RunId, structure: &StructureName) -> u64 {
        let tracks = self.runs.get(run).and_then(|run| run.tracks(structure));
        tracks.map_or(0, |tracks| tracks.operations)
    }

    /// The keys that a run has counted in a window, including those of its removals.
    pub(crate) fn tracks(&self, run: RunId, window: &StructureName) -> impl Iterator<Item = (&[u8], &Track)> {
        let tracks = self.runs.get(run).and_then(|run| run.windows.get(window));
        tracks.into_iter().flat_map(|tracks| &tracks.by_key).map(|(key, track)| (key.as_slice(), track))
    }

    /// The keys that a run has counted, with their counts.
    pub fn values(&self, run: RunId, structure: &StructureName) -> impl Iterator<Item = (&[u8], i64)> {
        let tracks = self.runs.get(run).and_then(|run| run.tracks.get(structure));
        tracks.into_iter().flat_map(|tracks| &tracks.by_key).map(|(key, track)| (key.as_slice(), track.value()))
    }

    /// A liar has invented a run: replicas may name it, and no process ever counts under it.
    pub(crate) fn hearsay(&mut self, actor: Actor) {
        self.actors.entry(actor).or_default();
    }

    /// Whether a later run of the actor's node has begun, or a liar has invented one. Replicas that learn of it drop the
    /// actor's gauges, and accept them again when the node states itself that it is in the earlier run.
    pub(crate) fn has_later_run(&self, actor: &Actor) -> bool {
        let later = |other: &Actor| other.node == actor.node && other.incarnation > actor.incarnation;
        self.actors.keys().any(later)
    }

    /// Whether more than one process has been this actor.
    pub fn contested(&self, actor: &Actor) -> bool {
        !self.sharing(actor).is_empty()
    }

    /// The processes that have been this actor, if there is more than one.
    pub(crate) fn sharing(&self, actor: &Actor) -> &[RunId] {
        self.actors.get(actor).filter(|runs| runs.len() > 1).map_or(&[], Vec::as_slice)
    }

    /// Whether an actor counted nothing for a key, after `from` operations or later.
    pub fn was_zero(&self, actor: &Actor, structure: &StructureName, key: &[u8], from: usize) -> bool {
        let runs = self.actors.get(actor).into_iter().flatten();
        let mut tracks = runs.filter_map(|run| self.track(*run, structure, key));
        tracks.any(|track| track.zero.is_some_and(|at| at >= from))
    }

    /// The position of a row in the history of an actor's key, at `from` or later.
    ///
    /// # Errors
    /// When no process that was this actor ever had these totals.
    pub fn position(
        &self,
        actor: &Actor,
        structure: &StructureName,
        key: &[u8],
        row: &Row,
        from: usize,
    ) -> Result<usize, String> {
        self.history(actor, structure)?.position(key, row, from)
    }

    /// What an actor has counted in a structure, to look up many of its rows.
    pub(crate) fn history<'a>(&'a self, actor: &'a Actor, structure: &'a StructureName) -> Result<History<'a>, String> {
        let runs = self.actors.get(actor).ok_or_else(|| format!("nobody was ever {actor}"))?;
        let runs = runs.iter().filter_map(|run| self.runs.get(*run));
        let counted = runs.flat_map(|run| {
            let bases = run.bases.get(actor).and_then(|bases| bases.get(structure));
            let dropped = run.dropped.get(structure).into_iter().flatten();
            let dropped = dropped.map(|(tracks, bases)| (tracks, bases.get(actor)));
            run.tracks(structure).map(|tracks| (tracks, bases)).into_iter().chain(dropped)
        });
        Ok(History { actor, structure, runs: counted.collect() })
    }
}
