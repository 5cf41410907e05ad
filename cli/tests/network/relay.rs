//! A relay in the switch's namespace that loses and delays what it passes on, for kernels without netem.
//!
//! Each machine has an address at the relay, which it advertises. What comes from one machine to another's address is
//! sent on from the first one's address: to the nodes it looks like the network that it stands for.

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

/// What the relay does to what passes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Weather {
    /// Datagrams of a hundred that are lost.
    pub(crate) loss: u64,
    /// How long each takes.
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
    /// Starts a relay between the machines of a lab. The sky is clear.
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

    /// The weather begins.
    pub(crate) fn begin_storm(&self) {
        self.state.storm.store(true, Ordering::Relaxed);
    }

    /// The weather ends.
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
            // A relay that panicked has failed the test already: nothing passed any more.
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
    // An error says that the relay was dropped, which is what is waited for.
    let _ = ended.await;
}

/// Takes what comes to one machine's address.
async fn receive(state: Arc<State>, sockets: Arc<[UdpSocket]>, to: usize) {
    let mut random = Random(to as u64);
    let mut datagram = vec![0; DATAGRAM];
    loop {
        // An unreachable port is told as an error of the next read: a node that does not run.
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
    // What cannot be sent is lost, as on any network.
    let _ = socket.send_to(data, to).await;
}
