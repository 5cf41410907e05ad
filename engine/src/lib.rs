//! What a Tallymesh node knows: rows, log, views and the replication state machine.
//!
//! The engine is a pure function of its inputs: it has no clock, no socket and no random source, and iterates in a
//! defined order, so that the same inputs give the same outputs on every machine.
//!
//! # The way of an increment
//! [`Structure::add`] finds the key's cell (`keys`, `cell`) and adds to it, without a lock that keys share. `commit`
//! (`own_rows`) writes the changed cells into our rows under the next versions. [`Replica::poll_transmit`] cuts a delta from
//! the log (`actor_rows`, `log`) for each peer. [`Replica::handle_message`] joins a peer's delta row by row
//! (`ledger/apply`) and moves the cached aggregates with it. Reads ([`Structure::count`], [`Structure::count_net`],
//! [`Structure::list`]) look at those.
//!
//! # Invariants
//! Each has tests that name its number.
//!
//! - **I1** Only an actor's own node writes its rows. Hearing of our own actor at a version that we never issued, or of a
//!   higher run of our name, is an identity conflict: reported, and answered with a fresh, higher incarnation.
//! - **I2** Merge is a join: commutative, associative, idempotent, monotone. It reads no clock and no configuration.
//! - **I3** A replica that has reached an actor's head, as its owner states it (version and fingerprint together), holds
//!   exactly the owner's rows. Below the head, two replicas at one version may rightly differ: a row that has moved on is
//!   no longer in an older interval.
//! - **I4** Liveness filters what is read; it never changes what is stored.
//! - **I5** While its node lives, a change reaches every connected replica, whatever messages were dropped, doubled,
//!   delayed or reordered on the way.
//! - **I6** What a peer sends cannot panic us, make us allocate without bound, or move another peer's rows to a state that
//!   their owner never had while that owner is linked.
//! - **I7** Memory per peer is a cursor per actor, never a queue.
//! - **I8** Same inputs, same outputs.
//! - **I10** A cached aggregate always equals the sum recomputed from the rows.
//!
//! - **I9** A hard limit is never exceeded, in every partition: see [`limits`].
#![deny(missing_docs)]

mod actor_rows;
mod admission;
mod cache;
#[cfg(feature = "canaries")]
pub mod canary;
#[cfg(not(feature = "canaries"))]
mod canary;
mod cell;
mod cells;
mod display;
mod gauge;
mod index;
mod inspect;
mod journal;
mod keys;
mod ledger;
pub mod limits;
mod listing;
mod log;
#[cfg(all(test, loom))]
mod models;
mod own_rows;
mod primitive;
mod radix;
mod random;
pub mod replica;
mod row;
mod series;
mod settings;
mod slots;
mod stamp;
mod structure;
mod sync;
mod table;
mod time;
mod watch;

pub use admission::HoldError;
pub use cache::{Cache, CacheEntry, CacheError};
pub use gauge::GaugeCache;
pub use inspect::Held;
pub use ledger::ApplyError;
pub use listing::{Block, Listing};
pub use replica::{Config, Event, Life, PeerError, Replica};
pub use row::{Row, TwoWriters, key_hash, row_hash};
pub use series::{Scope, Series, SeriesEntry, SeriesListing};
pub use settings::{Difference, Settings};
pub use stamp::Stamp;
pub use structure::{Count, Counter, Entry, Hold, Structure, Wake};
pub use time::{Now, Time};
pub use watch::Watch;
