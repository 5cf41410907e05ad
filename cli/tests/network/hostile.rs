//! A peer that lies and has a valid certificate of the cluster.

use std::collections::BTreeMap;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use tallymesh_schemas::{Actor, Incarnation, NodeName, StructureId, bounds};

use crate::cluster::{Cluster, NODES, STRANGER, name};
use crate::lab;
use crate::lies::{State, address_key, delta, digest, forgotten, gossip, rows};
use crate::peer::{Papers, Peer, Talk};
use crate::report::Row;
use crate::truth::{INBOUND, Load, Random};
use crate::wait::{PATIENCE, until_true};

/// An object that no node sends rows of.
const OUTBOUND: &str = "outbound_cidr";

/// The largest memory of a node, in MiB. The peer's rows within their bounds take some ten MiB, and the peer sends hundreds.
const MEMORY: u64 = 96;

/// Rows of the peer's own.
const ROWS: u32 = 100_000;

/// An object that the load does not use.
const RESTING: &str = "outbound_cidr";

/// A version that no owner has issued.
const NEVER_ISSUED: u64 = 1 << 40;

/// The peer, and the run that it claims to be.
struct Liar {
    peer: Peer,
    run: u64,
}

impl Liar {
    async fn link(&self, node: usize) -> Talk {
        self.peer.link(node, self.run).await
    }

    fn actor(&self) -> Actor {
        Actor::new(name(STRANGER), Incarnation(self.run))
    }

    /// The current run of every node, in the view of one of them.
    async fn runs(&self, talk: &Talk) -> BTreeMap<NodeName, Actor> {
        talk.until("the nodes' runs", |received| {
            let actors = received.heads.keys().map(|(_, actor)| actor.clone());
            // Other nodes may repeat the liar's inventions.
            let ours = actors.filter(|actor| (0..NODES).any(|node| actor.node == name(node)));
            let runs: BTreeMap<_, _> = ours.map(|actor| (actor.node.clone(), actor)).collect();
            (runs.len() == NODES).then_some(runs)
        })
        .await
    }

    /// Frames full of noise, and bytes that are no frames. Each ends its link.
    async fn noise(&self) {
        let mut random = Random(3);
        for round in 0..15 {
            let mut talk = self.link(0).await;
            talk.datagram(random.bytes(1000));
            let len = 2 + random.below(if round % 5 == 0 { 1 << 20 } else { 500 }) as usize;
            talk.frame(&random.bytes(len)).await;
            talk.refused("noise").await;
        }
        for header in [[1, 0xff, 0xff, 0xff], [1, 1, 0, 0x10], [1, 0, 0, 0], [9, 1, 0, 0]] {
            let mut talk = self.link(0).await;
            talk.bytes(&header).await;
            // A node that believed the length would wait for so many bytes.
            talk.bytes(&[0; 4096]).await;
            talk.refused("a frame that is none").await;
        }
        let mut talk = self.link(0).await;
        talk.bytes(&[1, 100, 0, 0, 3]).await;
        talk.cut_short();
        talk.refused("a frame that is cut short").await;
    }

    /// Rows of other actors, the node's own among them, that the node did not request.
    async fn rows_of_others(&self) {
        let mut talk = self.link(0).await;
        let forged = rows(0, [(0, 5, Some(address_key(1)))]);
        for actor in self.runs(&talk).await.values() {
            talk.send(&delta(INBOUND, actor, 0, NEVER_ISSUED, &forged)).await;
        }
        talk.all_read("rows of others").await;
        talk.close();
    }

    /// Claims to have more rows of node 2 than node 2 itself, waits for a request, and invents the rows. It uses an idle object,
    /// because nodes do not request rows that arrive from their owner. If a second connection replaces the first, the owner's
    /// digest may arrive before the answer; then the node does not apply the answer, and requests again.
    async fn lure(&self) {
        let mut talk = self.link(0).await;
        let runs = self.runs(&talk).await;
        let victim = &runs[&name(2)];
        talk.send(&digest(RESTING, self.run, [(victim.clone(), NEVER_ISSUED)])).await;
        let part = (StructureId::of(RESTING), victim.clone());
        for answered in 0.. {
            let want = talk.until("a request for the invented rows, or their version", |received| {
                let mut wants = received.wants.iter().filter(|want| (want.structure, &want.actor) == (part.0, victim));
                let taken = received.heads.get(&part) == Some(&NEVER_ISSUED);
                if taken { Some(None) } else { wants.nth(answered).cloned().map(Some) }
            });
            let Some(want) = want.await else { break };
            let after = want.after;
            let forged = rows(after.0, (0..50).map(|n| (n, after.0 + 5 + u64::from(n), Some(address_key(n)))));
            talk.send(&delta(RESTING, victim, after.0, NEVER_ISSUED, &forged)).await;
            talk.all_read("invented rows").await;
        }
        talk.close();
    }

