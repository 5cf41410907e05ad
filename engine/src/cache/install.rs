//! The one place where entries come and go, with everything that is derived from them (I10).

use crate::cache::derived::Derived;
use crate::cache::entry::{Content, Entry};
use crate::cache::map::{CacheMap, Write};
use crate::cache::room::Size;
use crate::cache::slots::SlotId;
use tallymesh_schemas::UnixMs;

impl CacheMap {
    /// Makes a write the entry of its key. Returns whether there was room.
    pub(super) fn install(&mut self, write: &Write<'_>) -> bool {
        let slot = self.slots.find(write.key);
        let old = slot.and_then(|slot| self.slots.get(slot)).map(Size::of);
        let new = Size::of_write(write);
        if !self.take_room(old, new) {
            return false;
        }
        let run = self.runs.hold(write.run, write.number);
        let mut entry = Entry { run, ..write.entry() };
        if let Some(slot) = slot {
            let over_own = self.slots.get(slot).is_some_and(|old| self.is_unsent(old));
            entry.over_own = over_own && *write.run != self.me;
            if let Some(old) = self.slots.replace(slot, entry) {
                self.subtract(slot, &old);
                self.runs.release(old.run);
                self.unlog(&old, Some(slot));
            }
            self.log_and_add(slot);
            return true;
        }
        let Some(slot) = self.slots.insert(entry) else {
            self.runs.release(run);
            self.give_room_back(new);
            return false;
        };
        self.log_and_add(slot);
        if slot < self.order.built {
            self.order.keys.insert(write.key.into(), slot);
        }
        if let Some(unsaved) = &mut self.unsaved {
            unsaved.gone.remove(write.key);
        }
        true
    }

    /// Whether an entry is an own write, or is over one, that some linked peer may not have.
    fn is_unsent(&self, entry: &Entry) -> bool {
        entry.over_own || (entry.number > self.sent && self.runs.get(entry.run) == Some(&self.me))
    }

    /// Removes the entry of a slot.
    pub(super) fn uninstall(&mut self, slot: SlotId) {
        let Some(old) = self.slots.remove(slot) else { return };
        self.give_room_back(Size::of(&old));
        self.subtract(slot, &old);
        self.runs.release(old.run);
        if slot < self.order.built {
            self.order.keys.remove(old.key());
        }
        if let Some(unsaved) = &mut self.unsaved {
            unsaved.gone.insert(old.key().into());
        }
        self.unlog(&old, None);
    }

    /// Turns an expired entry into a removal of itself: the same write, without its value. Its position stays.
    pub(super) fn expire(&mut self, slot: SlotId) {
        let Some(old) = self.slots.get(slot).cloned() else { return };
        self.subtract(slot, &old);
        if let Some(entry) = self.slots.get_mut(slot) {
            entry.bytes = old.key().into();
            entry.content = Content::Removed;
            entry.expires_ms = UnixMs::ZERO;
        }
        if let Some(size) = self.slots.get(slot).map(Size::of) {
            self.take_room(Some(Size::of(&old)), size);
        }
        self.add(slot);
    }

    /// Takes an entry off the log, and moves its neighbours if few are left. `anew` is appended by the caller.
    fn unlog(&mut self, old: &Entry, anew: Option<SlotId>) {
        for slot in self.log.remove(old.position) {
            if Some(slot) == anew {
                continue;
            }
            let position = self.log.append(slot);
            if let Some(entry) = self.slots.get_mut(slot) {
                entry.position = position;
            }
        }
    }

    fn log_and_add(&mut self, slot: SlotId) {
        let position = self.log.append(slot);
        if let Some(entry) = self.slots.get_mut(slot) {
            entry.position = position;
        }
        self.add(slot);
    }

    fn add(&mut self, slot: SlotId) {
        if let Some(entry) = self.slots.get(slot) {
            self.derived.add(slot, entry);
        }
        self.note_unsaved(slot);
    }

    fn subtract(&mut self, slot: SlotId, old: &Entry) {
        self.derived.subtract(slot, old);
        self.note_unsaved(slot);
    }

    fn note_unsaved(&mut self, slot: SlotId) {
        if let Some(unsaved) = &mut self.unsaved {
            unsaved.slots.insert(slot);
        }
    }

    /// Checks everything that is derived from the entries.
    ///
    /// # Errors
    /// Names what differs. That is a fault of the engine.
    pub(crate) fn audit(&self) -> Result<(), String> {
        let mut fresh = Derived::new(self.derived.bounds);
        for (slot, entry) in self.slots.iter() {
            let logged = self.log.behind(entry.position.saturating_sub(1)).next();
            if logged != Some((entry.position, slot)) {
                return Err(format!("slot {slot} is at {}, and {logged:?} is logged there", entry.position));
            }
            if self.slots.find(entry.key()) != Some(slot) {
                return Err(format!("slot {slot} is not found by its key"));
            }
            if slot < self.order.built && self.order.keys.get(entry.key()) != Some(&slot) {
                return Err(format!("slot {slot} is not in the order of keys"));
            }
            fresh.add(slot, entry);
        }
        if self.log.behind(0).count() != self.slots.len() {
            return Err("the log has more positions than there are entries".to_owned());
        }
        if fresh != self.derived {
            return Err(format!("{:?} is noted, {fresh:?} is there", self.derived));
        }
        Ok(())
    }
}
