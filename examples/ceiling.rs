//! The ceiling: a server that only reads and writes bytes. What it costs is the kernel's own price,
//! to which the cost of a real one is put in proportion.
//!
//! It answers an opening handshake. After that it knows no frames: on `/broadcast` the bytes that
//! come go to everyone there, on any other path they go back. So whoever talks to it sends frames
//! as a server does, not masked (`load --raw`). One buffer, one read for each event, one write.
//!
//! Run: `cargo run --release --example ceiling -- 127.0.0.1:9000`, or with TLS:
//!      `… -- 127.0.0.1:9000 target/tls/cert.pem target/tls/key.pem`
//! Try: `cargo run --release --example load -- echo --raw --address 127.0.0.1:9000`

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "it is as bare as it can be")]

use std::io::{self, ErrorKind, Read, Write};
use std::sync::Arc;

use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection};
use tungstenite::handshake::derive_accept_key;

const BUFFER_BYTES: usize = 512 * 1024;

struct Peer {
    stream: TcpStream,
    tls: Option<Box<ServerConnection>>,
    /// What the socket did not take.
    rest: Vec<u8>,
    is_open: bool,
    is_reader: bool,
}

struct Ceiling {
    poll: Poll,
    listener: TcpListener,
    peers: Vec<Option<Peer>>,
    free: Vec<usize>,
    /// Everyone on `/broadcast`.
    readers: Vec<usize>,
    tls: Option<Arc<ServerConfig>>,
}

fn main() -> io::Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let address = words.first().map_or("127.0.0.1:9000", String::as_str).parse().unwrap();
    let tls = words.get(1).zip(words.get(2)).map(|(certificate, key)| secret(certificate, key));
    let (poll, mut listener) = (Poll::new()?, TcpListener::bind(address)?);
    poll.registry().register(&mut listener, Token(usize::MAX), Interest::READABLE)?;
    println!("listening on {address}");
    let (peers, free, readers) = Default::default();
    Ceiling { poll, listener, peers, free, readers, tls }.run()
}

fn secret(certificate: &str, key: &str) -> Arc<ServerConfig> {
    let certificate = CertificateDer::from_pem_file(certificate).unwrap();
    let key = PrivateKeyDer::from_pem_file(key).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider);
    let config = config.with_safe_default_protocol_versions().unwrap().with_no_client_auth();
    Arc::new(config.with_single_cert(vec![certificate], key).unwrap())
}

impl Ceiling {
    fn run(&mut self) -> io::Result<()> {
        let mut events = Events::with_capacity(1024);
        let mut buffer = vec![0; BUFFER_BYTES];
        loop {
            match self.poll.poll(&mut events, None) {
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                result => result?,
            }
            for event in &events {
                match event.token().0 {
                    usize::MAX => self.accept()?,
                    at => self.serve(at, event.is_writable(), &mut buffer),
                }
            }
        }
    }

    fn accept(&mut self) -> io::Result<()> {
        while let Ok((mut stream, _)) = self.listener.accept() {
            stream.set_nodelay(true)?;
            let at = self.free.pop().unwrap_or_else(|| {
                self.peers.push(None);
                self.peers.len() - 1
            });
            let both = Interest::READABLE | Interest::WRITABLE;
            self.poll.registry().register(&mut stream, Token(at), both)?;
            let tls = self.tls.clone().map(|it| Box::new(ServerConnection::new(it).unwrap()));
            let (rest, is_open, is_reader) = Default::default();
            self.peers[at] = Some(Peer { stream, tls, rest, is_open, is_reader });
        }
        Ok(())
    }

    fn serve(&mut self, at: usize, is_writable: bool, buffer: &mut [u8]) {
        let Some(peer) = &mut self.peers[at] else { return };
        if is_writable && peer.write(&[]).is_err() {
            return self.drop(at);
        }
        loop {
            let Some(peer) = &mut self.peers[at] else { return };
            let count = match peer.read(buffer) {
                Ok(0) => return self.drop(at),
                Ok(count) => count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(_) => return self.drop(at),
            };
            let bytes = &buffer[..count];
            if !peer.is_open {
                let Some((answer, is_reader)) = opening(bytes) else { return self.drop(at) };
                (peer.is_open, peer.is_reader) = (true, is_reader);
                let _ = peer.write(answer.as_bytes());
                if is_reader {
                    self.readers.push(at);
                }
            } else if peer.is_reader {
                for &to in &self.readers {
                    if let Some(peer) = &mut self.peers[to] {
                        let _ = peer.write(bytes);
                    }
                }
            } else if peer.write(bytes).is_err() {
                return self.drop(at);
            }
            // TLS reads a record or two at a time.
            if count < buffer.len() && self.tls.is_none() {
                return;
            }
        }
    }

    fn drop(&mut self, at: usize) {
        if let Some(peer) = self.peers[at].take() {
            self.free.push(at);
            if peer.is_reader {
                self.readers.retain(|it| *it != at);
            }
        }
    }
}

impl Peer {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let Some(tls) = &mut self.tls else { return self.stream.read(buffer) };
        loop {
            match tls.reader().read(buffer) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                result => return result,
            }
            let count = tls.read_tls(&mut self.stream)?;
            tls.process_new_packets().map_err(io::Error::other)?;
            while tls.wants_write() {
                tls.write_tls(&mut self.stream)?;
            }
            if count == 0 {
                return Ok(0);
            }
        }
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        if let Some(tls) = &mut self.tls {
            tls.set_buffer_limit(None);
            tls.writer().write_all(bytes)?;
            while tls.wants_write() {
                match tls.write_tls(&mut self.stream) {
                    Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                    result => drop(result?),
                }
            }
            return Ok(());
        }
        if self.rest.is_empty() {
            let count = send(&mut self.stream, bytes)?;
            self.rest.extend_from_slice(&bytes[count..]);
        } else {
            self.rest.extend_from_slice(bytes);
            let count = send(&mut self.stream, &self.rest)?;
            self.rest.drain(..count);
        }
        Ok(())
    }
}

/// As much as the socket takes.
fn send(stream: &mut TcpStream, bytes: &[u8]) -> io::Result<usize> {
    if bytes.is_empty() {
        return Ok(0);
    }
    match stream.write(bytes) {
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(0),
        result => result,
    }
}

/// The answer to an opening handshake, and whether it is for `/broadcast`.
fn opening(head: &[u8]) -> Option<(String, bool)> {
    let head = str::from_utf8(head).ok()?.strip_suffix("\r\n\r\n")?;
    let fields = head.split("\r\n").filter_map(|line| line.split_once(": "));
    let is_key = |name: &str| name.eq_ignore_ascii_case("sec-websocket-key");
    let (_, key) = fields.into_iter().find(|(name, _)| is_key(name))?;
    let accept = derive_accept_key(key.as_bytes());
    let answer = format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {accept}\r\n\r\n"
    );
    Some((answer, head.starts_with("GET /broadcast ")))
}
