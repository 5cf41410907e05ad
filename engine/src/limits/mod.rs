//! Limits that hold across the cluster, decided on each node by itself.
//!
//! - **soft**: every node admits by one [`Bucket`] of the whole rate, from which it takes what it admits itself
//!   and what it hears that others have admitted. Off by what the others have admitted and has not been heard.
//! - **hard** ([`Escrow`]): every limit is divided into shares, no two nodes ever use the same one, and a node admits by
//!   a [`Bucket`] of its share. Never off (I9).
//!
//! # Escrow
//! Sources: escrow (O'Neil 1986), demarcation (Barbará and Garcia-Molina 1994), bounded counters (Balegas et al. 2015),
//! leases (Gray and Cheriton 1989), leases without disks (Trencseni, Gazso and Reinhardt 2012).
//!
//! Every limit is divided among the **founders**, a list of nodes that the configuration names. Founder `k` begins with
//! the share `φ(k)`, and `Σ φ = 1`. Two kinds of leases say who uses what:
//!
//! - **Tenure**: at most one process at a time holds `φ(k)`, normally one of `k` itself.
//! - **Loans**: the holder of a share lends parts of it to whoever needs them.
//!
//! Leases need no common clock. A process tells readings `β` of its own clock; another one answers with the last `β` that
//! it has heard. What is granted with the answer `β` may be used until `β + L` on the clock that `β` was read from, and is
//! taken for unused by the granter from `L⁺ = 9/8 L` after the answer on its own. The answer came after `β`, so the grantee
//! stops first, however long messages take, as long as no clock runs an eighth faster than another one.
//!
//! ## Tenure
//! A claim to `φ(k)` is a process and a number, and once over it is over for good. The other founders support at most one
//! claim each. To **begin**, a claim needs the support of all of them (of all that are not the claimant), and then, of each of
//! them, an answer to a reading that was told after all support was there, given in the same vote: the same process, that has not
//! turned away in between. To **go on**, it needs an answer
//! of any one of them within `L`. A supporter turns to another claim when the one that it supports says that it is over, or
//! `L⁺` after its last answer; and in the first `L⁺` of its own life it supports only claims that say that they hold.
//!
//! *At no moment do two claims hold `φ(k)`.* Let `Y` begin, and let `t` be the moment at which the reading was told that all
//! have to confirm. Each supporter supported `Y` before `t` and still did when it answered later, so at `t` every other
//! founder supports `Y` and nobody else. Let `X` have held before. Any answer to `X` was given by a process `p` of a founder `x`.
//! If `p` is the process that supports `Y`, it turned to `Y` when `X` was over or `L⁺` after its last answer, so that answer has
//! run out at `t`. If `p` came before it, the process that supports `Y` had waited `L⁺` since its start, and `p` ended before
//! that, so it has run out as well. So at `t` all answers to `X` have run out: `X` is over, for good, and answers that come
//! later find it so. Answers to `Y` that are older than `Z`'s beginning have run out in the same way when a third one begins. ∎
//!
//! This holds while a founder's name is run by one process at a time, and also while *one* name is run by two (for three
//! founders or more): those two compete for one share and need the same supporters; and where the doubled name supports others, one
//! of the others is asked as well.
//!
//! ## Loans
//! Holder `i` uses what it holds less what it has lent: `given[i→j] − back[j→i]`, both rows that only grow, the first
//! written by `i` and the second by `j`. `j` uses `given − back` of the newest term with `i` that it knows, while the
//! term is answered. All that `j` sees of `given` is at most what `i` has written, and `i` sees at most what `j` has given
//! back; so `j` uses no more than `i` has subtracted. A term that `i` takes for over is never answered again, and one that
//! `j` takes for over is never used again, whatever is heard of it: neither can come back. `i` answers and lends only while all of its
//! tenures last for another `L⁺` of the loans, so loans run out before what they stand on. ∎
//!
//! ## Admissions
//! A node with the share `w` admits by a bucket of rate `wR` and burst `wB`. When its share grows it gets no tokens; when
//! it shrinks, what the bucket holds beyond the new burst is lost, before the share can be used elsewhere. So the
//! buckets of all nodes hold at most `Σ wB ≤ B` at any moment, and are filled at `Σ wR ≤ R`: in any window of length
//! `t` all nodes together admit at most `B + R·t`. A rate is per time, and whoever measures time with a clock that runs fast by
//! `ρ` gets `R(1 + ρ)t`: no limiter is better than its clock. ∎
//!
//! ## Permits
//! Permits are in use for as long as something is open, also when what they stand on runs out. Then they are *overdue*: more are
//! in use than the node may use, and its user closes them within `L/24`. So a claim or a term that has run out is
//! said to be over only when nothing is overdue any more, or `L/24` later. For whoever hears nothing it is free from `L⁺` on as ever,
//! which of loans is `L/3/8 = L/24` behind their end as well, less what the granter's clock runs faster in that time: who counts on
//! permits with clocks that differ by `ρ` closes within `L/24 - ρL/3`.
//!
//! ## What it costs
//! - A founder that hears no other founder for `L` stops using its share, and others may take it up `L⁺` after.
//! - After a start, shares are there when all founders have run for `L⁺`; after a restart of one node, when the others have
//!   let go of its predecessor. Meanwhile it borrows.
//! - A founder that is down stands in the way of other founders' restarts until it is back or is forgotten.
//!
//! ## Whom it trusts
//! Founders. A founder that lies about what it supports or has lent can make up shares. A node that is no founder cannot:
//! its claims, supports and loans are not looked at; it can ask for more than it needs, up to what max-min fairness gives, and use
//! what it was lent beyond the limit by itself.

mod agreement;
mod board;
mod bucket;
mod escrow;
mod fact;
mod heard;
mod levels;
mod limiter;
mod pool;
mod soft;
mod target;
mod throttle;

pub use agreement::Agreement;
pub use bucket::{Bucket, Decision, UNITS};
pub use escrow::{Base, Begins, Escrow, Founding, FoundingError, Release, ReleaseAll, Share, Write};
pub use fact::Seat;
pub use limiter::{Holding, LimitError, Limiter, Scopes};
pub use pool::{Permit, Pool, PoolStanding};
pub use soft::Soft;
pub use target::Quota;
pub use throttle::{Reach, Standing, Throttle};
