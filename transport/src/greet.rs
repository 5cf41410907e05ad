//! The exchange of hellos, before a connection becomes a link.

use std::sync::Arc;

use quinn::SendStream;
use quinn::crypto::rustls::HandshakeData;
use tallymesh_schemas::actor::{Incarnation, NodeName};
use tallymesh_schemas::frame;

use crate::bounds::HELLO_BYTES;
use crate::closing::code::Code;
use crate::closing::ending::{Ending, Failure};
use crate::closing::proven::Proven;
use crate::counters::Refusal;
use crate::frames::{FrameReader, FramesError};
use crate::hello::{Hello, HelloError};
use crate::shared::Shared;
use crate::tls;

/// A connection whose ends have exchanged hellos.
#[derive(Debug)]
pub(crate) struct Greeted {
    pub(crate) conn: Proven,
    pub(crate) stream: SendStream,
    pub(crate) frames: FrameReader,
    pub(crate) hello: Hello,
    pub(crate) version: u8,
    /// The run that this node's hello named.
    pub(crate) introduced_as: Incarnation,
}

/// Exchanges hellos on a connection, with any peer or with the expected one. On failure it closes the connection, and the
/// ending says why.
pub(crate) async fn greet(shared: &Arc<Shared>, conn: Proven, expected: Option<&NodeName>) -> Result<Greeted, Failure> {
    let greeted = match expected.filter(|expected| *expected != conn.peer()) {
        Some(expected) => {
            let reason = format!("the certificate there is of \"{}\" and not of \"{expected}\"", conn.peer());
            Ok(Err(Ending::refused(Refusal::WrongName, reason)))
        }
        None => tokio::time::timeout(shared.timings.hello, exchange(shared, &conn)).await,
    };
    let ending = match greeted {
        Ok(Ok(greeted)) => return Ok(greeted),
        Ok(Err(ending)) => ending,
        Err(_) => Ending::refused(Refusal::Hello, "no hello in time"),
    };
    // If the peer has closed the connection, its reason is better than the error of the failed read.
    let ending = conn.ended().unwrap_or(ending);
    let code = ending.refusal.map_or(Code::Closed, Code::of);
    conn.conn().close(code.var(), ending.reason.as_bytes());
    Err(Failure::Proven { peer: conn.peer().clone(), ending })
}

async fn exchange(shared: &Arc<Shared>, conn: &Proven) -> Result<Greeted, Ending> {
    let version = version(conn)?;
    let ours = shared.hello();
    let mut stream = conn.conn().open_uni().await.map_err(|error| conn.ending(&error))?;
    let payload = ours.encode().map_err(|error| Ending::local(format!("cannot write the hello: {error}")))?;
    let header = frame::header_of(version, payload.len()).map_err(|error| Ending::local(error.to_string()))?;
    let mut chunks = [bytes::Bytes::copy_from_slice(&header), payload];
    stream.write_all_chunks(&mut chunks).await.map_err(|error| Ending::local(error.to_string()))?;
    let mut frames = FrameReader::new(conn.conn().accept_uni().await.map_err(|error| conn.ending(&error))?);
    let hello = match frames.next(HELLO_BYTES).await {
        Ok(Some(payload)) => Hello::decode(&payload, conn.peer()).map_err(refused)?,
        Ok(None) => return Err(Ending::refused(Refusal::Hello, "the stream ended without a hello")),
        Err(error @ FramesError::Frame(_)) => return Err(Ending::refused(Refusal::Frame, error.to_string())),
        Err(error @ (FramesError::TooLong { .. } | FramesError::Truncated)) => {
            return Err(Ending::refused(Refusal::Hello, error.to_string()));
        }
        Err(FramesError::Stream(error)) => return Err(Ending::local(error.to_string())),
    };
    Ok(Greeted { conn: conn.clone(), stream, frames, hello, version, introduced_as: ours.incarnation })
}

fn refused(error: HelloError) -> Ending {
    let refusal = if matches!(error, HelloError::Name { .. }) { Refusal::WrongName } else { Refusal::Hello };
    Ending::refused(refusal, error.to_string())
}

/// The version that TLS negotiated.
fn version(conn: &Proven) -> Result<u8, Ending> {
    let data = conn.conn().handshake_data().and_then(|data| data.downcast::<HandshakeData>().ok());
    let protocol = data.and_then(|data| data.protocol.clone());
    protocol
        .as_deref()
        .and_then(tls::version_of)
        .ok_or_else(|| Ending::refused(Refusal::ProtocolVersion, "the two ends agreed on no protocol version"))
}
