//! Rules that a test can break, one at a time, to show that the test suite notices.
//!
//! With the feature `canaries` a thread may break one rule. Without the feature, [`broken`] is `false` at compile time and
//! the program contains nothing of this module. Only `tallymesh-harness` uses the feature.

/// A rule that is broken.
#[cfg_attr(not(feature = "canaries"), allow(unreachable_pub, reason = "public with the feature"))]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Canary {
    /// Totals are added up where the newer state should replace the older one (I2).
    SumForMax,
    /// A newer run does not supersede an older one.
    IncarnationIgnored,
    /// A peer below the low-water mark continues with a delta, without a snapshot.
    LowWaterIgnored,
    /// A delta is joined although it does not follow the applied version.
    GapApplied,
    /// A gap is skipped: the rows in it count as applied.
    AppliedBeyondJoined,
    /// The rows of dead nodes count for ever.
    DeadCounted,
    /// The count of a dead node stays in the view of the replica that hides it (I4).
    DeadFolded,
    /// The dirty flag is cleared after the totals are read.
    FlagClearedLate,
    /// The run of a forgotten node is accepted again.
    TombstoneIgnored,
    /// A run that has ended, and of which a structure holds nothing, keeps its place there.
    EmptyRunsKept,
    /// The owner's fingerprint is not compared (I3).
    FingerprintUnchecked,
    /// A key is left out although the receiver does not know it.
    KeyOmitted,
    /// A part of a snapshot replaces the earlier rows.
    SnapshotSwappedEarly,
    /// This node's earlier runs are treated as another node's (I1).
    OwnRunsTaken,
    /// A row is retired although it counts something.
    CountRetired,
    /// The view does not follow a row that is replaced (I10).
    ViewNotMoved,
    /// A lost delta is not requested again (I5).
    NothingChased,
    /// Pending changes are not sent when their time has come.
    FlushForgotten,
    /// A newer run supersedes the event counts of an older one.
    EventsSuperseded,
    /// The totals that several nodes clear of one count are added up.
    ClearAdded,
    /// The clock of windows goes back when the wall clock does.
    ClockGoesBack,
    /// A replica that received an owner's rows in pieces passes them on as complete.
    PiecesTakenForAll,
    /// The lender of a share still uses it (I9).
    TakenBeforeGiven,
    /// A share that grows brings the tokens of its burst (I9).
    BurstBrought,
    /// A process supports claims before all claims that its predecessor supported have expired (I9).
    UnprovenRestart,
    /// In a cache, the write that arrives last wins over the write with the later stamp.
    ArrivalWins,
    /// A removal is collected before every node has it.
    RemovalForgotten,
    /// A write from a clock far ahead is accepted.
    FutureTaken,
    /// The relay of an actor's rows is never replaced by another peer.
    PrunedForGood,
    /// The levels of throttles from the previous run are not restored.
    LevelsForgotten,
    /// A process that restored an earlier process's saved state continues that process's run (I1).
    RunTakenUp,
    /// A cache takes a write that its context covers although the key has no entry.
    SupersededTaken,
    /// A removal is collected before the replica has what the others had when they reported.
    RoundNotAwaited,
    /// A mark of own writes does not send the writes that replaced some of them.
    ReplacedLeftOut,
    /// A replica does not compare its keys with a sender that has collected what the replica has not taken in.
    NotCompared,
    /// A replica does not remember what other replicas have collected.
    CollectedForgotten,
    /// A replica does not write again what it holds of an ended run and no other node may get.
    UnmarkedLost,
    /// A replica leaves it at other entries than those of a peer that has taken in the same writes.
    DifferenceLeft,
    /// A replica sends no entries to a peer that has taken in the same writes and holds other entries.
    ValuesLeft,
    /// A replica does not send on what it holds of a node that is gone and what no mark covers.
    GoneNotSent,
    /// Rows of other nodes are joined although their keys do not fit within a budget.
    BudgetIgnored,
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
    pub const ALL: [Canary; 41] = [
        Canary::SumForMax,
        Canary::IncarnationIgnored,
        Canary::LowWaterIgnored,
        Canary::GapApplied,
        Canary::AppliedBeyondJoined,
        Canary::DeadCounted,
        Canary::DeadFolded,
        Canary::FlagClearedLate,
        Canary::TombstoneIgnored,
        Canary::EmptyRunsKept,
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
        Canary::FutureTaken,
        Canary::PrunedForGood,
        Canary::LevelsForgotten,
        Canary::RunTakenUp,
        Canary::SupersededTaken,
        Canary::RoundNotAwaited,
        Canary::ReplacedLeftOut,
        Canary::NotCompared,
        Canary::CollectedForgotten,
        Canary::UnmarkedLost,
        Canary::DifferenceLeft,
        Canary::ValuesLeft,
        Canary::GoneNotSent,
        Canary::BudgetIgnored,
    ];

    thread_local! {
        static BROKEN: Cell<Option<Canary>> = const { Cell::new(None) };
        static INTERLEAVED: RefCell<Option<Box<dyn FnOnce()>>> = const { RefCell::new(None) };
    }

    /// Breaks one rule on this thread, or none.
    pub fn set_broken(canary: Option<Canary>) {
        BROKEN.set(canary);
    }

    /// Runs `f` once on this thread, at the point between the two steps of a commit of a changed cell where another thread
    /// could interleave.
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
