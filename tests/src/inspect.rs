//! What a simulated node holds, in the views that `tally inspect` shows of a running one.

use std::sync::Arc;

use tallymesh_engine::replica::LinkPlace;
use tallymesh_engine::{Now, Replica, Structure};
use tallymesh_schemas::inspect::{ActorView, EntryView, KeyView, LinkView, LogView};
use tallymesh_schemas::{Actor, Kind, StructureId, Version, key};

use crate::cluster::Cluster;

/// Inspects one node at the present moment.
pub struct Inspector<'a> {
    replica: &'a Replica,
    now: Now,
}

impl Cluster {
    /// Inspects a node.
    ///
    /// # Panics
    /// When the node does not exist or does not run.
    pub fn inspect(&self, label: &str) -> Inspector<'_> {
        let node = self.node(label);
        let process = node.process().unwrap_or_else(|| panic!("{label} does not run"));
        Inspector { replica: &process.replica, now: node.read_clock(self.now()) }
    }
}

impl Inspector<'_> {
    /// The structure of a name; the current window of a series; the counts of a gauge cache.
    fn structure(&self, name: &str) -> Option<Arc<Structure>> {
        let series =
            || self.replica.series().find(|series| series.spec().name.as_str() == name)?.windows().first().cloned();
        let gauge = || self.replica.structure(&format!("gauge:{name}")).cloned();
        self.replica.structure(name).cloned().or_else(series).or_else(gauge)
    }

    fn id(&self, name: &str) -> StructureId {
        self.structure(name).map_or_else(|| StructureId::of(name), |structure| structure.id())
    }

    /// The actors of an object.
    pub fn actors(&self, object: &str) -> Vec<ActorView> {
        let (id, mut all) = (self.id(object), Vec::<ActorView>::new());
        loop {
            let after = all.last().map(|view| view.actor.clone());
            let page = self.replica.actor_views(id, after.as_ref(), self.now.mono);
            if page.is_empty() {
                return all;
            }
            all.extend(page);
        }
    }

    /// Every actor's row of a key, or the sums of their rows under an address block.
    ///
    /// # Panics
    /// When the object does not exist, or does not count.
    pub fn key(&self, object: &str, bytes: &[u8]) -> KeyView {
        let structure = self.structure(object).unwrap_or_else(|| panic!("there is no \"{object}\" that counts"));
        let known = self.replica.standings(self.now.mono);
        let known = |actor: &Actor| known.of(actor);
        match (structure.kind(), key::to_net(bytes)) {
            (Kind::CidrTree, Ok(net)) => structure.net_view(net, self.now.mono, &known),
            _ => structure.key_view(bytes, self.now.mono, &known),
        }
    }

    /// The entry of a key of a cache, also if it is removed or has expired.
    pub fn entry(&self, cache: &str, bytes: &[u8]) -> Option<EntryView> {
        let found = self.replica.caches().into_iter().find(|found| found.spec().name.as_str() == cache)?;
        found.entry_view(bytes, self.now.unix_ms)
    }

    /// The links, each with what it says of an object.
    pub fn links(&self, object: &str) -> Vec<LinkView> {
        let (id, mut place, mut all) = (self.id(object), LinkPlace::default(), Vec::<LinkView>::new());
        while let Some((link, next)) = self.replica.link_view(id, &place, self.now.mono) {
            place = next;
            match all.last_mut().filter(|last| last.peer == link.peer) {
                Some(last) => last.streams.extend(link.streams),
                None => all.push(link),
            }
        }
        all
    }

    /// The changes of the node's own rows of an object behind a version, at most a page.
    pub fn log(&self, object: &str, after: Version) -> Vec<LogView> {
        let structure = self.structure(object);
        structure.and_then(|structure| structure.log_view(self.replica.actor(), after)).unwrap_or_default()
    }
}
