//! A few hundred seeds on every test run, and the proof that a seed is all it takes.

use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use tallymesh_harness::swarm::{Detail, draw, run};

const SEEDS: u64 = 300;

/// I1 to I8 and I10, under whatever the seeds draw.
#[test]
fn swarm() {
    let next = AtomicU64::new(0);
    let failures = Mutex::new(Vec::new());
    let marks = Mutex::new(std::collections::BTreeMap::<&str, u64>::new());
    let threads = std::thread::available_parallelism().map_or(2, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let seed @ 0..SEEDS = next.fetch_add(1, Ordering::Relaxed) {
                    let outcome = run(&draw(seed), Detail::Hash);
                    failures.lock().unwrap().extend(outcome.failure.map(|failure| format!("seed {seed}: {failure}")));
                    for (mark, n) in outcome.marks {
                        *marks.lock().unwrap().entry(mark).or_default() += n;
                    }
                }
            });
        }
    });
    let failures = failures.into_inner().unwrap();
    assert!(failures.is_empty(), "{}\nsee one: swarm --from SEED --trace", failures.join("\n"));
    let marks = marks.into_inner().unwrap();
    let faults = [
        "crash",
        "cut",
        "cut one way",
        "delta for no window",
        "forget",
        "full link",
        "jump",
        "leave",
        "left in peace",
        "link down",
        "member dead",
        "message cut off",
        "message damaged",
        "message doubled",
        "message lost",
        "message refused",
        "renew",
        "reload",
        "reboot",
        "rewind",
        "saved",
        "not saved",
        "reordered",
        "restart",
        "restore",
        "resume",
        "reuse",
        "set",
        "slow",
        "stop",
        "tokens of late throttles",
        "told: clock off",
        "told: conflict",
        "told: forgotten",
        "told: replaced",
        "told: superseded",
        "twin",
        "want",
        "window turned",
    ];
    for fault in faults {
        assert!(marks.get(fault).copied().unwrap_or(0) > 0, "no seed had \"{fault}\"");
    }
}

/// I8. The same seed gives the same trace, in this process twice and in another one.
#[test]
fn a_seed_is_all_it_takes() {
    for seed in [3, 11, 2024] {
        let hash = run(&draw(seed), Detail::Hash).hash;
        assert_eq!(hash, run(&draw(seed), Detail::Text).hash, "whether somebody looks changes nothing");
        let other =
            Command::new(env!("CARGO_BIN_EXE_swarm")).args(["--trace", "--from", &seed.to_string()]).output().unwrap();
        let text = String::from_utf8(other.stdout).unwrap();
        assert!(text.contains(&format!("hash {hash:016x}")), "seed {seed}: {hash:016x} here, and there:\n{text}");
    }
    assert_ne!(run(&draw(1), Detail::Hash).hash, run(&draw(2), Detail::Hash).hash);
}
