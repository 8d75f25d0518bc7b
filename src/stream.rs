//! Nonblocking byte streams and what they are accepted from: TCP and unix sockets.
//!
//! Beside the loop the only file that knows sockets.

use std::fs;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, ToSocketAddrs};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use mio::event::Source;
use mio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use mio::{Interest, Registry, Token};

use crate::config::{Address, is_loopback};
use crate::error::Error;
use crate::http::Peer;

/// A client's bytes.
#[derive(Debug)]
pub enum Stream {
    /// Over TCP.
    Tcp(TcpStream),
    /// Over a unix socket.
    Unix(UnixStream),
}

impl Stream {
    /// Ends our direction; the peer reads an end behind the last byte.
    pub fn shutdown(&self) -> io::Result<()> {
        match self {
            Stream::Tcp(stream) => stream.shutdown(Shutdown::Write),
            Stream::Unix(stream) => stream.shutdown(Shutdown::Write),
        }
    }

    fn source(&mut self) -> &mut dyn Source {
        match self {
            Stream::Tcp(stream) => stream,
            Stream::Unix(stream) => stream,
        }
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Stream::Tcp(stream) => stream.read(buffer),
            Stream::Unix(stream) => stream.read(buffer),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Stream::Tcp(stream) => stream.write(bytes),
            Stream::Unix(stream) => stream.write(bytes),
        }
    }

    fn write_vectored(&mut self, pieces: &[io::IoSlice<'_>]) -> io::Result<usize> {
        match self {
            Stream::Tcp(stream) => stream.write_vectored(pieces),
            Stream::Unix(stream) => stream.write_vectored(pieces),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
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

/// Where clients come from.
#[derive(Debug)]
pub(crate) enum Listener {
    /// TCP.
    Tcp(TcpListener),
    /// A unix socket, whose file is removed with it.
    Unix(UnixListener, SocketFile),
}

/// The file of a unix socket, told from another of the same name by what it was when it was made.
#[derive(Debug)]
pub(crate) struct SocketFile {
    path: PathBuf,
    device: u64,
    inode: u64,
}

impl Listener {
    /// Begins to listen.
    ///
    /// # Errors
    /// [`Error::Bind`] with the address as it was given.
    pub(crate) fn bind(address: &Address) -> Result<Self, Error> {
        let bound = match address {
            Address::Tcp { host, port } => {
                bind_tcp(host, *port).inspect(queue_more).map(Listener::Tcp)
            }
            Address::Unix(path) => {
                bind_unix(path).map(|(listener, file)| Listener::Unix(listener, file))
            }
        };
        bound.map_err(|source| Error::Bind { address: address.to_string(), source })
    }

    /// The next client, if one has come.
    pub(crate) fn accept(&self) -> io::Result<(Stream, Peer)> {
        match self {
            Listener::Tcp(listener) => {
                let (stream, address) = listener.accept()?;
                // What is written is meant to leave. A client that is gone already says so later.
                let _ = stream.set_nodelay(true);
                Ok((Stream::Tcp(stream), Peer::Tcp(address)))
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
            Listener::Tcp(listener) => {
                listener.local_addr().is_ok_and(|address| is_loopback(address.ip()))
            }
            Listener::Unix(..) => false,
        }
    }

    /// The address as people write it, with the real port.
    pub(crate) fn address(&self) -> String {
        match self {
            Listener::Tcp(listener) => match listener.local_addr() {
                Ok(address) => format!("http://{address}"),
                Err(error) => error.to_string(),
            },
            Listener::Unix(_, file) => format!("unix:{}", file.path.display()),
        }
    }

    /// Asks for no more events.
    pub(crate) fn deregister(&mut self, registry: &Registry) {
        // It is closed next, which does the same.
        let _ = match self {
            Listener::Tcp(listener) => registry.deregister(listener),
            Listener::Unix(listener, _) => registry.deregister(listener),
        };
    }

    /// Asks for events.
    pub(crate) fn register(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        match self {
            Listener::Tcp(listener) => registry.register(listener, token, Interest::READABLE),
            Listener::Unix(listener, _) => registry.register(listener, token, Interest::READABLE),
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Listener::Unix(_, SocketFile { path, device, inode }) = self
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
#[cfg(feature = "daemon")]
fn queue_more(listener: &TcpListener) {
    // The system lowers it to what it allows. It listens already, so nothing is lost if it refuses.
    const QUEUE: i32 = 4096;
    let _ = rustix::net::listen(listener, QUEUE);
}

/// Without rustix the queue is as long as mio makes it.
#[cfg(not(feature = "daemon"))]
fn queue_more(_: &TcpListener) {}

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
    Ok((listener, SocketFile { path: path.into(), device: made.dev(), inode: made.ino() }))
}
