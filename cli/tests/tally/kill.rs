//! A node that saves its state is killed with SIGKILL again and again, while clients write to it.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tallymesh_schemas::admin::{self, Answer, ErrorKind, Request, SeriesRef};
use tallymesh_schemas::frame;

use crate::support::{Mesh, SOON, eventually, tally};

const NODE: &str = "relay-0-1";
const WRITERS: usize = 3;
const KEYS: u64 = 40;

/// A connection to the admin socket; an error of it means that the node is gone.
struct Client(UnixStream);

impl Client {
    fn connect(socket: &Path) -> std::io::Result<Self> {
        UnixStream::connect(socket).map(Self)
    }

    fn ask(&mut self, request: &Request) -> std::io::Result<Vec<Answer>> {
        let payload = admin::encode(request).unwrap();
        self.0.write_all(&[&frame::header(payload.len()).unwrap()[..], &payload].concat())?;
        let mut answers = Vec::new();
        loop {
            let mut header = [0; frame::HEADER_BYTES];
            self.0.read_exact(&mut header)?;
            let mut payload = vec![0; frame::payload_len(header).unwrap()];
            self.0.read_exact(&mut payload)?;
            match admin::decode(&payload).unwrap() {
                Answer::Done => return Ok(answers),
                Answer::Error { kind: ErrorKind::No, .. } => return Ok(Vec::new()),
                Answer::Error { message, .. } => panic!("{request:?}: {message}"),
                answer => answers.push(answer),
            }
        }
    }
}

fn now_ms() -> u64 {
    u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap()
}

/// The writes of one writer that the node acknowledged, and when.
#[derive(Default)]
struct Log {
    /// The number of each write of a key, with the moment of its acknowledgement.
    written: BTreeMap<String, Vec<(u64, u64)>>,
    /// The numbers that were tried last, acknowledged or not.
    tried: BTreeMap<String, u64>,
    /// Moments of acknowledged counts, and how many were tried.
    counted: Vec<u64>,
    counts_tried: i64,
}

fn logins() -> SeriesRef {
    SeriesRef { name: "logins".to_owned(), metric: false, interval: None, windows: None }
}

/// Writes until the node is gone. Numbers rise and are this writer's own.
fn write(socket: &Path, writer: usize, next: &mut u64, log: &mut Log) {
    let Ok(mut client) = Client::connect(socket) else { return };
    loop {
        *next += 1;
        let key = format!("w{writer}-{}", *next % KEYS);
        let set = Request::CacheSet {
            cache: "sessions".to_owned(),
            key: key.clone(),
            value: next.to_string().into_bytes(),
            ttl: Duration::ZERO,
        };
        log.tried.insert(key.clone(), *next);
        if client.ask(&set).is_err() {
            return;
        }
        log.written.entry(key).or_default().push((*next, now_ms()));
        if next.is_multiple_of(3) {
            log.counts_tried += 1;
            let gauge = Request::GaugeAdd { gauge: "opened".to_owned(), key: "all".to_owned(), n: 1 };
            let series = Request::SeriesAdd { series: logins(), key: "all".to_owned(), n: 1 };
            if client.ask(&gauge).is_err() || client.ask(&series).is_err() {
                return;
            }
            log.counted.push(now_ms());
        }
    }
}

/// What a node reads.
struct Reader(Client);

impl Reader {
    fn value(&mut self, key: &str) -> Option<u64> {
        let get = Request::CacheGet { cache: "sessions".to_owned(), key: key.to_owned() };
        match self.0.ask(&get).unwrap().pop() {
            Some(Answer::CacheItems(items)) => {
                Some(String::from_utf8(items[0].value.clone()).unwrap().parse().unwrap())
            }
            _ => None,
        }
    }

    /// What the gauge and the series count.
    fn counts(&mut self) -> [i64; 2] {
        let gauge = Request::GaugeGet { gauge: "opened".to_owned(), key: "all".to_owned() };
        let gauge = match self.0.ask(&gauge).unwrap().pop() {
            Some(Answer::Entries(entries)) => entries[0].1,
            _ => 0,
        };
        let (series, key) = (logins(), "all".to_owned());
        let series =
            match self.0.ask(&Request::SeriesCount { series, key, start: 0, end: 1, from: None }).unwrap().pop() {
                Some(Answer::Count(count)) => count.total,
                other => panic!("{other:?}"),
            };
        [gauge, series]
    }
}

/// The saved version of each run of the node, by structure.
fn runs(dir: &str) -> BTreeMap<(String, u64), u64> {
    let text = tally(&["--output", "json", "state", "inspect", dir]).ok();
    let state: serde_json::Value = serde_json::from_str(&text).unwrap();
    let parts = state["parts"].as_array().unwrap().iter();
    let run = |part: &serde_json::Value| {
        let name = part["structure"].as_str().unwrap().to_owned();
        ((name, part["incarnation"].as_u64().unwrap()), part["have"].as_u64().unwrap())
    };
    parts.map(run).collect()
}

