//! Escrow: which node holds how much of each limit, and how shares move. See the [module above](super) for the algorithm and
//! the proof.
//!
//! A pure function of its inputs, driven like [`Replica`](crate::replica::Replica): [`Escrow::learn`] receives the rows of other
//! nodes, and [`Escrow::handle_timeout`] the time. [`Escrow::poll_write`] returns the rows to write, and
//! [`Escrow::share`] what this node may use.

pub(crate) mod claim;
pub(crate) mod founding;
mod holdings;
mod learn;
mod lease;
mod loan_lease;
mod loans;
pub(crate) mod release;
pub(crate) mod rows;
pub(crate) mod slice;
pub(crate) mod state;
#[cfg(test)]
mod tests;
mod turn;
