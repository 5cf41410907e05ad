//! The amount of messages on the simulated network.

/// What was sent so far, on all links together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Sent {
    /// Messages of all kinds.
    pub messages: u64,
    /// Their bytes, without frames and network overhead.
    pub bytes: u64,
    /// The messages that carry rows.
    pub deltas: u64,
    /// The bytes of the messages that carry rows.
    pub delta_bytes: u64,
}

impl Sent {
    /// Counts a message.
    pub(crate) fn count(&mut self, bytes: usize) {
        self.messages += 1;
        self.bytes += bytes as u64;
    }

    /// Counts a message among those that carry rows.
    pub(crate) fn count_delta(&mut self, bytes: usize) {
        self.deltas += 1;
        self.delta_bytes += bytes as u64;
    }

    /// What was sent since an earlier moment.
    #[must_use]
    pub fn since(self, earlier: Self) -> Self {
        Self {
            messages: self.messages - earlier.messages,
            bytes: self.bytes - earlier.bytes,
            deltas: self.deltas - earlier.deltas,
            delta_bytes: self.delta_bytes - earlier.delta_bytes,
        }
    }

    /// The sum of two amounts.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self {
            messages: self.messages + other.messages,
            bytes: self.bytes + other.bytes,
            deltas: self.deltas + other.deltas,
            delta_bytes: self.delta_bytes + other.delta_bytes,
        }
    }
}
