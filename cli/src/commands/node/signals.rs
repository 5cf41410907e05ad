//! The signals that a node handles. None of them kills the node without a goodbye.

use std::io;
use std::task::{Context, Poll};

use rustix::process::Signal;
use tokio::signal::unix::{self, SignalKind};

/// What the node does when a signal arrives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Meaning {
    /// The node leaves the cluster and ends.
    Leave,
    /// The node reloads its configuration. There is nothing to reload yet.
    Reload,
    /// The node logs the signal and goes on.
    Ignore,
}

/// Every signal that would end a process and that a process can handle. Signals that report a fault of the program
/// (SEGV, ABRT and the like) are left out: they have to end it.
const HANDLED: &[(Signal, &str, Meaning)] = &[
    (Signal::TERM, "TERM", Meaning::Leave),
    (Signal::INT, "INT", Meaning::Leave),
    (Signal::QUIT, "QUIT", Meaning::Leave),
    (Signal::HUP, "HUP", Meaning::Reload),
    (Signal::USR1, "USR1", Meaning::Ignore),
    (Signal::USR2, "USR2", Meaning::Ignore),
    (Signal::ALARM, "ALRM", Meaning::Ignore),
    (Signal::VTALARM, "VTALRM", Meaning::Ignore),
    (Signal::PROF, "PROF", Meaning::Ignore),
    (Signal::PIPE, "PIPE", Meaning::Ignore),
    (Signal::IO, "IO", Meaning::Ignore),
    (Signal::XCPU, "XCPU", Meaning::Ignore),
    (Signal::XFSZ, "XFSZ", Meaning::Ignore),
    #[cfg(target_os = "linux")]
    (Signal::POWER, "PWR", Meaning::Ignore),
    #[cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
    (Signal::STKFLT, "STKFLT", Meaning::Ignore),
];

struct Stream {
    name: &'static str,
    meaning: Meaning,
    arrivals: unix::Signal,
}

/// The handled signals, each with its stream of arrivals.
pub(super) struct Signals(Vec<Stream>);

impl Signals {
    /// Handles the signals from now on. To be called within a runtime, before the node starts.
    pub(super) fn new() -> io::Result<Self> {
        let stream = |(signal, name, meaning): &(Signal, &'static str, Meaning)| {
            let arrivals = unix::signal(SignalKind::from_raw(signal.as_raw()))?;
            Ok(Stream { name, meaning: *meaning, arrivals })
        };
        Ok(Self(HANDLED.iter().map(stream).collect::<io::Result<_>>()?))
    }

    /// Waits for the next signal that asks for something. The others are logged.
    pub(super) async fn next(&mut self) -> Meaning {
        loop {
            let (name, meaning) = std::future::poll_fn(|context| self.poll(context)).await;
            if meaning != Meaning::Ignore {
                tracing::info!(signal = name, "signal received");
                return meaning;
            }
            tracing::info!(signal = name, "signal received; it has no meaning for a node");
        }
    }

    /// Waits for a signal that tells the node to leave.
    pub(super) async fn leave(&mut self) {
        while self.next().await != Meaning::Leave {}
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<(&'static str, Meaning)> {
        for stream in &mut self.0 {
            // The stream of a signal has no end.
            if stream.arrivals.poll_recv(context).is_ready() {
                return Poll::Ready((stream.name, stream.meaning));
            }
        }
        Poll::Pending
    }
}
