//! What happens in the cluster, as a stream, and whether a node has joined and still runs.

use std::time::Duration;

use futures_util::Stream;
use futures_util::stream::unfold;
use serde::Serialize;
use tallymesh_engine::{Event as EngineEvent, Life};
use tallymesh_schemas::{Actor, NodeName, StructureName};
use tokio::sync::{broadcast, watch};

/// Events that wait for a reader; of more the oldest are lost, and their number is told.
const EVENTS: usize = 256;

/// The node has been shut down: nobody answers any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the node has been shut down")]
pub struct NodeGone;

/// Something that happened in the cluster, as this node sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
#[non_exhaustive]
pub enum NodeEvent {
    /// There is a link to a node.
    Linked {
        /// The node.
        node: NodeName,
    },
    /// There is no link to a node any more.
    Unlinked {
        /// The node.
        node: NodeName,
        /// Why the link ended.
        reason: String,
    },
    /// A node is alive, suspect, dead or has left.
    Life {
        /// The node.
        node: NodeName,
        /// What it is now.
        life: Life,
    },
    /// A newer run of a node has taken the place of an older one, or the node was forgotten.
    Superseded {
        /// The older run.
        actor: Actor,
    },
    /// A node was forgotten.
    Forgotten {
        /// The node.
        node: NodeName,
    },
    /// Another node writes under this node's name. This node goes on as another run.
    Conflict {
        /// The run before.
        was: Actor,
        /// The run now.
        now: Actor,
    },
    /// This node's copy of an actor's rows was not what their owner has; a repair is under way.
    Diverged {
        /// The object.
        object: StructureName,
        /// Whose rows.
        actor: Actor,
    },
    /// Another node has an object of this name that is of another kind; it is not exchanged.
    Mismatch {
        /// The other node.
        node: NodeName,
        /// The object.
        object: StructureName,
    },
    /// A node's clock is too far off this node's clock.
    ClockOff {
        /// The node.
        node: NodeName,
        /// By how much.
        by: Duration,
        /// Whether it is ahead.
        ahead: bool,
    },
    /// The reader was too slow: so many events are lost.
    Lost {
        /// How many.
        events: u64,
    },
}

impl NodeEvent {
    /// What users see of an event of the engine; `None` for those that only the log tells.
    pub(crate) fn of(event: &EngineEvent) -> Option<Self> {
        Some(match event {
            EngineEvent::Conflict { was, now, .. } => Self::Conflict { was: was.clone(), now: now.clone() },
            EngineEvent::Diverged { structure, actor } => {
                Self::Diverged { object: structure.clone(), actor: actor.clone() }
            }
            EngineEvent::KindMismatch { peer, structure, .. } => {
                Self::Mismatch { node: peer.clone(), object: structure.clone() }
            }
            EngineEvent::ClockOff { peer, by, ahead, .. } => {
                Self::ClockOff { node: peer.clone(), by: *by, ahead: *ahead }
            }
            EngineEvent::Life { node, life } => Self::Life { node: node.clone(), life: *life },
            EngineEvent::Superseded { actor } => Self::Superseded { actor: actor.clone() },
            EngineEvent::Forgotten { node } => Self::Forgotten { node: node.clone() },
            _ => return None,
        })
    }
}

/// The driver's end: it ends with the driver.
#[derive(Debug)]
pub(crate) struct Announcer {
    joined: watch::Sender<bool>,
    events: broadcast::Sender<NodeEvent>,
}

/// The handles' end. It does not keep the driver's end open.
#[derive(Debug, Clone)]
pub(crate) struct Announced {
    joined: watch::Receiver<bool>,
    events: broadcast::WeakSender<NodeEvent>,
}

/// Both ends. A node with nobody to join has joined at once.
pub(crate) fn announcer(alone: bool) -> (Announcer, Announced) {
    let (joined, has_joined) = watch::channel(alone);
    let (events, _) = broadcast::channel(EVENTS);
    let announced = Announced { joined: has_joined, events: events.downgrade() };
    (Announcer { joined, events }, announced)
}

impl Announcer {
    pub(crate) fn tell(&self, event: NodeEvent) {
        if matches!(event, NodeEvent::Linked { .. }) {
            self.joined.send_if_modified(|joined| !std::mem::replace(joined, true));
        }
        // Nobody has to listen.
        let _ = self.events.send(event);
    }
}

impl Announced {
    /// Waits until the node has a link, or at once where it has nobody to join.
    pub(crate) async fn joined(&self) -> Result<(), NodeGone> {
        self.joined.clone().wait_for(|joined| *joined).await.map(drop).map_err(|_| NodeGone)
    }

    /// Waits until the driver has ended.
    pub(crate) async fn ended(&mut self) {
        while self.joined.changed().await.is_ok() {}
    }

    pub(crate) fn events(&self) -> Events {
        Events { received: self.events.upgrade().map(|events| events.subscribe()) }
    }
}

/// What happens from the moment of [`Node::events`](crate::Node::events) on.
///
/// Bounded: a reader that is more than 256 events behind loses the oldest, and reads [`NodeEvent::Lost`] with their number.
#[derive(Debug)]
pub struct Events {
    received: Option<broadcast::Receiver<NodeEvent>>,
}

impl Events {
    /// The next event; `None` when the node has been shut down.
    pub async fn next(&mut self) -> Option<NodeEvent> {
        match self.received.as_mut()?.recv().await {
            Ok(event) => Some(event),
            Err(broadcast::error::RecvError::Lagged(events)) => Some(NodeEvent::Lost { events }),
            Err(broadcast::error::RecvError::Closed) => None,
        }
    }

    /// The events as a [`Stream`].
    pub fn into_stream(self) -> impl Stream<Item = NodeEvent> + Send {
        unfold(self, |mut events| async move { events.next().await.map(|event| (event, events)) })
    }
}
