//! The client's end of the admin protocol: one connection to one node.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tallymesh_schemas::admin::{self, Answer, ErrorKind, Request};
use tallymesh_schemas::frame;

use crate::failure::Failure;

/// After so long without a request, the next one takes a new connection.
const IDLE: Duration = Duration::from_secs(5);

/// The node to query, and how long to wait for it.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    /// Its admin socket, if one was named.
    pub(crate) at: Option<PathBuf>,
    /// How long each part of an answer may take.
    pub(crate) timeout: Duration,
}

impl Target {
    /// Connects to the node.
    pub(crate) fn connect(&self) -> Result<Client, Failure> {
        let help = "which node? Give its admin socket, --at DIR/NODE.sock, or set TALLY_AT";
        let at = self.at.as_deref().ok_or_else(|| Failure::Input(help.to_owned()))?;
        Client::connect(at, self.timeout)
    }
}

/// A connection to a node's admin socket.
#[derive(Debug)]
pub(crate) struct Client {
    stream: UnixStream,
    path: PathBuf,
    timeout: Duration,
    /// When the last request was sent.
    asked: Instant,
}

impl Client {
    fn connect(path: &Path, timeout: Duration) -> Result<Self, Failure> {
        let stream = UnixStream::connect(path).map_err(|error| {
            let why = match error.kind() {
                io::ErrorKind::NotFound => "there is no such socket; is the node running, and is the path right?",
                io::ErrorKind::ConnectionRefused => "no node listens there; start it: tally node --config FILE",
                io::ErrorKind::PermissionDenied => "the socket belongs to the node's user; run tally as that user",
                _ => return Failure::Node(format!("cannot reach the node at {}: {error}", path.display())),
            };
            Failure::Node(format!("cannot reach the node at {}: {why}", path.display()))
        })?;
        let client = Self { stream, path: path.to_owned(), timeout, asked: Instant::now() };
        client.wait_at_most(Some(timeout))?;
        Ok(client)
    }

    /// Sets how long each answer may take from now on; `None` for no limit.
    pub(crate) fn wait_at_most(&self, timeout: Option<Duration>) -> Result<(), Failure> {
        self.stream.set_read_timeout(timeout).map_err(|error| self.lost(&error))?;
        self.stream.set_write_timeout(Some(self.timeout)).map_err(|error| self.lost(&error))
    }

    /// Sends a request.
    pub(crate) fn send(&mut self, request: &Request) -> Result<(), Failure> {
        let payload =
            admin::encode(request).map_err(|error| Failure::Input(format!("the request is too large: {error}")))?;
        let header = frame::admin_header(payload.len())
            .map_err(|error| Failure::Input(format!("the request is too large: {error}")))?;
        if self.asked.elapsed() > IDLE {
            // A node with many clients closes idle connections.
            *self = Self::connect(&self.path, self.timeout)?;
        }
        self.asked = Instant::now();
        let bytes = [header.as_slice(), &payload].concat();
        self.stream.write_all(&bytes).map_err(|error| self.lost(&error))
    }

    /// Receives the next part of the answer. A refusal of the node becomes a failure.
    pub(crate) fn receive(&mut self) -> Result<Answer, Failure> {
        let mut header = [0; frame::HEADER_BYTES];
        self.stream.read_exact(&mut header).map_err(|error| self.lost(&error))?;
        let len = frame::payload_len(header)
            .map_err(|error| self.strange(&format!("{error}; use the tally command of the node's own build")))?;
        let mut payload = vec![0; len];
        self.stream.read_exact(&mut payload).map_err(|error| self.lost(&error))?;
        match admin::decode(&payload) {
            Ok(Answer::Error { kind: ErrorKind::No, message }) => Err(Failure::No(message)),
            Ok(Answer::Error { kind: ErrorKind::BadInput, message }) => Err(Failure::Input(message)),
            Ok(Answer::Error { kind: ErrorKind::Failed, message }) => Err(Failure::Node(message)),
            Ok(answer) => Ok(answer),
            Err(error) => Err(self.strange(&error.to_string())),
        }
    }

    /// Requests one value; `pick` takes it out of the answer.
    pub(crate) fn one<T>(&mut self, request: &Request, pick: fn(Answer) -> Option<T>) -> Result<T, Failure> {
        self.send(request)?;
        let answer = self.receive()?;
        let value = pick(answer).ok_or_else(|| self.unexpected())?;
        self.done()?;
        Ok(value)
    }

    /// Requests a list that comes in pages; `pick` takes the items out of a page.
    pub(crate) fn all<T>(&mut self, request: &Request, pick: fn(Answer) -> Option<Vec<T>>) -> Result<Vec<T>, Failure> {
        self.send(request)?;
        self.rest(pick)
    }

    /// Receives the pages of a list up to the end of the answer.
    pub(crate) fn rest<T>(&mut self, pick: fn(Answer) -> Option<Vec<T>>) -> Result<Vec<T>, Failure> {
        let mut items = Vec::new();
        loop {
            match self.receive()? {
                Answer::Done => return Ok(items),
                page => items.extend(pick(page).ok_or_else(|| self.unexpected())?),
            }
        }
    }

    /// Sends a request whose answer is only an acknowledgement.
    pub(crate) fn order(&mut self, request: &Request) -> Result<(), Failure> {
        self.send(request)?;
        self.done()
    }

    /// Waits for the end of the answer.
    fn done(&mut self) -> Result<(), Failure> {
        match self.receive()? {
            Answer::Done => Ok(()),
            _ => Err(self.unexpected()),
        }
    }

    /// The stream itself, for a connection that only has to stay open.
    pub(crate) fn into_stream(self) -> UnixStream {
        self.stream
    }

    /// The failure of an answer that does not belong to the request.
    pub(crate) fn unexpected(&self) -> Failure {
        self.strange("its answer does not belong to the request; use the tally command of the node's own build")
    }

    fn strange(&self, why: &str) -> Failure {
        Failure::Node(format!("cannot read the answer of the node at {}: {why}", self.path.display()))
    }

    fn lost(&self, error: &io::Error) -> Failure {
        let path = self.path.display();
        Failure::Node(match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
                let seconds = self.timeout.as_secs_f64();
                format!("the node at {path} did not answer within {seconds} s; it may be stopped or overloaded")
            }
            io::ErrorKind::UnexpectedEof | io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => {
                format!("the node at {path} closed the connection; its log says why, or it has just stopped")
            }
            _ => format!("lost the node at {path}: {error}"),
        })
    }
}
