//! A link: the live connection to one peer.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use quinn::Connection;
use tallymesh_schemas::actor::{Incarnation, NodeName};
use tallymesh_schemas::frame::{self, FrameError};

use crate::bounds::{OUTBOX_HARD, SEND_WINDOW, SEND_WINDOW_MIN};
use crate::closing::code::Code;
use crate::closing::ending::Ending;
use crate::closing::proven::Proven;
use crate::counters::Flow;
use crate::hello::Hello;
use crate::member::{FrameTraffic, Traffic};
use crate::outbox::{Outbox, PushError};

/// Identifies a link of one endpoint. Numbers grow and are never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkId(pub(crate) u64);

impl fmt::Display for LinkId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Why a frame was not queued.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// The payload is empty or too long.
    #[error("the payload cannot be sent to {peer}: {source}")]
    Frame {
        /// The peer.
        peer: NodeName,
        /// The error.
        source: FrameError,
    },
    /// The queue is full.
    #[error("{queued} bytes wait to be sent to {peer} and {OUTBOX_HARD} may: ask has_room first and wait for Writable")]
    Full {
        /// The peer.
        peer: NodeName,
        /// Cost of the queued frames.
        queued: usize,
    },
    /// The link is down or closing.
    #[error("the link to {peer} is down: wait for the next Up")]
    Closed {
        /// The peer.
        peer: NodeName,
    },
}

/// A handle to the live connection to one peer. Cheap to clone; keeping one does not keep the connection.
#[derive(Clone)]
pub struct Link(Arc<Inner>);

struct Inner {
    id: LinkId,
    hello: Hello,
    version: u8,
    introduced_as: Incarnation,
    conn: Proven,
    outbox: Outbox,
    /// What was handed to QUIC.
    sent: Flow,
    received: Flow,
    /// How this node ended the link, if it did.
    ending: Mutex<Option<Ending>>,
}

impl Link {
    pub(crate) fn new(id: LinkId, hello: Hello, version: u8, introduced_as: Incarnation, conn: Proven) -> Self {
        let (outbox, ending) = (Outbox::default(), Mutex::new(None));
        let (sent, received) = (Flow::default(), Flow::default());
        Self(Arc::new(Inner { id, hello, version, introduced_as, conn, outbox, sent, received, ending }))
    }

    /// The peer's name, proven by its certificate.
    pub fn peer(&self) -> &NodeName {
        &self.0.hello.name
    }

    /// Distinguishes this link from the peer's earlier and later ones.
    pub fn id(&self) -> LinkId {
        self.0.id
    }

    /// The run of the peer.
    pub fn incarnation(&self) -> Incarnation {
        self.0.hello.incarnation
    }

    /// The build in the peer's hello.
    pub fn build(&self) -> &str {
        &self.0.hello.build
    }

    /// The negotiated protocol version.
    pub fn version(&self) -> u8 {
        self.0.version
    }

    /// The address that the peer advertises.
    pub fn advertised(&self) -> SocketAddr {
        self.0.hello.addr
    }

    /// The address that the peer's packets come from.
    pub fn remote_addr(&self) -> SocketAddr {
        self.conn().remote_address()
    }

    /// The current estimate of the round trip time.
    pub fn rtt(&self) -> Duration {
        self.conn().rtt()
    }

    /// The traffic of the link so far.
    pub fn traffic(&self) -> Traffic {
        let quinn::ConnectionStats { udp_tx, udp_rx, .. } = self.conn().stats();
        Traffic {
            datagrams_out: udp_tx.datagrams,
            bytes_out: udp_tx.bytes,
            datagrams_in: udp_rx.datagrams,
            bytes_in: udp_rx.bytes,
        }
    }

    /// The frames of the link so far.
    pub fn frames(&self) -> FrameTraffic {
        let ((frames_out, bytes_out), (frames_in, bytes_in)) = (self.0.sent.read(), self.0.received.read());
        FrameTraffic { frames_out, bytes_out, frames_in, bytes_in, queued: self.0.outbox.cost() as u64 }
    }

    /// Counts frames that were handed to QUIC.
    pub(crate) fn count_sent(&self, frames: usize, bytes: usize) {
        self.0.sent.count(frames, bytes);
    }

    /// Counts a received frame.
    pub(crate) fn count_received(&self, bytes: usize) {
        self.0.received.count(1, bytes);
    }

    /// Whether the queue is below its [high-water mark](crate::bounds::OUTBOX_HIGH). After it returned false,
    /// [`Event::Writable`](crate::Event::Writable) says when to ask again.
    pub fn has_room(&self) -> bool {
        self.0.outbox.has_room()
    }

    /// Queues a frame. Frames arrive whole, once and in order, unless the link goes down.
    ///
    /// # Errors
    /// [`SendError`] when the payload has no allowed length, the queue has reached its
    /// [hard bound](crate::bounds::OUTBOX_HARD), or the link is down.
    pub fn send(&self, payload: Bytes) -> Result<(), SendError> {
        let peer = || self.peer().clone();
        frame::header_of(self.version(), payload.len()).map_err(|source| SendError::Frame { peer: peer(), source })?;
        self.0.outbox.push(payload).map_err(|error| match error {
            PushError::Closed => SendError::Closed { peer: peer() },
            PushError::Full(queued) => SendError::Full { peer: peer(), queued },
        })
    }

    /// Closes the link at once; queued frames are lost. The peer receives the reason, and the two nodes link again after a
    /// pause.
    pub fn close(&self, reason: &str) {
        self.end(Code::Closed, Ending::local(format!("closed by this node: {reason}")), reason);
    }

    /// Ends the link. Only the first end is reported, whether this node or the peer caused it.
    pub(crate) fn end(&self, code: Code, ending: Ending, reason: &str) {
        let mut first = self.0.ending.lock();
        // If the connection has ended already, another close would make QUIC forget its reason.
        match self.0.conn.ended() {
            Some(ended) => drop(first.get_or_insert(ended)),
            None => {
                first.get_or_insert(ending);
                // Close the connection before the queue. A stream that is dropped while it is open ends properly, and the peer
                // would take that for a goodbye.
                self.conn().close(code.var(), reason.as_bytes());
            }
        }
        drop(first);
        self.0.outbox.close();
    }

    /// How the link ended; `error` is QUIC's error.
    pub(crate) fn ending(&self, error: &quinn::ConnectionError) -> Ending {
        self.0.ending.lock().clone().unwrap_or_else(|| self.0.conn.ending(error))
    }

    /// Whether the connection still exists.
    pub(crate) fn is_live(&self) -> bool {
        self.conn().close_reason().is_none()
    }

    /// The run that this node's hello named on this link.
    pub(crate) fn introduced_as(&self) -> Incarnation {
        self.0.introduced_as
    }

    /// Limits what waits, here and in QUIC, to what the path delivers in two round trips each, because data that waits on a
    /// slow path becomes outdated.
    pub(crate) fn follow_path(&self) {
        let window = self.conn().stats().path.cwnd.saturating_mul(2);
        self.conn().set_send_window(window.clamp(SEND_WINDOW_MIN, SEND_WINDOW));
        self.0.outbox.follow(usize::try_from(window).unwrap_or(usize::MAX));
    }

    pub(crate) fn outbox(&self) -> &Outbox {
        &self.0.outbox
    }

    pub(crate) fn conn(&self) -> &Connection {
        self.0.conn.conn()
    }
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link")
            .field("peer", self.peer())
            .field("id", &self.0.id.0)
            .field("incarnation", &self.incarnation().0)
            .finish_non_exhaustive()
    }
}
