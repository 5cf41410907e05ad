//! The last moment of which a copy is known to hold everything that the owner had, and what reads say of it.

use std::time::Duration;

use tallymesh_schemas::{Actor, Version};

use crate::counter::published::Freshness;
use crate::counter::structure::{Count, Structure};
use crate::primitive::Ordering;
use crate::rows::actor_rows::ActorRows;
use crate::rows::heartbeat::Statement;
use crate::time::Time;

/// For this time, reads show the same stalest actor. Computing it looks at all actors, and reads do not.
const SHOWN: Duration = Duration::from_millis(100);

/// A count that is not as fresh as it was wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "the stalest part of the count was confirmed as current {:.1} s ago, and {:.1} s are allowed: the node may be cut off",
    count.stalest.as_secs_f64(), allowed.as_secs_f64()
)]
pub struct Stale {
    /// The count.
    pub count: Count,
    /// The age that was allowed.
    pub allowed: Duration,
}

impl Count {
    /// This count, if each of its parts was confirmed as current within `age`. A node that knows no other actor has nothing that
    /// could be stale.
    ///
    /// # Errors
    /// [`Stale`] with the count, if a part is older.
    pub fn at_least_fresh(self, age: Duration) -> Result<Self, Stale> {
        if self.stalest <= age { Ok(self) } else { Err(Stale { count: self, allowed: age }) }
    }
}

impl Structure {
    /// The number of actors that count, and how long ago the stalest of them was last confirmed as current. If it is time to
    /// compute this again, a read that gets the ledger without waiting does so. O(1), and O(actors) for one read in [`SHOWN`].
    pub(crate) fn freshness(&self, now: Time) -> (u32, Duration) {
        let Freshness { counted, stalest, again } = &self.freshness;
        let due = now.0 >= again.load(Ordering::Relaxed);
        if due && let Some(ledger) = self.ledger.try_read() {
            again.store(now.after(SHOWN).0, Ordering::Relaxed);
            let (count, time) = ledger.freshness();
            counted.store(count, Ordering::Relaxed);
            stalest.store(time.0, Ordering::Relaxed);
        }
        (counted.load(Ordering::Relaxed), now.since(Time(stalest.load(Ordering::Relaxed))))
    }

    /// Records what an actor's owner has stated. Until it states another head, each of its digests confirms the copy, if the
    /// copy is complete up to `head`. A copy that arrives in pieces can have a higher applied version and still lack rows from
    /// before the head that have changed since. Such a copy is not current.
    pub(crate) fn note_statement(&self, owner: &Actor, statement: &Statement) {
        let known =
            |rows: &ActorRows| rows.stated.as_ref().is_some_and(|known| known.is(&statement.heartbeat, statement.head));
        if self.ledger.read().actors().get(owner).is_none_or(known) {
            return;
        }
        if let Some(actor_rows) = self.ledger.write().actors_mut().get_mut(owner) {
            let confirmed = actor_rows.confirmed();
            actor_rows.confirm(confirmed);
            actor_rows.stated = Some(statement.clone());
        }
    }

    /// Records that some replica whose copy was complete knew `head` as an actor's head at the moment `at`.
    pub(crate) fn note_head_at(&self, actor: &Actor, head: Version, at: Time) {
        let is_news = |rows: &ActorRows| rows.confirmed() < at && rows.is_complete_at(head);
        if !self.ledger.read().actors().get(actor).is_some_and(is_news) {
            return;
        }
        if let Some(actor_rows) = self.ledger.write().actors_mut().get_mut(actor).filter(|rows| is_news(rows)) {
            actor_rows.confirm(at);
        }
    }
}
