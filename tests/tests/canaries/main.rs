//! Every rule of the engine that can be broken one at a time has to turn the suite red.
//!
//! `cargo test -p tallymesh-harness --features canaries --test canaries -- --nocapture` prints the table.

mod budgets;
mod caches;
mod disks;
// What these show is that their scenarios notice; not all that they offer is needed here.
#[allow(dead_code)]
#[path = "../../../engine/tests/late/mod.rs"]
mod late;
#[path = "../levels/mod.rs"]
mod levels;
#[allow(dead_code)]
#[path = "../../../engine/tests/pieces/mod.rs"]
mod pieces;
#[allow(dead_code)]
#[path = "../../../engine/tests/wire/mod.rs"]
mod wire;

use std::cell::Cell;
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::caches::{
    a_false_mark, an_hour_ahead, both_write, gone_without_a_mark, removed_before_it_joined, removed_while_away,
    replaced_before_it_was_sent, sent_without_a_mark, some_have_collected, the_same_message_again,
    write_behind_a_removal,
};
use crate::disks::{a_stale_disk, one_begins_again};
use crate::wire::Wire;
use tallymesh_engine::canary::{ALL, Canary, set_broken, set_interleaved};
use tallymesh_engine::{Config, Now, Replica, Scope, Series, Time};
use tallymesh_harness::swarm::{Detail, draw, run};
use tallymesh_harness::{Builder, Failure, Fault, Limits, Timing, address, quick_config, series, spec};
use tallymesh_schemas::{
    Class, Incarnation, Kind, NodeName, OnDead, SeriesName, SeriesSpec, Strength, StructureSpec, ThrottleSpec, UnixMs,
};

/// Seeds that a canary may survive.
const SEEDS: u64 = 25;

/// An addition that comes between the two steps in which a changed cell is taken must not be lost.
fn addition_in_between() -> Option<String> {
    let mut replica = Replica::new(Default::default(), NodeName::new("a").unwrap(), Incarnation(1));
    let structure = replica.replicate(StructureSpec::from(Class::OutboundDomains), Arc::new(|| ())).unwrap();
    let counter = structure.counter(b"k").unwrap();
    counter.add(1);
    let ran = Rc::new(Cell::new(false));
    let (also, noted) = (counter.clone(), Rc::clone(&ran));
    set_interleaved(move || {
        also.add(1);
        noted.set(true);
    });
    for second in 1..5 {
        replica.handle_timeout(Now { mono: Time(second * 1_000_000), unix_ms: UnixMs(1) });
    }
    assert!(ran.get(), "nothing came in between");
    let rows = structure.rows_of(replica.actor());
    (rows[0].1.added != 2).then(|| format!("2 were added, the row says {}", rows[0].1.added))
}

/// What a swarm of drawn faults rarely combines: the dead are hidden for long enough to be looked at while others count.
fn the_dead_are_hidden() -> Option<String> {
    let mut inbound = spec("inbound_cidr", Class::InboundCidr);
    inbound.on_dead = OnDead::Drop(Duration::from_secs(1));
    let mut cluster = Builder::new(1).structures([inbound]).start();
    let result: Result<(), Failure> = (|| {
        cluster.run_for(Duration::from_secs(1))?;
        cluster.with("a", |node| node.add("inbound_cidr", &address(1), 5));
        cluster.run_for(Duration::from_secs(1))?;
        cluster.fault(&Fault::Crash(vec!["a".to_owned()]));
        cluster.run_for(Duration::from_secs(8))?;
        cluster.settle().map(drop)
    })();
    result.err().map(|failure| failure.to_string())
}

/// A node is away while rows are retired and purged, and takes a snapshot in many pieces when it is back.
fn away_while_rows_go() -> Option<String> {
    let config = Config { delta_bytes: 64, ..quick_config() };
    let mut cluster = Builder::new(1).structures([spec("outbound_cidr", Class::OutboundCidr)]).config(config).start();
    let result: Result<(), Failure> = (|| {
        cluster.run_for(Duration::from_secs(1))?;
        cluster.with("b", |node| (0..60).for_each(|key| node.add("outbound_cidr", &address(key), 3)));
        cluster.run_for(Duration::from_secs(1))?;
        cluster.script("at 0s cut a from rest; at 15s heal")?;
        cluster.with("b", |node| (0..30).for_each(|key| node.add("outbound_cidr", &address(key), -3)));
        cluster.run_for(Duration::from_secs(14))?;
        cluster.with("b", |node| (20..50).for_each(|key| node.add("outbound_cidr", &address(key), 1)));
        cluster.run_for(Duration::from_secs(2))?;
        cluster.settle().map(drop)
    })();
    let diverged = cluster.trace().marked("told: diverged");
    let replaced = cluster.trace().marked("told: replaced");
    match result {
        Err(failure) => Some(failure.to_string()),
        Ok(()) if diverged > 0 => Some(format!("{diverged} divergences that no fault explains")),
        Ok(()) if replaced == 0 => Some("no snapshot was taken".to_owned()),
        Ok(()) => None,
    }
}

