//! A small substitute for Maelstrom: runs nodes as processes and carries their messages, with delay, loss, duplication and
//! partitions, all drawn from one seed. As in Maelstrom, messages between clients and nodes have no faults.

use std::collections::{BTreeMap, BinaryHeap};
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// The longest wait for an answer or a condition: so long that no test fails on a busy machine.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

/// What the network does to messages between nodes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Faults {
    /// Shortest delay.
    pub(crate) latency: Duration,
    /// The largest addition to it, uniformly drawn, so that messages overtake each other.
    pub(crate) jitter: Duration,
    /// Percentage of lost messages.
    pub(crate) loss: u64,
    /// Percentage of messages that arrive twice.
    pub(crate) duplication: u64,
}

/// Counts the messages between nodes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) sent: u64,
    pub(crate) bytes: u64,
    pub(crate) lost: u64,
    pub(crate) doubled: u64,
    pub(crate) cut: u64,
}

/// An answer and its arrival.
pub(crate) struct Answer {
    pub(crate) body: Value,
    pub(crate) at: Instant,
}

pub(crate) struct Network {
    nodes: Vec<Process>,
    lines: Receiver<Line>,
    /// Messages in transit; the next one on top.
    in_transit: BinaryHeap<Delivery>,
    faults: Faults,
    random: Random,
    /// No message passes between nodes of different sides.
    sides: Vec<u8>,
    pub(crate) counts: Counts,
    /// Messages of each node that were lost.
    pub(crate) lost_of: Vec<u64>,
    /// Answers that no test has taken yet, by the number of their request.
    answers: BTreeMap<u64, Answer>,
    requests: u64,
}

struct Process {
    child: Child,
    stdin: ChildStdin,
}

struct Line {
    from: usize,
    text: String,
}

/// In reverse order, so that the next one is the greatest.
#[derive(PartialEq, Eq)]
struct Delivery {
    at: Instant,
    number: u64,
    to: usize,
    line: String,
}

impl Ord for Delivery {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (other.at, other.number).cmp(&(self.at, self.number))
    }
}

impl PartialOrd for Delivery {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

/// SplitMix64 (Steele et al., 2014).
pub(crate) struct Random(pub u64);

impl Random {
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound.max(1)
    }
}

impl Process {
    fn start(workload: &str, number: usize, lines: Sender<Line>) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_tally"))
            .args(["maelstrom", workload])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the built binary starts");
        let stdin = child.stdin.take().expect("stdin is piped");
        let stdout = child.stdout.take().expect("stdout is piped");
        // Ends with the process.
        thread::spawn(move || {
            for text in BufReader::new(stdout).lines().map_while(Result::ok) {
                if lines.send(Line { from: number, text }).is_err() {
                    return;
                }
            }
        });
        Self { child, stdin }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn name(node: usize) -> String {
    format!("n{node}")
}

impl Network {
    /// Starts nodes without `init`.
    pub(crate) fn start(workload: &str, nodes: usize, faults: Faults, seed: u64) -> Self {
        let (sender, lines) = mpsc::channel();
        let nodes: Vec<_> = (0..nodes).map(|n| Process::start(workload, n, sender.clone())).collect();
        Self {
            sides: vec![0; nodes.len()],
            lost_of: vec![0; nodes.len()],
            nodes,
            lines,
            in_transit: BinaryHeap::new(),
            faults,
            random: Random(seed),
            counts: Counts::default(),
            answers: BTreeMap::new(),
            requests: 0,
        }
    }

    /// Starts a cluster whose nodes know each other.
    pub(crate) fn cluster(workload: &str, nodes: usize, faults: Faults, seed: u64) -> Self {
        let mut network = Self::start(workload, nodes, faults, seed);
        let names: Vec<_> = (0..nodes).map(name).collect();
        let requests: Vec<_> = (0..nodes)
            .map(|n| network.request(n, json!({ "type": "init", "node_id": name(n), "node_ids": names })))
            .collect();
        for request in requests {
            assert_eq!(network.answer(request).body["type"], "init_ok");
        }
        network
    }

