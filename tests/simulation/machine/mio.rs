//! The server's side of the machine: mio's names, as far as the loop uses them, with its meanings.

use std::cell::OnceCell;
use std::cmp::Reverse;
use std::fs::File;
use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net as unix;
use std::path::Path;
use std::time::Duration;

use super::{
    ECONNABORTED, EINTR, EMFILE, EPIPE, Ghost, Interest, Listening, Machine, Token, aside,
    give_back, with,
};

/// Events that are not of the present are at most so many, and there is room for them.
const GHOSTS_MAX: usize = 200;

#[derive(Clone, Copy, Debug)]
pub struct Event {
    token: Token,
    is_readable: bool,
    is_writable: bool,
    is_read_closed: bool,
    is_error: bool,
}

impl Event {
    pub fn token(&self) -> Token {
        self.token
    }
    pub fn is_readable(&self) -> bool {
        self.is_readable
    }
    pub fn is_writable(&self) -> bool {
        self.is_writable
    }
    pub fn is_read_closed(&self) -> bool {
        self.is_read_closed
    }
    pub fn is_error(&self) -> bool {
        self.is_error
    }
}

#[derive(Debug)]
pub struct Events {
    list: Vec<Event>,
    capacity: usize,
}

impl Events {
    pub fn with_capacity(capacity: usize) -> Self {
        Self { list: Vec::new(), capacity }
    }

    pub fn clear(&mut self) {
        self.list.clear();
    }
}

impl<'a> IntoIterator for &'a Events {
    type Item = &'a Event;
    type IntoIter = std::slice::Iter<'a, Event>;

    fn into_iter(self) -> Self::IntoIter {
        self.list.iter()
    }
}

pub trait Source {
    fn register(&mut self, registry: &Registry, token: Token, i: Interest) -> io::Result<()>;
    fn reregister(&mut self, registry: &Registry, token: Token, i: Interest) -> io::Result<()>;
    fn deregister(&mut self, registry: &Registry) -> io::Result<()>;
}

#[derive(Debug, Default)]
pub struct Registry {
    /// What an embedder could wait for.
    null: OnceCell<File>,
}

impl Registry {
    pub fn register<S: Source + ?Sized>(
        &self,
        source: &mut S,
        token: Token,
        interests: Interest,
    ) -> io::Result<()> {
        source.register(self, token, interests)
    }

    pub fn deregister<S: Source + ?Sized>(&self, source: &mut S) -> io::Result<()> {
        source.deregister(self)
    }
}

impl AsFd for Registry {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.null.get_or_init(|| File::open("/dev/null").expect("a descriptor")).as_fd()
    }
}

#[derive(Debug)]
pub struct Waker;

impl Waker {
    pub fn new(_: &Registry, token: Token) -> io::Result<Self> {
        with(|it| it.bell = Some(token));
        Ok(Self)
    }

    pub fn wake(&self) -> io::Result<()> {
        with(|it| {
            let due = it.when();
            it.note("bell", 0, 0);
            it.bell_due.get_or_insert(due);
        });
        Ok(())
    }
}

#[derive(Debug)]
pub struct Poll {
    registry: Registry,
}

impl Poll {
    pub fn new() -> io::Result<Self> {
        Ok(Self { registry: Registry::default() })
    }

    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// Has the peers act until there is an event, or the time is over.
    pub fn poll(&mut self, events: &mut Events, timeout: Option<Duration>) -> io::Result<()> {
        events.clear();
        let until = with(|it| {
            it.turn += 1;
            it.begin_poll(timeout);
            timeout.map(|timeout| it.now + timeout)
        });
        loop {
            let is_called = with(|it| !it.woken.is_empty() || it.horizon <= it.now);
            if is_called && let Some(mut hook) = with(|it| it.hook.take()) {
                let next = aside(&mut hook);
                with(|it| {
                    it.horizon = next.unwrap_or(Duration::MAX);
                    it.is_over |= next.is_none();
                    it.hook = Some(hook);
                });
            }
            let is_done = with(|it| it.gather(events, until));
            match is_done {
                Some(true) => return Err(io::Error::from_raw_os_error(EINTR)),
                Some(false) => return Ok(()),
                None => {}
            }
        }
    }
}

