//! The bounds that this node has reached (I14): collected from the parts that count them, logged once, and kept for `cluster
//! info`.

use std::time::Duration;

use tallymesh_engine::{Now, Time};
#[cfg(any(feature = "admin", feature = "http"))]
use tallymesh_schemas::bound::Reached;
use tallymesh_schemas::bound::{Log, Report};
use tallymesh_schemas::{Bound, Repeated, Reporter};

/// Time between two collections.
const INTERVAL: Duration = Duration::from_secs(1);

/// See the [module](self).
#[derive(Debug)]
pub(crate) struct Bounds {
    log: Log,
    reporter: Reporter<Bound, Option<String>>,
    at: Time,
}

/// A bound that was reached, and its object; `None` for a bound of the whole node.
#[cfg(any(feature = "admin", feature = "http"))]
pub(crate) type Entry = (Bound, Option<String>, Reached);

impl Bounds {
    pub(crate) fn new() -> Self {
        Self { log: Log::default(), reporter: Reporter::new(1), at: Time(0) }
    }

    /// Collects the reports, if it is time.
    pub(crate) fn poll(&mut self, now: Now, reports: impl FnOnce() -> Vec<Report>) {
        if now.mono < self.at {
            return;
        }
        self.at = now.mono.after(INTERVAL);
        self.note(now, reports());
    }

    /// Records the reports.
    pub(crate) fn note(&mut self, now: Now, reports: Vec<Report>) {
        let since_start = Duration::from_micros(now.mono.0);
        for report in reports {
            let (bound, place, limit) = (report.bound, report.place.clone(), report.limit);
            if self.log.note(now.unix_ms.0, report) && self.reporter.occurred(since_start, &bound, &place) {
                let object = place.map(tracing::field::display);
                tracing::warn!(bound = bound.name(), object, limit, effect = bound.effect(), "a bound is reached");
            }
        }
        while let Some(Repeated { of, within, .. }) = self.reporter.poll(since_start) {
            let Some((bound, place)) = of else { continue };
            let times = self.log.iter().find(|(of, at, _)| (*of, *at) == (bound, place.as_deref()));
            let times = times.map_or(0, |(_, _, reached)| reached.times);
            let object = place.map(tracing::field::display);
            let within_s = within.as_secs();
            tracing::warn!(bound = bound.name(), object, times, within_s, "a bound was reached again");
        }
    }

    #[cfg(any(feature = "admin", feature = "http"))]
    pub(crate) fn entries(&self) -> Vec<Entry> {
        self.log.iter().map(|(bound, place, reached)| (bound, place.map(str::to_owned), *reached)).collect()
    }
}

#[cfg(all(test, feature = "admin"))]
mod tests {
    use std::time::Instant;

    use tallymesh_engine::replica::NotHeld;
    use tallymesh_schemas::message::{Digest, DigestEntry, Message, StructureDigest};
    use tallymesh_schemas::{Actor, GaugeCacheSpec, Incarnation, NodeName, StructureSpec, Version, bounds};
    use tallymesh_transport::{Config, Endpoint, Event, Link};

    use super::*;
    use crate::Node;
    use crate::command::Command;
    use crate::fixtures::identities;

    /// Longer than any step of these tests takes.
    const PATIENCE: Duration = Duration::from_secs(30);

    fn name(name: &str) -> NodeName {
        NodeName::new(name).unwrap()
    }

    /// Sends digests in which a member claims many runs of its own in a gauge cache.
    async fn name_runs(link: &Link, spec: &StructureSpec, ours: Incarnation, runs: u64) {
        let runs: Vec<_> = (1..=runs).map(|run| Actor::new(name("n1"), Incarnation(run))).collect();
        for runs in runs.chunks(bounds::DIGEST_ENTRIES) {
            let entry = |actor: &Actor| DigestEntry {
                actor: actor.clone(),
                since: Version::ZERO,
                applied: Version(7),
                low_water: Version::ZERO,
                fingerprint: 1,
                age_ms: None,
            };
            let (structure, name, kind) = (spec.name.id(), spec.name.as_str(), spec.class.kind());
            let entries = runs.iter().map(entry).collect();
            let message = Message::Digest(Digest {
                incarnation: ours,
                clock_ms: crate::clock::unix_ms(),
                answers: 0,
                complete: true,
                structures: vec![StructureDigest { structure, name, kind, entries }],
                tombstones: Vec::new(),
            });
            let mut bytes = Vec::new();
            message.encode(&mut bytes).unwrap();
            let begin = Instant::now();
            while !link.has_room() {
                assert!(begin.elapsed() < PATIENCE);
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            link.send(bytes.into()).unwrap();
        }
    }

    /// Over sockets: a member claims 6,000 runs of its own. The node reports the bound and still has room for a later member
    /// (I14).
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_full_table_of_runs_is_reported_and_verification_names_what_is_not_held() {
        let mut identities = identities(&["n0", "n1", "n2"]).into_iter();
        let gauges = GaugeCacheSpec::new("sessions").unwrap();
        let start = |n: usize, identity| Node::builder(&format!("n{n}")).identity(identity).gauge_cache(gauges.clone());
        let node = start(0, identities.next().unwrap()).start().await.unwrap();
        let ours = Incarnation(crate::clock::unix_ms().0);
        let mut config = Config::loopback(ours);
        config.seeds.push(node.listen_addr().to_string());
        let (_liar, mut events) = Endpoint::bind(identities.next().unwrap(), config).unwrap();
        let link = loop {
            if let Some(Event::Up(link)) = events.recv().await {
                break link;
            }
        };
        let reading = tokio::spawn(async move { while events.recv().await.is_some() {} });
        name_runs(&link, &gauges.structure(), ours, 6000).await;
        let begin = Instant::now();
        let entry = loop {
            let status = node.ask(Command::Status).await.unwrap();
            if let Some(entry) = status.bounds.into_iter().find(|(bound, ..)| *bound == Bound::Actors) {
                break entry;
            }
            assert!(begin.elapsed() < PATIENCE, "no bound is reported");
            tokio::time::sleep(Duration::from_millis(20)).await;
        };
        let (_, place, reached) = entry;
        assert_eq!((place.as_deref(), reached.limit), (Some("gauge:sessions"), bounds::ACTORS as u64));
        let found = node.verify(Duration::from_millis(100)).await.unwrap();
        assert!(!found.converged() && found.more_unheld);
        assert!(found.unheld.iter().any(|unheld| matches!(unheld, NotHeld::Run { .. })), "{}", found.unheld.len());
        // There is room for a later member.
        let late = start(2, identities.next().unwrap()).seed(node.listen_addr().to_string()).start().await.unwrap();
        late.gauge_cache("sessions").unwrap().inc("from-n2", 1).unwrap();
        let gauges = node.gauge_cache("sessions").unwrap();
        let begin = Instant::now();
        while gauges.get("from-n2").is_none() {
            assert!(begin.elapsed() < PATIENCE, "what a later node counts is not read");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        late.abort().await;
        node.abort().await;
        reading.abort();
    }
}
