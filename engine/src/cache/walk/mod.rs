//! Random walks of small clusters over the shipped cache: writes, removals, links that break, messages that are lost, late or
//! double, restarts without memory or from an old disk, nodes that stay away for long, clocks that are ahead, nodes that join
//! without the earlier content, members without a link between them, and nodes that lose a write. After each walk everything is
//! delivered, and all nodes must agree.

mod ledger;
mod model;
mod world;

use crate::cache::walk::ledger::KEYS;
use crate::cache::walk::world::{Restart, Trace, World};
use crate::random::Random;

/// What a walk does in addition to writing, sending, and links that break.
#[derive(Clone, Copy)]
struct Faults {
    nodes: usize,
    /// Processes restart.
    restarts: bool,
    /// The first two nodes have no link for the whole walk.
    unlinked: bool,
    /// Messages are lost, late or double.
    losses: bool,
    /// Nodes are away for longer than the others wait for them.
    away: bool,
    /// Clocks are ahead.
    clocks: bool,
    /// Nodes join without the earlier content.
    late: bool,
    /// Nodes lose the last write of a key, and count it as taken in.
    wrong: bool,
}

const CALM: Faults = Faults {
    nodes: 3,
    restarts: false,
    unlinked: false,
    losses: false,
    away: false,
    clocks: false,
    late: false,
    wrong: false,
};

/// A number below `n`.
fn below(random: &mut Random, n: usize) -> usize {
    usize::try_from(random.next() % n as u64).unwrap()
}

fn step(world: &mut World, random: &mut Random, faults: Faults) -> Result<(), String> {
    let (i, j) = (below(random, faults.nodes), below(random, faults.nodes));
    let key = KEYS[below(random, KEYS.len())];
    match below(random, if faults.losses { 112 } else { 106 }) {
        what @ 0..10 => {
            let value = [u8::try_from(below(random, 9)).unwrap()];
            if faults.late {
                // Of two writes in one millisecond, one may be among those that a node has skipped.
                world.wait(1);
            }
            world.write(i, key, (what < 6).then_some(&value))?;
        }
        10..40 if i != j => drop(world.send(i, j)),
        40..75 if i != j => drop(world.deliver(i, j)),
        what @ 75..84 => {
            // Half of the walk's time is minutes: removals are collected at the first tick that may do so.
            world.wait(if what < 80 { 700 } else { 61_000 });
            world.tick(i);
        }
        84..86 => world.wait(61_000),
        86..89 => world.unlink(i, j),
        89..93 => world.link(i, j),
        96..99 => world.save(i),
        99 if faults.restarts => {
            let with = [Restart::Saved, Restart::Saved, Restart::Empty][below(random, 3)];
            world.restart(i, with);
        }
        100..102 if faults.away => {
            (0..faults.nodes).for_each(|other| world.unlink(i.min(other), i.max(other)));
            world.give_up(i);
        }
        102 if faults.clocks => world.set_clock(i, [0, 0, 130_000][below(random, 3)]),
        103 if faults.late => world.restart(faults.nodes - 1, Restart::Later),
        104 if faults.wrong => world.lose_last_write(i, key),
        106 | 107 if i != j => world.lose(i, j),
        108 | 109 if i != j => world.delay(i, j),
        110 | 111 if i != j => world.double(i, j),
        _ => {}
    }
    Ok(())
}

/// Walks. Returns the number of removals that were collected.
fn walk(seed: u64, faults: Faults, trace: Trace) -> (World, Result<usize, String>) {
    let mut random = Random::new(seed);
    let mut world = World::new(faults.nodes, faults.unlinked.then_some((0, 1)), trace);
    let steps = 60 + below(&mut random, 140);
    let mut run = || -> Result<usize, String> {
        for _ in 0..steps {
            step(&mut world, &mut random, faults)?;
            world.check()?;
        }
        world.settle()?;
        Ok(world.collected)
    };
    let result = run();
    (world, result)
}

/// What happened in a walk that failed.
fn traced(seed: u64, faults: Faults) -> Vec<String> {
    walk(seed, faults, Trace(Some(Vec::new()))).0.trace.0.unwrap_or_default()
}

