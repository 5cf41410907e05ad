//! The real network: nodes as processes on machines of their own, with cables that are pulled.
//!
//! Each test makes network namespaces, five with a node and one with whoever disturbs them, cabled to a switch in a
//! further one; counts under load; breaks something; and in the end wants every node to show, for the cluster and for each
//! node, exactly what an independent tally says. It needs root and iproute2; without them a test says that it is skipped.
//! docs/network-tests.md says how to run it, and has the table of a run.
#![cfg(target_os = "linux")]
#![allow(clippy::tests_outside_test_module, reason = "a test crate of its own")]

mod admin;
mod cluster;
mod crash;
mod flood;
mod hostile;
#[allow(dead_code, reason = "each test crate uses its part")]
mod initial;
mod lab;
mod lies;
mod partition;
mod peer;
mod process;
mod relay;
mod report;
mod silence;
mod truth;
mod wait;
mod weather;
