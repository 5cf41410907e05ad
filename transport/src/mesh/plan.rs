//! Which addresses to dial, and when. The caller passes time and randomness.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tallymesh_schemas::actor::NodeName;

use crate::bounds::{DIALS, MEMBERS, SEED_ADDRESSES};
use crate::config::Timings;
use crate::member::MemberState;

/// Time since the endpoint's start.
pub(crate) type Time = Duration;

/// How long a member must be dead before this node dials it at the slower pace.
const LONG_DEAD: Duration = Duration::from_secs(3600);

/// Dials to a member after which this node also tries its seed address: the advertised address may be wrong, or the host may
/// belong to another node now.
const HOPEFUL: u32 = 4;

/// The next task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Task {
    /// Resolve the addresses of a seed.
    Resolve { seed: usize, host: String },
    /// Dial an address of a seed, whichever node it belongs to.
    Seed { seed: usize, addr: SocketAddr },
    /// Dial a member.
    Member { name: NodeName, addr: SocketAddr },
}

/// Why a dial was made, or that none was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Origin {
    /// The peer dialed.
    Incoming,
    /// A dial to a seed's address.
    Seed { seed: usize, addr: SocketAddr },
    /// A dial to a member.
    Member(NodeName),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Status {
    /// To be dialed at this time.
    Waiting(Time),
    /// This number of lookups and dials is in progress.
    Busy(usize),
    /// Not to be dialed: a link is up.
    Linked,
}

#[derive(Debug)]
struct Target {
    addr: SocketAddr,
    status: Status,
    attempts: u32,
    dead_since: Option<Time>,
    /// A node with another name answered at the address.
    misnamed: bool,
    /// Why it is not linked, from its last dial.
    trouble: Option<String>,
}

impl Target {
    fn new(addr: SocketAddr, status: Status) -> Self {
        Self { addr, status, attempts: 0, dead_since: None, misnamed: false, trouble: None }
    }

    /// Sets the address that the member advertises now.
    fn move_to(&mut self, addr: SocketAddr) {
        self.misnamed &= self.addr == addr;
        self.addr = addr;
    }

    /// Whether it is linked, or likely to be soon.
    fn is_in_hand(&self) -> bool {
        self.status == Status::Linked || self.attempts < HOPEFUL
    }
}

#[derive(Debug)]
struct Seed {
    host: String,
    status: Status,
    attempts: u32,
    failed: bool,
    /// It has been tried at least once.
    tried: bool,
    /// Why the last try led to no link.
    trouble: Option<String>,
}

/// Which addresses to dial, and when.
///
/// The node dials a seed until every address of the seed is this node's own or that of a member, which it then dials as a
/// member. It dials a member until the member is linked, has left, or is forgotten.
#[derive(Debug)]
pub(crate) struct Plan {
    us: NodeName,
    timings: Timings,
    rng: StdRng,
    /// By number: a seed that is configured later gets another number.
    seeds: BTreeMap<usize, Seed>,
    next_seed: usize,
    members: BTreeMap<NodeName, Target>,
    /// Addresses of seeds that wait for their dial.
    ready: VecDeque<(usize, SocketAddr)>,
    /// The node that answered at an address of a seed.
    learned: BTreeMap<SocketAddr, NodeName>,
    /// Addresses that led to this node itself.
    ours: BTreeSet<SocketAddr>,
    dialing: usize,
}

impl Plan {
    pub(crate) fn new(us: NodeName, seeds: Vec<String>, timings: Timings, rng: u64) -> Self {
        let mut plan = Self {
            us,
            timings,
            rng: StdRng::seed_from_u64(rng),
            seeds: BTreeMap::new(),
            next_seed: 0,
            members: BTreeMap::new(),
            ready: VecDeque::new(),
            learned: BTreeMap::new(),
            ours: BTreeSet::new(),
            dialing: 0,
        };
        plan.set_seeds(Time::ZERO, seeds);
        plan
    }

    /// Dials these seeds from now on, and no others. Known seeds keep their state. Results of dials to others have no effect.
    pub(crate) fn set_seeds(&mut self, now: Time, seeds: Vec<String>) {
        self.seeds.retain(|_, known| seeds.contains(&known.host));
        for host in seeds {
            if self.seeds.values().all(|known| known.host != host) {
                let status = Status::Waiting(now);
                let seed = Seed { host, status, attempts: 0, failed: false, tried: false, trouble: None };
                self.seeds.insert(self.next_seed, seed);
                self.next_seed += 1;
            }
        }
    }

