//! Nonblocking byte streams and what they are accepted from: TCP, TLS over it, and unix sockets.
//!
//! Beside the loop the only file that knows sockets.

use std::fs;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, ToSocketAddrs};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use crate::config::Address;
use crate::error::Error;
use crate::http::Peer;
use crate::limits::Limits;
use crate::metrics::Reason;
use crate::net::{
    self, Interest, Registry, Source, TcpListener, TcpStream, Token, UnixListener, UnixStream,
};
use crate::network::is_loopback;
use crate::outbox::Sink;
use crate::tls::Tls;
use crate::tls_session::{Received, Session};

/// A client's bytes.
#[derive(Debug)]
pub enum Stream {
    /// Over TCP.
    Tcp(TcpStream),
    /// Over TCP and TLS.
    Tls(Box<Encrypted>),
    /// Over a unix socket.
    Unix(UnixStream),
}

/// A socket and what is spoken on it.
#[derive(Debug)]
pub struct Encrypted {
    socket: TcpStream,
    session: Session,
    /// Our direction ends when nothing is held any more.
    is_ending: bool,
}

impl Stream {
    /// Whether what is read is the peer's bytes as they are, so that a message can be read to where
    /// it stays.
    pub(crate) fn is_plain(&self) -> bool {
        !matches!(self, Stream::Tls(_))
    }

    /// At most one read from the socket, or with TLS as many as fill the buffer: to `own` first,
    /// should [`is_plain`](Self::is_plain) hold, and what that has no room for to `buffer`.
    ///
    /// # Errors
    /// What the socket said; `WouldBlock`: nothing has come.
    pub(crate) fn receive(&mut self, own: &mut [u8], buffer: &mut [u8]) -> io::Result<Received> {
        let size = own.len() + buffer.len();
        let count = match self {
            Stream::Tls(it) => return it.session.receive(&mut it.socket, buffer),
            Stream::Tcp(stream) if own.is_empty() => stream.read(buffer)?,
            Stream::Unix(stream) if own.is_empty() => stream.read(buffer)?,
            Stream::Tcp(stream) => stream.read_vectored(&mut both(own, buffer))?,
            Stream::Unix(stream) => stream.read_vectored(&mut both(own, buffer))?,
        };
        Ok(match count {
            0 => Received::End,
            _ => Received::Bytes { count, has_more: count == size },
        })
    }

    /// Whether the next read is a step of a handshake, which takes a while.
    pub(crate) fn is_handshaking(&self) -> bool {
        matches!(self, Stream::Tls(it) if it.session.is_handshaking())
    }

    /// Ends our direction; the peer reads an end behind the last byte. What TLS says of it may be
    /// held for a while, and then the end comes behind that.
    pub(crate) fn shutdown(&mut self) -> io::Result<()> {
        match self {
            Stream::Tcp(stream) => stream.shutdown(Shutdown::Write),
            Stream::Tls(it) => {
                it.is_ending = true;
                it.session.close(&mut it.socket)?;
                it.end()
            }
            Stream::Unix(stream) => stream.shutdown(Shutdown::Write),
        }
    }

    /// What has happened to the socket that no read or write has told yet.
    pub(crate) fn take_error(&self) -> Option<io::Error> {
        self.tcp().and_then(|stream| stream.take_error().ok().flatten())
    }

    /// The other end.
    pub(crate) fn peer(&self) -> Peer {
        match self.tcp().map(TcpStream::peer_addr) {
            Some(Ok(address)) => Peer::Tcp(address),
            // It is gone already; nobody will read what this is written into.
            Some(Err(_)) => Peer::Tcp(([0u8; 4], 0).into()),
            None => Peer::Unix,
        }
    }

    fn tcp(&self) -> Option<&TcpStream> {
        match self {
            Stream::Tcp(stream) => Some(stream),
            Stream::Tls(it) => Some(&it.socket),
            Stream::Unix(_) => None,
        }
    }

    /// What TLS says before a socket is closed, if it can be said at once.
    pub(crate) fn part(&mut self) {
        if let Stream::Tls(it) = self {
            // The peer may be gone already.
            let _ = it.session.close(&mut it.socket);
        }
    }

    fn source(&mut self) -> &mut dyn Source {
        match self {
            Stream::Tcp(stream) => stream,
            Stream::Tls(it) => &mut it.socket,
            Stream::Unix(stream) => stream,
        }
    }
}

fn both<'b>(own: &'b mut [u8], buffer: &'b mut [u8]) -> [io::IoSliceMut<'b>; 2] {
    [io::IoSliceMut::new(own), io::IoSliceMut::new(buffer)]
}

impl Encrypted {
    fn end(&mut self) -> io::Result<()> {
        if self.is_ending && self.session.held_bytes() == 0 {
            self.is_ending = false;
            return self.socket.shutdown(Shutdown::Write);
        }
        Ok(())
    }
}

impl Sink for Stream {
    fn held_bytes(&self) -> usize {
        match self {
            Stream::Tls(it) => it.session.held_bytes(),
            Stream::Tcp(_) | Stream::Unix(_) => 0,
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Stream::Tcp(stream) => stream.write(bytes),
            Stream::Tls(it) => it.session.write(&mut it.socket, &[io::IoSlice::new(bytes)]),
            Stream::Unix(stream) => stream.write(bytes),
        }
    }

