//! The metrics of the audit.

use crate::series::SeriesName;

/// An event that the audit counts by address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Metric {
    /// A connection came in.
    Connect,
    /// A message was received.
    Reception,
    /// A message was rejected.
    Rejection,
    /// A message was delivered.
    Delivery,
    /// A delivery failed for now.
    Transfail,
    /// A delivery failed for good.
    Permfail,
}

impl Metric {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Connect, Self::Reception, Self::Rejection, Self::Delivery, Self::Transfail, Self::Permfail];

    /// The name of its series.
    pub fn series(self) -> SeriesName {
        SeriesName::audited(self.name())
    }

    /// The metric of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|metric| metric.name() == name)
    }

    /// The name of the parameter that enables it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Reception => "reception",
            Self::Rejection => "rejection",
            Self::Delivery => "delivery",
            Self::Transfail => "transfail",
            Self::Permfail => "permfail",
        }
    }
}
