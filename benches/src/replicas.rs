//! Replicas in one process, connected by function calls: the engine's whole way without a network.

use std::sync::Arc;
use std::time::Duration;

use tallymesh_engine::{Cache, Config, Now, Replica, Structure, Time};
use tallymesh_schemas::{Class, Incarnation, NodeName, StructureName, StructureSpec, UnixMs};

/// Replicas that are linked to each other, each with one structure.
#[derive(Debug)]
pub struct Mesh {
    /// The replicas.
    pub replicas: Vec<Replica>,
    /// Their structures.
    pub structures: Vec<Arc<Structure>>,
    names: Vec<NodeName>,
    now: Now,
}

/// A structure alone, with the replica that commits what is counted in it.
pub fn alone(class: Class) -> (Replica, Arc<Structure>) {
    let mut mesh = Mesh::new(1, class);
    (mesh.replicas.remove(0), mesh.structures.remove(0))
}

/// A cache alone, with its replica.
///
/// # Panics
/// When the names that it makes up are refused.
pub fn cache_alone() -> (Replica, Cache) {
    let name = NodeName::new("node-0").expect("a good name");
    let mut replica = Replica::new(Config::default(), name, Incarnation(1_700_000_000_000));
    let cache = replica.replicate_cache(spec(Class::Cache), Arc::new(|| ())).expect("the only cache");
    (replica, cache)
}

fn spec(class: Class) -> StructureSpec {
    let name = StructureName::new("bench").expect("a good name");
    StructureSpec::new(name, class).with_pace(Duration::ZERO, StructureSpec::MAX_PENDING)
}

impl Mesh {
    /// `n` replicas with a structure of the class, which know each other and hold nothing.
    ///
    /// # Panics
    /// When the names that it makes up are refused.
    pub fn new(n: usize, class: Class) -> Self {
        Self::linked(n, class, |_, _| true)
    }

    /// As [`Mesh::new`], with links between those alone for which `linked` says so; it has to say the same both ways.
    ///
    /// # Panics
    /// As [`Mesh::new`].
    pub fn linked(n: usize, class: Class, linked: impl Fn(usize, usize) -> bool) -> Self {
        let names: Vec<_> = (0..n).map(|i| NodeName::new(&format!("node-{i}")).expect("a good name")).collect();
        let now = Now { mono: Time(1), unix_ms: UnixMs(1) };
        let (mut replicas, mut structures) = (Vec::new(), Vec::new());
        for (i, name) in names.iter().enumerate() {
            let config = Config { seed: i as u64 + 1, ..Config::default() };
            let mut replica = Replica::new(config, name.clone(), Incarnation(1_700_000_000_000));
            structures.push(replica.replicate(spec(class), Arc::new(|| ())).expect("the only structure"));
            for (_, peer) in names.iter().enumerate().filter(|(other, _)| *other != i && linked(i, *other)) {
                replica.handle_link_up(now, peer);
            }
            replicas.push(replica);
        }
        let mut mesh = Self { replicas, structures, names, now };
        mesh.settle();
        mesh
    }

    /// Commits what was counted on a replica, and lets it be sent.
    pub fn commit(&mut self, of: usize) {
        self.replicas[of].handle_changes(self.now);
    }

    /// The next message of a replica for another one.
    pub fn message(&mut self, from: usize, to: usize) -> Option<Vec<u8>> {
        let mut message = Vec::new();
        self.replicas[from].poll_transmit(&self.names[to], &mut message).then_some(message)
    }

    /// What a replica has to say to another one now.
    pub fn messages(&mut self, from: usize, to: usize) -> Vec<Vec<u8>> {
        std::iter::from_fn(|| self.message(from, to)).collect()
    }

    /// Puts an empty replica, with no links, in the place of one that is not needed any more.
    pub fn empty(&mut self, at: usize) {
        (self.replicas[at], self.structures[at]) = alone(self.structures[at].spec().class);
    }

    /// Hands messages to a replica.
    ///
    /// # Panics
    /// When one is refused.
    pub fn deliver(&mut self, from: usize, to: usize, messages: &[Vec<u8>]) {
        for message in messages {
            self.replicas[to].handle_message(self.now, &self.names[from], message).expect("a sound message");
        }
    }

    /// Commits and exchanges until nobody has anything left to say.
    pub fn settle(&mut self) {
        let n = self.replicas.len();
        (0..n).for_each(|i| self.commit(i));
        let mut quiet = false;
        while !quiet {
            quiet = true;
            for (from, to) in (0..n).flat_map(|from| (0..n).map(move |to| (from, to))).filter(|(a, b)| a != b) {
                let messages = self.messages(from, to);
                quiet &= messages.is_empty();
                self.deliver(from, to, &messages);
            }
        }
    }
}