    fn write_vectored(&mut self, pieces: &[io::IoSlice<'_>]) -> io::Result<usize> {
        match self {
            Stream::Tcp(stream) => stream.write_vectored(pieces),
            Stream::Tls(it) => it.session.write(&mut it.socket, pieces),
            Stream::Unix(stream) => stream.write_vectored(pieces),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        if let Stream::Tls(it) = self {
            it.session.flush(&mut it.socket)?;
            it.end()?;
        }
        Ok(())
    }
}

impl Source for Stream {
    fn register(&mut self, registry: &Registry, token: Token, i: Interest) -> io::Result<()> {
        self.source().register(registry, token, i)
    }

    fn reregister(&mut self, registry: &Registry, token: Token, i: Interest) -> io::Result<()> {
        self.source().reregister(registry, token, i)
    }

    fn deregister(&mut self, registry: &Registry) -> io::Result<()> {
        self.source().deregister(registry)
    }
}

/// What the failure of a socket says of its peer.
pub(crate) fn why_gone(error: &io::Error) -> Reason {
    match error.kind() {
        io::ErrorKind::TimedOut => Reason::AckTimeout,
        _ => Reason::Gone,
    }
}

/// A socket that listens already, opened by somebody else: a service manager, the process before,
/// a test. Whoever made the file of a unix socket removes it.
///
/// ```
/// use std::net::TcpListener;
/// # use pousse::{Config, ConnId, Context, Handler, Message, Server};
/// # struct Quiet;
/// # impl Handler for Quiet {
/// #     fn on_message(&mut self, _: ConnId, _: Message<'_>, _: &mut Context<'_>) {}
/// # }
/// let listener = TcpListener::bind("127.0.0.1:0")?;
/// let mut config = Config::default();
/// config.listen.clear(); // or both
/// let server = Server::bind_with(config, vec![listener.into()], Quiet)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub enum Inherited {
    /// TCP.
    Tcp(std::net::TcpListener),
    /// A unix socket.
    Unix(std::os::unix::net::UnixListener),
}

impl From<std::net::TcpListener> for Inherited {
    fn from(listener: std::net::TcpListener) -> Self {
        Self::Tcp(listener)
    }
}

impl From<std::os::unix::net::UnixListener> for Inherited {
    fn from(listener: std::os::unix::net::UnixListener) -> Self {
        Self::Unix(listener)
    }
}

/// Where clients come from.
#[derive(Debug)]
pub(crate) enum Listener {
    /// TCP, and whether its clients speak TLS.
    Tcp(TcpListener, bool),
    /// A unix socket, whose file is removed with it if it was made here.
    Unix(UnixListener, Option<SocketFile>),
}

/// The file of a unix socket, told from another of the same name by what it was when it was made.
#[derive(Debug)]
pub(crate) struct SocketFile {
    path: PathBuf,
    device: u64,
    inode: u64,
    /// Whose it is: a fork that ends leaves it to the process that made it.
    process: u32,
}

impl Listener {
    /// Begins to listen. `has_tls`: TCP clients are to speak TLS.
    ///
    /// # Errors
    /// [`Error::Bind`] with the address as it was given.
    pub(crate) fn bind(address: &Address, has_tls: bool) -> Result<Self, Error> {
        let bound = match address {
            Address::Tcp { host, port } => {
                bind_tcp(host, *port).inspect(queue_more).map(|it| Listener::Tcp(it, has_tls))
            }
            Address::Unix(path) => {
                bind_unix(path).map(|(listener, file)| Listener::Unix(listener, Some(file)))
            }
        };
        bound.map_err(|source| Error::Bind { address: address.to_string(), source })
    }

    /// Takes over what somebody else has opened. `has_tls` as for [`bind`](Self::bind).
    ///
    /// # Errors
    /// [`Error::Bind`]: the system cannot make it nonblocking.
    pub(crate) fn adopt(inherited: Inherited, has_tls: bool) -> Result<Self, Error> {
        let adopted = match inherited {
            Inherited::Tcp(listener) => listener
                .set_nonblocking(true)
                .map(|()| Listener::Tcp(TcpListener::from_std(listener), has_tls)),
            Inherited::Unix(listener) => listener
                .set_nonblocking(true)
                .map(|()| Listener::Unix(UnixListener::from_std(listener), None)),
        };
        let address = "a socket that was opened by somebody else".to_owned();
        adopted.map_err(|source| Error::Bind { address, source })
    }

    /// The next client, if one has come. `tls`: what it is met with, if it is to speak TLS.
    pub(crate) fn accept(&self, tls: Option<&Tls>) -> io::Result<(Stream, Peer)> {
        match self {
            Listener::Tcp(listener, has_tls) => {
                let (socket, address) = listener.accept()?;
                // What is written is meant to leave. A client that is gone already says so later.
                let _ = socket.set_nodelay(true);
                let stream = match tls {
                    Some(tls) if *has_tls => {
                        // It says nothing of the system if a session cannot be made.
                        let gone = |_| io::ErrorKind::ConnectionAborted;
                        let session = Session::new(tls).map_err(gone)?;
                        Stream::Tls(Box::new(Encrypted { socket, session, is_ending: false }))
                    }
                    _ => Stream::Tcp(socket),
                };
                Ok((stream, Peer::Tcp(address)))
            }
            Listener::Unix(listener, _) => {
                listener.accept().map(|(stream, _)| (Stream::Unix(stream), Peer::Unix))
            }
        }
    }

