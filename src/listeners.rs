//! The listeners, and when to ask them: an edge comes once for all who wait, and none comes when
//! room is made for those who wait already, so it is remembered who may be waiting.

use std::io::{self, ErrorKind};
use std::time::{Duration, Instant};

use mio::{Registry, Token};

use crate::config::Address;
use crate::error::Error;
use crate::http::Peer;
use crate::stream::{Listener, Stream};

/// See the head of this file.
#[derive(Debug, Default)]
pub(crate) struct Listeners {
    all: Vec<Waiting>,
    /// Nobody is accepted before: the system had no descriptor or no memory for one.
    paused_until: Option<Instant>,
}

#[derive(Debug)]
struct Waiting {
    /// `None`: it is closed. The others keep their places, by which events and clients know them.
    listener: Option<Listener>,
    /// Whether clients may be waiting.
    is_ready: bool,
    /// Its clients are the owner's.
    is_control: bool,
}

/// How long accepting pauses when the system has no descriptor left.
const PAUSE: Duration = Duration::from_millis(500);

/// Clients in a row who have left before they were accepted.
const GONE_MAX: usize = 64;

impl Listeners {
    /// Listens on all addresses, and on that of the control listener, which comes last; the token
    /// of the first is `first`, the others follow.
    ///
    /// # Errors
    /// [`Error::Bind`], [`Error::Poll`].
    pub(crate) fn bind(
        addresses: &[Address],
        control: Option<&Address>,
        registry: &Registry,
        first: usize,
    ) -> Result<Self, Error> {
        let mut all = Vec::new();
        let addresses = addresses.iter().map(|address| (address, false));
        let addresses = addresses.chain(control.map(|address| (address, true)));
        for (at, (address, is_control)) in addresses.enumerate() {
            let mut listener = Listener::bind(address)?;
            listener.register(registry, Token(first + at)).map_err(Error::Poll)?;
            all.push(Waiting { listener: Some(listener), is_ready: false, is_control });
        }
        Ok(Self { all, paused_until: None })
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.all.len()
    }

    /// Each of them but the control listener.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Listener> {
        self.all.iter().filter(|it| !it.is_control).filter_map(|it| it.listener.as_ref())
    }

    /// The control listener, if there is one.
    pub(crate) fn control(&self) -> Option<&Listener> {
        self.all.iter().find(|it| it.is_control)?.listener.as_ref()
    }

    /// Whether this is the control listener.
    pub(crate) fn is_control(&self, at: usize) -> bool {
        self.all.get(at).is_some_and(|it| it.is_control)
    }

    /// Someone waits at this one.
    pub(crate) fn ready(&mut self, at: usize) {
        // An event may have been on its way when it was closed.
        if let Some(it) = self.all.get_mut(at) {
            it.is_ready = it.listener.is_some();
        }
    }

    /// Whether someone may be waiting who can be accepted at once: at the control listener, or at
    /// one of the others.
    pub(crate) fn is_any_ready(&self, is_control: bool) -> bool {
        let mut all = self.all.iter().filter(|it| it.is_control == is_control);
        self.paused_until.is_none() && all.any(|it| it.is_ready)
    }

    /// When accepting goes on, if it is paused.
    pub(crate) fn paused_until(&self) -> Option<Instant> {
        self.paused_until
    }

    /// Whether accepting is paused; ends the pause when its time is over.
    pub(crate) fn is_paused(&mut self, now: Instant) -> bool {
        self.paused_until = self.paused_until.filter(|until| *until > now);
        self.paused_until.is_some()
    }

    /// The next client of this listener; `None`: nobody waits.
    ///
    /// # Errors
    /// The system had no descriptor or no memory. Accepting pauses; those who wait go on waiting.
    pub(crate) fn accept(&mut self, at: usize, now: Instant) -> io::Result<Option<(Stream, Peer)>> {
        let Some(it) = self.all.get_mut(at).filter(|it| it.is_ready) else { return Ok(None) };
        for _ in 0..GONE_MAX {
            let Some(listener) = &it.listener else { return Ok(None) };
            match listener.accept() {
                Ok(client) => return Ok(Some(client)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    it.is_ready = false;
                    return Ok(None);
                }
                // The one that was to be accepted has left; the next may be waiting.
                Err(error) if is_of_one_peer(&error) => {}
                Err(error) => {
                    self.paused_until = Some(now + PAUSE);
                    return Err(error);
                }
            }
        }
        self.paused_until = Some(now + PAUSE);
        Err(io::Error::other("one client after the other could not be accepted"))
    }

    /// Listens no longer; the control listener goes on if `but_control`.
    pub(crate) fn close(&mut self, registry: &Registry, but_control: bool) {
        for it in self.all.iter_mut().filter(|it| !(but_control && it.is_control)) {
            if let Some(mut listener) = it.listener.take() {
                listener.deregister(registry);
            }
            it.is_ready = false;
        }
    }
}

/// Whether a failed accept says something of the peer and not of this machine (accept(2)).
fn is_of_one_peer(error: &io::Error) -> bool {
    use ErrorKind as K;
    matches!(
        error.kind(),
        K::ConnectionAborted
            | K::ConnectionReset
            | K::Interrupted
            | K::NetworkDown
            | K::NetworkUnreachable
            | K::HostUnreachable
            | K::PermissionDenied
            | K::TimedOut
    )
}