fn walks(faults: Faults) {
    let walks = std::env::var("CACHE_WALKS").map_or(300, |walks| walks.parse().unwrap());
    let (mut collected, mut failed) = (0, Vec::new());
    for seed in 0..walks {
        match walk(seed, faults, Trace::default()).1 {
            Ok(removals) => collected += removals,
            Err(what) => failed.push((traced(seed, faults), seed, what)),
        }
    }
    let failures = failed.len();
    if let Some((trace, seed, what)) = failed.into_iter().min_by_key(|(trace, ..)| trace.len()) {
        panic!("{failures} of {walks} walks fail; seed {seed}: {what}\n{}", trace.join("\n"));
    }
    assert!(collected > 0, "nothing was collected in {walks} walks");
    println!("{walks} walks, {collected} removals collected");
}

#[test]
fn nodes_agree_after_links_broke() {
    walks(CALM);
}

#[test]
fn nodes_agree_after_messages_were_lost_or_out_of_order() {
    walks(Faults { losses: true, ..CALM });
}

/// The first reports of both nodes are lost, so neither has anything to ask for.
#[test]
fn a_report_is_repeated_to_a_peer_that_is_silent() {
    let mut world = World::new(2, None, Trace(Some(Vec::new())));
    world.write(0, KEYS[0], Some(&[1])).unwrap();
    for (i, j) in [(0, 1), (1, 0)] {
        assert!(world.send(i, j), "the first report");
        world.lose(i, j);
    }
    assert_eq!(world.settle(), Ok(()), "{}", world.trace.0.unwrap_or_default().join("\n"));
}

#[test]
fn nodes_agree_after_restarts() {
    walks(Faults { restarts: true, losses: true, ..CALM });
}

#[test]
fn nodes_agree_through_relays() {
    walks(Faults { nodes: 4, restarts: true, losses: true, unlinked: true, ..CALM });
}

#[test]
fn nodes_agree_after_some_were_away_for_long() {
    walks(Faults { restarts: true, away: true, ..CALM });
}

#[test]
fn nodes_agree_after_clocks_were_ahead() {
    walks(Faults { clocks: true, restarts: true, ..CALM });
}

#[test]
fn nodes_agree_with_those_that_joined_later() {
    walks(Faults { late: true, ..CALM });
}

/// What a fault took from one node comes back from the others, and what was removed does not come back.
#[test]
fn nodes_agree_after_some_lost_a_write() {
    walks(Faults { wrong: true, restarts: true, ..CALM });
}

/// With each rule broken, some walk finds a counterexample.
#[cfg(feature = "canaries")]
mod canaries {
    use super::*;
    use crate::canary::{Canary, set_broken};

    /// The most walks in which a counterexample must turn up, and how many are searched for a short one.
    const SEEDS: u64 = 30_000;
    const SEARCHED: usize = 4;

    /// Walks with these faults need the rule.
    fn finds(rule: Canary, faults: Faults) {
        set_broken(Some(rule));
        let failed = (0..SEEDS).filter_map(|seed| {
            let what = walk(seed, faults, Trace::default()).1.err()?;
            Some((traced(seed, faults), seed, what))
        });
        let shortest = failed.take(SEARCHED).min_by_key(|(trace, ..)| trace.len());
        set_broken(None);
        let (trace, seed, what) = shortest.unwrap_or_else(|| panic!("{SEEDS} walks do not need {rule:?}"));
        println!("{rule:?}, seed {seed}, {} steps: {what}\n{}", trace.len(), trace.join("\n"));
    }

    /// What happens needs the rule.
    fn needs(rule: Canary, nodes: usize, happens: impl Fn(&mut World) -> Result<(), String>) {
        let run = |rule| {
            let mut world = World::new(nodes, None, Trace(Some(Vec::new())));
            world.exchange_all(&world.directions()).unwrap();
            set_broken(rule);
            let result = happens(&mut world);
            set_broken(None);
            (result, world.trace.0.unwrap_or_default().join("\n"))
        };
        let (kept, trace) = run(None);
        assert_eq!(kept, Ok(()), "{trace}");
        let (broken, trace) = run(Some(rule));
        let what = broken.expect_err(&trace);
        println!("{rule:?}: {what}\n{trace}");
    }

    #[test]
    fn a_write_that_arrives_last_must_not_win() {
        finds(Canary::ArrivalWins, CALM);
    }

    #[test]
    fn a_gap_must_not_count_as_taken_in() {
        finds(Canary::GapApplied, Faults { losses: true, ..CALM });
    }

    #[test]
    fn a_write_from_far_ahead_must_not_be_taken() {
        finds(Canary::FutureTaken, Faults { clocks: true, ..CALM });
    }

    #[test]
    fn a_removal_must_wait_for_all_nodes() {
        finds(Canary::RemovalForgotten, CALM);
    }

