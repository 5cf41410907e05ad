//! Hard limits against an adversary (I9): rows arrive late, in any order, in any of the states that they ever had, or never;
//! processes crash, restart without anything, stand still, and run twice under one name; clocks run at different speeds.

use std::collections::BTreeMap;
use std::time::Duration;

use tallymesh_engine::Time;
use tallymesh_engine::limiter::{Bucket, Escrow, Founding, Quota, ReleaseAll, UNITS};
use tallymesh_schemas::{NodeName, Rate};

const NAME: &str = "campaign";

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }
}

struct Process {
    node: usize,
    escrow: Escrow,
    bucket: Bucket,
    /// Every state that every row of it ever had.
    rows: BTreeMap<String, Vec<(u64, u64)>>,
    /// How far each other process's rows were delivered here.
    seen: BTreeMap<(usize, String), usize>,
    alive: bool,
    stopped: bool,
    offset: u64,
    drift_ppm: i64,
    rate: Rate,
    /// Nobody asked for the limit, so that it is not shared out here.
    rests: bool,
    rested: u64,
    admitted: u64,
    refused: u64,
}

impl Process {
    fn clock(&self, at: u64) -> Time {
        let run = i128::from(at) + i128::from(at) * i128::from(self.drift_ppm) / 1_000_000;
        Time(run as u64 + self.offset)
    }

    fn share_out(&mut self) {
        let least = UNITS.div_ceil(self.rate.burst());
        self.escrow.share_out(NAME, Quota { whole: UNITS, least }, Some(self.rate));
    }

    /// What it may use now, and until when.
    fn share(&self) -> (u64, Time) {
        let (share, base) = (self.escrow.share(NAME), self.escrow.base());
        if self.rests { (base.units, base.until) } else { (share.units, share.until) }
    }

    fn step(&mut self, at: u64, round: u64, demand: u64) {
        let now = self.clock(at);
        if self.rests && (demand > 0 || self.escrow.take_asked().contains_key(NAME)) {
            // As if it had been there all the time.
            self.bucket = Bucket::since(self.rate, self.escrow.base(), now);
            self.share_out();
            self.rests = false;
        }
        self.escrow.demand(NAME, demand, round);
        self.escrow.handle_timeout(now, &mut ReleaseAll);
        let share = self.escrow.share(NAME);
        let full = !self.rests && {
            self.bucket.set_share(now, share.units, share.until);
            self.bucket.is_full(now) && self.bucket.share(now) == self.escrow.base().units
        };
        self.rests |= full && self.escrow.retire(NAME);
        self.rested += u64::from(self.rests);
        while let Some(write) = self.escrow.poll_write() {
            let states = self.rows.entry(write.key).or_default();
            let (added, removed) = states.last().copied().unwrap_or_default();
            states.push((added + write.added, removed + write.removed));
        }
    }
}

fn name(node: usize) -> NodeName {
    NodeName::new(&format!("n{node:02}")).unwrap()
}

/// Which rows a delivery brings.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Delivery {
    /// All rows, each in its latest state.
    All,
    /// Some rows, each in some state that is not older than the one that was seen.
    Some,
}

struct World {
    random: Random,
    at: u64,
    rate: Rate,
    founding: Founding,
    processes: Vec<Process>,
    cut: Vec<Vec<bool>>,
    /// What all nodes together may admit: one bucket that sees everything.
    whole: Bucket,
    drift_ppm: u64,
    /// One in so many deliveries happens.
    lazy: u64,
}

impl World {
    fn new(seed: u64, nodes: usize, founders: usize, rate: &str, burst: u64, drift_ppm: u64) -> Self {
        let rate = rate.parse::<Rate>().unwrap().with_burst(burst).unwrap();
        // A rate is per time, and time is what a clock says.
        let fast = Rate::new(rate.tokens() * (1_000_000 + drift_ppm), rate.period() * 1000, burst * 1000).unwrap();
        assert_eq!(fast.burst() / 1000, burst);
        let mut world = Self {
            random: Random(seed),
            at: 1,
            rate,
            founding: Founding::new((0..founders).map(name), Duration::from_secs(6)).unwrap(),
            processes: Vec::new(),
            cut: vec![vec![false; nodes]; nodes],
            whole: Bucket::whole(fast, Time(1)),
            drift_ppm,
            lazy: 3,
        };
        (0..nodes).for_each(|node| world.start(node));
        world
    }

