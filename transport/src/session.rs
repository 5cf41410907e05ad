//! The session of a link: its reader, its writer, and the watcher of its connection.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use quinn::SendStream;
use tallymesh_schemas::Bound;
use tallymesh_schemas::bounds::FRAME_BYTES;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;

use crate::closing::code::Code;
use crate::closing::ending::Ending;
use crate::counters::Refusal;
use crate::counters::count;
use crate::event::Event;
use crate::frames::{FrameReader, FramesError};
use crate::inbox::{Inbox, Unread};
use crate::link::{Link, LinkId};
use crate::mesh::input::Input;
use crate::shared::Shared;

/// When both nodes leave: how long this node waits, in addition to some round trips, for the peer to read its last frames.
const FAREWELL: Duration = Duration::from_millis(100);

/// The context of a link's task.
pub(crate) struct Session {
    pub(crate) shared: Arc<Shared>,
    pub(crate) link: Link,
    pub(crate) stream: SendStream,
    pub(crate) frames: FrameReader,
    pub(crate) inbox: Inbox,
    pub(crate) mesh: mpsc::Sender<Input>,
    /// Resolves when the peer's previous link has been reported down.
    pub(crate) previous: Option<oneshot::Receiver<()>>,
    /// Dropped when this link has been reported down.
    pub(crate) done: oneshot::Sender<()>,
}

impl Session {
    /// Reports the link up, its frames, and the link down.
    pub(crate) async fn run(self) {
        let Self { shared, link, stream, mut frames, inbox, mesh, previous, done } = self;
        let mut watcher = JoinSet::new();
        let mut writer = JoinSet::new();
        watcher.spawn(watch(Arc::clone(&shared), link.clone(), mesh));
        if let Some(previous) = previous {
            // An error means the same: the previous session is over.
            let _ = previous.await;
        }
        let up = if link.is_live() && inbox.put(Event::Up(link.clone())).await.is_ok() {
            writer.spawn(crate::writer::write(Arc::clone(&shared), link.clone(), stream));
            if read(&shared, &link, &mut frames, &inbox).await {
                farewell(&shared, &link, &mut writer).await;
            }
            true
        } else {
            link.end(Code::Closed, Ending::local("closed before it was used"), "");
            false
        };
        let error = link.conn().closed().await;
        writer.shutdown().await;
        // The watcher ends by itself after it has reported the end of the connection.
        while watcher.join_next().await.is_some() {}
        link.outbox().close();
        shared.notices.not_writable(link.peer(), link.id());
        if up {
            let Ending { reason, goodbye, .. } = link.ending(&error);
            // An error means that the reader of events is gone.
            let _ = inbox.put(Event::Down { peer: link.peer().clone(), link: link.id(), reason, goodbye }).await;
        }
        drop(done);
    }
}

/// Reports frames. Returns whether the stream ended properly; otherwise the connection was lost or this node ended it.
async fn read(shared: &Arc<Shared>, link: &Link, frames: &mut FrameReader, inbox: &Inbox) -> bool {
    loop {
        match frames.next(FRAME_BYTES).await {
            Ok(Some(payload)) => {
                count(&shared.tally.frames_in, 1);
                count(&shared.tally.bytes_in, payload.len());
                link.count_received(payload.len());
                let event = Event::Frame { peer: link.peer().clone(), link: link.id(), payload };
                if let Err(Unread) = inbox.put(event).await {
                    link.end(Code::Closed, Ending::local("this node's events are not read"), "not read");
                    return false;
                }
            }
            Ok(None) => return true,
            // The connection is lost, and its own end has the reason.
            Err(FramesError::Stream(quinn::ReadError::ConnectionLost(_))) => return false,
            Err(error) => {
                refuse(shared, link, Refusal::Frame, &error.to_string());
                return false;
            }
        }
    }
}

/// The peer has finished its stream: it leaves. It waits for the end of the connection as the sign that everything has been
/// read. If this node leaves, too, it sends its own frames first.
async fn farewell(shared: &Arc<Shared>, link: &Link, writer: &mut JoinSet<()>) {
    if shared.leaving.load(Ordering::Acquire) {
        while writer.join_next().await.is_some() {}
        // The peer closes when it has read this node's stream. If both wait for each other, this node gives up after this time.
        let patience = link.rtt() * 4 + FAREWELL;
        if tokio::time::timeout(patience, link.conn().closed()).await.is_ok() {
            return;
        }
    }
    link.end(Code::Goodbye, Ending::goodbye(), "read to the end");
}

/// Passes datagrams on and detects protocol violations, even while the reader waits. It reports the end of the connection when
/// it happens, not when the last frame has been read.
async fn watch(shared: Arc<Shared>, link: Link, mesh: mpsc::Sender<Input>) {
    let error = loop {
        tokio::select! {
            datagram = link.conn().read_datagram() => match datagram {
                Ok(data) => hand_on(&shared, &mesh, link.id(), data),
                Err(error) => break error,
            },
            stream = link.conn().accept_uni() => match stream.err() {
                Some(error) => break error,
                None => refuse(&shared, &link, Refusal::Stream, "a second stream was opened"),
            },
            stream = link.conn().accept_bi() => match stream.err() {
                Some(error) => break error,
                None => refuse(&shared, &link, Refusal::Stream, "a bidirectional stream was opened"),
            },
        }
    };
    let ending = link.ending(&error);
    // An error means that the mesh has stopped.
    let _ = mesh.send(Input::Ended { link, ending }).await;
}

fn hand_on(shared: &Arc<Shared>, mesh: &mpsc::Sender<Input>, link: LinkId, data: Bytes) {
    count(&shared.tally.datagrams_in, 1);
    if mesh.try_send(Input::Datagram { link, data }).is_err() {
        shared.tally.bounds.reached(Bound::MeshInputs);
        count(&shared.tally.datagrams_bad, 1);
    }
}

fn refuse(shared: &Arc<Shared>, link: &Link, refusal: Refusal, detail: &str) {
    if link.is_live() {
        shared.refuse(link.remote_addr(), Some(link.peer()), refusal, detail);
    }
    // The refusal is counted already. An ending with a refusal means that the peer reported it.
    link.end(Code::of(refusal), Ending::local(detail), detail);
}
