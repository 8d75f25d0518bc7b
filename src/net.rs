//! THE MACHINE: what the loop asks of the system, and the one place where another can stand for it.
//!
//! Sockets, readiness, the bell, the clock, and the descriptor that is kept for bad times. In all
//! builds but one this file is nothing: mio's own names, and calls that are inlined. Under
//! `--cfg simulation` the same names are those of a machine made of memory
//! (`tests/simulation/machine/`), whose time, faults and peers come from one seed. What is
//! simulated then is everything around the loop and nothing of it (`docs/testing.md`).
//!
//! That it costs nothing can be seen in a program that is built for release: it has no symbol of
//! this file (`nm -C target/release/pousse | grep pousse::net::` finds none), and its text was not
//! a byte longer when this file came.
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

    use socket2::TcpKeepalive;

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

    /// What is set on a listener holds for those who are accepted from it: how long bytes may stay
    /// unacknowledged, how many may wait unsent (0: as many as the system likes), and that a peer
    /// from which nothing has come for a minute is asked whether it is there.
    #[inline(always)]
    pub(crate) fn set_options(
        listener: &TcpListener,
        ack_timeout: Duration,
        unsent_bytes: usize,
    ) -> io::Result<()> {
        let socket = socket2::SockRef::from(listener);
        let keepalive =
            TcpKeepalive::new().with_time(KEEPALIVE_TIME).with_interval(KEEPALIVE_INTERVAL);
        #[cfg(not(target_os = "linux"))]
        let (asked, _) = (socket.set_tcp_keepalive(&keepalive), (ack_timeout, unsent_bytes));
        #[cfg(target_os = "linux")]
        let asked = {
            let keepalive = keepalive.with_retries(KEEPALIVE_TRIES);
            // Each for itself: one that the system does not know takes none of the others along.
            let bounded = socket.set_tcp_user_timeout(Some(ack_timeout));
            let held = match u32::try_from(unsent_bytes) {
                Ok(unsent @ 1..) => socket.set_tcp_notsent_lowat(unsent),
                _ => Ok(()),
            };
            socket.set_tcp_keepalive(&keepalive).and(bounded).and(held)
        };
        asked
    }

    /// As long as no answer comes it is asked again, until the socket ends (`ETIMEDOUT`): after the
    /// last question; but where there is a `TCP_USER_TIMEOUT`, Linux goes by that instead.
    const KEEPALIVE_TIME: Duration = Duration::from_secs(60);
    const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
    #[cfg(target_os = "linux")]
    const KEEPALIVE_TRIES: u32 = 3;
}
