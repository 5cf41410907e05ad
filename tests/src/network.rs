//! The network between two nodes: a link that is up or down, and two directions with latency, room and faults.

use std::time::Duration;

use tallymesh_engine::Time;

use crate::random::Random;

/// Whether the messages of a cluster can be trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Messages {
    /// They arrive as they were sent, or not at all.
    Intact,
    /// Some are spoilt in undetectable ways, so a replica may hold rows that their owner never had.
    Spoilt,
}

/// How messages travel. Shares are in 1/10,000 of all messages.
#[derive(Debug, Clone)]
pub struct Conditions {
    /// Shortest latency of a message.
    pub latency: Duration,
    /// The greatest random addition to the latency, for nine of ten messages.
    pub jitter: Duration,
    /// The greatest random addition for the tenth message.
    pub tail: Duration,
    /// Messages that may be in flight in one direction. When there are that many, the link has no room.
    pub room: usize,
    /// The share that is lost.
    pub lose: u32,
    /// The share that arrives twice.
    pub double: u32,
    /// The share that other messages overtake.
    pub reorder: u32,
    /// The share that arrives truncated.
    pub truncate: u32,
    /// The share in which bits change.
    pub corrupt: u32,
}

impl Default for Conditions {
    fn default() -> Self {
        Self {
            latency: Duration::from_micros(500),
            jitter: Duration::from_millis(2),
            tail: Duration::from_millis(20),
            room: 32,
            lose: 0,
            double: 0,
            reorder: 0,
            truncate: 0,
            corrupt: 0,
        }
    }
}

impl Conditions {
    /// No message is lost or spoilt any more.
    pub fn calm(&mut self) {
        (self.lose, self.double, self.reorder, self.truncate, self.corrupt) = (0, 0, 0, 0, 0);
    }

    pub(crate) fn draw_latency(&self, random: &mut Random) -> Duration {
        let more = if random.chance(1000) { self.tail } else { self.jitter };
        self.latency + random.duration(Duration::ZERO, more)
    }
}

/// What happens to a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    Whole,
    Lost,
    Copy,
    Damaged,
}

/// One direction of a link.
#[derive(Debug, Clone, Default)]
pub(crate) struct Direction {
    /// Since when nothing passes.
    pub(crate) cut: Option<Time>,
    pub(crate) in_flight: usize,
    /// When the last message in order arrives.
    pub(crate) last: Time,
}

/// A link between two nodes. The lower number is end 0.
#[derive(Debug, Clone, Default)]
pub(crate) struct Link {
    pub(crate) up: bool,
    /// How often it has been opened. Messages of an earlier connection do not arrive on a later one.
    pub(crate) generation: u64,
    pub(crate) retry_at: Time,
    /// From end 0 to end 1, and back.
    pub(crate) ways: [Direction; 2],
    /// Since when an end has not answered, because it is gone or stopped.
    pub(crate) silent: Option<Time>,
    /// Since when neither end wants it.
    pub(crate) unwanted: Option<Time>,
}

/// The link between two nodes, and which of its directions leads from `from` to the other.
pub(crate) fn way(from: usize, to: usize) -> ((usize, usize), usize) {
    if from < to { ((from, to), 0) } else { ((to, from), 1) }
}

/// All links, by their ends.
#[derive(Debug, Default)]
pub(crate) struct Links {
    /// Indexed by the higher number and then by the lower one.
    ends: Vec<Vec<Link>>,
}

impl Links {
    /// Adds the links of one more node to all existing ones.
    pub(crate) fn add_node(&mut self) {
        self.ends.push(vec![Link::default(); self.ends.len()]);
    }

    pub(crate) fn get(&self, (low, high): (usize, usize)) -> Option<&Link> {
        self.ends.get(high)?.get(low)
    }

    pub(crate) fn get_mut(&mut self, (low, high): (usize, usize)) -> Option<&mut Link> {
        self.ends.get_mut(high)?.get_mut(low)
    }

    /// The ends of every link, in order.
    pub(crate) fn pairs(&self) -> impl Iterator<Item = (usize, usize)> + use<> {
        let nodes = self.ends.len();
        (0..nodes).flat_map(move |low| (low + 1..nodes).map(move |high| (low, high)))
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Link> {
        self.ends.iter_mut().flatten()
    }
}
