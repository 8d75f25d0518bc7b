//! The listeners, and when to ask them: an edge comes once for all who wait, and none comes when
//! room is made for those who wait already, so it is remembered who may be waiting.
//!
//! Where the system has no descriptor left, accepting pauses, by a timer and not by trying again;
//! whoever waits longer than a pause is accepted by the one descriptor that is kept for that, is
//! told, and is let go.

use std::io::{self, ErrorKind};
use std::time::{Duration, Instant};

use crate::config::Config;
use crate::error::Error;
use crate::http::Peer;
use crate::net::{Registry, Spare, Token};
use crate::stream::{Inherited, Listener, Stream};
use crate::tls::Tls;

/// See the head of this file.
#[derive(Debug, Default)]
pub(crate) struct Listeners {
    all: Vec<Waiting>,
    /// Nobody is accepted before: the system had no descriptor or no memory for one.
    paused_until: Option<Instant>,
    /// The last attempt failed as well.
    is_exhausted: bool,
    /// A descriptor that is kept for the time when there is no other.
    spare: Option<Spare>,
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

/// Who comes.
pub(crate) enum Comes {
    /// A client.
    Client(Stream, Peer),
    /// One to whom the last descriptor was given: it is to be turned away, and then the descriptor
    /// to be kept again.
    TooMany(Stream, Peer),
    /// Nobody waits.
    Nobody,
}

impl Waiting {
    /// The next client; `None`: nobody waits.
    fn accept(&mut self, tls: Option<&Tls>) -> io::Result<Option<(Stream, Peer)>> {
        for _ in 0..GONE_MAX {
            let Some(listener) = &self.listener else { return Ok(None) };
            match listener.accept(tls) {
                Ok(client) => return Ok(Some(client)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.is_ready = false;
                    return Ok(None);
                }
                // The one that was to be accepted has left; the next may be waiting.
                Err(error) if is_of_one_peer(&error) => {}
                Err(error) => return Err(error),
            }
        }
        Err(io::Error::other("one client after the other could not be accepted"))
    }
}

impl Listeners {
    /// Listens on all addresses, then on what listens already, and on that of the control listener;
    /// the token of the first is `first`, the others follow. Those of TCP, but the last, speak TLS
    /// if there is a certificate.
    ///
    /// # Errors
    /// [`Error::Bind`], [`Error::Poll`].
    pub(crate) fn bind(
        config: &Config,
        inherited: Vec<Inherited>,
        registry: &Registry,
        first: usize,
    ) -> Result<Self, Error> {
        let mut all = Vec::new();
        let has_tls = config.tls.is_some();
        let bound = config.listen.iter().map(|address| Listener::bind(address, has_tls));
        let adopted = inherited.into_iter().map(|it| Listener::adopt(it, has_tls));
        let guests = bound.chain(adopted).map(|listener| (listener, false));
        // The owner's is plain: he knows which machine he is on.
        let control = config.control.as_ref().map(|it| (Listener::bind(it, false), true));
        for (at, (listener, is_control)) in guests.chain(control).enumerate() {
            let mut listener = listener?;
            listener.set_options(&config.limits);
            listener.register(registry, Token(first + at)).map_err(Error::Poll)?;
            all.push(Waiting { listener: Some(listener), is_ready: false, is_control });
        }
        let mut listeners = Self { all, ..Self::default() };
        listeners.keep_spare();
        Ok(listeners)
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

    /// Who comes next to this listener.
    ///
    /// # Errors
    /// The system had no descriptor or no memory. Accepting pauses; those who wait go on waiting.
    pub(crate) fn accept(
        &mut self,
        at: usize,
        tls: Option<&Tls>,
        now: Instant,
    ) -> io::Result<Comes> {
        let Some(it) = self.all.get_mut(at).filter(|it| it.is_ready) else {
            return Ok(Comes::Nobody);
        };
        let accepted = it.accept(tls);
        match accepted {
            Ok(Some((stream, peer))) => {
                self.is_exhausted = false;
                Ok(Comes::Client(stream, peer))
            }
            Ok(None) => Ok(Comes::Nobody),
            // Once is bad luck, twice is a lack: those who have waited for a pause are told so.
            Err(error) => {
                // What the system did not say is no lack of the system.
                let is_lack = error.raw_os_error().is_some();
                let was_lack = std::mem::replace(&mut self.is_exhausted, is_lack);
                if is_lack
                    && was_lack
                    && self.spare.take().is_some()
                    && let Ok(Some((stream, peer))) = it.accept(tls)
                {
                    return Ok(Comes::TooMany(stream, peer));
                }
                self.keep_spare();
                self.pause(now);
                Err(error)
            }
        }
    }

    /// Keeps a descriptor, by which one can be told who comes when there is no other.
    pub(crate) fn keep_spare(&mut self) {
        if self.spare.is_none() {
            self.spare = Spare::new().ok();
        }
    }

    /// Nobody is accepted for a while.
    pub(crate) fn pause(&mut self, now: Instant) {
        self.paused_until = Some(now + PAUSE);
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
