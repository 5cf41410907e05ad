//! Positions: which changes a node had made at one moment.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::actor::Actor;
use crate::bounds;
use crate::structure::StructureId;
use crate::version::Version;

/// The first byte of the text form. A later format has another one.
const FORMAT: u8 = 1;

/// The changes that a run of a node had made at one moment: for each object with changes, the version of the last one.
///
/// A program gets a position from the node on which it has made changes, and passes it to another node, which can then tell whether
/// it has them. The text form ([`fmt::Display`], [`FromStr`]) is a word of hexadecimal digits, about 20 for each object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    /// The run whose changes they are.
    pub actor: Actor,
    /// The last version of each object, in order of id. For a cache it is the number of the run's last write.
    pub versions: Vec<(StructureId, Version)>,
}

/// Why a text is not a [`Position`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PositionError {
    /// It is too long, or has half a byte too much.
    #[error(
        "a position has an even number of digits, {max} at most; this one has {len}: pass it as the node printed it"
    )]
    Length {
        /// Digits it has.
        len: usize,
        /// Digits it may have.
        max: usize,
    },
    /// A character that is no hexadecimal digit.
    #[error("character {at} of the position is no hexadecimal digit: pass it as the node printed it")]
    Digit {
        /// Its place, from 1.
        at: usize,
    },
    /// It is of a later build, or no position.
    #[error("this is no position that this build can read: pass it as the node printed it")]
    Malformed,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = postcard::to_stdvec(self).map_err(|_| fmt::Error)?;
        write!(f, "{FORMAT:02x}")?;
        bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl FromStr for Position {
    type Err = PositionError;

    fn from_str(text: &str) -> Result<Self, PositionError> {
        let (len, max) = (text.len(), 2 * bounds::POSITION_BYTES);
        if !len.is_multiple_of(2) || len > max {
            return Err(PositionError::Length { len, max });
        }
        let digit = |(at, byte): (usize, u8)| {
            let digit = char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
            digit.ok_or(PositionError::Digit { at: at + 1 })
        };
        let digits: Vec<u8> = text.bytes().enumerate().map(digit).collect::<Result<_, _>>()?;
        let bytes: Vec<u8> =
            digits.chunks(2).map(|pair| pair.iter().fold(0, |byte, digit| byte << 4 | digit)).collect();
        let Some((&FORMAT, bytes)) = bytes.split_first() else { return Err(PositionError::Malformed) };
        match postcard::take_from_bytes(bytes) {
            Ok((position, [])) => Ok(position),
            _ => Err(PositionError::Malformed),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::actor::{Incarnation, NodeName};

    fn position() -> Position {
        let actor = Actor::new(NodeName::new("relay-0-1").unwrap(), Incarnation(7));
        Position {
            actor,
            versions: vec![(StructureId::of("inbound_cidr"), Version(3)), (StructureId(9), Version::MAX)],
        }
    }

    #[test]
    fn the_text_is_read_again() {
        let text = position().to_string();
        assert_eq!(text.parse(), Ok(position()));
        assert_eq!(text.to_uppercase().parse(), Ok(position()));
    }

    #[test]
    fn other_texts_are_refused_with_the_reason() {
        let text = position().to_string();
        let read = |text: &str| text.parse::<Position>().unwrap_err();
        assert_eq!(read(&text[1..]), PositionError::Length { len: text.len() - 1, max: 2 * bounds::POSITION_BYTES });
        assert_eq!(read(""), PositionError::Malformed);
        assert_eq!(read("01"), PositionError::Malformed);
        assert_eq!(read(&format!("{text}00")), PositionError::Malformed);
        assert_eq!(read(&text.replacen("01", "02", 1)), PositionError::Malformed);
        assert_eq!(
            read(&text.replacen("01", "0ü", 1)),
            PositionError::Length { len: text.len() + 1, max: 2 * bounds::POSITION_BYTES }
        );
        assert_eq!(read("01g0"), PositionError::Digit { at: 3 });
        assert!(matches!(read(&"00".repeat(bounds::POSITION_BYTES + 1)), PositionError::Length { .. }));
    }

    /// A position of as many objects and windows as a node may have fits.
    #[test]
    fn the_largest_position_fits() {
        let versions =
            (0..(bounds::STRUCTURES + bounds::WINDOWS) as u64).map(|at| (StructureId(u64::MAX - at), Version::MAX));
        let name = "n".repeat(bounds::NODE_NAME_BYTES);
        let actor = Actor::new(NodeName::new(&name).unwrap(), Incarnation(1 << 52));
        let position = Position { actor, versions: versions.collect() };
        assert_eq!(position.to_string().parse(), Ok(position));
    }

    proptest! {
        #[test]
        fn arbitrary_texts_are_read_or_refused(text: String, digits in "01[0-9a-f]{0,200}") {
            let _ = text.parse::<Position>();
            let _ = digits.parse::<Position>();
        }
    }
}
