//! The runs that wrote the entries of a cache, by number, so that an entry names its run in four bytes.

use std::collections::BTreeMap;

use tallymesh_schemas::Actor;

use crate::cache::context::Context;
use crate::cache::entry::RunId;

#[derive(Debug)]
struct Named {
    run: Actor,
    /// Entries that name it.
    entries: u64,
    /// The highest number of a write in an entry that was received.
    highest: u64,
}

/// The runs that entries name. A run that no entry names any more gives up its number.
#[derive(Debug, Default)]
pub(crate) struct RunTable {
    by_run: BTreeMap<Actor, RunId>,
    named: Vec<Option<Named>>,
    free: Vec<RunId>,
}

/// A run of which a write was received that no mark has covered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Unmarked {
    pub(crate) run: RunId,
    /// The highest number of a write that was received.
    highest: u64,
    /// The number up to which the context covers the run.
    pub(crate) reached: u64,
}

impl RunTable {
    /// The number of a run.
    pub(crate) fn find(&self, run: &Actor) -> Option<RunId> {
        self.by_run.get(run).copied()
    }

    pub(crate) fn get(&self, id: RunId) -> Option<&Actor> {
        self.named.get(id as usize)?.as_ref().map(|named| &named.run)
    }

    /// The number of entries that name a run, and the highest number of a write in an entry that was received.
    pub(crate) fn named(&self, run: &Actor) -> (u64, u64) {
        let named = self.find(run).and_then(|id| self.named.get(id as usize)?.as_ref());
        named.map_or((0, 0), |named| (named.entries, named.highest))
    }

    /// Another entry names a run. Returns the run's number.
    pub(crate) fn hold(&mut self, run: &Actor, number: u64) -> RunId {
        let id = self.find(run).unwrap_or_else(|| self.add(run));
        if let Some(Some(named)) = self.named.get_mut(id as usize) {
            named.entries += 1;
            named.highest = number.max(named.highest);
        }
        id
    }

    fn add(&mut self, run: &Actor) -> RunId {
        let end = RunId::try_from(self.named.len()).unwrap_or(RunId::MAX);
        let id = self.free.pop().unwrap_or(end);
        let named = Some(Named { run: run.clone(), entries: 0, highest: 0 });
        match self.named.get_mut(id as usize) {
            Some(place) => *place = named,
            None => self.named.push(named),
        }
        self.by_run.insert(run.clone(), id);
        id
    }

    /// An entry that named a run is gone.
    pub(crate) fn release(&mut self, id: RunId) {
        let Some(place) = self.named.get_mut(id as usize) else { return };
        let Some(named) = place else { return };
        named.entries -= 1;
        if named.entries == 0 {
            self.by_run.remove(&named.run);
            *place = None;
            self.free.push(id);
        }
    }

    /// Up to which number a context has the writes of each run.
    pub(crate) fn reached(&self, context: &Context) -> Vec<u64> {
        let reached = |named: &Option<Named>| named.as_ref().map_or(0, |named| context.reached(&named.run));
        self.named.iter().map(reached).collect()
    }

    /// Adds to a context the highest write of each run that was received.
    pub(crate) fn add_highest(&self, context: &mut Context) {
        self.named.iter().flatten().for_each(|named| context.raise(&named.run, named.highest));
    }

    /// The runs of which a write was received that a context does not cover.
    pub(crate) fn unmarked<'a>(&'a self, context: &'a Context) -> impl Iterator<Item = (&'a Actor, Unmarked)> {
        let runs = self.by_run.iter().filter_map(|(run, id)| {
            let highest = self.named.get(*id as usize)?.as_ref()?.highest;
            Some((run, Unmarked { run: *id, highest, reached: context.reached(run) }))
        });
        runs.filter(|(_, of)| of.highest > of.reached)
    }

    /// No entry names such a write of a run any more.
    pub(crate) fn settle(&mut self, of: &Unmarked) {
        if let Some(Some(named)) = self.named.get_mut(of.run as usize) {
            named.highest = of.reached;
        }
    }

    /// The runs in order, with their numbers.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&Actor, RunId)> {
        self.by_run.iter().map(|(run, id)| (run, *id))
    }
}
