//! The bounds that a replica has reached, and what it does not hold for that reason (I14).

use std::sync::Arc;

use tallymesh_schemas::bound::{self, Bound};
use tallymesh_schemas::bounds;

use crate::replica::Replica;

impl Replica {
    /// The bounds reached since the start: those of the replica, and those of each structure and cache. All windows of a series count as
    /// one place.
    pub fn bounds(&self) -> Vec<bound::Report> {
        let mut reports = self.output.tally.reports(limit);
        let structures = self.structures.values().map(|held| (&held.structure.spec().name, &held.structure.tally));
        let caches = self.caches.iter().map(|(_, held)| (&held.cache.spec().name, &held.cache.shared.tally));
        for (name, tally) in structures.chain(caches) {
            let name = name.as_str();
            let place = name.split_once('@').map_or(name, |(series, _)| series);
            for report in tally.reports(limit) {
                let known =
                    |other: &&mut bound::Report| other.bound == report.bound && other.place.as_deref() == Some(place);
                match reports.iter_mut().find(known) {
                    Some(other) => other.times = other.times.saturating_add(report.times),
                    None => reports.push(bound::Report { place: Some(place.to_owned()), ..report }),
                }
            }
        }
        reports.extend(self.budgets_reached());
        reports
    }

    /// The budgets that were reached: of the node, and of its objects. All windows of a series have one.
    fn budgets_reached(&self) -> impl Iterator<Item = bound::Report> {
        let place = |name: &str| Some(name.split_once('@').map_or(name, |(series, _)| series).to_owned());
        let structures = self.structures.values().filter(|held| !held.structure.is_window());
        let structures = structures.map(|held| &held.structure);
        let windows = self.series().filter_map(|series| series.windows().into_iter().next());
        let objects = structures.cloned().chain(windows).map(move |structure| {
            let object = Arc::clone(structure.keys.quota().object());
            (place(structure.spec().name.as_str()), object)
        });
        let objects: Vec<_> = objects.collect();
        let objects = objects.into_iter().map(|(place, budget)| (place, budget.refused(), budget.max()));
        let node = self.budget.reached().map(|(times, max)| (None, times, max));
        let reached = objects.chain(node).filter(|(_, times, _)| *times > 0);
        reached.map(|(place, times, limit)| bound::Report { bound: Bound::Budget, place, limit, times })
    }
}

fn limit(bound: Bound) -> u64 {
    let limit = match bound {
        Bound::Actors => bounds::ACTORS,
        Bound::Nodes => bounds::NODES,
        Bound::Rows => bounds::ROWS_PER_ACTOR as usize,
        Bound::Tombstones => bounds::TOMBSTONES,
        Bound::SeenEntries => bounds::SEEN_ENTRIES,
        Bound::Wants => bounds::WANTS,
        Bound::RunQuestions => bounds::RUN_QUESTIONS as usize,
        Bound::Events => bounds::EVENTS,
        // Other components count these.
        _ => 0,
    };
    limit as u64
}
