//! The connection that keeps the hold, and a new one after the node has stopped.

use std::io;
use std::os::unix::net::UnixStream as StdStream;
use std::time::Duration;

use tallymesh_schemas::admin::{Answer, Request};
use tokio::io::AsyncReadExt;
use tokio::net::UnixStream;

use crate::args::OnLost;
use crate::client::Target;
use crate::failure::Failure;
use crate::style;

/// The first pause between two attempts to regain the hold. Each further one is twice as long.
const PAUSE: Duration = Duration::from_millis(100);

/// The longest pause between two attempts.
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// Asks the node for the hold. The connection holds for as long as it is open.
pub(super) fn take(target: &Target, request: &Request) -> Result<StdStream, Failure> {
    let mut client = target.connect()?;
    client.send(request)?;
    let Answer::Held = client.receive()? else { return Err(client.unexpected()) };
    Ok(client.into_stream())
}

/// Keeps the hold while the command runs. Returns when the command has to end because the hold is lost.
pub(super) async fn keep(mut held: UnixStream, target: Target, request: Request, on_lost: OnLost) {
    loop {
        // The node sends nothing more, so only the end of the stream can arrive.
        let _ = held.read(&mut [0]).await;
        match on_lost {
            OnLost::Kill => {
                style::complain("warning", "the node is gone, and the hold is lost; ending the command");
                return;
            }
            OnLost::Continue => {
                let lost = "the node is gone, and the hold is lost; the command continues, and is counted again when the node is back";
                style::complain("warning", lost);
            }
        }
        held = regain(&target, &request).await;
        style::complain("note", "the node is back and counts the command again");
    }
}

/// Retries until the node counts the command again.
async fn regain(target: &Target, request: &Request) -> UnixStream {
    let mut pause = PAUSE;
    loop {
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(PAUSE_MAX);
        let (target, request) = (target.clone(), request.clone());
        // A node that does not answer may make it wait.
        let taken = tokio::task::spawn_blocking(move || take(&target, &request)).await;
        if let Ok(Ok(stream)) = taken
            && let Ok(stream) = watched(stream)
        {
            return stream;
        }
    }
}

/// The stream, registered with the runtime.
pub(super) fn watched(stream: StdStream) -> io::Result<UnixStream> {
    stream.set_nonblocking(true)?;
    UnixStream::from_std(stream)
}
