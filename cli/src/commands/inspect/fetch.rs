//! Asks a node for a view.

use tallymesh_schemas::admin::{Answer, Request};
use tallymesh_schemas::inspect::{
    ActorView, EntryView, KeyView, LimitView, LinkView, LogView, Subject, SubjectRef, View,
};

use crate::client::{Client, Target};
use crate::failure::Failure;

/// A view of an object. The lists that the view does not have are empty.
#[derive(Debug)]
pub(super) struct Inspection {
    pub(super) subject: Subject,
    pub(super) view: View,
    pub(super) actors: Vec<ActorView>,
    pub(super) keys: Vec<KeyView>,
    pub(super) entries: Vec<EntryView>,
    pub(super) links: Vec<LinkView>,
    pub(super) limits: Vec<LimitView>,
}

/// A part of a view that comes in pages.
#[derive(Debug)]
pub(super) enum Page {
    Keys(Vec<KeyView>),
    Entries(Vec<EntryView>),
    Log(Vec<LogView>),
}

/// A view that is read page by page.
#[derive(Debug)]
pub(super) struct Pages {
    client: Client,
    pub(super) subject: Subject,
}

impl Inspection {
    /// An empty view.
    pub(super) fn new(subject: Subject, view: View) -> Self {
        let (actors, keys, entries, links, limits) = Default::default();
        Self { subject, view, actors, keys, entries, links, limits }
    }

    /// Asks for a view, as a whole.
    pub(super) fn ask(target: &Target, subject: SubjectRef, view: View) -> Result<Self, Failure> {
        let Pages { mut client, subject } = Pages::ask(target, subject, view.clone())?;
        let mut found = Self::new(subject, view);
        loop {
            match client.receive()? {
                Answer::ActorViews(page) => found.actors.extend(page),
                Answer::KeyViews(page) => found.keys.extend(page),
                Answer::EntryViews(page) => found.entries.extend(page),
                Answer::LimitViews(page) => found.limits.extend(page),
                Answer::LinkViews(page) => page.into_iter().for_each(|link| found.add(link)),
                Answer::Done => return Ok(found),
                _ => return Err(client.unexpected()),
            }
        }
    }

    /// Adds a link, or more streams of the last one.
    fn add(&mut self, link: LinkView) {
        match self.links.last_mut().filter(|last| last.peer == link.peer) {
            Some(last) => last.streams.extend(link.streams),
            None => self.links.push(link),
        }
    }
}

impl Pages {
    /// Asks for a view, page by page.
    pub(super) fn ask(target: &Target, subject: SubjectRef, view: View) -> Result<Self, Failure> {
        let mut client = target.connect()?;
        client.send(&Request::Inspect { subject, view })?;
        match client.receive()? {
            Answer::Subject(subject) => Ok(Self { client, subject: *subject }),
            _ => Err(client.unexpected()),
        }
    }

    /// The next page; `None` at the end.
    pub(super) fn next(&mut self) -> Result<Option<Page>, Failure> {
        match self.client.receive()? {
            Answer::KeyViews(page) => Ok(Some(Page::Keys(page))),
            Answer::EntryViews(page) => Ok(Some(Page::Entries(page))),
            Answer::LogViews(page) => Ok(Some(Page::Log(page))),
            Answer::Done => Ok(None),
            _ => Err(self.client.unexpected()),
        }
    }
}
