//! Signals of this process as they arrive.

use std::io;
use std::task::{Context, Poll};

use rustix::process::Signal;
use tokio::signal::unix::{self, SignalKind};

/// A set of signals that this process handles, each with its meaning for the caller.
pub(crate) struct Arrivals<T>(Vec<(T, unix::Signal)>);

impl<T: Copy> Arrivals<T> {
    /// Handles the signals from now on. Call it within a runtime.
    pub(crate) fn of(signals: impl IntoIterator<Item = (Signal, T)>) -> io::Result<Self> {
        let handled =
            |(signal, meaning): (Signal, T)| Ok((meaning, unix::signal(SignalKind::from_raw(signal.as_raw()))?));
        signals.into_iter().map(handled).collect::<io::Result<_>>().map(Self)
    }

    /// Waits for the next signal. Signals of one kind that arrive together count as one.
    pub(crate) async fn next(&mut self) -> T {
        std::future::poll_fn(|context| self.poll(context)).await
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<T> {
        for (meaning, arrivals) in &mut self.0 {
            // The stream of a signal has no end.
            if arrivals.poll_recv(context).is_ready() {
                return Poll::Ready(*meaning);
            }
        }
        Poll::Pending
    }
}
