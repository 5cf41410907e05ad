//! The ground truth: a record of all counts, separate from the nodes.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::admin::Admin;

/// The objects of the load: one that drops a dead node's counts, and two that hold them.
pub(crate) const OBJECTS: [&str; 3] = [INBOUND, DOMAINS, "outbound_binding_domains"];

/// Drops a dead node's counts.
pub(crate) const INBOUND: &str = "inbound_cidr";

/// Holds a dead node's counts.
pub(crate) const DOMAINS: &str = "outbound_domains";

/// Lines that a load adds at a time, and the pause after them: some thousand additions a second on each node.
const LINES: usize = 20;
const PAUSE: Duration = Duration::from_millis(5);

/// The counts of one object.
pub(crate) type View = BTreeMap<String, i64>;

/// The true counts of the current runs of the nodes.
#[derive(Debug, Clone)]
pub(crate) struct Truth(Vec<Arc<Mutex<BTreeMap<&'static str, View>>>>);

impl Truth {
    /// Without counts.
    pub(crate) fn new(nodes: usize) -> Self {
        Self((0..nodes).map(|_| Arc::default()).collect())
    }

    /// The sum of the counts of these nodes.
    pub(crate) fn view(&self, nodes: impl IntoIterator<Item = usize>, object: &str) -> View {
        let mut view = View::new();
        for node in nodes {
            let counted = self.0[node].lock().expect("no thread panics with it");
            for (key, n) in counted.get(object).into_iter().flatten() {
                *view.entry(key.clone()).or_default() += n;
            }
        }
        view.retain(|_, n| *n != 0);
        view
    }

    /// Records that a node has begun a new run.
    pub(crate) fn begin(&self, node: usize) {
        self.0[node].lock().expect("no thread panics with it").clear();
    }

    /// Records lines that a node has acknowledged.
    pub(crate) fn note(&self, node: usize, object: &'static str, lines: &[(String, i64)]) {
        let mut counted = self.0[node].lock().expect("no thread panics with it");
        let view = counted.entry(object).or_default();
        for (key, n) in lines {
            *view.entry(key.clone()).or_default() += n;
        }
    }
}

/// Counts on one node until it is stopped.
#[derive(Debug)]
pub(crate) struct Load {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<(u64, std::io::Result<()>)>,
}

impl Load {
    /// Begins to count on the node at this socket.
    pub(crate) fn begin(truth: &Truth, node: usize, socket: PathBuf, seed: u64) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (truth, stopped) = (truth.clone(), Arc::clone(&stop));
        let thread = std::thread::spawn(move || {
            let mut added = 0;
            let end = count(&truth, node, &socket, seed, &stopped, &mut added);
            (added, end)
        });
        Self { stop, thread }
    }

    /// Ends the load, and returns how much it added.
    pub(crate) fn end(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        let (added, end) = self.finish();
        end.expect("the node answers");
        added
    }

    /// The end of the load of a killed node: its next request fails. Returns how much it added.
    pub(crate) fn end_of_killed(self) -> u64 {
        let (added, end) = self.finish();
        end.expect_err("a killed node does not answer");
        added
    }

    fn finish(self) -> (u64, std::io::Result<()>) {
        self.thread.join().expect("the load does not panic")
    }
}

fn count(
    truth: &Truth,
    node: usize,
    socket: &std::path::Path,
    seed: u64,
    stop: &AtomicBool,
    added: &mut u64,
) -> std::io::Result<()> {
    let mut admin = Admin::connect(socket)?;
    let mut random = Random(seed);
    while !stop.load(Ordering::Relaxed) {
        let object = OBJECTS[random.below(OBJECTS.len() as u64) as usize];
        let lines: Vec<_> = (0..LINES).map(|_| (key(object, &mut random), random.below(8) as i64 - 2)).collect();
        admin.load(object, &lines)?;
        truth.note(node, object, &lines);
        *added += lines.len() as u64;
        std::thread::sleep(PAUSE);
    }
    Ok(())
}

/// One of some hundred keys, which are the same on all nodes.
fn key(object: &str, random: &mut Random) -> String {
    let number = random.below(800);
    match object {
        INBOUND => format!("10.200.{}.{}", number / 100, number % 100),
        DOMAINS => format!("d{number}.example"),
        _ => format!("b{}/d{}.example", number % 7, number / 7),
    }
}

/// SplitMix64 (Steele, Lea & Flood 2014).
#[derive(Debug, Clone)]
pub(crate) struct Random(pub(crate) u64);

impl Random {
    /// The next number.
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    /// A number below `n`.
    pub(crate) fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    /// Random bytes.
    pub(crate) fn bytes(&mut self, len: usize) -> Vec<u8> {
        std::iter::repeat_with(|| self.next().to_le_bytes()).flatten().take(len).collect()
    }
}
