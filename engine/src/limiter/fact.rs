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
pub struct Process {
    /// The node.
    pub node: NodeName,
    /// Identifies the process among those of the node.
    pub nonce: u64,
}

/// The totals of a fact's row.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Totals {
    /// The value of the fact.
    pub(crate) added: u64,
    /// Grows to the value when the writer closes the row.
    pub(crate) removed: u64,
}

impl Totals {
    /// Whether the writer has closed the row.
    pub(crate) fn is_closed(self) -> bool {
        self.removed >= self.added
    }
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
    Claim { seat: usize, claim: u64 },
    /// The writer has received this reading of the claimant's clock. Since this vote, with this number, began, it has supported
    /// the claim and no other one.
    Support { seat: usize, to: Process, claim: u64, vote: u64 },
    /// The writer has received this reading of the borrower's clock; all loans of the lease depend on it.
    Ack { to: Process, lease: u64 },
    /// The amount that the writer has lent in this lease.
    Lent { to: Process, lease: u64, name: Arc<str> },
    /// The amount that the writer has returned of what it was lent in this lease.
    Returned { to: Process, lease: u64, name: Arc<str> },
    /// The loan lease is over for the writer, its borrower: it uses nothing of the lease any more, whatever it receives later.
    Ended { to: Process, lease: u64 },
    /// The amount that the writer could use, and of which rate, so that a node that does not know the name can lend. No rate:
    /// permits.
    Demand { rate: Option<Rate>, name: Arc<str> },
}

/// The first byte of every fact's key.
pub(crate) const MARK: char = '!';

/// The key of a fact.
pub(crate) fn encode(config_fingerprint: u64, by: u64, fact: &Fact) -> String {
    let head = |tag: char| format!("{MARK}{tag}{config_fingerprint:016x} {by:x}");
    let process = |process: &Process| format!("{} {:x}", process.node, process.nonce);
    match fact {
        Fact::Agreement { fingerprint } => format!("{} {fingerprint:x}", head('a')),
        Fact::Value { value, name } => format!("{} {value} {name}", head('v')),
        Fact::Heartbeat => head('b'),
        Fact::Claim { seat, claim } => format!("{} {seat} {claim}", head('h')),
        Fact::Support { seat, to, claim, vote } => {
            format!("{} {seat} {} {claim} {vote}", head('p'), process(to))
        }
        Fact::Ack { to, lease } => format!("{} {} {lease}", head('e'), process(to)),
        Fact::Lent { to, lease, name } => format!("{} {} {lease} {name}", head('l'), process(to)),
        Fact::Returned { to, lease, name } => format!("{} {} {lease} {name}", head('r'), process(to)),
        Fact::Ended { to, lease } => format!("{} {} {lease}", head('o'), process(to)),
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
    let (config_fingerprint, rest) = rest.split_once(' ')?;
    let config_fingerprint = u64::from_str_radix(config_fingerprint, 16).ok()?;
    let (by, rest) = rest.split_once(' ').unwrap_or((rest, ""));
    let by = u64::from_str_radix(by, 16).ok()?;
    let mut rest = Words(rest);
    let fact = match tag {
        'a' => Fact::Agreement { fingerprint: u64::from_str_radix(rest.next()?, 16).ok()? },
        'v' => Fact::Value { value: rest.next()?.to_owned(), name: rest.name()? },
        'b' => Fact::Heartbeat,
        'h' => Fact::Claim { seat: rest.number()?, claim: rest.number()? as u64 },
        'p' => Fact::Support {
            seat: rest.number()?,
            to: rest.process()?,
            claim: rest.number()? as u64,
            vote: rest.number()? as u64,
        },
        'e' => Fact::Ack { to: rest.process()?, lease: rest.number()? as u64 },
        'l' => Fact::Lent { to: rest.process()?, lease: rest.number()? as u64, name: rest.name()? },
        'r' => Fact::Returned { to: rest.process()?, lease: rest.number()? as u64, name: rest.name()? },
        'o' => Fact::Ended { to: rest.process()?, lease: rest.number()? as u64 },
        'd' => Fact::Demand { rate: rest.rate()?, name: rest.name()? },
        _ => return None,
    };
    Some((config_fingerprint, by, fact))
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

    fn process(&mut self) -> Option<Process> {
        let node = NodeName::new(self.next()?).ok()?;
        Some(Process { node, nonce: u64::from_str_radix(self.next()?, 16).ok()? })
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

    fn process() -> impl Strategy<Value = Process> {
        ("[a-z][a-z0-9]{0,8}", any::<u64>())
            .prop_map(|(node, nonce)| Process { node: NodeName::new(&node).unwrap(), nonce })
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
            (0..64_usize, n()).prop_map(|(seat, claim)| Fact::Claim { seat, claim }),
            (0..64_usize, process(), n(), n()).prop_map(|(seat, to, claim, vote)| Fact::Support {
                seat,
                to,
                claim,
                vote
            }),
            (process(), n()).prop_map(|(to, lease)| Fact::Ack { to, lease }),
            (process(), n(), name()).prop_map(|(to, lease, name)| Fact::Lent { to, lease, name }),
            (process(), n(), name()).prop_map(|(to, lease, name)| Fact::Returned { to, lease, name }),
            (process(), n()).prop_map(|(to, lease)| Fact::Ended { to, lease }),
            (rate(), name()).prop_map(|(rate, name)| Fact::Demand { rate, name }),
        ]
    }

    proptest! {
        #[test]
        fn a_fact_comes_back(config_fingerprint: u64, by: u64, fact in fact()) {
            let key = encode(config_fingerprint, by, &fact);
            prop_assert_eq!(decode(key.as_bytes()), Some((config_fingerprint, by, fact)));
        }

        #[test]
        fn arbitrary_keys_are_read_or_refused(key: Vec<u8>, text in "![a-z]?[0-9a-f /]{0,40}") {
            let _ = decode(&key);
            let _ = decode(text.as_bytes());
        }
    }
}
