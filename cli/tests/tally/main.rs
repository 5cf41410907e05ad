//! The `tally` command as a user sees it: processes, their exact output, and their exit codes.

mod admin;
mod bench;
mod budgets;
mod caches;
mod certificates;
mod commands;
mod demo;
mod domains;
mod exposition;
mod faults;
mod hold;
mod init;
#[path = "../network/initial.rs"]
mod initial;
mod inspect;
mod kill;
mod load;
mod load_clients;
mod million;
mod packages;
mod positions;
mod process;
mod readme;
mod reload;
mod rivals;
mod scraping;
mod series;
mod starting;
mod state;
mod support;
mod throttle;
mod unproven;
mod views;
