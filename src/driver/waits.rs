//! Callers that wait until other nodes hold this node's changes, or until this node holds another node's changes.

use std::collections::VecDeque;
use std::time::Duration;

use tallymesh_engine::replica::{Confirmation, Confirmed};
use tallymesh_engine::{Now, Replica, Time};
use tallymesh_schemas::{Position, bounds};
use tokio::sync::oneshot;

/// How often a position is compared with what this node holds.
const LOOK: Duration = Duration::from_millis(5);

/// A caller who waits for this node to hold the changes of a position.
#[derive(Debug)]
struct Arrival {
    position: Position,
    /// When to look next.
    look: Time,
    deadline: Time,
    reply: oneshot::Sender<bool>,
}

/// A caller who waits for other nodes to hold this node's changes.
#[derive(Debug)]
struct Flush {
    confirmation: Confirmation,
    reply: oneshot::Sender<Confirmed>,
}

/// What a caller asks for.
#[derive(Debug)]
pub(super) enum Request {
    /// That so many other nodes hold this node's changes.
    Flush(usize, oneshot::Sender<Confirmed>),
    /// That this node holds the changes of a position.
    Arrival(Position, oneshot::Sender<bool>),
}

impl Request {
    fn is_given_up(&self) -> bool {
        match self {
            Self::Flush(_, reply) => reply.is_closed(),
            Self::Arrival(_, reply) => reply.is_closed(),
        }
    }
}

/// All callers who wait. [`bounds::WAITS`] of them are looked at, and the others wait for their turn.
#[derive(Debug, Default)]
pub(super) struct Waits {
    flushes: Vec<Flush>,
    arrivals: Vec<Arrival>,
    queue: VecDeque<(Request, Time)>,
}

impl Waits {
    /// Adds a caller. Changes that were made before it asked are part of a flush, also when its turn comes later.
    pub(super) fn add(&mut self, request: Request, deadline: Time) {
        self.queue.push_back((request, deadline));
    }

    /// When to call [`Waits::poll`] at the latest.
    pub(super) fn due(&self) -> Time {
        let flushes = self.flushes.iter().map(|flush| flush.confirmation.poll_timeout());
        let arrivals = self.arrivals.iter().map(|arrival| arrival.look.min(arrival.deadline));
        flushes.chain(arrivals).min().unwrap_or(Time::NEVER)
    }

    /// Answers the callers whose wait is over.
    pub(super) fn poll(&mut self, replica: &mut Replica, now: Now) {
        self.begin(replica, now);
        for mut flush in std::mem::take(&mut self.flushes) {
            if flush.reply.is_closed() {
                continue;
            }
            match flush.confirmation.poll(replica, now) {
                Some(confirmed) => drop(flush.reply.send(confirmed)),
                None => self.flushes.push(flush),
            }
        }
        for mut arrival in std::mem::take(&mut self.arrivals) {
            let ended = now.mono >= arrival.deadline;
            let is_here = (ended || now.mono >= arrival.look) && replica.has_reached(&arrival.position);
            if is_here || ended {
                let _ = arrival.reply.send(is_here);
            } else if !arrival.reply.is_closed() {
                if now.mono >= arrival.look {
                    arrival.look = now.mono.after(LOOK);
                }
                self.arrivals.push(arrival);
            }
        }
        self.begin(replica, now);
    }

    fn begin(&mut self, replica: &mut Replica, now: Now) {
        while self.flushes.len() + self.arrivals.len() < bounds::WAITS
            && let Some((request, deadline)) = self.queue.pop_front()
        {
            if request.is_given_up() {
                continue;
            }
            match request {
                Request::Flush(nodes, reply) => {
                    let confirmation = Confirmation::new(replica, now, nodes, deadline.since(now.mono));
                    self.flushes.push(Flush { confirmation, reply });
                }
                Request::Arrival(position, reply) => {
                    self.arrivals.push(Arrival { position, look: now.mono, deadline, reply });
                }
            }
        }
    }
}
