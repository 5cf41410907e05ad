//! The deterministic cluster simulator, its faults, ground truth and checkers.