    /// Claims that the node itself has written rows that it never wrote. The node continues as a new run.
    async fn own_name(&self) {
        let mut talk = self.link(1).await;
        let runs = self.runs(&talk).await;
        talk.send(&digest(INBOUND, self.run, [(runs[&name(1)].clone(), NEVER_ISSUED)])).await;
        talk.refused("the node's own name").await;
    }

    /// Rows of its own: too many, in slots at the bound and beyond, with versions at the bound and beyond.
    async fn too_much(&self) {
        let us = self.actor();
        let mut talk = self.link(0).await;
        talk.send(&digest(INBOUND, self.run, [(us.clone(), bounds::VERSION.0)])).await;
        let step = 20_000;
        for from in (0..ROWS).step_by(step as usize) {
            let numbers = from..from + step;
            let batch = rows(from.into(), numbers.map(|n| (n, u64::from(n) + 1, Some(address_key(n)))));
            talk.send(&delta(INBOUND, &us, from.into(), (from + step).into(), &batch)).await;
            talk.all_read("many rows").await;
        }
        // Sparse slots: a node that allocated all slots between them would need gigabytes.
        let mut at = u64::from(ROWS);
        let sparse = (0..10_000).map(|n| bounds::ROWS_PER_ACTOR - 1 - n * 1000);
        let sparse: Vec<_> = sparse.collect();
        let batch = rows(at, (at + 1..).zip(&sparse).map(|(version, slot)| (*slot, version, None)));
        talk.send(&delta(INBOUND, &us, at, at + 10_000, &batch)).await;
        talk.all_read("sparse slots").await;
        at += 10_000;
        // The same few slots again and again, always vacant: the node does not have to keep any of it.
        for _ in 0..6 {
            let batch = rows(at, (at + 1..=at + 900_000).map(|version| ((version % 3) as u32, version, None)));
            talk.send(&delta(INBOUND, &us, at, at + 900_000, &batch)).await;
            talk.all_read("the same slots again").await;
            at += 900_000;
        }
        let last = rows(at, [(7, bounds::VERSION.0, Some(address_key(7)))]);
        talk.send(&delta(INBOUND, &us, at, bounds::VERSION.0, &last)).await;
        talk.all_read("too many rows").await;
        talk.send(&delta(INBOUND, &us, bounds::VERSION.0, bounds::VERSION.0 + 1, &[])).await;
        talk.refused("a version beyond the bound").await;
        let mut talk = self.link(3).await;
        // In another object: of the first one, other nodes may have relayed the earlier rows, so that these would be old.
        talk.send(&digest(OUTBOUND, self.run, [(us.clone(), 9)])).await;
        let beyond = rows(0, [(bounds::ROWS_PER_ACTOR, 1, Some(address_key(1)))]);
        talk.send(&delta(OUTBOUND, &us, 0, 9, &beyond)).await;
        talk.refused("a slot beyond the bound").await;
    }

    /// More nodes than a cluster may have, which do not exist.
    async fn invented_nodes(&self) {
        let mut talk = self.link(4).await;
        for batch in 0..6 {
            let actor = |n| {
                let name = NodeName::new(&format!("invented-{batch}-{n}")).expect("a good name");
                (Actor::new(name, Incarnation(1)), 7)
            };
            talk.send(&digest(INBOUND, self.run, (0..bounds::DIGEST_ENTRIES).map(actor))).await;
        }
        talk.all_read("invented nodes").await;
        talk.close();
    }

    /// False hearsay about other members: that they have left, are dead or suspect, or have another life or run; and six hundred
    /// members that do not exist. It has no effect: each node has a link to every other one, and asks it.
    async fn forged_membership(&self) {
        let mut talk = self.link(0).await;
        let runs = self.runs(&talk).await;
        let named = |actor: &Actor, address| (actor.node.clone(), address, actor.incarnation.0, 0, false);
        let from = named(&self.actor(), lab::address(STRANGER));
        let to = named(&runs[&name(0)], lab::address(0));
        for victim in 1..NODES {
            let id = named(&runs[&name(victim)], lab::address(victim));
            let life = |generation, left| (id.0.clone(), id.1, id.2, generation, left);
            let lies = [
                (life(0, true), 0, State::Down),
                (life(0, false), 0, State::Down),
                (life(0, false), u16::MAX, State::Suspect),
                (life(1 << 29, false), 0, State::Alive),
                (life(1 << 30, true), 0, State::Down),
            ];
            for lie in lies {
                talk.datagram(gossip(&from, &to, &[lie]));
            }
        }
        for ghost in 0..600_u16 {
            let ghost_name = NodeName::new(&format!("ghost-{ghost}")).expect("a good name");
            let nowhere = ([198, 51, 100, 1], 1000 + ghost).into();
            talk.datagram(gossip(&from, &to, &[((ghost_name, nowhere, 1, 0, false), 0, State::Alive)]));
        }
        talk.all_read("forged membership").await;
        talk.close();
    }

