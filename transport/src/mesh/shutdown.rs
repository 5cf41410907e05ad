//! The end of the mesh.

use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::Instant;

use crate::closing::code::Code;
use crate::closing::ending::Ending;
use crate::mesh::{Input, Mesh};

/// The part of the closing time that is reserved for the last packets, at most.
const LAST_WORDS: Duration = Duration::from_millis(500);

impl Mesh {
    /// Leaves the cluster: announces it to the other nodes, delivers what is queued, and leaves nothing running. Frames that
    /// cannot be delivered in the given time are lost.
    pub(super) async fn leave(mut self, within: Duration) {
        let deadline = Instant::now() + within;
        self.shared.leaving.store(true, Ordering::Release);
        self.membership.leave(self.now());
        self.pump_farewell();
        for live in self.state.links.values() {
            live.link.outbox().finish();
        }
        let patience = within.saturating_sub(LAST_WORDS.min(within / 2));
        // Each peer closes its connection when it has read the last frame.
        let emptied = tokio::time::timeout(patience, self.see_links_off()).await.is_ok();
        if !emptied {
            let peers: Vec<_> = self.state.links.keys().map(ToString::to_string).collect();
            tracing::warn!(peers = peers.join(" "), "left before these peers had read everything");
        }
        self.end(Code::Goodbye, deadline).await;
    }

    /// The handles were dropped without a close. The peers learn that the connections are closed, not that the node left.
    pub(super) async fn abandon(self) {
        self.end(Code::Closed, Instant::now() + LAST_WORDS).await;
    }

    fn pump_farewell(&mut self) {
        while let Some((to, data)) = self.membership.poll_transmit() {
            if let Some(live) = self.state.links.get(&to) {
                // If a goodbye is lost, the end of the link states it again.
                let _ = live.link.conn().send_datagram(data);
            }
        }
    }

    async fn see_links_off(&mut self) {
        while !self.state.links.is_empty() {
            match self.inputs.recv().await {
                Some(Input::Ended { link, ending }) => self.ended(&link, &ending),
                Some(Input::Greeted { greeted, .. }) => greeted.conn.conn().close(Code::Goodbye.var(), b"leaving"),
                Some(_) => {}
                None => return,
            }
        }
    }

    async fn end(mut self, code: Code, deadline: Instant) {
        let endpoint = self.dialer.endpoint.clone();
        for live in self.state.links.values() {
            live.link.end(code, Ending::local("this node ends"), "the node ends");
        }
        endpoint.close(code.var(), b"the node ends");
        // Sessions may wait for a reader of events that never comes. Nothing needs them any more.
        self.state.tasks.shutdown().await;
        self.state.sessions.shutdown().await;
        self.state.links.clear();
        if tokio::time::timeout_at(deadline, endpoint.wait_idle()).await.is_err() {
            tracing::debug!("closed without waiting for the last acknowledgements");
        }
    }
}
