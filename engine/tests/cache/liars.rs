//! I6, I12. Members that lie: about other nodes' runs, about what is over, and with messages out of order. And members that
//! flood others.

use tallymesh_schemas::message::{
    CacheCompare, CacheContext, CacheEntries, CacheKeys, CacheMark, CacheReport, Message, RunMark,
};
use tallymesh_schemas::{Actor, Incarnation, UnixMs, bound::Bound, bounds};

use crate::away::restart;
use crate::disk::Disk;
use crate::late::{KEY, cache, cache_wire, get, remove, set};
use crate::wire::{Wire, encoded, name, read};
use crate::{assert_agreed, entries_of, session};

/// a is honest, c is the one to whom the liar, b, lies. All are linked.
const A: usize = 0;
const LIAR: usize = 1;
const C: usize = 2;

fn mark(wire: &Wire, (session, position): (u64, u64), mark: CacheMark) -> Vec<u8> {
    let structure = cache(wire, C).id();
    let (runs, entries, mark) = (Vec::new(), &[][..], Some(mark));
    encoded(&Message::CacheEntries(CacheEntries { structure, session, position, runs, entries, mark }))
}

fn run_mark(run: Actor) -> RunMark {
    RunMark { run, after: 0, upto: bounds::CACHE_WRITES }
}

fn report(wire: &Wire, number: u64, seen: CacheContext) -> Vec<u8> {
    encoded(&Message::CacheReport(CacheReport {
        structure: cache(wire, C).id(),
        session: 1_000_000 + number,
        incarnation: wire.replicas[LIAR].actor().incarnation,
        number: 1_000_000 + number,
        seen,
        endings: Vec::new(),
        relay: false,
        partial: false,
        fingerprint: 0,
        after_ms: UnixMs::ZERO,
    }))
}

/// Lets time pass in which the liar says nothing.
fn run_without_liar(wire: &mut Wire, seconds: u64) {
    for _ in 0..seconds * 10 {
        wire.wait_a_little();
        for _ in 0..5 {
            for (from, to) in [(A, C), (C, A)] {
                wire.take(from, to).iter().for_each(|bytes| wire.give(from, to, bytes).unwrap());
            }
        }
        drop(wire.take(C, LIAR));
    }
}

/// A member states that c has taken in all writes that a will ever make. c takes them all the same, because a states its head
/// itself.
#[test]
fn a_mark_about_another_node_does_not_silence_it() {
    let mut wire = cache_wire(&["a", "liar", "c"]);
    let session = session(&mut wire, C, LIAR);
    let runs = vec![run_mark(wire.replicas[A].actor().clone())];
    let lie = mark(&wire, (session, 0), CacheMark { runs, ended: Vec::new(), collected: CacheContext::default() });
    wire.give(LIAR, C, &lie).unwrap();
    set(&mut wire, A, KEY, b"of a");
    run_without_liar(&mut wire, 3);
    assert_eq!(get(&wire, C, KEY).as_deref(), Some(&b"of a"[..]));
    let head = cache(&wire, C).seen().into_iter().find(|(run, _)| run.node == name("a")).unwrap().1;
    assert_eq!(head, 1);
}

/// A member states that c has taken in what a has written without a link to anybody: another value, and a removal. So c counts
/// these writes and does not take them. When a has a link again, c gets them, and what was removed does not come back.
#[test]
fn what_a_lie_took_from_one_node_is_repaired() {
    let mut wire = cache_wire(&["a", "liar", "c"]);
    set(&mut wire, A, KEY, b"old");
    set(&mut wire, A, b"removed", b"old");
    wire.run(3);
    let links = [(A, LIAR), (A, C)];
    links.iter().for_each(|(a, b)| wire.down(*a, *b));
    set(&mut wire, A, KEY, b"new");
    remove(&mut wire, A, b"removed");
    let session = session(&mut wire, C, LIAR);
    let runs = vec![RunMark { run: wire.replicas[A].actor().clone(), after: 2, upto: 4 }];
    let lie = mark(&wire, (session, 0), CacheMark { runs, ended: Vec::new(), collected: CacheContext::default() });
    wire.give(LIAR, C, &lie).unwrap();
    links.iter().for_each(|(a, b)| wire.up(*a, *b));
    wire.run(3);
    assert_eq!(cache(&wire, C).seen(), cache(&wire, A).seen());
    assert_eq!(get(&wire, C, KEY).as_deref(), Some(&b"old"[..]), "c was told that it has taken in the new one");
    wire.run(20);
    assert_agreed(&wire, [A, LIAR, C]);
    assert_eq!(get(&wire, C, KEY).as_deref(), Some(&b"new"[..]));
    assert_eq!(get(&wire, C, b"removed"), None);
}

