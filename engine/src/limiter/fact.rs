//! The rows of escrow: facts with one writer each, as keys of an ordinary structure. In each row, `added` is the value; it only
//! grows. A row whose `removed` has reached `added` is closed, and is retired like any other zero row.
//!
//! # Format
//! A key of a table of throttles is text without control characters: nodes refuse a row with any other key, and end the link
//! that brought it. So each byte of a fact is a printable character.
//!
//! | bytes | content |
//! |---|---|
//! | 1 | [`MARK`], with which no throttle's name begins |
//! | 1 | [`VERSION`] of this format |
//! | 1 | tag of the fact |
//! | numbers | the fingerprint of the founder configuration, the writing process, the fields of the fact |
//! | texts | each is a number, its length in bytes, and then the text |
//!
//! A number has one to [`DIGITS`] digits of five bits, the lowest first. A digit is the character `0` plus its bits, plus 32
//! if another digit follows; so digits are the characters from `0` to `o`. A fact has exactly one form.
//!
//! A node ignores a fact that it cannot decode. So nodes with different founder lists or different formats never use each
//! other's facts: to each other they are silent, and what each of them can hold is what it could hold in a partition.

use std::sync::Arc;
use std::time::Duration;

use tallymesh_schemas::{NodeName, Rate, key};

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
const MARK: u8 = key::SHARING;

/// The version of the format. Facts of the first format were words; their second byte is one of the letters `abdehloprv`.
const VERSION: u8 = b'2';

/// The most digits of a number.
const DIGITS: usize = 13;

/// The bits of a digit.
const DIGIT_BITS: usize = 5;

/// Added to a digit that another one follows.
const FOLLOWS: u8 = 1 << DIGIT_BITS;

mod tag {
    pub(super) const AGREEMENT: u8 = b'0';
    pub(super) const VALUE: u8 = b'1';
    pub(super) const HEARTBEAT: u8 = b'2';
    pub(super) const CLAIM: u8 = b'3';
    pub(super) const SUPPORT: u8 = b'4';
    pub(super) const ACK: u8 = b'5';
    pub(super) const LENT: u8 = b'6';
    pub(super) const RETURNED: u8 = b'7';
    pub(super) const ENDED: u8 = b'8';
    pub(super) const DEMAND: u8 = b'9';
    pub(super) const PERMITS: u8 = b':';
}

/// The key of a fact that the process `by` of this node writes.
pub(crate) fn encode(config_fingerprint: u64, by: u64, fact: &Fact) -> String {
    let key = |tag: u8| Writer::new(tag).number(config_fingerprint).number(by);
    let key = match fact {
        Fact::Agreement { fingerprint } => key(tag::AGREEMENT).number(*fingerprint),
        Fact::Value { value, name } => key(tag::VALUE).text(value).text(name),
        Fact::Heartbeat => key(tag::HEARTBEAT),
        Fact::Claim { seat, claim } => key(tag::CLAIM).number(*seat as u64).number(*claim),
        Fact::Support { seat, to, claim, vote } => {
            key(tag::SUPPORT).number(*seat as u64).number(*claim).number(*vote).process(to)
        }
        Fact::Ack { to, lease } => key(tag::ACK).number(*lease).process(to),
        Fact::Lent { to, lease, name } => key(tag::LENT).number(*lease).process(to).text(name),
        Fact::Returned { to, lease, name } => key(tag::RETURNED).number(*lease).process(to).text(name),
        Fact::Ended { to, lease } => key(tag::ENDED).number(*lease).process(to),
        Fact::Demand { rate: Some(rate), name } => key(tag::DEMAND).rate(*rate).text(name),
        Fact::Demand { rate: None, name } => key(tag::PERMITS).text(name),
    };
    key.0
}

/// Decodes a key: the founder configuration, the writing process, and the fact. `None` for other keys.
pub(crate) fn decode(key: &[u8]) -> Option<(u64, u64, Fact)> {
    let (&[MARK, VERSION, tag], rest) = key.split_first_chunk()? else { return None };
    let mut rest = Reader(rest);
    let (config_fingerprint, by) = (rest.number()?, rest.number()?);
    let fact = match tag {
        tag::AGREEMENT => Fact::Agreement { fingerprint: rest.number()? },
        tag::VALUE => Fact::Value { value: rest.text()?.to_owned(), name: rest.text()?.into() },
        tag::HEARTBEAT => Fact::Heartbeat,
        tag::CLAIM => Fact::Claim { seat: rest.seat()?, claim: rest.number()? },
        tag::SUPPORT => {
            let (seat, claim, vote) = (rest.seat()?, rest.number()?, rest.number()?);
            Fact::Support { seat, to: rest.process()?, claim, vote }
        }
        tag::ACK => {
            let lease = rest.number()?;
            Fact::Ack { to: rest.process()?, lease }
        }
        tag::LENT => {
            let lease = rest.number()?;
            Fact::Lent { to: rest.process()?, lease, name: rest.text()?.into() }
        }
        tag::RETURNED => {
            let lease = rest.number()?;
            Fact::Returned { to: rest.process()?, lease, name: rest.text()?.into() }
        }
        tag::ENDED => {
            let lease = rest.number()?;
            Fact::Ended { to: rest.process()?, lease }
        }
        tag::DEMAND => Fact::Demand { rate: Some(rest.rate()?), name: rest.text()?.into() },
        tag::PERMITS => Fact::Demand { rate: None, name: rest.text()?.into() },
        _ => return None,
    };
    rest.0.is_empty().then_some((config_fingerprint, by, fact))
}

