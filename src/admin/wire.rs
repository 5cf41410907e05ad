//! Frames on the admin socket.

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use tallymesh_schemas::admin::{self, Answer, PAGE_BYTES, PAGE_ITEMS, Request};
use tallymesh_schemas::frame;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};

use crate::places::Place;

/// How long a client may take to finish a request that it has begun to send.
const REQUEST: Duration = Duration::from_secs(30);

/// How long a connection may be idle without a request, and how long a client may take to read a frame: a person may read a
/// listing page by page.
const IDLE: Duration = Duration::from_secs(600);

fn invalid(error: impl std::error::Error + Send + Sync + 'static) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

async fn within<T>(time: Duration, what: &str, work: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    let late = |_| io::Error::new(io::ErrorKind::TimedOut, format!("{what} within {} s", time.as_secs()));
    tokio::time::timeout(time, work).await.map_err(late)?
}

/// A connection's place; `None` once the connection serves a long-running request.
pub(super) type Held = Option<Arc<Place>>;

async fn waiting<T>(place: &Held, client: impl Future<Output = T>) -> T {
    match place {
        Some(place) => place.wait(client).await,
        None => client.await,
    }
}

/// The receiving half of a connection.
#[derive(Debug)]
pub(super) struct From {
    pub(super) stream: OwnedReadHalf,
    pub(super) place: Held,
}

impl From {
    /// Reads a request; `None` at the end of the stream.
    pub(super) async fn read(&mut self) -> io::Result<Option<Request>> {
        let Self { stream, place } = self;
        let request = async {
            let mut header = [0; frame::HEADER_BYTES];
            let first = within(IDLE, "the client asked nothing", stream.read(&mut header)).await?;
            if first == 0 {
                return Ok(None);
            }
            let rest = async {
                let missing = header.get_mut(first..).unwrap_or_default();
                stream.read_exact(missing).await?;
                let mut payload = vec![0; frame::payload_len(header).map_err(invalid)?];
                stream.read_exact(&mut payload).await?;
                admin::decode(&payload).map_err(invalid)
            };
            within(REQUEST, "the client did not end its request", rest).await.map(Some)
        };
        waiting(place, request).await
    }

    /// Waits until the client closes its end. Ignores all other input.
    pub(super) async fn closed(&mut self) {
        let mut byte = [0; 1];
        let _ = self.stream.read(&mut byte).await;
    }
}

/// The sending half of a connection.
#[derive(Debug)]
pub(super) struct To {
    pub(super) stream: OwnedWriteHalf,
    pub(super) place: Held,
}

/// Writes a part of an answer.
pub(super) async fn write(to: &mut To, answer: &Answer) -> io::Result<()> {
    let payload = admin::encode(answer).map_err(invalid)?;
    let mut bytes = Vec::with_capacity(frame::HEADER_BYTES + payload.len());
    bytes.extend_from_slice(&frame::admin_header(payload.len()).map_err(invalid)?);
    bytes.extend_from_slice(&payload);
    let To { stream, place } = to;
    waiting(place, within(IDLE, "the client did not read", stream.write_all(&bytes))).await
}

/// Writes a list as pages that fit into frames, whatever the size of the items.
pub(super) async fn write_pages<T: Serialize>(
    to: &mut To,
    items: impl IntoIterator<Item = T>,
    answer: fn(Vec<T>) -> Answer,
) -> io::Result<()> {
    let (mut page, mut bytes) = (Vec::new(), 0);
    for item in items {
        let len = admin::encoded_len(&item).map_err(invalid)?;
        if page.len() >= PAGE_ITEMS || bytes + len > PAGE_BYTES {
            write(to, &answer(std::mem::take(&mut page))).await?;
            bytes = 0;
        }
        bytes += len;
        page.push(item);
    }
    if page.is_empty() { Ok(()) } else { write(to, &answer(page)).await }
}

#[cfg(test)]
mod tests {
    use tallymesh_schemas::admin::ThrottleInfo;
    use tokio::net::UnixStream;

    use super::*;

    #[tokio::test]
    async fn a_list_of_any_length_comes_in_pages_that_fit_a_frame() {
        let (node, client) = UnixStream::pair().unwrap();
        let (_from, stream) = node.into_split();
        let mut to = To { stream, place: None };
        let throttle = |n: usize| ThrottleInfo {
            name: format!("{}{n}", "d".repeat(200)),
            rate: "5/1h".to_owned(),
            burst: 5,
            strength: "soft".to_owned(),
            on_partition: "fair_share".to_owned(),
            tokens: 5,
            share_ppm: 0,
            admitted: 0,
            local: 0,
        };
        let wanted: Vec<_> = (0..20_000).map(throttle).collect();
        let writes = async {
            write_pages(&mut to, wanted.clone(), Answer::Throttles).await.unwrap();
            drop(to);
        };
        let reads = async {
            let (mut stream, _to) = client.into_split();
            let mut found = Vec::new();
            let mut header = [0; frame::HEADER_BYTES];
            while found.len() < wanted.len() {
                stream.read_exact(&mut header).await.unwrap();
                let mut payload = vec![0; frame::payload_len(header).unwrap()];
                stream.read_exact(&mut payload).await.unwrap();
                let Answer::Throttles(page) = admin::decode(&payload).unwrap() else { panic!("no page") };
                found.extend(page);
            }
            found
        };
        let ((), found) = tokio::join!(writes, reads);
        assert_eq!(found, wanted);
    }
}
