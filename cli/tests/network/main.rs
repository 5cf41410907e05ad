//! Network tests: nodes as processes in network namespaces, with faults of the network.
//!
//! Each test makes network namespaces: five with a node, one for an attacker, and one with the switch. It counts under load and
//! causes a fault. In the end the views of every node, of the cluster and of each node, have to equal an independent tally. The
//! tests need root and iproute2; without them each test reports that it is skipped. docs/network-tests.md says how to run them,
//! and has the table of a run.
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
