//! Synthetic mail traffic: connections that come in and go out, stay open for a while, and end.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::net::IpAddr;
use std::time::Duration;

use tallymesh::Hold;

use crate::demo::member::Member;
use crate::demo::truth::{Truth, What};
use crate::failure::Failure;

/// Time between two steps of the traffic.
pub(super) const STEP: Duration = Duration::from_millis(5);

/// The senders, and how busy each is.
const SENDERS: [(&str, u64); 10] = [
    ("10.0.0.103", 4),
    ("10.0.0.180", 14),
    ("10.0.0.181", 13),
    ("10.200.0.1", 2),
    ("192.0.2.7", 8),
    ("192.0.2.25", 5),
    ("192.0.2.26", 3),
    ("203.0.113.9", 6),
    ("2001:db8::25", 4),
    ("2001:db8:0:7::1", 2),
];

/// The destinations, and how busy each is.
const DOMAINS: [(&str, u64); 5] =
    [("aol.com", 10), ("bellsouth.net", 23), ("hotmail.com", 246), ("omniti.com", 5), ("yahoo.com", 65)];

/// The largest number of connections that a node opens in a step.
const OPENS: u64 = 4;

/// The longest that a connection stays open, in steps.
const LONGEST: u64 = 60;

/// An open connection. It counts as long as the hold is there.
struct Open {
    node: usize,
    what: What,
    key: &'static str,
    _hold: Hold,
}

/// The traffic of all nodes. It changes only in [`Traffic::step`].
pub(super) struct Traffic {
    truth: Truth,
    senders: Vec<(IpAddr, &'static str, u64)>,
    /// Open connections by the step in which they end.
    open: BinaryHeap<Reverse<(u64, usize)>>,
    slots: Vec<Option<Open>>,
    free: Vec<usize>,
    now: u64,
    dice: Dice,
    /// Connections that were opened so far.
    pub(super) opened: u64,
    /// Connections that have ended so far.
    pub(super) closed: u64,
}

impl Traffic {
    pub(super) fn new(truth: Truth) -> Self {
        let senders = SENDERS.iter().filter_map(|(text, weight)| Some((text.parse().ok()?, *text, *weight)));
        Self {
            truth,
            senders: senders.collect(),
            open: BinaryHeap::new(),
            slots: Vec::new(),
            free: Vec::new(),
            now: 0,
            dice: Dice(0x7a11_3e5b),
            opened: 0,
            closed: 0,
        }
    }

    /// Ends the connections that are due, and opens new ones on every node.
    pub(super) fn step(&mut self, members: &[Member]) -> Result<(), Failure> {
        self.now += 1;
        while let Some(Reverse((end, slot))) = self.open.peek().copied() {
            if end > self.now {
                break;
            }
            self.open.pop();
            self.close(slot);
        }
        for (node, member) in members.iter().enumerate() {
            // The nodes are not equally busy.
            for _ in 0..self.dice.roll(OPENS + node as u64 % 3) {
                self.receive(node, member)?;
            }
            for _ in 0..self.dice.roll(OPENS) {
                self.deliver(node, member)?;
            }
        }
        Ok(())
    }

    fn receive(&mut self, node: usize, member: &Member) -> Result<(), Failure> {
        let weights: Vec<_> = self.senders.iter().map(|sender| sender.2).collect();
        let Some((addr, key, _)) = self.senders.get(self.dice.weighted(&weights)).copied() else { return Ok(()) };
        let hold = member.inbound.hold(addr).map_err(|error| Failure::Node(error.to_string()))?;
        self.open(Open { node, what: What::Inbound, key, _hold: hold });
        Ok(())
    }

    fn deliver(&mut self, node: usize, member: &Member) -> Result<(), Failure> {
        let weights = DOMAINS.map(|domain| domain.1);
        let Some((key, _)) = DOMAINS.get(self.dice.weighted(&weights)).copied() else { return Ok(()) };
        let hold = member.outbound.hold(key).map_err(|error| Failure::Node(error.to_string()))?;
        self.open(Open { node, what: What::Outbound, key, _hold: hold });
        Ok(())
    }

    fn open(&mut self, connection: Open) {
        self.truth.add(connection.node, connection.what, connection.key, 1);
        self.opened += 1;
        let end = self.now + 1 + self.dice.roll(LONGEST);
        let slot = self.free.pop().unwrap_or(self.slots.len());
        if slot == self.slots.len() {
            self.slots.push(None);
        }
        if let Some(place) = self.slots.get_mut(slot) {
            *place = Some(connection);
        }
        self.open.push(Reverse((end, slot)));
    }

    fn close(&mut self, slot: usize) {
        let Some(connection) = self.slots.get_mut(slot).and_then(Option::take) else { return };
        self.truth.add(connection.node, connection.what, connection.key, -1);
        self.closed += 1;
        self.free.push(slot);
    }
}

/// SplitMix64 (Steele, Lea & Flood 2014): the same traffic in every run.
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number from 0 to `most`.
    fn roll(&mut self, most: u64) -> u64 {
        self.next() % (most + 1)
    }

    /// An index, with a probability in proportion to its weight.
    fn weighted(&mut self, weights: &[u64]) -> usize {
        let mut left = self.next() % weights.iter().sum::<u64>().max(1);
        weights
            .iter()
            .position(|weight| match left.checked_sub(*weight) {
                Some(rest) => {
                    left = rest;
                    false
                }
                None => true,
            })
            .unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn senders_are_addresses_and_dice_follow_their_weights() {
        assert_eq!(Traffic::new(Truth::default()).senders.len(), SENDERS.len());
        let mut dice = Dice(1);
        let mut hits = [0_u32; 3];
        for _ in 0..3000 {
            hits[dice.weighted(&[1, 0, 9])] += 1;
        }
        assert_eq!(hits[1], 0);
        assert!((200..400).contains(&hits[0]), "{hits:?}");
    }
}
