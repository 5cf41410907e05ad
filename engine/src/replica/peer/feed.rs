//! Wants and deltas of peers: starting a feed for a peer that asks for rows, and applying the rows that come.

use tallymesh_schemas::message::{Delta, Want};
use tallymesh_schemas::{NodeName, Version};

use crate::counter::join::{Applied, Fit, Source};
use crate::counter::sync::Start;
use crate::replica::Replica;
use crate::replica::peer::link::Feed;
use crate::replica::peer::request::Request;
use crate::replica::report::{Event, PeerError};
use crate::replica::runs::life::RunStatus;
use crate::replica::stream::StreamId;
use crate::time::Now;

/// A received delta's stream, and why the peer sent it.
#[derive(Debug, Clone)]
struct Sent {
    part: StreamId,
    /// The sender is the owner of the rows.
    owner: bool,
    /// The sender is the parent, which relays these rows to this node.
    parent: bool,
}

impl Replica {
    /// A peer asks for rows.
    pub(crate) fn handle_want(&mut self, now: Now, peer: &NodeName, want: &Want) {
        let Some(held) = self.structures.get(&want.structure).filter(|held| held.shared) else { return };
        let ahead = want.actor == self.runs.actor && want.after > held.structure.head();
        if ahead || self.runs.is_later_run(&want.actor) {
            return self.conflict(now, want.actor.incarnation, peer);
        }
        if want.actor.node == self.runs.actor.node && want.actor != self.runs.actor && !held.structure.keeps_runs() {
            return;
        }
        let part = (want.structure, want.actor.clone());
        // The peer may know of retirements beyond its applied version. If the low-water mark has risen since, the peer rejects
        // the delta.
        let low_water = self
            .peers
            .links
            .get(peer)
            .and_then(|link| link.peer_progress.get(&part))
            .map_or(Version::ZERO, |said| said.low_water);
        let wanted = Start { cursor: want.after, snapshot: want.snapshot };
        let start = held.structure.start(&want.actor, want.since, low_water, wanted);
        // This node records nothing for actors that it does not hold: a peer may ask for runs that do not exist.
        let Some(applied) = held.structure.progress(&want.actor).map(|progress| progress.applied) else { return };
        let Some(link) = self.peers.links.get_mut(peer) else { return };
        if let Some(start) = start {
            link.feed(part.clone(), Feed::new(want.since, start));
        }
        if part.1 != self.runs.actor {
            self.break_cycle(peer, want, applied);
            if start.is_some() { self.relay.note_forwarded(part) } else { self.relay.note_wanted_history(part) }
        }
    }

    /// A peer sends rows: its own, or rows of other actors that this node asked for.
    pub(crate) fn handle_delta(&mut self, now: Now, peer: &NodeName, delta: &Delta<'_>) -> Result<(), PeerError> {
        let part = (delta.structure, delta.actor.clone());
        let parent = self.relay.parent(&part) == Some(peer);
        let asked = parent || self.peers.links.get(peer).is_some_and(|link| link.asked.contains(&part));
        if !asked
            && delta.actor != self.runs.actor
            && self.peers.links.get(peer).is_some_and(|link| link.pruned.contains(&part))
        {
            // The peer has not received the prune yet. The rows come from another peer.
            self.peers.prune(peer, &part);
            return Ok(());
        }
        if !asked && delta.actor.node != *peer && self.runs.is_over(&delta.actor) {
            // The peer does not know yet that there is a later run. This node asked when there was none.
            self.refuse(peer, part);
            return Ok(());
        }
        if delta.actor == self.runs.actor || (delta.actor.node != *peer && !asked) {
            // Only this node may send its current counts (I1).
            return self.unasked(peer, part);
        }
        let status = self.note_run(now, &delta.actor, peer);
        let Some(held) = self.structures.get(&delta.structure).filter(|held| held.shared) else { return Ok(()) };
        if status < if held.structure.keeps_runs() { RunStatus::Earlier } else { RunStatus::Current } {
            return Ok(());
        }
        let owner = status == RunStatus::Current && delta.actor.node == *peer;
        if !owner && !asked {
            return self.unasked(peer, part);
        }
        let sent = Sent { part, owner, parent };
        self.join_delta(now, peer, delta, sent)
    }

    /// Applies a delta that the peer had reason to send.
    fn join_delta(&mut self, now: Now, peer: &NodeName, delta: &Delta<'_>, sent: Sent) -> Result<(), PeerError> {
        let Sent { part, owner, parent } = sent;
        let Some(held) = self.structures.get(&delta.structure) else { return Ok(()) };
        let source = if owner { Source::Owner } else { Source::Other };
        let fit = if self.crowded.contains(&part) { Fit::Awaited } else { Fit::Checked };
        let applied = held.structure.apply(delta, (source, fit), now.mono);
        let applied = applied.map_err(|error| PeerError::Delta { actor: delta.actor.clone(), error })?;
        if let Applied::NoRoom { keys } = applied {
            self.refuse_rows(peer, part, keys);
            return Ok(());
        }
        if let Some(fingerprint) = delta.fingerprint.filter(|_| !owner && self.runs.lives(&delta.actor)) {
            // A peer that marks its copy as complete has held all rows.
            held.structure.note_complete(&delta.actor, delta.upto, fingerprint);
        }
        self.output.counters.deltas_in += 1;
        self.output.counters.row_bytes_in += delta.rows.len() as u64;
        if matches!(applied, Applied::Advanced | Applied::Replaced) {
            self.crowded.note_taken(&part);
        }
        self.forward(&part);
        self.handle_applied(peer, &part, applied);
        if delta.fingerprint.is_some()
            && matches!(applied, Applied::Advanced | Applied::Stale | Applied::Replaced)
            && let Some(link) = self.peers.links.get_mut(peer)
            && link.asked.remove(&part)
            && !parent
        {
            // This was a single request. Later rows come from the owner, or on a new request.
            self.peers.prune(peer, &part);
        }
        Ok(())
    }

    /// Acts on the result of joining a delta.
    fn handle_applied(&mut self, peer: &NodeName, part: &StreamId, applied: Applied) {
        let Some(held) = self.structures.get(&part.0) else { return };
        let structure = held.structure.spec().name.clone();
        match applied {
            Applied::Gap { since, after, snapshot } => {
                self.output.counters.gaps += 1;
                let rows = Request::Rows { since, after };
                self.want(peer, part, if snapshot { Request::Snapshot { since, after } } else { rows });
            }
            Applied::Diverged => self.diverged(peer, part.clone(), structure),
            Applied::Doubted => self.contradicted(peer, part.clone(), 0),
            Applied::Replaced => {
                self.output.counters.replaced += 1;
                self.event(Event::Replaced { structure, actor: part.1.clone() });
            }
            Applied::Advanced | Applied::Stale | Applied::Part | Applied::NoRoom { .. } => {}
        }
    }

    /// The rows do not fit within a budget: this node's copy stays as it is, and it asks for them again later.
    fn refuse_rows(&mut self, peer: &NodeName, part: StreamId, keys: u64) {
        self.output.counters.deltas_without_room += 1;
        if let Some(behind) = self.peers.links.get_mut(peer).and_then(|link| link.behind.get_mut(&part)) {
            // The peer has the rows.
            behind.tries = 0;
        }
        self.crowded.note_refused(part, keys, self.now);
    }

    fn unasked(&mut self, peer: &NodeName, part: StreamId) -> Result<(), PeerError> {
        self.output.counters.unasked += 1;
        self.event(Event::Unasked { peer: peer.clone(), actor: part.1 });
        Ok(())
    }
}
