//! A server in a thread of this process, whose counters can be waited for.

use std::net::SocketAddr;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use pousse::{Config, ConnId, Context, Counters, Handler, Limits, Message, Remote, Server};

use crate::peer::Peer;

/// How long a test waits for something that has to come.
pub(crate) const PATIENCE: Duration = Duration::from_secs(5);

/// The clock of the tests.
#[expect(clippy::disallowed_methods, reason = "a test over real sockets is in real time")]
pub(crate) fn now() -> Instant {
    Instant::now()
}

pub(crate) fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// Publishes what it is sent to the topic that the sender reads, as the daemon does.
pub(crate) struct Chat;

impl Handler for Chat {
    fn on_message(&mut self, conn: ConnId, message: Message<'_>, ctx: &mut Context<'_>) {
        let topic = ctx.topic(conn).unwrap_or_else(|| "general".into());
        ctx.publish(&topic, message).unwrap();
    }
}

/// A handler that is one function.
pub(crate) struct Does<F>(pub(crate) F);

impl<F: FnMut(ConnId, Message<'_>, &mut Context<'_>)> Handler for Does<F> {
    fn on_message(&mut self, conn: ConnId, message: Message<'_>, ctx: &mut Context<'_>) {
        (self.0)(conn, message, ctx);
    }
}

/// A server on a free port of the loopback that nobody turns yet.
pub(crate) fn bind<H: Handler>(
    change: impl FnOnce(&mut Limits),
    handler: H,
) -> (Server<H>, SocketAddr) {
    bind_configured(|config| change(&mut config.limits), handler)
}

/// The same, with settings that are no limits.
pub(crate) fn bind_configured<H: Handler>(
    change: impl FnOnce(&mut Config),
    handler: H,
) -> (Server<H>, SocketAddr) {
    let mut config = kit::common::config();
    change(&mut config);
    let server = Server::bind(config, handler).unwrap();
    let address = server.addresses()[0].strip_prefix("http://").unwrap().parse().unwrap();
    (server, address)
}

/// A server that runs until this is dropped.
pub(crate) struct Running {
    pub(crate) address: SocketAddr,
    pub(crate) remote: Remote,
    seen: Arc<Seen>,
    thread: Option<JoinHandle<()>>,
}

/// The counters after the last turn, and whether it was the last of all.
#[derive(Default)]
struct Seen {
    counters: Mutex<(Counters, bool)>,
    turned: Condvar,
}

impl Running {
    pub(crate) fn chat(change: impl FnOnce(&mut Limits)) -> Self {
        Self::with(change, Chat)
    }

    pub(crate) fn with(
        change: impl FnOnce(&mut Limits),
        handler: impl Handler + Send + 'static,
    ) -> Self {
        Self::configured(|config| change(&mut config.limits), handler)
    }

    pub(crate) fn configured(
        change: impl FnOnce(&mut Config),
        handler: impl Handler + Send + 'static,
    ) -> Self {
        let (server, address) = bind_configured(change, handler);
        Self::of(server, address)
    }

    /// Has this server run.
    pub(crate) fn of(
        mut server: Server<impl Handler + Send + 'static>,
        address: SocketAddr,
    ) -> Self {
        let remote = server.remote();
        let seen = Arc::new(Seen::default());
        let notes = seen.clone();
        let thread = std::thread::spawn(move || {
            while !server.has_ended() {
                server.turn(None).unwrap();
                let counters = server.context().counters().clone();
                let mut seen = notes.counters.lock().unwrap_or_else(PoisonError::into_inner);
                *seen = (counters, server.has_ended());
                notes.turned.notify_all();
            }
        });
        Self { address, remote, seen, thread: Some(thread) }
    }

    /// Waits until the counters are as they have to become.
    #[track_caller]
    pub(crate) fn counts(&self, what: &str, is_so: impl Fn(&Counters) -> bool) {
        let is_not_so = |seen: &mut (Counters, bool)| !is_so(&seen.0);
        assert!(self.wait(is_not_so), "never: {what}; {}", self.counters());
    }

    /// The counters after the latest turn.
    pub(crate) fn counters(&self) -> Counters {
        self.seen.counters.lock().unwrap_or_else(PoisonError::into_inner).0.clone()
    }

    /// Waits until the server has ended of itself.
    pub(crate) fn has_ended(&self) -> bool {
        self.wait(|(_, has_ended)| !*has_ended)
    }

    fn wait(&self, not_yet: impl FnMut(&mut (Counters, bool)) -> bool) -> bool {
        let seen = self.seen.counters.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.seen.turned.wait_timeout_while(seen, PATIENCE, not_yet);
        !waited.unwrap_or_else(PoisonError::into_inner).1.timed_out()
    }

    /// A client that comes now is served.
    #[track_caller]
    pub(crate) fn serves_others(&self) {
        let mut peer = Peer::connect(self.address);
        let answer = peer.asks("GET /api/messages?limit=0");
        assert_eq!(answer.status, 200, "{}", answer.head);
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It fails only if the server has ended.
        let _ = self.remote.stop();
        let ended = self.thread.take().map(JoinHandle::join);
        if !std::thread::panicking() {
            assert!(matches!(ended, Some(Ok(()))), "the server's thread panicked");
        }
    }
}
