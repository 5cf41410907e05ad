//! Marks: how the context of a replica advances.

use tallymesh_schemas::Actor;
use tallymesh_schemas::message::CacheMark;

use crate::cache::context::Context;
use crate::cache::map::CacheMap;
use crate::canary::{self, Canary};

/// The result of a mark.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Marked {
    /// The context has everything that the mark states.
    Applied,
    /// The mark is for a receiver that has more of the sender's own writes. They have to be sent again.
    Gap,
    /// The sender has collected removals that this replica has not taken in. The replica may hold what they removed, so it
    /// first compares its keys with the sender's.
    Uncovered,
}

/// What a replica believes of a mark: a member's statement never replaces that of the run's own node.
pub(crate) trait Limits {
    /// The number up to which the sender is believed about a run.
    fn limit(&self, run: &Actor) -> u64;
    /// How many runs the context may name for this one to have room.
    fn places(&self, run: &Actor) -> usize;
    /// Whether a run is over, and the sender is believed when it states that this replica has taken in all of it.
    fn has_ended(&self, run: &Actor) -> bool;
    /// Whether it is the run in which the sender is.
    fn is_senders(&self, run: &Actor) -> bool;
}

impl CacheMap {
    /// Applies a mark: the sender has sent everything that it states.
    pub(crate) fn apply_mark(&mut self, mark: &CacheMark, limits: &impl Limits) -> Marked {
        let collected = Context::from(&mark.collected);
        if !self.knows_collected(&collected) && self.held() > 0 && comparison_is_asked_for() {
            return Marked::Uncovered;
        }
        self.advance(mark, limits)
    }

    /// Whether this replica has taken in these removals, or has compared its keys with those of a peer that had collected them.
    fn knows_collected(&self, collected: &Context) -> bool {
        collected.is_within(&self.seen) || {
            let mut known = self.seen.clone();
            known.join(&self.collected);
            collected.is_within(&known)
        }
    }

    /// Applies a mark after the comparison of keys.
    pub(crate) fn apply_compared(&mut self, mark: &CacheMark, limits: &impl Limits) -> Marked {
        self.advance(mark, limits)
    }

    fn advance(&mut self, mark: &CacheMark, limits: &impl Limits) -> Marked {
        let mut marked = Marked::Applied;
        for run in mark.runs.iter().filter(|run| run.run.node != self.me.node || run.run < self.me) {
            let limit = limits.limit(&run.run);
            let reached = self.seen.reached(&run.run);
            if reached >= run.after || self.may_skip || canary::broken(Canary::GapApplied) {
                if reached < run.after {
                    self.skipped.admit(&run.run, run.after.min(limit), limits.places(&run.run));
                }
                let has_room = self.seen.admit(&run.run, run.upto.min(limit), limits.places(&run.run));
                self.refused_runs += u64::from(!has_room);
            } else if limits.is_senders(&run.run) {
                marked = Marked::Gap;
            }
        }
        if marked == Marked::Applied {
            self.end_after_walk(&mark.ended, |run| limits.has_ended(run));
            if collected_is_passed_on() {
                self.collected.join_stated(&mark.collected);
            }
        }
        marked
    }
}

/// Whether a replica compares its keys with those of a sender that has collected what the replica has not taken in.
fn comparison_is_asked_for() -> bool {
    !canary::broken(Canary::NotCompared)
}

/// Whether a replica remembers what others have collected.
fn collected_is_passed_on() -> bool {
    !canary::broken(Canary::CollectedForgotten)
}