/// A key that is written field by field.
struct Writer(String);

impl Writer {
    fn new(tag: u8) -> Self {
        Self([MARK, VERSION, tag].map(char::from).into_iter().collect())
    }

    fn number(mut self, mut number: u64) -> Self {
        loop {
            let digit = number.to_le_bytes()[0] % FOLLOWS;
            number >>= DIGIT_BITS;
            let follows = if number > 0 { FOLLOWS } else { 0 };
            self.0.push(char::from(b'0' + digit + follows));
            if number == 0 {
                return self;
            }
        }
    }

    fn text(self, text: &str) -> Self {
        let mut key = self.number(text.len() as u64);
        key.0.push_str(text);
        key
    }

    fn process(self, process: &Process) -> Self {
        self.number(process.nonce).text(process.node.as_str())
    }

    fn rate(self, rate: Rate) -> Self {
        let millis = u64::try_from(rate.period().as_millis()).unwrap_or(u64::MAX);
        self.number(rate.tokens()).number(millis).number(rate.burst())
    }
}

/// The fields of a key that are not read yet.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn number(&mut self) -> Option<u64> {
        let mut number = 0_u64;
        for place in 0..DIGITS {
            let (&byte, rest) = self.0.split_first()?;
            self.0 = rest;
            let bits = byte.checked_sub(b'0').filter(|bits| *bits < 2 * FOLLOWS)?;
            let digit = u64::from(bits % FOLLOWS);
            let shift = place * DIGIT_BITS;
            let part = digit << shift;
            if part >> shift != digit {
                return None;
            }
            number |= part;
            if bits < FOLLOWS {
                // A zero in the highest place would be a second form of the same number.
                return (digit > 0 || place == 0).then_some(number);
            }
        }
        None
    }

    fn seat(&mut self) -> Option<usize> {
        usize::try_from(self.number()?).ok()
    }

    fn text(&mut self) -> Option<&'a str> {
        let len = usize::try_from(self.number()?).ok()?;
        let (text, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        std::str::from_utf8(text).ok().filter(|text| !text.is_empty())
    }

    fn process(&mut self) -> Option<Process> {
        let nonce = self.number()?;
        Some(Process { node: NodeName::new(self.text()?).ok()?, nonce })
    }

    fn rate(&mut self) -> Option<Rate> {
        let (tokens, millis, burst) = (self.number()?, self.number()?, self.number()?);
        Rate::new(tokens, Duration::from_millis(millis), burst).ok()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tallymesh_schemas::{Kind, bounds};

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
        let n = any::<u64>;
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
        fn a_fact_comes_back_and_its_key_is_one_of_a_throttle_table(config: u64, by: u64, fact in fact()) {
            let key = encode(config, by, &fact);
            prop_assert_eq!(key::check(Kind::ThrottleTable, key.as_bytes()), Ok(()));
            prop_assert!(key::is_sharing(Kind::ThrottleTable, key.as_bytes()));
            prop_assert_eq!(decode(key.as_bytes()), Some((config, by, fact)));
        }

        /// Arbitrary bytes are refused, or are the one form of a fact.
        #[test]
        fn arbitrary_keys_are_refused_or_have_one_form(key: Vec<u8>, fields in "!2[0-:][0-o]{0,60}", text in "![a-z]?[0-9a-f /]{0,40}") {
            for key in [&key[..], fields.as_bytes(), text.as_bytes()] {
                if let Some((config, by, fact)) = decode(key) {
                    let form = encode(config, by, &fact);
                    prop_assert_eq!(form.as_bytes(), key);
                }
            }
        }

        /// A fact that is cut off, or changed in one byte, is refused or another fact.
        #[test]
        fn damaged_facts_are_no_facts(config: u64, by: u64, fact in fact(), at: prop::sample::Index, byte: u8) {
            let mut key = encode(config, by, &fact).into_bytes();
            let at = at.index(key.len());
            prop_assert!(decode(&key[..at]).is_none());
            if key[at] != byte {
                key[at] = byte;
                prop_assert!(decode(&key) != Some((config, by, fact)));
            }
        }
    }

    /// The longest fact fits into a key.
    #[test]
    fn the_longest_facts_fit() {
        let node = NodeName::new(&"n".repeat(bounds::NODE_NAME_BYTES)).unwrap();
        let to = Process { node, nonce: u64::MAX };
        let name = "n".repeat(bounds::THROTTLE_NAME_BYTES);
        let value = Fact::Value { value: "v".repeat(200), name: format!("throttle {name}").into() };
        let lent = Fact::Lent { to: to.clone(), lease: u64::MAX, name: name.into() };
        let support = Fact::Support { seat: bounds::FOUNDERS, to, claim: u64::MAX, vote: u64::MAX };
        for fact in [value, lent, support] {
            let key = encode(u64::MAX, u64::MAX, &fact);
            assert!(key.len() <= bounds::KEY_BYTES, "{} bytes: {fact:?}", key.len());
            assert_eq!(decode(key.as_bytes()), Some((u64::MAX, u64::MAX, fact)));
        }
    }

    /// A node ignores facts of the first format, in which fields were words.
    #[test]
    fn facts_of_the_first_format_are_ignored() {
        for key in [
            "!b00000000000000ff 1",
            "!h00000000000000ff 1 0 2",
            "!e00000000000000ff 1 n1 2 3",
            "!d00000000000000ff 1 - t",
        ] {
            assert_eq!(decode(key.as_bytes()), None);
        }
    }
}
