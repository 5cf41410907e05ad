//! Bytes a changed row takes on the wire.

use crdts::PNCounter;
use tallymesh_schemas::frame::HEADER_BYTES;

use crate::add::KEYS;
use crate::apply::Feed;
use crate::input;
use crate::measure::Figure;
use crate::report::Group;

/// Rows of one flush.
const ROWS: usize = 1_000;

/// A QUIC packet as it leaves on Ethernet: 1452 bytes of UDP payload, in it a short header with an 8-byte connection id
/// and a packet number of 2 bytes, a stream frame's header of about 8, and the AEAD tag; before it UDP and IPv4.
const UDP_PAYLOAD: f64 = 1452.0;
const IN_PACKET: f64 = 1.0 + 8.0 + 2.0 + 8.0 + 16.0;
const BEFORE_PACKET: f64 = 28.0;

fn figure(who: &str, bytes: f64) -> Figure {
    Figure { who: who.to_owned(), value: bytes / ROWS as f64 }
}

/// Bytes with what QUIC puts around them: computed, not measured.
fn with_quic(bytes: f64) -> f64 {
    let packets = (bytes / (UDP_PAYLOAD - IN_PACKET)).ceil();
    bytes + packets * (IN_PACKET + BEFORE_PACKET)
}

/// The figures of this file. They are the same in every run.
pub fn measure() -> Vec<Group> {
    let mut feed = Feed::new(KEYS);
    let messages = feed.flush(ROWS);
    let ours = messages.iter().map(|message| message.len() + HEADER_BYTES).sum::<usize>() as f64;
    let mut whole = Feed::new(ROWS);
    let dense = whole.flush(ROWS).iter().map(|message| message.len() + HEADER_BYTES).sum::<usize>() as f64;
    let keys = input::keys(ROWS);
    let mut counter = PNCounter::<u8>::new();
    let first = counter.inc_many(1, 100);
    crdts::CmRDT::apply(&mut counter, first);
    let op = counter.inc_many(1, 1);
    let bytes = |row: Result<Vec<u8>, postcard::Error>| row.map_or(f64::NAN, |row| row.len() as f64);
    let plain: f64 = keys.iter().map(|key| bytes(postcard::to_stdvec(&(key, 101_u64, 0_u64)))).sum();
    let ops: f64 = keys.iter().map(|key| bytes(postcard::to_stdvec(&(key, &op)))).sum();
    let figures = vec![
        figure("tallymesh, frame and QUIC included (computed)", with_quic(ours)),
        figure("tallymesh, frame included", ours),
        figure("tallymesh, frame included, neighbouring rows", dense),
        figure("postcard (key, u64, u64)", plain),
        figure("crdts op in postcard", ops),
    ];
    vec![
        Group::new(format!("bytes a changed row, {ROWS} of {KEYS} known keys a flush"), "bytes", figures)
            .want("≤ 6 bytes all told", 6.0),
    ]
}
