//! A relay in the switch's namespace that loses and delays datagrams, for kernels without netem.
//!
//! Each machine advertises an address at the relay. The relay forwards a datagram to another machine's address, with the sender's
//! address at the relay as its source. So it looks like a network to the nodes.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::net::UdpSocket;
use tokio::sync::oneshot;

use crate::lab::{self, Lab, ip};
use crate::truth::Random;

/// Larger than any datagram that fits the cables.
const DATAGRAM: usize = 2048;

/// What the relay does to datagrams.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Weather {
    /// Percentage of lost datagrams.
    pub(crate) loss: u64,
    /// The delay of each other datagram.
    pub(crate) delay: Duration,
}

/// A running relay; it ends when dropped.
#[derive(Debug)]
pub(crate) struct Relay {
    state: Arc<State>,
    end: Option<oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

#[derive(Debug)]
struct State {
    weather: Weather,
    storm: AtomicBool,
    passed: AtomicU64,
    lost: AtomicU64,
}

impl Relay {
    /// Starts a relay between the machines of a lab, without loss and delay.
    pub(crate) fn start(lab: &Lab, machines: usize, weather: Weather) -> Self {
        let hub = lab.hub();
        for machine in 0..machines {
            ip(&format!("-n {hub} addr add {}/24 dev near", lab::relayed(machine).ip()));
        }
        let (storm, passed, lost) = (AtomicBool::new(false), AtomicU64::new(0), AtomicU64::new(0));
        let state = Arc::new(State { weather, storm, passed, lost });
        let (end, ended) = oneshot::channel();
        let shared = Arc::clone(&state);
        let thread = lab::within(hub, move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(pass_on(shared, machines, ended));
        });
        Self { state, end: Some(end), thread: Some(thread) }
    }

    /// Begins to lose and to delay datagrams.
    pub(crate) fn begin_storm(&self) {
        self.state.storm.store(true, Ordering::Relaxed);
    }

    /// Ends the loss and the delay.
    pub(crate) fn end_storm(&self) {
        self.state.storm.store(false, Ordering::Relaxed);
    }

    /// Datagrams that passed in the storm, and that were lost.
    pub(crate) fn seen(&self) -> (u64, u64) {
        (self.state.passed.load(Ordering::Relaxed), self.state.lost.load(Ordering::Relaxed))
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        drop(self.end.take());
        if let Some(thread) = self.thread.take() {
            // If it panicked, the test has failed already, because no datagram passed any more.
            let _ = thread.join();
        }
    }
}

async fn pass_on(state: Arc<State>, machines: usize, ended: oneshot::Receiver<()>) {
    let mut sockets = Vec::new();
    for machine in 0..machines {
        sockets.push(UdpSocket::bind(lab::relayed(machine)).await.expect("the relay's own address"));
    }
    let sockets: Arc<[UdpSocket]> = sockets.into();
    let mut tasks = tokio::task::JoinSet::new();
    for to in 0..machines {
        tasks.spawn(receive(Arc::clone(&state), Arc::clone(&sockets), to));
    }
    // It ends with an error when the relay is dropped.
    let _ = ended.await;
}

/// Forwards the datagrams to one machine's address.
async fn receive(state: Arc<State>, sockets: Arc<[UdpSocket]>, to: usize) {
    let mut random = Random(to as u64);
    let mut datagram = vec![0; DATAGRAM];
    loop {
        // The next read reports an unreachable port as an error: the node does not run.
        let Ok((len, sender)) = sockets[to].recv_from(&mut datagram).await else { continue };
        let Some(from) = (0..sockets.len()).find(|machine| lab::address(*machine) == sender) else { continue };
        let storm = state.storm.load(Ordering::Relaxed);
        if storm && random.below(100) < state.weather.loss {
            state.lost.fetch_add(1, Ordering::Relaxed);
            continue;
        }
        let data = datagram[..len].to_vec();
        if !storm {
            send(&sockets[from], &data, lab::address(to)).await;
            continue;
        }
        state.passed.fetch_add(1, Ordering::Relaxed);
        let (sockets, delay) = (Arc::clone(&sockets), state.weather.delay);
        tokio::spawn(async move {
            tokio::time::sleep(delay).await;
            send(&sockets[from], &data, lab::address(to)).await;
        });
    }
}

async fn send(socket: &UdpSocket, data: &[u8], to: SocketAddr) {
    // A datagram that cannot be sent is lost, as on any network.
    let _ = socket.send_to(data, to).await;
}
