//! Decodes frames from a stream.

use bytes::{Buf, Bytes, BytesMut};
use quinn::{ReadError, RecvStream};
use tallymesh_schemas::frame::{self, FrameError, HEADER_BYTES};

/// Bytes read from QUIC at once.
const CHUNK: usize = 64 << 10;

/// Why a stream of frames ended early.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub(crate) enum FramesError {
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error("frame of {len} bytes; {limit} are allowed here")]
    TooLong { len: usize, limit: usize },
    #[error("the stream ends within a frame")]
    Truncated,
    #[error("the stream broke: {0}")]
    Stream(#[from] ReadError),
}

/// Assembles frames from chunks of arbitrary size.
#[derive(Debug, Default)]
pub(crate) struct FrameDecoder {
    header: [u8; HEADER_BYTES],
    have: usize,
    body: Option<Body>,
}

#[derive(Debug)]
struct Body {
    bytes: BytesMut,
    len: usize,
}

impl FrameDecoder {
    /// Reads bytes from `chunk` until a frame is complete or the chunk is empty. A payload longer than `limit` is refused
    /// before anything is allocated for it.
    pub(crate) fn decode(&mut self, chunk: &mut Bytes, limit: usize) -> Result<Option<Bytes>, FramesError> {
        if self.body.is_none() {
            while let Some(place) = self.header.get_mut(self.have) {
                if !chunk.has_remaining() {
                    return Ok(None);
                }
                *place = chunk.get_u8();
                self.have += 1;
            }
            let len = frame::payload_len(self.header)?;
            if len > limit {
                return Err(FramesError::TooLong { len, limit });
            }
            // Copied even when it lies in one chunk, because a slice would keep the whole receive buffer allocated.
            self.body = Some(Body { bytes: BytesMut::with_capacity(len), len });
        }
        let Some(body) = &mut self.body else { return Ok(None) };
        let missing = body.len - body.bytes.len();
        body.bytes.extend_from_slice(&chunk.split_to(missing.min(chunk.len())));
        if body.bytes.len() < body.len {
            return Ok(None);
        }
        self.have = 0;
        Ok(self.body.take().map(|body| body.bytes.freeze()))
    }

    /// Whether no frame has begun.
    pub(crate) fn is_between_frames(&self) -> bool {
        self.have == 0
    }
}

/// Reads the frames of a stream.
#[derive(Debug)]
pub(crate) struct FrameReader {
    stream: RecvStream,
    decoder: FrameDecoder,
    chunk: Bytes,
}

impl FrameReader {
    pub(crate) fn new(stream: RecvStream) -> Self {
        Self { stream, decoder: FrameDecoder::default(), chunk: Bytes::new() }
    }

    /// The next frame of at most `limit` bytes, or `None` at the stream's end. May be cancelled and called again.
    pub(crate) async fn next(&mut self, limit: usize) -> Result<Option<Bytes>, FramesError> {
        loop {
            if let Some(payload) = self.decoder.decode(&mut self.chunk, limit)? {
                return Ok(Some(payload));
            }
            match self.stream.read_chunk(CHUNK, true).await? {
                Some(chunk) => self.chunk = chunk.bytes,
                None if self.decoder.is_between_frames() => return Ok(None),
                None => return Err(FramesError::Truncated),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tallymesh_schemas::bounds::FRAME_BYTES;

    fn framed(payloads: &[&[u8]]) -> Bytes {
        let mut bytes = BytesMut::new();
        for payload in payloads {
            bytes.extend_from_slice(&frame::header(payload.len()).unwrap());
            bytes.extend_from_slice(payload);
        }
        bytes.freeze()
    }

    #[test]
    fn frames_are_whole_wherever_the_chunks_are_cut() {
        let payloads: [&[u8]; 3] = [b"a", b"two words", &[7; 300]];
        let stream = framed(&payloads);
        for size in 1..=stream.len() {
            let mut decoder = FrameDecoder::default();
            let mut got = Vec::new();
            for chunk in stream.chunks(size) {
                let mut chunk = Bytes::copy_from_slice(chunk);
                while let Some(payload) = decoder.decode(&mut chunk, FRAME_BYTES).unwrap() {
                    got.push(payload);
                }
            }
            assert_eq!(got, payloads, "chunks of {size}");
            assert!(decoder.is_between_frames());
        }
    }

    #[test]
    fn a_bound_is_checked_before_the_payload_is_there() {
        let mut decoder = FrameDecoder::default();
        let mut chunk = Bytes::copy_from_slice(&frame::header(513).unwrap());
        assert_eq!(decoder.decode(&mut chunk, 512), Err(FramesError::TooLong { len: 513, limit: 512 }));
        let mut decoder = FrameDecoder::default();
        let mut chunk = Bytes::from_static(&[1, 0xff, 0xff, 0xff]);
        assert_eq!(decoder.decode(&mut chunk, FRAME_BYTES), Err(FramesError::Frame(FrameError::Length(0xff_ffff))));
        let mut decoder = FrameDecoder::default();
        let mut chunk = Bytes::from_static(&[9, 1, 0, 0]);
        assert_eq!(decoder.decode(&mut chunk, FRAME_BYTES), Err(FramesError::Frame(FrameError::Version(9))));
    }
}
