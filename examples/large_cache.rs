//! Measures a cache of millions of entries on two nodes while a third node joins during writes: the duration, the memory of
//! each node, and whether every entry is correct on every node afterwards.
//!
//! `cargo run --release --example large_cache -- 10000000` uses ten million entries; the default is one million. Each node is a
//! separate process, so that its memory is measured separately. The nodes communicate over QUIC on the loopback address.

use std::error::Error;
use std::io::{self, BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tallymesh::{Cache, Class, Identity, Node, StructureName, StructureSpec};

type Failed = Box<dyn Error + Send + Sync>;

const NAMES: [&str; 3] = ["relay-0-0", "relay-0-1", "relay-0-2"];

/// Time between two checks of a condition.
const LOOK: Duration = Duration::from_millis(5);

/// The number of writes in one burst of each of the first two nodes while the third one joins, and the pause after the burst.
const BURST: (u64, Duration) = (20, Duration::from_millis(10));

/// The distance to the entry that is written next while a node joins. A prime, so that the writes reach all entries.
const STRIDE: u64 = 7_919;

fn key(n: u64) -> [u8; 11] {
    let mut key = *b"key00000000";
    let digits = format!("{n:08}");
    key[3..].copy_from_slice(digits.as_bytes());
    key
}

/// The value of the `turn`th write of an entry while a node joins.
fn value(n: u64, turn: u64) -> [u8; 16] {
    let mut value = [0; 16];
    value[..8].copy_from_slice(&n.to_le_bytes());
    value[8..].copy_from_slice(&turn.to_le_bytes());
    value
}

/// The entry of a node's `turn`th write: the first node writes even entries, the second one odd entries.
fn written(node: u64, turn: u64, entries: u64) -> u64 {
    (turn * STRIDE % (entries / 2)) * 2 + node
}

fn main() -> Result<(), Failed> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["node", number, folder, entries, seeds @ ..] => {
            member(number.parse()?, Path::new(folder), entries.parse()?, seeds)
        }
        // The size for the tests.
        [] if cfg!(debug_assertions) => measure(20_000),
        [] => measure(1_000_000),
        [entries] => measure(entries.parse()?),
        _ => Err("give the number of entries, and nothing else".into()),
    }
}

/// Writes the certificates of all nodes as files.
fn write_identities(folder: &Path) -> Result<(), Failed> {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
    std::fs::write(folder.join("ca.pem"), ca.pem())?;
    for name in NAMES {
        let key = KeyPair::generate()?;
        let cert = CertificateParams::new([name.to_owned()])?.signed_by(&key, &ca)?;
        std::fs::write(folder.join(format!("{name}.pem")), cert.pem())?;
        std::fs::write(folder.join(format!("{name}.key")), key.serialize_pem())?;
    }
    Ok(())
}

/// A node's process, from the side of the measuring process.
struct Process {
    child: Child,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
}

