//! What a throttle is to be: rate, strength, and what happens in a partition.

use serde::Serialize;

use crate::Rate;

/// How a limit is kept.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Strength {
    /// Every node decides on what it knows. Off by what others have admitted and has not been heard.
    #[default]
    Soft,
    /// By shares of which no two nodes use the same. Never off; needs founders.
    Hard,
}

/// What a node does with a limit while it cannot hear others that it should.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum OnPartition {
    /// It goes on with its part: hard, with the share that it holds; soft, with as much of the rate as there are nodes on
    /// its side.
    FairShare,
    /// It admits nothing.
    FailClosed,
    /// It admits the whole rate by itself.
    FailOpen,
}

impl Strength {
    /// As it is written.
    pub fn name(self) -> &'static str {
        match self {
            Self::Soft => "soft",
            Self::Hard => "hard",
        }
    }

    /// What it does in a partition unless that is said.
    pub fn on_partition(self) -> OnPartition {
        match self {
            Self::Soft => OnPartition::FailOpen,
            Self::Hard => OnPartition::FairShare,
        }
    }
}

impl OnPartition {
    /// As it is written.
    pub fn name(self) -> &'static str {
        match self {
            Self::FairShare => "fair_share",
            Self::FailClosed => "fail_closed",
            Self::FailOpen => "fail_open",
        }
    }
}

/// A throttle: a rate that the cluster keeps together.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize)]
pub struct ThrottleSpec {
    /// How many in how long, and at once.
    pub rate: Rate,
    /// How it is kept.
    pub strength: Strength,
    /// What happens in a partition.
    pub on_partition: OnPartition,
    /// Soft only: how much of the burst may be used between two exchanges with the others, in thousandths, 1 to 1000.
    pub epsilon: u16,
}

impl ThrottleSpec {
    /// How much of the burst may be used between two exchanges unless it is said: 0.95.
    pub const EPSILON: u16 = 950;

    /// A throttle with the strength's defaults.
    pub fn new(rate: Rate, strength: Strength) -> Self {
        Self { rate, strength, on_partition: strength.on_partition(), epsilon: Self::EPSILON }
    }
}