impl Machine {
    fn begin_poll(&mut self, timeout: Option<Duration>) {
        let asked = timeout.map_or(u64::MAX, |it| u64::try_from(it.as_nanos()).unwrap_or(u64::MAX));
        self.note("turn", self.turn, asked);
        self.disturbed_before = self.disturbed;
        if self.random.chance(self.faults.jump) {
            let jump = self.random.time(self.faults.jump_max);
            self.now += jump;
            self.disturbed += jump;
            self.note("jump", u64::try_from(jump.as_micros()).unwrap_or(0), 0);
        }
    }

    /// `None`: time has passed, and the peers may have something to do. True: interrupted.
    fn gather(&mut self, events: &mut Events, until: Option<Duration>) -> Option<bool> {
        if self.random.chance(self.faults.interrupted / 4) {
            self.note("poll is interrupted", 0, 0);
            return Some(true);
        }
        self.collect(events);
        if !events.list.is_empty() || until.is_some_and(|until| until <= self.now) || self.is_over {
            return Some(false);
        }
        while let Some(&Reverse((due, nth, at))) = self.pending.peek()
            && !self.is_pending(due, nth, at)
        {
            self.pending.pop();
        }
        let dues = self.pending.peek().map(|Reverse((due, ..))| *due).into_iter();
        let dues = dues.chain(self.listening.iter().filter_map(|it| it.due));
        let dues = dues.chain(self.ghosts.iter().map(|it| it.due)).chain(self.bell_due);
        let next = dues.chain(until).chain([self.horizon]).min()?;
        self.now = self.now.max(next);
        None
    }

    fn collect(&mut self, events: &mut Events) {
        if self.random.chance(self.faults.spurious) {
            self.invent();
        }
        let now = self.now;
        if self.bell_due.is_some_and(|due| due <= now) {
            self.bell_due = None;
            let token = self.bell.expect("a bell");
            events.list.push(Event { is_readable: true, ..nothing(token) });
        }
        for at in 0..self.listening.len() {
            let it = &mut self.listening[at];
            if it.due.is_some_and(|due| due <= now) {
                it.due = None;
                if let Some(token) = it.token.filter(|_| !it.queue.is_empty()) {
                    events.list.push(Event { is_readable: true, ..nothing(token) });
                }
            }
        }
        while let Some(&Reverse((due, nth, at))) = self.pending.peek()
            && due <= now
            && events.list.len() + self.ghosts.len() < events.capacity
        {
            self.pending.pop();
            if !self.is_pending(due, nth, at) {
                continue;
            }
            self.sockets[at].due = None;
            self.pending_count -= 1;
            let Some(event) = self.event_of(at) else { continue };
            if self.random.chance(self.faults.repeated) {
                let due = now + self.random.time(Duration::from_millis(20));
                self.haunt(Ghost { due, event: blank(event), is_stale: false });
            }
            events.list.push(event);
        }
        let is_due = |it: &Ghost| it.due <= now;
        let due: Vec<Ghost> = self.ghosts.extract_if(.., |it| is_due(it)).collect();
        for ghost in due {
            let is_here = self.sockets.iter().any(|(_, it)| it.token == Some(ghost.event.token));
            self.stale_told += u64::from(!is_here);
            if ghost.is_stale || is_here {
                self.note("ghost", ghost.event.token.0 as u64, u64::from(ghost.is_stale));
            }
            events.list.push(ghost.event);
        }
        if self.random.chance(self.faults.reordered) {
            for at in (1..events.list.len()).rev() {
                let other = self.random.below(at as u64 + 1) as usize;
                events.list.swap(at, other);
            }
        }
        let told = |it: &Event| {
            u64::from(it.is_readable)
                | u64::from(it.is_writable) << 1
                | u64::from(it.is_read_closed) << 2
                | u64::from(it.is_error) << 3
        };
        self.work.events += events.list.len() as u64;
        for at in 0..events.list.len() {
            let event = events.list[at];
            self.note("event", event.token.0 as u64, told(&event));
        }
    }

    /// Whether this event is still to come; a slot may have another socket by now.
    fn is_pending(&self, due: Duration, nth: u64, at: usize) -> bool {
        self.sockets.get(at).is_some_and(|it| it.due == Some((due, nth)))
    }

    fn haunt(&mut self, ghost: Ghost) {
        if self.ghosts.len() < GHOSTS_MAX {
            self.ghosts.push(ghost);
        }
    }

