//! `tally hold`: counts one while a command runs.

use std::ffi::OsStr;
use std::io;
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::process::{ExitStatus, Stdio};

use rustix::process::{Pid, Signal};
use tallymesh_schemas::admin::{Answer, Request};
use tokio::io::AsyncReadExt;
use tokio::process::{Child, Command};
use tokio::signal::unix::{self, SignalKind};

use crate::args::Hold;
use crate::client::Target;
use crate::failure::Failure;
use crate::output::Format;
use crate::style;

/// Holds one for as long as the command runs, and ends as the command did.
pub(crate) fn run(args: Hold, target: &Target, format: Format) -> Result<(), Failure> {
    let Hold { object, key, limits, command } = args;
    format.no_csv("hold")?;
    let Some((program, arguments)) = command.split_first() else {
        return Err(Failure::Input("which command? Write it after --".to_owned()));
    };
    let mut client = target.connect()?;
    client.send(&Request::Hold { object, key, limits })?;
    let Answer::Held = client.receive()? else { return Err(client.unexpected()) };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure::Node(format!("cannot watch over the command: {error}")))?;
    runtime.block_on(async {
        let mut passed_on = PassedOn::new().map_err(|error| cannot_run(program, &error))?;
        let child = Command::new(program).args(arguments).stdin(Stdio::inherit()).spawn();
        let mut child = child.map_err(|error| cannot_run(program, &error))?;
        let status = watch_over(&mut child, &mut passed_on, client.into_stream()).await;
        let status = status.map_err(|error| Failure::Node(format!("lost sight of the command: {error}")))?;
        match code(status) {
            0 => Ok(()),
            code => Err(Failure::Exit(code)),
        }
    })
}

/// Waits for the command, passes signals on to it, and says so if the node goes meanwhile.
async fn watch_over(child: &mut Child, signals: &mut PassedOn, held: UnixStream) -> io::Result<ExitStatus> {
    held.set_nonblocking(true)?;
    let mut held = tokio::net::UnixStream::from_std(held)?;
    let (mut open, mut nothing) = (true, [0; 1]);
    loop {
        tokio::select! {
            status = child.wait() => return status,
            signal = signals.next() => pass_on(child, signal),
            // The node says no more; what can come is the end.
            _ = held.read(&mut nothing), if open => {
                open = false;
                style::complain("warning", "the node is gone, and the hold with it; the command goes on uncounted");
            }
        }
    }
}

/// Signals that are the command's business. (Ctrl-C reaches it from the terminal by itself; a second one does no harm.)
struct PassedOn {
    term: unix::Signal,
    hangup: unix::Signal,
    interrupt: unix::Signal,
}

impl PassedOn {
    fn new() -> io::Result<Self> {
        Ok(Self {
            term: unix::signal(SignalKind::terminate())?,
            hangup: unix::signal(SignalKind::hangup())?,
            interrupt: unix::signal(SignalKind::interrupt())?,
        })
    }

    async fn next(&mut self) -> Signal {
        tokio::select! {
            _ = self.term.recv() => Signal::TERM,
            _ = self.hangup.recv() => Signal::HUP,
            _ = self.interrupt.recv() => Signal::INT,
        }
    }
}

fn pass_on(child: &Child, signal: Signal) {
    let pid = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
    if let Some(pid) = pid {
        // It may have ended just now; then there is nobody to tell.
        let _ = rustix::process::kill_process(pid, signal);
    }
}

/// As shells do: 127 for a command that is not there, 126 for one that cannot be run.
fn cannot_run(program: &OsStr, error: &io::Error) -> Failure {
    style::complain("error", &format!("cannot run {}: {error}", program.to_string_lossy()));
    Failure::Exit(if error.kind() == io::ErrorKind::NotFound { 127 } else { 126 })
}

/// The exit code that a shell would report.
fn code(status: ExitStatus) -> u8 {
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(1);
    u8::try_from(code).unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes_are_those_that_a_shell_reports() {
        assert_eq!(code(ExitStatus::from_raw(0)), 0);
        assert_eq!(code(ExitStatus::from_raw(7 << 8)), 7);
        assert_eq!(code(ExitStatus::from_raw(15)), 143);
    }
}
