//! Benches against the peers that Tallymesh is compared with.
