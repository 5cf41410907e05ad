//! Connections, over which nodes exchange hellos, and members that lie about others.
//!
//! Every two nodes that reach each other have a connection, whether or not they exchange rows over it. About a node with a
//! connection, the production membership believes only what that node says itself. What it believes about other nodes ends with
//! their hello. Its own tests check that; this module brings lies to the replicas.

use tallymesh_engine::Life;
use tallymesh_schemas::{Actor, Incarnation};

use super::Cluster;
use crate::check::process::after_hello;
use crate::fault::Lie;

/// How much later the runs are that liars invent.
const LATER: u64 = 1_000_000;

impl Cluster {
    /// Opens the connections of a node to all nodes that it reaches, and closes the others.
    pub(super) fn greet(&mut self, n: usize) {
        for other in 0..self.nodes.len() {
            let (us, node) = (&self.nodes[n], &self.nodes[other]);
            if us.name == node.name {
                continue;
            }
            // Of two processes with one name, the one that has a link gets the connection.
            let mut twins = self.nodes.iter().enumerate().filter(|(at, twin)| *at != other && twin.name == node.name);
            let alone = twins.all(|(_, twin)| twin.process.is_none());
            let direct = self.reaches(n, other) && self.reaches(other, n);
            let run = node.process.as_ref().filter(|process| direct && process.leaving.is_none());
            let run = run.map(|process| process.replica.actor().incarnation);
            let (said, name) = (us.hellos.get(&other).copied(), node.name.clone());
            match run {
                Some(run) if alone && said != Some(run) => {
                    self.hello(n, other, run);
                    let contact = self.nodes[n].contacts.get_mut(&name).filter(|contact| contact.incarnation > run);
                    if let Some(contact) = contact {
                        // The node's own statement has priority over hearsay; the membership reports that at once.
                        (contact.incarnation, contact.life) = (run, Life::Alive);
                        self.tell_member(n, &name, run, Life::Alive);
                    }
                }
                None if said.is_some() => {
                    self.nodes[n].hellos.remove(&other);
                    if let Some(process) = &mut self.nodes[n].process {
                        process.replica.handle_hangup(&name);
                    }
                }
                _ => {}
            }
        }
    }

    /// A node learns over a connection which run the other node is in.
    pub(super) fn hello(&mut self, n: usize, other: usize, run: Incarnation) {
        let name = self.nodes[other].name.clone();
        let node = &mut self.nodes[n];
        let now = node.read_clock(self.now);
        node.hellos.insert(other, run);
        if let Some(process) = &mut node.process {
            process.replica.handle_hello(now, &name, run);
            after_hello(process, &name, run);
        }
    }

    /// A member sends a lie about another one to all nodes that it reaches.
    pub(super) fn lie(&mut self, by: &str, lie: Lie, about: &str) {
        let find = |label: &str| self.nodes.iter().position(|node| node.label == *label);
        // In a shrunk script a twin may not exist.
        let (Some(liar), Some(victim)) = (find(by), find(about)) else { return };
        if self.nodes[liar].name == self.nodes[victim].name {
            return;
        }
        self.trace.mark("lie");
        for n in 0..self.nodes.len() {
            let hears = n != liar && self.reaches(liar, n) && self.reaches(n, liar);
            if hears && n == victim {
                self.hear_of_oneself(n, lie, liar);
            } else if hears && self.nodes[n].name != self.nodes[victim].name {
                self.hear_lie(n, lie, victim);
            }
        }
    }

    /// A member answers a lie about itself: with a new run if only that is later.
    fn hear_of_oneself(&mut self, n: usize, lie: Lie, liar: usize) {
        let liar = self.nodes[liar].name.clone();
        let now = self.nodes[n].read_clock(self.now);
        let Some(process) = &mut self.nodes[n].process else { return };
        let run = process.replica.actor().incarnation;
        match lie {
            Lie::Left | Lie::Dead => return,
            Lie::Run => process.replica.handle_superseded(now, Incarnation(run.0 + LATER), &liar),
            Lie::Life => process.replica.handle_superseded(now, run, &liar),
        }
        self.trace.mark("lie answered by a new run");
        self.pump(n);
    }

    fn hear_lie(&mut self, n: usize, lie: Lie, victim: usize) {
        let name = self.nodes[victim].name.clone();
        if self.nodes[n].hellos.contains_key(&victim) {
            return self.trace.mark("lie not believed");
        }
        let now = self.now;
        let Some(contact) = self.nodes[n].contacts.get_mut(&name) else { return };
        let life = match lie {
            Lie::Left | Lie::Dead => Life::Dead,
            Lie::Run => Life::Alive,
            Lie::Life => return,
        };
        if lie == Lie::Run {
            (contact.incarnation, contact.at) = (Incarnation(contact.incarnation.0 + LATER), now);
        }
        contact.life = life;
        let run = contact.incarnation;
        self.truth.borrow_mut().hearsay(Actor::new(name.clone(), run));
        self.trace.mark("lie believed");
        self.tell_member(n, &name, run, life);
    }
}
