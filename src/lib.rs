//! Tallymesh.
