//! What an embedder has of a server beside its turns: handles, addresses, a descriptor to wait for.
//!
//! Nothing here waits, and nothing is read or written.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use crate::config::Publish;
use crate::handler::{Context, Handler};
use crate::net::{Interest, Source, Token};
use crate::remote::Remote;
use crate::server::{Server, WATCHED_FROM};
use crate::stream::Listener;
use crate::tick::Tick;

impl<H: Handler> Server<H> {
    /// A handle for other threads.
    pub fn remote(&self) -> Remote {
        self.commands.remote()
    }

    /// Where it listens: `http://127.0.0.1:8080`, `https://…`, `unix:PATH`; real ports.
    pub fn addresses(&self) -> Vec<String> {
        self.listeners.iter().map(Listener::address).collect()
    }

    /// Where the control listener is, if there is one.
    pub fn control_address(&self) -> Option<String> {
        self.listeners.control().map(Listener::address)
    }

    /// Who may publish, the default resolved.
    pub fn publishing(&self) -> Publish {
        self.app.hub.rules.publish
    }

    /// What a handler has, for use before and between turns.
    pub fn context(&mut self) -> Context<'_> {
        // The turn before may be long ago.
        self.app.hub.now = Self::present();
        self.app.hub.turn.now = Tick::at(self.app.hub.now - self.started);
        self.app.hub.called_for = None;
        Context { hub: &mut self.app.hub }
    }

    /// Whether the server has ended; [`turn`](Self::turn) has nothing more to do then.
    pub fn has_ended(&self) -> bool {
        self.has_ended
    }

    /// Puts a source of one's own into the loop; `on_ready` is called with `token`, at most
    /// 65535, when it is readable.
    ///
    /// # Errors
    /// What the system says.
    pub fn watch(&mut self, source: &mut impl Source, token: u16) -> io::Result<()> {
        let token = Token(WATCHED_FROM + usize::from(token));
        self.poll.registry().register(source, token, Interest::READABLE)
    }
}

/// The descriptor to wait for in another loop; see `examples/own_loop.rs`.
impl<H> AsFd for Server<H> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.poll.registry().as_fd()
    }
}