    /// What is so of a socket now; `None`: nothing that would be told.
    fn event_of(&self, at: usize) -> Option<Event> {
        let socket = self.sockets.get(at)?;
        let event = Event {
            token: socket.token?,
            is_readable: socket.is_readable(),
            is_writable: socket.has_room(),
            is_read_closed: socket.is_ended || socket.is_reset,
            is_error: socket.error.is_some(),
        };
        (event.is_readable || event.is_writable || event.is_error).then_some(event)
    }

    /// An event for a socket of which nothing new is to be told.
    fn invent(&mut self) {
        let count = self.sockets.len() as u64;
        let nth = self.random.below(count) as usize;
        let Some(token) = self.sockets.iter().nth(nth).and_then(|(_, it)| it.token) else { return };
        let event = Event { is_readable: true, is_writable: true, ..nothing(token) };
        self.haunt(Ghost { due: self.now, event, is_stale: false });
    }

    fn accept(&mut self, at: usize) -> io::Result<(usize, SocketAddr)> {
        if self.random.chance(self.faults.interrupted) {
            return Err(io::Error::from_raw_os_error(EINTR));
        }
        if self.listening[at].queue.is_empty() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        if self.random.chance(self.faults.accept_lack) {
            self.note("accept lacks", at as u64, 0);
            return Err(io::Error::from_raw_os_error(self.random.pick(&[EMFILE, 23, 12, 105])));
        }
        self.take_descriptor()?;
        let socket = self.listening[at].queue.pop_front().expect("someone waits");
        if self.random.chance(self.faults.accept_gone) {
            self.descriptors += 1;
            self.sockets[socket].is_closed = true;
            self.note("accept is too late", socket as u64, 0);
            self.excuses += 1;
            self.reset(socket);
            self.wake(socket);
            self.bury(socket);
            return Err(io::Error::from_raw_os_error(ECONNABORTED));
        }
        let (turn, accept_max) = (self.turn, self.faults.accept_max);
        let listening = &mut self.listening[at];
        if listening.accepted_turn != turn {
            (listening.accepted_turn, listening.accepted) = (turn, 0);
        }
        listening.accepted += 1;
        if listening.accepted > accept_max {
            self.wrong("more were accepted in one turn than turn-accept".into());
        }
        self.accepted_in = turn;
        self.work.accepts += 1;
        self.takes_time();
        let it = &mut self.sockets[socket];
        it.is_accepted = true;
        it.accepted_in = turn;
        let peer = it.peer;
        self.note("accept", socket as u64, 0);
        self.wake(socket);
        Ok((socket, peer))
    }

    fn listen_no_more(&mut self, at: usize) {
        self.descriptors += 1;
        let listening = &mut self.listening[at];
        listening.is_closed = true;
        listening.due = None;
        for at in std::mem::take(&mut listening.queue) {
            self.sockets[at].is_closed = true;
            self.reset(at);
            self.wake(at);
            self.bury(at);
        }
    }

    /// Nobody is served, and nobody is forgotten, in a turn in which somebody was accepted.
    fn check_order(&mut self, at: usize, what: &str) {
        let socket = &mut self.sockets[at];
        if socket.turn != self.turn {
            socket.turn = self.turn;
            (socket.reads, socket.read_bytes, socket.written_bytes) = (0, 0, 0);
        }
        if self.accepted_in == self.turn && socket.accepted_in != self.turn {
            self.wrong(format!("a client was {what} after another had been accepted in the turn"));
        }
    }

    fn read(&mut self, at: usize, buffers: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        self.check_order(at, "read");
        self.work.reads += 1;
        self.takes_time();
        if self.random.chance(self.faults.interrupted) {
            return Err(io::Error::from_raw_os_error(EINTR));
        }
        let is_blocked = self.random.chance(self.faults.would_block);
        let is_short = self.random.chance(self.faults.short_read);
        let available = self.sockets[at].to_server.len();
        let room: usize = buffers.iter().map(|buffer| buffer.len()).sum();
        let mut count = room.min(available);
        if count > 0 && is_blocked {
            self.edge(at);
            return Err(io::ErrorKind::WouldBlock.into());
        }
        if count > 1 && is_short {
            count = self.random.between(1, count as u64 - 1) as usize;
            self.edge(at);
        }
        let (read_max, reads_on) = (self.faults.read_max, self.faults.reads_on);
        let socket = &mut self.sockets[at];
        socket.reads += 1;
        socket.read_bytes += count;
        let is_much = socket.reads > 1 && !reads_on || socket.read_bytes > read_max;
        let places = buffers.iter_mut().flat_map(|buffer| buffer.iter_mut());
        for (to, from) in places.zip(socket.to_server.drain(..count)) {
            *to = from;
        }
        give_back(&mut socket.to_server);
        let state = (socket.error, socket.is_ended || socket.is_reset);
        let is_awaited = count > 0 && std::mem::take(&mut socket.waits_to_send);
        self.note("read", at as u64, count as u64);
        if is_awaited {
            self.wake(at);
        }
        if is_much {
            self.wrong("a client was read more than once in a turn, or too much of it".into());
        }
        match state {
            _ if count > 0 => Ok(count),
            (Some(error), _) => {
                self.sockets[at].error = None;
                Err(io::Error::from_raw_os_error(error))
            }
            (None, true) => Ok(0),
            (None, false) => Err(io::ErrorKind::WouldBlock.into()),
        }
    }

