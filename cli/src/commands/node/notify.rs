//! Notifies the service manager that started the node: the protocol of sd_notify(3), over the socket that NOTIFY_SOCKET names.

use std::env;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use tallymesh::Node;

/// The connection to the service manager, if there is one.
#[derive(Debug, Default)]
pub(super) struct Notify {
    socket: Option<UnixDatagram>,
    /// How often the manager expects a keep-alive message, if it does.
    watchdog: Option<Duration>,
}

impl Notify {
    /// Reads NOTIFY_SOCKET, WATCHDOG_USEC and WATCHDOG_PID.
    pub(super) fn from_env() -> Self {
        let Some(name) = env::var_os("NOTIFY_SOCKET") else { return Self::default() };
        let socket = connect(name.as_encoded_bytes());
        if let Err(error) = &socket {
            tracing::warn!(socket = %name.to_string_lossy(), %error, "the service manager cannot be reached");
        }
        let number = |name: &str| env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
        let ours = number("WATCHDOG_PID").is_none_or(|pid| pid == u64::from(std::process::id()));
        let watchdog = number("WATCHDOG_USEC").filter(|usec| ours && *usec > 0).map(Duration::from_micros);
        Self { socket: socket.ok(), watchdog }
    }

    /// The node has joined its cluster, or has no other node to join.
    pub(super) fn ready(&self) {
        self.send("READY=1");
    }

    /// The node was asked to reload. [`Notify::ready`] follows.
    pub(super) fn reloading(&self) {
        let now = clock_gettime(ClockId::Monotonic);
        let usec = i128::from(now.tv_sec) * 1_000_000 + i128::from(now.tv_nsec) / 1000;
        self.send(&format!("RELOADING=1\nMONOTONIC_USEC={usec}"));
    }

    /// The node leaves.
    pub(super) fn stopping(&self) {
        self.send("STOPPING=1");
    }

    /// Sends keep-alive messages for as long as the node's driver answers, twice as often as the manager expects them.
    pub(super) async fn watch(&self, node: &Node) {
        self.watch_while(async || node.members().await.is_ok()).await;
    }

    async fn watch_while(&self, answers: impl AsyncFn() -> bool) {
        let Some(watchdog) = self.watchdog.filter(|_| self.socket.is_some()) else {
            return std::future::pending().await;
        };
        let mut turns = tokio::time::interval(watchdog / 2);
        turns.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            turns.tick().await;
            // A driver that does not answer makes this wait, and the manager restarts the node.
            if answers().await {
                self.send("WATCHDOG=1");
            }
        }
    }

    fn send(&self, message: &str) {
        let Some(socket) = &self.socket else { return };
        if let Err(error) = socket.send(message.as_bytes()) {
            tracing::debug!(message, %error, "the service manager could not be notified");
        }
    }
}

/// A socket that never waits, connected to a path, or to a name in the abstract namespace when it begins with @.
fn connect(name: &[u8]) -> std::io::Result<UnixDatagram> {
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    socket.connect_addr(&address(name)?)?;
    Ok(socket)
}

fn address(name: &[u8]) -> std::io::Result<SocketAddr> {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;
    #[cfg(target_os = "linux")]
    if let [b'@', name @ ..] = name {
        use std::os::linux::net::SocketAddrExt;
        return SocketAddr::from_abstract_name(name);
    }
    SocketAddr::from_pathname(OsStr::from_bytes(name))
}

#[cfg(test)]
mod tests {
    use std::future::pending;
    use std::io::ErrorKind;

    use super::*;

    fn manager() -> (UnixDatagram, Notify) {
        let (ours, theirs) = UnixDatagram::pair().unwrap();
        theirs.set_nonblocking(true).unwrap();
        (theirs, Notify { socket: Some(ours), watchdog: Some(Duration::from_millis(2)) })
    }

    #[tokio::test]
    async fn keep_alive_messages_are_sent_only_while_the_driver_answers() {
        let ((manager, notify), while_it_watches) = (manager(), Duration::from_millis(50));
        let _ = tokio::time::timeout(while_it_watches, notify.watch_while(pending)).await;
        assert_eq!(manager.recv(&mut [0]).unwrap_err().kind(), ErrorKind::WouldBlock);
        let _ = tokio::time::timeout(while_it_watches, notify.watch_while(async || false)).await;
        assert_eq!(manager.recv(&mut [0]).unwrap_err().kind(), ErrorKind::WouldBlock);
        let _ = tokio::time::timeout(while_it_watches, notify.watch_while(async || true)).await;
        let mut message = [0; 32];
        let len = manager.recv(&mut message).unwrap();
        assert_eq!(&message[..len], b"WATCHDOG=1");
    }

    #[test]
    fn names_are_paths_or_abstract() {
        assert_eq!(address(b"/run/notify").unwrap().as_pathname(), Some(std::path::Path::new("/run/notify")));
        #[cfg(target_os = "linux")]
        {
            use std::os::linux::net::SocketAddrExt;
            assert_eq!(address(b"@manager").unwrap().as_abstract_name(), Some(b"manager".as_slice()));
        }
    }
}
