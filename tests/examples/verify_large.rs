//! What a verification costs in a large cluster: how long it takes, and the longest call into the replica.
//!
//! `cargo run --release -p tallymesh-harness --example verify_large -- 64 256 1000` verifies on one of 64 nodes with 256 structures
//! and 1,000 ended runs. Each node counts in every structure. Each ended run has counted in one of them, and its rows stay.
//!
//! The asked node is a real replica. The others are real until it has their rows. Then this program answers for them: with what
//! the asked node holds, as nodes answer that hold the same. Only the calls into the asked node are measured.

use std::error::Error;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tallymesh_engine::replica::{Backlog, Verification, Verifier};
use tallymesh_engine::{Config, Now, Replica, Time, Wake};
use tallymesh_schemas::message::{Digest, DigestEntry, Message, StructureDigest};
use tallymesh_schemas::{
    Actor, Class, Incarnation, NodeName, StructureId, StructureName, StructureSpec, UnixMs, bounds,
};

/// The asked node, with what its calls have cost.
struct Asked {
    replica: Replica,
    now: Now,
    /// The peers, in their current runs.
    peers: Vec<Actor>,
    /// How long all calls have taken together, and the longest of them.
    total: Duration,
    longest: Duration,
}

/// What a verification cost.
struct Cost {
    found: Verification,
    total: Duration,
    longest: Duration,
    messages: usize,
}

fn spec(number: usize) -> Result<StructureSpec, Box<dyn Error>> {
    let name = StructureName::new(&format!("s{number:03}"))?;
    let mut spec = StructureSpec::new(name, Class::GaugeCache);
    spec.max_delay = Duration::ZERO;
    Ok(spec)
}

/// A node that counts one key in each of these structures.
fn node(name: &NodeName, run: u64, structures: usize) -> Result<Replica, Box<dyn Error>> {
    let wake: Wake = Arc::new(|| ());
    let mut replica = Replica::new(Config::default(), name.clone(), Incarnation(run));
    for number in 0..structures {
        replica.replicate(spec(number)?, Arc::clone(&wake))?.add(b"key", 1)?;
    }
    Ok(replica)
}

impl Asked {
    fn new(nodes: usize, structures: usize, ended: usize) -> Result<Self, Box<dyn Error>> {
        let now = Now { mono: Time(1_000_000), unix_ms: UnixMs(1_700_000_000_000) };
        let replica = node(&NodeName::new("asked")?, 1, structures)?;
        let (total, longest) = (Duration::ZERO, Duration::ZERO);
        let mut asked = Self { replica, now, peers: Vec::new(), total, longest };
        let runs = ended.div_ceil(nodes - 1);
        for number in 1..nodes {
            let name = NodeName::new(&format!("node-{number:02}"))?;
            for run in 1..=runs {
                asked.take_rows_of(node(&name, run as u64, 1)?)?;
                asked.replica.handle_link_down(&name);
            }
            let last = Actor::new(name.clone(), Incarnation(runs as u64 + 1));
            asked.take_rows_of(node(&name, last.incarnation.0, structures)?)?;
            asked.peers.push(last);
        }
        Ok(asked)
    }

    /// Exchanges messages with a peer until neither has anything to say.
    fn take_rows_of(&mut self, mut peer: Replica) -> Result<(), Box<dyn Error>> {
        let (us, them) = (self.replica.actor().node.clone(), peer.actor().node.clone());
        self.replica.handle_link_up(self.now, &them);
        peer.handle_link_up(self.now, &us);
        peer.handle_changes(self.now);
        loop {
            let (mut to, mut from) = (Vec::new(), Vec::new());
            let said = self.replica.poll_transmit(&them, &mut to);
            let heard = peer.poll_transmit(&us, &mut from);
            if said {
                peer.handle_message(self.now, &us, &to)?;
            }
            if heard {
                self.replica.handle_message(self.now, &them, &from)?;
            }
            if !said && !heard {
                return Ok(());
            }
        }
    }

    /// What a node that holds the same as the asked one answers.
    fn answers(&self, peer: &Actor, nonce: u64) -> Result<Vec<Vec<u8>>, Box<dyn Error>> {
        let structures = self.replica.structures();
        let mut entries: Vec<(StructureId, &str, DigestEntry)> = Vec::new();
        for structure in &structures {
            for held in structure.held() {
                let age_ms = Some(if held.actor == *peer { 0 } else { 1500 });
                let (since, applied, low_water) = (held.since, held.applied, held.low_water);
                let entry =
                    DigestEntry { actor: held.actor, since, applied, low_water, fingerprint: held.fingerprint, age_ms };
                entries.push((structure.id(), structure.spec().name.as_str(), entry));
            }
        }
        entries.sort_by(|a, b| (a.0, &a.2.actor).cmp(&(b.0, &b.2.actor)));
        let kind = Class::GaugeCache.kind();
        let mut messages = Vec::new();
        let parts = entries.chunks(bounds::DIGEST_ENTRIES);
        let last = parts.len();
        for (number, part) in parts.enumerate() {
            let of_structures = part.chunk_by(|a, b| a.0 == b.0).map(|part| StructureDigest {
                structure: part[0].0,
                name: part[0].1,
                kind,
                entries: part.iter().map(|(.., entry)| entry.clone()).collect(),
            });
            let digest = Digest {
                incarnation: peer.incarnation,
                clock_ms: self.now.unix_ms,
                answers: nonce,
                complete: number + 1 == last,
                structures: of_structures.collect(),
                tombstones: Vec::new(),
            };
            let mut message = Vec::new();
            Message::Digest(digest).encode(&mut message)?;
            messages.push(message);
        }
        Ok(messages)
    }

