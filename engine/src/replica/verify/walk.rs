//! One pass over the copies that a verification compares. It compares a slice at a time, so that it holds up nothing else.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use tallymesh_schemas::{Actor, NodeName, StructureId, Version};

use crate::replica::Replica;
use crate::replica::held::Held;
use crate::replica::peer::link::{Link, PeerProgress};
use crate::replica::verify::found::{Fault, Finding, Verification};

/// How many copies one step of a pass compares: a millisecond of work.
pub(super) const SLICE: usize = 4096;

/// What a pass looks at.
#[derive(Debug, Clone)]
pub(super) enum Subject {
    /// All copies.
    All,
    /// The copies of some actors, and the caches in which one of these actors writes.
    Some(BTreeMap<StructureId, BTreeSet<Actor>>),
}

/// Where a pass continues.
#[derive(Debug, Clone)]
enum Place {
    /// At a structure, behind an actor.
    Rows(StructureId, Option<Actor>),
    /// At a cache.
    Caches(StructureId),
    End,
}

/// A pass in progress.
#[derive(Debug)]
pub(super) struct Walk {
    nonce: u64,
    subject: Subject,
    /// The members that had answered when the pass began, each with the number of its link. This node is not among them.
    answered: BTreeMap<NodeName, u64>,
    place: Place,
    actors: BTreeSet<Actor>,
    /// What was found so far. Only the numbers and the findings are set.
    found: Verification,
}

/// A member whose copies are compared. This node has no link.
struct Member<'a> {
    name: &'a NodeName,
    link: Option<&'a Link>,
    /// It replicates the structure.
    replicates: bool,
}

/// What a member has of an actor's rows: the position of the member, and its statement.
type Holder = (usize, PeerProgress);

impl Walk {
    pub(super) fn new(replica: &Replica, nonce: u64, subject: Subject) -> Self {
        let answered = replica.peers.links.iter().filter(|(_, link)| link.answered >= nonce);
        let answered = answered.map(|(peer, link)| (peer.clone(), link.number)).collect();
        let place = Place::Rows(StructureId(0), None);
        Self { nonce, subject, answered, place, actors: BTreeSet::new(), found: Verification::default() }
    }

    /// Compares about `budget` copies. Returns whether the pass has ended.
    pub(super) fn step(&mut self, replica: &Replica, budget: usize) -> bool {
        let end = self.found.copies.saturating_add(budget);
        while self.found.copies < end {
            match std::mem::replace(&mut self.place, Place::End) {
                Place::Rows(id, after) => self.place = self.rows(replica, id, after, end - self.found.copies),
                Place::Caches(id) => self.place = self.cache(replica, id),
                Place::End => return true,
            }
        }
        false
    }

    /// The members whose copies the whole pass has compared, including this node. A member whose link was replaced meanwhile is
    /// not one of them.
    pub(super) fn compared(&self, replica: &Replica) -> BTreeSet<NodeName> {
        let mut compared: BTreeSet<_> = self.members(replica).map(|(name, _)| name.clone()).collect();
        compared.insert(replica.runs.actor.node.clone());
        compared
    }

    /// Whether the pass looks at all copies.
    pub(super) fn is_complete(&self) -> bool {
        matches!(self.subject, Subject::All)
    }

    /// What the pass has found.
    pub(super) fn finish(self) -> Verification {
        let actors = self.found.actors + self.actors.len();
        Verification { actors, ..self.found }
    }

    fn is_subject(&self, id: &StructureId) -> bool {
        match &self.subject {
            Subject::All => true,
            Subject::Some(some) => some.contains_key(id),
        }
    }

    /// The members that had answered when the pass began, and whose link is still the same.
    fn members<'a>(&self, replica: &'a Replica) -> impl Iterator<Item = (&'a NodeName, &'a Link)> {
        let same = |name: &NodeName, link: &Link| {
            link.answered >= self.nonce && self.answered.get(name).is_some_and(|number| *number == link.number)
        };
        replica.peers.links.iter().map(|(name, link)| (name, &**link)).filter(move |(name, link)| same(name, link))
    }
}

/// Rows.
impl Walk {
    /// Compares rows from a structure on, behind an actor. Returns where to continue.
    fn rows(&mut self, replica: &Replica, from: StructureId, after: Option<Actor>, budget: usize) -> Place {
        let mut structures = replica.structures.range(from..);
        let next = structures.find(|(id, held)| held.is_compared() && self.is_subject(id));
        let Some((id, held)) = next else { return Place::Caches(StructureId(0)) };
        let after = after.filter(|_| *id == from);
        let members = self.members_of(replica, *id);
        let most = (budget / members.len().max(1)).max(1);
        let own = self.own_copies(replica, (*id, held), after.as_ref(), most);
        let holders = holders(*id, &own, &members);
        let compared: Vec<_> = own.iter().map(|(actor, _)| actor).zip(&holders).collect();
        for (actor, holders) in compared {
            self.compare(replica, held, actor, holders, &members);
        }
        match own.into_iter().next_back() {
            Some((last, _)) => Place::Rows(*id, Some(last)),
            None => {
                id.0.checked_add(1).map_or(Place::Caches(StructureId(0)), |next| Place::Rows(StructureId(next), None))
            }
        }
    }

