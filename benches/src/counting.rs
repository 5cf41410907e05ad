//! An allocator that can count what is in use: the same for ours and the peers, whatever they say of themselves.
#![allow(unsafe_code, reason = "an allocator is an unsafe trait; every method hands its arguments on to the system's")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

static ON: AtomicBool = AtomicBool::new(false);
static IN_USE: AtomicI64 = AtomicI64::new(0);

/// The system's allocator. It counts bytes as asked for, without what it adds itself, and only within [`in_use`], so
/// that it costs one load where time is measured.
#[derive(Debug)]
pub struct Counting;

fn count(bytes: i64) {
    if ON.load(Ordering::Relaxed) {
        IN_USE.fetch_add(bytes, Ordering::Relaxed);
    }
}

// SAFETY: memory comes from and goes to `System` with the layouts that were asked for.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as i64);
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        count(-(layout.size() as i64));
        // SAFETY: `at` came from `System` with this layout.
        unsafe { System.dealloc(at, layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(size as i64 - layout.size() as i64);
        // SAFETY: `at` came from `System` with this layout, and the caller keeps the contract of `realloc`.
        unsafe { System.realloc(at, layout, size) }
    }
}

/// What `build` makes, and the bytes that it keeps in use. Zero where [`Counting`] is not the allocator.
pub fn in_use<T>(build: impl FnOnce() -> T) -> (T, i64) {
    IN_USE.store(0, Ordering::SeqCst);
    ON.store(true, Ordering::SeqCst);
    let built = build();
    ON.store(false, Ordering::SeqCst);
    (built, IN_USE.load(Ordering::SeqCst))
}
