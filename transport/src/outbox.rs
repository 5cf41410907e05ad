//! The queue of frames to write on one link, bounded in bytes.

use std::collections::VecDeque;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::bounds::{OUTBOX_FRAME, OUTBOX_HARD, OUTBOX_HIGH, OUTBOX_HIGH_MIN};

/// The queue of frames to write.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Debug)]
struct State {
    queue: VecDeque<Bytes>,
    /// Cost of the frames that are queued or being written.
    cost: usize,
    /// The cost at which the queue has no room.
    high: usize,
    /// A sender has learned that there is no room.
    starved: bool,
    end: End,
}

impl Default for State {
    fn default() -> Self {
        Self { queue: VecDeque::new(), cost: 0, high: OUTBOX_HIGH, starved: false, end: End::Open }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// Frames are accepted and written.
    Open,
    /// Queued frames are written; new ones are refused.
    Finishing,
    /// Nothing is accepted or written.
    Closed,
}

/// Why a frame was not queued.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PushError {
    Closed,
    Full(usize),
}

/// The result of taking frames from a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Taken {
    /// Frames of this total cost.
    Frames { cost: usize },
    /// No frames: all have been taken, and no more will come.
    Finished,
    /// No frames: the remaining ones have been dropped.
    Closed,
}

/// The cost of a queued payload.
pub(crate) fn cost_of(payload: &Bytes) -> usize {
    payload.len() + OUTBOX_FRAME
}

impl Outbox {
    /// Queues a payload.
    pub(crate) fn push(&self, payload: Bytes) -> Result<(), PushError> {
        let mut state = self.state.lock();
        if state.end != End::Open {
            return Err(PushError::Closed);
        }
        let cost = state.cost + cost_of(&payload);
        if cost > OUTBOX_HARD {
            state.starved = true;
            return Err(PushError::Full(state.cost));
        }
        state.cost = cost;
        state.queue.push_back(payload);
        drop(state);
        self.changed.notify_one();
        Ok(())
    }

    /// Adapts to a path that takes this many bytes at a time: the queue is full at this cost, within its bounds.
    pub(crate) fn follow(&self, bytes: usize) {
        self.state.lock().high = bytes.clamp(OUTBOX_HIGH_MIN, OUTBOX_HIGH);
    }

    /// The cost of the frames that are queued or being written.
    pub(crate) fn cost(&self) -> usize {
        self.state.lock().cost
    }

    /// Whether the queue is below its high-water mark. When it is not, [`Outbox::written`] says when to ask again.
    pub(crate) fn has_room(&self) -> bool {
        let mut state = self.state.lock();
        let room = state.cost < state.high;
        if !room {
            state.starved = true;
        }
        room
    }

    /// Waits for frames and takes some: as many as fit into a cost of `limit`, but at least one.
    pub(crate) async fn take(&self, limit: usize, batch: &mut Vec<Bytes>) -> Taken {
        loop {
            {
                let mut state = self.state.lock();
                let mut cost = 0;
                while cost < limit
                    && let Some(payload) = state.queue.pop_front()
                {
                    cost += cost_of(&payload);
                    batch.push(payload);
                }
                if cost > 0 {
                    return Taken::Frames { cost };
                }
                match state.end {
                    End::Open => {}
                    End::Finishing => return Taken::Finished,
                    End::Closed => return Taken::Closed,
                }
            }
            self.changed.notified().await;
        }
    }

    /// Records that frames of this cost have been written. Returns whether a sender waits for room that is there now.
    pub(crate) fn written(&self, cost: usize) -> bool {
        let mut state = self.state.lock();
        state.cost = state.cost.saturating_sub(cost);
        if state.starved && state.cost <= state.high / 2 && state.end == End::Open {
            state.starved = false;
            return true;
        }
        false
    }

    /// Accepts no more frames; the queued ones will be written.
    pub(crate) fn finish(&self) {
        let mut state = self.state.lock();
        if state.end == End::Open {
            state.end = End::Finishing;
        }
        drop(state);
        self.changed.notify_one();
    }

    /// Drops the queued frames and accepts no more.
    pub(crate) fn close(&self) {
        let mut state = self.state.lock();
        state.end = End::Closed;
        state.queue = VecDeque::new();
        drop(state);
        self.changed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tallymesh_schemas::bounds::FRAME_BYTES;

    fn payload(len: usize) -> Bytes {
        Bytes::from(vec![0; len])
    }

    fn taken(taken: Taken) -> usize {
        let Taken::Frames { cost } = taken else { panic!("{taken:?}") };
        cost
    }

    #[test]
    fn a_sender_that_asks_for_room_first_never_reaches_the_hard_bound() {
        let outbox = Outbox::default();
        while outbox.has_room() {
            outbox.push(payload(FRAME_BYTES)).unwrap();
        }
        assert!(outbox.push(payload(FRAME_BYTES)).is_ok(), "the hard bound leaves room above the high-water mark");
        assert!(matches!(outbox.push(payload(FRAME_BYTES)), Err(PushError::Full(_))));
    }

    #[test]
    fn tiny_frames_cost_their_place() {
        let outbox = Outbox::default();
        let mut frames = 0;
        while outbox.push(payload(1)).is_ok() {
            frames += 1;
        }
        assert_eq!(frames, OUTBOX_HARD / (OUTBOX_FRAME + 1));
    }

    #[test]
    fn a_slow_path_has_a_short_queue() {
        let outbox = Outbox::default();
        outbox.follow(0);
        outbox.push(payload(OUTBOX_HIGH_MIN)).unwrap();
        assert!(!outbox.has_room());
        outbox.follow(usize::MAX);
        assert!(outbox.has_room());
        outbox.push(payload(OUTBOX_HIGH)).unwrap();
        assert!(!outbox.has_room());
    }

    #[tokio::test]
    async fn room_is_reported_once_and_only_to_a_waiting_task() {
        let outbox = Outbox::default();
        let mut batch = Vec::new();
        outbox.push(payload(OUTBOX_HIGH)).unwrap();
        let cost = taken(outbox.take(1, &mut batch).await);
        assert!(!outbox.written(cost), "no task waits for room");
        outbox.push(payload(OUTBOX_HIGH)).unwrap();
        assert!(!outbox.has_room());
        let cost = taken(outbox.take(1, &mut batch).await);
        assert!(!outbox.has_room(), "what is being written still counts");
        assert!(outbox.written(cost));
        assert!(!outbox.written(0), "once");
    }

    #[tokio::test]
    async fn a_finished_queue_is_written_to_its_end() {
        let outbox = Outbox::default();
        let mut batch = Vec::new();
        outbox.push(payload(3)).unwrap();
        outbox.finish();
        assert_eq!(outbox.push(payload(3)), Err(PushError::Closed));
        taken(outbox.take(1, &mut batch).await);
        assert_eq!(outbox.take(1, &mut batch).await, Taken::Finished);
        outbox.close();
        assert_eq!(outbox.take(1, &mut batch).await, Taken::Closed);
    }
}