    /// The next task that is due now, if any. A dial counts as in progress until [`Plan::ended`].
    pub(crate) fn poll(&mut self, now: Time) -> Option<Task> {
        for (seed, entry) in &mut self.seeds {
            if matches!(entry.status, Status::Waiting(at) if at <= now) {
                entry.status = Status::Busy(1);
                return Some(Task::Resolve { seed: *seed, host: entry.host.clone() });
            }
        }
        if self.dialing >= DIALS {
            return None;
        }
        if let Some((seed, addr)) = self.ready.pop_front() {
            self.dialing += 1;
            return Some(Task::Seed { seed, addr });
        }
        let due = |target: &Target| matches!(target.status, Status::Waiting(at) if at <= now);
        let (name, target) = self.members.iter_mut().find(|(_, target)| due(target))?;
        target.status = Status::Busy(1);
        self.dialing += 1;
        Some(Task::Member { name: name.clone(), addr: target.addr })
    }

    /// When the next task is due.
    pub(crate) fn timeout(&self) -> Option<Time> {
        let seeds = self.seeds.values().map(|seed| seed.status);
        // At the bound, no new dial starts before another one has ended.
        let members = self.members.values().map(|target| target.status).filter(|_| self.dialing < DIALS);
        seeds.chain(members).filter_map(|status| if let Status::Waiting(at) = status { Some(at) } else { None }).min()
    }

    /// Records what the membership reports about a member.
    pub(crate) fn member(&mut self, now: Time, name: &NodeName, addr: SocketAddr, state: MemberState) {
        if state == MemberState::Left {
            if !matches!(self.members.get(name), Some(Target { status: Status::Linked, .. })) {
                self.members.remove(name);
            }
            return;
        }
        let start = now + self.head_start(name);
        let target = self.members.entry(name.clone()).or_insert(Target::new(addr, Status::Waiting(start)));
        target.move_to(addr);
        target.dead_since = match state {
            MemberState::Dead => target.dead_since.or(Some(now)),
            _ => None,
        };
    }

    /// Records the addresses of a seed, none if it did not resolve.
    pub(crate) fn resolved(&mut self, now: Time, seed: usize, addrs: Vec<SocketAddr>) {
        let found = !addrs.is_empty();
        let wanted: BTreeSet<SocketAddr> = addrs
            .into_iter()
            .take(SEED_ADDRESSES)
            .filter(|addr| !self.ours.contains(addr) && !self.is_taken_care_of(addr))
            .collect();
        let Some(entry) = self.seeds.get_mut(&seed) else { return };
        entry.failed = !found;
        entry.status = Status::Busy(wanted.len());
        self.ready.extend(wanted.into_iter().map(|addr| (seed, addr)));
        self.conclude(now, seed);
    }

    /// Whether the node at an address is linked, or is dialed as a member with a chance of success.
    fn is_taken_care_of(&self, addr: &SocketAddr) -> bool {
        let learned = self.learned.get(addr).and_then(|name| self.members.get(name));
        let mut listed = self.members.values().filter(|target| target.addr == *addr);
        learned.is_some_and(Target::is_in_hand) || listed.any(Target::is_in_hand)
    }

    /// Records the end of a dial, with the name of the node that it reached, or without success.
    pub(crate) fn ended(&mut self, now: Time, origin: &Origin, met: Option<&NodeName>) {
        match origin {
            Origin::Incoming => {}
            Origin::Seed { seed, addr } => {
                self.dialing = self.dialing.saturating_sub(1);
                match met {
                    Some(name) if *name == self.us => drop(self.ours.insert(*addr)),
                    Some(name) if self.learned.len() < MEMBERS || self.learned.contains_key(addr) => {
                        self.learned.insert(*addr, name.clone());
                    }
                    _ => {}
                }
                let Some(entry) = self.seeds.get_mut(seed) else { return };
                entry.failed |= met.is_none();
                if let Status::Busy(under_way) = &mut entry.status {
                    *under_way = under_way.saturating_sub(1);
                }
                self.conclude(now, *seed);
            }
            Origin::Member(name) => {
                self.dialing = self.dialing.saturating_sub(1);
                self.retry_member(now, name);
            }
        }
    }

    /// Records why a dial led to no link. Call it before [`Plan::ended`].
    pub(crate) fn trouble(&mut self, origin: &Origin, why: &str) {
        match origin {
            Origin::Incoming => {}
            Origin::Seed { seed, .. } => self.seed_trouble(*seed, why),
            Origin::Member(name) => {
                if let Some(target) = self.members.get_mut(name) {
                    target.trouble = Some(why.to_owned());
                }
            }
        }
    }

    /// Records why a seed did not resolve.
    pub(crate) fn seed_trouble(&mut self, seed: usize, why: &str) {
        if let Some(entry) = self.seeds.get_mut(&seed) {
            entry.trouble = Some(why.to_owned());
        }
    }

