//! The node's log: a bounded queue and a thread that writes it to stderr.
//!
//! The reader of stderr may stop reading. The node must not wait for it, so an event that finds the queue full is dropped and
//! counted. The thread writes the number of dropped lines when it can write again.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::os::fd::AsFd;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tallymesh::LogLevel;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::{EnvFilter, reload};

use crate::failure::Failure;

/// Bytes of lines that wait to be written.
const QUEUE_BYTES: usize = 1 << 20;

/// How long an ending node waits until the last lines are written.
const FLUSH: Duration = Duration::from_secs(1);

/// The log of a node. Dropping it waits until the queue is written, for a second at most.
#[derive(Debug)]
pub(super) struct Log {
    queue: Arc<Queue>,
    level: Option<Level>,
}

/// The level of a log that the configuration decides. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Level(Arc<dyn SetFilter>);

/// Changes the filter of the log.
trait SetFilter: std::fmt::Debug + Send + Sync {
    fn set(&self, filter: EnvFilter) -> Result<(), reload::Error>;
}

impl<S: std::fmt::Debug + 'static> SetFilter for reload::Handle<EnvFilter, S> {
    fn set(&self, filter: EnvFilter) -> Result<(), reload::Error> {
        self.reload(filter)
    }
}

impl Level {
    /// Logs events of this level and more important ones from now on.
    pub(super) fn set(&self, level: LogLevel) {
        if let Err(error) = self.0.set(EnvFilter::new(level.name())) {
            tracing::error!(%error, "the level of the log does not change");
        }
    }
}

impl Log {
    /// Starts to log to stderr. The filter is that of the command line or TALLY_LOG, else that of RUST_LOG, else that of the
    /// configuration, else `info`.
    pub(super) fn start(filter: Option<&str>) -> Result<Self, Failure> {
        let given = filter.map(str::to_owned).or_else(|| std::env::var("RUST_LOG").ok());
        let by_configuration = given.is_none();
        let filter = match given {
            Some(text) => EnvFilter::try_new(&text).map_err(|error| {
                Failure::Input(format!("\"{text}\" is not a log filter: {error}; try info or debug"))
            })?,
            None => EnvFilter::new("info"),
        };
        let colour = io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        let queue = Arc::new(Queue::default());
        let writing = Arc::clone(&queue);
        // Its own handle: the lock of `io::stderr` would block every other writer as well.
        let stderr = io::stderr().as_fd().try_clone_to_owned().map(File::from);
        let thread = std::thread::Builder::new().name("tally-log".to_owned()).spawn(move || match stderr {
            Ok(stderr) => writing.write_to(stderr),
            // Stderr is closed.
            Err(_) => writing.write_to(io::sink()),
        });
        thread.map_err(|error| Failure::Node(format!("cannot start the thread that writes the log: {error}")))?;
        let subscriber = tracing_subscriber::fmt()
            .with_env_filter(filter)
            .with_writer(Lines(Arc::clone(&queue)))
            .with_ansi(colour)
            .log_internal_errors(false)
            .with_filter_reloading();
        let level = by_configuration.then(|| Level(Arc::new(subscriber.reload_handle())));
        subscriber.init();
        let panics = Arc::clone(&queue);
        // The usual hook writes to stderr itself, and would wait for the reader.
        std::panic::set_hook(Box::new(move |info| {
            let thread = std::thread::current();
            panics.push(format!("thread '{}' {info}\n", thread.name().unwrap_or("unnamed")).into_bytes());
        }));
        Ok(Self { queue, level })
    }

    /// The level, if neither the command line nor the environment decides it.
    pub(super) fn level(&self) -> Option<Level> {
        self.level.clone()
    }

    /// Queues a message for the user, in order with the log's lines.
    pub(super) fn message(&self, label: &str, message: &str) {
        self.queue.push(format!("{label}: {message}\n").into_bytes());
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        self.queue.flush(FLUSH);
    }
}

#[derive(Debug, Default)]
struct Queue {
    state: Mutex<State>,
    /// There is something to write.
    filled: Condvar,
    /// Everything is written.
    written: Condvar,
}

#[derive(Debug, Default)]
struct State {
    lines: VecDeque<Vec<u8>>,
    bytes: usize,
    /// Lines that were dropped and are not reported yet.
    dropped: u64,
    /// The thread has taken a line and not written it yet.
    busy: bool,
}

impl State {
    fn append(&mut self, line: Vec<u8>) {
        self.bytes += line.len();
        self.lines.push_back(line);
    }

    /// Queues the number of dropped lines in their place.
    fn report_dropped(&mut self) {
        let dropped = std::mem::take(&mut self.dropped);
        if dropped > 0 {
            self.append(format!("log: {dropped} lines were dropped, because the log was not read\n").into_bytes());
        }
    }
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, State> {
        // The state is valid between any two statements that could panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Queues a line, or drops and counts it. Never waits for the writing.
    fn push(&self, line: Vec<u8>) {
        let mut state = self.lock();
        if state.bytes.saturating_add(line.len()) > QUEUE_BYTES {
            state.dropped += 1;
            return;
        }
        state.report_dropped();
        state.append(line);
        drop(state);
        self.filled.notify_one();
    }

    /// Writes lines as they come, for as long as the process runs.
    fn write_to(&self, mut to: impl Write) {
        loop {
            let line = self.next();
            // A closed stderr stays closed: later lines are lost like this one.
            let _ = to.write_all(&line);
        }
    }

    /// Waits for the next line to write. The previous line has been written.
    fn next(&self) -> Vec<u8> {
        let mut state = self.lock();
        state.busy = false;
        loop {
            if state.lines.is_empty() {
                state.report_dropped();
            }
            if let Some(line) = state.lines.pop_front() {
                state.bytes -= line.len();
                state.busy = true;
                return line;
            }
            self.written.notify_all();
            state = self.filled.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Waits until everything is written, but no longer than `patience`.
    fn flush(&self, patience: Duration) {
        let unwritten = |state: &mut State| state.busy || !state.lines.is_empty();
        drop(self.written.wait_timeout_while(self.lock(), patience, unwritten));
    }
}

/// Makes a writer for each event of the log.
#[derive(Debug, Clone)]
struct Lines(Arc<Queue>);

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

impl Write for Lines {
    /// Takes a complete event: the subscriber formats it first, and writes it in one call.
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        self.0.push(event.to_vec());
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_beyond_the_bound_are_dropped_and_their_number_is_logged() {
        let queue = Queue::default();
        let line = vec![b'x'; QUEUE_BYTES / 2];
        for _ in 0..5 {
            queue.push(line.clone());
        }
        assert_eq!((queue.next(), queue.next()), (line.clone(), line));
        assert_eq!(queue.next(), b"log: 3 lines were dropped, because the log was not read\n");
        queue.push(b"next\n".to_vec());
        assert_eq!(queue.next(), b"next\n");
    }

    #[test]
    fn a_node_that_ends_waits_for_its_last_lines_for_a_bounded_time() {
        let queue = Queue::default();
        queue.push(b"last\n".to_vec());
        // No thread writes it.
        queue.flush(Duration::from_millis(1));
        assert_eq!(queue.lock().lines.len(), 1);
    }
}
