//! Views of the replica for people: what it knows of the runs, how far each copy reaches, and the state of each link.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use tallymesh_schemas::inspect::{
    ActorView, BehindView, LinkView, PeerPosition, RunState, STREAMS_PAGE, Standing, StreamView,
};
use tallymesh_schemas::{Actor, Incarnation, NodeName, StructureId, Version};

use crate::cache::context::Context;
use crate::replica::Replica;
use crate::replica::caches::held::HeldCache;
use crate::replica::peer::link::{Link, PeerProgress};
use crate::replica::runs::life::Life;
use crate::replica::stream::StreamId;
use crate::time::{Time, millis};

/// What a replica knows of the runs at one moment.
#[derive(Debug, Clone)]
pub struct Standings {
    own: Actor,
    nodes: BTreeMap<NodeName, (Incarnation, Standing)>,
}

/// A place in the views of the links of an object.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LinkPlace {
    peer: Option<NodeName>,
    /// More streams of this link follow, behind this actor.
    after: Option<Actor>,
}

impl Standings {
    /// The state of a run.
    pub fn of(&self, actor: &Actor) -> Standing {
        if *actor == self.own {
            return Standing::of(RunState::Own);
        }
        if actor.node == self.own.node {
            return Standing::of(RunState::Ended);
        }
        match self.nodes.get(&actor.node) {
            Some((latest, _)) if actor.incarnation < *latest => Standing::of(RunState::Ended),
            Some((_, standing)) => *standing,
            None => Standing::of(RunState::Unknown),
        }
    }
}

impl Replica {
    /// What this replica knows of the runs. O(nodes).
    pub fn standings(&self, now: Time) -> Standings {
        let nodes = self.runs.nodes.iter().map(|(name, node)| {
            let state = match node.life {
                Life::Alive => RunState::Alive,
                Life::Suspect => RunState::Suspect,
                Life::Dead => RunState::Dead,
                Life::Left => RunState::Left,
            };
            let for_ms = Some(millis(now.since(node.since())));
            (name.clone(), (node.incarnation, Standing { state, for_ms }))
        });
        Standings { own: self.runs.actor.clone(), nodes: nodes.collect() }
    }

    /// The actors of an object behind `after`, in order, at most a page, each with the positions that the peers have reported.
    /// O(actors × links) of the page.
    pub fn actor_views(&self, id: StructureId, after: Option<&Actor>, now: Time) -> Vec<ActorView> {
        let standings = self.standings(now);
        let known = |actor: &Actor| standings.of(actor);
        let mut views = match (self.structures.get(&id), self.caches.get(id)) {
            (Some(held), _) => held.structure.actor_views(after, now, &known),
            (None, Some(held)) => held.cache.actor_views(after, &known),
            (None, None) => Vec::new(),
        };
        for view in &mut views {
            let said = self.peers.links.keys().filter_map(|peer| self.reported(id, peer, &view.actor));
            view.peers = said.collect();
            if view.fingerprint.is_none() {
                self.complete_run(id, view, now);
            }
        }
        views
    }

    /// What a run's own node has reported of a cache.
    fn complete_run(&self, id: StructureId, view: &mut ActorView, now: Time) {
        let link = self.peers.links.get(&view.actor.node).filter(|_| view.standing.state != RunState::Ended);
        view.heard_ms = view.heard_ms.or(link.and_then(|link| heard_ms(link, now)));
        view.head = self.reported(id, &view.actor.node, &view.actor).map(|said| said.applied);
    }

    /// What a peer has reported of its copy of an actor's rows or writes.
    fn reported(&self, id: StructureId, peer: &NodeName, actor: &Actor) -> Option<PeerPosition> {
        if let Some(held) = self.caches.get(id) {
            return of_context(peer, held.said(peer)?, actor);
        }
        let said = self.peers.links.get(peer)?.peer_progress.get(&(id, actor.clone()))?;
        Some(of_progress(peer, said))
    }

