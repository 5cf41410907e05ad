//! A client of a node's admin socket, for many requests.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use tallymesh_schemas::admin::{self, Answer, Count, Member, Request};
use tallymesh_schemas::{NodeName, frame};

/// Longer than any answer of a running node takes.
const PATIENCE: Duration = Duration::from_secs(60);

/// A connection to a node.
#[derive(Debug)]
pub(crate) struct Admin(UnixStream);

impl Admin {
    /// Connects to the node at this socket.
    pub(crate) fn connect(path: &Path) -> io::Result<Self> {
        let stream = UnixStream::connect(path)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(Self(stream))
    }

    /// Sends a request, and returns all parts of the answer except its end.
    pub(crate) fn ask(&mut self, request: &Request) -> io::Result<Vec<Answer>> {
        let payload = admin::encode(request).map_err(io::Error::other)?;
        let header = frame::header(payload.len()).map_err(io::Error::other)?;
        self.0.write_all(&[header.as_slice(), &payload].concat())?;
        let mut parts = Vec::new();
        loop {
            match self.receive()? {
                Answer::Done => return Ok(parts),
                Answer::Error { message, .. } => return Err(io::Error::other(message)),
                part => parts.push(part),
            }
        }
    }

    fn receive(&mut self) -> io::Result<Answer> {
        let mut header = [0; frame::HEADER_BYTES];
        self.0.read_exact(&mut header)?;
        let mut payload = vec![0; frame::payload_len(header).map_err(io::Error::other)?];
        self.0.read_exact(&mut payload)?;
        admin::decode(&payload).map_err(io::Error::other)
    }

    /// Adds lines of keys to an object.
    pub(crate) fn load(&mut self, object: &str, lines: &[(String, i64)]) -> io::Result<()> {
        let request = Request::Load { object: object.to_owned(), lines: lines.to_vec(), skip_bad: false };
        let answer = self.ask(&request)?;
        assert_eq!(answer, [Answer::Loaded { lines: lines.len() as u64, bad: Vec::new() }], "every line is counted");
        Ok(())
    }

    /// The count of a key.
    pub(crate) fn count(&mut self, object: &str, key: &str) -> io::Result<Count> {
        let request = Request::Count { object: object.to_owned(), key: key.to_owned(), from: None };
        match self.ask(&request)?.as_slice() {
            [Answer::Count(count)] => Ok(*count),
            other => panic!("the answer to a count is {other:?}"),
        }
    }

    /// The counts of an object by key, of the cluster or of one node, without keys whose count is zero.
    pub(crate) fn view(&mut self, object: &str, from: Option<&NodeName>) -> io::Result<Vec<(String, i64)>> {
        let mut view = Vec::new();
        for part in self.ask(&Request::Show { object: object.to_owned(), from: from.cloned() })? {
            match part {
                Answer::Blocks(blocks) => {
                    let hosts = blocks.into_iter().filter(|(net, _)| net.prefix_len() == net.max_prefix_len());
                    view.extend(hosts.map(|(net, n)| (net.addr().to_string(), n)));
                }
                Answer::Entries(entries) => view.extend(entries),
                _ => {}
            }
        }
        view.retain(|(_, n)| *n != 0);
        Ok(view)
    }

    /// The members that the node knows.
    pub(crate) fn members(&mut self) -> io::Result<Vec<Member>> {
        match self.ask(&Request::Members)?.pop() {
            Some(Answer::Members(members)) => Ok(members),
            other => panic!("the answer to a request for members is {other:?}"),
        }
    }
}
