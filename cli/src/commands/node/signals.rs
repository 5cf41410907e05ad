//! The signals that a node handles. None of them kills the node without a goodbye.

use std::io;

use rustix::process::Signal;

use crate::signals::Arrivals;

/// What the node does when a signal arrives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Meaning {
    /// The node leaves the cluster and ends.
    Leave,
    /// The node reads its configuration file again.
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

/// The handled signals, as they arrive.
pub(super) struct Signals(Arrivals<(&'static str, Meaning)>);

impl Signals {
    /// Handles the signals from now on. Call it within a runtime, before the node starts.
    pub(super) fn new() -> io::Result<Self> {
        let handled = HANDLED.iter().map(|(signal, name, meaning)| (*signal, (*name, *meaning)));
        Arrivals::of(handled).map(Self)
    }

    /// Waits for the next signal that asks for something. The others are logged.
    pub(super) async fn next(&mut self) -> Meaning {
        loop {
            let (name, meaning) = self.0.next().await;
            if meaning != Meaning::Ignore {
                tracing::info!(signal = name, "signal received");
                return meaning;
            }
            tracing::info!(signal = name, "signal received; it has no meaning for a node");
        }
    }

    /// Waits for a signal to leave.
    pub(super) async fn leave(&mut self) {
        while self.next().await != Meaning::Leave {}
    }
}
