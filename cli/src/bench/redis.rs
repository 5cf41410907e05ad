//! Redis servers that the bench starts, and the part of their protocol (RESP 2) that it needs.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::failure::Failure;
use crate::local::trouble;

const PROGRAM: &str = "redis-server";

/// How long a server may take to start, and how long an answer may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// How many ports to try: another process may take a free port before the server does.
const TRIES: usize = 3;

/// The largest answer in bytes.
const ANSWER_BYTES: usize = 1 << 20;

/// The version of the server on the PATH; `None` when there is none.
pub(super) fn version() -> Option<String> {
    let output = Command::new(PROGRAM).arg("--version").output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let version = text.split(' ').find_map(|word| word.strip_prefix("v="))?;
    Some(version.to_owned())
}

/// A script that ends a server and removes its folder when the process that started it has ended for any reason: then the
/// script's stdin is closed. Signals to the process group, such as Ctrl-C, do not end the script before that.
const WATCH: &str = r#"trap '' INT TERM HUP; read -r _; kill "$1" 2>/dev/null; rm -rf "$2""#;

/// A server that is killed, and its folder removed, when this is dropped.
#[derive(Debug)]
pub(super) struct Server {
    child: Child,
    watch: Option<Child>,
    folder: PathBuf,
    port: u16,
}

impl Server {
    /// Starts a server that keeps nothing on disk, and waits until it answers.
    pub(super) fn start() -> Result<Self, Failure> {
        let mut last = String::new();
        for _ in 0..TRIES {
            match Self::try_start() {
                Ok(server) => return Ok(server),
                Err(error) => last = error.to_string(),
            }
        }
        Err(trouble(&format!("start {PROGRAM}"), &last))
    }

