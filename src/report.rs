//! The driver's log lines for operators. Repeated events of one peer become few lines: see [`Reporter`].

mod cuts;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use tallymesh_engine::replica::{EventKind, Finding, PeerError};
use tallymesh_engine::{Event, Life, Now, Time};
use tallymesh_schemas::{NodeName, Repeated, Reporter, StructureName};

use crate::conflicts::NameConflict;
use crate::events::REPAIR;
use crate::report::cuts::{Cuts, News};

/// Lines of one kind about one peer that are logged individually before they are only counted.
const LINES: u32 = 4;

/// Kinds of lines that the driver logs itself, in addition to those of the engine's events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Line {
    /// The node refused a message of the peer.
    Refused,
    /// The overlay no longer has a replication link to the peer.
    Unlinked,
    /// The peer is alive, but there is no link to it.
    Cut,
    /// The peer's build has an earlier protocol version.
    Earlier,
}

impl Line {
    fn as_str(self) -> &'static str {
        match self {
            Self::Refused => "a message of the peer was refused",
            Self::Unlinked => "other nodes pass on the rows of this peer",
            Self::Cut => "the node lives and had no link to this one",
            Self::Earlier => "the peer has a build of an earlier protocol version",
        }
    }
}

/// Decides which lines to log, and logs them.
#[derive(Debug)]
pub(crate) struct Reports {
    lines: Reporter<NodeName, Line>,
    /// Most known members do not answer.
    cut_off: bool,
    conflict: NameConflict,
    cuts: Cuts,
    /// When to check again for members without a link.
    look_at: Time,
}

/// Time between two checks for members without a link.
const LOOK: Duration = Duration::from_secs(1);

impl Reports {
    /// For a node that advertises the address `ours`.
    pub(crate) fn new(ours: SocketAddr) -> Self {
        let (lines, conflict) = (Reporter::new(LINES), NameConflict::new(ours));
        Self { lines, cut_off: false, conflict, cuts: Cuts::default(), look_at: Time(0) }
    }

    /// Another process that uses this node's name is at this address.
    pub(crate) fn met_rival(&mut self, addr: SocketAddr) {
        self.conflict.met(addr);
    }

    /// A verification in the background has found a copy that differs.
    pub(crate) fn difference(&self, finding: &Finding) {
        let Finding { structure, actor, member, head, .. } = finding;
        tracing::warn!(object = %structure, %actor, node = %member, version = %head, repair = REPAIR, "a copy differs");
    }

    /// The node refused a message of a peer and closed the link.
    pub(crate) fn refused(&mut self, now: Now, peer: &NodeName, error: &PeerError) {
        if self.lines.occurred(since_start(now), peer, &Line::Refused) {
            tracing::warn!(%peer, %error, "a message of the peer is refused; this node closes the link");
        }
    }

    /// A link to a peer with a build of an earlier protocol version is up.
    pub(crate) fn earlier(&mut self, now: Now, peer: &NodeName, protocol: u8) {
        if self.lines.occurred(since_start(now), peer, &Line::Earlier) {
            tracing::warn!(%peer, protocol, "the peer has a build of an earlier protocol version; caches are not exchanged with it");
        }
    }

    /// From now on, other nodes relay the peer's rows.
    pub(crate) fn unlinked(&mut self, now: Now, peer: &NodeName) {
        if self.lines.occurred(since_start(now), peer, &Line::Unlinked) {
            tracing::info!(%peer, "other nodes pass on the rows of this peer from now on");
        }
    }

    /// Checks for live members without a link, if it is time.
    pub(crate) fn cuts(&mut self, now: Now, unlinked: impl FnOnce() -> BTreeSet<NodeName>) {
        if now.mono < self.look_at {
            return;
        }
        self.look_at = now.mono.after(LOOK);
        for news in self.cuts.update(now.mono, &unlinked()) {
            let (News::Cut(node, _) | News::Over(node)) = &news;
            if !self.lines.occurred(since_start(now), node, &Line::Cut) {
                continue;
            }
            match news {
                News::Cut(node, lasts) => {
                    let for_s = lasts.as_secs();
                    tracing::warn!(%node, for_s, "the node lives and has no link to this one: the network may be cut");
                }
                News::Over(node) => tracing::info!(%node, "the node has a link again, or does not live"),
            }
        }
    }

    /// Logs the counted lines that are due.
    pub(crate) fn summarize(&mut self, now: Now) {
        while let Some(Repeated { of, times, within }) = self.lines.poll(since_start(now)) {
            let (peer, what) = of.map_or((None, None), |(peer, line)| (Some(peer), Some(line.as_str())));
            repeated(peer.as_ref(), what, None, (times, within));
        }
        self.conflict.poll(since_start(now));
    }

