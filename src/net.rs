//! THE MACHINE: what the loop asks of the system, and the one place where another can stand for it.
//!
//! Sockets, readiness, the bell, the clock, and the descriptor that is kept for bad times. In all
//! builds but one this file is nothing: mio's own names, and calls that are inlined. Under
//! `--cfg simulation` the same names are those of a machine made of memory
//! (`tests/simulation/machine/`), whose time, faults and peers come from one seed. What is
//! simulated then is everything around the loop and nothing of it (`docs/testing.md`).
//!
//! Invariant: what the loop does can depend on the system only through this file; no other file of
//! the library names mio's sockets or reads a clock (`tests/tidy.rs`). Files are not part of it:
//! what is served from disk is read as always.

#[cfg(simulation)]
pub(crate) use machine::*;
#[cfg(not(simulation))]
pub(crate) use real::*;

#[cfg(simulation)]
#[path = "../tests/simulation/machine/mod.rs"]
pub mod machine;

#[cfg(not(simulation))]
mod real {
    #![expect(clippy::disallowed_methods, reason = "this is where the clock is read")]

    use std::fs::File;
    use std::io;
    use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

    pub(crate) use mio::event::Source;
    pub(crate) use mio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
    pub(crate) use mio::{Events, Interest, Poll, Registry, Token, Waker};

    /// The moment that it is.
    #[inline(always)]
    pub(crate) fn now() -> Instant {
        Instant::now()
    }

    /// The same as people count it: since 1970.
    #[inline(always)]
    pub(crate) fn unix_time() -> Duration {
        SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
    }

    /// A descriptor that is kept for the time when there is no other.
    #[derive(Debug)]
    pub(crate) struct Spare(#[expect(dead_code, reason = "it is held")] File);

    impl Spare {
        /// # Errors
        /// There is none.
        #[inline(always)]
        pub(crate) fn new() -> io::Result<Self> {
            File::open("/dev/null").map(Self)
        }
    }

    /// Asks for a longer queue of connections that are not accepted yet.
    #[inline(always)]
    pub(crate) fn queue_more(listener: &TcpListener, queue: i32) -> io::Result<()> {
        socket2::SockRef::from(listener).listen(queue)
    }

    /// Bounds how long bytes may stay unacknowledged, where the system can do that.
    #[inline(always)]
    pub(crate) fn set_ack_timeout(stream: &TcpStream, timeout: Duration) -> io::Result<()> {
        #[cfg(target_os = "linux")]
        return socket2::SockRef::from(stream).set_tcp_user_timeout(Some(timeout));
        #[cfg(not(target_os = "linux"))]
        return Ok(drop((stream, timeout)));
    }
}
