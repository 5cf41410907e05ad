//! The rows of escrow: facts with one writer each, as keys of an ordinary structure.
//!
//! All keys begin with `!`, which no throttle's name does, and with the fingerprint of the founder configuration. So nodes with
//! different founder lists never use each other's facts. In each row, `added` is the value; it only grows. A row whose
//! `removed` has reached `added` is closed, and is retired like any other zero row.

use std::sync::Arc;
use std::time::Duration;

use tallymesh_schemas::{NodeName, Rate};

/// One process: its node's name and a random number drawn at its start. A process inherits nothing from its predecessor, so
/// nothing that the predecessor did can be counted twice.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Seat {
    /// The node.
    pub node: NodeName,
    /// Identifies the process among those of the node.
    pub nonce: u64,
}

/// The content of a row. The writer is the node that owns the row's actor, and its process `by`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Fact {
    /// The fingerprint of the writer's hard limits. Sorts before all others, and is written before them.
    Agreement { fingerprint: u64 },
    /// One of the writer's limits, for nodes whose limits differ.
    Value { value: String, name: Arc<str> },
    /// A reading of the writer's clock.
    Heartbeat,
    /// The writer's claim to a founder's share: how far it has come.
    Claim { founder: usize, claim: u64 },
    /// The writer has received this reading of the claimant's clock. Since this vote, with this number, began, it has supported
    /// the claim and no other one.
    Support { founder: usize, to: Seat, claim: u64, vote: u64 },
    /// The writer has received this reading of the borrower's clock; all loans of the term depend on it.
    Ack { to: Seat, term: u64 },
    /// The amount that the writer has lent in this term.
    Lent { to: Seat, term: u64, name: Arc<str> },
    /// The amount that the writer has returned of what it was lent in this term.
    Returned { to: Seat, term: u64, name: Arc<str> },
    /// The amount that the writer could use, and of which rate, so that a node that does not know the name can lend. No rate:
    /// permits.
    Demand { rate: Option<Rate>, name: Arc<str> },
}

/// The first byte of every fact's key.
pub(crate) const MARK: char = '!';

/// The key of a fact.
pub(crate) fn encode(universe: u64, by: u64, fact: &Fact) -> String {
    let head = |tag: char| format!("{MARK}{tag}{universe:016x} {by:x}");
    let seat = |seat: &Seat| format!("{} {:x}", seat.node, seat.nonce);
    match fact {
        Fact::Agreement { fingerprint } => format!("{} {fingerprint:x}", head('a')),
        Fact::Value { value, name } => format!("{} {value} {name}", head('v')),
        Fact::Heartbeat => head('b'),
        Fact::Claim { founder, claim } => format!("{} {founder} {claim}", head('h')),
        Fact::Support { founder, to, claim, vote } => {
            format!("{} {founder} {} {claim} {vote}", head('p'), seat(to))
        }
        Fact::Ack { to, term } => format!("{} {} {term}", head('e'), seat(to)),
        Fact::Lent { to, term, name } => format!("{} {} {term} {name}", head('l'), seat(to)),
        Fact::Returned { to, term, name } => format!("{} {} {term} {name}", head('r'), seat(to)),
        Fact::Demand { rate: Some(rate), name } => {
            format!("{} {}/{}/{} {name}", head('d'), rate.tokens(), rate.period().as_millis(), rate.burst())
        }
        Fact::Demand { rate: None, name } => format!("{} - {name}", head('d')),
    }
}

/// Decodes a key: the founder configuration, the writing process, and the fact. `None` for other keys.
pub(crate) fn decode(key: &[u8]) -> Option<(u64, u64, Fact)> {
    let text = std::str::from_utf8(key).ok()?.strip_prefix(MARK)?;
    let tag = text.chars().next()?;
    let rest = text.get(tag.len_utf8()..)?;
    let (universe, rest) = rest.split_once(' ')?;
    let universe = u64::from_str_radix(universe, 16).ok()?;
    let (by, rest) = rest.split_once(' ').unwrap_or((rest, ""));
    let by = u64::from_str_radix(by, 16).ok()?;
    let mut rest = Words(rest);
    let fact = match tag {
        'a' => Fact::Agreement { fingerprint: u64::from_str_radix(rest.next()?, 16).ok()? },
        'v' => Fact::Value { value: rest.next()?.to_owned(), name: rest.name()? },
        'b' => Fact::Heartbeat,
        'h' => Fact::Claim { founder: rest.number()?, claim: rest.number()? as u64 },
        'p' => Fact::Support {
            founder: rest.number()?,
            to: rest.seat()?,
            claim: rest.number()? as u64,
            vote: rest.number()? as u64,
        },
        'e' => Fact::Ack { to: rest.seat()?, term: rest.number()? as u64 },
        'l' => Fact::Lent { to: rest.seat()?, term: rest.number()? as u64, name: rest.name()? },
        'r' => Fact::Returned { to: rest.seat()?, term: rest.number()? as u64, name: rest.name()? },
        'd' => Fact::Demand { rate: rest.rate()?, name: rest.name()? },
        _ => return None,
    };
    Some((universe, by, fact))
}

