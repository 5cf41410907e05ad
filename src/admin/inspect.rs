//! Views of replicated state. A page is collected under the lock of the object, and then written.

use std::sync::Arc;

use tallymesh_engine::replica::{LinkPlace, Standings};
use tallymesh_engine::{Structure, Time};
use tallymesh_schemas::admin::{Answer, SeriesRef};
use tallymesh_schemas::inspect::{KeyView, LogView, Subject, SubjectRef, View};
use tallymesh_schemas::{Actor, Cell, Kind, NodeName, StructureId, StructureSpec, UnixMs, Version, key};

use crate::admin::session::{Refused, Served, Session, unknown_node};
use crate::admin::wire::{self, To};
use crate::cache::Cache;
use crate::command::Command;
use crate::object::Object;

/// What is inspected: an object, or a window of a series.
struct Inspected {
    object: Object,
    window: Option<(u32, u64)>,
}

impl Inspected {
    fn spec(&self) -> &StructureSpec {
        self.object.spec()
    }

    fn id(&self) -> StructureId {
        self.spec().name.id()
    }

    fn subject(&self, name: String, unix_ms: UnixMs) -> Subject {
        let spec = self.spec();
        let (viewer, fingerprint, on_dead) = match &self.object {
            // Events stay when their run ends.
            Object::Structure(structure) if spec.class.cell() == Cell::Gauge => {
                (structure.viewer(), None, Some(spec.on_dead))
            }
            Object::Structure(structure) => (structure.viewer(), None, None),
            Object::Cache(cache) => (cache.engine().viewer(), Some(cache.engine().fingerprint(unix_ms)), None),
        };
        Subject {
            object: name,
            class: spec.class.name().to_owned(),
            viewer,
            window: self.window,
            on_dead,
            keys: self.object.keys() as u64,
            fingerprint,
            is_cache: matches!(self.object, Object::Cache(_)),
        }
    }
}

impl Session {
    /// Answers with a view.
    pub(super) async fn inspect(&self, subject: &SubjectRef, view: View, to: &mut To) -> Served {
        let (name, inspected) = match self.inspected(subject) {
            Ok(found) => found,
            Err(refused) => return Ok(Err(refused)),
        };
        let known = match self.ask(Command::Standings).await {
            Ok(known) => known,
            Err(refused) => return Ok(Err(refused)),
        };
        let subject = inspected.subject(name, self.shared().clock.now().unix_ms);
        wire::write(to, &Answer::Subject(Box::new(subject))).await?;
        match view {
            View::Actors => self.actors(inspected.id(), to).await,
            View::Key(text) => self.key(&inspected, &text, &known, to).await,
            View::Keys(after) => self.keys(&inspected, after.as_deref(), &known, to).await,
            View::Links => self.links(inspected.id(), to).await,
            View::Log { of, after } => self.log(&inspected, of.as_ref(), after, to).await,
        }
    }

    /// Finds an object, a series or a gauge cache. An exact name goes before a beginning of a name.
    fn inspected(&self, subject: &SubjectRef) -> Result<(String, Inspected), Refused> {
        let shared = self.shared();
        let name = subject.name.as_str();
        let of = |object: Object| (object.spec().name.to_string(), Inspected { object, window: None });
        if subject.audit {
            return self.window(subject);
        }
        if let Ok(object) = shared.object(name) {
            return Ok(of(object));
        }
        let objects = shared.current.get();
        let exact = objects.gauge_caches.iter().find(|gauge| gauge.spec().name.as_str() == name);
        if let Some(gauge) = exact {
            let object = Object::Structure(Arc::clone(gauge.structure()));
            return Ok((name.to_owned(), Inspected { object, window: None }));
        }
        if shared.series_named(name).is_ok() {
            return self.window(subject);
        }
        self.object(name).map(of).or_else(|unknown| self.window(subject).map_err(|_| unknown))
    }

    /// A window of a series.
    fn window(&self, subject: &SubjectRef) -> Result<(String, Inspected), Refused> {
        let SubjectRef { name, audit, interval, window } = subject;
        let series = SeriesRef { name: name.clone(), metric: *audit, interval: *interval, windows: None };
        let series = self.series(&series)?;
        let number = series.current().saturating_sub(u64::from(*window));
        let found = usize::try_from(*window).ok().and_then(|age| series.windows().get(age).cloned());
        let found = found.ok_or_else(|| {
            let (name, windows) = (&series.spec().name, series.spec().windows);
            Refused::bad(format!("\"{name}\" has {windows} windows: write a window from 0 to {}", windows - 1))
        })?;
        let inspected = Inspected { object: Object::Structure(found), window: Some((*window, number)) };
        Ok((series.spec().name.to_string(), inspected))
    }

    async fn actors(&self, id: StructureId, to: &mut To) -> Served {
        let mut after: Option<Actor> = None;
        loop {
            let asked = |reply| Command::Actors { id, after, reply };
            let page = match self.ask(asked).await {
                Ok(page) => page,
                Err(refused) => return Ok(Err(refused)),
            };
            let Some(last) = page.last() else { return Ok(Ok(())) };
            after = Some(last.actor.clone());
            wire::write_pages(to, page, Answer::ActorViews).await?;
        }
    }

