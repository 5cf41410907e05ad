//! Cluster-wide limits. Each node decides locally.
//!
//! - **soft**: every node admits by one [`Bucket`] of the whole rate. It takes from the bucket what it admits itself and what
//!   it learns that others have admitted. The error is what the others have admitted and this node has not received.
//! - **hard** ([`Escrow`]): every limit is divided into shares. No two nodes ever use the same share, and a node admits by
//!   a [`Bucket`] of its share. There is no error (I9).
//!
//! # Escrow
//! Sources: escrow (O'Neil 1986), demarcation (Barbará and Garcia-Molina 1994), bounded counters (Balegas et al. 2015),
//! leases (Gray and Cheriton 1989), leases without disks (Trencseni, Gazso and Reinhardt 2012).
//!
//! Every limit is divided among the **founders**, a list of nodes in the configuration. Founder `k` begins with
//! the share `φ(k)`, and `Σ φ = 1`. Two kinds of leases determine which process uses which part:
//!
//! - **Lease of a share**: at most one process at a time holds `φ(k)`, normally a process of `k` itself.
//! - **Loans**: the holder of a share lends parts of it to nodes that need them.
//!
//! Leases need no common clock. A process publishes heartbeats, readings `β` of its own clock. Another process answers (acks)
//! with the last `β` that it has received. The grantee may use what is granted with the answer `β` until `β + L` on the clock
//! that `β` was read from. The granter counts it as unused from `L⁺ = 9/8 L` after the answer, on its own clock. The answer
//! came after `β`, so the grantee stops first, however long messages take, as long as no clock runs an eighth faster than
//! another one.
//!
//! ## Leases of shares
//! A claim to `φ(k)` is a process and a number. A claim that is over stays over. Each of the other founders supports at most
//! one claim. To **begin**, a claim needs the support of all of them (all except the claimant). Then it needs from each of them
//! an answer to a reading that was published after all support was complete. The answer must belong to the same vote: it must
//! come from the same process, and that process must not have turned away in between. To **continue**, a claim needs an answer
//! of any one of them within `L`. A supporter turns to another claim when its current claim states that it is over, or `L⁺`
//! after its own last answer. In the first `L⁺` of its life, a supporter supports only claims that state that they hold.
//!
//! *At no moment do two claims hold `φ(k)`.* Let `Y` begin, and let `t` be the moment at which `Y` published the reading that
//! all have to confirm. Each supporter supported `Y` before `t` and still did when it answered later. So at `t` every other
//! founder supports `Y` and no other claim. Let `X` be a claim that held before. Any answer to `X` came from a process `p` of a
//! founder `x`. If `p` is the process that supports `Y`, it turned to `Y` when `X` was over or `L⁺` after its last answer, so
//! that answer has expired at `t`. If `p` is an earlier process, the process that supports `Y` had waited `L⁺` since its start,
//! and `p` ended before that, so the answer has expired as well. So at `t` all answers to `X` have expired: `X` is over
//! permanently, and later answers do not change that. When a third claim `Z` begins, answers to `Y` from before that have
//! expired in the same way. ∎
//!
//! This holds while one process at a time runs a founder's name. With three founders or more, it also holds while two processes
//! run *one* name: the two compete for one share and need the same supporters. Where the duplicated name is itself a supporter,
//! the claim also asks one of the other founders.
//!
//! ## Loans
//! Holder `i` uses what it holds minus what it has lent: `given[i→j] − back[j→i]`. Both rows only grow; `i` writes the first
//! and `j` writes the second. `j` uses `given − back` of the newest loan lease with `i` that it knows, while `i` answers in it.
//! `j` sees at most the `given` that `i` has written, and `i` sees at most the `back` that `j` has written. So `j` uses no more
//! than `i` has subtracted. When `i` counts a loan lease as over, it never answers in it again. When `j` counts a loan lease as
//! over, it never uses it again, whatever it receives later. `j` states the end, and from then on `i` has everything back. So
//! neither can come back. `i` answers and lends only while all its leases last for another `L⁺` of the loans, so loans expire before the leases
//! on which they are based. ∎
//!
//! ## Admissions
//! A node with the share `w` admits by a bucket of rate `wR` and burst `wB`. When its share grows, it gets no tokens. When
//! it shrinks, the tokens beyond the new burst are lost before another node can use the share. So the
//! buckets of all nodes hold at most `Σ wB ≤ B` at any moment, and are filled at `Σ wR ≤ R`: in any window of length
//! `t` all nodes together admit at most `B + R·t`. A rate depends on a clock: with a clock that runs fast by `ρ`, the limit is
//! `R(1 + ρ)t`. No limiter is more accurate than its clock. ∎
//!
//! ## Permits
//! A permit stays in use as long as the thing that it was opened for, even after the lease or loan under it has expired. Then
//! permits are *overdue*: the node uses more than it may, and the service closes them within `L/24`. So the node announces that
//! an expired claim or loan lease is over only when no permit is overdue any more, or `L/24` later. A node that receives nothing
//! counts it as free from `L⁺` on, as always. For loans, that is `L/3/8 = L/24` after their end, minus the time that the
//! granter's clock gains meanwhile: to rely on permits with clocks that differ by `ρ`, close within `L/24 - ρL/3`.
//!
//! ## Costs
//! - A founder that receives nothing from any other founder for `L` stops using its share. Others may take it over after `L⁺`.
//! - After a cluster start, shares are available when all founders have run for `L⁺`. After a restart of one node, they are
//!   available when the others have given up its previous process. Meanwhile the node borrows.
//! - A founder that is down delays the restarts of other founders until it is back or is forgotten.
//!
//! ## Trust
//! Founders are trusted. A founder that lies about its support or its loans can create shares from nothing. A node that is not
//! a founder cannot: other nodes ignore its claims, support and loans. It can ask for more than it needs, up to its max-min
//! fair share, and it can itself exceed the limit with what it was lent.

mod agreement;
mod board;
mod bucket;
mod escrow;
mod fact;
mod heard;
mod levels;
#[expect(clippy::module_inception, reason = "the limiter of one structure, as all of this module is about limits")]
mod limiter;
mod pool;
pub(crate) mod reach;
mod share;
mod soft;
mod strategy;
mod target;
mod throttle;

pub use crate::limiter::agreement::Agreement;
pub use crate::limiter::bucket::{Bucket, Decision};
pub use crate::limiter::escrow::claim::Begins;
pub use crate::limiter::escrow::founding::{Founding, FoundingError};
pub use crate::limiter::escrow::release::{Release, ReleaseAll};
pub use crate::limiter::escrow::rows::Write;
pub use crate::limiter::escrow::state::Escrow;
pub use crate::limiter::fact::Process;
pub use crate::limiter::limiter::error::LimitError;
pub use crate::limiter::limiter::report::Holding;
pub use crate::limiter::limiter::{Limiter, Scopes};
pub use crate::limiter::pool::{Permit, Pool, PoolStanding};
pub use crate::limiter::reach::Reach;
pub use crate::limiter::share::{Base, Share, UNITS};
pub use crate::limiter::soft::{Others, Soft};
pub use crate::limiter::target::Quota;
pub use crate::limiter::throttle::{Decisions, Standing, Throttle};