    fn start(&mut self, node: usize) {
        let founding = self.founding.clone();
        let offset = self.random.below(1_000_000_000);
        let drift_ppm = self.random.below(2 * self.drift_ppm + 1) as i64 - self.drift_ppm as i64;
        let mut process = Process {
            node,
            escrow: Escrow::new(founding.clone(), name(node), self.random.next(), Time(0)),
            bucket: Bucket::new(self.rate, Time(0)),
            rows: BTreeMap::new(),
            seen: BTreeMap::new(),
            alive: true,
            stopped: false,
            offset,
            drift_ppm,
            rate: self.rate,
            rests: false,
            rested: 0,
            admitted: 0,
            refused: 0,
        };
        let now = process.clock(self.at);
        process.escrow =
            Escrow::new(founding, process.escrow.process().node.clone(), process.escrow.process().nonce, now);
        process.bucket = Bucket::new(self.rate, now);
        process.share_out();
        self.processes.push(process);
    }

    /// Brings rows from one process to another: some of them, in any state not older than what was seen.
    fn deliver(&mut self, from: usize, to: usize, extent: Delivery) {
        let node = self.processes[from].escrow.process().node.clone();
        let keys: Vec<_> = self.processes[from].rows.iter().map(|(key, states)| (key.clone(), states.len())).collect();
        for (key, states) in keys {
            let seen = self.processes[to].seen.get(&(from, key.clone())).copied().unwrap_or(0);
            if seen >= states || (extent == Delivery::Some && self.random.one_in(4)) {
                continue;
            }
            let upto = if extent == Delivery::All {
                states
            } else {
                seen + 1 + self.random.below((states - seen) as u64) as usize
            };
            let (added, removed) = self.processes[from].rows[&key][upto - 1];
            let now = self.processes[to].clock(self.at);
            self.processes[to].escrow.learn(now, &node, key.as_bytes(), added, removed);
            self.processes[to].seen.insert((from, key), upto);
        }
    }

    /// One moment: messages, timers, requests, and what must hold. `demand` is what each node is asked for in tokens.
    fn step(&mut self, micros: u64, demand: &dyn Fn(usize, u64) -> u64) {
        self.at += micros;
        let n = self.processes.len();
        for from in 0..n {
            for to in 0..n {
                let (a, b) = (self.processes[from].node, self.processes[to].node);
                let (sends, takes) =
                    (!self.processes[from].stopped, self.processes[to].alive && !self.processes[to].stopped);
                // Rows of the dead may still be passed on by anybody.
                let passed_on = self.processes[from].alive || self.random.one_in(16);
                if from == to || !takes || !sends || !passed_on || self.cut[a][b] || !self.random.one_in(self.lazy) {
                    continue;
                }
                let all = self.lazy == 1 || self.random.one_in(4);
                self.deliver(from, to, if all { Delivery::All } else { Delivery::Some });
            }
        }
        let used: u64 = self.processes.iter().map(|process| process.admitted).sum();
        for i in 0..n {
            if !self.processes[i].alive || self.processes[i].stopped {
                continue;
            }
            let asked = demand(self.processes[i].node, micros);
            let units =
                asked * 1_000_000 * UNITS / micros.max(1) * self.rate.period_us() / self.rate.tokens() / 1_000_000;
            self.processes[i].step(self.at, used, units);
            let now = self.processes[i].clock(self.at);
            for _ in 0..asked {
                if !self.processes[i].bucket.take(now, 1).admitted() {
                    self.processes[i].refused += 1;
                    continue;
                }
                self.processes[i].admitted += 1;
                let admitted = self.whole.take(Time(self.at), 1000);
                assert!(admitted.admitted(), "I9: more than B + Rt at {}", self.at);
            }
        }
        self.check();
    }

