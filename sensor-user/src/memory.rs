//! The allocator of this process.

/// Has all threads share one heap. By default each gets an arena of its own, which keeps what it once needed: a burst of
/// containers that several threads work on would then cost each of them its peak for good.
pub fn share_heap() {
    #[cfg(target_env = "gnu")]
    // SAFETY: sets a parameter of the allocator; called before there are other threads.
    let _ = unsafe { libc::mallopt(libc::M_ARENA_MAX, 1) };
}