    fn try_start() -> io::Result<Self> {
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
        let folder = std::env::temp_dir().join(format!("tally-bench-{}-{port}", std::process::id()));
        fs::create_dir(&folder)?;
        let child = Command::new(PROGRAM)
            .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"])
            // Without the wait for further replicas, because there are none.
            .args(["--repl-diskless-sync", "yes", "--repl-diskless-sync-delay", "0"])
            .arg("--dir")
            .arg(&folder)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let child = child.inspect_err(|_| drop(fs::remove_dir_all(&folder)))?;
        let mut server = Self { child, watch: None, folder, port };
        let watch = Command::new("sh")
            .args(["-c", WATCH, "sh", &server.child.id().to_string()])
            .arg(&server.folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        server.watch = Some(watch);
        let start = Instant::now();
        while start.elapsed() < PATIENCE {
            if let Some(status) = server.child.try_wait()? {
                return Err(io::Error::other(format!("it ended at once: {status}")));
            }
            // The process id shows that no other server answers at this port.
            let answers = server.client().and_then(|mut client| client.info("server"));
            if answers.is_ok_and(|info| info.get("process_id") == Some(&server.child.id().to_string())) {
                return Ok(server);
            }
            thread::sleep(Duration::from_millis(10));
        }
        Err(io::Error::new(io::ErrorKind::TimedOut, format!("it did not answer within {} s", PATIENCE.as_secs())))
    }

    /// A connection to it.
    pub(super) fn client(&self) -> Result<Client, Failure> {
        let open = || -> io::Result<Client> {
            let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port))?;
            stream.set_nodelay(true)?;
            stream.set_read_timeout(Some(PATIENCE))?;
            Ok(Client { from: BufReader::with_capacity(64 << 10, stream), out: Vec::new() })
        };
        open().map_err(|error| trouble("reach redis", &error))
    }

    /// The port that it listens on.
    pub(super) fn port(&self) -> u16 {
        self.port
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // First the script that would kill the server: the server's process id may belong to another process afterwards. Both
        // may have ended by themselves.
        if let Some(watch) = &mut self.watch {
            let _ = watch.kill();
            let _ = watch.wait();
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// What a server answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Reply {
    /// A number.
    Number(i64),
    /// A text, short or long.
    Text(String),
    /// No such thing.
    Nil,
}

/// A connection, with the commands that wait to be sent.
#[derive(Debug)]
pub(super) struct Client {
    from: BufReader<TcpStream>,
    out: Vec<u8>,
}

impl Client {
    /// Queues a command.
    pub(super) fn queue(&mut self, parts: &[&str]) {
        command(parts, &mut self.out);
    }

    /// Sends the queued commands.
    pub(super) fn flush(&mut self) -> Result<(), Failure> {
        let sent = self.from.get_mut().write_all(&self.out);
        self.out.clear();
        sent.map_err(|error| trouble("speak to redis", &error))
    }

    /// The next answer.
    pub(super) fn reply(&mut self) -> Result<Reply, Failure> {
        reply(&mut self.from).map_err(|error| trouble("understand redis", &error))
    }

    /// Sends a command, and waits for its answer.
    pub(super) fn ask(&mut self, parts: &[&str]) -> Result<Reply, Failure> {
        self.queue(parts);
        self.flush()?;
        self.reply()
    }

    /// A section of `INFO`, by name.
    pub(super) fn info(&mut self, section: &str) -> Result<BTreeMap<String, String>, Failure> {
        let Reply::Text(text) = self.ask(&["INFO", section])? else {
            return Err(trouble("understand redis", "INFO is no text"));
        };
        let pairs = text.lines().filter_map(|line| line.split_once(':'));
        Ok(pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect())
    }

    /// A number out of a section of `INFO`.
    pub(super) fn figure(&mut self, section: &str, name: &str) -> Result<f64, Failure> {
        let info = self.info(section)?;
        let value = info.get(name).and_then(|value| value.parse().ok());
        value.ok_or_else(|| trouble("understand redis", &format!("INFO {section} has no number {name}")))
    }
}

fn command(parts: &[&str], out: &mut Vec<u8>) {
    out.extend_from_slice(format!("*{}\r\n", parts.len()).as_bytes());
    for part in parts {
        out.extend_from_slice(format!("${}\r\n{part}\r\n", part.len()).as_bytes());
    }
}

fn reply(from: &mut impl BufRead) -> io::Result<Reply> {
    let mut line = String::new();
    from.take(ANSWER_BYTES as u64).read_line(&mut line)?;
    let bad = || io::Error::new(io::ErrorKind::InvalidData, format!("unexpected answer {:?}", line.trim_end()));
    let said = line.strip_suffix("\r\n").ok_or_else(bad)?;
    let (kind, rest) = said.split_at_checked(1).ok_or_else(bad)?;
    match kind {
        "+" => Ok(Reply::Text(rest.to_owned())),
        ":" => rest.parse().map(Reply::Number).map_err(|_| bad()),
        "$" if rest == "-1" => Ok(Reply::Nil),
        "$" => {
            let n: usize = rest.parse().ok().filter(|n| *n <= ANSWER_BYTES).ok_or_else(bad)?;
            let mut bytes = vec![0; n + 2];
            from.read_exact(&mut bytes)?;
            bytes.truncate(n);
            String::from_utf8(bytes).map(Reply::Text).map_err(|_| bad())
        }
        _ => Err(bad()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(said: &str) -> io::Result<Reply> {
        reply(&mut said.as_bytes())
    }

    #[test]
    fn commands_and_answers_are_those_of_the_protocol() {
        let mut out = Vec::new();
        command(&["INCR", "é"], &mut out);
        assert_eq!(out, "*2\r\n$4\r\nINCR\r\n$2\r\né\r\n".as_bytes());
        assert_eq!(read("+OK\r\n").unwrap(), Reply::Text("OK".to_owned()));
        assert_eq!(read(":-3\r\n").unwrap(), Reply::Number(-3));
        assert_eq!(read("$5\r\nab\r\nc\r\n").unwrap(), Reply::Text("ab\r\nc".to_owned()));
        assert_eq!(read("$-1\r\n").unwrap(), Reply::Nil);
    }

    #[test]
    fn errors_and_nonsense_are_errors() {
        for said in ["", "-ERR unknown command\r\n", ":x\r\n", "$3\r\nab", "$9999999999\r\n", "+cut", "\r\n", "é\r\n"]
        {
            assert!(read(said).is_err(), "{said:?}");
        }
        assert!(read("-ERR no\r\n").unwrap_err().to_string().contains("ERR no"));
    }
}
