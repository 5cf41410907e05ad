//! The hello: what both ends say before a connection becomes a link.

use std::sync::Arc;

use quinn::crypto::rustls::HandshakeData;
use quinn::{Connection, SendStream};
use rustls::pki_types::CertificateDer;
use tallymesh_schemas::actor::{Incarnation, NodeName};
use tallymesh_schemas::frame;

use crate::Refusal;
use crate::closing::{Code, Ending};
use crate::frames::{FrameReader, FramesError};
use crate::hello::{Hello, HelloError};
use crate::limits::HELLO_BYTES;
use crate::shared::Shared;
use crate::tls;
use crate::verify::certificate_name;

/// A connection whose ends have said who they are.
#[derive(Debug)]
pub(crate) struct Greeted {
    pub(crate) conn: Connection,
    pub(crate) stream: SendStream,
    pub(crate) frames: FrameReader,
    pub(crate) hello: Hello,
    pub(crate) version: u8,
    /// As which run this node introduced itself.
    pub(crate) introduced_as: Incarnation,
}

/// Exchanges hellos on a connection. On failure the connection is closed, and the ending says why; the name is the
/// peer's as far as it is proven.
pub(crate) async fn greet(shared: &Arc<Shared>, conn: Connection) -> Result<Greeted, (Option<NodeName>, Ending)> {
    let mut name = None;
    let greeted = tokio::time::timeout(shared.timings.hello, exchange(shared, &conn, &mut name)).await;
    let ending = match greeted {
        Ok(Ok(greeted)) => return Ok(greeted),
        Ok(Err(ending)) => ending,
        Err(_) => Ending::refused(Refusal::Hello, "no hello in time"),
    };
    // A connection that the peer has closed says why better than the read that failed on it.
    let ending = conn.close_reason().map_or(ending, |error| Ending::of(&error));
    let code = ending.refusal.map_or(Code::Closed, Code::of);
    conn.close(code.var(), ending.reason.as_bytes());
    Err((name, ending))
}

async fn exchange(shared: &Arc<Shared>, conn: &Connection, name: &mut Option<NodeName>) -> Result<Greeted, Ending> {
    let version = version(conn)?;
    let certificate = peer_name(conn)?;
    *name = Some(certificate.clone());
    let ours = shared.hello();
    let mut stream = conn.open_uni().await.map_err(|error| Ending::of(&error))?;
    let payload = ours.encode().map_err(|error| Ending::local(format!("cannot write the hello: {error}")))?;
    let header = frame::header(payload.len()).map_err(|error| Ending::local(error.to_string()))?;
    let mut chunks = [bytes::Bytes::copy_from_slice(&header), payload];
    stream.write_all_chunks(&mut chunks).await.map_err(|error| Ending::local(error.to_string()))?;
    let mut frames = FrameReader::new(conn.accept_uni().await.map_err(|error| Ending::of(&error))?);
    let hello = match frames.next(HELLO_BYTES).await {
        Ok(Some(payload)) => Hello::decode(&payload, &certificate).map_err(refused)?,
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

/// The version that TLS agreed on.
fn version(conn: &Connection) -> Result<u8, Ending> {
    let data = conn.handshake_data().and_then(|data| data.downcast::<HandshakeData>().ok());
    let protocol = data.and_then(|data| data.protocol.clone());
    protocol
        .as_deref()
        .and_then(tls::version_of)
        .ok_or_else(|| Ending::refused(Refusal::ProtocolVersion, "the two ends agreed on no protocol version"))
}

/// The name in the certificate that TLS has verified.
fn peer_name(conn: &Connection) -> Result<NodeName, Ending> {
    let chain = conn.peer_identity().and_then(|chain| chain.downcast::<Vec<CertificateDer<'static>>>().ok());
    let Some(own) = chain.as_ref().and_then(|chain| chain.first()) else {
        return Err(Ending::refused(Refusal::Certificate, "the peer showed no certificate"));
    };
    certificate_name(own).map_err(|error| Ending::refused(Refusal::Certificate, error.to_string()))
}
