//! `tally load`: streams many keys from a file or from stdin to the node, in batches.

pub(crate) mod entries;
mod lines;

use std::fs::File;
use std::io::{self, BufRead, BufReader, IsTerminal};
use std::path::Path;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::json;
use tallymesh_schemas::admin::{Answer, LOAD_LINES, Request};

use crate::args::Load;
use crate::client::{Client, Target};
use crate::commands::flush;
use crate::commands::load::entries::{Entry, Reader};
use crate::commands::load::lines::Lines;
use crate::failure::Failure;
use crate::output::{Format, Out};
use crate::style;

/// Bad lines that are reported one by one. Further ones are only counted.
const BAD_REPORTED: usize = 20;

/// Loads the lines of FILE or stdin, and reports their number.
pub(crate) fn run(args: &Load, target: &Target, format: Format) -> Result<(), Failure> {
    let format = format.no_csv("load")?;
    let Source { reader, name, bytes } = Source::open(args.file.as_deref())?;
    let client = target.connect()?;
    let progress = progress(bytes);
    let start = Instant::now();
    let mut load = Loading::new(client, args, name);
    let mut lines = Lines::new(reader);
    let result = load.all(&mut lines, &progress);
    progress.finish_and_clear();
    load.report_bad();
    result?;
    report(&load, start.elapsed(), format)?;
    flush::wait(&args.wait, target)
}

/// The source of the lines.
struct Source {
    reader: Box<dyn BufRead>,
    /// Its name in errors.
    name: String,
    /// Its length, if that is known.
    bytes: Option<u64>,
}

impl Source {
    fn open(file: Option<&Path>) -> Result<Self, Failure> {
        let Some(path) = file.filter(|path| *path != Path::new("-")) else {
            if io::stdin().is_terminal() {
                style::complain("note", "reading lines from the terminal; end with Ctrl-D");
            }
            let reader = Box::new(BufReader::with_capacity(64 << 10, io::stdin()));
            return Ok(Self { reader, name: "stdin".to_owned(), bytes: None });
        };
        let cannot = |error: io::Error| Failure::Input(format!("cannot read {}: {error}", path.display()));
        let file = File::open(path).map_err(cannot)?;
        let metadata = file.metadata().map_err(cannot)?;
        let bytes = metadata.is_file().then_some(metadata.len());
        let reader = Box::new(BufReader::with_capacity(64 << 10, file));
        Ok(Self { reader, name: path.display().to_string(), bytes })
    }
}

