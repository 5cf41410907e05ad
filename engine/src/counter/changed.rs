//! What has changed in a structure, for digests.

use tallymesh_schemas::Actor;
use tallymesh_schemas::message::DigestEntry;

use crate::counter::journal::Mark;
use crate::counter::ledger::Ledger;
use crate::counter::published::Changes;
use crate::counter::structure::Structure;
use crate::counter::sync::digest_entry;
use crate::primitive::Ordering;
use crate::time::Time;

impl Structure {
    /// Publishes what readers need not take the ledger lock for: this node's head, and that there is something new. Every method
    /// that changes the rows calls it before it releases the lock.
    pub(crate) fn publish(&self, ledger: &mut Ledger) {
        let Changes { list, is_listed, last, read } = &self.changes;
        let mark = ledger.note_own(read.load(Ordering::SeqCst));
        self.head.store(ledger.head().0, Ordering::SeqCst);
        if last.swap(mark, Ordering::SeqCst) != mark && !is_listed.swap(true, Ordering::SeqCst) {
            list.list(self.id());
        }
    }

    /// Checks that everything that has changed is published.
    pub(crate) fn audit_changes(&self, ledger: &Ledger) -> Result<(), String> {
        let published = self.changes.last.load(Ordering::SeqCst);
        if published == ledger.last_mark() && ledger.has_noted_own() {
            return Ok(());
        }
        Err(format!("changes are published up to {published} of {}", ledger.last_mark()))
    }

    /// The replica has taken the structure off the list. It lists itself again at its next change.
    pub(crate) fn unlist(&self) {
        self.changes.is_listed.store(false, Ordering::SeqCst);
    }

    /// The journal mark of a reader that is about to receive a full digest. O(1), without a lock.
    pub(crate) fn last_change(&self) -> Mark {
        let mark = self.changes.last.load(Ordering::SeqCst);
        self.changes.read.fetch_max(mark, Ordering::SeqCst);
        mark
    }

    /// Passes the digest entry of each actor that changed behind `mark` to `tell`, until `tell` returns false. Returns the
    /// mark that the reader has reached. O(entries passed), and an atomic load if there are none.
    pub(crate) fn changes(&self, mark: Mark, now: Time, tell: &mut dyn FnMut(DigestEntry) -> bool) -> Mark {
        if self.changes.last.load(Ordering::SeqCst) == mark {
            return mark;
        }
        let ledger = self.ledger.read();
        let mut reached = mark;
        let mut told = |actor: &Actor| match ledger.actors().get(actor) {
            Some(actor_rows) => tell(digest_entry(actor, actor_rows, ledger.age(actor, actor_rows, now))),
            None => true,
        };
        let mut behind = ledger.changed_behind(mark);
        let rest = behind.find(|(mark, actor)| {
            let told = told(actor);
            reached = if told { *mark } else { reached };
            !told
        });
        let reached = if rest.is_none() { ledger.last_mark() } else { reached };
        // Under the lock: a change that comes now is behind the mark.
        self.changes.read.fetch_max(reached, Ordering::SeqCst);
        reached
    }

    /// Lists an actor in the journal again, so that the next digest of changes contains it.
    pub(crate) fn list_again(&self, actor: &Actor) {
        let mut ledger = self.ledger.write();
        ledger.note(actor);
        self.publish(&mut ledger);
    }
}