/// A member sends what was removed and collected as if it repaired a difference, with a mark. It is not read, and the mark moves
/// nothing.
#[test]
fn a_repair_brings_nothing_back() {
    let mut wire = cache_wire(&["a", "liar", "c"]);
    set(&mut wire, A, KEY, b"removed");
    wire.run(3);
    let (of_a, stamp) = (wire.replicas[A].actor().clone(), cache(&wire, C).entry(KEY, wire.now.unix_ms).unwrap().stamp);
    remove(&mut wire, A, KEY);
    wire.run(100);
    assert_eq!(cache(&wire, C).held(), 0, "the removal is collected");
    let seen = cache(&wire, C).seen();
    let repair = entries_of(&wire, of_a.clone(), (CacheEntries::REPAIR, 0), &[(1, stamp, KEY, b"removed")]);
    wire.give(LIAR, C, &repair).unwrap();
    let runs = vec![RunMark { run: of_a, after: 2, upto: 9 }];
    let runs = CacheMark { runs, ended: Vec::new(), collected: CacheContext::default() };
    wire.give(LIAR, C, &mark(&wire, (CacheEntries::REPAIR, 0), runs)).unwrap();
    assert_eq!((get(&wire, C, KEY), cache(&wire, C).held(), cache(&wire, C).seen()), (None, 0, seen));
}

/// The same while c compares its keys with the liar's, which never answers: the question covers the mark's writes, too.
#[test]
fn a_question_about_a_lie_does_not_silence_another_node() {
    let mut wire = cache_wire(&["a", "liar", "c"]);
    set(&mut wire, C, b"so that c holds a key", b"v");
    wire.run(3);
    let session = session(&mut wire, C, LIAR);
    let (of_a, made_up) = (wire.replicas[A].actor().clone(), Actor::new(name("liar"), Incarnation(5)));
    let collected = CacheContext { runs: vec![(made_up, 7)], ended: Vec::new() };
    let later = Incarnation(of_a.incarnation.0 + 1000);
    let lie = CacheMark { runs: vec![run_mark(of_a.clone())], ended: vec![(of_a.node.clone(), later)], collected };
    let lie = mark(&wire, (session, 0), lie);
    wire.give(LIAR, C, &lie).unwrap();
    set(&mut wire, A, KEY, b"of a");
    run_without_liar(&mut wire, 3);
    assert_eq!(get(&wire, C, KEY).as_deref(), Some(&b"of a"[..]));
    // c gives up the question, and the cluster goes on.
    run_without_liar(&mut wire, 20);
    set(&mut wire, A, b"more", b"v");
    wire.run(20);
    assert_agreed(&wire, [A, C]);
}

/// A member reports that it has writes of a which a never made. That moves nothing, and a hears that its name is used.
#[test]
fn a_report_about_another_node_does_not_silence_it() {
    let mut wire = cache_wire(&["a", "liar", "c"]);
    let of_a = wire.replicas[A].actor().clone();
    for number in 0..3 {
        let runs = vec![(of_a.clone(), bounds::CACHE_WRITES)];
        let lie = report(&wire, number, CacheContext { runs, ended: Vec::new() });
        wire.give(LIAR, C, &lie).unwrap();
        wire.wait_a_little();
    }
    set(&mut wire, A, KEY, b"of a");
    run_without_liar(&mut wire, 12);
    assert_eq!(get(&wire, C, KEY).as_deref(), Some(&b"of a"[..]));
}

