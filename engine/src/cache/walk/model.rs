//! Every order of a few steps of a small cluster over the shipped cache, up to a depth. A replica cannot be copied, so a state is the
//! list of steps that leads to it, and is reached again by repeating them. Two lists lead to the same state if everything is
//! equal: replicas, links, messages on their way, disks, clocks, and what the checks remember.
//!
//! In every state the checks of the walks hold, and from every state the cluster settles: all nodes agree. The search is
//! breadth-first, so a counterexample has the fewest steps.

use std::collections::BTreeSet;
use std::fmt::{self, Write as _};
use std::hash::{BuildHasher, Hasher};

use foldhash::quality::{FixedState, FoldHasher};

use crate::cache::walk::ledger::KEYS;
use crate::cache::walk::world::{Restart, Trace, World};

const NODES: usize = 3;

/// Longer than any removal waits before it may be collected.
const LONG_MS: u64 = 61_000;

/// One step.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Step {
    Write(usize, usize),
    Remove(usize),
    /// The next message arrives at once.
    Give(usize, usize),
    /// The next message is under way until it is delivered or lost.
    Send(usize, usize),
    Deliver(usize, usize),
    Lose(usize, usize),
    /// A minute passes, and this node ticks.
    Later(usize),
    Tick(usize),
    Save(usize),
    Restart(usize, Restart),
}

/// How often each kind of step may happen; and the number of keys.
#[derive(Clone, Copy)]
struct Case {
    keys: usize,
    writes: usize,
    removals: usize,
    /// Messages that are under way while other steps happen.
    late: usize,
    losses: usize,
    later: usize,
    ticks: usize,
    saves: usize,
    restarts: usize,
}

/// Nothing but two writes of one key.
const WRITES: Case =
    Case { keys: 1, writes: 2, removals: 0, late: 0, losses: 0, later: 0, ticks: 0, saves: 0, restarts: 0 };

/// What a search has seen.
#[derive(Debug, Default)]
struct Searched {
    states: usize,
    steps: usize,
}

/// A state in which something does not hold.
struct Counterexample {
    path: Vec<Step>,
    what: String,
}

/// Hashes what is written to it.
struct Digest(FoldHasher<'static>, FoldHasher<'static>);

impl fmt::Write for Digest {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.write(text.as_bytes());
        self.1.write(text.as_bytes());
        Ok(())
    }
}

fn digest(world: &World) -> (u64, u64) {
    let hasher = |seed| FixedState::with_seed(seed).build_hasher();
    let mut digest = Digest(hasher(1), hasher(2));
    write!(digest, "{world:?}").unwrap();
    (digest.0.finish(), digest.1.finish())
}

/// Applies a step. Returns whether it had an effect.
fn apply(world: &mut World, step: Step, number: usize) -> Result<bool, String> {
    match step {
        Step::Write(at, key) => {
            let value = [u8::try_from(number).unwrap()];
            world.write(at, KEYS[key], Some(&value)).map(|()| true)
        }
        Step::Remove(at) => {
            let holds = world.holds(at, KEYS[0]);
            world.write(at, KEYS[0], None).map(|()| holds)
        }
        Step::Give(i, j) => Ok(world.waiting(i, j) == 0 && world.send(i, j) && world.deliver(i, j)),
        Step::Send(i, j) => Ok(world.waiting(i, j) == 0 && world.send(i, j)),
        Step::Deliver(i, j) => Ok(world.deliver(i, j)),
        Step::Lose(i, j) => {
            let waits = world.waiting(i, j) > 0;
            world.lose(i, j);
            Ok(waits)
        }
        Step::Later(at) => {
            world.wait(LONG_MS);
            world.tick(at);
            Ok(true)
        }
        Step::Tick(at) => {
            world.tick(at);
            Ok(true)
        }
        Step::Save(at) => {
            world.save(at);
            Ok(true)
        }
        Step::Restart(at, with) => {
            world.restart(at, with);
            Ok(true)
        }
    }
}

/// The state after some steps: three linked nodes that have reported to each other, and then the steps. Returns whether the last
/// step had an effect.
fn reach(path: &[Step], trace: Trace) -> (World, Result<bool, String>) {
    let mut world = World::new(NODES, None, Trace::default());
    let directions = world.directions();
    let run = || {
        world.exchange_all(&directions)?;
        world.trace = trace;
        let mut had_effect = true;
        for (number, step) in path.iter().enumerate() {
            had_effect = apply(&mut world, *step, number)?;
            world.check()?;
            if !world.is_whole() {
                return Err("a node has skipped writes, and none has joined late".to_owned());
            }
        }
        Ok(had_effect)
    };
    let result = run();
    (world, result)
}