/// A bar for a file, a counter for a source of unknown length; nothing if stderr is no terminal.
fn progress(bytes: Option<u64>) -> ProgressBar {
    let target = ProgressDrawTarget::stderr();
    let (bar, template) = match bytes {
        Some(bytes) => {
            let template = "{bar:30} {percent:>3} %  {bytes} of {total_bytes}  {bytes_per_sec}  {eta} left";
            (ProgressBar::with_draw_target(Some(bytes), target), template)
        }
        None => (ProgressBar::with_draw_target(None, target), "{spinner} {bytes}  {bytes_per_sec}  {elapsed}"),
    };
    match ProgressStyle::with_template(template) {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

/// A load that is under way.
struct Loading<'a> {
    client: Client,
    args: &'a Load,
    name: String,
    reader: Reader,
    /// Keys that wait to be sent.
    batch: Vec<Entry>,
    /// Bad lines since the last batch.
    skipped: Vec<BadLine>,
    loaded: u64,
    bad: u64,
    /// The first bad lines.
    reported: Vec<BadLine>,
}

/// A line that was skipped.
#[derive(Debug)]
struct BadLine {
    number: u64,
    why: String,
}

impl<'a> Loading<'a> {
    fn new(client: Client, args: &'a Load, name: String) -> Self {
        let reader = Reader::new(args.format, args.counter.clone());
        let (batch, skipped, reported) = (Vec::with_capacity(LOAD_LINES), Vec::new(), Vec::new());
        Self { client, args, name, reader, batch, skipped, loaded: 0, bad: 0, reported }
    }

    fn all(&mut self, lines: &mut Lines<Box<dyn BufRead>>, progress: &ProgressBar) -> Result<(), Failure> {
        loop {
            let next = lines.next().map_err(|error| Failure::Input(format!("cannot read {}: {error}", self.name)));
            let Some(line) = next? else { break };
            let number = line.number;
            match self.reader.read(&line, &mut self.batch) {
                Ok(()) => {}
                Err(why) if self.args.skip_bad && !self.reader.is_lost() => self.skipped.push(BadLine { number, why }),
                Err(why) => {
                    self.reader.end(&mut self.batch);
                    self.send()?;
                    return Err(self.stopped(number, &why));
                }
            }
            if self.batch.len() >= LOAD_LINES || self.skipped.len() >= LOAD_LINES {
                self.send()?;
                progress.set_position(lines.bytes());
            }
        }
        self.reader.end(&mut self.batch);
        self.send()
    }

    /// Sends the batch, and collects the lines that the node refused.
    fn send(&mut self) -> Result<(), Failure> {
        let mut skipped = std::mem::take(&mut self.skipped);
        while !self.batch.is_empty() {
            let part = self.batch.drain(..self.batch.len().min(LOAD_LINES));
            let (numbers, lines): (Vec<_>, Vec<_>) = part.map(|entry| (entry.number, (entry.key, entry.n))).unzip();
            for BadLine { number, why } in self.load(&numbers, lines)? {
                if !self.args.skip_bad {
                    return Err(self.stopped(number, &why));
                }
                skipped.push(BadLine { number, why });
            }
        }
        skipped.sort_by_key(|line| line.number);
        self.bad += skipped.len() as u64;
        let room = BAD_REPORTED.saturating_sub(self.reported.len());
        self.reported.extend(skipped.into_iter().take(room));
        Ok(())
    }

    /// Asks the node to count lines. Returns the lines that it refused.
    fn load(&mut self, numbers: &[u64], lines: Vec<(String, i64)>) -> Result<Vec<BadLine>, Failure> {
        let (object, skip_bad) = (self.args.object.clone(), self.args.skip_bad);
        let (lines, bad) = self.client.one(&Request::Load { object, lines, skip_bad }, |answer| match answer {
            Answer::Loaded { lines, bad } => Some((lines, bad)),
            _ => None,
        })?;
        self.loaded += lines;
        let named = bad.into_iter().map(|(index, why)| Some(BadLine { number: *numbers.get(index as usize)?, why }));
        named.collect::<Option<_>>().ok_or_else(|| self.client.unexpected())
    }

    /// The failure of a load that a bad line ends.
    fn stopped(&self, number: u64, why: &str) -> Failure {
        let (name, loaded) = (&self.name, self.loaded);
        let before = match loaded {
            1 => "1 line before it has been counted".to_owned(),
            loaded => format!("{loaded} lines before it have been counted"),
        };
        let help = "correct it and load the rest, or skip bad lines with --skip-bad";
        Failure::Input(format!("{name}:{number}: {why}\n{before}; {help}"))
    }

    /// Reports which lines were skipped, and why.
    fn report_bad(&self) {
        for BadLine { number, why } in &self.reported {
            style::complain("warning", &format!("{}:{number}: {why}", self.name));
        }
        let more = self.bad - self.reported.len() as u64;
        if more > 0 {
            style::complain("warning", &format!("{more} more bad lines"));
        }
    }
}

fn report(load: &Loading<'_>, took: Duration, format: Format) -> Result<(), Failure> {
    let mut out = Out::open();
    let seconds = took.as_secs_f64();
    let rate = load.loaded as f64 / seconds.max(1e-9);
    if format == Format::Json {
        out.json(&json!({
            "lines": load.loaded, "bad": load.bad, "bad_lines": bad_lines(load), "seconds": seconds, "lines_per_second": rate.round(),
        }))?;
    } else {
        out.line(format!("{} lines in {seconds:.3} s, {rate:.0} lines/s", load.loaded))?;
        if load.bad > 0 {
            out.line(format!("{} bad lines skipped", load.bad))?;
        }
    }
    out.flush()
}

/// The first bad lines, for programs.
fn bad_lines(load: &Loading<'_>) -> Vec<serde_json::Value> {
    load.reported.iter().map(|line| json!({ "line": line.number, "reason": line.why })).collect()
}
