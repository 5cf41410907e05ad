//! One node: a replica, its structure, and the pace at which it sends.
//!
//! # Pace
//! Every node has a link to every other node and sends its own rows itself, so a change costs at least one message per peer.
//! That is cheap if a message carries many changes. So a node sends in *rounds*: everything that waits for a peer, rows, digest
//! and requests, goes into one message. The next round begins n · `ROUND` later, where n is the number of nodes. If the last
//! round is longer ago, a change is sent at once; other changes wait for half a round on average. So a node sends at most
//! (n − 1) / (n · `ROUND`) messages a second, which is below 50 for every n, and a change is known to all nodes one round and
//! one delay after it happened.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tallymesh_engine::{Config, Event, Now, Replica, Structure, Time};
use tallymesh_schemas::{Class, Incarnation, NodeName, OnDead, StructureId, StructureName, StructureSpec};

use crate::maelstrom::link::{self, LinkError};
use crate::maelstrom::protocol::{self, Body, Envelope, Refusal};
use crate::maelstrom::workload::Workload;

/// Time between two rounds, for every node of the cluster: 100 ms with 5 nodes, 500 ms with 25.
const ROUND: Duration = Duration::from_millis(20);

/// Rounds between two digests. A digest goes into the message of a round, together with rows if there are any.
const DIGEST_ROUNDS: u32 = 4;

/// Bytes of frames in one message. The rest goes into the next round.
const MESSAGE_BYTES: usize = 512 << 10;

/// A node before and after `init` names it.
#[derive(Debug)]
pub(super) struct Node {
    workload: Workload,
    member: Option<Member>,
}

#[derive(Debug)]
struct Member {
    node_ids: Value,
    replica: Replica,
    structure: Arc<Structure>,
    round: Duration,
    next_round: Time,
    /// There may be something to send.
    waiting: bool,
}

impl Node {
    pub(super) fn new(workload: Workload) -> Self {
        Self { workload, member: None }
    }

    /// Handles one line, and appends the answer to `out`.
    pub(super) fn handle_line(&mut self, now: Now, line: &[u8], out: &mut Vec<u8>) {
        let message = match protocol::read(line) {
            Ok(message) => message,
            // Without an envelope there is no one to answer. Maelstrom keeps what nodes write to stderr.
            Err(error) => return complain(&error),
        };
        let answer = match protocol::kind(&message.body) {
            Ok(link::TYPE) => return self.handle_peer(now, &message),
            Ok("init") => self.init(now, &message.body),
            Ok(request) => match &mut self.member {
                Some(member) => {
                    member.waiting = true;
                    self.workload.serve(&member.structure, now, request, &message.body)
                }
                None => Err(Refusal::Unnamed),
            },
            Err(refusal) => Err(refusal),
        };
        if let Some(reply) = protocol::reply(&message, answer) {
            protocol::write(&reply, out);
        }
    }

    fn init(&mut self, now: Now, args: &Body) -> Result<Body, Refusal> {
        let name = |value: &Value| NodeName::new(value.as_str().unwrap_or_default()).ok();
        let bad_name = || Refusal::field("node_id", "has to be a host name in lower case");
        let bad_names = || Refusal::field("node_ids", "has to list all nodes by host names in lower case");
        let node = args.get("node_id").and_then(name).ok_or_else(bad_name)?;
        let node_ids = args.get("node_ids").unwrap_or(&Value::Null);
        let nodes = node_ids.as_array().and_then(|ids| ids.iter().map(name).collect::<Option<Vec<_>>>());
        let nodes = nodes.ok_or_else(bad_names)?;
        match &self.member {
            None => self.member = Some(Member::new(now, self.workload, node, nodes, node_ids.clone())?),
            // A duplicate init is answered like the first, and does not reset the node.
            Some(member) if *member.replica.actor().node.as_str() == *node.as_str() && member.node_ids == *node_ids => {
            }
            Some(member) => {
                let is = member.replica.actor().node.to_string();
                return Err(Refusal::field("node_id", format!("cannot change: this node is {is}, among its nodes")));
            }
        }
        Ok(protocol::body("init_ok", []))
    }

    fn handle_peer(&mut self, now: Now, message: &Envelope) {
        // The other node got its init earlier than this one. Its next digest repeats what is lost here.
        let Some(member) = &mut self.member else { return };
        let Ok(peer) = NodeName::new(&message.src) else { return complain("a message of a node without a good name") };
        if let Err(error) = member.handle_frames(now, &peer, &message.body) {
            complain(&format!("from {peer}: {error}"));
        }
    }