/// The steps that may follow.
fn next(path: &[Step], case: Case) -> Vec<Step> {
    let used = |kind: fn(&Step) -> bool| path.iter().filter(|step| kind(step)).count();
    let writes = used(|step| matches!(step, Step::Write(..)));
    let mut steps = Vec::new();
    for i in 0..NODES {
        // Nodes differ only in the order of their names. So the first write is of the first one, and nothing comes before it.
        if writes < case.writes && (writes > 0 || i == 0) {
            let keys = if writes == 0 { 1 } else { case.keys };
            steps.extend((0..keys).map(|key| Step::Write(i, key)));
        }
        if writes == 0 {
            continue;
        }
        if used(|step| matches!(step, Step::Remove(_))) < case.removals {
            steps.push(Step::Remove(i));
        }
        for j in (0..NODES).filter(|j| *j != i) {
            steps.push(Step::Give(i, j));
            if used(|step| matches!(step, Step::Send(..))) < case.late {
                steps.push(Step::Send(i, j));
            }
            if path.contains(&Step::Send(i, j)) {
                steps.push(Step::Deliver(i, j));
                if used(|step| matches!(step, Step::Lose(..))) < case.losses {
                    steps.push(Step::Lose(i, j));
                }
            }
        }
        if used(|step| matches!(step, Step::Later(_))) < case.later {
            steps.push(Step::Later(i));
        }
        if used(|step| matches!(step, Step::Tick(_))) < case.ticks {
            steps.push(Step::Tick(i));
        }
        let saved = used(|step| matches!(step, Step::Save(_)));
        if saved < case.saves {
            steps.push(Step::Save(i));
        }
        if used(|step| matches!(step, Step::Restart(..))) < case.restarts {
            steps.push(Step::Restart(i, Restart::Empty));
            if path.contains(&Step::Save(i)) {
                steps.push(Step::Restart(i, Restart::Saved));
            }
        }
    }
    steps
}

/// Searches all states up to a depth.
fn search(case: Case, depth: usize) -> Result<Searched, Counterexample> {
    let mut searched = Searched::default();
    let (mut known, mut level) = (BTreeSet::new(), vec![Vec::new()]);
    for _ in 0..depth {
        let mut deeper = Vec::new();
        for path in level {
            for step in next(&path, case) {
                let mut path = path.clone();
                path.push(step);
                searched.steps += 1;
                let (mut world, result) = reach(&path, Trace::default());
                let is_new = result.map(|had_effect| had_effect && known.insert(digest(&world)));
                let settled = is_new.and_then(|is_new| if is_new { world.settle().map(|()| true) } else { Ok(false) });
                match settled {
                    Ok(true) => deeper.push(path),
                    Ok(false) => {}
                    Err(what) => return Err(Counterexample { path, what }),
                }
            }
        }
        searched.states += deeper.len();
        level = deeper;
    }
    Ok(searched)
}

/// The steps of a counterexample, and what happened in them.
fn story(found: &Counterexample) -> String {
    let (mut world, result) = reach(&found.path, Trace(Some(Vec::new())));
    let trace = world.trace.0.take().unwrap_or_default();
    let settled = if result.is_ok() { "; then everything is delivered" } else { "" };
    format!("{}\n{:?}{settled}\n{}", found.what, found.path, trace.join("\n"))
}

fn holds(name: &str, case: Case, depth: usize) {
    match search(case, depth) {
        Ok(Searched { states, steps }) => println!("{name}: depth {depth}, {states} states, {steps} steps"),
        Err(found) => panic!("{name}: {}", story(&found)),
    }
}

/// The depth that `CACHE_MODEL_DEPTH` adds.
fn deeper() -> usize {
    std::env::var("CACHE_MODEL_DEPTH").map_or(0, |depth| depth.parse().unwrap())
}

/// Two writes and a removal, and two messages that are late.
#[test]
fn writes_and_a_removal() {
    holds("writes and a removal", Case { removals: 1, late: 2, ..WRITES }, 5 + deeper());
}

/// Two writes and a removal that is collected, and a message that is late or lost.
#[test]
fn a_collected_removal() {
    let case = Case { removals: 1, late: 1, losses: 1, later: 1, ticks: 2, ..WRITES };
    holds("a collected removal", case, 4 + deeper());
}

/// Two writes and a removal, and a node that restarts, with or without what it had saved.
#[test]
fn a_restart() {
    let case = Case { removals: 1, late: 1, later: 1, saves: 1, restarts: 1, ..WRITES };
    holds("a restart", case, 4 + deeper());
}

/// Two keys, so that one message can be missing while a later one arrives.
#[test]
fn two_keys_and_a_loss() {
    holds("two keys and a loss", Case { keys: 2, late: 1, losses: 1, ..WRITES }, 5 + deeper());
}

/// With each of these rules broken, the search finds a counterexample with the fewest steps.
#[cfg(feature = "canaries")]
mod canaries {
    use super::*;
    use crate::canary::{Canary, set_broken};

    fn finds(rule: Canary, case: Case, depth: usize) {
        set_broken(Some(rule));
        let found = search(case, depth).err().map(|found| (found.path.len(), story(&found)));
        set_broken(None);
        let (steps, story) = found.unwrap_or_else(|| panic!("{depth} steps do not need {rule:?}"));
        println!("{rule:?}, {steps} steps: {story}");
    }

    #[test]
    fn a_write_that_arrives_last_must_not_win() {
        finds(Canary::ArrivalWins, WRITES, 5);
    }

    #[test]
    fn a_gap_must_not_count_as_taken_in() {
        finds(Canary::GapApplied, Case { keys: 2, late: 1, losses: 1, ..WRITES }, 6);
    }

    #[test]
    fn a_removal_must_wait_for_all_nodes() {
        finds(Canary::RemovalForgotten, Case { writes: 1, removals: 1, later: 1, ticks: 1, ..WRITES }, 6);
    }
}
