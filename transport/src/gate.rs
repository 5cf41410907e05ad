//! A switch that disconnects an endpoint from the network.

use std::io::{self, IoSliceMut};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll};

use quinn::udp::{RecvMeta, Transmit};
use quinn::{AsyncUdpSocket, UdpPoller};

use crate::bounds::{UDP_BATCH, UDP_PAYLOAD};

/// A switch in front of the socket. While it is closed, the socket drops every packet in both directions, like a pulled cable.
/// Clones share one switch.
#[derive(Debug, Clone, Default)]
pub struct Gate(Arc<State>);

#[derive(Debug, Default)]
struct State {
    closed: AtomicBool,
    dropped_in: AtomicU64,
    dropped_out: AtomicU64,
}

impl Gate {
    /// Drops every packet from now on.
    pub fn close(&self) {
        self.0.closed.store(true, Ordering::Release);
    }

    /// Lets packets through again.
    pub fn open(&self) {
        self.0.closed.store(false, Ordering::Release);
    }

    /// Whether packets pass. A new gate is open.
    pub fn is_open(&self) -> bool {
        !self.0.closed.load(Ordering::Acquire)
    }

    /// Packets dropped so far: coming in, going out.
    pub fn dropped(&self) -> (u64, u64) {
        (self.0.dropped_in.load(Ordering::Relaxed), self.0.dropped_out.load(Ordering::Relaxed))
    }
}

/// A socket behind a gate.
#[derive(Debug)]
pub(crate) struct GatedSocket {
    pub(crate) inner: Arc<dyn AsyncUdpSocket>,
    pub(crate) gate: Gate,
}

/// Dropped reads in a row before other tasks may run.
const DISCARDS: usize = 64;

impl AsyncUdpSocket for GatedSocket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Arc::clone(&self.inner).create_io_poller()
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        if self.gate.is_open() {
            return self.inner.try_send(transmit);
        }
        let packets = packets(transmit.contents.len(), transmit.segment_size.unwrap_or(0));
        self.gate.0.dropped_out.fetch_add(packets, Ordering::Relaxed);
        Ok(())
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        for _ in 0..DISCARDS {
            let received = match self.inner.poll_recv(cx, bufs, meta) {
                Poll::Ready(Ok(received)) => received,
                other => return other,
            };
            if self.gate.is_open() {
                return Poll::Ready(Ok(received));
            }
            let dropped = meta.iter().take(received).map(|meta| packets(meta.len, meta.stride)).sum();
            self.gate.0.dropped_in.fetch_add(dropped, Ordering::Relaxed);
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.inner.local_addr()
    }

    fn max_transmit_segments(&self) -> usize {
        self.inner.max_transmit_segments().min(UDP_BATCH / usize::from(UDP_PAYLOAD))
    }

    fn max_receive_segments(&self) -> usize {
        self.inner.max_receive_segments()
    }

    fn may_fragment(&self) -> bool {
        self.inner.may_fragment()
    }
}

/// How many packets a buffer of `len` bytes holds when each but the last has `stride` bytes.
fn packets(len: usize, stride: usize) -> u64 {
    if stride == 0 { 1 } else { len.div_ceil(stride) as u64 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clones_are_one_switch() {
        let gate = Gate::default();
        let other = gate.clone();
        assert!(gate.is_open());
        other.close();
        assert!(!gate.is_open());
        gate.open();
        assert!(other.is_open());
    }

    #[test]
    fn segments_count_as_packets() {
        assert_eq!(packets(1200, 0), 1);
        assert_eq!(packets(1200, 1200), 1);
        assert_eq!(packets(2500, 1200), 3);
    }
}
