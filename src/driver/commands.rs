//! What the driver does on a command.

use tallymesh_engine::Now;
use tallymesh_engine::replica::Verifier;
use tallymesh_schemas::NodeName;

#[cfg(feature = "admin")]
use crate::command::ClockStanding;
use crate::command::{Command, Forgetting, Status};
use crate::driver::{Driver, End, Verifying};

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
            Some(Command::Forget { node, reply }) => {
                let _ = reply.send(self.forget(now, &node));
            }
            Some(Command::Verify { patience, reply }) => {
                let verifier = Verifier::new(&mut self.replica, now, patience);
                self.verifying.push(Verifying { verifier, reply });
            }
        }
        None
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

    #[cfg(feature = "admin")]
    fn clock_standing(&self) -> ClockStanding {
        let now = self.clock.now();
        let (bound, windows_ahead) = (self.replica.clock_bound(), self.replica.windows_ahead(now));
        ClockStanding { bound, peers: self.replica.clocks(), windows_ahead }
    }

    fn status(&self) -> Status {
        Status {
            actor: self.replica.actor().clone(),
            nodes: self.replica.members().map(|(name, incarnation, life)| (name.clone(), incarnation, life)).collect(),
            builds: self.links.iter().map(|(name, link)| (name.clone(), link.build().to_owned())).collect(),
            counters: self.replica.counters(),
            #[cfg(feature = "admin")]
            bounds: self.bounds.entries(),
            #[cfg(feature = "admin")]
            clocks: self.clock_standing(),
        }
    }
}
