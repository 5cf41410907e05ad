//! Ground truth: every operation that a simulated node was told is done, run by run, key by key. Replicas are compared
//! with this, not only with each other.

use std::collections::BTreeMap;

use tallymesh_engine::Row;
use tallymesh_schemas::{Actor, StructureName, limits};

/// One start of one process.
pub type RunId = usize;

/// What one run has counted for one key: the totals after each operation, oldest first.
#[derive(Debug, Clone, Default)]
pub struct Track {
    states: Vec<(u64, u64)>,
    /// After how many operations both totals were this much.
    zeros: BTreeMap<u64, usize>,
}

impl Track {
    fn push(&mut self, n: i64) {
        let n = n.clamp(-limits::STEP, limits::STEP);
        if n == 0 {
            return;
        }
        let (added, removed) = self.totals();
        let next = if n > 0 { (added + n.unsigned_abs(), removed) } else { (added, removed + n.unsigned_abs()) };
        self.enter(next);
    }

    fn enter(&mut self, state: (u64, u64)) {
        self.states.push(state);
        if state.0 == state.1 {
            self.zeros.insert(state.0, self.states.len());
        }
    }

    /// The totals now.
    pub fn totals(&self) -> (u64, u64) {
        self.states.last().copied().unwrap_or((0, 0))
    }

    /// What the key counts now.
    pub fn value(&self) -> i64 {
        let (added, removed) = self.totals();
        added.wrapping_sub(removed) as i64
    }

    /// After how many operations, and not before `from` of them, a row could have had these totals. A node that has let go
    /// of a key whose count was zero counts from zero again.
    pub fn position(&self, totals: (u64, u64), from: usize) -> Option<usize> {
        if from == 0 && totals == (0, 0) {
            return Some(0);
        }
        let start = from.saturating_sub(1);
        let found = self.states.iter().enumerate().skip(start).find(|(i, (added, removed))| {
            let base = added.checked_sub(totals.0).filter(|base| removed.checked_sub(totals.1) == Some(*base));
            base.is_some_and(|base| base == 0 || self.zeros.get(&base).is_some_and(|at| *at <= i + 1))
        });
        found.map(|(i, _)| i + 1)
    }
}

#[derive(Debug, Clone, Default)]
struct Run {
    tracks: BTreeMap<StructureName, BTreeMap<Vec<u8>, Track>>,
    /// What comes now is not counted any more: the process has left, or is gone.
    over: bool,
}

/// The ledger of acknowledged operations.
#[derive(Debug, Clone, Default)]
pub struct Truth {
    runs: Vec<Run>,
    actors: BTreeMap<Actor, Vec<RunId>>,
    operations: u64,
}

impl Truth {
    /// A process starts.
    pub fn begin(&mut self, actor: Actor) -> RunId {
        self.runs.push(Run::default());
        let run = self.runs.len() - 1;
        self.also(run, actor);
        run
    }

    /// A process goes on under another incarnation.
    pub fn also(&mut self, run: RunId, actor: Actor) {
        let runs = self.actors.entry(actor).or_default();
        if !runs.contains(&run) {
            runs.push(run);
        }
    }

    /// An operation was acknowledged.
    pub fn record(&mut self, run: RunId, structure: &StructureName, key: &[u8], n: i64) {
        let Some(run) = self.runs.get_mut(run).filter(|run| !run.over) else { return };
        self.operations += 1;
        let tracks = match run.tracks.get_mut(structure) {
            Some(tracks) => tracks,
            None => run.tracks.entry(structure.clone()).or_default(),
        };
        match tracks.get_mut(key) {
            Some(track) => track.push(n),
            None => tracks.entry(key.to_vec()).or_default().push(n),
        }
    }

    /// A process leaves: all its gauges are zero from now on.
    pub fn leave(&mut self, run: RunId) {
        let Some(run) = self.runs.get_mut(run) else { return };
        run.over = true;
        for track in run.tracks.values_mut().flat_map(BTreeMap::values_mut) {
            let (added, removed) = track.totals();
            if added != removed {
                track.enter((added.max(removed), added.max(removed)));
            }
        }
    }

    /// A process ends without a word: what it counted last is what it counted.
    pub fn end(&mut self, run: RunId) {
        if let Some(run) = self.runs.get_mut(run) {
            run.over = true;
        }
    }

    /// Operations so far.
    pub fn operations(&self) -> u64 {
        self.operations
    }

    /// What a run counts for a key.
    pub fn value(&self, run: RunId, structure: &StructureName, key: &[u8]) -> i64 {
        self.track(run, structure, key).map_or(0, Track::value)
    }

    /// What a run has counted for a key so far.
    pub fn track(&self, run: RunId, structure: &StructureName, key: &[u8]) -> Option<&Track> {
        self.runs.get(run)?.tracks.get(structure)?.get(key)
    }

    /// The keys that a run has counted, with what it counts.
    pub fn values(&self, run: RunId, structure: &StructureName) -> impl Iterator<Item = (&[u8], i64)> {
        let tracks = self.runs.get(run).and_then(|run| run.tracks.get(structure));
        tracks.into_iter().flatten().map(|(key, track)| (key.as_slice(), track.value()))
    }

    /// Whether more than one process has called itself so.
    pub fn contested(&self, actor: &Actor) -> bool {
        self.actors.get(actor).is_some_and(|runs| runs.len() > 1)
    }

    /// Whether an actor counted nothing for a key, after `from` operations or later.
    pub fn was_zero(&self, actor: &Actor, structure: &StructureName, key: &[u8], from: usize) -> bool {
        let runs = self.actors.get(actor).into_iter().flatten();
        let mut tracks = runs.filter_map(|run| self.track(*run, structure, key));
        tracks.any(|track| track.zeros.values().any(|at| *at >= from))
    }

    /// Where in the history of an actor's key a row stands, at `from` or behind it.
    ///
    /// # Errors
    /// When no process of that name ever counted so.
    pub fn position(
        &self,
        actor: &Actor,
        structure: &StructureName,
        key: &[u8],
        row: &Row,
        from: usize,
    ) -> Result<usize, String> {
        let runs = self.actors.get(actor).ok_or_else(|| format!("nobody was ever {actor}"))?;
        let totals = (row.added, row.removed);
        let found = runs.iter().filter_map(|run| self.track(*run, structure, key)?.position(totals, from)).min();
        found.ok_or_else(|| format!("{actor} never had {row:?} for {key:02x?} in {structure} after {from} operations"))
    }
}
