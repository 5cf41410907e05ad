//! The room that the entries of a cache take within the budget of the node.

use tallymesh_schemas::budget::Unit;

use crate::cache::entry::{Content, Entry};
use crate::cache::map::{CacheMap, Fit, Refused, Write};

/// What an entry takes.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Size {
    /// 1 for a value, 0 for a removal.
    keys: u64,
    /// Bytes of key and value.
    bytes: u64,
}

impl Size {
    pub(super) fn of(entry: &Entry) -> Self {
        Self { keys: u64::from(entry.content == Content::Value), bytes: entry.bytes.len() as u64 }
    }

    pub(super) fn of_write(write: &Write<'_>) -> Self {
        let value = write.value.map_or(0, <[u8]>::len);
        Self { keys: u64::from(write.value.is_some()), bytes: (write.key.len() + value) as u64 }
    }
}

impl CacheMap {
    /// Takes the room of a new entry, in place of an old one if there is one. Returns whether it fits. A removal always takes the
    /// place of a value.
    pub(super) fn take_room(&self, old: Option<Size>, new: Size) -> bool {
        let before = old.unwrap_or_default();
        let more = [
            (&self.budget.entries, u64::from(old.is_none())),
            (&self.budget.keys, new.keys.saturating_sub(before.keys)),
            (&self.budget.bytes, new.bytes.saturating_sub(before.bytes)),
        ];
        for (at, (budget, n)) in more.into_iter().enumerate() {
            if self.fit == Fit::Unchecked {
                budget.force(n);
            } else if !budget.take(n) {
                budget.note_refused();
                more.into_iter().take(at).for_each(|(budget, n)| budget.give_back(n));
                return false;
            }
        }
        self.budget.keys.give_back(before.keys.saturating_sub(new.keys));
        self.budget.bytes.give_back(before.bytes.saturating_sub(new.bytes));
        true
    }

    /// An entry is gone.
    pub(super) fn give_room_back(&self, Size { keys, bytes }: Size) {
        self.budget.entries.give_back(1);
        self.budget.keys.give_back(keys);
        self.budget.bytes.give_back(bytes);
    }

    /// The reason why a write of this node did not fit.
    pub(super) fn refuse_write(&self, key: &[u8], value: usize) -> Refused {
        let old = self.get(key).map(Size::of);
        let before = old.unwrap_or_default();
        let budget = &self.budget;
        let over = if before.keys == 0 && budget.keys.room() == 0 {
            budget.keys.over(None, Unit::Keys)
        } else if old.is_none() && budget.entries.room() == 0 {
            budget.entries.over(None, Unit::Keys)
        } else if budget.bytes.room() < ((key.len() + value) as u64).saturating_sub(before.bytes) {
            budget.bytes.over(None, Unit::Bytes)
        } else {
            return Refused::Full;
        };
        budget.note_change_refused();
        Refused::Budget(over)
    }
}