/// The processes of the earlier runs have ended, so no process writes their rows any more. A run of a cache may be named no
/// longer, because all nodes have its writes; then its last number is the highest one that an entry still has.
fn check_ended_runs(round: u64, before: &BTreeMap<(String, u64), u64>, now: &BTreeMap<(String, u64), u64>) {
    for (run, version) in before {
        let found = now.get(run);
        let is_fine =
            if run.0 == "sessions" { found.is_none_or(|found| found <= version) } else { found == Some(version) };
        assert!(
            is_fine,
            "round {round}: {run:?} was saved up to {version} and is now saved up to {found:?}: it has two writers"
        );
    }
}

/// Runs the node until it is killed, and writes to it meanwhile. Returns what each writer logged, and the moment of the last save
/// that the node reported.
fn write_until_killed(mesh: &mut Mesh, round: u64, next: &mut [u64; WRITERS]) -> (Vec<Log>, u64) {
    mesh.start(NODE, &[]);
    let socket = mesh.file(NODE, "sock");
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let write_all = |(writer, next): (usize, _)| {
            let socket = &socket;
            scope.spawn(move || {
                let mut log = Log::default();
                write(socket, writer, next, &mut log);
                log
            })
        };
        let writers: Vec<_> = next.iter_mut().enumerate().map(write_all).collect();
        let saved = scope.spawn(|| last_save(&socket, &stop));
        // A moment of its own in each round, from just after the start to after a few saves.
        std::thread::sleep(Duration::from_millis(100 + round * 389 % 2200));
        mesh.kill(NODE);
        stop.store(true, Ordering::Relaxed);
        let saved = saved.join().unwrap();
        (writers.into_iter().map(|writer| writer.join().unwrap()).collect(), saved)
    })
}