    pub(crate) fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Cuts these nodes off from the others.
    pub(crate) fn cut(&mut self, nodes: &[usize]) {
        for node in nodes {
            self.sides[*node] = 1;
        }
    }

    pub(crate) fn heal(&mut self) {
        self.sides.fill(0);
    }

    pub(crate) fn set_faults(&mut self, faults: Faults) {
        self.faults = faults;
    }

    /// Sends a request to a node, and returns the number of its answer.
    pub(crate) fn request(&mut self, node: usize, mut body: Value) -> u64 {
        self.requests += 1;
        body["msg_id"] = json!(self.requests);
        self.write(node, &json!({ "src": "c1", "dest": name(node), "body": body }).to_string());
        self.requests
    }

    /// Writes a line to a node as it is.
    pub(crate) fn write(&mut self, node: usize, line: &str) {
        let stdin = &mut self.nodes[node].stdin;
        stdin.write_all(line.as_bytes()).and_then(|()| stdin.write_all(b"\n")).expect("the node reads");
    }

    /// Waits for an answer.
    pub(crate) fn answer(&mut self, request: u64) -> Answer {
        self.until("an answer", |network| network.try_answer(request))
    }

    pub(crate) fn try_answer(&mut self, request: u64) -> Option<Answer> {
        self.answers.remove(&request)
    }

    /// Asks a node and waits for its answer.
    pub(crate) fn call(&mut self, node: usize, body: Value) -> Value {
        let request = self.request(node, body);
        self.answer(request).body
    }

    /// Carries messages until `there` finds something.
    pub(crate) fn until<T>(&mut self, what: &str, mut there: impl FnMut(&mut Self) -> Option<T>) -> T {
        let deadline = Instant::now() + DEADLINE;
        loop {
            if let Some(found) = there(self) {
                return found;
            }
            assert!(Instant::now() < deadline, "{what} did not come within {DEADLINE:?}; messages: {:?}", self.counts);
            self.carry(Instant::now() + Duration::from_millis(5));
        }
    }

    /// Carries messages until this moment.
    pub(crate) fn carry(&mut self, until: Instant) {
        loop {
            let now = Instant::now();
            while self.in_transit.peek().is_some_and(|next| next.at <= now) {
                if let Some(Delivery { to, line, .. }) = self.in_transit.pop() {
                    self.write(to, &line);
                }
            }
            let next = self.in_transit.peek().map_or(until, |next| next.at.min(until));
            match self.lines.recv_timeout(next.saturating_duration_since(now)) {
                Ok(line) => self.take(line),
                Err(RecvTimeoutError::Timeout) if now >= until => return,
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => panic!("all nodes have ended"),
            }
        }
    }

    fn take(&mut self, Line { from, text }: Line) {
        let message: Value = serde_json::from_str(&text).expect("a node writes JSON");
        assert_eq!(message["src"], name(from), "a node names itself as the sender");
        let dest = message["dest"].as_str().expect("a message has a receiver");
        match dest.strip_prefix('n').and_then(|number| number.parse().ok()) {
            Some(to) => self.send(from, to, text),
            None => {
                let request = message["body"]["in_reply_to"].as_u64().expect("a message to a client is an answer");
                let body = message["body"].clone();
                self.answers.insert(request, Answer { body, at: Instant::now() });
            }
        }
    }

    fn send(&mut self, from: usize, to: usize, line: String) {
        self.counts.sent += 1;
        self.counts.bytes += line.len() as u64;
        if self.sides[from] != self.sides[to] {
            self.counts.cut += 1;
            return;
        }
        if self.random.below(100) < self.faults.loss {
            self.counts.lost += 1;
            self.lost_of[from] += 1;
            return;
        }
        if self.random.below(100) < self.faults.duplication {
            self.counts.doubled += 1;
            self.delay(to, line.clone());
        }
        self.delay(to, line);
    }

    fn delay(&mut self, to: usize, line: String) {
        let jitter = self.random.below(self.faults.jitter.as_micros() as u64 + 1);
        let at = Instant::now() + self.faults.latency + Duration::from_micros(jitter);
        let number = self.random.below(u64::MAX);
        self.in_transit.push(Delivery { at, number, to, line });
    }
}