    /// Calls the replica and measures how long that takes.
    fn call<T>(&mut self, call: impl FnOnce(&mut Replica, Now) -> T) -> T {
        let began = Instant::now();
        let result = call(&mut self.replica, self.now);
        let took = began.elapsed();
        self.total += took;
        self.longest = self.longest.max(took);
        result
    }

    /// Lets the asked node send what it has for its peers. Returns the number of its probe.
    fn transmit(&mut self) -> Option<u64> {
        let mut nonce = None;
        for peer in self.peers.clone() {
            let mut message = Vec::new();
            while self.call(|replica, _| replica.poll_transmit(&peer.node, &mut message)) {
                if let Ok(Message::Probe { nonce: probe }) = Message::decode(&message) {
                    nonce = Some(probe);
                }
                message.clear();
            }
        }
        nonce
    }

    fn verify(&mut self) -> Result<Cost, Box<dyn Error>> {
        self.transmit();
        (self.total, self.longest) = (Duration::ZERO, Duration::ZERO);
        let mut messages = 0;
        let mut verifier = self.call(|replica, now| Verifier::new(replica, now, Duration::from_secs(10)));
        loop {
            if let Some(nonce) = self.transmit() {
                for peer in self.peers.clone() {
                    for message in self.answers(&peer, nonce)? {
                        messages += 1;
                        self.call(|replica, now| replica.handle_message(now, &peer.node, &message))?;
                    }
                }
            }
            let found = self.call(|replica, now| verifier.poll(replica, now, |_| true, Backlog::Empty));
            if let Some(found) = found {
                return Ok(Cost { found, total: self.total, longest: self.longest, messages });
            }
            self.now.mono = self.now.mono.max(verifier.poll_timeout());
        }
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1).map(|argument| argument.parse::<usize>());
    let mut next = |or: usize| arguments.next().unwrap_or(Ok(or));
    let (nodes, structures, ended) = (next(64)?.clamp(2, 64), next(256)?.clamp(1, 256), next(1000)?);
    let mut asked = Asked::new(nodes, structures, ended)?;
    println!("{nodes} nodes, {structures} structures, {ended} ended runs with rows in one of them");
    for time in ["first", "second"] {
        let Cost { found, total, longest, messages } = asked.verify()?;
        println!("{time} verification: {:?}, {} copies of {} actors", found.outcome(), found.copies, found.actors);
        println!("  time in the replica: {:.3} s, for {messages} messages and the comparison", total.as_secs_f64());
        println!("  longest single call: {:.2} ms", longest.as_secs_f64() * 1000.0);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use tallymesh_engine::replica::{Fault, Outcome};

    #[test]
    fn a_verification_compares_every_copy_once() {
        let mut asked = Asked::new(12, 30, 100).unwrap();
        let Cost { found, .. } = asked.verify().unwrap();
        assert_eq!(found.outcome(), Outcome::Converged, "{:?}", found.findings);
        // Eleven peers have ten ended runs each.
        assert_eq!((found.actors, found.copies), (12 + 110, 12 * (30 * 12 + 110)));
    }

    /// A peer's link is replaced in the middle of a pass. What the pass compared over the old link is no evidence about the new
    /// one.
    #[test]
    fn a_member_whose_link_is_replaced_is_compared_again() {
        let mut asked = Asked::new(12, 30, 100).unwrap();
        let mut verifier = asked.call(|replica, now| Verifier::new(replica, now, Duration::from_secs(10)));
        let answer = |asked: &mut Asked, nonce: u64, peer: &Actor, wrong: bool| {
            for message in asked.answers(peer, nonce).unwrap() {
                let Ok(Message::Digest(mut digest)) = Message::decode(&message) else { panic!("answers are digests") };
                if wrong && let Some(part) = digest.structures.first_mut() {
                    part.entries[0].fingerprint ^= 1;
                }
                let mut bytes = Vec::new();
                Message::Digest(digest).encode(&mut bytes).unwrap();
                asked.call(|replica, now| replica.handle_message(now, &peer.node, &bytes)).unwrap();
            }
        };
        let nonce = asked.transmit().unwrap();
        for peer in asked.peers.clone() {
            answer(&mut asked, nonce, &peer, false);
        }
        let poll = |asked: &mut Asked, verifier: &mut Verifier| {
            asked.now.mono = asked.now.mono.max(verifier.poll_timeout());
            asked.call(|replica, now| verifier.poll(replica, now, |_| true, Backlog::Empty))
        };
        assert_eq!(poll(&mut asked, &mut verifier), None, "there are more copies than one call compares");
        let replaced = asked.peers[3].clone();
        asked.call(|replica, now| replica.handle_link_up(now, &replaced.node));
        answer(&mut asked, nonce, &replaced, true);
        let found = loop {
            let found = poll(&mut asked, &mut verifier);
            if let Some(nonce) = asked.transmit() {
                for peer in asked.peers.clone() {
                    answer(&mut asked, nonce, &peer, peer == replaced);
                }
            }
            if let Some(found) = found {
                break found;
            }
        };
        let wrong: Vec<_> = found.findings.iter().map(|finding| (&finding.member, finding.fault)).collect();
        assert!(wrong.contains(&(&replaced.node, Fault::Differs)), "{wrong:?}");
    }
}
