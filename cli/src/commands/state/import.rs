//! `tally state import`: makes a saved state from lines of JSON.

use std::io::{self, BufRead};
use std::path::Path;

use serde_json::json;
use tallymesh::state::{Archive, FORMAT, Filling};
use tallymesh::{NodeName, StateError};
use tallymesh_schemas::saved::{CacheContexts, Facts, Part, Shape};
use tallymesh_schemas::{Actor, Class, bounds};

use crate::commands::state::lines::{self, EntryLine, Line};
use crate::failure::Failure;
use crate::output::{Format, Out};

/// Bytes of entries that are written together.
const ENTRIES_BYTES: usize = 1 << 20;

/// Why a state was not made.
enum Bad {
    State(StateError),
    Line(usize, String),
}

impl From<StateError> for Bad {
    fn from(error: StateError) -> Self {
        Self::State(error)
    }
}

/// Makes a saved state from the lines of stdin.
pub(super) fn run(dir: &Path, format: Format) -> Result<(), Failure> {
    let format = format.no_csv("state import")?;
    let mut from = io::stdin().lock();
    let (parts, rows) = read_all(&mut from, dir).map_err(|bad| match bad {
        Bad::State(error) => Failure::state(error),
        Bad::Line(at, what) => Failure::Input(format!("line {at}: {what}; nothing was written")),
    })?;
    let mut out = Out::open();
    match format {
        Format::Json => out.json(&json!({ "parts": parts, "rows": rows }))?,
        _ => out.line(format!("{rows} rows in {parts} parts"))?,
    }
    out.flush()
}

/// Reads all lines. Returns the number of parts and of rows.
fn read_all(from: &mut impl BufRead, dir: &Path) -> Result<(u64, u64), Bad> {
    let (mut text, at) = (String::new(), 1);
    let first = lines::next(from, &mut text).map_err(|what| Bad::Line(at, what))?;
    let Some(Line::State { format, node, protocol, saved_ms, facts }) = first else {
        return Err(Bad::Line(
            1,
            "the first line has to describe the state: use the output of `tally state export`".to_owned(),
        ));
    };
    if format > FORMAT || protocol > bounds::PROTOCOL_VERSION {
        return Err(Bad::Line(
            1,
            format!("format {format} is later than this version's, {FORMAT}: use a later version"),
        ));
    }
    let mut count = (0, 0);
    Archive::create(dir, &node, |filling| {
        filling.facts(&facts, saved_ms)?;
        let mut import = Import { filling, node: &node, facts: &facts, at, open: Open::Nothing, parts: 0, rows: 0 };
        loop {
            import.at += 1;
            match lines::next(from, &mut text).map_err(|what| import.bad(what))? {
                Some(line) => import.take(line)?,
                None => break,
            }
        }
        import.close()?;
        count = (import.parts, import.rows);
        Ok::<(), Bad>(())
    })?;
    Ok(count)
}

/// A state that is being made.
struct Import<'a, 'b> {
    filling: &'a mut Filling<'b>,
    node: &'a NodeName,
    facts: &'a Facts,
    /// The number of the line.
    at: usize,
    open: Open,
    parts: u64,
    rows: u64,
}

/// What the next lines belong to.
enum Open {
    Nothing,
    /// A part, and the number of its line.
    Part(usize, Part),
    /// A cache, and its entries that are not written yet.
    Cache(Shape, Entries),
}

/// Entries, and their bytes.
#[derive(Default)]
struct Entries {
    list: Vec<(Vec<u8>, Option<Vec<u8>>)>,
    bytes: usize,
}

impl Import<'_, '_> {
    fn bad(&self, what: impl ToString) -> Bad {
        Bad::Line(self.at, what.to_string())
    }

    fn take(&mut self, line: Line) -> Result<(), Bad> {
        match line {
            Line::State { .. } => return Err(self.bad("a second state")),
            Line::Row(row) => {
                let Open::Part(_, part) = &mut self.open else { return Err(self.bad("a row before any part")) };
                let row = lines::to_row(part.shape.class, &row).map_err(|what| Bad::Line(self.at, what))?;
                part.rows.push(row);
                self.rows += 1;
            }
            Line::Entry(entry) => self.entry(&entry)?,
            Line::Part { structure, class, actor, extent } => {
                self.close()?;
                self.check_run(&actor)?;
                let part = lines::part(structure, class, actor, extent).map_err(|what| self.bad(what))?;
                self.open = Open::Part(self.at, part);
            }
            Line::Cache { structure, class, contexts } => {
                self.close()?;
                self.check_cache(class, &contexts)?;
                let shape = Shape { name: structure, class };
                self.filling.cache(&shape, &contexts)?;
                self.open = Open::Cache(shape, Entries::default());
            }
        }
        Ok(())
    }

    fn entry(&mut self, line: &EntryLine) -> Result<(), Bad> {
        self.check_run(&line.actor)?;
        let (key, entry) = lines::to_entry(line).map_err(|what| self.bad(what))?;
        let Open::Cache(shape, entries) = &mut self.open else { return Err(self.bad("an entry before any cache")) };
        entries.bytes += key.len() + entry.len();
        entries.list.push((key, Some(entry)));
        self.rows += 1;
        if entries.bytes >= ENTRIES_BYTES {
            let entries = std::mem::take(entries);
            self.filling.entries(shape, &entries.list)?;
        }
        Ok(())
    }

    /// Writes what is open.
    fn close(&mut self) -> Result<(), Bad> {
        match std::mem::replace(&mut self.open, Open::Nothing) {
            Open::Nothing => return Ok(()),
            Open::Part(at, part) => {
                self.filling.part(part).map_err(|error| Bad::Line(at, error.to_string()))?;
            }
            Open::Cache(shape, entries) => self.filling.entries(&shape, &entries.list)?,
        }
        self.parts += 1;
        Ok(())
    }

    /// The state's own node has begun no run after the one in its facts.
    fn check_run(&self, run: &Actor) -> Result<(), Bad> {
        if run.node == *self.node && run.incarnation > self.facts.incarnation {
            return Err(self.bad(format!("a run of {} that comes after the state's own", self.node)));
        }
        Ok(())
    }

    fn check_cache(&self, class: Class, contexts: &CacheContexts) -> Result<(), Bad> {
        if class != Class::Cache {
            return Err(self.bad(format!("a cache of class {}", class.name())));
        }
        for context in [&contexts.seen, &contexts.collected] {
            for (run, number) in &context.runs {
                self.check_run(run)?;
                run.incarnation.checked().map_err(|error| self.bad(error))?;
                if *number > bounds::CACHE_WRITES {
                    return Err(self.bad(format!("{number} writes of {run}")));
                }
            }
            for (node, first) in &context.ended {
                self.check_run(&Actor::new(node.clone(), *first))?;
                first.checked().map_err(|error| self.bad(error))?;
            }
        }
        Ok(())
    }
}
