//! Whom to dial, and when. Time and randomness are handed in.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tallymesh_schemas::actor::NodeName;

use crate::limits::{DIALS, MEMBERS, SEED_ADDRESSES};
use crate::{MemberState, Timings};

/// Time since the endpoint's start.
pub(crate) type Time = Duration;

/// How long a member is dead before it is dialed at the slower pace.
const LONG_DEAD: Duration = Duration::from_secs(3600);

/// Dials to a member after which its seed address is tried as well: the address that it gives may be wrong, or the host
/// may be another node's by now.
const HOPEFUL: u32 = 4;

/// What to do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Task {
    /// Look up the addresses behind a seed.
    Resolve { seed: usize, host: String },
    /// Dial an address behind a seed, whoever is there.
    Seed { seed: usize, addr: SocketAddr },
    /// Dial a member.
    Member { name: NodeName, addr: SocketAddr },
}

/// Why a dial was made, or that none was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Origin {
    /// The other end dialed.
    Incoming,
    /// A seed's address.
    Seed { seed: usize, addr: SocketAddr },
    /// A member.
    Member(NodeName),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Status {
    /// To be dialed at this time.
    Waiting(Time),
    /// So many lookups and dials are under way.
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
    /// Somebody else answered at the address.
    misnamed: bool,
    /// Why it is not linked, as far as its last dial says.
    trouble: Option<String>,
}

impl Target {
    fn new(addr: SocketAddr, status: Status) -> Self {
        Self { addr, status, attempts: 0, dead_since: None, misnamed: false, trouble: None }
    }

    /// Takes the address that the member gives now.
    fn move_to(&mut self, addr: SocketAddr) {
        self.misnamed &= self.addr == addr;
        self.addr = addr;
    }

    /// Whether it is linked, or can be expected to be soon.
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
    /// It has been tried once at least.
    tried: bool,
    /// Why it led to no link when it was last tried.
    trouble: Option<String>,
}

/// Whom to dial, and when.
///
/// A seed is dialed until every address behind it is this node's own or that of a member, which is then dialed as such.
/// A member is dialed until it is linked, has left, or is forgotten.
#[derive(Debug)]
pub(crate) struct Plan {
    us: NodeName,
    timings: Timings,
    rng: StdRng,
    seeds: Vec<Seed>,
    members: BTreeMap<NodeName, Target>,
    /// Addresses behind seeds that await their dial.
    ready: VecDeque<(usize, SocketAddr)>,
    /// Who answered at an address behind a seed.
    learned: BTreeMap<SocketAddr, NodeName>,
    /// Addresses at which this node met itself.
    ours: BTreeSet<SocketAddr>,
    dialing: usize,
}

impl Plan {
    pub(crate) fn new(us: NodeName, seeds: Vec<String>, timings: Timings, rng: u64) -> Self {
        let seed = |host| {
            let status = Status::Waiting(Time::ZERO);
            Seed { host, status, attempts: 0, failed: false, tried: false, trouble: None }
        };
        Self {
            us,
            timings,
            rng: StdRng::seed_from_u64(rng),
            seeds: seeds.into_iter().map(seed).collect(),
            members: BTreeMap::new(),
            ready: VecDeque::new(),
            learned: BTreeMap::new(),
            ours: BTreeSet::new(),
            dialing: 0,
        }
    }

