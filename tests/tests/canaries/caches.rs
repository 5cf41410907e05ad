//! Cases of caches.

use std::cell::Cell;
use std::time::Duration;

use tallymesh_engine::{Config, Life};
use tallymesh_harness::{Builder, Cluster, Failure, Fault, quick_config, spec};
use tallymesh_schemas::Class;
use tallymesh_schemas::message::{CacheEntries, CacheMark, Message, RunMark};

use crate::late;
use crate::wire::{Wire, encoded, is_entries, read};

/// Three nodes with a cache that wait for each other, and what is wrong after a script and what is done in it.
fn a_cache_under(script: &str, work: impl Fn(&mut Cluster) -> Result<(), Failure>) -> Option<String> {
    let config = Config { retention: Duration::from_secs(3600), ..quick_config() };
    let mut cluster = Builder::new(1).structures([]).caches([spec("c", Class::Cache)]).config(config).start();
    let result: Result<(), Failure> = (|| {
        cluster.run_for(Duration::from_secs(3))?;
        put(&mut cluster, "a", b"first");
        cluster.run_for(Duration::from_secs(3))?;
        cluster.script(script)?;
        cluster.run_for(Duration::from_millis(100))?;
        work(&mut cluster)?;
        cluster.fault(&Fault::Heal);
        cluster.settle().map(drop)
    })();
    result.err().map(|failure| failure.to_string())
}

pub(crate) fn put(cluster: &mut Cluster, label: &str, value: &[u8]) {
    cluster.with(label, |node| node.set("c", b"k", value, Duration::ZERO).map(drop)).unwrap().unwrap();
}

/// Two write the same key without hearing of each other, and what was written first comes last.
pub(crate) fn both_write() -> Option<String> {
    a_cache_under("at 0s cut a from b; at 0s cut a from c; at 8s heal", |cluster| {
        put(cluster, "a", b"earlier");
        cluster.run_for(Duration::from_secs(2))?;
        put(cluster, "b", b"later");
        cluster.run_for(Duration::from_secs(8))
    })
}

/// A node that is away has written what a removal supersedes. It is back long after the removal.
pub(crate) fn removed_while_away() -> Option<String> {
    a_cache_under("at 0s cut c from rest; at 200s heal", |cluster| {
        put(cluster, "c", b"while away");
        cluster.run_for(Duration::from_secs(5))?;
        cluster.with("a", |node| node.remove("c", b"k").map(drop));
        cluster.run_for(Duration::from_secs(196))
    })
}

/// A node reports a write before the write arrives. The removal that supersedes the write is a minute old by then.
pub(crate) fn write_behind_a_removal() -> Option<String> {
    let mut wire = late::cache_wire(&["a", "b"]);
    late::set(&mut wire, 1, late::KEY, b"first");
    let late = wire.take(1, 0);
    wire.wait_a_little();
    late::set(&mut wire, 0, late::KEY, b"second");
    late::remove(&mut wire, 0, late::KEY);
    wire.take(0, 1).iter().for_each(|bytes| wire.give(0, 1, bytes).unwrap());
    wire.now.mono = wire.now.mono.after(Duration::from_secs(61));
    wire.now.unix_ms = wire.now.unix_ms.after(Duration::from_secs(61));
    for _ in 0..45 {
        if late::cache(&wire, 0).held() == 0 {
            break;
        }
        wire.wait_a_little();
        let reports: Vec<_> = wire.take(1, 0).into_iter().filter(|bytes| !is_entries(bytes)).collect();
        reports.iter().for_each(|bytes| wire.give(1, 0, bytes).unwrap());
    }
    late.iter().for_each(|bytes| wire.give(1, 0, bytes).unwrap());
    late::get(&wire, 0, late::KEY).map(|value| format!("{value:?} is read, and was removed"))
}

/// Somebody's clock is an hour ahead.
pub(crate) fn an_hour_ahead() -> Option<String> {
    let read = Cell::new(false);
    let found = a_cache_under("at 0s set a 3600s", |cluster| {
        put(cluster, "a", b"future");
        cluster.run_for(Duration::from_secs(10))?;
        let (cache, now) = cluster.cache("b", "c");
        read.set(cache.get(b"k", now.unix_ms).is_some_and(|value| *value == *b"future"));
        cluster.fault(&Fault::Set("a".to_owned(), -3_600_000));
        Ok(())
    });
    read.get().then(|| "an hour ahead, and it was taken".to_owned()).or(found)
}

