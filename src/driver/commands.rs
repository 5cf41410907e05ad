//! What the driver does on a command.

use tallymesh_engine::Now;
use tallymesh_engine::replica::Verifier;
use tallymesh_schemas::NodeName;
#[cfg(feature = "http")]
use tallymesh_transport::Joining;

#[cfg(any(feature = "admin", feature = "http"))]
use crate::command::ClockStanding;
use crate::command::{Command, Forgetting, Status};
use crate::driver::waits::Request;
use crate::driver::{Driver, End, Verifying};
#[cfg(feature = "http")]
use crate::work::Work;

/// How much of what a node waits for is counted.
#[cfg(feature = "http")]
const AWAITED: usize = 1024;

impl Driver {
    pub(super) fn handle_command(&mut self, command: Option<Command>) -> Option<End> {
        let now = self.clock.now();
        match command {
            None => return Some(End::Leave),
            Some(Command::Leave(reply)) => {
                let _ = reply.send(());
                return Some(End::Leave);
            }
            Some(Command::Abort(reply)) => {
                let _ = reply.send(());
                return Some(End::Abort);
            }
            Some(Command::Status(reply)) => {
                let _ = reply.send(self.status());
            }
            #[cfg(feature = "admin")]
            Some(Command::Standings(reply)) => {
                let _ = reply.send(self.replica.standings(now.mono));
            }
            #[cfg(feature = "admin")]
            Some(Command::Actors { id, after, reply }) => {
                let _ = reply.send(self.replica.actor_views(id, after.as_ref(), now.mono));
            }
            #[cfg(feature = "admin")]
            Some(Command::Link { id, place, reply }) => {
                let _ = reply.send(self.replica.link_view(id, &place, now.mono));
            }
            Some(Command::Forget { node, reply }) => {
                let _ = reply.send(self.forget(now, &node));
            }
            Some(Command::Flush { nodes, patience, reply }) => {
                self.waits.add(Request::Flush(nodes, reply), now.mono.after(patience));
            }
            Some(Command::Reach { position, patience, reply }) => {
                self.waits.add(Request::Arrival(position, reply), now.mono.after(patience));
            }
            Some(Command::Reload { wanted, mode, reply }) => {
                let _ = reply.send(self.reload(*wanted, mode));
            }
            Some(Command::Verify { patience, reply }) => {
                let verifier = Verifier::new(&mut self.replica, now, patience);
                self.verifying.push(Verifying { verifier, reply });
            }
        }
        None
    }

    /// What the driver has measured, and how far the start has come.
    #[cfg(feature = "http")]
    fn work(&mut self) -> Work {
        let is_alone = *self.endpoint.joining().borrow() == Joining::Nobody;
        let has_joined = is_alone || self.announcer.has_joined();
        let start = &mut self.work.start;
        start.has_joined |= has_joined;
        if !start.has_caught_up {
            start.awaited = self.replica.awaited(AWAITED);
            // Before the first link there is nothing to wait for yet, unless there is no peer at all.
            let knows_peers = is_alone || self.replica.links().next().is_some();
            start.has_caught_up = start.has_joined && knows_peers && start.awaited.is_empty();
        }
        (self.work.verifying, self.work.events_waiting) = (self.verifying.len(), self.events.waiting());
        self.work.clone()
    }

    fn forget(&mut self, now: Now, node: &NodeName) -> Forgetting {
        if node == self.endpoint.name() {
            return Forgetting::Ourselves;
        }
        let known = self.replica.forget(now, node);
        let member = self.endpoint.members().iter().any(|member| member.name == *node);
        if !known && !member {
            return Forgetting::Unknown;
        }
        self.endpoint.forget(node);
        Forgetting::Done
    }

    #[cfg(any(feature = "admin", feature = "http"))]
    fn clock_standing(&self) -> ClockStanding {
        let now = self.clock.now();
        let (bound, windows_ahead) = (self.replica.clock_bound(), self.replica.windows_ahead(now));
        ClockStanding { bound, peers: self.replica.clocks(), windows_ahead }
    }

    fn status(&mut self) -> Status {
        Status {
            #[cfg(feature = "http")]
            work: self.work(),
            actor: self.replica.actor().clone(),
            nodes: self.replica.members().map(|(name, incarnation, life)| (name.clone(), incarnation, life)).collect(),
            builds: self.links.iter().map(|(name, link)| (name.clone(), link.build().to_owned())).collect(),
            counters: self.replica.counters(),
            #[cfg(any(feature = "admin", feature = "http"))]
            convergence: *self.background.convergence(),
            #[cfg(any(feature = "admin", feature = "http"))]
            bounds: self.bounds.entries(),
            #[cfg(any(feature = "admin", feature = "http"))]
            clocks: self.clock_standing(),
        }
    }
}