    /// The next thing to do now, if any. A dial counts as under way until [`Plan::ended`].
    pub(crate) fn poll(&mut self, now: Time) -> Option<Task> {
        for (seed, entry) in self.seeds.iter_mut().enumerate() {
            if matches!(entry.status, Status::Waiting(at) if at <= now) {
                entry.status = Status::Busy(1);
                return Some(Task::Resolve { seed, host: entry.host.clone() });
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

    /// When there will be something to do.
    pub(crate) fn timeout(&self) -> Option<Time> {
        let seeds = self.seeds.iter().map(|seed| seed.status);
        // At the bound the end of a dial comes first.
        let members = self.members.values().map(|target| target.status).filter(|_| self.dialing < DIALS);
        seeds.chain(members).filter_map(|status| if let Status::Waiting(at) = status { Some(at) } else { None }).min()
    }

    /// What the membership says about a member.
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

    /// The addresses behind a seed, none if it cannot be resolved.
    pub(crate) fn resolved(&mut self, now: Time, seed: usize, addrs: Vec<SocketAddr>) {
        let found = !addrs.is_empty();
        let wanted: BTreeSet<SocketAddr> = addrs
            .into_iter()
            .take(SEED_ADDRESSES)
            .filter(|addr| !self.ours.contains(addr) && !self.is_taken_care_of(addr))
            .collect();
        let Some(entry) = self.seeds.get_mut(seed) else { return };
        entry.failed = !found;
        entry.status = Status::Busy(wanted.len());
        self.ready.extend(wanted.into_iter().map(|addr| (seed, addr)));
        self.conclude(now, seed);
    }

    /// Whether the node at an address is linked, or dialed as a member with hope of success.
    fn is_taken_care_of(&self, addr: &SocketAddr) -> bool {
        let learned = self.learned.get(addr).and_then(|name| self.members.get(name));
        let mut listed = self.members.values().filter(|target| target.addr == *addr);
        learned.is_some_and(Target::is_in_hand) || listed.any(Target::is_in_hand)
    }

    /// A dial is over: with the name of whom it met, or without success.
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
                let Some(entry) = self.seeds.get_mut(*seed) else { return };
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

    /// Notes why a dial led to no link. To be called before [`Plan::ended`].
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

    /// Notes why a seed's addresses are not known.
    pub(crate) fn seed_trouble(&mut self, seed: usize, why: &str) {
        if let Some(entry) = self.seeds.get_mut(seed) {
            entry.trouble = Some(why.to_owned());
        }
    }

    /// Whether every seed has been tried once at least.
    pub(crate) fn has_tried_all(&self) -> bool {
        self.seeds.iter().all(|seed| seed.tried)
    }

    /// The seeds that led to nobody when they were last tried, and the members without a link: each with the reason.
    pub(crate) fn troubles(&self) -> impl Iterator<Item = (String, &str)> {
        let seeds = self.seeds.iter().filter(|seed| seed.attempts > 0);
        let seeds = seeds.map(|seed| (seed.host.clone(), &seed.trouble));
        let members = self.members.iter().filter(|(_, target)| target.status != Status::Linked);
        let members = members.map(|(name, target)| (format!("{name} at {}", target.addr), &target.trouble));
        seeds.chain(members).map(|(whom, trouble)| (whom, trouble.as_deref().unwrap_or("no link")))
    }

    /// Sets the next time for a seed whose dials are all over.
    fn conclude(&mut self, now: Time, seed: usize) {
        let Some(entry) = self.seeds.get_mut(seed).filter(|entry| entry.status == Status::Busy(0)) else { return };
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

    /// The link to a member is down. One that held for a while is dialed anew at once.
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

    /// Somebody else answered at a member's address: what was learned there is void, and it is not asked often.
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

    /// Everybody is dialed at once: this node has changed, not the others.
    pub(crate) fn hurry(&mut self, now: Time) {
        for status in self
            .members
            .values_mut()
            .map(|target| (&mut target.status, &mut target.attempts))
            .chain(self.seeds.iter_mut().map(|seed| (&mut seed.status, &mut seed.attempts)))
        {
            if let (Status::Waiting(at), attempts) = status {
                *at = now;
                *attempts = 0;
            }
        }
    }

    /// The smaller name's dial is the one that stays, so it goes first.
    fn head_start(&self, name: &NodeName) -> Duration {
        if self.us < *name { Duration::ZERO } else { self.timings.head_start }
    }
}

/// The pause before attempt number `attempts`, from 1: doubling, up to `longest`, less up to half of it by chance so that
/// nodes that lost each other at the same time do not all dial at the same time.
fn backoff(rng: &mut StdRng, timings: &Timings, attempts: u32, longest: Duration) -> Duration {
    let doubled = timings.backoff_min.saturating_mul(1 << attempts.saturating_sub(1).min(16));
    doubled.min(longest).mul_f64(rng.random_range(0.5..=1.0))
}

#[cfg(test)]
mod tests;