    async fn links(&self, id: StructureId, to: &mut To) -> Served {
        let mut place = LinkPlace::default();
        loop {
            let asked = |reply| Command::Link { id, place, reply };
            match self.ask(asked).await {
                Ok(Some((link, next))) => {
                    wire::write(to, &Answer::LinkViews(vec![link])).await?;
                    place = next;
                }
                Ok(None) => return Ok(Ok(())),
                Err(refused) => return Ok(Err(refused)),
            }
        }
    }

    async fn key(&self, inspected: &Inspected, text: &str, known: &Standings, to: &mut To) -> Served {
        let none =
            || Ok(Err(Refused::no(format!("this node holds nothing of \"{text}\" in \"{}\"", inspected.spec().name))));
        let structure = match &inspected.object {
            Object::Structure(structure) => structure,
            Object::Cache(cache) => {
                let entry = cache.engine().entry_view(text.as_bytes(), self.shared().clock.now().unix_ms);
                let Some(entry) = entry else { return none() };
                wire::write(to, &Answer::EntryViews(vec![entry])).await?;
                return Ok(Ok(()));
            }
        };
        let key = match key::parse(structure.spec().class, text) {
            Ok(key) => key,
            Err(error) => return Ok(Err(Refused::bad(error))),
        };
        let view = view_of(structure, &key, self.shared().clock.time(), known);
        let limits = self.verdicts(structure.spec().class, &key);
        let is_empty = view.rows.is_empty() && view.pending == 0;
        if is_empty && limits.iter().all(|limit| limit.share.is_none()) {
            return none();
        }
        let view = KeyView { expired: !is_empty && self.has_expired(structure.id(), &key), ..view };
        wire::write(to, &Answer::KeyViews(vec![view])).await?;
        wire::write_pages(to, limits, Answer::LimitViews).await?;
        Ok(Ok(()))
    }

    /// Whether a key is one of a gauge cache, and its entry has expired.
    fn has_expired(&self, id: StructureId, key: &[u8]) -> bool {
        let objects = self.shared().current.get();
        let gauge = objects.gauge_caches.iter().find(|gauge| gauge.structure().id() == id);
        gauge.is_some_and(|gauge| gauge.get(key, self.shared().clock.time()).is_none())
    }

    async fn keys(&self, inspected: &Inspected, after: Option<&str>, known: &Standings, to: &mut To) -> Served {
        match &inspected.object {
            Object::Structure(structure) => {
                let after = after.map(|text| key::parse(structure.spec().class, text)).transpose();
                match after.map_err(Refused::bad) {
                    Ok(after) => self.rows(structure, after, known, to).await,
                    Err(refused) => Ok(Err(refused)),
                }
            }
            Object::Cache(cache) => self.entries(cache, after.map(|text| text.as_bytes().to_vec()), to).await,
        }
    }

    async fn rows(&self, of: &Structure, mut after: Option<Vec<u8>>, known: &Standings, to: &mut To) -> Served {
        loop {
            let page = of.key_views(after.as_deref(), self.shared().clock.time(), &|actor| known.of(actor));
            wire::write_pages(to, page.keys, Answer::KeyViews).await?;
            after = page.last;
            if after.is_none() {
                return Ok(Ok(()));
            }
        }
    }

    async fn entries(&self, of: &Cache, mut after: Option<Vec<u8>>, to: &mut To) -> Served {
        loop {
            let page = of.engine().entry_views(after.as_deref(), self.shared().clock.now().unix_ms);
            wire::write_pages(to, page.entries, Answer::EntryViews).await?;
            after = page.last;
            if after.is_none() {
                return Ok(Ok(()));
            }
        }
    }

    async fn log(&self, inspected: &Inspected, of: Option<&NodeName>, after: Version, to: &mut To) -> Served {
        let structure = match &inspected.object {
            Object::Structure(structure) => structure,
            Object::Cache(_) if of.is_some() => {
                return Ok(Err(Refused::bad("a cache has one log for the writes of all nodes: leave the node out")));
            }
            Object::Cache(cache) => {
                let page = |after: Version| cache.engine().log_view(after.0);
                return log_pages(after, page, to).await;
            }
        };
        let actor = match of {
            Some(node) => structure.latest(node).ok_or_else(|| unknown_node(Some(node))),
            None => Ok(structure.viewer()),
        };
        let actor = match actor {
            Ok(actor) => actor,
            Err(refused) => return Ok(Err(refused)),
        };
        if structure.log_view(&actor, Version::MAX).is_none() {
            let why = format!("this node keeps no log of the rows of {actor}: ask {} itself", actor.node);
            return Ok(Err(Refused::no(why)));
        }
        log_pages(after, |after| structure.log_view(&actor, after).unwrap_or_default(), to).await
    }
}

/// Writes a log page by page.
async fn log_pages(mut after: Version, page: impl Fn(Version) -> Vec<LogView>, to: &mut To) -> Served {
    loop {
        let page = page(after);
        let Some(last) = page.last() else { return Ok(Ok(())) };
        after = last.version;
        wire::write_pages(to, page, Answer::LogViews).await?;
    }
}

fn view_of(structure: &Arc<Structure>, key: &[u8], time: Time, known: &Standings) -> KeyView {
    let net = if structure.kind() == Kind::CidrTree { key::to_net(key).ok() } else { None };
    match net {
        Some(net) => structure.net_view(net, time, &|actor| known.of(actor)),
        None => structure.key_view(key, time, &|actor| known.of(actor)),
    }
}
