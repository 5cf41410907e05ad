//! Every bound of the transport, in one place. What both ends must agree on is in [`tallymesh_schemas::limits`].

use std::time::Duration;

use tallymesh_schemas::Bound;
use tallymesh_schemas::limits::FRAME_BYTES;

/// Members that a node knows, itself not counted. A dead one gives way to a new one when the table is full.
pub const MEMBERS: usize = 1024;

/// Members that this node has never had a link with and knows from one and the same member.
pub const INTRODUCED: usize = 128;

/// Members that this node has never had a link with, all tellers together. Who says hello takes the place of one of them when
/// the table is full.
pub const INTRODUCED_ALL: usize = MEMBERS / 2;

/// Bytes of the first frame of a stream, the hello.
pub const HELLO_BYTES: usize = 512;

/// Bytes of the build that a hello names.
pub const BUILD_BYTES: usize = 64;

/// Incoming connections that may be between their first packet and the end of their hello, those from addresses of members
/// not counted.
pub const HANDSHAKES: usize = 64;

/// Of these, connections from one address, or from one IPv6 network of 64 bits.
pub const HANDSHAKES_PER_SOURCE: usize = HANDSHAKES / 2;

/// Incoming connections from addresses under which members are known that may be that far, beside the others.
pub const HANDSHAKES_KNOWN: usize = 64;

/// Handshakes under way above which a stranger first has to prove its address with a retry token. A retry is answered
/// without keeping anything in memory.
pub const HANDSHAKES_UNPROVEN: usize = 16;

/// Incoming connections that wait for the acceptor; more are refused.
pub(crate) const INCOMING: usize = 256;

/// Bytes that are kept of a connection that waits for the acceptor.
pub(crate) const INCOMING_BYTES: u64 = 16 << 10;

/// Dials under way.
pub const DIALS: usize = 64;

/// Addresses that one seed may resolve to; the rest is ignored.
pub const SEED_ADDRESSES: usize = 16;

/// Seeds that a warning names; the rest is counted.
pub(crate) const SEEDS_NAMED: usize = 16;

/// Cost of a link's queue above which [`Link::has_room`](crate::Link::has_room) says no, on a fast path; on a slower one
/// it is what the path takes in two round trips, but at least [`OUTBOX_HIGH_MIN`]. A frame costs its bytes and
/// [`OUTBOX_FRAME`]. What waits here grows old: less of it lets the sender say newer things instead. A link that was full
/// is reported writable when half of it is left.
pub const OUTBOX_HIGH: usize = 1 << 20;

/// The least that [`OUTBOX_HIGH`] becomes on a slow path.
pub const OUTBOX_HIGH_MIN: usize = 16 << 10;

/// Cost of a link's queue above which [`Link::send`](crate::Link::send) fails: two of the largest frames above
/// [`OUTBOX_HIGH`], so that who asks for room first never meets it.
pub const OUTBOX_HARD: usize = OUTBOX_HIGH + 2 * (FRAME_BYTES + OUTBOX_FRAME);

/// What a frame costs in a queue besides its payload: its header and its place.
pub const OUTBOX_FRAME: usize = 40;

/// Cost of the frames that are handed to QUIC in one go.
pub(crate) const WRITE_BATCH: usize = 256 << 10;

/// Payloads up to this size are copied behind each other into one buffer; larger ones travel as they are.
pub(crate) const COALESCE: usize = 4 << 10;

/// Events that wait to be read. A full queue stops the reading of streams, which closes QUIC's window.
pub const INBOX_EVENTS: usize = 1024;

/// Payload bytes of the events that wait to be read.
pub const INBOX_BYTES: usize = 8 << 20;

/// Refusals that wait to be read as events; more are only counted and logged.
pub const REFUSED_EVENTS: usize = 256;

/// Bytes of a membership datagram: fits the smallest packet that QUIC allows.
pub(crate) const DATAGRAM_BYTES: usize = 1100;

/// Bytes of datagrams that wait on one link, in each direction; the oldest are dropped first.
pub(crate) const DATAGRAM_BUFFER: usize = 128 << 10;

/// Messages that wait for the task that owns the links; datagrams beyond are dropped.
pub(crate) const MESH_INPUTS: usize = 1024;

/// Bytes that a peer may have under way on its stream. 400 MB/s need 4 MB at 10 ms between two reads.
pub(crate) const STREAM_WINDOW: u32 = 4 << 20;

/// Bytes that wait for their acknowledgement on one link, those included that QUIC has not sent yet; on a slower path what
/// it takes in two round trips, but at least [`SEND_WINDOW_MIN`].
pub(crate) const SEND_WINDOW: u64 = 4 << 20;

/// The least that [`SEND_WINDOW`] becomes on a slow path.
pub(crate) const SEND_WINDOW_MIN: u64 = 16 << 10;

/// Bytes asked for as buffer of the socket, in each direction. The system may grant less.
pub(crate) const SOCKET_BUFFER: usize = 8 << 20;

/// Largest UDP payload that is tried and accepted. Above Ethernet's, as the loopback and jumbo frames take it; not higher,
/// so that the ten packets of QUIC's largest batch still fit [`UDP_BATCH`].
pub(crate) const UDP_PAYLOAD: u16 = 6500;

/// Bytes that the system takes in one send, however many packets it is cut into. More are refused with an error that
/// reads like a failed probe of the path's packet size, so nobody would notice.
pub(crate) const UDP_BATCH: usize = 65_507;

/// Bytes that are kept of the reason that a peer gives for closing.
pub(crate) const REASON_BYTES: usize = 200;

/// Members whose word that this node is superseded waits to be read as an event.
pub(crate) const SUPERSEDED_EVENTS: usize = 64;

/// How long a handshake that failed keeps its place: so one place costs a few handshakes a second.
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
        // The engine and the node count these.
        _ => 0,
    };
    value as u64
}
