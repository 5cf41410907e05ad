//! `tally load`: many keys from a file or from stdin, streamed to the node in batches.

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
use crate::failure::Failure;
use crate::output::{Format, Out};
use crate::style;
use lines::{Line, Lines};

/// Loads what FILE or stdin holds, and says how much that was.
pub(crate) fn run(args: &Load, target: &Target, format: Format) -> Result<(), Failure> {
    let format = format.no_csv("load")?;
    let Source { reader, name, bytes } = Source::open(args.file.as_deref())?;
    let client = target.connect()?;
    let progress = progress(bytes);
    let start = Instant::now();
    let mut load = Loading { client, args, name, batch: Vec::with_capacity(LOAD_LINES), loaded: 0, bad: 0 };
    let mut lines = Lines::new(reader);
    let result = load.all(&mut lines, &progress);
    progress.finish_and_clear();
    result?;
    report(&load, start.elapsed(), format)
}

/// What is loaded.
struct Source {
    reader: Box<dyn BufRead>,
    /// What errors call it.
    name: String,
    /// Its length, if that is known.
    bytes: Option<u64>,
}

impl Source {
    fn open(file: Option<&Path>) -> Result<Self, Failure> {
        let Some(path) = file.filter(|path| *path != Path::new("-")) else {
            if io::stdin().is_terminal() {
                style::complain("note", "reading lines \"KEY [N]\" from the terminal; end with Ctrl-D");
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

/// A bar for a file, a counter for what has no known end; nothing at all unless stderr is a terminal.
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
    /// Keys that wait to be sent, each with the number of its line.
    batch: Vec<(u64, (String, i64))>,
    loaded: u64,
    bad: u64,
}

impl Loading<'_> {
    fn all(&mut self, lines: &mut Lines<Box<dyn BufRead>>, progress: &ProgressBar) -> Result<(), Failure> {
        while let Some(line) =
            lines.next().map_err(|error| Failure::Input(format!("cannot read {}: {error}", self.name)))?
        {
            match line {
                Line::Entry { number, key, n } => self.batch.push((number, (key, n))),
                Line::Bad { number, why } => {
                    if !self.args.skip_bad {
                        self.send()?;
                    }
                    self.bad_line(number, &why)?;
                }
            }
            if self.batch.len() == LOAD_LINES {
                self.send()?;
                progress.set_position(lines.bytes());
            }
        }
        self.send()
    }

    /// Sends the batch, and looks at what the node made of it.
    fn send(&mut self) -> Result<(), Failure> {
        if self.batch.is_empty() {
            return Ok(());
        }
        let (numbers, lines): (Vec<_>, Vec<_>) = self.batch.drain(..).unzip();
        let (object, skip_bad) = (self.args.object.clone(), self.args.skip_bad);
        let (lines, bad) = self.client.one(&Request::Load { object, lines, skip_bad }, |answer| match answer {
            Answer::Loaded { lines, bad } => Some((lines, bad)),
            _ => None,
        })?;
        self.loaded += lines;
        for (index, why) in bad {
            let number = numbers.get(index as usize).copied().ok_or_else(|| self.client.unexpected())?;
            self.bad_line(number, &why)?;
        }
        Ok(())
    }

    /// A bad line ends the loading, or is counted.
    fn bad_line(&mut self, number: u64, why: &str) -> Result<(), Failure> {
        if self.args.skip_bad {
            self.bad += 1;
            return Ok(());
        }
        let (name, loaded) = (&self.name, self.loaded);
        let before = match loaded {
            1 => "1 line before it has been counted".to_owned(),
            loaded => format!("{loaded} lines before it have been counted"),
        };
        let help = "mend it and load the rest, or pass over bad lines with --skip-bad";
        Err(Failure::Input(format!("{name}:{number}: {why}\n{before}; {help}")))
    }
}

fn report(load: &Loading<'_>, took: Duration, format: Format) -> Result<(), Failure> {
    let mut out = Out::open();
    let seconds = took.as_secs_f64();
    let rate = load.loaded as f64 / seconds.max(1e-9);
    if format == Format::Json {
        out.json(&json!({
            "lines": load.loaded, "bad": load.bad, "seconds": seconds, "lines_per_second": rate.round(),
        }))?;
    } else {
        out.line(format!("{} lines in {seconds:.3} s, {rate:.0} lines/s", load.loaded))?;
        if load.bad > 0 {
            out.line(format!("{} bad lines passed over", load.bad))?;
        }
    }
    out.flush()
}