/// A message comes a second time, long after what it brought was removed.
pub(crate) fn the_same_message_again() -> Option<String> {
    let mut wire = late::cache_wire(&["a", "b", "c"]);
    late::set(&mut wire, 0, late::KEY, b"first");
    let messages = wire.take(0, 2);
    messages.iter().for_each(|bytes| wire.give(0, 2, bytes).unwrap());
    wire.run(5);
    late::remove(&mut wire, 1, late::KEY);
    wire.run(100);
    assert_eq!(late::cache(&wire, 2).held(), 0, "the removal is collected");
    messages.iter().for_each(|bytes| wire.give(0, 2, bytes).unwrap());
    late::get(&wire, 2, late::KEY).map(|value| format!("{value:?} is read, and was removed"))
}

/// A write replaces another node's write before that is sent, and its own node ends before it has sent anything else.
pub(crate) fn replaced_before_it_was_sent() -> Option<String> {
    let mut wire = late::cache_wire(&["a", "b", "c"]);
    late::set(&mut wire, 0, late::KEY, b"of a");
    wire.wait_a_little();
    late::set(&mut wire, 1, late::KEY, b"of b");
    for key in [b"x", b"y", b"z"] {
        late::set(&mut wire, 1, key, &[7; 50_000]);
    }
    let messages: Vec<_> = wire.take(1, 0).into_iter().filter(|bytes| is_entries(bytes)).collect();
    assert!(messages.len() > 1, "the first message has no mark");
    wire.give(1, 0, &messages[0]).unwrap();
    wire.down(0, 1);
    wire.down(1, 2);
    // Later, a sends on what it holds of b in any case.
    wire.run(3);
    let read = [0, 2].map(|at| late::get(&wire, at, late::KEY));
    (read[0] != read[1]).then(|| format!("{read:?} are read"))
}

/// A node that has lost its state gets everything from a node that has collected a removal, and then that node ends. The first
/// one meets a node that was away meanwhile and holds what was removed.
pub(crate) fn removed_before_it_joined() -> Option<String> {
    let mut cluster = Builder::new(1).structures([]).caches([spec("c", Class::Cache)]).start();
    let result: Result<(), Failure> = (|| {
        cluster.run_for(Duration::from_secs(3))?;
        put(&mut cluster, "a", b"removed");
        cluster.run_for(Duration::from_secs(3))?;
        cluster.script("at 0s cut c from rest; at 150s restart b; at 155s crash a; at 160s heal")?;
        cluster.run_for(Duration::from_secs(1))?;
        cluster.with("a", |node| node.remove("c", b"k").map(drop));
        // It is compared at once, before any repair.
        cluster.run_for(Duration::from_millis(160_700))
    })();
    let read = cluster.cached("c", "c", b"k").map(|_| "what was removed is still read".to_owned());
    result.err().map(|failure| failure.to_string()).or(read)
}

/// Messages are lost, and their sender begins another run: others hold writes of the earlier run that no mark covers. Meanwhile
/// another node goes on writing, so no two nodes have taken in the same writes and compare what they hold.
pub(crate) fn sent_without_a_mark() -> Option<String> {
    (0..8).find_map(|seed| {
        let mut cluster = Builder::new(seed).structures([]).caches([spec("c", Class::Cache)]).start();
        let result: Result<(), Failure> = (|| {
            cluster.run_for(Duration::from_secs(3))?;
            cluster.script("at 0s lose 40%; at 1s restart b; at 1100ms heal")?;
            for at in 0..90_u8 {
                cluster.with("b", |node| node.set("c", &[at], b"of b", Duration::ZERO).map(drop)).unwrap().unwrap();
                cluster.run_for(Duration::from_millis(10))?;
            }
            for n in 0..1000_u32 {
                let value = n.to_le_bytes();
                cluster.with("a", |node| node.set("c", b"busy", &value, Duration::ZERO).map(drop)).unwrap().unwrap();
                cluster.run_for(Duration::from_millis(10))?;
            }
            Ok(())
        })();
        let held = |label| (0..90_u8).map(|at| cluster.cached(label, "c", &[at])).collect::<Vec<_>>();
        let differ = (held("a") != held("c")).then(|| "a and c hold different entries".to_owned());
        result.err().map(|failure| failure.to_string()).or(differ)
    })
}

