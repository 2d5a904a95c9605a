//! A wall clock that a test sets, for one process: preloaded (ld.so(8), `LD_PRELOAD`), it adds the seconds that stand in a
//! file to what the kernel says. The machine's own clock belongs to everybody and stays as it is; a time namespace has
//! no wall clock of its own (time_namespaces(7)).
//!
//! Nothing here may allocate: the first to ask for the time may be the allocator.

#![allow(unsafe_code, reason = "the interface is C's")]

use std::ffi::c_int;
use std::ptr::null_mut;
use std::sync::atomic::{AtomicI64, AtomicPtr, Ordering};

/// Names the file: a number of seconds as eight bytes in the machine's order.
const FILE: &std::ffi::CStr = c"ISTHMUS_TEST_CLOCK";

/// The file, mapped; null until the wall clock is asked for the first time.
static SHIFT: AtomicPtr<AtomicI64> = AtomicPtr::new(null_mut());

/// Stands before that of the C library.
///
/// # Safety
/// As of clock_gettime(2): `time` must be writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn clock_gettime(clock: libc::clockid_t, time: *mut libc::timespec) -> c_int {
    // SAFETY: the caller's arguments, passed on to the kernel.
    let failed = unsafe { libc::syscall(libc::SYS_clock_gettime, clock, time) };
    if failed != 0 {
        return -1;
    }
    if clock == libc::CLOCK_REALTIME {
        // SAFETY: the kernel has just written there.
        unsafe { (*time).tv_sec += shift() };
    }
    0
}

/// Seconds to add; none without a file.
fn shift() -> i64 {
    let mut shift = SHIFT.load(Ordering::Acquire);
    if shift.is_null() {
        // Several threads may do so at once: each maps the same file.
        shift = map().unwrap_or(null_mut());
        SHIFT.store(shift, Ordering::Release);
    }
    // SAFETY: null, or a mapping of a page that is never taken away.
    unsafe { shift.as_ref() }.map_or(0, |shift| shift.load(Ordering::Relaxed))
}

fn map() -> Option<*mut AtomicI64> {
    // SAFETY: C functions with a constant name, a path that the environment owns, and a descriptor of our own. A mapping
    // is aligned to pages, and a file shorter than it would kill the process, so that its length is looked at first.
    unsafe {
        let path = libc::getenv(FILE.as_ptr());
        if path.is_null() {
            return None;
        }
        let file = libc::open(path, libc::O_RDONLY | libc::O_CLOEXEC);
        if file < 0 {
            return None;
        }
        let size = size_of::<AtomicI64>();
        let long_enough =
            usize::try_from(libc::lseek(file, 0, libc::SEEK_END)).is_ok_and(|it| it >= size);
        let mapped = libc::mmap(null_mut(), size, libc::PROT_READ, libc::MAP_SHARED, file, 0);
        libc::close(file);
        (long_enough && mapped != libc::MAP_FAILED).then_some(mapped.cast())
    }
}
