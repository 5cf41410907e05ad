//! The messages between nodes: frames of the replication protocol, in base64, in the body of a message.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use tallymesh_schemas::frame::{self, FrameError, HEADER_BYTES};

use crate::maelstrom::protocol::{Body, body};

/// The type of messages between nodes.
pub(super) const TYPE: &str = "tally";

const FRAMES: &str = "frames";

/// Why a message of a node was refused.
#[derive(Debug, thiserror::Error)]
pub(super) enum LinkError {
    #[error("no frames")]
    Missing,
    #[error("frames in base64: {0}")]
    Base64(#[from] base64::DecodeError),
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error("a frame is cut off")]
    Short,
}

/// Appends a message as a frame.
///
/// # Errors
/// [`FrameError`] when the message is empty or too large for a frame.
pub(super) fn push(message: &[u8], frames: &mut Vec<u8>) -> Result<(), FrameError> {
    frames.extend(frame::header(message.len())?);
    frames.extend(message);
    Ok(())
}

/// The body that carries frames.
pub(super) fn pack(frames: &[u8]) -> Body {
    body(TYPE, [(FRAMES, Value::from(STANDARD.encode(frames)))])
}

/// The frames of a body, concatenated.
///
/// # Errors
/// [`LinkError`] when the body has no frames or they are not base64.
pub(super) fn unpack(body: &Body) -> Result<Vec<u8>, LinkError> {
    let frames = body.get(FRAMES).and_then(Value::as_str).ok_or(LinkError::Missing)?;
    Ok(STANDARD.decode(frames)?)
}

/// Takes the first message off the frames; `None` at their end.
///
/// # Errors
/// [`LinkError`] when a frame is incomplete.
pub(super) fn next<'a>(frames: &mut &'a [u8]) -> Result<Option<&'a [u8]>, LinkError> {
    if frames.is_empty() {
        return Ok(None);
    }
    let (header, rest) = frames.split_first_chunk::<HEADER_BYTES>().ok_or(LinkError::Short)?;
    let (message, rest) = rest.split_at_checked(frame::payload_len(*header)?).ok_or(LinkError::Short)?;
    *frames = rest;
    Ok(Some(message))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_come_back() {
        let mut frames = Vec::new();
        push(b"one", &mut frames).unwrap();
        push(b"two", &mut frames).unwrap();
        let unpacked = unpack(&pack(&frames)).unwrap();
        let mut rest = unpacked.as_slice();
        assert_eq!(next(&mut rest).unwrap(), Some(&b"one"[..]));
        assert_eq!(next(&mut rest).unwrap(), Some(&b"two"[..]));
        assert_eq!(next(&mut rest).unwrap(), None);
        for cut in 1..7 {
            assert!(next(&mut &unpacked[..cut]).is_err());
        }
        assert!(unpack(&body(TYPE, [(FRAMES, Value::from("%"))])).is_err());
        assert!(unpack(&body(TYPE, [])).is_err());
    }
}