/// An incarnation is used again while nobody sees it, until its head lies above what the others know of the first use.
fn an_incarnation_goes_on() -> Option<String> {
    let mut cluster = Builder::new(1).structures([spec("outbound_cidr", Class::OutboundCidr)]).start();
    let result: Result<(), Failure> = (|| {
        cluster.run_for(Duration::from_secs(1))?;
        cluster.with("a", |node| (0..20).for_each(|key| node.add("outbound_cidr", &address(key), 3)));
        cluster.run_for(Duration::from_secs(1))?;
        cluster.script("at 0s cut a from rest; at 0s reuse a; at 5s heal")?;
        cluster.run_for(Duration::from_secs(1))?;
        cluster.with("a", |node| (10..60).for_each(|key| node.add("outbound_cidr", &address(key), 1)));
        cluster.run_for(Duration::from_secs(5))?;
        cluster.settle().map(drop)
    })();
    result.err().map(|failure| failure.to_string())
}

/// A relay that has rows in pieces, and does not know it.
fn pieces_are_passed_on() -> Option<String> {
    let (_, least) = pieces::passed_on();
    (least != 1).then(|| format!("a row that counted 1 or more was read as {least}"))
}

/// Linked nodes that keep a series of ten seconds, at the beginning of a window.
fn keepers(names: &[&str]) -> Wire {
    let mut wire = Wire::new(names);
    (0..names.len()).for_each(|at| keep(&mut wire, at));
    (1..names.len()).for_each(|at| wire.up(0, at));
    wire.run(12 - wire.now.unix_ms.0 / 1000 % 10);
    wire
}

fn keep(wire: &mut Wire, at: usize) {
    let mut spec = SeriesSpec::new(SeriesName::new("logins").unwrap(), Kind::GaugeTable, 10, 3);
    spec.max_delay = Duration::ZERO;
    let now = wire.now;
    wire.replicas[at].replicate_series(now, spec, Arc::new(|| ())).unwrap();
}

/// Changes a series on a node, and lets all talk.
fn change(wire: &mut Wire, at: usize, change: impl FnOnce(&Series)) {
    change(wire.replicas[at].series().next().unwrap());
    wire.replicas[at].handle_changes(wire.now);
    wire.talk();
}

/// Whether a node reads for the key `k` what it should, the current window first.
fn reads(wire: &Wire, at: usize, expected: &[i64]) -> Option<String> {
    let series = wire.replicas[at].series().next().unwrap();
    let read: Vec<_> = series.counts(Scope::Key(b"k"), wire.now.mono).iter().map(|count| count.total).collect();
    (read != expected).then(|| format!("windows read {read:?}, and {expected:?} was counted"))
}

/// Events outlive the run that counted them.
fn a_run_that_ended_still_counts() -> Option<String> {
    let mut wire = keepers(&["a", "b"]);
    change(&mut wire, 1, |series| series.add(b"k", 5).unwrap());
    wire.down(0, 1);
    wire.replicas[1] = Replica::new(wire::config(), wire::name("b"), Incarnation(2000));
    wire.replicas[1].replicate(wire::spec(), Arc::new(|| ())).unwrap();
    keep(&mut wire, 1);
    wire.up(0, 1);
    change(&mut wire, 1, |series| series.add(b"k", 10).unwrap());
    reads(&wire, 0, &[15, 0, 0])
}

/// Two nodes that do not hear of each other clear the same count.
fn both_clear() -> Option<String> {
    let mut wire = keepers(&["a", "b", "c"]);
    change(&mut wire, 0, |series| series.add(b"k", 5).unwrap());
    wire.down(0, 1);
    wire.down(0, 2);
    for at in [1, 2] {
        change(&mut wire, at, |series| series.remove(b"k").unwrap());
    }
    wire.up(0, 1);
    wire.up(0, 2);
    wire.run(2);
    change(&mut wire, 0, |series| series.add(b"k", 7).unwrap());
    reads(&wire, 0, &[7, 0, 0])
}