    /// Whether it is TCP and only this machine can connect: browsers of this machine's user can,
    /// whatever page they show.
    pub(crate) fn is_loopback(&self) -> bool {
        match self {
            Listener::Tcp(listener, _) => {
                listener.local_addr().is_ok_and(|address| is_loopback(address.ip()))
            }
            Listener::Unix(..) => false,
        }
    }

    /// The address as people write it, with the real port.
    pub(crate) fn address(&self) -> String {
        match self {
            Listener::Tcp(listener, has_tls) => match listener.local_addr() {
                Ok(address) if *has_tls => format!("https://{address}"),
                Ok(address) => format!("http://{address}"),
                Err(error) => error.to_string(),
            },
            Listener::Unix(_, Some(file)) => format!("unix:{}", file.path.display()),
            Listener::Unix(listener, None) => match listener.local_addr() {
                Ok(address) => match address.as_pathname() {
                    Some(path) => format!("unix:{}", path.display()),
                    None => "unix:(a socket without a file)".to_owned(),
                },
                Err(error) => error.to_string(),
            },
        }
    }

    /// Bounds what the system does for each client. Those accepted from a listener have what is set
    /// on it, so no client costs a call.
    ///
    /// - `unsent`: it takes no more than it can send soon, so what waits, waits in an outbox, where
    ///   it is counted and can be cut.
    /// - `ack-timeout`: else a peer whose machine has gone is noticed by who writes to it only when
    ///   the system has tried for a quarter of an hour;
    /// - and by who writes nothing to it never, but for the questions of `SO_KEEPALIVE`.
    pub(crate) fn set_options(&self, limits: &Limits) {
        let Listener::Tcp(listener, _) = self else { return };
        // Best effort: without it the peer is noticed later, or the system holds more.
        let _ = net::set_options(listener, limits.ack_timeout, limits.unsent);
    }

    /// Asks for no more events.
    pub(crate) fn deregister(&mut self, registry: &Registry) {
        // It is closed next, which does the same.
        let _ = match self {
            Listener::Tcp(listener, _) => registry.deregister(listener),
            Listener::Unix(listener, _) => registry.deregister(listener),
        };
    }

    /// Asks for events.
    pub(crate) fn register(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        match self {
            Listener::Tcp(listener, _) => registry.register(listener, token, Interest::READABLE),
            Listener::Unix(listener, _) => registry.register(listener, token, Interest::READABLE),
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Listener::Unix(_, Some(SocketFile { path, device, inode, process })) = self
            && *process == std::process::id()
            && fs::symlink_metadata(&*path)
                .is_ok_and(|it| (it.dev(), it.ino()) == (*device, *inode))
        {
            // Best effort: a file that stays is replaced by the next start.
            let _ = fs::remove_file(path);
        }
    }
}

fn bind_tcp(host: &str, port: u16) -> io::Result<TcpListener> {
    if host.is_empty() {
        // One socket for both families, where the machine has both.
        return TcpListener::bind(SocketAddr::from(([0u16; 8], port)))
            .or_else(|_| TcpListener::bind(SocketAddr::from(([0u8; 4], port))));
    }
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for address in (host, port).to_socket_addrs()? {
        match TcpListener::bind(address) {
            Ok(listener) => return Ok(listener),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// Asks for a longer queue of connections that are not accepted yet. mio asks for 128; whoever
/// finds no place there tries again after a second, and thousands may reconnect at once.
fn queue_more(listener: &TcpListener) {
    // The system lowers it to what it allows. It listens already, so nothing is lost if it refuses.
    const QUEUE: i32 = 4096;
    let _ = net::queue_more(listener, QUEUE);
}

/// A dead socket file is replaced, a live one is not stolen, and what is no socket is not touched.
fn bind_unix(path: &Path) -> io::Result<(UnixListener, SocketFile)> {
    match fs::symlink_metadata(path) {
        Ok(found) if found.file_type().is_socket() => {
            // Nonblocking: one whose queue is full says `WouldBlock`, and is alive.
            match UnixStream::connect(path) {
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                    fs::remove_file(path)?;
                }
                Err(error) if error.kind() != io::ErrorKind::WouldBlock => return Err(error),
                _ => return Err(io::ErrorKind::AddrInUse.into()),
            }
        }
        Ok(_) => return Err(io::Error::other("there is a file of that name that is no socket")),
        Err(_) => {}
    }
    let listener = UnixListener::bind(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o660))?;
    let made = fs::symlink_metadata(path)?;
    let (device, inode, process) = (made.dev(), made.ino(), std::process::id());
    Ok((listener, SocketFile { path: path.into(), device, inode, process }))
}
