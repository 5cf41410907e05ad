//! The specification of a throttle: rate, strength, and behaviour in a partition.

use serde::Serialize;

use crate::rate::Rate;

/// How strictly a limit is kept.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Strength {
    /// Every node decides from its own knowledge. The overshoot is what other nodes admitted and this node has not received
    /// yet.
    #[default]
    Soft,
    /// Nodes admit from shares, and no two nodes use the same share. There is no overshoot. It needs seats (`founders`).
    Hard,
}

/// What a node does with a limit while it cannot reach nodes that it should reach.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum OnPartition {
    /// It continues with its part. Hard: with the share that it holds. Soft: with the fraction of the rate that matches the
    /// fraction of nodes on its side.
    FairShare,
    /// It admits nothing.
    FailClosed,
    /// It admits the whole rate on its own.
    FailOpen,
}

impl Strength {
    /// Its name in the configuration.
    pub fn name(self) -> &'static str {
        match self {
            Self::Soft => "soft",
            Self::Hard => "hard",
        }
    }

    /// The default behaviour in a partition.
    pub fn on_partition(self) -> OnPartition {
        match self {
            Self::Soft => OnPartition::FailOpen,
            Self::Hard => OnPartition::FairShare,
        }
    }
}

impl OnPartition {
    /// Its name in the configuration.
    pub fn name(self) -> &'static str {
        match self {
            Self::FairShare => "fair_share",
            Self::FailClosed => "fail_closed",
            Self::FailOpen => "fail_open",
        }
    }
}

/// A throttle: a rate that the whole cluster shares.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize)]
#[non_exhaustive]
pub struct ThrottleSpec {
    /// The rate and the burst.
    pub rate: Rate,
    /// How strictly it is kept.
    pub strength: Strength,
    /// What happens in a partition.
    pub on_partition: OnPartition,
    /// Soft only: the part of the burst that may be used between two exchanges with other nodes, in thousandths, 1 to 1000.
    pub epsilon: u16,
}

impl ThrottleSpec {
    /// Default for the part of the burst that may be used between two exchanges: 0.95.
    pub const EPSILON: u16 = 950;

    /// A throttle with the strength's defaults.
    pub fn new(rate: Rate, strength: Strength) -> Self {
        Self { rate, strength, on_partition: strength.on_partition(), epsilon: Self::EPSILON }
    }

    /// With this behaviour in a partition.
    ///
    /// ```
    /// use tallymesh_schemas::{OnPartition, Strength, ThrottleSpec};
    ///
    /// let spec = ThrottleSpec::new("300/5m".parse()?, Strength::Soft).with_on_partition(OnPartition::FairShare);
    /// assert_eq!(spec.epsilon, ThrottleSpec::EPSILON);
    /// # Ok::<(), tallymesh_schemas::RateError>(())
    /// ```
    #[must_use]
    pub fn with_on_partition(self, on_partition: OnPartition) -> Self {
        Self { on_partition, ..self }
    }

    /// Soft only: with this part of the burst between two exchanges with other nodes, in thousandths, 1 to 1000.
    #[must_use]
    pub fn with_epsilon(self, epsilon: u16) -> Self {
        Self { epsilon, ..self }
    }
}
