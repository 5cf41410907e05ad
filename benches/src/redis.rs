//! A Redis server of our own, asked over a local socket: for tokens by the generic cell rate algorithm, and as a cache.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How long the server may take to listen.
const PATIENCE: Duration = Duration::from_secs(5);

/// The theoretical arrival time of the next token, in microseconds, moved on if it is not too far ahead.
const SCRIPT: &str = "local t = redis.call('TIME'); local now = t[1] * 1000000 + t[2]; \
    local at = tonumber(redis.call('GET', KEYS[1]) or 0); if at < now then at = now end; \
    local next = at + tonumber(ARGV[1]); if next - now > tonumber(ARGV[2]) then return 0 end; \
    redis.call('SET', KEYS[1], string.format('%.3f', next), 'PX', 60000); return 1";

/// A server, and one connection to it.
#[derive(Debug)]
pub struct Redis {
    server: Child,
    stream: BufReader<UnixStream>,
    socket: PathBuf,
    script: String,
}

impl Redis {
    /// Starts a server that keeps nothing on disk and listens on a socket only.
    ///
    /// # Errors
    /// When there is no `redis-server` on the path, or it does not answer.
    pub fn start() -> io::Result<Self> {
        let socket = std::env::temp_dir().join(format!("tallymesh-bench-{}.sock", std::process::id()));
        let mut server = Command::new("redis-server");
        server.args(["--port", "0", "--save", "", "--appendonly", "no", "--unixsocket"]).arg(&socket);
        let server = server.stdout(Stdio::null()).stderr(Stdio::null()).spawn().map_err(|error| {
            io::Error::new(error.kind(), format!("redis-server does not start, is it on the PATH? {error}"))
        })?;
        let start = Instant::now();
        let stream = loop {
            match UnixStream::connect(&socket) {
                Ok(stream) => break stream,
                Err(error) if start.elapsed() > PATIENCE => return Err(error),
                Err(_) => std::thread::sleep(Duration::from_millis(10)),
            }
        };
        let mut redis = Self { server, stream: BufReader::new(stream), socket, script: String::new() };
        redis.script = redis.ask(&["SCRIPT", "LOAD", SCRIPT])?;
        Ok(redis)
    }

    /// Takes a token of a key, of which there are more than are ever taken.
    ///
    /// # Errors
    /// When the server does not answer, or says that something is wrong.
    pub fn take(&mut self, key: &str) -> io::Result<bool> {
        let script = std::mem::take(&mut self.script);
        let said = self.ask(&["EVALSHA", &script, "1", key, "0.001", "1000000"]);
        self.script = script;
        Ok(said? == "1")
    }

    /// Sends a command, and reads an answer of one line or one string.
    ///
    /// # Errors
    /// When the server does not answer, or says that something is wrong.
    pub fn ask(&mut self, words: &[&str]) -> io::Result<String> {
        self.send([words].into_iter())?;
        self.answer()
    }

    /// Sends commands without waiting for answers in between, which [`Redis::answer`] then reads one by one.
    ///
    /// # Errors
    /// When the server is gone.
    pub fn send<'a, W: AsRef<[&'a str]>>(&mut self, commands: impl Iterator<Item = W>) -> io::Result<()> {
        let mut bytes = String::new();
        for words in commands {
            bytes.push_str(&format!("*{}\r\n", words.as_ref().len()));
            words.as_ref().iter().for_each(|word| bytes.push_str(&format!("${}\r\n{word}\r\n", word.len())));
        }
        self.stream.get_mut().write_all(bytes.as_bytes())
    }

    /// Reads an answer of one line or one string.
    ///
    /// # Errors
    /// When the server does not answer, or says that something is wrong.
    pub fn answer(&mut self) -> io::Result<String> {
        let head = self.line()?;
        let refused = || io::Error::other(format!("the server says {head}"));
        match head.split_at_checked(1) {
            Some(("$", len)) => {
                let mut bytes = vec![0; len.parse::<usize>().map_err(|_| refused())? + 2];
                self.stream.read_exact(&mut bytes)?;
                bytes.truncate(bytes.len() - 2);
                String::from_utf8(bytes).map_err(io::Error::other)
            }
            Some(("+" | ":", rest)) => Ok(rest.to_owned()),
            _ => Err(refused()),
        }
    }

    /// Bytes of memory that it uses for what it holds.
    ///
    /// # Errors
    /// When the server does not answer, or does not say.
    pub fn used_memory(&mut self) -> io::Result<u64> {
        let info = self.ask(&["INFO", "memory"])?;
        let used = info.lines().find_map(|line| line.strip_prefix("used_memory:")?.parse().ok());
        used.ok_or_else(|| io::Error::other("the server does not say how much memory it uses"))
    }

    fn line(&mut self) -> io::Result<String> {
        let mut line = String::new();
        if self.stream.read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(line.trim_end().to_owned())
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        // Nothing of it is wanted any more; that it is gone already is as good.
        let _ = self.server.kill();
        let _ = self.server.wait();
        let _ = std::fs::remove_file(&self.socket);
    }
}