/// The remaining words of a key.
struct Words<'a>(&'a str);

impl<'a> Words<'a> {
    fn next(&mut self) -> Option<&'a str> {
        let (word, rest) = self.0.split_once(' ').unwrap_or((self.0, ""));
        self.0 = rest;
        (!word.is_empty()).then_some(word)
    }

    fn number(&mut self) -> Option<usize> {
        self.next()?.parse().ok()
    }

    fn seat(&mut self) -> Option<Seat> {
        let node = NodeName::new(self.next()?).ok()?;
        Some(Seat { node, nonce: u64::from_str_radix(self.next()?, 16).ok()? })
    }

    /// `-` or a rate.
    fn rate(&mut self) -> Option<Option<Rate>> {
        let word = self.next()?;
        if word == "-" {
            return Some(None);
        }
        let mut numbers = word.splitn(3, '/').map(|number| number.parse::<u64>().ok());
        let (tokens, millis, burst) = (numbers.next()??, numbers.next()??, numbers.next()??);
        Rate::new(tokens, Duration::from_millis(millis), burst).ok().map(Some)
    }

    /// The rest of the key: a name may contain spaces.
    fn name(&mut self) -> Option<Arc<str>> {
        (!self.0.is_empty()).then(|| self.0.into())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn seat() -> impl Strategy<Value = Seat> {
        ("[a-z][a-z0-9]{0,8}", any::<u64>())
            .prop_map(|(node, nonce)| Seat { node: NodeName::new(&node).unwrap(), nonce })
    }

    fn rate() -> impl Strategy<Value = Option<Rate>> {
        let rate = (1..=Rate::TOKENS, 1..=1000 * Rate::PERIOD_SECONDS, 1..=Rate::TOKENS);
        let rate = rate.prop_map(|(tokens, ms, burst)| Rate::new(tokens, Duration::from_millis(ms), burst).unwrap());
        prop::option::of(rate)
    }

    fn fact() -> impl Strategy<Value = Fact> {
        let name = || "[a-z ]{0,10}[a-z]".prop_map(|name: String| Arc::from(name.as_str()));
        let n = || 0..1_u64 << 60;
        prop_oneof![
            Just(Fact::Heartbeat),
            any::<u64>().prop_map(|fingerprint| Fact::Agreement { fingerprint }),
            ("[a-z0-9=/,.]{1,20}", name()).prop_map(|(value, name)| Fact::Value { value, name }),
            (0..64_usize, n()).prop_map(|(founder, claim)| Fact::Claim { founder, claim }),
            (0..64_usize, seat(), n(), n()).prop_map(|(founder, to, claim, vote)| Fact::Support {
                founder,
                to,
                claim,
                vote
            }),
            (seat(), n()).prop_map(|(to, term)| Fact::Ack { to, term }),
            (seat(), n(), name()).prop_map(|(to, term, name)| Fact::Lent { to, term, name }),
            (seat(), n(), name()).prop_map(|(to, term, name)| Fact::Returned { to, term, name }),
            (rate(), name()).prop_map(|(rate, name)| Fact::Demand { rate, name }),
        ]
    }

    proptest! {
        #[test]
        fn a_fact_comes_back(universe: u64, by: u64, fact in fact()) {
            let key = encode(universe, by, &fact);
            prop_assert_eq!(decode(key.as_bytes()), Some((universe, by, fact)));
        }

        #[test]
        fn arbitrary_keys_are_read_or_refused(key: Vec<u8>, text in "![a-z]?[0-9a-f /]{0,40}") {
            let _ = decode(&key);
            let _ = decode(text.as_bytes());
        }
    }
}
