//! The bounds that a replica has reached, and what it does not hold for that reason (I14).

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
        reports
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