    fn write(&mut self, at: usize, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        self.check_order(at, "written to");
        self.work.writes += 1;
        self.takes_time();
        if self.random.chance(self.faults.interrupted) {
            return Err(io::Error::from_raw_os_error(EINTR));
        }
        let size = self.faults.to_client;
        let offered: usize = pieces.iter().map(|it| it.len()).sum();
        let socket = &mut self.sockets[at];
        if socket.is_shut {
            return Err(io::Error::from_raw_os_error(EPIPE));
        }
        if let Some(error) = socket.error.take() {
            return Err(io::Error::from_raw_os_error(error));
        }
        if socket.is_reset {
            return Err(io::Error::from_raw_os_error(EPIPE));
        }
        if socket.is_gone {
            // Its kernel has taken it, and will say that nobody is there.
            self.reset(at);
            return Ok(offered);
        }
        let room = size.saturating_sub(socket.to_client.len());
        let mut count = offered.min(room);
        let mut is_owed = false;
        if count > 0 && self.random.chance(self.faults.would_block) {
            (count, is_owed) = (0, true);
        } else if count > 1 && self.random.chance(self.faults.short_write) {
            count = self.random.between(1, count as u64 - 1) as usize;
            is_owed = true;
        }
        let write_max = self.faults.write_max;
        let socket = &mut self.sockets[at];
        let mut left = count;
        for piece in pieces {
            let some = left.min(piece.len());
            socket.to_client.extend(&piece[..some]);
            left -= some;
        }
        socket.written_bytes += count;
        let is_much = socket.written_bytes > write_max;
        socket.is_full |= count < offered && !is_owed;
        self.note("write", at as u64, count as u64);
        if is_much {
            self.wrong("a client was written too much in a turn".into());
        }
        if is_owed {
            self.edge(at);
        }
        if count > 0 {
            self.wake(at);
        }
        match count {
            0 if offered > 0 => Err(io::ErrorKind::WouldBlock.into()),
            _ => Ok(count),
        }
    }

    fn close(&mut self, at: usize) {
        self.check_order(at, "forgotten");
        self.descriptors += 1;
        let random = self.random.chance(self.faults.stale);
        let due = self.now + self.random.time(Duration::from_millis(30));
        if random && let Some(event) = self.event_of(at) {
            // It was on its way already; what it tells was true.
            self.haunt(Ghost { due, event, is_stale: true });
        }
        let socket = &mut self.sockets[at];
        socket.is_closed = true;
        socket.token = None;
        let is_unread = !socket.to_server.is_empty();
        self.note("close", at as u64, u64::from(is_unread));
        if self.sockets[at].is_gone {
            return self.bury(at);
        }
        if is_unread && !self.sockets[at].is_shut {
            // What was written may be lost then, or not.
            self.sockets[at].is_reset = self.random.chance(500);
        }
        self.wake(at);
    }
}

fn nothing(token: Token) -> Event {
    Event { token, is_readable: false, is_writable: false, is_read_closed: false, is_error: false }
}

/// The same event once more: what it said of readiness may not be so any more.
fn blank(event: Event) -> Event {
    event
}

