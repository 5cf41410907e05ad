//! Every rule of the engine that can be broken one at a time has to turn the suite red.
//!
//! `cargo test -p tallymesh-harness --features canaries --test canaries -- --nocapture` prints the table.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tallymesh_engine::canary::{ALL, Canary, set_broken, set_interleaved};
use tallymesh_engine::{Config, Now, Replica, Time};
use tallymesh_harness::swarm::{draw, run};
use tallymesh_harness::{Builder, Failure, Fault, address, quick_config, spec};
use tallymesh_schemas::{Class, Incarnation, NodeName, OnDead, StructureSpec};

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
        replica.handle_timeout(Now { mono: Time(second * 1_000_000), unix_ms: 1 });
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

/// What finds a broken rule, and how it says it.
fn caught() -> Option<(String, String)> {
    let found =
        (0..SEEDS).find_map(|seed| Some((format!("seed {seed}"), run(&draw(seed), false).failure?.to_string())));
    let named = |name: &str, what: Option<String>| what.map(|what| (name.to_owned(), what));
    found
        .or_else(|| named("interleaved", addition_in_between()))
        .or_else(|| named("the dead", the_dead_are_hidden()))
        .or_else(|| named("away", away_while_rows_go()))
        .or_else(|| named("used again", an_incarnation_goes_on()))
}

#[test]
fn every_broken_rule_is_noticed() {
    // Whatever a broken engine panics with is told in the table.
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

/// With no rule broken the same checks pass: what turns them red is the canary.
#[test]
fn nothing_is_noticed_when_nothing_is_broken() {
    set_broken(None);
    assert_eq!(addition_in_between(), None);
    assert_eq!(the_dead_are_hidden(), None);
    assert_eq!(away_while_rows_go(), None);
    assert_eq!(an_incarnation_goes_on(), None);
}