/// A member states that runs are over that are not, and that c has taken in all of them. c takes what the node of these runs
/// still sends.
#[test]
fn runs_are_over_when_their_own_node_says_so() {
    let mut wire = cache_wire(&["a", "liar", "c"]);
    wire.down(A, C);
    wire.down(A, LIAR);
    wire.replicas[A].keep_state();
    set(&mut wire, A, KEY, b"of an earlier run");
    let mut disk = Disk::default();
    disk.save(&mut wire.replicas[A]);
    let earlier = wire.replicas[A].actor().clone();
    restart(&mut wire, A, Some(&disk));
    let next = wire.replicas[A].actor().clone();
    wire.up(A, C);
    wire.wait_a_little();
    for bytes in wire.take(A, C).into_iter().filter(|bytes| !matches!(read(bytes), Message::CacheEntries(_))) {
        wire.give(A, C, &bytes).unwrap();
    }
    let session = session(&mut wire, C, LIAR);
    let ended = || vec![(next.node.clone(), next.incarnation), (name("nobody"), Incarnation(bounds::INCARNATION))];
    let runs = vec![run_mark(earlier.clone())];
    let lie = mark(&wire, (session, 0), CacheMark { runs, ended: ended(), collected: CacheContext::default() });
    wire.give(LIAR, C, &lie).unwrap();
    for number in 0..3 {
        let lie = report(&wire, number, CacheContext { runs: Vec::new(), ended: ended() });
        wire.give(LIAR, C, &lie).unwrap();
    }
    let covers_earlier = cache(&wire, C).seen().iter().any(|(run, _)| *run == earlier);
    assert!(!covers_earlier && cache(&wire, C).context_len() <= 2, "{:?}", cache(&wire, C).seen());
    wire.down(A, C);
    wire.up(A, C);
    run_without_liar(&mut wire, 5);
    assert_eq!(get(&wire, C, KEY).as_deref(), Some(&b"of an earlier run"[..]));
}

/// While a and c have no link, c believes what another member says of a. When a has a link to c, its own word counts again.
#[test]
fn the_word_of_a_node_replaces_what_was_said_while_it_had_no_link() {
    let mut wire = cache_wire(&["a", "liar", "c"]);
    wire.down(A, C);
    wire.down(A, LIAR);
    let session = session(&mut wire, C, LIAR);
    let runs = vec![run_mark(wire.replicas[A].actor().clone())];
    let lie = mark(&wire, (session, 0), CacheMark { runs, ended: Vec::new(), collected: CacheContext::default() });
    wire.give(LIAR, C, &lie).unwrap();
    set(&mut wire, A, KEY, b"of a");
    wire.up(A, C);
    run_without_liar(&mut wire, 5);
    assert_eq!(get(&wire, C, KEY).as_deref(), Some(&b"of a"[..]));
}

/// Positions, numbers and sessions at the end of their range do no harm.
#[test]
fn the_largest_numbers_do_no_harm() {
    let mut wire = cache_wire(&["a", "liar", "c"]);
    let session = session(&mut wire, C, LIAR);
    let nothing = || CacheMark { runs: Vec::new(), ended: Vec::new(), collected: CacheContext::default() };
    for position in [u64::MAX, u64::MAX - 1, 0] {
        let message = mark(&wire, (session, position), nothing());
        wire.give(LIAR, C, &message).unwrap();
    }
    let message = mark(&wire, (u64::MAX, 0), nothing());
    wire.give(LIAR, C, &message).unwrap();
    let keys = CacheKeys {
        structure: cache(&wire, C).id(),
        question: u64::MAX,
        position: u64::MAX,
        seen: None,
        parts: Some(vec![u32::MAX; bounds::CACHE_PARTS]),
        hashes: &[1, 2, 3],
    };
    wire.give(LIAR, C, &encoded(&Message::CacheKeys(keys))).unwrap();
    let mut last = report(&wire, 0, CacheContext::default());
    if let Message::CacheReport(mut report) = read(&last) {
        (report.session, report.number) = (u64::MAX, u64::MAX);
        last = encoded(&Message::CacheReport(report));
    }
    wire.give(LIAR, C, &last).unwrap();
    wire.run(5);
    set(&mut wire, A, KEY, b"of a");
    wire.run(5);
    assert_eq!(get(&wire, C, KEY).as_deref(), Some(&b"of a"[..]));
}

