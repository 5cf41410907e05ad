//! Fetching the history of rows that peers ask this node for.

use crate::replica::Replica;
use crate::replica::peer::request::Request;

impl Replica {
    /// A peer without a link to the owner has asked for rows from before the start of this node's copy. This node in turn asks
    /// the owner, or its parent towards the owner, for the whole history.
    pub(crate) fn fetch_history(&mut self) {
        for part in self.relay.take_wanted_history() {
            let source = if self.needs_parent(&part.1) { self.relay.parent(&part) } else { Some(&part.1.node) };
            let Some(source) = source.filter(|_| self.runs.lives(&part.1)).cloned() else { continue };
            let Some(held) = self.structures.get(&part.0) else { continue };
            held.structure.stage_history(&part.1);
            if let Some(staging) = held.structure.progress(&part.1).and_then(|progress| progress.staging) {
                self.want(&source, &part, Request::Snapshot { since: staging.since, after: staging.upto });
            }
        }
    }
}
