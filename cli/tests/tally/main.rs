//! The `tally` command as a user meets it: real processes, their output to the byte, their exit codes.

mod admin;
mod bench;
mod caches;
mod commands;
mod demo;
mod faults;
mod hold;
mod init;
mod kill;
mod million;
mod process;
mod readme;
mod series;
mod state;
mod support;
mod throttle;
mod views;
