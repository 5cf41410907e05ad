//! The slots of handshakes in progress, and how they are divided among callers.
//!
//! Unknown callers from one address get at most a share of the slots. When all are taken, a new caller takes a slot from the
//! address that has the most. Addresses of known members have their own slots, so no unknown caller can keep a member out.

use crate::bounds::{HANDSHAKES, HANDSHAKES_KNOWN, HANDSHAKES_PER_SOURCE, HANDSHAKES_UNPROVEN};
use crate::source::Source;

/// The caller of a handshake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Caller {
    /// A caller whose address may be forged.
    Unproven(Source),
    /// A caller that has proven its address.
    Proven(Source),
    /// A caller that has proven an address of a known member.
    Member(Source),
}

impl Caller {
    fn source(self) -> Source {
        match self {
            Self::Unproven(source) | Self::Proven(source) | Self::Member(source) => source,
        }
    }
}

/// The decision about a caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Admission {
    /// It has a slot.
    Slot(SlotId),
    /// It gets the first slot. The handshake of the second slot is evicted and must end.
    InPlaceOf(SlotId, SlotId),
    /// It must prove its address first.
    Prove,
    /// There is no slot for it.
    Refuse,
}

/// Identifies a slot; never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct SlotId(u64);

#[derive(Debug)]
struct Slot {
    id: SlotId,
    caller: Caller,
}

/// The slots in use, the oldest first.
#[derive(Debug, Default)]
pub(crate) struct Slots {
    taken: Vec<Slot>,
    last: u64,
}

impl Slots {
    /// Gives a caller a slot, if there is one for it.
    pub(crate) fn admit(&mut self, caller: Caller) -> Admission {
        let known = self.taken.iter().filter(|slot| matches!(slot.caller, Caller::Member(_))).count();
        match caller {
            Caller::Unproven(_) if self.taken.len() >= HANDSHAKES_UNPROVEN => return Admission::Prove,
            Caller::Member(_) if known < HANDSHAKES_KNOWN => return Admission::Slot(self.take(caller)),
            _ => {}
        }
        // A further caller from a known address, beyond the slots for those, counts as an unknown one.
        let caller = Caller::Proven(caller.source());
        let held = self.held_by(caller.source());
        if held >= HANDSHAKES_PER_SOURCE {
            return Admission::Refuse;
        }
        if self.taken.len() - known < HANDSHAKES {
            return Admission::Slot(self.take(caller));
        }
        match self.oldest_of_the_greediest().filter(|(_, most)| *most > held + 1) {
            Some((oldest, _)) => {
                self.free(oldest);
                Admission::InPlaceOf(self.take(caller), oldest)
            }
            None => Admission::Refuse,
        }
    }

    /// A handshake has ended.
    pub(crate) fn free(&mut self, id: SlotId) {
        self.taken.retain(|slot| slot.id != id);
    }

    fn take(&mut self, caller: Caller) -> SlotId {
        self.last += 1;
        let id = SlotId(self.last);
        self.taken.push(Slot { id, caller });
        id
    }

    /// Slots of a source, not counting those for known addresses.
    fn held_by(&self, source: Source) -> usize {
        self.taken.iter().filter(|slot| slot.caller == Caller::Proven(source)).count()
    }

    fn oldest_of_the_greediest(&self) -> Option<(SlotId, usize)> {
        let strangers = self.taken.iter().filter(|slot| !matches!(slot.caller, Caller::Member(_)));
        let held = strangers.map(|slot| (slot.id, self.held_by(slot.caller.source())));
        // The first of equals.
        held.reduce(|best, next| if next.1 > best.1 { next } else { best })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(n: usize) -> Source {
        Source::from(std::net::IpAddr::from([10, 0, (n >> 8) as u8, n as u8]))
    }

    /// How many of this number of callers get a slot.
    fn admitted(slots: &mut Slots, caller: Caller, times: usize) -> usize {
        (0..times).filter(|_| matches!(slots.admit(caller), Admission::Slot(_) | Admission::InPlaceOf(..))).count()
    }

    #[test]
    fn strangers_prove_their_address_when_some_are_there() {
        let mut slots = Slots::default();
        assert_eq!(admitted(&mut slots, Caller::Unproven(source(1)), 100), HANDSHAKES_UNPROVEN);
        assert_eq!(slots.admit(Caller::Unproven(source(2))), Admission::Prove);
        assert!(matches!(slots.admit(Caller::Proven(source(2))), Admission::Slot(_)));
    }

    #[test]
    fn one_source_has_a_share() {
        let mut slots = Slots::default();
        assert_eq!(admitted(&mut slots, Caller::Proven(source(1)), 1000), HANDSHAKES_PER_SOURCE);
        assert_eq!(admitted(&mut slots, Caller::Proven(source(2)), 1000), HANDSHAKES_PER_SOURCE);
        assert_eq!(slots.taken.len(), HANDSHAKES);
        assert_eq!(slots.admit(Caller::Proven(source(1))), Admission::Refuse);
    }

    #[test]
    fn a_newcomer_gets_the_oldest_slot_of_the_source_with_the_most() {
        let mut slots = Slots::default();
        let Admission::Slot(first) = slots.admit(Caller::Proven(source(1))) else { panic!("there is room") };
        admitted(&mut slots, Caller::Proven(source(2)), HANDSHAKES_PER_SOURCE);
        admitted(&mut slots, Caller::Proven(source(1)), HANDSHAKES_PER_SOURCE);
        let Admission::InPlaceOf(_, gone) = slots.admit(Caller::Proven(source(3))) else { panic!("it is let in") };
        assert_eq!(gone, first);
        assert_eq!(slots.taken.len(), HANDSHAKES);
    }

    #[test]
    fn no_slot_is_freed_if_every_source_has_one() {
        let mut slots = Slots::default();
        assert_eq!(
            (0..HANDSHAKES).map(|n| admitted(&mut slots, Caller::Proven(source(n)), 1)).sum::<usize>(),
            HANDSHAKES
        );
        assert_eq!(slots.admit(Caller::Proven(source(HANDSHAKES))), Admission::Refuse);
        assert!(matches!(slots.admit(Caller::Member(source(HANDSHAKES))), Admission::Slot(_)), "but a member gets in");
    }

    #[test]
    fn known_addresses_are_bounded_too() {
        let mut slots = Slots::default();
        let all = admitted(&mut slots, Caller::Member(source(1)), 1000);
        assert_eq!(all, HANDSHAKES_KNOWN + HANDSHAKES_PER_SOURCE);
        let Some(slot) = slots.taken.first().map(|slot| slot.id) else { panic!("they are there") };
        slots.free(slot);
        assert!(matches!(slots.admit(Caller::Member(source(1))), Admission::Slot(_)));
    }
}
