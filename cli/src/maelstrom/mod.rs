//! `tally maelstrom`: a node for Maelstrom, the public test bench for distributed systems, on the engine that ships.
//!
//! Maelstrom starts one process per node and carries every message, its own and those between the nodes, as a line of JSON over
//! stdin and stdout. It delays, loses and duplicates messages between nodes, and partitions them. The nodes exchange the frames
//! of the replication protocol as over QUIC, in base64, in messages of the type `tally`. QUIC would retransmit lost packets;
//! here only the engine's digests repair losses.

mod link;
mod node;
mod protocol;
mod workload;

use std::io::{self, BufRead, Read, Write};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tallymesh_engine::{Now, Time};
use tallymesh_schemas::UnixMs;

use crate::maelstrom::node::Node;
pub(crate) use crate::maelstrom::workload::Workload;

/// Bytes of one line: a few frames in base64, or a broadcast's topology.
const LINE_BYTES: u64 = 8 << 20;

/// Lines that wait to be handled, and lines that are handled before the timers.
const LINES: usize = 256;

/// The longest wait for a line, so that an overflow cannot make it endless.
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// Why the node ended before its input did.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MaelstromError {
    /// The input could not be read.
    #[error("cannot read messages from stdin: {0}")]
    Read(io::Error),
    /// A line is longer than any that Maelstrom or another node sends.
    #[error("a line of more than {LINE_BYTES} bytes on stdin")]
    Line,
    /// The output could not be written.
    #[error("cannot write messages to stdout: {0}")]
    Write(io::Error),
}

/// Runs a node of the workload until stdin ends.
///
/// # Errors
/// [`MaelstromError`] when stdin or stdout fails. A closed stdout is no error.
pub(crate) fn run(workload: Workload) -> Result<(), MaelstromError> {
    let (sender, lines) = mpsc::sync_channel(LINES);
    // Not joined: it may wait for a line when stdout is closed. It ends with the process.
    thread::spawn(move || read_lines(io::stdin().lock(), &sender));
    match serve(&mut Node::new(workload), &lines, &mut io::stdout().lock()) {
        Err(MaelstromError::Write(error)) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result,
    }
}

fn read_lines(mut input: impl BufRead, lines: &SyncSender<Result<Vec<u8>, MaelstromError>>) {
    loop {
        let mut line = Vec::new();
        let read = input.by_ref().take(LINE_BYTES).read_until(b'\n', &mut line);
        let next = match read {
            Ok(0) => return,
            Ok(n) if n as u64 == LINE_BYTES => Err(MaelstromError::Line),
            Ok(_) => Ok(line),
            Err(error) => Err(MaelstromError::Read(error)),
        };
        let last = next.is_err();
        if lines.send(next).is_err() || last {
            return;
        }
    }
}

/// Handles lines and timers in turn until the lines end.
fn serve(
    node: &mut Node,
    lines: &Receiver<Result<Vec<u8>, MaelstromError>>,
    output: &mut impl Write,
) -> Result<(), MaelstromError> {
    let clock = Clock(Instant::now());
    let mut out = Vec::new();
    loop {
        let wait = node.due().since(clock.now().mono).min(LONGEST_WAIT);
        let first = match lines.recv_timeout(wait) {
            Ok(line) => Some(line),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => return Ok(()),
        };
        for line in first.into_iter().chain(lines.try_iter().take(LINES)) {
            node.handle_line(clock.now(), &line?, &mut out);
        }
        node.tick(clock.now(), &mut out);
        output.write_all(&out).and_then(|()| output.flush()).map_err(MaelstromError::Write)?;
        out.clear();
    }
}

/// The clocks of the engine.
struct Clock(Instant);

impl Clock {
    fn now(&self) -> Now {
        let micros = u64::try_from(self.0.elapsed().as_micros()).unwrap_or(u64::MAX);
        // A clock before 1970 counts as 1970: the engine only compares.
        let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Now { mono: Time(micros), unix_ms: UnixMs(u64::try_from(unix.as_millis()).unwrap_or(u64::MAX)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_beyond_the_bound_ends_the_node() {
        let endless = io::repeat(b'x');
        let (sender, lines) = mpsc::sync_channel(1);
        read_lines(io::BufReader::new(endless), &sender);
        assert!(matches!(lines.recv(), Ok(Err(MaelstromError::Line))));
        assert!(matches!(lines.try_recv(), Err(mpsc::TryRecvError::Empty)));
    }

    #[test]
    fn requests_are_answered_line_by_line() {
        let (sender, lines) = mpsc::sync_channel(LINES);
        for body in [
            r#"{"type":"init","msg_id":1,"node_id":"n0","node_ids":["n0"]}"#,
            r#"{"type":"add","msg_id":2,"delta":-3}"#,
            r#"{"type":"read","msg_id":3}"#,
        ] {
            let line = format!("{{\"src\":\"c1\",\"dest\":\"n0\",\"body\":{body}}}\n");
            sender.send(Ok(line.into_bytes())).unwrap();
        }
        drop(sender);
        let mut output = Vec::new();
        serve(&mut Node::new(Workload::PnCounter), &lines, &mut output).unwrap();
        let lines: Vec<serde_json::Value> = output
            .split(|b| *b == b'\n')
            .filter(|l| !l.is_empty())
            .map(|l| serde_json::from_slice(l).unwrap())
            .collect();
        let bodies: Vec<_> = lines.iter().map(|line| line["body"].to_string()).collect();
        assert_eq!(
            bodies,
            [
                r#"{"in_reply_to":1,"type":"init_ok"}"#,
                r#"{"in_reply_to":2,"type":"add_ok"}"#,
                r#"{"in_reply_to":3,"type":"read_ok","value":-3}"#,
            ]
        );
    }
}
