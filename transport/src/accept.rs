//! The task that accepts incoming connections.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use quinn::Incoming;
use tallymesh_schemas::Bound;
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinSet};
use tracing::Instrument;

use crate::bounds::HANDSHAKE_FAILED;
use crate::closing::ending::{Failure, Unproven};
use crate::closing::proven::Proven;
use crate::counters::Refusal;
use crate::counters::count;
use crate::greet::greet;
use crate::mesh::input::Input;
use crate::mesh::plan::Origin;
use crate::shared::Shared;
use crate::slots::{Admission, Caller, SlotId, Slots};

/// Accepts incoming connections until the endpoint closes. A flood of them costs a bounded number of handshakes; [`Slots`]
/// divides them among the callers. While some are in progress, unknown callers must first prove their address, which keeps no
/// state here.
pub(crate) async fn accept(shared: Arc<Shared>, endpoint: quinn::Endpoint, mesh: mpsc::Sender<Input>) {
    let mut acceptor =
        Acceptor { shared, mesh, slots: Slots::default(), tasks: JoinSet::new(), handles: BTreeMap::new() };
    loop {
        tokio::select! {
            incoming = endpoint.accept() => match incoming {
                Some(incoming) => acceptor.admit(incoming),
                None => break,
            },
            Some(done) = acceptor.tasks.join_next(), if !acceptor.tasks.is_empty() => {
                // An evicted handshake no longer owns its slot; another caller has it.
                if let Ok(slot) = done {
                    acceptor.slots.free(slot);
                    acceptor.handles.remove(&slot);
                }
            }
        }
    }
    acceptor.tasks.shutdown().await;
}

/// The handshakes in progress.
struct Acceptor {
    shared: Arc<Shared>,
    mesh: mpsc::Sender<Input>,
    slots: Slots,
    tasks: JoinSet<SlotId>,
    handles: BTreeMap<SlotId, AbortHandle>,
}

impl Acceptor {
    fn admit(&mut self, incoming: Incoming) {
        if self.shared.leaving.load(Ordering::Acquire) {
            return incoming.refuse();
        }
        let addr = incoming.remote_address();
        let source = addr.ip().into();
        let caller = match incoming.remote_address_validated() {
            false => Caller::Unproven(source),
            true if self.shared.is_known(addr) => Caller::Member(source),
            true => Caller::Proven(source),
        };
        let slot = match self.slots.admit(caller) {
            Admission::Slot(slot) => slot,
            Admission::InPlaceOf(slot, gone) => {
                self.handles.remove(&gone).into_iter().for_each(|handle| handle.abort());
                slot
            }
            Admission::Prove => {
                count(&self.shared.tally.retries, 1);
                // The address is not validated yet, so a retry is allowed.
                let _ = incoming.retry();
                return;
            }
            Admission::Refuse => {
                incoming.refuse();
                self.shared.tally.bounds.reached(Bound::Handshakes);
                let detail = "as many handshakes are under way as are allowed";
                return self.shared.refuse(addr, None, Refusal::Overload, detail);
            }
        };
        let span = tracing::debug_span!("incoming", %addr);
        let handshake = shake_hands(Arc::clone(&self.shared), incoming, self.mesh.clone(), slot).instrument(span);
        self.handles.insert(slot, self.tasks.spawn(handshake));
    }
}

async fn shake_hands(shared: Arc<Shared>, incoming: Incoming, mesh: mpsc::Sender<Input>, slot: SlotId) -> SlotId {
    let addr = incoming.remote_address();
    let connected = match tokio::time::timeout(shared.timings.handshake, incoming).await {
        Ok(Ok(conn)) => Proven::of(conn),
        Ok(Err(error)) => Err(Unproven::of(&error)),
        Err(_) => Err(Unproven::refused(Refusal::Handshake, "the TLS handshake did not end in time")),
    };
    let greeted = match connected {
        Ok(conn) => greet(&shared, conn, None).await,
        Err(unproven) => Err(Failure::Unproven(unproven)),
    };
    let (name, reason, refusal) = match greeted {
        Ok(greeted) => {
            // An error means that the mesh has stopped.
            let _ = mesh.send(Input::Greeted { greeted: Box::new(greeted), origin: Origin::Incoming }).await;
            return slot;
        }
        Err(Failure::Proven { peer, ending }) if ending.superseded.is_some() => {
            let failure = Failure::Proven { peer, ending };
            // An error means that the mesh has stopped.
            let _ = mesh.send(Input::Failed { origin: Origin::Incoming, addr, failure }).await;
            return slot;
        }
        Err(Failure::Proven { peer, ending }) => (Some(peer), ending.reason, ending.refusal),
        Err(Failure::Unproven(Unproven { reason, refusal })) => (None, reason, refusal),
    };
    if let Some(refusal) = refusal {
        shared.refuse(addr, name.as_ref(), refusal, &reason);
    } else {
        tracing::debug!(%addr, reason, "an incoming connection did not become a link");
    }
    tokio::time::sleep(HANDSHAKE_FAILED).await;
    slot
}