    /// I9: no two processes use the same share.
    fn check(&self) {
        let mut sum = 0;
        for process in self.processes.iter().filter(|process| process.alive) {
            let (units, until) = process.share();
            sum += if process.clock(self.at) < until { units } else { 0 };
        }
        assert!(sum <= UNITS, "I9: shares sum up to {sum} of {UNITS} at {}: {}", self.at, self.explain());
    }

    fn explain(&self) -> String {
        let alive = self.processes.iter().filter(|process| process.alive);
        let lines = alive.map(|process| {
            let escrow = &process.escrow;
            format!(
                "\n{} clock {:?}: {:?}, holds {:?}, lent {:?}, borrowed {:?}",
                process.escrow.process().node,
                process.clock(self.at),
                process.share(),
                escrow.holdings(),
                escrow.lent(NAME),
                escrow.borrowed(NAME)
            )
        });
        lines.collect()
    }

    fn admitted(&self) -> u64 {
        self.processes.iter().map(|process| process.admitted).sum()
    }

    fn crash(&mut self, node: usize) {
        for process in self.processes.iter_mut().filter(|process| process.node == node) {
            process.alive = false;
        }
    }

    fn partition(&mut self, groups: u64) {
        let nodes = self.cut.len();
        let group: Vec<_> = (0..nodes).map(|_| self.random.below(groups)).collect();
        for a in 0..nodes {
            for b in 0..nodes {
                self.cut[a][b] = group[a] != group[b];
            }
        }
    }

    fn heal(&mut self) {
        self.cut.iter_mut().flatten().for_each(|cut| *cut = false);
        self.processes.iter_mut().for_each(|process| process.stopped = false);
    }

    fn run(&mut self, seconds: u64, demand: &dyn Fn(usize, u64) -> u64) {
        let end = self.at + seconds * 1_000_000;
        while self.at < end {
            self.step(20_000, demand);
        }
    }

    /// Something bad happens, or something good.
    fn fault(&mut self, twins: bool) {
        let nodes = self.cut.len() as u64;
        let node = self.random.below(nodes) as usize;
        match self.random.below(10) {
            0 | 1 => self.partition(2),
            2 => self.partition(3),
            3 => {
                let other = self.random.below(nodes) as usize;
                self.cut[node][other] = true;
            }
            4 => self.crash(node),
            5 | 6 => {
                self.crash(node);
                self.start(node);
            }
            7 => self
                .processes
                .iter_mut()
                .filter(|process| process.node == node)
                .for_each(|process| process.stopped = true),
            8 if twins => self.start(0),
            _ => self.heal(),
        }
        for node in 0..nodes as usize {
            if !self.processes.iter().any(|process| process.node == node && process.alive) && self.random.one_in(3) {
                self.start(node);
            }
        }
        self.processes.retain(|process| process.alive || !process.rows.is_empty());
    }
}

/// How many runs: more of them with `ESCROW_SEEDS`.
fn seeds(usual: u64) -> u64 {
    std::env::var("ESCROW_SEEDS").ok().and_then(|text| text.parse().ok()).unwrap_or(usual)
}

fn busy(rate: u64) -> impl Fn(usize, u64) -> u64 {
    move |_, micros| (rate * micros).div_ceil(1_000_000)
}

/// I9: whatever happens, and whenever.
#[test]
fn no_two_processes_use_the_same_share() {
    let mut rested = 0;
    for seed in 0..seeds(60) {
        let nodes = 2 + (seed % 4) as usize;
        let founders = (1 + (seed / 4) % nodes as u64) as usize;
        let mut world = World::new(seed, nodes, founders, "200/1s", 100, 20_000);
        for _ in 0..30 {
            let pause = 200_000 + world.random.below(6_000_000);
            let hot = world.random.below(nodes as u64 + 1) as usize;
            let end = world.at + pause;
            while world.at < end {
                let micros = 5_000 + world.random.below(60_000);
                world.step(micros, &|node, micros| {
                    if node == hot || hot == nodes { (500 * micros).div_ceil(1_000_000) } else { 0 }
                });
            }
            world.fault(false);
        }
        assert!(world.admitted() > 0 || founders > 1, "seed {seed}: nothing was ever admitted");
        rested += world.processes.iter().map(|process| process.rested).sum::<u64>();
    }
    assert!(rested > 0, "no limit ever rested");
}

