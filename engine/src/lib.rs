//! The data of a Tallymesh node: rows, log, views, caches and the replication state machine.
//!
//! The engine is a pure function of its inputs. It has no clock, no socket and no random source, and it iterates in a
//! defined order. So the same inputs give the same outputs on every machine.
//!
//! # The path of an increment
//! [`Structure::add`] finds the key's cell (`keyspace`) and adds to it, without a lock that keys share. The commit
//! (`counter::commit`, `rows::writer`) writes the changed cells into the own rows under the next versions.
//! [`Replica::poll_transmit`] cuts a delta from the log (`rows::actor_rows`, `rows::change_log`) for each peer.
//! [`Replica::handle_message`] joins a peer's delta row by row (`counter::join`) and updates the cached aggregates
//! (`counter::views`). Reads ([`Structure::count`], [`Structure::count_net`], [`Structure::list`]) use those aggregates.
//!
//! A [`Cache`] has no rows: it keeps the last write of each key (`cache`), and its exchange has messages of its own.
//!
//! # Invariants
//! Each has tests that name its number.
//!
//! - **I1** Only an actor's own node writes its rows. If a node learns of its own actor at a version that it never issued,
//!   or of a higher run of its name, it reports an identity conflict and continues under a fresh, higher incarnation.
//! - **I2** Merge is a join: commutative, associative, idempotent, monotone. It reads no clock and no configuration.
//! - **I3** A replica that has reached an actor's head, as the owner states it (version and fingerprint together), holds
//!   exactly the owner's rows. Below the head, two replicas at one version may legitimately differ: a row that has changed
//!   again is no longer part of an older interval. Two replicas of a cache that have taken in the same writes hold the same live
//!   entries.
//! - **I4** Liveness filters the views; it never changes what is stored.
//! - **I5** While its node is alive, a change reaches every connected replica, whatever messages are dropped, duplicated,
//!   delayed or reordered on the way.
//! - **I6** Input from a peer cannot cause a panic or an unbounded allocation. It cannot move another peer's rows to a state
//!   that their owner never had, while that owner is linked.
//! - **I7** Memory per peer is a cursor per actor, and for a cache a cursor and the peer's context; never a queue.
//! - **I8** Same inputs, same outputs.
//! - **I9** A hard limit is never exceeded, in every partition: see [`limiter`].
//! - **I10** A cached aggregate always equals the sum recomputed from the rows, or from the entries of a cache.
//! - **I11** State that is created on demand (a throttle, a scope) decides as if it had always existed.
//! - **I12** Unauthenticated input has no effect. A member's statement about another member is hearsay: it never replaces
//!   that member's own statement.
//! - **I13** Cost follows live state, not history.
//! - **I14** A replica reports every bound that it reaches. Verification says "converged" only of what it compared.
//!
//! # The order of modules
//! A module uses only modules on earlier lines. A test checks this.
//!
//! 1. `time`, `random`, `hlc`, `primitive`, `canary`, `wake`, `difference`, `shape`
//! 2. `keyspace`: what threads count in
//! 3. `rows`: one actor's rows; `index`: order and sums under a prefix
//! 4. `counter`: the rows of all actors, joined, and the aggregates
//! 5. `cache`: the last-writer-wins map
//! 6. `limiter`: soft and hard limits
//! 7. `replica`: the replication state machine
//! 8. `settings`, `display`
#![deny(missing_docs)]
// A library has no panic on a path that input reaches. A file that needs an exception states why it cannot panic.
#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::indexing_slicing,
        clippy::cast_possible_truncation,
        clippy::cast_possible_wrap,
        clippy::cast_sign_loss
    )
)]

mod budget;
mod cache;
#[cfg(feature = "canaries")]
pub mod canary;
#[cfg(not(feature = "canaries"))]
mod canary;
mod counter;
mod difference;
mod display;
mod hlc;
mod index;
mod keyspace;
pub mod limiter;
#[cfg(all(test, loom))]
mod models;
mod pause;
mod primitive;
mod random;
pub mod replica;
mod rows;
mod settings;
mod shape;
mod spare;
mod time;
mod wake;

pub use crate::budget::{NodeBudget, Usage};
pub use crate::cache::examine::EntriesPage;
pub use crate::cache::handle::{Cache, CacheEntry, CacheError, CacheValue, HeldEntry};
pub use crate::counter::admission::HoldError;
pub use crate::counter::examine::KeysPage;
pub use crate::counter::freshness::Stale;
pub use crate::counter::gauge_cache::GaugeCache;
pub use crate::counter::inspect::{CopyFigures, Figures, Held};
pub use crate::counter::join::ApplyError;
pub use crate::counter::listing::{Block, Listing};
pub use crate::counter::series::{Scope, Series, SeriesEntry, SeriesListing};
pub use crate::counter::structure::{Count, Counter, Entry, Hold, Structure};
pub use crate::counter::watch::Watch;
pub use crate::difference::Difference;
pub use crate::hlc::Stamp;
pub use crate::keyspace::hash::key_hash;
pub use crate::replica::report::{Event, PeerError};
pub use crate::replica::runs::life::Life;
pub use crate::replica::{Config, Replica};
pub use crate::rows::row::{Row, row_hash};
pub use crate::settings::Settings;
pub use crate::time::{Now, Time};
pub use crate::wake::Wake;