    /// The next link of an object behind a place, with at most a page of its streams, and the place behind that. `None` at the end.
    pub fn link_view(&self, id: StructureId, place: &LinkPlace, now: Time) -> Option<(LinkView, LinkPlace)> {
        let from = match (&place.peer, &place.after) {
            (None, _) => Bound::Unbounded,
            (Some(peer), None) => Bound::Excluded(peer.clone()),
            (Some(peer), Some(_)) => Bound::Included(peer.clone()),
        };
        let (peer, link) = self.peers.links.range((from, Bound::Unbounded)).next()?;
        let after = place.after.as_ref().filter(|_| place.peer.as_ref() == Some(peer));
        let cache = self.caches.get(id);
        let streams = match cache {
            Some(held) => runs_of(held, peer, after),
            None => streams_of(link, id, after, now, peer),
        };
        let is_full = streams.len() >= STREAMS_PAGE;
        let next = LinkPlace {
            peer: Some(peer.clone()),
            after: streams.last().filter(|_| is_full).map(|stream| stream.actor.clone()),
        };
        let view = LinkView {
            peer: peer.clone(),
            incarnation: link.incarnation(),
            heard_ms: heard_ms(link, now),
            exchanged: !link.mismatched.contains(&id),
            wants: link.open_wants() as u64,
            queued: link.due.len() as u64,
            cache: cache.and_then(|held| held.link_view(peer)),
            streams,
        };
        Some((view, next))
    }
}

fn heard_ms(link: &Link, now: Time) -> Option<u64> {
    let last = link.heartbeat.last();
    (last > Time(0)).then(|| millis(now.since(last)))
}

fn of_progress(peer: &NodeName, said: &PeerProgress) -> PeerPosition {
    let PeerProgress { since, applied, low_water, fingerprint } = *said;
    PeerPosition { peer: peer.clone(), since, applied, low_water, fingerprint: Some(fingerprint) }
}

fn of_context(peer: &NodeName, said: &Context, run: &Actor) -> Option<PeerPosition> {
    // Of a run that has ended the peer has all writes, and it does not name their number.
    let applied = Some(said.reached(run)).filter(|number| *number < u64::MAX)?;
    let (since, applied) = (Version::ZERO, Version(applied));
    Some(PeerPosition { peer: peer.clone(), since, applied, low_water: Version::ZERO, fingerprint: None })
}

/// The streams of a structure on a link, behind an actor.
fn streams_of(link: &Link, id: StructureId, after: Option<&Actor>, now: Time, peer: &NodeName) -> Vec<StreamView> {
    let named = link.peer_progress.keys().chain(link.feeds.keys()).chain(link.behind.keys());
    let is_next = |stream: &&StreamId| stream.0 == id && after.is_none_or(|after| stream.1 > *after);
    let all: BTreeSet<&StreamId> = named.filter(is_next).collect();
    let view = |stream: &StreamId| StreamView {
        actor: stream.1.clone(),
        reported: link.peer_progress.get(stream).map(|said| of_progress(peer, said)),
        cursor: link.feeds.get(stream).map(|feed| feed.cursor),
        snapshot: link.feeds.get(stream).is_some_and(|feed| feed.snapshot),
        due: link.due.contains(stream),
        want: link.open_want(stream).map(|want| want.after),
        relayed: link.asked.contains(stream),
        pruned: link.pruned.contains(stream),
        behind: link.behind.get(stream).map(|behind| BehindView {
            target: behind.target,
            for_ms: millis(now.since(behind.noticed)),
            tries: behind.tries,
        }),
    };
    all.into_iter().take(STREAMS_PAGE).map(view).collect()
}

/// The runs of a cache on a link, behind a run.
fn runs_of(held: &HeldCache, peer: &NodeName, after: Option<&Actor>) -> Vec<StreamView> {
    let Some(said) = held.said(peer) else { return Vec::new() };
    let behind = said.runs().filter(|(run, _)| after.is_none_or(|after| *run > after));
    let view = |(run, _): (&Actor, u64)| StreamView {
        actor: run.clone(),
        reported: of_context(peer, said, run),
        cursor: None,
        snapshot: false,
        due: false,
        want: None,
        relayed: false,
        pruned: false,
        behind: None,
    };
    behind.take(STREAMS_PAGE).map(view).collect()
}
