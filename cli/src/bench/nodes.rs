//! Measures a cluster: nodes in this process.

use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use indicatif::ProgressBar;
use rustix::time::{ClockId, clock_gettime};
use tallymesh::{Actor, Class, Domains, Node, Traffic, Version};
use tallymesh_engine::Structure;
use tokio::runtime::Runtime;

use crate::authority::Authority;
use crate::bench::measure::{self, Figures, Measure, ROUND, ns_each};
use crate::bench::plan::Plan;
use crate::failure::Failure;
use crate::local::{self, trouble};

/// How long a condition may take to become true.
const PATIENCE: Duration = Duration::from_secs(120);

/// The pause between two checks of a condition.
const LOOK: Duration = Duration::from_micros(200);

/// Bytes of the IPv4 and UDP headers of a datagram.
const DATAGRAM_HEADERS: u64 = 28;

/// Increments between two readings of the clock.
const BATCH: usize = 1000;

/// A node with its counters.
struct Running {
    node: Node,
    domains: Domains,
}

/// Measures everything.
pub(super) fn measure(plan: Plan, progress: &ProgressBar) -> Result<Figures, Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.map_err(|error| trouble("start the runtime", &error))?;
    let authority = Authority::new().map_err(|error| trouble("make an authority", &error))?;
    let first = start(&runtime, &authority, "bench-1", None)?;
    let second = start(&runtime, &authority, "bench-2", Some(&first))?;
    runtime.block_on(local::all_linked([&first.node, &second.node].into_iter()))?;

    let mut figures = Figures::new();
    progress.set_message("how long a change takes to be seen");
    seen(&mut figures, plan.time, &first, &second)?;
    progress.set_message("changes of distinct keys");
    sustained(&mut figures, plan.time, &runtime, &first, &second)?;
    progress.set_message("increments");
    increments(&mut figures, plan.time, &first)?;
    progress.set_message("an idle cluster");
    caught_up(&first, &second)?;
    idle(&mut figures, plan.time, &runtime, &first)?;
    runtime.block_on(second.node.shutdown());
    progress.set_message("a node that joins");
    join(&mut figures, plan.rows, &runtime, &authority, first)?;
    Ok(figures)
}

fn start(runtime: &Runtime, authority: &Authority, name: &str, seed: Option<&Running>) -> Result<Running, Failure> {
    let start = || -> Result<Running, Box<dyn std::error::Error>> {
        let mut builder = local::builder(name, authority)?.replicate(Class::OutboundDomains.into());
        if let Some(seed) = seed {
            builder = builder.seed(seed.node.listen_addr().to_string());
        }
        let node = runtime.block_on(builder.start())?;
        let domains = node.domains(Class::OutboundDomains.name())?;
        Ok(Running { node, domains })
    };
    start().map_err(|error| trouble(&format!("start {name}"), &*error))
}

impl Running {
    fn add(&self, key: &str) -> Result<(), Failure> {
        self.domains.add(key, 1).map_err(|error| trouble("count", &error))
    }

    /// The applied version of an actor's rows.
    fn applied(&self, actor: &Actor) -> Version {
        let held = self.domains.structure().held();
        held.iter().find(|held| held.actor == *actor).map_or(Version::ZERO, |held| held.applied)
    }

    /// Waits until every change of this node has its version, and returns the last version.
    fn committed(&self) -> Result<Version, Failure> {
        until("changes to be committed", || self.domains.structure().pending() == 0)?;
        Ok(self.applied(&self.node.actor()))
    }
}

fn until(what: &str, mut holds: impl FnMut() -> bool) -> Result<(), Failure> {
    let start = Instant::now();
    while !holds() {
        if start.elapsed() > PATIENCE {
            return Err(Failure::Node(format!("waited {} s for {what}", PATIENCE.as_secs())));
        }
        thread::sleep(LOOK);
    }
    Ok(())
}

/// Waits until `second` has applied all rows of `first`.
fn caught_up(first: &Running, second: &Running) -> Result<(), Failure> {
    let (actor, head) = (first.node.actor(), first.committed()?);
    until("the other node to catch up", || second.applied(&actor) >= head)
}

/// The watch of the other node wakes this measurement, as it wakes a service.
fn seen(figures: &mut Figures, time: Duration, first: &Running, second: &Running) -> Result<(), Failure> {
    let counter = |of: &Running| of.domains.counter("seen.test.net").map_err(|error| trouble("count", &error));
    let (own, other) = (counter(first)?, counter(second)?);
    let (changed, changes) = mpsc::sync_channel(1);
    let structure: &Arc<Structure> = second.domains.structure();
    // One pending message is enough.
    let _watch = structure.watch(
        1,
        Arc::new(move || {
            let _ = changed.try_send(());
        }),
    );
    let mut total = own.count().total;
    measure::seen(figures, time, || {
        total += 1;
        own.add(1);
        while other.count().total < total {
            match changes.recv_timeout(PATIENCE) {
                Ok(()) => {}
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
                    return Err(Failure::Node("a change was not seen on the other node".to_owned()));
                }
            }
        }
        Ok(())
    })
}