    /// Handles an event of the engine; `alive` of `known` nodes answer.
    pub(crate) fn event(&mut self, at: Now, event: &Event, (alive, known): (u32, u32)) {
        let at = since_start(at);
        match event {
            Event::Conflict { was, now, peer } => self.conflict.changed(at, was, now, peer),
            Event::ConflictWaits { by, peer, pause } => self.conflict.waits(at, *by, peer, *pause),
            Event::ClaimRefused { by, peer } => {
                tracing::warn!(run = %by, %peer, "the peer says that this node's name is in a run that no node can have begun; it is not believed");
            }
            Event::LastRun => tracing::error!("no later run of this node is possible: give it a new name"),
            Event::Diverged { structure, actor } => {
                tracing::error!(%structure, %actor, "rows differ from their owner's; a snapshot repairs them");
            }
            Event::Replaced { structure, actor } => tracing::info!(%structure, %actor, "a snapshot was taken"),
            Event::Unasked { peer, actor } => {
                tracing::warn!(%peer, %actor, "the peer sent rows that this node did not ask for; they are ignored");
            }
            Event::KindMismatch { peer, structure, here, there } => {
                tracing::warn!(%peer, %structure, here, there, "the peer has another kind for this structure; it is not exchanged");
            }
            Event::ClockStepped { by, ahead } => {
                let direction = if *ahead { "ahead" } else { "back" };
                tracing::warn!(?by, direction, "this node's wall clock was set, or the machine was suspended");
            }
            Event::ClockOff { peer, by, ahead } => {
                let behind = if *ahead { "ahead of" } else { "behind" };
                tracing::error!(
                    %peer, ?by,
                    "the peer's clock is {behind} ours by more than the caches and series here allow: set the clocks"
                );
            }
            Event::ClockRight { peer } => tracing::info!(%peer, "the peer's clock agrees with ours again"),
            Event::Ahead { peer, structure, actor, by } => {
                tracing::error!(
                    %peer, %structure, %actor, ?by,
                    "was written too far ahead of this node's clock and is not taken: set the clocks"
                );
            }
            Event::BelowZero { structure, actor, times } => tracing::warn!(
                %structure, %actor, times,
                "the node took gauges below zero: its service takes back what it has not added; limits count them as zero"
            ),
            Event::TotalFull { structure, times, .. } => tracing::error!(
                %structure, times,
                "additions are refused: what this node has added to a key is at its bound"
            ),
            Event::Life { node, life } => self.life(node, *life, (alive, known)),
            Event::Superseded { actor } => tracing::info!(%actor, "the run is superseded by a newer one, or forgotten"),
            Event::NotRestored(error) => {
                tracing::error!(%error, "what had been saved is not taken back, and was to wait until now");
            }
            Event::Forgotten { node } => tracing::info!(%node, "the node is forgotten"),
            Event::Repeated { node, kind, structure, times, within } => {
                let what = kind.map(EventKind::as_str);
                repeated(node.as_ref(), what, structure.as_ref(), (*times, *within));
            }
        }
    }

    fn life(&mut self, node: &NodeName, life: Life, (alive, known): (u32, u32)) {
        match life {
            Life::Alive => tracing::info!(%node, alive, known, "the node is alive"),
            Life::Suspect => tracing::info!(%node, alive, known, "the node has not answered lately"),
            Life::Dead => tracing::warn!(%node, alive, known, "the node is dead: it does not answer"),
            Life::Left => tracing::info!(%node, alive, known, "the node has left"),
        }
        // A starting node does not know most members yet. Only a death means that it is cut off.
        let few = alive.saturating_mul(2) <= known && known > 2;
        let cut_off = few && (self.cut_off || life == Life::Dead);
        if cut_off != std::mem::replace(&mut self.cut_off, cut_off) {
            if cut_off {
                tracing::warn!(
                    alive,
                    known,
                    "at least half of the nodes do not answer: they are down, or this node is cut off"
                );
            } else {
                tracing::info!(alive, known, "most nodes answer again");
            }
        }
    }
}

fn repeated(
    peer: Option<&NodeName>,
    what: Option<&'static str>,
    structure: Option<&StructureName>,
    (times, within): (u64, Duration),
) {
    let (peer, structure) = (peer.map(tracing::field::display), structure.map(tracing::field::display));
    let what = what.unwrap_or("events of more nodes and kinds than are told apart");
    tracing::warn!(peer, structure, what, times, within_s = within.as_secs(), "happened again");
}

fn since_start(now: Now) -> Duration {
    Duration::from_micros(now.mono.0)
}
