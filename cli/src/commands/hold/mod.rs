//! `tally hold`: counts one while a command runs.

pub(crate) mod guarded;
mod held;

use std::io;
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, getpid, kill_process};
use tallymesh_schemas::admin::Request;
use tokio::process::Child;

use crate::args::{Hold, OnLost};
use crate::client::Target;
use crate::commands::hold::guarded::cannot_run;
use crate::failure::Failure;
use crate::output::Format;
use crate::signals::Arrivals;
use crate::style;

/// How long a command may take to end after its hold was lost, before it is killed.
const END: Duration = Duration::from_secs(10);

/// The signals that are passed on to the command: all that a process can handle, except those that report its own faults, the
/// end of a child, or a closed pipe. (The terminal sends Ctrl-C to the command itself. A second one does no harm.)
const PASSED_ON: &[Signal] = &[
    Signal::HUP,
    Signal::INT,
    Signal::QUIT,
    Signal::TERM,
    Signal::USR1,
    Signal::USR2,
    Signal::ALARM,
    Signal::VTALARM,
    Signal::PROF,
    Signal::CONT,
    Signal::TSTP,
    Signal::WINCH,
    Signal::URG,
    Signal::IO,
    Signal::XCPU,
    Signal::XFSZ,
    #[cfg(target_os = "linux")]
    Signal::POWER,
];

/// Counts one for as long as the command runs, and ends with the command's exit code.
pub(crate) fn run(args: Hold, target: &Target, format: Format) -> Result<(), Failure> {
    let Hold { object, key, limits, on_lost, conflict_exit_code, command } = args;
    format.no_csv("hold")?;
    let Some((program, arguments)) = command.split_first() else {
        return Err(Failure::Input("which command? Write it after --".to_owned()));
    };
    let first = Request::Hold { object: object.clone(), key: key.clone(), limits };
    let stream = held::take(target, &first).map_err(|failure| conflict(failure, conflict_exit_code))?;
    // The command runs already then, so no limit can refuse it.
    let again = Request::Hold { object, key, limits: Vec::new() };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure::Node(format!("cannot start the runtime: {error}")))?;
    let ended = runtime.block_on(async {
        let mut signals = Arrivals::of(PASSED_ON.iter().map(|signal| (*signal, *signal)))
            .map_err(|error| cannot_run(program, &error))?;
        // On this thread, because the command ends with the thread that started it.
        let child = guarded::command(program, arguments).stdin(Stdio::inherit()).spawn();
        let mut child = child.map_err(|error| cannot_run(program, &error))?;
        let hold = Held { stream, again, target: target.clone(), on_lost };
        let status = watch_over(&mut child, &mut signals, hold).await;
        status.map_err(|error| Failure::Node(format!("cannot wait for the command: {error}")))
    });
    // An attempt to regain the hold may still run. Nothing waits for it.
    runtime.shutdown_background();
    match code(ended?) {
        0 => Ok(()),
        code => Err(Failure::Exit(code)),
    }
}

/// The hold that is kept while the command runs.
struct Held {
    stream: UnixStream,
    again: Request,
    target: Target,
    on_lost: OnLost,
}

/// Waits for the command, passes signals on to it, and keeps the hold meanwhile.
async fn watch_over(child: &mut Child, signals: &mut Arrivals<Signal>, hold: Held) -> io::Result<ExitStatus> {
    let Held { stream, again, target, on_lost } = hold;
    let lost = held::keep(held::watched(stream)?, target, again, on_lost);
    tokio::pin!(lost);
    loop {
        tokio::select! {
            status = child.wait() => return status,
            signal = signals.next() => pass_on(child, signal),
            () = &mut lost => break,
        }
    }
    send(child, Signal::TERM);
    let deadline = tokio::time::sleep(END);
    tokio::pin!(deadline);
    loop {
        tokio::select! {
            status = child.wait() => return status,
            signal = signals.next() => pass_on(child, signal),
            () = &mut deadline => {
                child.kill().await?;
                return child.wait().await;
            }
        }
    }
}

/// Passes a signal on. A stop stops this process as well, as the shell expects.
fn pass_on(child: &Child, signal: Signal) {
    send(child, signal);
    if signal == Signal::TSTP {
        // A process may always signal itself.
        let _ = kill_process(getpid(), Signal::STOP);
    }
}

fn send(child: &Child, signal: Signal) {
    let pid = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
    if let Some(pid) = pid {
        // An error means that it has just ended.
        let _ = kill_process(pid, signal);
    }
}

/// The failure, with the chosen exit code if there is no room.
fn conflict(failure: Failure, exit_code: Option<u8>) -> Failure {
    match (failure, exit_code) {
        (Failure::No(message), Some(code)) => {
            style::complain("error", &message);
            Failure::Exit(code)
        }
        (failure, _) => failure,
    }
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