    /// Whether every seed has been tried at least once.
    pub(crate) fn has_tried_all(&self) -> bool {
        self.seeds.values().all(|seed| seed.tried)
    }

    /// The seeds whose last try led to no node, and the members without a link: each with the reason.
    pub(crate) fn troubles(&self) -> impl Iterator<Item = (String, &str)> {
        let seeds = self.seeds.values().filter(|seed| seed.attempts > 0);
        let seeds = seeds.map(|seed| (seed.host.clone(), &seed.trouble));
        let members = self.members.iter().filter(|(_, target)| target.status != Status::Linked);
        let members = members.map(|(name, target)| (format!("{name} at {}", target.addr), &target.trouble));
        seeds.chain(members).map(|(whom, trouble)| (whom, trouble.as_deref().unwrap_or("no link")))
    }

    /// Sets the next time for a seed whose dials have all ended.
    fn conclude(&mut self, now: Time, seed: usize) {
        let Some(entry) = self.seeds.get_mut(&seed).filter(|entry| entry.status == Status::Busy(0)) else { return };
        entry.tried = true;
        let pause = if entry.failed {
            entry.attempts = entry.attempts.saturating_add(1);
            backoff(&mut self.rng, &self.timings, entry.attempts, self.timings.backoff_max)
        } else {
            (entry.attempts, entry.trouble) = (0, None);
            self.timings.seed_check
        };
        entry.status = Status::Waiting(now + pause);
    }

    /// Sets the next time for a member that is not linked.
    fn retry_member(&mut self, now: Time, name: &NodeName) {
        let Some(target) = self.members.get_mut(name).filter(|target| target.status != Status::Linked) else { return };
        target.attempts = target.attempts.saturating_add(1);
        let long_dead = target.dead_since.is_some_and(|since| now.saturating_sub(since) > LONG_DEAD);
        let longest = if long_dead || target.misnamed { self.timings.backoff_dead } else { self.timings.backoff_max };
        target.status = Status::Waiting(now + backoff(&mut self.rng, &self.timings, target.attempts, longest));
    }

    /// A link to a member is up.
    pub(crate) fn linked(&mut self, name: &NodeName, addr: SocketAddr) {
        let target = self.members.entry(name.clone()).or_insert(Target::new(addr, Status::Linked));
        target.move_to(addr);
        (target.misnamed, target.trouble) = (false, None);
        target.status = Status::Linked;
    }

    /// The link to a member is down. If it had been up for a while, this node dials again at once.
    pub(crate) fn unlinked(&mut self, now: Time, name: &NodeName, held: Duration) {
        let head_start = self.head_start(name);
        let Some(target) = self.members.get_mut(name) else { return };
        if held >= self.timings.backoff_max {
            target.attempts = 0;
        }
        target.attempts = target.attempts.saturating_add(1);
        let pause = backoff(&mut self.rng, &self.timings, target.attempts, self.timings.backoff_max);
        target.status = Status::Waiting(now + pause + head_start);
    }

    /// A node with another name answered at a member's address. What this node learned there is void, and it dials the address
    /// rarely.
    pub(crate) fn wrong_name(&mut self, name: &NodeName) {
        self.learned.retain(|_, learned| learned != name);
        if let Some(target) = self.members.get_mut(name) {
            target.misnamed = true;
        }
    }

    /// Stops dialing a member.
    pub(crate) fn forget(&mut self, name: &NodeName) {
        self.wrong_name(name);
        self.members.remove(name);
    }

    /// Dials all members at once, because this node has changed and not the others.
    pub(crate) fn hurry(&mut self, now: Time) {
        for status in self
            .members
            .values_mut()
            .map(|target| (&mut target.status, &mut target.attempts))
            .chain(self.seeds.values_mut().map(|seed| (&mut seed.status, &mut seed.attempts)))
        {
            if let (Status::Waiting(at), attempts) = status {
                *at = now;
                *attempts = 0;
            }
        }
    }

    /// The dial of the smaller name is the one that stays, so it starts earlier.
    fn head_start(&self, name: &NodeName) -> Duration {
        if self.us < *name { Duration::ZERO } else { self.timings.head_start }
    }
}

/// The pause before attempt number `attempts`, from 1. It doubles up to `longest`, minus a random part of up to half, so that
/// nodes that lost each other at the same time do not all dial at the same time.
fn backoff(rng: &mut StdRng, timings: &Timings, attempts: u32, longest: Duration) -> Duration {
    let doubled = timings.backoff_min.saturating_mul(1 << attempts.saturating_sub(1).min(16));
    doubled.min(longest).mul_f64(rng.random_range(0.5..=1.0))
}

#[cfg(test)]
mod tests;
