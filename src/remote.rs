//! The one door for other threads: a bounded queue into the loop, and a bell.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};

use bytes::Bytes;
use tungstenite::protocol::frame::coding::CloseCode;

use crate::error::RemoteError;
use crate::id::ConnId;
use crate::message::{Kind, Message};
use crate::net::Waker;

/// Pushes from another thread. Clone it, send it, keep it: nothing here ever waits.
///
/// Commands are taken in order. Whether a client is still there, or a topic fits, only the loop
/// knows: what cannot be done then is logged there.
///
/// ```
/// # use pousse::{Config, ConnId, Context, Handler, Message, Server};
/// # struct Quiet;
/// # impl Handler for Quiet {
/// #     fn on_message(&mut self, _: ConnId, _: Message<'_>, _: &mut Context<'_>) {}
/// # }
/// # let mut config = Config::default();
/// # config.listen = vec!["127.0.0.1:0".parse()?];
/// let mut server = Server::bind(config, Quiet)?;
/// let remote = server.remote();
/// let clock = std::thread::spawn(move || {
///     remote.publish("general", "tick").unwrap();
///     remote.stop().unwrap();
/// });
/// server.run()?;
/// # clock.join().unwrap();
/// # Ok::<(), pousse::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Remote {
    commands: SyncSender<Command>,
    bell: Arc<Bell>,
}

#[derive(Debug)]
struct Bell {
    waker: Waker,
    /// Rung and not yet answered: a second ring would only cost a system call.
    is_rung: AtomicBool,
    /// The server has ended.
    is_over: AtomicBool,
    /// Commands that the queue had no room for, not yet counted by the loop.
    refused: AtomicU64,
}

/// What another thread wants done.
#[derive(Debug)]
pub(crate) enum Command {
    Publish { topic: String, payload: Bytes, kind: Kind },
    Send { to: ConnId, payload: Bytes, kind: Kind },
    Close { conn: ConnId, code: CloseCode, reason: String },
    Drain(CloseCode),
    Stop,
}

impl Remote {
    /// As `Context::publish`.
    ///
    /// # Errors
    /// [`RemoteError`]; then nothing was taken.
    pub fn publish<'m>(
        &self,
        topic: &str,
        message: impl Into<Message<'m>>,
    ) -> Result<(), RemoteError> {
        let (payload, kind) = owned(message.into());
        self.give(Command::Publish { topic: topic.to_owned(), payload, kind })
    }

    /// As `Context::broadcast`.
    ///
    /// # Errors
    /// [`RemoteError`]; then nothing was taken.
    pub fn broadcast<'m>(&self, message: impl Into<Message<'m>>) -> Result<(), RemoteError> {
        self.publish(crate::topic::TOPIC_DEFAULT, message)
    }

    /// As `Context::send`.
    ///
    /// # Errors
    /// [`RemoteError`]; then nothing was taken.
    pub fn send<'m>(&self, to: ConnId, message: impl Into<Message<'m>>) -> Result<(), RemoteError> {
        let (payload, kind) = owned(message.into());
        self.give(Command::Send { to, payload, kind })
    }

    /// As `Context::close`.
    ///
    /// # Errors
    /// [`RemoteError`]; then nothing was taken.
    pub fn close(&self, conn: ConnId, code: CloseCode, reason: &str) -> Result<(), RemoteError> {
        self.give(Command::Close { conn, code, reason: reason.to_owned() })
    }

    /// As `Context::drain`.
    ///
    /// # Errors
    /// [`RemoteError`]; then nothing was taken.
    pub fn drain(&self, code: CloseCode) -> Result<(), RemoteError> {
        self.give(Command::Drain(code))
    }

    /// As `Context::stop`.
    ///
    /// # Errors
    /// [`RemoteError`]; then nothing was taken.
    pub fn stop(&self) -> Result<(), RemoteError> {
        self.give(Command::Stop)
    }

    fn give(&self, command: Command) -> Result<(), RemoteError> {
        if self.bell.is_over.load(Ordering::Acquire) {
            return Err(RemoteError::Stopped);
        }
        self.commands.try_send(command).map_err(|error| match error {
            TrySendError::Full(_) => {
                self.bell.refused.fetch_add(1, Ordering::Relaxed);
                RemoteError::Full
            }
            TrySendError::Disconnected(_) => RemoteError::Stopped,
        })?;
        if !self.bell.is_rung.swap(true, Ordering::AcqRel) {
            // The loop looks at the queue in every turn; the bell only ends its sleep.
            let _ = self.bell.waker.wake();
        }
        Ok(())
    }
}

/// The loop's end of the queue.
#[derive(Debug)]
pub(crate) struct Commands {
    queue: Receiver<Command>,
    remote: Remote,
}

impl Commands {
    /// A queue for `capacity` commands.
    pub(crate) fn new(capacity: usize, waker: Waker) -> Self {
        let (commands, queue) = sync_channel(capacity);
        let bell = Bell {
            waker,
            is_rung: AtomicBool::new(false),
            is_over: AtomicBool::new(false),
            refused: AtomicU64::new(0),
        };
        Self { queue, remote: Remote { commands, bell: Arc::new(bell) } }
    }

    /// Another door to the same queue.
    pub(crate) fn remote(&self) -> Remote {
        self.remote.clone()
    }

    /// From here on a command rings again; returns how many were refused since the last time.
    pub(crate) fn listen(&self) -> u64 {
        // A swap: whoever gives a command after this finds the bell not rung, or is seen below.
        self.remote.bell.is_rung.swap(false, Ordering::AcqRel);
        self.remote.bell.refused.swap(0, Ordering::Relaxed)
    }

    /// The server has ended: from here on commands are refused.
    pub(crate) fn close(&self) {
        self.remote.bell.is_over.store(true, Ordering::Release);
    }

    /// The next command.
    pub(crate) fn next(&self) -> Option<Command> {
        self.queue.try_recv().ok()
    }
}

fn owned(message: Message<'_>) -> (Bytes, Kind) {
    (Bytes::copy_from_slice(message.as_bytes()), message.kind())
}