/// Listeners and streams of both kinds: what they have in common is nearly everything.
macro_rules! sockets {
    ($listener:ident, $stream:ident, $inherited:ty, $address:ty, is_unix $is_unix:literal) => {
        #[derive(Debug)]
        pub struct $listener {
            at: usize,
        }

        impl $listener {
            pub fn from_std(_: $inherited) -> Self {
                Self { at: listen($is_unix).expect("a descriptor") }
            }

            pub fn accept(&self) -> io::Result<($stream, $address)> {
                let (at, peer) = with(|it| it.accept(self.at))?;
                Ok(($stream { at: at as u32 }, <$address as Named>::of(peer)))
            }

            pub fn local_addr(&self) -> io::Result<$address> {
                Ok(<$address as Named>::of(HERE.into()))
            }
        }

        impl Source for $listener {
            fn register(&mut self, _: &Registry, token: Token, _: Interest) -> io::Result<()> {
                with(|it| it.listening[self.at].token = Some(token));
                Ok(())
            }

            fn reregister(&mut self, it: &Registry, token: Token, i: Interest) -> io::Result<()> {
                self.register(it, token, i)
            }

            fn deregister(&mut self, _: &Registry) -> io::Result<()> {
                with(|it| it.listening[self.at].token = None);
                Ok(())
            }
        }

        impl Drop for $listener {
            fn drop(&mut self) {
                with(|it| it.listen_no_more(self.at));
            }
        }

        /// As long as a descriptor is.
        #[derive(Debug)]
        pub struct $stream {
            at: u32,
        }

        impl $stream {
            fn at(&self) -> usize {
                self.at as usize
            }

            pub fn shutdown(&self, _: Shutdown) -> io::Result<()> {
                with(|it| {
                    it.note("shutdown", self.at() as u64, 0);
                    it.sockets[self.at()].is_shut = true;
                    it.wake(self.at());
                });
                Ok(())
            }
        }

        impl Read for $stream {
            fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
                with(|it| it.read(self.at(), &mut [IoSliceMut::new(buffer)]))
            }

            fn read_vectored(&mut self, buffers: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
                with(|it| it.read(self.at(), buffers))
            }
        }

        impl Write for $stream {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                self.write_vectored(&[IoSlice::new(bytes)])
            }

            fn write_vectored(&mut self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
                with(|it| it.write(self.at(), pieces))
            }

            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }

        impl Source for $stream {
            fn register(&mut self, _: &Registry, token: Token, _: Interest) -> io::Result<()> {
                with(|it| {
                    it.sockets[self.at()].token = Some(token);
                    // As epoll does: what is so already is told.
                    it.edge(self.at());
                });
                Ok(())
            }

            fn reregister(&mut self, it: &Registry, token: Token, i: Interest) -> io::Result<()> {
                self.register(it, token, i)
            }

            fn deregister(&mut self, _: &Registry) -> io::Result<()> {
                Ok(())
            }
        }

        impl Drop for $stream {
            fn drop(&mut self) {
                with(|it| it.close(self.at()));
            }
        }
    };
}

sockets!(TcpListener, TcpStream, std::net::TcpListener, SocketAddr, is_unix false);
sockets!(UnixListener, UnixStream, unix::UnixListener, unix::SocketAddr, is_unix true);

/// Where everyone listens.
const HERE: ([u8; 4], u16) = ([127, 0, 0, 1], 80);

fn listen(is_unix: bool) -> io::Result<usize> {
    with(|it| {
        it.take_descriptor()?;
        it.listening.push(Listening {
            token: None,
            queue: Default::default(),
            due: None,
            is_closed: false,
            accepted: 0,
            accepted_turn: 0,
            is_unix,
        });
        Ok(it.listening.len() - 1)
    })
}

/// What a peer is called: those of a unix socket have no name.
trait Named {
    fn of(peer: SocketAddr) -> Self;
}

impl Named for SocketAddr {
    fn of(peer: SocketAddr) -> Self {
        peer
    }
}

impl Named for unix::SocketAddr {
    fn of(_: SocketAddr) -> Self {
        Self::from_pathname("").expect("the name that is none")
    }
}

impl TcpListener {
    pub fn bind(_: SocketAddr) -> io::Result<Self> {
        listen(false).map(|at| Self { at })
    }
}

impl TcpStream {
    pub fn set_nodelay(&self, _: bool) -> io::Result<()> {
        Ok(())
    }

    pub fn take_error(&self) -> io::Result<Option<io::Error>> {
        Ok(with(|it| it.sockets[self.at()].error.take()).map(io::Error::from_raw_os_error))
    }

    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        Ok(with(|it| it.sockets[self.at()].peer))
    }
}

/// The file of a unix socket is not simulated: a run has one that somebody else has opened.
impl UnixListener {
    pub fn bind(_: &Path) -> io::Result<Self> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

impl UnixStream {
    pub fn connect(_: &Path) -> io::Result<Self> {
        Err(io::ErrorKind::ConnectionRefused.into())
    }
}