    /// Runs of the nodes at the end of the range, in a digest and in tombstones.
    async fn last_runs(&self) {
        let mut talk = self.link(3).await;
        let last = Incarnation(bounds::INCARNATION);
        talk.send(&digest(INBOUND, self.run, (0..NODES).map(|node| (Actor::new(name(node), last), NEVER_ISSUED))))
            .await;
        talk.send(&forgotten(self.run, (0..NODES).map(name))).await;
        talk.all_read("runs at the bound").await;
        let beyond = Incarnation(bounds::INCARNATION + 1);
        talk.send(&digest(INBOUND, self.run, [(Actor::new(name(1), beyond), 1)])).await;
        talk.refused("a run beyond the bound").await;
    }
}

/// A peer with a valid certificate sends noise, rows that are not its own, versions that no owner issued, too many rows, and the
/// last possible runs. The nodes refuse, count the refusals, and stay small; their counts stay exact.
#[test]
fn a_peer_that_lies() {
    let Some(mut cluster) = Cluster::start("a_peer_that_lies") else { return };
    let loads = cluster.load(0..NODES);
    cluster.add(2, RESTING, "10.200.0.9", 4);
    let papers = Papers {
        authority: cluster.authority(),
        certificate: cluster.file(STRANGER, "pem"),
        key: cluster.file(STRANGER, "key"),
        name: name(STRANGER),
    };
    let begin = Instant::now();
    let attacks = cluster.lab.on(STRANGER, move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("it is later than 1970");
            let liar = Liar { peer: Peer::new(papers), run: now.as_millis() as u64 };
            // First, while it is alive in the view of all nodes, so that they consider its hearsay. The nodes answer within some
            // seconds. A node that is said to be in its last life answers with a new run, whose rows the others lack for a moment.
            liar.forged_membership().await;
            liar.noise().await;
            liar.rows_of_others().await;
            liar.lure().await;
            liar.own_name().await;
            liar.too_much().await;
            liar.invented_nodes().await;
            liar.last_runs().await;
        });
    });
    attacks.join().expect("every attack was answered as expected");
    let lasted = begin.elapsed();
    let all_linked = cluster.all_linked();
    let added = loads.into_iter().map(Load::end).sum();

    let counted = |counter: &str| (0..NODES).map(|node| cluster.counter(node, counter)).sum::<u64>();
    let (refused, frames) = (counted("messages_refused"), counted("connections_refused"));
    let (unasked, conflicts) = (counted("deltas_unasked"), counted("conflicts"));
    assert!(refused >= 15 + 3, "{refused} messages were refused");
    assert!(frames >= 5, "{frames} frames were refused");
    assert!(unasked >= NODES as u64, "{unasked} deltas were not requested");
    assert!(conflicts >= 2, "{conflicts} conflicts were seen");
    cluster.tally(0, &["cluster", "forget", "stranger"]).expect("the peer is known");
    until_true("the peer's counts and inventions are gone", PATIENCE, || {
        (0..NODES).all(|node| {
            let invented = [INBOUND, RESTING].map(|object| cluster.total(node, object, "198.18.0.0/15"));
            invented == [0, 0] && cluster.total(node, RESTING, "10.200.0.9") == 4
        })
    });
    let exact = cluster.exact();
    for (node, of) in (0..NODES).flat_map(|node| (0..NODES).filter(move |of| *of != node).map(move |of| (node, of))) {
        assert_eq!(cluster.state(node, of), "alive", "{} of {}", name(node), name(of));
    }
    let ghosts = cluster.admin(0).members().expect("the node answers").len();
    assert!(ghosts <= NODES + 128, "node-0 lists {ghosts} members");
    let peak_mib = cluster.sound();
    assert!(peak_mib < MEMORY, "a node had {peak_mib} MiB");
    let effect = format!(
        "{refused} messages and {frames} connections refused, {unasked} unrequested deltas, {conflicts} conflicts"
    );
    let fault = "a certified peer that lies".to_owned();
    Row { fault, lasted, effect, added, all_linked, exact, peak_mib }.print();
}
