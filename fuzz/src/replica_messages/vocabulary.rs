//! What can be said and done to the replica, as it is read from arbitrary bytes: mostly what makes sense, so that it gets far.

use arbitrary::Arbitrary;
use tallymesh_schemas::{Class, Kind, NodeName, key};

pub(super) const PEERS: [&str; 3] = ["p0", "p1", "p2"];
pub(super) const NODES: [&str; 6] = ["p0", "p1", "p2", "q0", "q1", "us"];

/// A short number or one at an end.
#[derive(Debug, Clone, Copy, Arbitrary)]
pub(super) enum Number {
    Small(u8),
    Middle(u16),
    Limit(u8),
    Most,
    Any(u64),
}

impl Number {
    pub(super) fn of(self, limit: u64) -> u64 {
        match self {
            Self::Small(n) => u64::from(n % 24),
            Self::Middle(n) => u64::from(n),
            Self::Limit(n) => limit.saturating_sub(u64::from(n)),
            Self::Most => u64::MAX,
            Self::Any(n) => n,
        }
    }
}

#[derive(Debug, Clone, Copy, Arbitrary)]
pub(super) enum Run {
    Ours,
    First(u8),
    Other(Number),
}

#[derive(Debug, Clone, Copy, Arbitrary)]
pub(super) enum Who {
    /// The peer itself, in the run that is known here.
    Sender,
    /// Any node, in the run that is known here.
    Known(u8),
    Any {
        node: u8,
        run: Run,
    },
}

/// A version: one that follows on what is held here, or any.
#[derive(Debug, Clone, Copy, Arbitrary)]
pub(super) enum At {
    Held,
    Start,
    Any(Number),
}

#[derive(Debug, Clone, Copy, Arbitrary)]
pub(super) enum Which {
    Addresses,
    Names,
    Unknown(u8),
    /// The window of a series.
    Events,
    Cache,
}

#[derive(Debug, Clone, Copy, Arbitrary)]
pub(super) enum Fingerprint {
    Absent,
    Zero,
    Any(u64),
    /// That of the rows that are held here.
    Held,
}

#[derive(Debug, Clone, Arbitrary)]
pub(super) struct Entry {
    pub(super) who: Who,
    pub(super) since: Number,
    pub(super) more: Number,
    pub(super) low_water: Number,
    pub(super) fingerprint: Fingerprint,
}

#[derive(Debug, Clone, Arbitrary)]
pub(super) enum Key {
    Sound(u8),
    Bytes(Vec<u8>),
}

#[derive(Debug, Clone, Arbitrary)]
pub(super) enum State {
    Known(Number, Number),
    Keyed(Key, Number, Number),
    Vacant,
    /// A cache's entry: its stamp counts from about now, so that many are taken.
    Content {
        key: Option<Key>,
        stamp: Number,
        expires: Number,
        value: Vec<u8>,
    },
}

#[derive(Debug, Clone, Arbitrary)]
pub(super) struct Row {
    pub(super) slot: Number,
    pub(super) gap: u8,
    pub(super) state: State,
}

#[derive(Debug, Clone, Arbitrary)]
pub(super) enum Rows {
    Sound(Vec<Row>),
    Bytes(Vec<u8>),
}

#[derive(Debug, Clone, Arbitrary)]
pub(super) enum Said {
    Digest {
        run: Run,
        answers: u8,
        complete: bool,
        parts: Vec<(Which, bool, Vec<Entry>)>,
        tombstones: Vec<(Who, Number)>,
    },
    Want {
        which: Which,
        who: Who,
        since: Number,
        more: Number,
        snapshot: bool,
    },
    Delta {
        which: Which,
        who: Who,
        at: [At; 4],
        more: Number,
        snapshot: bool,
        fingerprint: Fingerprint,
        rows: Rows,
    },
    /// A digest of one's own head, and the rows up to it.
    Own {
        which: Which,
        upto: u8,
        fingerprint: Fingerprint,
        rows: Vec<Row>,
    },
    Probe(u8),
    Goodbye,
    Bytes(Vec<u8>),
}

#[derive(Debug, Clone, Arbitrary)]
pub(super) enum Step {
    LinkUp(u8),
    LinkDown(u8),
    Said(u8, Said),
    Poll { peer: u8, most: u8 },
    Pass { ms: u16 },
    Changes,
    Add { which: Which, key: u8, n: i8 },
    Hold { which: Which, key: u8, limit: u8 },
    Release(u8),
    Member { who: Who, life: u8 },
    Forget(u8),
    Probe,
    Renew(Number),
    Leave,
    List(Which),
    Flush,
    Set { key: u8, value: u8, ttl: u8 },
    Remove(u8),
    Clock(i32),
}

pub(super) fn address(n: u8) -> Vec<u8> {
    let text = match n % 16 {
        0 => "0.0.0.0/0".to_owned(),
        1 => "10.0.0.0/8".to_owned(),
        2 => "10.0.0.0/24".to_owned(),
        3 => "2001:db8::/32".to_owned(),
        4 => "2001:db8::1".to_owned(),
        n => format!("10.0.{}.{n}", n % 2),
    };
    key::parse(Class::InboundCidr, &text).expect("a sound address")
}

pub(super) fn sound_key(kind: Kind, n: u8) -> Vec<u8> {
    match kind {
        Kind::CidrTree => address(n),
        Kind::GaugeTable | Kind::ThrottleTable | Kind::Cache => format!("d{}.example", n % 16).into_bytes(),
    }
}

pub(super) fn node(name: &str) -> NodeName {
    NodeName::new(name).expect("a sound name")
}

pub(super) fn peer_of(n: u8) -> NodeName {
    node(PEERS[usize::from(n) % PEERS.len()])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sound_keys_are_sound() {
        for n in 0..=u8::MAX {
            for kind in [Kind::CidrTree, Kind::GaugeTable] {
                assert!(key::check(kind, &sound_key(kind, n)).is_ok());
            }
        }
    }
}
