//! Random numbers of the operating system, which the engine does not draw itself.

use std::hash::{BuildHasher, Hasher, RandomState};

/// A number that differs between processes and between calls. As the seed of the tables' hashes, it keeps outsiders from knowing
/// which keys collide.
pub(crate) fn random_seed() -> u64 {
    RandomState::new().build_hasher().finish()
}
