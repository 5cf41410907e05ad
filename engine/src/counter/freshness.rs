//! The last moment of which a copy is known to hold everything that the owner had.

use tallymesh_schemas::{Actor, Version};

use crate::counter::structure::Structure;
use crate::rows::actor_rows::ActorRows;
use crate::time::Time;

impl Structure {
    /// Records that an actor's owner has just stated that its head is `head`. A copy that arrives in pieces can have a higher
    /// applied version and still lack rows from before `head` that have changed since. Such a copy is not current.
    pub(crate) fn confirm(&self, owner: &Actor, head: Version, now: Time) {
        let mut ledger = self.ledger.write();
        let Some(actor_rows) = ledger.actors_mut().get_mut(owner).filter(|actor_rows| actor_rows.is_complete_at(head))
        else {
            return;
        };
        actor_rows.confirmed = now;
        drop(ledger);
        self.refresh();
    }

    /// Records that some replica whose copy was complete knew `head` as an actor's head at the moment `at`.
    pub(crate) fn note_head_at(&self, actor: &Actor, head: Version, at: Time) {
        self.note_current_at(actor, at, |actor_rows| actor_rows.is_complete_at(head));
    }

    fn note_current_at(&self, actor: &Actor, at: Time, current: impl Fn(&ActorRows) -> bool) {
        let mut ledger = self.ledger.write();
        let actor_rows = ledger.actors_mut().get_mut(actor);
        if let Some(actor_rows) = actor_rows.filter(|actor_rows| actor_rows.confirmed < at && current(actor_rows)) {
            actor_rows.confirmed = at;
        }
    }
}
