//! The task that takes incoming connections.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use quinn::Incoming;
use tallymesh_schemas::Bound;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tracing::Instrument;

use crate::Refusal;
use crate::closing::Ending;
use crate::counters::count;
use crate::greet::greet;
use crate::limits::{HANDSHAKES, HANDSHAKES_UNPROVEN};
use crate::mesh::Input;
use crate::mesh::plan::Origin;
use crate::shared::Shared;

/// Takes incoming connections until the endpoint is closed. A flood of them costs a bounded number of handshakes: while
/// some are under way, strangers first have to prove their address, which costs nothing here; beyond the bound they are
/// refused.
pub(crate) async fn accept(shared: Arc<Shared>, endpoint: quinn::Endpoint, mesh: mpsc::Sender<Input>) {
    let mut handshakes = JoinSet::new();
    loop {
        tokio::select! {
            incoming = endpoint.accept() => match incoming {
                Some(incoming) => admit(&shared, &mut handshakes, incoming, &mesh),
                None => break,
            },
            Some(_) = handshakes.join_next(), if !handshakes.is_empty() => {}
        }
    }
    handshakes.shutdown().await;
}

fn admit(shared: &Arc<Shared>, handshakes: &mut JoinSet<()>, incoming: Incoming, mesh: &mpsc::Sender<Input>) {
    let addr = incoming.remote_address();
    let under_way = handshakes.len();
    if shared.leaving.load(Ordering::Acquire) {
        incoming.refuse();
    } else if under_way >= HANDSHAKES_UNPROVEN && !incoming.remote_address_validated() {
        count(&shared.tally.retries, 1);
        // Not validated, so a retry is allowed.
        let _ = incoming.retry();
    } else if under_way >= HANDSHAKES {
        incoming.refuse();
        shared.tally.bounds.reached(Bound::Handshakes);
        shared.refuse(addr, None, Refusal::Overload, "as many handshakes are under way as are allowed");
    } else {
        let span = tracing::debug_span!("incoming", %addr);
        handshakes.spawn(shake_hands(Arc::clone(shared), incoming, mesh.clone()).instrument(span));
    }
}

async fn shake_hands(shared: Arc<Shared>, incoming: Incoming, mesh: mpsc::Sender<Input>) {
    let addr = incoming.remote_address();
    let connected = tokio::time::timeout(shared.timings.handshake, incoming).await;
    let (name, ending) = match connected {
        Ok(Ok(conn)) => match greet(&shared, conn).await {
            Ok(greeted) => {
                // An error says that the mesh is gone.
                let _ = mesh.send(Input::Greeted { greeted: Box::new(greeted), origin: Origin::Incoming }).await;
                return;
            }
            Err(failed) => failed,
        },
        Ok(Err(error)) => (None, Ending::of(&error)),
        Err(_) => (None, Ending::refused(Refusal::Handshake, "the TLS handshake did not end in time")),
    };
    if ending.superseded.is_some() {
        // An error says that the mesh is gone.
        let _ = mesh.send(Input::Failed { origin: Origin::Incoming, addr, name, ending }).await;
    } else if let Some(refusal) = ending.refusal {
        shared.refuse(addr, name.as_ref(), refusal, &ending.reason);
    } else {
        tracing::debug!(%addr, reason = ending.reason, "an incoming connection did not become a link");
    }
}
