//! Measures Redis: a primary with one replica, in the same way as a cluster.

use std::thread;
use std::time::{Duration, Instant};

use indicatif::ProgressBar;

use crate::bench::measure::{self, Figures, Measure, ROUND, ns_each};
use crate::bench::plan::Plan;
use crate::bench::redis::{Client, Reply, Server};
use crate::failure::Failure;

/// How long a condition may take to become true.
const PATIENCE: Duration = Duration::from_secs(120);

/// The pause between two checks of the replica.
const LOOK: Duration = Duration::from_millis(1);

/// Commands that are sent before the answers to them are read.
const PIPELINE: usize = 1000;

/// Measures everything. The servers end when this returns or the process ends.
pub(super) fn measure(plan: Plan, progress: &ProgressBar) -> Result<Figures, Failure> {
    let (primary, replica) = (Server::start()?, Server::start()?);
    let (mut first, mut second) = (primary.client()?, replica.client()?);
    follow(&mut second, &primary)?;
    caught_up(&mut first, &mut second)?;

    let mut figures = Figures::new();
    progress.set_message("Redis: how long a change takes to be seen");
    seen(&mut figures, plan.time, &mut first, &mut second)?;
    progress.set_message("Redis: changes of distinct keys");
    sustained(&mut figures, plan.time, &mut first, &mut second)?;
    progress.set_message("Redis: increments");
    increments(&mut figures, plan.time, &mut first)?;
    progress.set_message("Redis: idle");
    caught_up(&mut first, &mut second)?;
    idle(&mut figures, plan.time, [&mut first, &mut second])?;
    drop((second, replica));
    progress.set_message("Redis: a replica that joins");
    join(&mut figures, plan.rows, &primary, &mut first)?;
    Ok(figures)
}

/// Makes a server the replica of another one.
fn follow(replica: &mut Client, primary: &Server) -> Result<(), Failure> {
    replica.ask(&["REPLICAOF", "127.0.0.1", &primary.port().to_string()]).map(drop)
}

/// Waits until the replica has applied everything of the primary.
fn caught_up(primary: &mut Client, replica: &mut Client) -> Result<(), Failure> {
    let start = Instant::now();
    while start.elapsed() < PATIENCE {
        let head = primary.figure("replication", "master_repl_offset")?;
        let info = replica.info("replication")?;
        let up = info.get("master_link_status").is_some_and(|status| status == "up");
        let at = info.get("slave_repl_offset").and_then(|offset| offset.parse().ok()).unwrap_or(-1.0);
        if up && at >= head {
            return Ok(());
        }
        thread::sleep(LOOK);
    }
    Err(Failure::Node(format!("waited {} s for the Redis replica", PATIENCE.as_secs())))
}

/// Increments these keys, `PIPELINE` at a time.
fn increment<'a>(client: &mut Client, keys: impl Iterator<Item = &'a String>) -> Result<(), Failure> {
    let mut keys = keys.peekable();
    while keys.peek().is_some() {
        let mut sent = 0;
        for key in keys.by_ref().take(PIPELINE) {
            client.queue(&["INCR", key]);
            sent += 1;
        }
        client.flush()?;
        for _ in 0..sent {
            client.reply()?;
        }
    }
    Ok(())
}

/// Polls the replica, because it does not report changes by itself.
fn seen(figures: &mut Figures, time: Duration, first: &mut Client, second: &mut Client) -> Result<(), Failure> {
    let mut total = 0_i64;
    measure::seen(figures, time, || {
        total += 1;
        first.ask(&["INCR", "seen.test.net"])?;
        let (start, wanted) = (Instant::now(), Reply::Text(total.to_string()));
        while second.ask(&["GET", "seen.test.net"])? != wanted {
            if start.elapsed() > PATIENCE {
                return Err(Failure::Node("a change was not seen on the Redis replica".to_owned()));
            }
        }
        Ok(())
    })
}

fn sustained(figures: &mut Figures, time: Duration, first: &mut Client, second: &mut Client) -> Result<(), Failure> {
    let sets = [measure::keys(0), measure::keys(1)];
    increment(first, sets.iter().flatten())?;
    caught_up(first, second)?;
    let stream = |client: &mut Client| client.figure("replication", "master_repl_offset");
    let (before, start, mut rounds) = (stream(first)?, Instant::now(), 0);
    while start.elapsed() < time || rounds < 2 {
        increment(first, sets[rounds % 2].iter())?;
        rounds += 1;
    }
    caught_up(first, second)?;
    let seconds = start.elapsed().as_secs_f64();
    let rows = (rounds * ROUND) as f64;
    figures.insert(Measure::Sustained, rows / seconds);
    figures.insert(Measure::BytesARow, (stream(first)? - before) / rows);
    Ok(())
}

fn increments(figures: &mut Figures, time: Duration, first: &mut Client) -> Result<(), Failure> {
    let keys = measure::keys(0);
    let mut next = keys.iter().cycle();
    let one_by_one = ns_each(time, 1, || {
        let key = next.next().map_or("", String::as_str);
        first.ask(&["INCR", key]).map(drop)
    })?;
    let pipelined = ns_each(time, ROUND, || increment(first, keys.iter()))?;
    figures.extend([(Measure::IncrementOneByOne, one_by_one), (Measure::IncrementFastest, pipelined)]);
    Ok(())
}

fn idle(figures: &mut Figures, time: Duration, clients: [&mut Client; 2]) -> Result<(), Failure> {
    let [first, second] = clients;
    let mut spent = || -> Result<f64, Failure> {
        let mut seconds = 0.0;
        for client in [&mut *first, &mut *second] {
            seconds += client.figure("cpu", "used_cpu_user")? + client.figure("cpu", "used_cpu_sys")?;
        }
        Ok(seconds)
    };
    let (before, start) = (spent()?, Instant::now());
    thread::sleep(time);
    let (seconds, spent) = (start.elapsed().as_secs_f64(), spent()? - before);
    figures.insert(Measure::IdleProcessor, spent * 1000.0 / 2.0 / seconds);
    Ok(())
}

fn join(figures: &mut Figures, rows: usize, primary: &Server, first: &mut Client) -> Result<(), Failure> {
    let keys: Vec<_> = (0..rows).map(measure::key).collect();
    increment(first, keys.iter())?;
    let joiner = Server::start()?;
    let mut second = joiner.client()?;
    let count = |client: &mut Client| client.ask(&["DBSIZE"]);
    let there = count(first)?;
    let begun = Instant::now();
    follow(&mut second, primary)?;
    caught_up(first, &mut second)?;
    let seconds = begun.elapsed().as_secs_f64();
    let has = count(&mut second)?;
    match there {
        Reply::Number(n) if has == there => figures.insert(Measure::Join, n as f64 / seconds),
        _ => return Err(Failure::Node(format!("the Redis replica has {has:?} keys of {there:?}"))),
    };
    Ok(())
}
