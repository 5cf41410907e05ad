//! The data of a Tallymesh node: rows, log, views and the replication state machine.
//!
//! The engine is a pure function of its inputs. It has no clock, no socket and no random source, and it iterates in a
//! defined order. So the same inputs give the same outputs on every machine.
//!
//! # The path of an increment
//! [`Structure::add`] finds the key's cell (`keys`, `cell`) and adds to it, without a lock that keys share. `commit`
//! (`own_rows`) writes the changed cells into the own rows under the next versions. [`Replica::poll_transmit`] cuts a delta
//! from the log (`actor_rows`, `log`) for each peer. [`Replica::handle_message`] joins a peer's delta row by row
//! (`ledger/apply`) and updates the cached aggregates. Reads ([`Structure::count`], [`Structure::count_net`],
//! [`Structure::list`]) use those aggregates.
//!
//! # Invariants
//! Each has tests that name its number.
//!
//! - **I1** Only an actor's own node writes its rows. If a node learns of its own actor at a version that it never issued,
//!   or of a higher run of its name, it reports an identity conflict and continues under a fresh, higher incarnation.
//! - **I2** Merge is a join: commutative, associative, idempotent, monotone. It reads no clock and no configuration.
//! - **I3** A replica that has reached an actor's head, as the owner states it (version and fingerprint together), holds
//!   exactly the owner's rows. Below the head, two replicas at one version may legitimately differ: a row that has changed
//!   again is no longer part of an older interval.
//! - **I4** Liveness filters the views; it never changes what is stored.
//! - **I5** While its node is alive, a change reaches every connected replica, whatever messages are dropped, duplicated,
//!   delayed or reordered on the way.
//! - **I6** Input from a peer cannot cause a panic or an unbounded allocation. It cannot move another peer's rows to a state
//!   that their owner never had, while that owner is linked.
//! - **I7** Memory per peer is a cursor per actor, never a queue.
//! - **I8** Same inputs, same outputs.
//! - **I9** A hard limit is never exceeded, in every partition: see [`limits`].
//! - **I10** A cached aggregate always equals the sum recomputed from the rows.
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
mod difference;
mod display;
mod gauge;
mod hash;
mod id;
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
mod totals;
mod wake;
mod watch;

pub use admission::HoldError;
pub use cache::{Cache, CacheEntry, CacheError};
pub use difference::Difference;
pub use gauge::GaugeCache;
pub use hash::key_hash;
pub use inspect::Held;
pub use ledger::ApplyError;
pub use listing::{Block, Listing};
pub use replica::{Config, Event, Life, PeerError, Replica};
pub use row::{Row, TwoWriters, row_hash};
pub use series::{Scope, Series, SeriesEntry, SeriesListing};
pub use settings::Settings;
pub use stamp::Stamp;
pub use structure::{Count, Counter, Entry, Hold, Structure};
pub use time::{Now, Time};
pub use wake::Wake;
pub use watch::Watch;