/// A member names ever new runs. What c keeps about them is bounded, c says so, and others are not kept out.
#[test]
fn a_member_that_names_many_runs_is_bounded() {
    let mut wire = cache_wire(&["a", "liar", "c"]);
    let session = session(&mut wire, C, LIAR);
    let run = |n: u64| Actor::new(name(if n.is_multiple_of(2) { "liar" } else { "made-up" }), Incarnation(1 + n));
    let run =
        |n: u64| if n.is_multiple_of(3) { Actor::new(name(&format!("made-up-{n}")), Incarnation(1)) } else { run(n) };
    for message in 0..6 {
        let runs: Vec<_> = (0..bounds::ACTORS as u64).map(|n| run(message * 5000 + n)).collect();
        let seen = CacheContext { runs: runs.iter().map(|run| (run.clone(), 1)).collect(), ended: Vec::new() };
        let lie = report(&wire, message, seen.clone());
        wire.give(LIAR, C, &lie).unwrap();
        let runs = runs.into_iter().map(|run| RunMark { run, after: 0, upto: 1 }).collect();
        let lie =
            mark(&wire, (session, message), CacheMark { runs, ended: Vec::new(), collected: CacheContext::default() });
        wire.give(LIAR, C, &lie).unwrap();
    }
    assert!(cache(&wire, C).context_len() <= bounds::ACTORS, "{}", cache(&wire, C).context_len());
    assert!(wire.replicas[C].link_entries() <= 8 * bounds::ACTORS, "{}", wire.replicas[C].link_entries());
    run_without_liar(&mut wire, 2);
    let reached: u64 = wire.replicas[C]
        .bounds()
        .iter()
        .filter(|report| report.bound == Bound::Actors)
        .map(|report| report.times)
        .sum();
    assert!(reached > 0);
    set(&mut wire, A, KEY, b"of a");
    remove(&mut wire, A, KEY);
    set(&mut wire, A, KEY, b"again");
    set(&mut wire, C, b"of c", b"v");
    run_without_liar(&mut wire, 5);
    assert_eq!(get(&wire, C, KEY).as_deref(), Some(&b"again"[..]));
    assert_eq!(get(&wire, A, b"of c").as_deref(), Some(&b"v"[..]), "a can read what c reports");
    let head = cache(&wire, C).seen().into_iter().find(|(run, _)| run.node == name("a")).map(|(_, head)| head);
    assert_eq!(head, Some(3), "a's run has a place");
}

/// A member asks again and again which keys c holds. c answers one question in an interval between digests.
#[test]
fn a_flood_of_questions_is_answered_once_in_an_interval() {
    let mut wire = cache_wire(&["a", "liar", "c"]);
    (0..200_u8).for_each(|n| set(&mut wire, C, &[n], b"v"));
    wire.run(2);
    let structure = cache(&wire, C).id();
    let mut answers = 0;
    for question in 0..500 {
        let compare = encoded(&Message::CacheCompare(CacheCompare {
            structure,
            question,
            after_ms: UnixMs::ZERO,
            sums: Vec::new(),
        }));
        wire.give(LIAR, C, &compare).unwrap();
        if question % 50 == 0 {
            wire.wait_a_little();
        }
        answers += wire.take(C, LIAR).iter().filter(|bytes| matches!(read(bytes), Message::CacheKeys(_))).count();
    }
    assert!((1..=3).contains(&answers), "{answers} answers within a second");
    // The last question is answered.
    let mut last = None;
    for _ in 0..30 {
        wire.wait_a_little();
        for bytes in wire.take(C, LIAR) {
            if let Message::CacheKeys(keys) = read(&bytes) {
                last = Some(keys.question);
            }
        }
    }
    assert_eq!(last, Some(499));
}
