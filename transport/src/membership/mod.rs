//! The membership protocol (failure detector and gossip) as a pure function of its inputs.

mod codec;
mod hearsay;
mod id;
pub(crate) mod protocol;
mod records;
pub(crate) mod swim;
mod table;
#[cfg(test)]
mod tests;
mod timers;