/// A node is gone. Others hold what it wrote last, and no mark covers that, because a message before it was lost. They go on
/// writing.
pub(crate) fn gone_without_a_mark() -> Option<String> {
    let mut wire = late::cache_wire(&["a", "b", "c"]);
    wire.down(0, 2);
    late::set(&mut wire, 2, b"lost", b"of c");
    drop(wire.take(2, 1));
    late::set(&mut wire, 2, late::KEY, b"of c");
    wire.take(2, 1).iter().for_each(|bytes| wire.give(2, 1, bytes).unwrap());
    wire.down(1, 2);
    let (now, gone) = (wire.now, wire.replicas[2].actor().clone());
    (0..2).for_each(|at| wire.replicas[at].handle_member(now, &gone.node, gone.incarnation, Life::Dead));
    for tenth in 0..120_u8 {
        [0, 1].iter().for_each(|at| late::set(&mut wire, *at, &[*at as u8], &[tenth]));
        wire.wait_a_little();
        wire.talk();
    }
    let read = [0, 1].map(|at| late::get(&wire, at, late::KEY));
    (read[0] != read[1]).then(|| format!("{read:?} are read"))
}

/// A member states that another one has taken in a write that was not sent to it.
pub(crate) fn a_false_mark() -> Option<String> {
    let mut wire = late::cache_wire(&["a", "b", "c"]);
    late::set(&mut wire, 0, late::KEY, b"old");
    wire.run(3);
    [(0, 1), (0, 2), (1, 2)].iter().for_each(|(a, b)| wire.down(*a, *b));
    late::set(&mut wire, 0, late::KEY, b"new");
    wire.up(1, 2);
    wire.wait_a_little();
    let reports = wire.take(2, 1);
    let session = reports.iter().find_map(|bytes| match read(bytes) {
        Message::CacheReport(report) => Some(report.session),
        _ => None,
    });
    let run = RunMark { run: wire.replicas[0].actor().clone(), after: 1, upto: 2 };
    let lie = Message::CacheEntries(CacheEntries {
        structure: late::cache(&wire, 0).id(),
        session: session.unwrap(),
        position: 0,
        runs: Vec::new(),
        entries: &[],
        mark: Some(CacheMark { runs: vec![run], ..CacheMark::default() }),
    });
    wire.give(1, 2, &encoded(&lie)).unwrap();
    [(0, 1), (0, 2)].iter().for_each(|(a, b)| wire.up(*a, *b));
    wire.run(30);
    let values = [0, 1, 2].map(|at| late::get(&wire, at, late::KEY).unwrap_or_default());
    (values != [b"new"; 3]).then(|| format!("{values:?} are read"))
}

/// A node comes back with a write when one of the others has collected a later removal and the other one still waits for it.
pub(crate) fn some_have_collected() -> Option<String> {
    let hasty = late::cache_config();
    let patient = Config { retention: Duration::from_secs(86_400), ..hasty.clone() };
    let mut wire = Wire::with(&["a", "c"], &hasty, &late::cache_spec());
    wire.add("b", &patient, &late::cache_spec());
    [(0, 1), (0, 2), (1, 2)].iter().for_each(|(a, b)| wire.up(*a, *b));
    wire.run(5);
    [0, 2].iter().for_each(|at| wire.down(*at, 1));
    late::set(&mut wire, 1, late::KEY, b"while away");
    wire.wait_a_little();
    late::set(&mut wire, 0, late::KEY, b"later");
    late::remove(&mut wire, 0, late::KEY);
    wire.run(3);
    wire.wait(700);
    wire.run(5);
    assert_eq!([0, 2].map(|at| late::cache(&wire, at).held()), [0, 1], "one has collected the removal");
    [0, 2].iter().for_each(|at| wire.up(*at, 1));
    wire.run(60);
    let read = [0, 1, 2].map(|at| late::get(&wire, at, late::KEY));
    (read != [None, None, None]).then(|| format!("{read:?} are read"))
}