/// Two sets of keys alternate. A round begins when the changes of the previous round have their versions, and those of the round
/// before that have arrived. So each change is a row that is sent, and sending never waits for counting.
fn sustained(
    figures: &mut Figures,
    time: Duration,
    runtime: &Runtime,
    first: &Running,
    second: &Running,
) -> Result<(), Failure> {
    let (sets, actor) = ([measure::keys(0), measure::keys(1)], first.node.actor());
    for key in sets.iter().flatten() {
        first.add(key)?;
    }
    caught_up(first, second)?;
    let (base, before, start) = (first.applied(&actor), traffic(runtime, first)?, Instant::now());
    let mut heads = vec![base];
    while start.elapsed() < time || heads.len() < 3 {
        for key in &sets[heads.len() % 2] {
            first.add(key)?;
        }
        let arrived = heads.last().copied().unwrap_or(base);
        heads.push(first.committed()?);
        until("changes to arrive", || second.applied(&actor) >= arrived)?;
    }
    caught_up(first, second)?;
    let seconds = start.elapsed().as_secs_f64();
    let (rounds, after) = (heads.len() - 1, traffic(runtime, first)?);
    let rows = first.applied(&actor).since(base);
    if rows != (rounds * ROUND) as u64 || !agree(&sets, first, second) {
        return Err(Failure::Node(format!("{rounds} rounds of {ROUND} changes became {rows} rows, or other counts")));
    }
    figures.insert(Measure::Sustained, rows as f64 / seconds);
    figures.insert(Measure::BytesARow, (after - before) as f64 / rows as f64);
    Ok(())
}

fn agree(sets: &[Vec<String>], first: &Running, second: &Running) -> bool {
    let total = |of: &Running, key: &str| of.domains.count(key).map(|count| count.total).ok();
    sets.iter().flatten().all(|key| total(first, key).is_some_and(|n| n > 0) && total(first, key) == total(second, key))
}

/// Bytes that have passed over all links of a node, both ways, IP and UDP headers included.
fn traffic(runtime: &Runtime, of: &Running) -> Result<u64, Failure> {
    let members = runtime.block_on(of.node.members()).map_err(|error| Failure::Node(error.to_string()))?;
    let links: Vec<Traffic> = members.into_iter().filter_map(|member| member.traffic).collect();
    if links.is_empty() {
        return Err(Failure::Node("the nodes have lost their link".to_owned()));
    }
    let bytes =
        |link: &Traffic| link.bytes_out + link.bytes_in + DATAGRAM_HEADERS * (link.datagrams_out + link.datagrams_in);
    Ok(links.iter().map(bytes).sum())
}

fn increments(figures: &mut Figures, time: Duration, first: &Running) -> Result<(), Failure> {
    let keys = measure::keys(0);
    let mut batches = keys.chunks(BATCH).cycle();
    let by_key = ns_each(time, BATCH, || {
        let batch = batches.next().unwrap_or_default();
        batch.iter().try_for_each(|key| first.add(key))
    })?;
    let counter = first.domains.counter("seen.test.net").map_err(|error| trouble("count", &error))?;
    let at_hand = ns_each(time, BATCH, || {
        (0..BATCH).for_each(|_| counter.add(1));
        Ok(())
    })?;
    figures.extend([(Measure::IncrementOneByOne, by_key), (Measure::IncrementFastest, at_hand)]);
    Ok(())
}

/// The processor time that this process has spent.
fn cpu() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
}

fn idle(figures: &mut Figures, time: Duration, runtime: &Runtime, first: &Running) -> Result<(), Failure> {
    let (bytes, spent, start) = (traffic(runtime, first)?, cpu(), Instant::now());
    thread::sleep(time);
    let (spent, seconds) = (cpu() - spent, start.elapsed().as_secs_f64());
    let bytes = traffic(runtime, first)? - bytes;
    // Two nodes.
    figures.insert(Measure::IdleProcessor, spent.as_secs_f64() * 1000.0 / 2.0 / seconds);
    figures.insert(Measure::IdleBytes, bytes as f64 / seconds);
    Ok(())
}

/// Measures a node without rows, from its start until it has all rows.
fn join(
    figures: &mut Figures,
    rows: usize,
    runtime: &Runtime,
    authority: &Authority,
    first: Running,
) -> Result<(), Failure> {
    for n in 0..rows {
        first.add(&measure::key(n))?;
    }
    let (actor, head) = (first.node.actor(), first.committed()?);
    let there = first.domains.structure().keys();
    let begun = Instant::now();
    let joiner = start(runtime, authority, "bench-3", Some(&first))?;
    until("the joining node to have all rows", || joiner.applied(&actor) >= head)?;
    let seconds = begun.elapsed().as_secs_f64();
    let has = joiner.domains.structure().keys();
    if has != there {
        return Err(Failure::Node(format!("the joining node has {has} keys of {there}")));
    }
    figures.insert(Measure::Join, there as f64 / seconds);
    runtime.block_on(joiner.node.abort());
    runtime.block_on(first.node.abort());
    Ok(())
}
