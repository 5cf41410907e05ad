//! Rules that a test can break, one at a time, to show that the suite notices.
//!
//! With the feature `canaries` a thread may switch one on; without it [`broken`] is `false` at compile time and nothing of
//! this is left in the program. Only `tallymesh-harness` asks for the feature.

/// A rule that is broken.
#[cfg_attr(not(feature = "canaries"), allow(unreachable_pub, reason = "public with the feature"))]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Canary {
    /// Totals are added up where the newer state should replace the older one (I2).
    SumForMax,
    /// A newer run does not take the place of an older one.
    IncarnationIgnored,
    /// Who lies below the floor goes on with a delta, without a snapshot.
    FloorIgnored,
    /// A delta that does not follow on what is known is joined all the same.
    GapApplied,
    /// A gap is passed over: what lies in it counts as known.
    HaveBeyondJoined,
    /// The dead count for ever.
    DeadCounted,
    /// What the dead counted becomes part of the view of whoever hides them (I4).
    DeadFolded,
    /// The dirty flag is cleared after the totals are read.
    FlagClearedLate,
    /// A forgotten node's run is taken back.
    TombstoneIgnored,
    /// The owner's fingerprint is not compared (I3).
    FingerprintUnchecked,
    /// A key is left out though the receiver does not know it.
    KeyOmitted,
    /// A part of a snapshot takes the place of what was known.
    SnapshotSwappedEarly,
    /// Our earlier runs are taken for another node's (I1).
    OwnRunsTaken,
    /// A row is retired though it counts something.
    CountRetired,
    /// The view does not follow a row that is replaced (I10).
    ViewNotMoved,
    /// A lost delta is not asked for again (I5).
    NothingChased,
    /// What is pending is not released when its time has come.
    FlushForgotten,
    /// A newer run takes the place of what an older one has counted of events.
    EventsSuperseded,
    /// What several nodes clear of one count is added up.
    ClearAdded,
    /// The clock of windows goes back with the wall clock.
    ClockGoesBack,
    /// Whoever has an owner's rows in pieces passes them on as all there is.
    PiecesTakenForAll,
    /// A share that was lent is still used by who lent it (I9).
    TakenBeforeGiven,
    /// A share that grows brings the tokens of its burst (I9).
    BurstBrought,
    /// A process supports claims before all that its predecessor supported has run out (I9).
    UnprovenRestart,
    /// In a cache, what comes last wins over what was written last.
    ArrivalWins,
    /// A removal is retired before everybody has everything that it outdoes.
    RemovalForgotten,
    /// A removal is retired as soon as everybody has it, whatever is still on its way.
    RoundsSkipped,
    /// What was written by a clock far ahead is taken.
    FutureTaken,
    /// Whoever passes rows on to us is never replaced by somebody else.
    PrunedForGood,
    /// How full throttles were when the run before ended is not taken back.
    LevelsForgotten,
    /// A process that has what an earlier one has saved goes on as the run that that one was (I1).
    RunTakenUp,
    /// What was saved of a run that was forgotten while this node was away is taken over, as if it had been there.
    StaleTakenOver,
}

#[cfg(not(feature = "canaries"))]
#[inline(always)]
pub(crate) const fn broken(_: Canary) -> bool {
    false
}

#[cfg(not(feature = "canaries"))]
#[inline(always)]
pub(crate) const fn interleave() {}

#[cfg(feature = "canaries")]
pub use switched::{ALL, set_broken, set_interleaved};
#[cfg(feature = "canaries")]
pub(crate) use switched::{broken, interleave};

#[cfg(feature = "canaries")]
mod switched {
    use std::cell::{Cell, RefCell};

    use super::Canary;

    /// Every rule that can be broken.
    pub const ALL: [Canary; 32] = [
        Canary::SumForMax,
        Canary::IncarnationIgnored,
        Canary::FloorIgnored,
        Canary::GapApplied,
        Canary::HaveBeyondJoined,
        Canary::DeadCounted,
        Canary::DeadFolded,
        Canary::FlagClearedLate,
        Canary::TombstoneIgnored,
        Canary::FingerprintUnchecked,
        Canary::KeyOmitted,
        Canary::SnapshotSwappedEarly,
        Canary::OwnRunsTaken,
        Canary::CountRetired,
        Canary::ViewNotMoved,
        Canary::NothingChased,
        Canary::FlushForgotten,
        Canary::EventsSuperseded,
        Canary::ClearAdded,
        Canary::ClockGoesBack,
        Canary::PiecesTakenForAll,
        Canary::TakenBeforeGiven,
        Canary::BurstBrought,
        Canary::UnprovenRestart,
        Canary::ArrivalWins,
        Canary::RemovalForgotten,
        Canary::RoundsSkipped,
        Canary::FutureTaken,
        Canary::PrunedForGood,
        Canary::LevelsForgotten,
        Canary::RunTakenUp,
        Canary::StaleTakenOver,
    ];

    thread_local! {
        static BROKEN: Cell<Option<Canary>> = const { Cell::new(None) };
        static INTERLEAVED: RefCell<Option<Box<dyn FnOnce()>>> = const { RefCell::new(None) };
    }

    /// Breaks one rule on this thread, or none.
    pub fn set_broken(canary: Option<Canary>) {
        BROKEN.set(canary);
    }

    /// Runs `f` once on this thread, where another thread could come between the two steps in which a changed cell is taken.
    pub fn set_interleaved(f: impl FnOnce() + 'static) {
        INTERLEAVED.set(Some(Box::new(f)));
    }

    pub(crate) fn broken(canary: Canary) -> bool {
        BROKEN.get() == Some(canary)
    }

    pub(crate) fn interleave() {
        if let Some(f) = INTERLEAVED.take() {
            f();
        }
    }
}
