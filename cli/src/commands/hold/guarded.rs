//! Starts the command of `tally hold` so that the command ends with it.
//!
//! A process can ask the kernel for a signal at the death of its parent. The setting survives `exec`. So `tally hold` starts
//! itself as `tally guarded`, which asks for the signal and then becomes the command.

use std::ffi::{OsStr, OsString};
use std::io;

use tokio::process::Command;

use crate::args::Guarded;
use crate::failure::Failure;
use crate::style;

/// The command to start for a program and its arguments.
#[cfg(target_os = "linux")]
pub(super) fn command(program: &OsStr, arguments: &[OsString]) -> Command {
    // The file of this process, even if it was replaced or removed meanwhile.
    let mut command = Command::new("/proc/self/exe");
    let parent = std::process::id().to_string();
    command.arg0("tally").args(["guarded", "--parent", &parent, "--"]).arg(program).args(arguments);
    command
}

/// The command to start for a program and its arguments. This system does not notify a process of the death of its parent.
#[cfg(not(target_os = "linux"))]
pub(super) fn command(program: &OsStr, arguments: &[OsString]) -> Command {
    let mut command = Command::new(program);
    command.args(arguments);
    command
}

/// Becomes the command. Returns only if that fails.
pub(crate) fn run(args: &Guarded) -> Result<(), Failure> {
    use std::os::unix::process::CommandExt;
    let Some((program, arguments)) = args.command.split_first() else {
        return Err(Failure::Input("which command? Write it after --".to_owned()));
    };
    follow(args.parent)?;
    let error = std::process::Command::new(program).args(arguments).exec();
    Err(cannot_run(program, &error))
}

/// Binds the life of this process to its parent.
#[cfg(target_os = "linux")]
fn follow(parent: u32) -> Result<(), Failure> {
    use rustix::process::{Pid, Signal, getppid, set_parent_process_death_signal};
    let asked = set_parent_process_death_signal(Some(Signal::KILL));
    asked.map_err(|error| Failure::Node(format!("the command could not be bound to tally hold: {error}")))?;
    let expected = i32::try_from(parent).ok().and_then(Pid::from_raw);
    // The parent may have ended before the kernel was asked.
    if getppid() == expected { Ok(()) } else { Err(Failure::Node("tally hold has ended".to_owned())) }
}

#[cfg(not(target_os = "linux"))]
fn follow(_parent: u32) -> Result<(), Failure> {
    Ok(())
}

/// The exit codes of shells: 127 for a command that does not exist, 126 for one that cannot be run.
pub(super) fn cannot_run(program: &OsStr, error: &io::Error) -> Failure {
    style::complain("error", &format!("cannot run {}: {error}", program.to_string_lossy()));
    Failure::Exit(if error.kind() == io::ErrorKind::NotFound { 127 } else { 126 })
}
