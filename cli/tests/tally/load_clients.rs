//! Clients that count while something else happens.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use crate::support::tally;

/// Clients that count on all nodes in turn. Each of their commands has to succeed.
pub(crate) struct Clients {
    stop: Arc<AtomicBool>,
    clients: JoinHandle<i64>,
}

impl Clients {
    pub(crate) fn start(sockets: &[PathBuf]) -> Self {
        let stop = Arc::<AtomicBool>::default();
        let (stopped, sockets) = (Arc::clone(&stop), sockets.to_vec());
        let clients = std::thread::spawn(move || {
            let mut counted = 0;
            for socket in sockets.iter().cycle() {
                if stopped.load(Ordering::Relaxed) {
                    break;
                }
                tally(&["--at", socket.to_str().unwrap(), "add", "inbound_cidr", "192.0.2.7"]).ok();
                counted += 1;
            }
            counted
        });
        Self { stop, clients }
    }

    /// How many were counted.
    pub(crate) fn end(self) -> i64 {
        self.stop.store(true, Ordering::Relaxed);
        self.clients.join().unwrap()
    }
}
