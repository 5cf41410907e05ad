//! The table of members: its contents, which member introduced which name, and which member is dropped when it is full.

use std::time::Duration;

use foca::Timer;
use tallymesh_schemas::actor::NodeName;

use crate::bounds::{INTRODUCED, INTRODUCED_ALL, MEMBERS};
use crate::membership::id::Id;
use crate::membership::protocol::{MembershipEvent, Time};
use crate::membership::records::ReportedMember;
use crate::membership::swim::Swim;

/// How long the table keeps a dead member that this node never had a link with.
const NEVER_MET: Duration = Duration::from_secs(30);

impl Swim {
    /// Whether a member may introduce one more name, when it has introduced `new` names in the same datagram.
    pub(super) fn may_introduce(&mut self, introducer: &NodeName, new: usize) -> bool {
        let introduced = self.members.values().filter_map(|known| known.introduced_by.as_ref());
        let (own, all) = introduced.fold((new, new), |(own, all), by| (own + usize::from(by == introducer), all + 1));
        if own >= INTRODUCED || all >= INTRODUCED_ALL {
            self.not_introduced += 1;
            return false;
        }
        self.make_room(new + 1);
        self.members.len() + new < MEMBERS
    }

    /// Makes room for a member that says hello. It drops a member that is not running, or else one that never said hello.
    pub(super) fn make_room_for_peer(&mut self) -> bool {
        self.make_room(1);
        if self.members.len() >= MEMBERS {
            let never_met = self.members.iter().filter(|(_, known)| known.introduced_by.is_some());
            let first = never_met.min_by_key(|(name, known)| (known.since, (*name).clone()));
            if let Some(name) = first.map(|(name, _)| name.clone()) {
                self.drop_member(&name);
            }
        }
        self.members.len() < MEMBERS
    }

    /// Drops the members that have been dead or gone the longest; first those that never said hello.
    fn make_room(&mut self, newcomers: usize) {
        let missing = (self.members.len() + newcomers).saturating_sub(MEMBERS);
        if missing == 0 {
            return;
        }
        let ended = self.members.iter().filter(|(_, known)| !known.state.is_active());
        let mut ended: Vec<_> =
            ended.map(|(name, known)| (known.introduced_by.is_none(), known.since, name.clone())).collect();
        ended.sort();
        for (_, _, name) in ended.into_iter().take(missing) {
            self.drop_member(&name);
        }
    }

    /// Drops the dead members that this node knows only from hearsay.
    pub(super) fn drop_never_met(&mut self, now: Time) {
        let old = |known: &ReportedMember| {
            known.introduced_by.is_some() && !known.state.is_active() && now.saturating_sub(known.since) >= NEVER_MET
        };
        let old: Vec<_> = self.members.iter().filter(|(_, known)| old(known)).map(|(name, _)| name.clone()).collect();
        for name in old {
            self.drop_member(&name);
        }
    }

    /// Drops the members that only a forgotten member has reported.
    pub(super) fn drop_introduced_by(&mut self, introducer: &NodeName) {
        let introduced = self.members.iter().filter(|(_, known)| known.introduced_by.as_ref() == Some(introducer));
        let introduced: Vec<_> = introduced.map(|(name, _)| name.clone()).collect();
        introduced.iter().for_each(|name| self.drop_member(name));
    }

    pub(super) fn drop_member(&mut self, name: &NodeName) {
        if self.members.remove(name).is_none() {
            return;
        }
        self.remove_record(name);
        self.events.push_back(MembershipEvent::Dropped(name.clone()));
    }

    /// Removes a name from foca's table, without gossip: this node has no use for the record, but other members may have one.
    pub(super) fn remove_record(&mut self, name: &NodeName) {
        let Some(record) = self.record(name) else { return };
        let id = record.id().clone();
        if record.state() != foca::State::Down {
            let down = std::iter::once(foca::Member::down(id.clone()));
            let _ = self.foca.apply_many(down, false, &mut self.outputs);
        }
        let _ = self.foca.handle_timer(Timer::RemoveDown(id), &mut self.outputs);
    }

    /// foca's record of a name.
    pub(super) fn record(&self, name: &NodeName) -> Option<foca::Member<Id>> {
        self.foca.iter_membership_state().find(|record| record.id().name == *name).cloned()
    }
}