    /// The members that are compared, in order of name, with this node.
    fn members_of<'a>(&self, replica: &'a Replica, id: StructureId) -> Vec<Member<'a>> {
        let us = Member { name: &replica.runs.actor.node, link: None, replicates: true };
        let others = self.members(replica).map(|(name, link)| {
            let replicates = link.structures.contains(&id);
            Member { name, link: Some(link), replicates }
        });
        let mut members: Vec<_> = others.chain([us]).collect();
        members.sort_by_key(|member| member.name);
        members
    }

    /// The next copies of this node in a structure, at most `most`, that the pass looks at.
    fn own_copies(
        &self,
        replica: &Replica,
        (id, held): (StructureId, &Held),
        after: Option<&Actor>,
        most: usize,
    ) -> Vec<(Actor, PeerProgress)> {
        let mut own = Vec::new();
        if let Subject::Some(some) = &self.subject {
            let behind = (after.map_or(Bound::Unbounded, Bound::Excluded), Bound::Unbounded);
            let actors = some.get(&id).into_iter().flat_map(|actors| actors.range::<Actor, _>(behind));
            let copies = actors.filter_map(|actor| Some((actor.clone(), held.structure.progress(actor)?)));
            return copies.map(|(actor, progress)| (actor, PeerProgress::from(progress))).take(most).collect();
        }
        held.structure.digest(after, replica.now, &mut |entry| {
            let said = PeerProgress::from(&entry);
            own.push((entry.actor, said));
            own.len() < most
        });
        own
    }

    fn compare(&mut self, replica: &Replica, held: &Held, actor: &Actor, holders: &[Holder], members: &[Member<'_>]) {
        self.actors.insert(actor.clone());
        let name = |at: &usize| members.get(*at).map(|member| member.name);
        // A run that has ended has no owner to ask.
        let is_owner = |(at, _): &&Holder| name(at) == Some(&actor.node) && replica.runs.is_current(actor);
        let furthest = holders.iter().max_by_key(|(_, said)| said.applied);
        let Some((_, head)) = holders.iter().find(is_owner).or(furthest) else { return };
        let finding = |member: &NodeName, applied, fault| Finding {
            structure: held.structure.spec().name.clone(),
            actor: actor.clone(),
            member: member.clone(),
            applied,
            head: head.applied,
            fault,
        };
        for (at, said) in holders {
            self.found.copies += 1;
            let whole = said.since == Version::ZERO && head.since == Version::ZERO;
            let fault = match said.applied == head.applied {
                false => Fault::Lags,
                true if whole && said.fingerprint != head.fingerprint => Fault::Differs,
                true => continue,
            };
            self.found.findings.extend(name(at).map(|member| finding(member, said.applied, fault)));
        }
        if head.applied == Version::ZERO || holders.len() == members.len() {
            return;
        }
        // A member that replicates the structure and holds no rows of the actor lags as well.
        let mut holding = holders.iter().map(|(at, _)| *at).peekable();
        for (at, member) in members.iter().enumerate() {
            if holding.next_if_eq(&at).is_none() && member.replicates {
                self.found.findings.push(finding(member.name, Version::ZERO, Fault::Lags));
            }
        }
    }
}

/// What each member holds of the actors of a structure that `own` lists in order.
fn holders(id: StructureId, own: &[(Actor, PeerProgress)], members: &[Member<'_>]) -> Vec<Vec<Holder>> {
    let mut holders: Vec<Vec<Holder>> = own.iter().map(|_| Vec::with_capacity(members.len())).collect();
    let (Some((first, _)), Some((last, _))) = (own.first(), own.last()) else { return holders };
    for (at, member) in members.iter().enumerate() {
        let Some(link) = member.link else {
            own.iter().zip(&mut holders).for_each(|((_, said), holders)| holders.push((at, *said)));
            continue;
        };
        let mut said = link.peer_progress.range((id, first.clone())..=(id, last.clone())).peekable();
        for ((actor, _), holders) in own.iter().zip(&mut holders) {
            while said.next_if(|((_, of), _)| of < actor).is_some() {}
            holders.extend(said.next_if(|((_, of), _)| of == actor).map(|(_, said)| (at, *said)));
        }
    }
    holders
}

/// Caches.
impl Walk {
    /// Compares the copies of the next cache. Returns where to continue.
    fn cache(&mut self, replica: &Replica, from: StructureId) -> Place {
        let next = replica.caches.from(from).find(|(id, held)| held.shared && self.is_subject(id));
        let Some((id, held)) = next else { return Place::End };
        let said: Vec<_> = self.members(replica).filter_map(|(peer, _)| Some((peer, held.receiver(peer)?))).collect();
        replica.compare_cache(held, &said, &mut self.found);
        id.0.checked_add(1).map_or(Place::End, |next| Place::Caches(StructureId(next)))
    }
}