/// I9: one name that is run by several processes at a time.
#[test]
fn a_name_that_runs_twice_has_one_share() {
    for seed in 0..seeds(30) {
        let mut world = World::new(seed, 4, 3, "200/1s", 100, 20_000);
        world.founding = world.founding.clone().without_stand_ins();
        world.processes.clear();
        (0..4).for_each(|node| world.start(node));
        for _ in 0..30 {
            let end = world.at + 200_000 + world.random.below(6_000_000);
            while world.at < end {
                let micros = 5_000 + world.random.below(60_000);
                world.step(micros, &busy(300));
            }
            world.fault(true);
        }
    }
}

/// After a start all shares are used, and after faults again.
#[test]
fn shares_come_back_when_all_is_well() {
    let mut world = World::new(7, 3, 3, "300/1s", 300, 1000);
    world.lazy = 1;
    world.run(12, &busy(500));
    for _ in 0..3 {
        let before = world.admitted();
        world.run(10, &busy(500));
        let got = world.admitted() - before;
        assert!(got >= 2950, "{got} of 3000: {}", world.explain());
        world.crash(1);
        world.run(1, &busy(500));
        world.start(1);
        world.run(25, &busy(500));
    }
}

/// A founder that is gone is stood in for, and gets its share back.
#[test]
fn a_dead_founders_share_is_taken_up() {
    let mut world = World::new(8, 4, 4, "400/1s", 400, 1000);
    world.lazy = 1;
    world.run(12, &busy(500));
    world.crash(2);
    world.run(20, &busy(500));
    let before = world.admitted();
    world.run(10, &busy(500));
    let got = world.admitted() - before;
    assert!(got >= 3900, "{got} of 4000: {}", world.explain());
    world.start(2);
    world.run(25, &busy(500));
    let own: u64 = world.processes.iter().filter(|p| p.node == 2 && p.alive).map(|p| p.share().0).sum();
    assert!(own >= UNITS / 5, "{own}: {}", world.explain());
}

/// One hot node of ten has 95 % of the rate, and uniform demand 98 %; static parts would give the hot node 10 %.
#[test]
fn shares_follow_demand() {
    let mut world = World::new(9, 10, 10, "1000/1s", 1000, 1000);
    world.lazy = 1;
    world.run(12, &busy(500));
    let mut before = world.admitted();
    world.run(10, &busy(500));
    let uniform = world.admitted() - before;
    assert!(uniform >= 9800, "uniform: {uniform} of 10000: {}", world.explain());
    for hot in [3, 7] {
        let demand = |node, micros: u64| if node == hot { 5000 * micros / 1_000_000 } else { 0 };
        world.run(3, &demand);
        before = world.admitted();
        world.run(10, &demand);
        let got = world.admitted() - before;
        assert!(got >= 9500, "hot: {got} of 10000: {}", world.explain());
    }
}

/// Where a share is less than one token, whole tokens go round, and all who ask get some.
#[test]
fn whole_tokens_go_round() {
    let mut world = World::new(10, 5, 5, "4/1s", 2, 1000);
    world.lazy = 1;
    world.run(12, &busy(1));
    let before = world.admitted();
    let each: Vec<_> = world.processes.iter().map(|process| process.admitted).collect();
    world.run(60, &busy(5));
    let got = world.admitted() - before;
    let each: Vec<_> = world.processes.iter().zip(each).map(|(process, before)| process.admitted - before).collect();
    assert!(got >= 160, "{got} of 240: {each:?} {}", world.explain());
    assert!(each.iter().all(|n| *n >= 15), "{each:?}");
}
