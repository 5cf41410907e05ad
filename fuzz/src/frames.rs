//! A peer's stream: frame headers, and behind each the message that it announces.

use tallymesh_schemas::{bounds, frame};

use crate::messages;

/// Takes frames off the front of a stream until one is refused or the stream ends, as a reader does.
pub fn run(mut stream: &[u8]) {
    while let Some((header, rest)) = stream.split_first_chunk::<{ frame::HEADER_BYTES }>() {
        let Ok(len) = frame::payload_len(*header) else { return };
        assert!((1..=bounds::FRAME_BYTES).contains(&len), "a payload of {len} bytes is allowed");
        let version = header[0];
        if version == bounds::PROTOCOL_VERSION {
            assert_eq!(frame::header(len), Ok(*header), "a header is written as it is read");
        }
        let Some((payload, rest)) = rest.split_at_checked(len) else { return };
        messages::run(payload);
        stream = rest;
    }
}