    /// When [`Node::tick`] has something to do.
    pub(super) fn due(&self) -> Time {
        self.member.as_ref().map_or(Time::NEVER, |member| {
            let timeout = member.replica.poll_timeout();
            if member.waiting { timeout.min(member.next_round) } else { timeout }
        })
    }

    /// Time has passed, or lines were handled: sends what is due.
    pub(super) fn tick(&mut self, now: Now, out: &mut Vec<u8>) {
        if let Some(member) = &mut self.member {
            member.tick(now, out);
        }
    }
}

impl Member {
    fn new(
        now: Now,
        workload: Workload,
        node: NodeName,
        nodes: Vec<NodeName>,
        node_ids: Value,
    ) -> Result<Self, Refusal> {
        let round = ROUND * u32::try_from(nodes.len()).unwrap_or(u32::MAX);
        let digest_interval = round * DIGEST_ROUNDS;
        let config = Config {
            digest_interval,
            // A digest of changes only relies on the digest before it, which may be lost here.
            full_digest_interval: digest_interval,
            seed: now.unix_ms.0 ^ StructureId::of(node.as_str()).0,
            ..Config::default()
        };
        let mut replica = Replica::new(config, node.clone(), Incarnation(now.unix_ms.0));
        let name = StructureName::new(workload.name()).map_err(|e| Refusal::field("node_id", e.to_string()))?;
        // Rounds make changes wait, so the structure need not.
        let spec = StructureSpec::new(name, Class::OutboundDomains)
            .with_on_dead(OnDead::Hold)
            .with_pace(Duration::ZERO, StructureSpec::MAX_PENDING);
        // The thread that counts also ticks, so no other thread has to be woken.
        let structure = replica.replicate(spec, Arc::new(|| ()));
        let structure = structure.map_err(|error| Refusal::field("node_id", error.to_string()))?;
        for peer in nodes.iter().filter(|peer| **peer != node) {
            replica.handle_link_up(now, peer);
        }
        Ok(Self { node_ids, replica, structure, round, next_round: now.mono, waiting: true })
    }

    fn handle_frames(&mut self, now: Now, peer: &NodeName, body: &Body) -> Result<(), LinkError> {
        self.waiting = true;
        let frames = link::unpack(body)?;
        let mut frames = frames.as_slice();
        while let Some(message) = link::next(&mut frames)? {
            if let Err(error) = self.replica.handle_message(now, peer, message) {
                complain(&format!("from {peer}: {error}"));
                // A driver on QUIC closes the link and opens a new one.
                if self.replica.links().any(|linked| linked == peer) {
                    self.replica.handle_link_down(peer);
                    self.replica.handle_link_up(now, peer);
                }
            }
        }
        Ok(())
    }

    fn tick(&mut self, now: Now, out: &mut Vec<u8>) {
        self.replica.handle_changes(now);
        if now.mono >= self.replica.poll_timeout() {
            self.replica.handle_timeout(now);
            self.waiting = true;
        }
        while let Some(event) = self.replica.poll_event() {
            // init has reported all nodes already.
            if !matches!(event, Event::Life { .. }) {
                complain(&format!("{event:?}"));
            }
        }
        if self.waiting && now.mono >= self.next_round {
            self.waiting = false;
            let peers: Vec<_> = self.replica.links().cloned().collect();
            let mut sent = false;
            for peer in &peers {
                sent |= self.send(peer, out);
            }
            if sent {
                self.next_round = now.mono.after(self.round);
            }
        }
    }

    /// Sends everything that waits for a peer as one message. Returns whether there was anything.
    fn send(&mut self, peer: &NodeName, out: &mut Vec<u8>) -> bool {
        let (mut frames, mut message) = (Vec::new(), Vec::new());
        while frames.len() < MESSAGE_BYTES && self.replica.poll_transmit(peer, &mut message) {
            if let Err(error) = link::push(&message, &mut frames) {
                complain(&format!("to {peer}: {error}"));
            }
            message.clear();
        }
        self.waiting |= frames.len() >= MESSAGE_BYTES;
        if frames.is_empty() {
            return false;
        }
        let src = self.replica.actor().node.to_string();
        protocol::write(&Envelope { src, dest: peer.to_string(), body: link::pack(&frames) }, out);
        true
    }
}

/// Writes to stderr, which Maelstrom keeps.
fn complain(what: &str) {
    eprintln!("{what}");
}
