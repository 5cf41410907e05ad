//! Shows the demonstration: lines that stay and, on a terminal, a few lines below them that are redrawn.

use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

use crate::failure::Failure;

/// The pause between two drawings.
const FRAME: Duration = Duration::from_millis(100);

/// The pause between two plain lines that stand for the redrawn ones.
const PLAIN_LINE: Duration = Duration::from_secs(1);

/// How the demonstration is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Display {
    /// Every line stays: for logs.
    Plain,
    /// The last lines are redrawn: for terminals.
    Redrawn,
}

impl Display {
    /// What stdout can show: only a terminal can redraw lines.
    pub(super) fn of_stdout() -> Self {
        let dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
        if dumb || !io::stdout().is_terminal() { Self::Plain } else { Self::Redrawn }
    }
}

/// Stdout as lines, or as a terminal.
#[derive(Debug)]
pub(super) struct Screen {
    display: Display,
    /// Lines at the bottom that are redrawn.
    drawn: usize,
    last: Option<Instant>,
}

impl Screen {
    /// Opens stdout.
    pub(super) fn open(display: Display) -> Self {
        Self { display, drawn: 0, last: None }
    }

    /// Writes a line that stays.
    pub(super) fn say(&mut self, text: impl AsRef<str>) -> Result<(), Failure> {
        let erased = self.erase();
        self.write(&format!("{erased}{}\n", text.as_ref()))
    }

    /// Writes the heading of an act.
    pub(super) fn act(&mut self, title: &str) -> Result<(), Failure> {
        let title = match self.display {
            Display::Plain => title.to_owned(),
            Display::Redrawn => format!("\x1b[1m{title}\x1b[0m"),
        };
        self.last = None;
        self.say(format!("\n{title}"))
    }

    /// Redraws the last lines with `frame` on a terminal; elsewhere writes `line` once a second.
    pub(super) fn live(
        &mut self,
        frame: impl FnOnce() -> Vec<String>,
        line: impl FnOnce() -> String,
    ) -> Result<(), Failure> {
        let pace = match self.display {
            Display::Plain => PLAIN_LINE,
            Display::Redrawn => FRAME,
        };
        if self.last.is_some_and(|last| last.elapsed() < pace) {
            return Ok(());
        }
        self.last = Some(Instant::now());
        if self.display == Display::Plain {
            return self.say(line());
        }
        let lines = frame();
        let text = format!("{}{}\n", self.erase(), lines.join("\n"));
        self.drawn = lines.len();
        self.write(&text)
    }

    /// The control sequence that removes the redrawn lines.
    fn erase(&mut self) -> String {
        match std::mem::take(&mut self.drawn) {
            0 => String::new(),
            drawn => format!("\x1b[{drawn}A\x1b[J"),
        }
    }

    fn write(&self, text: &str) -> Result<(), Failure> {
        let mut stdout = io::stdout().lock();
        let written = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
        written.map_err(|error| Failure::output(&error))
    }
}
