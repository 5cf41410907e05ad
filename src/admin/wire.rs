//! Frames on the admin socket.

use std::io;

use serde::Serialize;
use serde::de::DeserializeOwned;
use tallymesh_schemas::{admin, frame};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

fn invalid(error: impl std::error::Error + Send + Sync + 'static) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

/// Reads a message; `None` at the end of the stream.
pub(super) async fn read<T: DeserializeOwned>(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<T>> {
    let mut header = [0; frame::HEADER_BYTES];
    match stream.read_exact(&mut header).await {
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(error),
    }
    let mut payload = vec![0; frame::payload_len(header).map_err(invalid)?];
    stream.read_exact(&mut payload).await?;
    admin::decode(&payload).map(Some).map_err(invalid)
}

/// Writes a message.
pub(super) async fn write<T: Serialize>(stream: &mut (impl AsyncWrite + Unpin), message: &T) -> io::Result<()> {
    let payload = admin::encode(message).map_err(invalid)?;
    let mut bytes = Vec::with_capacity(frame::HEADER_BYTES + payload.len());
    bytes.extend_from_slice(&frame::header(payload.len()).map_err(invalid)?);
    bytes.extend_from_slice(&payload);
    stream.write_all(&bytes).await
}
