//! One admin connection: reads requests and answers them one by one.

use std::io;
use std::sync::Arc;

use tallymesh_schemas::admin::{self, Answer, ErrorKind, PAGE_ITEMS, Request};
use tallymesh_schemas::key::{self, KeyError};
use tallymesh_schemas::{Bound, HoldLimit, Kind, NodeName, bounds};
use tallymesh_transport::Joining;
use tokio::net::UnixStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use crate::admin::feeds::Feeds;
use crate::admin::wire::{self, From, To};
use crate::command::{Command, ask};
use crate::object::Object;
use crate::places::Place;
use crate::plan::ReloadMode;
use crate::shared::Shared;

/// Maximum size of an error message, in bytes: a refused key may be as long as a frame.
const ERROR_BYTES: usize = 1024;

/// Why a request failed.
pub(super) struct Refused(ErrorKind, String);

impl Refused {
    pub(super) fn no(message: String) -> Self {
        Self(ErrorKind::No, message)
    }

    pub(super) fn bad(error: impl std::fmt::Display) -> Self {
        Self(ErrorKind::BadInput, error.to_string())
    }

    /// A change that failed. If there is no room for its key, that is no mistake of the client.
    pub(super) fn change(error: KeyError) -> Self {
        match error {
            KeyError::Budget(over) => Self::no(over.to_string()),
            error => Self::bad(error),
        }
    }

    /// Something that the node cannot do.
    pub(super) fn failed(message: String) -> Self {
        Self(ErrorKind::Failed, message)
    }

    fn gone() -> Self {
        Self(ErrorKind::Failed, "the node is shutting down".to_owned())
    }
}

/// The result of a request: an answer, or a broken connection.
pub(super) type Served = io::Result<Result<(), Refused>>;

pub(super) struct Session {
    shared: Arc<Shared>,
    commands: mpsc::WeakSender<Command>,
    /// Places for connections that hold, watch, verify or wait.
    long: Arc<Semaphore>,
    feeds: Arc<Feeds>,
}

/// What follows an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Then {
    /// The session waits for the next request.
    Next,
    /// The connection ends, because it has given up its place among the served connections.
    End,
}

/// What a load does with a line that cannot be counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum BadLines {
    /// It counts the lines after it.
    Skip,
    /// It ends there.
    Stop,
}

impl Session {
    pub(super) fn new(
        shared: Arc<Shared>,
        commands: mpsc::WeakSender<Command>,
        long: Arc<Semaphore>,
        feeds: Arc<Feeds>,
    ) -> Self {
        Self { shared, commands, long, feeds }
    }

    pub(super) fn shared(&self) -> &Shared {
        &self.shared
    }

    pub(super) fn commands(&self) -> Result<mpsc::Sender<Command>, Refused> {
        self.commands.upgrade().ok_or_else(Refused::gone)
    }

    pub(super) fn feeds(&self) -> &Feeds {
        &self.feeds
    }

    /// Takes a place for a long-running request.
    fn stay(&self) -> Result<OwnedSemaphorePermit, Refused> {
        let long = Arc::clone(&self.long).try_acquire_owned();
        long.map_err(|_| {
            self.shared.tally.reached(Bound::AdminStays);
            Refused(ErrorKind::Failed, "too many connections hold, watch, verify or wait".to_owned())
        })
    }

    pub(super) async fn run(self, stream: UnixStream, place: Place) {
        let (from, to) = stream.into_split();
        let place = Some(Arc::new(place));
        let (mut from, mut to) = (From { stream: from, place: place.clone() }, To { stream: to, place });
        if let Err(error) = self.serve(&mut from, &mut to).await {
            let bad = error.kind() == io::ErrorKind::InvalidData;
            if bad {
                let answer = Answer::Error { kind: ErrorKind::BadInput, message: error.to_string() };
                let _ = wire::write(&mut to, &answer).await;
            }
            tracing::debug!(%error, "admin connection ended");
        }
    }