/// Asks the node when it last saved, until it is gone. Returns the last answer; zero if there was none.
fn last_save(socket: &Path, stop: &AtomicBool) -> u64 {
    let mut saved = 0;
    let Ok(mut client) = Client::connect(socket) else { return 0 };
    while !stop.load(Ordering::Relaxed) {
        let Ok(mut answers) = client.ask(&Request::Info) else { break };
        if let Some(Answer::Info(info)) = answers.pop() {
            saved = info.state.map_or(0, |state| state.saved_ms);
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    saved
}

/// What the node has to read after each round.
#[derive(Default)]
struct Expected {
    /// By key: the greatest number that is certainly saved.
    values: BTreeMap<String, u64>,
    /// What the gauge and the series count.
    counts: [i64; 2],
    /// Writes that the node acknowledged.
    acknowledged: u64,
    /// How often a write had to be there.
    demanded: u64,
    /// Acknowledged writes that were lost, which is allowed after the last save.
    lost: u64,
}

impl Expected {
    /// Reads all values, and demands every write that was acknowledged before the last save.
    fn check_values(&mut self, round: u64, saved: u64, logs: &[Log], reader: &mut Reader) {
        let tried = logs.iter().flat_map(|log| log.tried.iter().map(move |(key, tried)| (log, key, *tried)));
        for (log, key, tried) in tried {
            let written = log.written.get(key).map_or(&[][..], Vec::as_slice);
            self.acknowledged += written.len() as u64;
            if let Some((number, _)) = written.iter().rev().find(|(_, at)| *at < saved) {
                self.values.insert(key.clone(), *number);
                self.demanded += 1;
            }
            let read = reader.value(key);
            let least = self.values.get(key).copied().unwrap_or_default();
            assert!(read.unwrap_or_default() >= least, "round {round}: {key} reads {read:?}, {least} had been saved");
            assert!(
                read.is_none_or(|read| read <= tried),
                "round {round}: {key} reads {read:?}, which was never written"
            );
            self.lost += written.iter().filter(|(number, _)| read.is_none_or(|read| *number > read)).count() as u64;
            self.values.insert(key.clone(), read.unwrap_or_default());
        }
    }

    /// Reads what the gauge and the series count, and demands every event that was acknowledged before the last save.
    fn check_counts(&mut self, round: u64, saved: u64, logs: &[Log], reader: &mut Reader) {
        let read = reader.counts();
        let certain: i64 = logs.iter().map(|log| log.counted.iter().filter(|at| **at < saved).count() as i64).sum();
        let tried: i64 = logs.iter().map(|log| log.counts_tried).sum();
        for (read, before) in read.iter().zip(self.counts) {
            let range = before + certain..=before + tried;
            assert!(range.contains(read), "round {round}: {read} are counted, and it should be {range:?}");
        }
        self.counts = read;
    }
}

fn storm(rounds: u64) {
    let mut mesh = Mesh::new(&[NODE]);
    mesh.edit(NODE, |text| text.replacen("node {", "node {\n  data_dir = \"state\"", 1) + &objects(""));
    let dir = mesh.path("mesh").join("state");
    let dir = dir.to_str().unwrap().to_owned();
    let mut next = [0_u64, 1 << 40, 2 << 40];
    let (mut expected, mut saved_by_runs) = (Expected::default(), BTreeMap::new());
    for round in 0..rounds {
        let (logs, saved) = write_until_killed(&mut mesh, round, &mut next);
        let now = runs(&dir);
        check_ended_runs(round, &saved_by_runs, &now);
        saved_by_runs = now;
        mesh.start(NODE, &[]);
        let mut reader = Reader(Client::connect(&mesh.file(NODE, "sock")).unwrap());
        expected.check_values(round, saved, &logs, &mut reader);
        expected.check_counts(round, saved, &logs, &mut reader);
        mesh.kill(NODE);
    }
    let Expected { acknowledged, demanded, lost, .. } = expected;
    println!(
        "{rounds} rounds: {acknowledged} writes acknowledged, {lost} of them after the last save; a saved write was demanded \
         {demanded} times"
    );
    assert!(
        acknowledged > 100 * rounds && demanded > rounds && lost > 0,
        "the fault had an effect: {acknowledged}, {demanded}, {lost}"
    );
}

/// A cache, a gauge cache and a series that are saved. `parameters` are settings of the cache.
fn objects(parameters: &str) -> String {
    format!(
        r#"Datasource "sessions" {{}}
cluster {{
  Replicate "sessions" {{
    type = "cache"
    {parameters}
  }}
}}
gauge_cache "opened" {{
  replicate = "cluster"
}}
audit_series "logins" {{
  type = "string"
  interval = 604800
  windows = 2
  persist = true
}}
"#
    )
}

/// Every write that was acknowledged before the last save is there. Nothing is there that was not written. No run writes the
/// rows of another one.
#[test]
fn a_node_is_killed_while_it_writes() {
    storm(8);
}

#[test]
#[ignore = "takes some minutes: cargo test --release -p tallymesh-cli --test tally hundred_times -- --ignored --nocapture"]
fn killed_a_hundred_times() {
    storm(100);
}

/// All nodes of a cluster are killed at once and start again.
#[test]
fn a_whole_cluster_is_killed_and_begins_again() {
    let names = ["relay-0-1", "relay-0-2", "relay-0-3"];
    let mut mesh = Mesh::new(&names);
    for name in names {
        mesh.edit(name, |text| {
            text.replacen("node {", &format!("node {{\n  data_dir = \"{name}.state\""), 1)
                + &objects("parameters = \"snapshot\"")
        });
        mesh.start(name, &[]);
    }
    mesh.wait_for_links();
    for (at, name) in names.iter().enumerate() {
        mesh.ask(name, &["cache", "set", "sessions", name, &format!("value {at}")]).ok();
        mesh.ask(name, &["gauge", "inc", "opened", "door"]).ok();
        mesh.ask(name, &["series", "add", "logins", "alice", "5"]).ok();
        mesh.ask(name, &["add", "outbound_domains", "example.com", "3"]).ok();
    }
    let is_there = |mesh: &Mesh, name: &str| -> Result<(), String> {
        for (at, of) in names.iter().enumerate() {
            let value = mesh.ask(name, &["cache", "get", "sessions", of]);
            if value.stdout != format!("value {at}") {
                return Err(format!("{of} on {name}: {value:?}"));
            }
        }
        let door = mesh.ask(name, &["gauge", "get", "opened", "door"]);
        let alice = mesh.ask(name, &["--output", "json", "series", "count", "logins", "alice"]);
        let json: serde_json::Value = serde_json::from_str(&alice.stdout).unwrap_or_default();
        if door.stdout.trim() != "3" || json["total"] != 15 {
            return Err(format!("on {name}: {door:?}, {alice:?}"));
        }
        Ok(())
    };
    let counted = now_ms();
    for name in names {
        eventually("every node has everything", SOON, || is_there(&mesh, name));
        eventually("it is saved", SOON, || {
            let info: serde_json::Value =
                serde_json::from_str(&mesh.ask(name, &["--output", "json", "cluster", "info"]).ok()).unwrap();
            let saved = info["state"]["saved_ms"].as_u64().unwrap();
            if saved > counted + 1000 { Ok(()) } else { Err(info.to_string()) }
        });
    }
    names.iter().for_each(|name| mesh.kill(name));
    // One node alone has everything before it has a link.
    mesh.start(names[2], &[]);
    is_there(&mesh, names[2]).unwrap();
    assert_eq!(mesh.total(names[2], "outbound_domains", "example.com"), 0, "gauges ended with their runs");
    mesh.start(names[0], &[]);
    mesh.start(names[1], &[]);
    mesh.wait_for_links();
    for name in names {
        is_there(&mesh, name).unwrap();
    }
    assert!(mesh.ask(names[0], &["verify"]).code == Some(0));
    // A write just before an orderly end is saved.
    mesh.ask(names[1], &["cache", "set", "sessions", "last", "words"]).ok();
    for name in names {
        mesh.process(name).signal(rustix::process::Signal::TERM);
    }
    for name in names {
        assert_eq!(mesh.process(name).code(), 0);
    }
    mesh.start(names[1], &[]);
    assert_eq!(mesh.ask(names[1], &["cache", "get", "sessions", "last"]).ok(), "words");
    is_there(&mesh, names[1]).unwrap();
}