/// A wall clock is set back behind the beginning of its window.
fn a_clock_goes_back() -> Option<String> {
    let mut wire = keepers(&["a", "b"]);
    change(&mut wire, 0, |series| series.add(b"k", 1).unwrap());
    wire.clock_off = Some((0, -12_000));
    wire.run(2);
    change(&mut wire, 0, |series| series.add(b"k", 3).unwrap());
    reads(&wire, 0, &[4, 0, 0]).or_else(|| reads(&wire, 1, &[4, 0, 0]))
}

/// Three nodes that count events, faults by a script while they do, and what is wrong with that.
fn events_under(script: &str) -> Option<String> {
    let mut cluster = Builder::new(1).series([series("logins", Kind::GaugeTable, 10, 6)]).skew(Duration::ZERO).start();
    let result: Result<(), Failure> = (|| {
        cluster.run_for(Duration::from_secs(1))?;
        for label in ["a", "b", "c"] {
            cluster.with(label, |node| node.count_events("logins", b"k", 5));
        }
        cluster.run_for(Duration::from_secs(11))?;
        for label in ["a", "b", "c"] {
            cluster.with(label, |node| node.count_events("logins", b"k", 3));
        }
        cluster.run_for(Duration::from_secs(1))?;
        cluster.script(script)?;
        cluster.run_for(Duration::from_secs(1))?;
        for label in ["a", "b"] {
            cluster.with(label, |node| node.remove_events("logins", b"k"));
        }
        cluster.run_for(Duration::from_secs(2))?;
        cluster.with("c", |node| node.count_events("logins", b"k", 40));
        cluster.run_for(Duration::from_secs(3))?;
        cluster.settle().map(drop)
    })();
    result.err().map(|failure| failure.to_string())
}

/// Demand that moves, and a restart on the other side of a cut, under hard limits.
fn limits_hold() -> Option<String> {
    let table = "shared_named_throttles";
    let rate = "100/1s".parse().unwrap();
    let limits = Limits::founded(&["a", "b"], Duration::from_secs(6));
    let limits = limits.throttle(table, "t", ThrottleSpec::new(rate, Strength::Hard));
    let mut cluster =
        Builder::new(1).nodes(["a", "b"]).structures([spec(table, Class::SharedNamedThrottles)]).limits(limits).start();
    let result: Result<(), Failure> = (|| {
        for second in 0..30 {
            // The rule is about shares that are lent when the giver restarts. Up to second 19 a alone asks, so a part of what it uses
            // is b's. Where both ask for four seconds before the cut, each has its own share again, nothing is lent, and the
            // broken rule does no harm: it is noticed with cuts at 10 to 12 and 17 to 20, and only if a alone asks until then.
            if second == 19 {
                cluster.script("at 0s cut a from b; at 100ms restart b")?;
            }
            let hot = if second / 4 % 2 == 0 { "a" } else { "b" };
            for _ in 0..50 {
                cluster.run_for(Duration::from_millis(20))?;
                for label in ["a", "b"].into_iter().filter(|label| second >= 19 || *label == hot) {
                    cluster.with(label, |node| {
                        (0..10).for_each(|_| {
                            node.take(table, "t", 1);
                        })
                    });
                }
            }
        }
        Ok(())
    })();
    result.err().map(|failure| failure.to_string())
}

/// A node that counted starts again, and the others still have what it had counted.
fn counts_of_an_earlier_run() -> Option<String> {
    events_under("at 0s restart c; at 0s cut a,b from c; at 4s heal")
}

/// Two remove a key at the same time.
fn removed_by_two() -> Option<String> {
    events_under("at 0s cut a from b; at 4s heal")
}

/// The wall clock is set back by more than a window.
fn a_clock_set_back() -> Option<String> {
    events_under("at 0s set b -25s")
}

