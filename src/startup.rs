//! What a program does before its own work, and need not do.

use std::ffi::{c_int, c_void};

use nix::libc::{ENOSYS, pthread_t};

/// In the place of the C library's function, which Rust's library calls at each start and for each
/// thread, to name stack overflows as such: it reads `/proc/self/maps`, and brings all of `scanf`
/// into every program: 5 % of a request, by 20,000 of them in turns (docs/performance.md). So an
/// overflow ends a program by SIGSEGV, without that name.
// SAFETY: the name is the C library's, whose own function may fail with an error number, too, and
// then has written nothing. Nothing of ours calls it.
#[unsafe(no_mangle)]
extern "C" fn pthread_getattr_np(_thread: pthread_t, _attributes: *mut c_void) -> c_int {
    ENOSYS
}