impl Process {
    fn start(number: usize, folder: &Path, entries: u64, seed: Option<&str>) -> Result<(Self, String), Failed> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["node", &number.to_string()]).arg(folder).arg(entries.to_string()).args(seed);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let (Some(to), Some(from)) = (child.stdin.take(), child.stdout.take()) else { return Err("no pipes".into()) };
        let mut process = Self { child, to, from: BufReader::new(from) };
        let address = process.answer()?;
        Ok((process, address))
    }

    fn tell(&mut self, wish: &str) -> Result<(), Failed> {
        Ok(writeln!(self.to, "{wish}")?)
    }

    fn answer(&mut self) -> Result<String, Failed> {
        let mut line = String::new();
        if self.from.read_line(&mut line)? == 0 {
            return Err("a node has ended".into());
        }
        Ok(line.trim_end().to_owned())
    }

    fn ask(&mut self, wish: &str) -> Result<String, Failed> {
        self.tell(wish)?;
        self.answer()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn all(processes: &mut [Process], wish: &str) -> Result<Vec<String>, Failed> {
    processes.iter_mut().try_for_each(|process| process.tell(wish))?;
    processes.iter_mut().map(Process::answer).collect()
}

fn measure(entries: u64) -> Result<(), Failed> {
    if entries < 2 || !entries.is_multiple_of(2) || entries > 100_000_000 || entries.is_multiple_of(STRIDE) {
        return Err("an even number of entries, up to 100,000,000, that 7,919 does not divide".into());
    }
    let folder = tempfile::tempdir()?;
    write_identities(folder.path())?;
    let (first, seed) = Process::start(0, folder.path(), entries, None)?;
    let (second, _) = Process::start(1, folder.path(), entries, Some(&seed))?;
    let mut nodes = vec![first, second];

    let start = Instant::now();
    all(&mut nodes, "fill")?;
    let filled = start.elapsed();
    let heads = all(&mut nodes, "head")?.join(" ");
    all(&mut nodes, &format!("wait {heads}"))?;
    let both = start.elapsed();
    println!(
        "{entries} entries of 27 bytes: written in {:.1} s, on both nodes after {:.1} s",
        secs(filled),
        secs(both)
    );
    println!("memory of each (now, peak): {}", all(&mut nodes, "memory")?.join("; "));

    all(&mut nodes, "write")?;
    let begun = Instant::now();
    let heads = all(&mut nodes, "head")?.join(" ");
    let (mut third, _) = Process::start(2, folder.path(), entries, Some(&seed))?;
    third.ask(&format!("wait {heads}"))?;
    let joined = begun.elapsed();
    nodes.push(third);
    let turns = all(&mut nodes[..2], "stop")?;
    let rate = entries as f64 / secs(joined);
    println!(
        "third node: joined in {:.1} s, {rate:.0} entries/s; written meanwhile {}",
        secs(joined),
        turns.join(" and ")
    );
    let heads = all(&mut nodes[..2], "head")?.join(" ");
    let stopped = Instant::now();
    all(&mut nodes, &format!("wait {heads}"))?;
    println!("all have all {:.1} s after the last write", secs(stopped.elapsed()));
    println!("memory of each (now, peak): {}", all(&mut nodes, "memory")?.join("; "));

    let prints = all(&mut nodes, "prints")?;
    println!("converged: {}", prints.windows(2).all(|pair| pair[0] == pair[1]));
    let wrong = all(&mut nodes, &format!("check {}", turns.join(" ")))?;
    println!("entries that are wrong or missing, and entries: {}", wrong.join("; "));
    let right = format!("0 of {entries}");
    if wrong.iter().any(|found| *found != right) || prints.iter().any(|found| *found != prints[0]) {
        return Err("the nodes do not have what was written".into());
    }
    Ok(())
}

fn secs(time: Duration) -> f64 {
    time.as_secs_f64()
}

/// A node inside its own process.
struct Member {
    number: u64,
    entries: u64,
    node: Node,
    cache: Cache,
    stop: Arc<AtomicBool>,
    writer: Option<JoinHandle<Result<u64, String>>>,
}

fn member(number: usize, folder: &Path, entries: u64, seeds: &[&str]) -> Result<(), Failed> {
    let read = |name: &str| std::fs::read(folder.join(name));
    let name = NAMES[number];
    let identity =
        Identity::from_pem(&read("ca.pem")?, &read(&format!("{name}.pem"))?, &read(&format!("{name}.key"))?)?;
    let mut spec = StructureSpec::new(StructureName::new("large")?, Class::Cache);
    spec.snapshot = true;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let mut builder = Node::builder(name).identity(identity).replicate(spec);
    for seed in seeds {
        builder = builder.seed(*seed);
    }
    let node = runtime.block_on(builder.start())?;
    println!("{}", node.listen_addr());
    let cache = node.cache("large")?;
    let stop = Arc::new(AtomicBool::new(false));
    let mut member = Member { number: number as u64, entries, node, cache, stop, writer: None };
    for wish in io::stdin().lines() {
        let wish = wish?;
        let answer = member.answer(&wish)?;
        println!("{answer}");
    }
    Ok(())
}

impl Member {
    fn answer(&mut self, wish: &str) -> Result<String, Failed> {
        let words: Vec<&str> = wish.split(' ').collect();
        match words.as_slice() {
            ["fill"] => {
                for n in (self.number..self.entries).step_by(2) {
                    self.cache.set(key(n), &value(n, 0)[..], Duration::ZERO)?;
                }
                Ok("filled".to_owned())
            }
            ["head"] => {
                let actor = self.node.actor();
                Ok(format!("{actor}={}", self.have(&actor.to_string())))
            }
            ["wait", heads @ ..] => {
                for (actor, head) in heads.iter().filter_map(|head| head.rsplit_once('=')) {
                    let head: u64 = head.parse()?;
                    while self.have(actor) < head {
                        thread::sleep(LOOK);
                    }
                }
                Ok("there".to_owned())
            }
            ["write"] => {
                let (cache, stop) = (self.cache.clone(), Arc::clone(&self.stop));
                let (number, entries) = (self.number, self.entries);
                self.writer = Some(thread::spawn(move || write_on(&cache, number, entries, &stop)));
                Ok("writes".to_owned())
            }
            ["stop"] => {
                self.stop.store(true, Ordering::Relaxed);
                let turns =
                    self.writer.take().ok_or("nothing is written")?.join().map_err(|_| "the writer panicked")??;
                Ok(turns.to_string())
            }
            ["memory"] => memory(),
            ["prints"] => {
                let seen = self.cache.engine().seen();
                let seen: String = seen.iter().map(|(run, number)| format!("{run} {number} ")).collect();
                Ok(format!("{seen}{:x}", self.cache.engine().fingerprint(Default::default())))
            }
            ["check", first, second] => Ok(self.check([first.parse()?, second.parse()?])),
            _ => Err(format!("cannot \"{wish}\"").into()),
        }
    }

    /// The number of a run's last write that this node has taken in.
    fn have(&self, actor: &str) -> u64 {
        let seen = self.cache.engine().seen();
        seen.iter().find(|(run, _)| run.to_string() == actor).map_or(0, |(_, number)| *number)
    }

    /// Compares every entry with the last write of its key. `turns` states how many writes each of the first two nodes made.
    fn check(&self, turns: [u64; 2]) -> String {
        let mut last = vec![0; self.entries as usize];
        for (node, turns) in (0..).zip(turns) {
            (1..=turns).for_each(|turn| last[written(node, turn, self.entries) as usize] = turn);
        }
        let right = |(n, turn): (u64, &u64)| self.cache.get(key(n)).as_deref() == Some(&value(n, *turn)[..]);
        let wrong = (0..).zip(&last).filter(|entry| !right(*entry)).count();
        format!("{wrong} of {}", self.cache.len())
    }
}

fn write_on(cache: &Cache, node: u64, entries: u64, stop: &AtomicBool) -> Result<u64, String> {
    let mut turn = 0;
    while !stop.load(Ordering::Relaxed) {
        for _ in 0..BURST.0 {
            turn += 1;
            let n = written(node, turn, entries);
            cache.set(key(n), &value(n, turn)[..], Duration::ZERO).map_err(|error| error.to_string())?;
        }
        thread::sleep(BURST.1);
    }
    Ok(turn)
}

/// The current and the highest memory use of this process, in MiB.
fn memory() -> Result<String, Failed> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let mib = |name: &str| -> Option<u64> {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        Some(line.split_whitespace().next()?.parse::<u64>().ok()? / 1024)
    };
    let (now, most) = (mib("VmRSS:").unwrap_or_default(), mib("VmHWM:").unwrap_or_default());
    Ok(format!("{now} and {most} MiB"))
}