/// All nodes that receive a node's rows from its neighbours crash at once. The nodes behind them then take the rows from the
/// neighbours.
fn second_neighbours_crash() -> Option<String> {
    let timing = Timing { mesh: 4, rings: 1, ..Timing::default() };
    let mut cluster = Builder::new(3).nodes(["a", "b", "c", "d", "e", "f", "g", "h"]).timing(timing).start();
    let result: Result<(), Failure> = (|| {
        cluster.run_for(Duration::from_secs(4))?;
        for round in 0..3 {
            for node in ["a", "b", "c", "d", "e", "f", "g", "h"] {
                cluster.with(node, |node| node.add("inbound_cidr", &address(round), 1));
            }
            cluster.run_for(Duration::from_secs(1))?;
        }
        let links = |of: &str| -> Vec<String> {
            let process = cluster.node(of).process();
            process.map(|process| process.replica().links().map(ToString::to_string).collect()).unwrap_or_default()
        };
        let neighbours = links("a");
        let mut second: Vec<_> = neighbours.iter().flat_map(|neighbour| links(neighbour)).collect();
        second.retain(|name| name != "a" && !neighbours.contains(name));
        assert_eq!((neighbours.len(), second.len()), (2, 2), "eight in a circle");
        cluster.fault(&Fault::Crash(second));
        cluster.run_for(Duration::from_secs(1))?;
        cluster.with("a", |node| node.add("inbound_cidr", &address(9), 5));
        cluster.settle().map(drop)
    })();
    result.err().map(|failure| failure.to_string())
}

/// Plays a case, and says what was noticed.
type Case = fn() -> Option<String>;

/// Nodes begin again, and are asked for what they have admitted before.
fn full_again() -> Option<String> {
    match levels::admitted_over_restarts() {
        Ok(all) => (all != [all[0]; 3]).then(|| format!("admitted in all before and behind restarts: {all:?}")),
        Err(failure) => Some(failure.to_string()),
    }
}

/// What finds a broken rule, and how it says it.
fn caught() -> Option<(String, String)> {
    let found =
        (0..SEEDS).find_map(|seed| Some((format!("seed {seed}"), run(&draw(seed), Detail::Hash).failure?.to_string())));
    let named = |name: &str, what: Option<String>| what.map(|what| (name.to_owned(), what));
    found
        .or_else(|| named("interleaved", addition_in_between()))
        .or_else(|| named("the dead", the_dead_are_hidden()))
        .or_else(|| named("away", away_while_rows_go()))
        .or_else(|| named("used again", an_incarnation_goes_on()))
        .or_else(|| named("pieces", pieces_are_passed_on()))
        .or_else(|| named("ended", a_run_that_ended_still_counts()))
        .or_else(|| named("cleared", both_clear()))
        .or_else(|| named("clock", a_clock_goes_back()))
        .or_else(|| named("earlier run", counts_of_an_earlier_run()))
        .or_else(|| named("removed by two", removed_by_two()))
        .or_else(|| named("set back", a_clock_set_back()))
        .or_else(|| named("limits", limits_hold()))
        .or_else(|| named("both write", both_write()))
        .or_else(|| named("removed", removed_while_away()))
        .or_else(|| named("late", write_behind_a_removal()))
        .or_else(|| named("again", the_same_message_again()))
        .or_else(|| named("replaced", replaced_before_it_was_sent()))
        .or_else(|| named("joined", removed_before_it_joined()))
        .or_else(|| named("without mark", sent_without_a_mark()))
        .or_else(|| named("some collected", some_have_collected()))
        .or_else(|| named("a false mark", a_false_mark()))
        .or_else(|| named("gone", gone_without_a_mark()))
        .or_else(|| named("hour ahead", an_hour_ahead()))
        .or_else(|| named("second neighbours", second_neighbours_crash()))
        .or_else(|| named("begin again", one_begins_again()))
        .or_else(|| named("full again", full_again()))
        .or_else(|| named("stale disk", a_stale_disk()))
        .or_else(|| named("small node", budgets::a_small_node()))
}

#[test]
fn every_broken_rule_is_noticed() {
    // The table contains the message with which a broken engine panics.
    std::panic::set_hook(Box::new(|_| ()));
    let left = Mutex::new(ALL.to_vec());
    let table = Mutex::new(Vec::<(Canary, Option<(String, String)>)>::new());
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(2, usize::from) {
            scope.spawn(|| {
                while let Some(canary) = { left.lock().unwrap().pop() } {
                    set_broken(Some(canary));
                    let found = caught();
                    table.lock().unwrap().push((canary, found));
                }
            });
        }
    });
    let _ = std::panic::take_hook();
    let mut table = table.into_inner().unwrap();
    table.sort_by_key(|(canary, _)| ALL.iter().position(|other| other == canary));
    for (canary, found) in &table {
        let name = format!("{canary:?}");
        match found {
            Some((by, what)) => println!("{name:22} {by:12} {}", what.chars().take(140).collect::<String>()),
            None => println!("{name:22} SURVIVED {SEEDS} seeds"),
        }
    }
    let survivors: Vec<_> = table.iter().filter(|(_, found)| found.is_none()).map(|(canary, _)| canary).collect();
    assert_eq!(table.len(), ALL.len());
    assert!(survivors.is_empty(), "not noticed: {survivors:?}");
}

