//! The task that writes a link's frames.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use quinn::{SendStream, WriteError};
use tallymesh_schemas::frame;

use crate::bounds::{COALESCE, WRITE_BATCH};
use crate::counters::count;
use crate::link::Link;
use crate::outbox::Taken;
use crate::shared::Shared;

/// Writes queued frames until the queue is finished, then ends the stream and waits until the peer has acknowledged all of it.
/// Returns early when the connection is lost.
pub(crate) async fn write(shared: Arc<Shared>, link: Link, mut stream: SendStream) {
    let mut payloads = Vec::new();
    let mut chunks = Vec::new();
    loop {
        let cost = match link.outbox().take(WRITE_BATCH, &mut payloads).await {
            Taken::Frames { cost } => cost,
            Taken::Finished => break,
            Taken::Closed => return,
        };
        let frames = payloads.len();
        let bytes = payloads.iter().map(Bytes::len).sum();
        join(link.version(), &mut payloads, &mut chunks);
        if write_all(&link, &mut stream, &mut chunks).await.is_err() {
            return;
        }
        chunks.clear();
        count(&shared.tally.frames_out, frames);
        count(&shared.tally.bytes_out, bytes);
        link.count_sent(frames, bytes);
        if link.outbox().written(cost) {
            shared.notices.writable(link.peer(), link.id());
        }
    }
    if stream.finish().is_ok() {
        // An error means that the connection is lost, and its own end reports that.
        let _ = stream.stopped().await;
    }
}

/// Hands chunks to QUIC as fast as the path accepts them.
async fn write_all(link: &Link, stream: &mut SendStream, mut chunks: &mut [Bytes]) -> Result<(), WriteError> {
    while !chunks.is_empty() {
        link.follow_path();
        let written = stream.write_chunks(chunks).await?;
        // A chunk that was written in part has been cut to the rest.
        chunks = chunks.split_at_mut_checked(written.chunks).map_or(Default::default(), |(_, rest)| rest);
    }
    Ok(())
}

/// Frames the payloads in the protocol version of the link: short ones are joined into one chunk, long ones stay separate.
fn join(version: u8, payloads: &mut Vec<Bytes>, chunks: &mut Vec<Bytes>) {
    let mut short = BytesMut::new();
    for payload in payloads.drain(..) {
        // The length was checked when the payload was queued.
        let Ok(header) = frame::header_of(version, payload.len()) else { continue };
        short.extend_from_slice(&header);
        if payload.len() <= COALESCE {
            short.extend_from_slice(&payload);
        } else {
            chunks.push(short.split().freeze());
            chunks.push(payload);
        }
    }
    if !short.is_empty() {
        chunks.push(short.freeze());
    }
}

#[cfg(test)]
mod tests {
    use tallymesh_schemas::bounds::PROTOCOL_VERSION;

    use super::*;
    use crate::frames::FrameDecoder;

    #[test]
    fn joined_frames_are_read_back() {
        let sizes = [1, COALESCE, COALESCE + 1, 7, 100_000, 3];
        let payloads: Vec<Bytes> = sizes.iter().map(|size| Bytes::from(vec![b'x'; *size])).collect();
        let mut chunks = Vec::new();
        join(PROTOCOL_VERSION, &mut payloads.clone(), &mut chunks);
        assert_eq!(chunks.len(), 5, "two long payloads, and what is before, between and behind them");
        let mut decoder = FrameDecoder::default();
        let mut got = Vec::new();
        for mut chunk in chunks {
            while let Some(payload) = decoder.decode(&mut chunk, frame_bytes()).unwrap() {
                got.push(payload);
            }
        }
        assert_eq!(got, payloads);
    }

    fn frame_bytes() -> usize {
        tallymesh_schemas::bounds::FRAME_BYTES
    }
}
