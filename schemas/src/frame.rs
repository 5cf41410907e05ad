//! Frames: they separate the messages of a stream.
//!
//! A frame has a header of four bytes (the protocol version, and the payload's length in 24 bits little-endian) and a payload,
//! which is one [`Message`](crate::message::Message).

use crate::bounds;

/// Bytes of a frame's header.
pub const HEADER_BYTES: usize = 4;

/// Why a frame was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// This build does not support the version.
    #[error("frame of protocol version {0}; this node speaks {min} to {max}", min = bounds::PROTOCOL_VERSION_MIN, max = bounds::PROTOCOL_VERSION)]
    Version(u8),
    /// The payload is larger than allowed, or empty.
    #[error("frame of {0} bytes; 1 to {max} are allowed", max = bounds::FRAME_BYTES)]
    Length(usize),
}

/// The header of a frame of this build's protocol version with a payload of `len` bytes.
///
/// # Errors
/// [`FrameError::Length`] when `len` is 0 or over [`bounds::FRAME_BYTES`].
pub fn header(len: usize) -> Result<[u8; HEADER_BYTES], FrameError> {
    header_of(bounds::PROTOCOL_VERSION, len)
}

/// As [`header`], for a peer with which a node has agreed on a protocol version. A peer of an earlier version refuses frames
/// of a later one.
///
/// # Errors
/// As [`header`].
pub fn header_of(version: u8, len: usize) -> Result<[u8; HEADER_BYTES], FrameError> {
    if len == 0 || len > bounds::FRAME_BYTES {
        return Err(FrameError::Length(len));
    }
    let [a, b, c, _] = u32::try_from(len).map_err(|_| FrameError::Length(len))?.to_le_bytes();
    Ok([version, a, b, c])
}

/// The header of a frame on the admin socket. Requests and answers are the same in all versions that this build understands, so
/// its frames have the oldest of them: during an upgrade, a command and a node of neighbouring builds understand each other.
///
/// # Errors
/// As [`header`].
pub fn admin_header(len: usize) -> Result<[u8; HEADER_BYTES], FrameError> {
    header_of(bounds::PROTOCOL_VERSION_MIN, len)
}

/// The payload length that a header announces.
///
/// # Errors
/// [`FrameError`] when the version is unknown or the length is not allowed. The check happens before any allocation.
pub fn payload_len(header: [u8; HEADER_BYTES]) -> Result<usize, FrameError> {
    let [version, a, b, c] = header;
    if !(bounds::PROTOCOL_VERSION_MIN..=bounds::PROTOCOL_VERSION).contains(&version) {
        return Err(FrameError::Version(version));
    }
    let len = u32::from_le_bytes([a, b, c, 0]) as usize;
    if len == 0 || len > bounds::FRAME_BYTES {
        return Err(FrameError::Length(len));
    }
    Ok(len)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_states_its_length() {
        for len in [1, 255, 65_536, bounds::FRAME_BYTES] {
            assert_eq!(payload_len(header(len).unwrap()), Ok(len));
        }
    }

    #[test]
    fn lengths_and_versions_are_checked() {
        assert_eq!(header(0), Err(FrameError::Length(0)));
        assert_eq!(header(bounds::FRAME_BYTES + 1), Err(FrameError::Length(bounds::FRAME_BYTES + 1)));
        assert_eq!(payload_len([1, 0xff, 0xff, 0xff]), Err(FrameError::Length(0xff_ffff)));
        assert_eq!(payload_len([1, 0, 0, 0]), Err(FrameError::Length(0)));
        assert_eq!(payload_len([0, 1, 0, 0]), Err(FrameError::Version(0)));
        assert_eq!(payload_len([3, 1, 0, 0]), Err(FrameError::Version(3)));
        assert_eq!(payload_len(header_of(1, 7).unwrap()), Ok(7));
    }
}