/// The rules of series are broken where nothing else is looked at than what they are about.
#[test]
fn each_rule_of_series_is_noticed_by_its_own_case() {
    let cases: [(Canary, Case); 3] = [
        (Canary::EventsSuperseded, counts_of_an_earlier_run),
        (Canary::ClearAdded, removed_by_two),
        (Canary::ClockGoesBack, a_clock_set_back),
    ];
    for (canary, case) in cases {
        set_broken(Some(canary));
        let found = case();
        set_broken(None);
        assert!(found.is_some(), "{canary:?} is not noticed");
    }
}

/// Nor are those of caches.
#[test]
fn each_rule_of_caches_is_noticed_by_its_own_case() {
    let cases: [(Canary, Case); 12] = [
        (Canary::ArrivalWins, both_write),
        (Canary::RemovalForgotten, removed_while_away),
        (Canary::RoundNotAwaited, write_behind_a_removal),
        (Canary::FutureTaken, an_hour_ahead),
        (Canary::SupersededTaken, the_same_message_again),
        (Canary::ReplacedLeftOut, replaced_before_it_was_sent),
        (Canary::NotCompared, removed_before_it_joined),
        (Canary::CollectedForgotten, removed_before_it_joined),
        (Canary::UnmarkedLost, sent_without_a_mark),
        (Canary::DifferenceLeft, some_have_collected),
        (Canary::ValuesLeft, a_false_mark),
        (Canary::GoneNotSent, gone_without_a_mark),
    ];
    for (canary, case) in cases {
        set_broken(Some(canary));
        let found = case();
        set_broken(None);
        assert!(found.is_some(), "{canary:?} is not noticed");
    }
}

/// Nor are those of what outlives a run.
#[test]
fn each_rule_of_what_is_saved_is_noticed_by_its_own_case() {
    let cases: [(Canary, Case); 3] = [
        (Canary::LevelsForgotten, full_again),
        (Canary::RunTakenUp, one_begins_again),
        (Canary::NotCompared, a_stale_disk),
    ];
    for (canary, case) in cases {
        set_broken(Some(canary));
        let found = case();
        set_broken(None);
        assert!(found.is_some(), "{canary:?} is not noticed");
    }
}

/// With no rule broken the same checks pass: what turns them red is the canary.
#[test]
fn nothing_is_noticed_when_nothing_is_broken() {
    set_broken(None);
    assert_eq!(addition_in_between(), None);
    assert_eq!(the_dead_are_hidden(), None);
    assert_eq!(away_while_rows_go(), None);
    assert_eq!(an_incarnation_goes_on(), None);
    assert_eq!(pieces_are_passed_on(), None);
    assert_eq!(a_run_that_ended_still_counts(), None);
    assert_eq!(both_clear(), None);
    assert_eq!(a_clock_goes_back(), None);
    assert_eq!(counts_of_an_earlier_run(), None);
    assert_eq!(removed_by_two(), None);
    assert_eq!(a_clock_set_back(), None);
    assert_eq!(limits_hold(), None);
    assert_eq!(both_write(), None);
    assert_eq!(removed_while_away(), None);
    assert_eq!(write_behind_a_removal(), None);
    assert_eq!(the_same_message_again(), None);
    assert_eq!(replaced_before_it_was_sent(), None);
    assert_eq!(removed_before_it_joined(), None);
    assert_eq!(sent_without_a_mark(), None);
    assert_eq!(some_have_collected(), None);
    assert_eq!(a_false_mark(), None);
    assert_eq!(gone_without_a_mark(), None);
    assert_eq!(second_neighbours_crash(), None);
    assert_eq!(an_hour_ahead(), None);
    assert_eq!(one_begins_again(), None);
    assert_eq!(a_stale_disk(), None);
    assert_eq!(budgets::a_small_node(), None);
}
