//! Every bound of the transport, in one place. Bounds on which both ends must agree are in [`tallymesh_schemas::bounds`].

use std::time::Duration;

use tallymesh_schemas::Bound;
use tallymesh_schemas::bounds::FRAME_BYTES;

/// Members that a node knows, itself not counted. When the table is full, a new member replaces a dead one.
pub const MEMBERS: usize = 1024;

/// Members without a link to this node so far that it knows from one single member.
pub const INTRODUCED: usize = 128;

/// Members without a link to this node so far, over all members that reported them. When the table is full, a member that says
/// hello takes the place of one of them.
pub const INTRODUCED_ALL: usize = MEMBERS / 2;

/// Bytes of the hello, the first frame of a stream.
pub const HELLO_BYTES: usize = 512;

/// Bytes of the build in a hello.
pub const BUILD_BYTES: usize = 64;

/// Incoming connections between their first packet and the end of their hello, not counting those from addresses of members.
pub const HANDSHAKES: usize = 64;

/// How many of them may come from one address, or from one IPv6 network of 64 bits.
pub const HANDSHAKES_PER_SOURCE: usize = HANDSHAKES / 2;

/// Incoming connections from addresses of known members in the same phase, in addition to the others.
pub const HANDSHAKES_KNOWN: usize = 64;

/// Handshakes in progress above which an unknown caller must first prove its address with a retry token. A retry keeps nothing
/// in memory.
pub const HANDSHAKES_UNPROVEN: usize = 16;

/// Incoming connections that wait for the acceptor; more are refused.
pub(crate) const INCOMING: usize = 256;

/// Bytes buffered for a connection that waits for the acceptor.
pub(crate) const INCOMING_BYTES: u64 = 16 << 10;

/// Dials in progress.
pub const DIALS: usize = 64;

/// Addresses to which one seed may resolve; the rest are ignored.
pub const SEED_ADDRESSES: usize = 16;

/// Seeds that a warning names; the rest are counted.
pub(crate) const SEEDS_NAMED: usize = 16;

/// Cost of a link's queue above which [`Link::has_room`](crate::Link::has_room) returns false, on a fast path. On a slower path
/// it is what the path delivers in two round trips, but at least [`OUTBOX_HIGH_MIN`]. A frame costs its bytes plus
/// [`OUTBOX_FRAME`]. Queued data becomes outdated, so a short queue lets the sender send newer data instead. A link that was
/// full is reported writable when half of this is left.
pub const OUTBOX_HIGH: usize = 1 << 20;

/// The least that [`OUTBOX_HIGH`] becomes on a slow path.
pub const OUTBOX_HIGH_MIN: usize = 16 << 10;

/// Cost of a link's queue above which [`Link::send`](crate::Link::send) fails: two of the largest frames above [`OUTBOX_HIGH`],
/// so a sender that checks for room first never reaches it.
pub const OUTBOX_HARD: usize = OUTBOX_HIGH + 2 * (FRAME_BYTES + OUTBOX_FRAME);

/// The cost of a frame in a queue in addition to its payload: its header and its place.
pub const OUTBOX_FRAME: usize = 40;

/// Cost of the frames that are handed to QUIC at once.
pub(crate) const WRITE_BATCH: usize = 256 << 10;

/// Payloads up to this size are copied together into one buffer; larger ones are sent without a copy.
pub(crate) const COALESCE: usize = 4 << 10;

/// Events that wait for the reader. A full queue stops the reading of streams, which closes QUIC's window.
pub const INBOX_EVENTS: usize = 1024;

/// Payload bytes of the events that wait for the reader.
pub const INBOX_BYTES: usize = 8 << 20;

/// Refusals that wait for the reader as events; further ones are only counted and logged.
pub const REFUSED_EVENTS: usize = 256;

/// Bytes of a membership datagram. It fits the smallest packet that QUIC allows.
pub(crate) const DATAGRAM_BYTES: usize = 1100;

/// Bytes of datagrams that wait on one link, in each direction. The oldest are dropped first.
pub(crate) const DATAGRAM_BUFFER: usize = 128 << 10;

/// Messages that wait for the task that owns the links. Further datagrams are dropped.
pub(crate) const MESH_INPUTS: usize = 1024;

/// Bytes that a peer may have in flight on its stream. 400 MB/s need 4 MB at 10 ms between two reads.
pub(crate) const STREAM_WINDOW: u32 = 4 << 20;

/// Bytes on one link that wait for an acknowledgement, including those that QUIC has not sent yet. On a slower path it is what
/// the path delivers in two round trips, but at least [`SEND_WINDOW_MIN`].
pub(crate) const SEND_WINDOW: u64 = 4 << 20;

/// The least that [`SEND_WINDOW`] becomes on a slow path.
pub(crate) const SEND_WINDOW_MIN: u64 = 16 << 10;

/// Bytes requested as the socket's buffer, in each direction. The system may grant less.
pub(crate) const SOCKET_BUFFER: usize = 8 << 20;

/// Largest UDP payload that is probed and accepted. It is above Ethernet's, because the loopback and jumbo frames allow it, and
/// low enough that the ten packets of QUIC's largest batch still fit [`UDP_BATCH`].
pub(crate) const UDP_PAYLOAD: u16 = 6500;

/// Bytes that the system accepts in one send, in however many packets. For more it returns an error that looks like a failed
/// probe of the path's packet size, so the fault would stay unnoticed.
pub(crate) const UDP_BATCH: usize = 65_507;

/// Bytes kept of a peer's close reason.
pub(crate) const REASON_BYTES: usize = 200;

/// Reports that this node is superseded, one per reporting member, that wait for the reader as events.
pub(crate) const SUPERSEDED_EVENTS: usize = 64;

/// How long a failed handshake keeps its slot, so that one slot allows only a few handshakes a second.
pub(crate) const HANDSHAKE_FAILED: Duration = Duration::from_millis(250);

/// The value of a bound that the transport counts when it is reached.
pub(crate) fn value(bound: Bound) -> u64 {
    let value = match bound {
        Bound::Members => MEMBERS,
        Bound::Introduced => INTRODUCED,
        Bound::Handshakes => HANDSHAKES,
        Bound::SeedAddresses => SEED_ADDRESSES,
        Bound::RefusedEvents => REFUSED_EVENTS,
        Bound::MeshInputs => MESH_INPUTS,
        // The engine and the node count these bounds.
        _ => 0,
    };
    value as u64
}