    async fn serve(&self, from: &mut From, to: &mut To) -> io::Result<()> {
        while let Some(request) = from.read().await? {
            let (answered, then) = self.take(request, from, to).await?;
            let end = match answered {
                Ok(()) => Answer::Done,
                Err(Refused(kind, message)) => Answer::Error { kind, message: shortened(message) },
            };
            wire::write(to, &end).await?;
            if then == Then::End {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Answers a request. For a long-running request, first gives up the connection's place so that other connections can use
    /// it.
    async fn take(&self, request: Request, from: &mut From, to: &mut To) -> io::Result<(Result<(), Refused>, Then)> {
        if !is_long(&request) {
            return Ok((self.answer(request, from, to).await?, Then::Next));
        }
        let _stays = match self.stay() {
            Ok(stays) => stays,
            Err(refused) => return Ok((Err(refused), Then::Next)),
        };
        (from.place, to.place) = (None, None);
        Ok((self.answer(request, from, to).await?, Then::End))
    }

    async fn answer(&self, request: Request, from: &mut From, to: &mut To) -> Served {
        let answer = match request {
            Request::Show { object, from } => return self.show(&object, from.as_ref(), to).await,
            Request::Hold { object, key, limits } => return self.hold(&object, &key, &limits, from, to).await,
            Request::Watch { object } => return self.watch(&object, from, to).await,
            Request::Verify { patience } => return self.verify(patience, to).await,
            Request::Flush { nodes, patience } => self.flush(nodes, patience).await.map(Some),
            Request::Reach { position, patience } => self.reach(&position, patience).await.map(|()| None),
            Request::ThrottleList => return self.throttle_list(to).await,
            Request::PermitsList => return self.permits_list(to).await,
            Request::ThrottleExplain { name } => return self.throttle_explain(&name, to).await,
            Request::Differences => return wire::write_pages(to, self.differences(), Answer::Lines).await.map(Ok),
            Request::Reload { dry_run } => {
                let mode = if dry_run { ReloadMode::DryRun } else { ReloadMode::Apply };
                return self.reload(mode, to).await;
            }
            Request::Limits => return wire::write_pages(to, self.limits(), Answer::Lines).await.map(Ok),
            Request::SeriesShow { series, from } => return self.series_show(&series, from.as_ref(), to).await,
            Request::Inspect { subject, view } => return self.inspect(&subject, view, to).await,
            Request::CacheShow { cache } => return self.cache_show(&cache, to).await,
            Request::GaugeShow { gauge } => return self.gauge_show(&gauge, to).await,
            Request::CacheList => Ok(Some(self.cache_list())),
            Request::CacheGet { cache, key } => self.cache_get(&cache, &key).map(Some),
            Request::CacheSet { cache, key, value, ttl } => self.cache_set(&cache, &key, &value, ttl).map(|()| None),
            Request::CacheRemove { cache, key } => self.cache_remove(&cache, &key).map(|()| None),
            Request::GaugeList => Ok(Some(self.gauge_list())),
            Request::GaugeGet { gauge, key } => self.gauge_get(&gauge, &key).map(Some),
            Request::GaugeAdd { gauge, key, n } => self.gauge_add(&gauge, &key, n).map(Some),
            Request::GaugeRemove { gauge, key } => self.gauge_remove(&gauge, &key).map(|()| None),
            Request::SeriesList => Ok(Some(self.series_list())),
            Request::SeriesAdd { series, key, n } => self.series_add(&series, &key, n).map(|()| None),
            Request::SeriesRemove { series, key } => self.series_remove(&series, &key).map(|()| None),
            Request::SeriesCount { series, key, start, end, from } => {
                self.series_count(&series, &key, (start, end), from.as_ref()).map(Some)
            }
            Request::SeriesWindows { series, key, from } => self.series_windows(&series, &key, from.as_ref()).map(Some),
            Request::ThrottleShow { name } => self.throttle_show(&name).map(Some),
            Request::ThrottleTake { name, n } => self.throttle_take(&name, n).map(Some),
            Request::ThrottleCheck { name, n } => self.throttle_check(&name, n).map(Some),
            Request::PermitsShow { name } => self.permits_show(&name).map(Some),
            Request::List => Ok(Some(Answer::Objects(self.shared.objects().iter().map(object_of).collect()))),
            Request::Members => self.members().await.map(Some),
            Request::Info => self.info().await.map(Some),
            Request::Forget { node } => self.forget(node).await.map(|()| None),
            Request::Add { object, key, n } => self.add(&object, &key, n).map(|()| None),
            Request::Count { object, key, from } => self.count(&object, &key, from.as_ref()).map(Some),
            Request::Load { object, lines, skip_bad } => {
                let bad = if skip_bad { BadLines::Skip } else { BadLines::Stop };
                self.load(&object, &lines, bad).map(Some)
            }
        };
        match answer {
            Ok(Some(answer)) => wire::write(to, &answer).await.map(Ok),
            Ok(None) => Ok(Ok(())),
            Err(refused) => Ok(Err(refused)),
        }
    }

    pub(super) async fn ask<T>(
        &self,
        command: impl FnOnce(tokio::sync::oneshot::Sender<T>) -> Command,
    ) -> Result<T, Refused> {
        ask(&self.commands()?, command).await.ok_or_else(Refused::gone)
    }

    async fn show(&self, object: &str, from: Option<&NodeName>, to: &mut To) -> Served {
        let structure = match self.object(object) {
            Ok(Object::Structure(structure)) => structure,
            Ok(Object::Cache(cache)) => return self.cache_view(&cache, from, to).await,
            Err(refused) => return Ok(Err(refused)),
        };
        let Some(mut listing) = structure.list(from) else { return Ok(Err(unknown_node(from))) };
        let actor = from.and_then(|node| structure.latest(node));
        wire::write(to, &Answer::View { object: object_of(&Object::Structure(Arc::clone(&structure))), actor }).await?;
        loop {
            let written = match structure.kind() {
                Kind::CidrTree => {
                    let blocks = listing.blocks(PAGE_ITEMS);
                    let blocks: Vec<_> = blocks.iter().map(|block| (block.net, block.count)).collect();
                    let count = blocks.len();
                    wire::write_pages(to, blocks, Answer::Blocks).await?;
                    count
                }
                Kind::GaugeTable | Kind::ThrottleTable | Kind::Cache => {
                    let entries = listing.entries(PAGE_ITEMS);
                    let count = entries.len();
                    let entries = entries.into_iter().map(|entry| (text(structure.kind(), &entry.key), entry.count));
                    wire::write_pages(to, entries, Answer::Entries).await?;
                    count
                }
            };
            if written == 0 {
                return Ok(Ok(()));
            }
        }
    }

    fn add(&self, object: &str, text: &str, n: i64) -> Result<(), Refused> {
        let structure = self.counting(object)?;
        let key = key::parse(structure.spec().class, text).map_err(Refused::bad)?;
        check_step(n).map_err(Refused::bad)?;
        structure.add(&key, n).map_err(Refused::change)
    }

    fn load(&self, object: &str, lines: &[(String, i64)], bad_lines: BadLines) -> Result<Answer, Refused> {
        let structure = self.counting(object)?;
        if lines.len() > admin::LOAD_LINES {
            return Err(Refused::bad(format!("{} lines at once; {} are allowed", lines.len(), admin::LOAD_LINES)));
        }
        let (mut loaded, mut bad) = (0, Vec::new());
        for (at, (text, n)) in (0_u32..).zip(lines) {
            let key = key::parse(structure.spec().class, text).map_err(|error| error.to_string());
            let added = check_step(*n).and(key).and_then(|key| structure.add(&key, *n).map_err(|e| e.to_string()));
            match added {
                Ok(()) => loaded += 1,
                Err(error) => bad.push((at, shortened(error))),
            }
            if !bad.is_empty() && bad_lines == BadLines::Stop {
                break;
            }
        }
        Ok(Answer::Loaded { lines: loaded, bad })
    }

    fn count(&self, object: &str, text: &str, from: Option<&NodeName>) -> Result<Answer, Refused> {
        let Object::Structure(structure) = self.object(object)? else {
            return Err(Refused::bad(format!("\"{object}\" is a cache: read it with `tally cache get`")));
        };
        let key = key::parse(structure.spec().class, text).map_err(Refused::bad)?;
        let net = if structure.kind() == Kind::CidrTree { key::to_net(&key).ok() } else { None };
        let time = self.shared.clock.time();
        let count = match net {
            Some(net) => structure.count_net(net, time),
            None => structure.count(&key, time),
        };
        let mut answer = admin::Count {
            total: count.total,
            local: count.local,
            actors: count.actors,
            stalest_ms: u64::try_from(count.stalest.as_millis()).unwrap_or(u64::MAX),
            alone: is_alone(&self.shared),
        };
        if let Some(node) = from {
            let part = match net {
                Some(net) => structure.count_net_from(node, net),
                None => structure.count_from(node, &key),
            };
            let part = part.ok_or_else(|| unknown_node(from))?;
            (answer.total, answer.actors) = (part, 1);
        }
        Ok(Answer::Count(answer))
    }

    async fn hold(&self, object: &str, key: &str, limits: &[HoldLimit], from: &mut From, to: &mut To) -> Served {
        let _hold = match self.take_hold(object, key, limits) {
            Ok(hold) => hold,
            Err(refused) => return Ok(Err(refused)),
        };
        wire::write(to, &Answer::Held).await?;
        from.closed().await;
        Ok(Ok(()))
    }
}

/// Whether a request may take long.
fn is_long(request: &Request) -> bool {
    let waits = matches!(request, Request::Verify { .. } | Request::Flush { .. } | Request::Reach { .. });
    waits || matches!(request, Request::Hold { .. } | Request::Watch { .. })
}

/// Truncates a message to the size that an answer can carry.
fn shortened(mut message: String) -> String {
    if message.len() > ERROR_BYTES {
        let end = (0..=ERROR_BYTES).rev().find(|at| message.is_char_boundary(*at)).unwrap_or(0);
        message.truncate(end);
        message.push('…');
    }
    message
}

pub(super) fn text(kind: Kind, key: &[u8]) -> String {
    key::display(kind, key).unwrap_or_else(|_| String::from_utf8_lossy(key).into_owned())
}

pub(super) fn check_step(n: i64) -> Result<(), String> {
    if n.unsigned_abs() <= bounds::STEP.unsigned_abs() {
        return Ok(());
    }
    Err(format!("{n} is more than one step may add or remove: {} at most", bounds::STEP))
}

/// Whether no other node has answered.
pub(super) fn is_alone(shared: &Shared) -> bool {
    *shared.endpoint.joining().borrow() == Joining::Unreachable
}

pub(super) fn unknown_node(node: Option<&NodeName>) -> Refused {
    let name = node.map(ToString::to_string).unwrap_or_default();
    Refused::bad(format!("nothing is known of node {name}: `cluster membership` lists who is"))
}

pub(super) fn object_of(object: &Object) -> admin::Object {
    let spec = object.spec();
    admin::Object {
        name: spec.name.to_string(),
        class: spec.class.name().to_owned(),
        kind: spec.class.kind(),
        snapshot: spec.snapshot,
        keys: object.keys() as u64,
        bytes: object.bytes() as u64,
    }
}
