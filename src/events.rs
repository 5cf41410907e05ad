//! The stream of cluster events, and whether a node has joined and still runs.

use std::time::Duration;

use futures_util::Stream;
use futures_util::stream::unfold;
use serde::Serialize;
use tallymesh_engine::replica::Finding;
use tallymesh_engine::{Event as EngineEvent, Life};
use tallymesh_schemas::{Actor, NodeName, StructureName};
use tokio::sync::{broadcast, watch};

/// Events that may wait for a reader. Beyond that, the oldest are dropped, and the reader receives their number.
const EVENTS: usize = 256;

/// The node has been shut down and no longer answers.
///
/// ```no_run
/// # async fn example(node: &tallymesh::Node) -> Result<(), Box<dyn std::error::Error>> {
/// use tallymesh::NodeGone;
///
/// node.shutdown().await;
/// assert_eq!(node.members().await, Err(NodeGone));
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the node has been shut down")]
pub struct NodeGone;

/// An event in the cluster, as this node sees it.
///
/// ```no_run
/// # async fn example(node: &tallymesh::Node) -> Result<(), Box<dyn std::error::Error>> {
/// use tallymesh::NodeEvent;
///
/// let mut events = node.events();
/// while let Some(event) = events.next().await {
///     match event {
///         NodeEvent::Life { node, life } => println!("{node} is {life}"),
///         NodeEvent::Unlinked { node, reason } => println!("{node}: {reason}"),
///         _ => {}
///     }
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
#[non_exhaustive]
pub enum NodeEvent {
    /// A link to a node came up.
    Linked {
        /// The node.
        node: NodeName,
    },
    /// A link to a node went down.
    Unlinked {
        /// The node.
        node: NodeName,
        /// Why the link ended.
        reason: String,
    },
    /// The failure detector changed the state of a node: alive, suspect, dead or left.
    Life {
        /// The node.
        node: NodeName,
        /// Its new state.
        life: Life,
    },
    /// A newer run of a node replaced an older one, or an operator forgot the node.
    Superseded {
        /// The older run.
        actor: Actor,
    },
    /// An operator forgot a node.
    Forgotten {
        /// The node.
        node: NodeName,
    },
    /// An identity conflict: another process writes under this node's name. This node renews: it continues as a new run.
    Conflict {
        /// The previous run.
        was: Actor,
        /// The new run.
        now: Actor,
    },
    /// Divergence: this node's copy of an actor's rows differed from the owner's rows. A repair is in progress.
    Diverged {
        /// The object.
        object: StructureName,
        /// The actor that owns the rows.
        actor: Actor,
    },
    /// The verification in the background has found a copy that differs from its owner's rows at the same version.
    Differs {
        /// The object.
        object: StructureName,
        /// The actor that owns the rows.
        actor: Actor,
        /// The node that holds the copy.
        node: NodeName,
        /// What repairs it.
        repair: String,
    },
    /// Another node has an object with this name but of another kind. The two nodes do not exchange it.
    Mismatch {
        /// The other node.
        node: NodeName,
        /// The object.
        object: StructureName,
    },
    /// A node's clock differs too much from this node's clock.
    ClockOff {
        /// The node.
        node: NodeName,
        /// The clock offset.
        by: Duration,
        /// Whether the node's clock is ahead of this node's.
        ahead: bool,
    },
    /// The reader was too slow and events were dropped.
    Lost {
        /// The number of dropped events.
        events: u64,
    },
}

/// What repairs a copy that differs.
pub(crate) const REPAIR: &str =
    "the nodes compare fingerprints in each digest, and the copy is replaced by what the owner holds";

impl NodeEvent {
    /// The event for a copy that a verification has found to differ.
    pub(crate) fn differs(Finding { structure, actor, member, .. }: Finding) -> Self {
        Self::Differs { object: structure, actor, node: member, repair: REPAIR.to_owned() }
    }

    /// The public form of an engine event; `None` for events that only the log reports.
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

/// The driver's end of the stream. It closes when the driver ends.
#[derive(Debug)]
pub(crate) struct Announcer {
    joined: watch::Sender<bool>,
    events: broadcast::Sender<NodeEvent>,
}

/// The handles' end of the stream. It does not keep the driver's end open.
#[derive(Debug, Clone)]
pub(crate) struct Announced {
    joined: watch::Receiver<bool>,
    events: broadcast::WeakSender<NodeEvent>,
}

/// Creates both ends. A node without seeds has no node to join, and has joined at once.
pub(crate) fn announcer(seeds: &[String]) -> (Announcer, Announced) {
    let (joined, has_joined) = watch::channel(seeds.is_empty());
    let (events, _) = broadcast::channel(EVENTS);
    let announced = Announced { joined: has_joined, events: events.downgrade() };
    (Announcer { joined, events }, announced)
}

impl Announcer {
    /// Whether the node has had a link, or has no seeds.
    #[cfg(feature = "http")]
    pub(crate) fn has_joined(&self) -> bool {
        *self.joined.borrow()
    }

    pub(crate) fn tell(&self, event: NodeEvent) {
        if matches!(event, NodeEvent::Linked { .. }) {
            self.joined.send_if_modified(|joined| !std::mem::replace(joined, true));
        }
        // It is not an error when there is no receiver.
        let _ = self.events.send(event);
    }
}

impl Announced {
    /// Waits until the node has a link. Returns at once if it has no node to join.
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

/// The stream of events from the call of [`Node::events`](crate::Node::events) on.
///
/// Bounded: a reader that is more than 256 events behind loses the oldest, and receives [`NodeEvent::Lost`] with their number.
///
/// ```no_run
/// # async fn example(node: &tallymesh::Node) -> Result<(), Box<dyn std::error::Error>> {
/// let mut events = node.events();
/// println!("first: {:?}", events.next().await);
/// let _rest = events.into_stream(); // a `futures_core::Stream`
/// # Ok(())
/// # }
/// ```
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