    #[test]
    fn a_superseded_write_must_not_be_taken() {
        needs(Canary::SupersededTaken, 2, |world| {
            world.write(1, KEYS[0], Some(&[1]))?;
            world.exchange_all(&[(1, 0)])?;
            world.write(1, KEYS[0], Some(&[2]))?;
            world.send(1, 0);
            world.double(1, 0);
            world.deliver(1, 0);
            // The copy of that message arrives after the removal was collected.
            world.write(1, KEYS[0], None)?;
            world.check()?;
            world.send(1, 0);
            world.delay(1, 0);
            world.deliver(1, 0);
            world.wait(61_000);
            world.tick(0);
            world.send(0, 1);
            world.deliver(0, 1);
            for at in [1, 1, 0, 0] {
                world.tick(at);
            }
            world.deliver(1, 0);
            world.check()
        });
    }

    #[test]
    fn a_round_must_be_awaited() {
        needs(Canary::RoundNotAwaited, 2, |world| {
            world.write(1, KEYS[0], Some(&[1]))?;
            world.send(1, 0);
            world.wait(1);
            world.write(0, KEYS[0], Some(&[2]))?;
            world.write(0, KEYS[0], None)?;
            world.exchange_all(&[(0, 1)])?;
            world.wait(61_000);
            world.tick(1);
            world.send(1, 0);
            // The first write of the other node arrives after its report.
            world.delay(1, 0);
            world.deliver(1, 0);
            world.tick(0);
            world.tick(0);
            world.deliver(1, 0);
            world.check()
        });
    }

    #[test]
    fn what_replaced_an_own_write_must_be_sent_with_it() {
        finds(Canary::ReplacedLeftOut, Faults { restarts: true, losses: true, ..CALM });
    }

    #[test]
    fn a_node_that_was_away_must_compare() {
        finds(Canary::NotCompared, Faults { restarts: true, away: true, ..CALM });
    }

    #[test]
    fn what_a_run_has_sent_without_a_mark_must_be_taken_over() {
        needs(Canary::UnmarkedLost, 3, |world| {
            world.write(1, KEYS[0], Some(&[1]))?;
            world.exchange_all(&world.directions())?;
            world.save(1);
            // One node receives a write, but not the one before it, so no mark covers it. The writer forgets both.
            world.write(1, KEYS[1], Some(&[2]))?;
            world.send(1, 2);
            world.lose(1, 2);
            world.write(1, KEYS[0], Some(&[3]))?;
            world.send(1, 2);
            world.deliver(1, 2);
            world.restart(1, Restart::Saved);
            world.stay_busy(0, KEYS[1], 12)?;
            world.same_values(0, 2)
        });
    }

    #[test]
    fn a_difference_must_be_repaired() {
        needs(Canary::DifferenceLeft, 3, |world| {
            world.unlink(0, 2);
            world.unlink(1, 2);
            world.write(2, KEYS[0], Some(&[1]))?;
            world.wait(1);
            world.write(0, KEYS[0], Some(&[2]))?;
            world.write(0, KEYS[0], None)?;
            world.give_up(2);
            world.exchange_all(&[(0, 1)])?;
            world.tick(1);
            world.exchange_all(&[(1, 0)])?;
            world.wait(61_000);
            // One of the others has collected the removal when the third one returns with an earlier write.
            world.tick(0);
            world.tick(0);
            world.link(0, 2);
            world.link(1, 2);
            world.exchange_all(&[(2, 0), (0, 2)])?;
            world.settle()
        });
    }

    #[test]
    fn a_value_must_be_repaired() {
        finds(Canary::ValuesLeft, Faults { wrong: true, ..CALM });
    }

    #[test]
    fn what_a_node_that_is_gone_has_sent_without_a_mark_must_be_sent_on() {
        needs(Canary::GoneNotSent, 3, |world| {
            // One node receives a write, but not the one before it, so no mark covers it. Then the writer is gone.
            world.write(2, KEYS[1], Some(&[1]))?;
            world.send(2, 1);
            world.lose(2, 1);
            world.write(2, KEYS[0], Some(&[2]))?;
            world.send(2, 1);
            world.deliver(2, 1);
            world.unlink(0, 2);
            world.unlink(1, 2);
            world.give_up(2);
            world.stay_busy(0, KEYS[1], 12)?;
            world.same_values(0, 1)
        });
    }

    #[test]
    fn what_others_have_collected_must_be_remembered() {
        finds(Canary::CollectedForgotten, Faults { restarts: true, away: true, ..CALM });
    }
}
