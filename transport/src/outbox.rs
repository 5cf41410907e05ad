//! The queue of frames that wait to be written on one link: bounded in bytes.

use std::collections::VecDeque;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::limits::{OUTBOX_FRAME, OUTBOX_HARD, OUTBOX_HIGH, OUTBOX_HIGH_MIN};

/// The queue of frames that wait to be written.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Debug)]
struct State {
    queue: VecDeque<Bytes>,
    /// Cost of what is queued and of what is being written.
    cost: usize,
    /// The cost at which there is no room any more.
    high: usize,
    /// Somebody was told that there is no room.
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
    /// Frames come and go.
    Open,
    /// What is queued goes, nothing comes.
    Finishing,
    /// Nothing comes, nothing goes.
    Closed,
}

/// Why a frame was not queued.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PushError {
    Closed,
    Full(usize),
}

/// What was taken from a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Taken {
    /// Frames that cost so much together.
    Frames { cost: usize },
    /// Nothing: all has been taken, and no more will come.
    Finished,
    /// Nothing: what was left has been dropped.
    Closed,
}

/// What a queued payload costs.
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

    /// The path takes so many bytes at a time: the queue is full with as many, within its bounds.
    pub(crate) fn follow(&self, bytes: usize) {
        self.state.lock().high = bytes.clamp(OUTBOX_HIGH_MIN, OUTBOX_HIGH);
    }

    /// Whether the queue is below its high-water mark. When it says no, [`Outbox::written`] will say when to ask again.
    pub(crate) fn has_room(&self) -> bool {
        let mut state = self.state.lock();
        let room = state.cost < state.high;
        if !room {
            state.starved = true;
        }
        room
    }

    /// Waits for frames and takes some: as many as cost `limit` together, one at least.
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

    /// Frames of this cost have been written. Says whether somebody waits for room that is there now.
    pub(crate) fn written(&self, cost: usize) -> bool {
        let mut state = self.state.lock();
        state.cost = state.cost.saturating_sub(cost);
        if state.starved && state.cost <= state.high / 2 && state.end == End::Open {
            state.starved = false;
            return true;
        }
        false
    }

    /// Takes no more; what is queued will be written.
    pub(crate) fn finish(&self) {
        let mut state = self.state.lock();
        if state.end == End::Open {
            state.end = End::Finishing;
        }
        drop(state);
        self.changed.notify_one();
    }

    /// Drops what is queued and takes no more.
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
    use tallymesh_schemas::limits::FRAME_BYTES;

    fn payload(len: usize) -> Bytes {
        Bytes::from(vec![0; len])
    }

    fn taken(taken: Taken) -> usize {
        let Taken::Frames { cost } = taken else { panic!("{taken:?}") };
        cost
    }

    #[test]
    fn who_asks_for_room_first_never_meets_the_hard_bound() {
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
    async fn room_is_reported_once_and_only_to_who_waits() {
        let outbox = Outbox::default();
        let mut batch = Vec::new();
        outbox.push(payload(OUTBOX_HIGH)).unwrap();
        let cost = taken(outbox.take(1, &mut batch).await);
        assert!(!outbox.written(cost), "nobody asked");
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
