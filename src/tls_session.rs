//! One client's TLS, driven by hand: ciphertext of a socket in, plaintext out, and the other way.
//!
//! ```text
//!   socket ─ read_tls ─► [ part of a record ] ─ process_new_packets ─► [ unread ] ─► connection
//!   socket ◄─ [ held ] ◄─ write_tls ─ records of at most 16 KiB ◄─ writer ◄─ outbox
//! ```
//!
//! Invariants:
//! - [`Session::receive`] reads until the socket has no more or the buffer is full: rustls takes
//!   some kilobytes a read, and messages would be cut at each. It reads no more as long as
//!   plaintext is unread. So no record, however large beside the reader's buffer, is lost or waits
//!   for an event that will not come; whoever reads is told that there is more. What comes without
//!   plaintext is bounded by [`AROUND`].
//! - [`Session::write`] takes plaintext only while nothing is held, and what it has taken it tells.
//!   So `held` is at most [`AHEAD`] bytes of plaintext as ciphertext, and the few that TLS says of
//!   itself; it is not empty only if the socket did not take all, and then an event will come.
//! - `complete_io` is never called: it would wait.
//!
//! This file knows no sockets: it is given something to read from, or to write to.

use std::io::{self, IoSlice, Read, Write};

use crate::tls::Tls;

/// What a read came to.
#[derive(Debug, PartialEq, Eq)]
#[cfg_attr(not(feature = "tls"), expect(dead_code, reason = "sockets alone say less"))]
pub(crate) enum Received {
    /// So many bytes for the connection, perhaps none as yet, and whether there may be more that no
    /// event will tell of.
    Bytes { count: usize, has_more: bool },
    /// The peer's bytes have ended.
    End,
    /// The handshake is done, and there may be more.
    Shaken,
    /// The peer does not speak TLS but HTTP. From here on neither does the session.
    Plain,
    /// What is wrong with the peer's TLS. An alert is held; nothing else will leave.
    Failed(String),
}

/// Plaintext that is encrypted before the socket is asked for the first of it: a little more than
/// 64 KiB, so that the end of the message that passes them is not a record of its own.
#[cfg(feature = "tls")]
const AHEAD: usize = 80 * 1024;

/// So much more ciphertext than plaintext one call takes: a record that is not whole, or what is
/// around 800 that are. It takes no longer to open these than to open what fills a buffer.
#[cfg(feature = "tls")]
const AROUND: usize = 18 * 1024;

#[cfg(feature = "tls")]
pub(crate) use real::Session;

#[cfg(not(feature = "tls"))]
pub(crate) use none::Session;

#[cfg(feature = "tls")]
mod real {
    use std::io::ErrorKind;

    use rustls::ServerConnection;

    use super::{AHEAD, AROUND, IoSlice, Read, Received, Tls, Write, io};

    /// See the head of this file.
    pub(crate) struct Session {
        tls: ServerConnection,
        stage: Stage,
        /// Ciphertext that the socket has still to take, from `sent` on.
        held: Vec<u8>,
        sent: usize,
        /// Bytes of plaintext that nobody has taken yet.
        unread: usize,
        /// The peer has said that it says no more.
        has_ended: bool,
        /// What the last read came to, if the bytes before it had to be handed on first.
        next: Option<io::Result<Received>>,
    }

    #[derive(Clone, Copy, PartialEq, Eq)]
    enum Stage {
        /// Nothing has come.
        New,
        Handshake,
        Open,
        /// The peer speaks plain HTTP, and is answered in it.
        Plain,
        /// An alert is the last word.
        Failed,
    }

    impl Session {
        /// For a client that has just connected.
        pub(crate) fn new(tls: &Tls) -> io::Result<Self> {
            let mut session =
                ServerConnection::new(tls.config.clone()).map_err(io::Error::other)?;
            session.set_buffer_limit(Some(AHEAD));
            Ok(Self {
                tls: session,
                stage: Stage::New,
                held: Vec::new(),
                sent: 0,
                unread: 0,
                has_ended: false,
                next: None,
            })
        }

        /// Whether the next bytes belong to the handshake.
        pub(crate) fn is_handshaking(&self) -> bool {
            matches!(self.stage, Stage::New | Stage::Handshake)
        }

        /// Bytes that the socket has still to take.
        pub(crate) fn held_bytes(&self) -> usize {
            self.held.len() - self.sent
        }

        /// Reads what there is, as long as there is room for it; a step of a handshake at most.
        ///
        /// # Errors
        /// What the socket said.
        pub(crate) fn receive(
            &mut self,
            socket: &mut impl Read,
            buffer: &mut [u8],
        ) -> io::Result<Received> {
            if let Some(next) = self.next.take() {
                return next;
            }
            match self.stage {
                Stage::Plain => return receive_plain(socket, buffer),
                Stage::Failed => return Ok(Received::End),
                _ if self.has_ended && self.unread == 0 => return Ok(Received::End),
                _ => {}
            }
            let mut count = self.hand_out(buffer);
            let mut taken = 0;
            // What the socket said in an earlier turn is old: an event may have come since, and
            // whoever does not ask again would lose it.
            let mut has_more = true;
            while has_more && !self.has_ended && count < buffer.len() && taken <= count + AROUND {
                match self.read(socket) {
                    Ok(Received::Bytes { count: more, has_more: is_full }) => {
                        taken += more;
                        has_more = is_full;
                        count += self.hand_out(buffer.get_mut(count..).unwrap_or_default());
                    }
                    Err(error) if count > 0 && error.kind() == ErrorKind::WouldBlock => {
                        has_more = false;
                    }
                    // Of what came together with a fault nothing is believed.
                    Ok(Received::Failed(error)) => return Ok(Received::Failed(error)),
                    other if count > 0 => {
                        self.next = Some(other);
                        break;
                    }
                    other => return other,
                }
                if self.is_handshaking() {
                    break;
                }
            }
            // Whoever has ended is read once more, to be told so.
            let has_more = has_more || self.unread > 0 || self.has_ended;
            Ok(Received::Bytes { count, has_more })
        }

        /// One read from the socket, and what rustls makes of it. The bytes told are ciphertext.
        fn read(&mut self, socket: &mut impl Read) -> io::Result<Received> {
            let mut inlet = Inlet { socket, first: None, offered: 0, count: 0 };
            match self.tls.read_tls(&mut inlet) {
                Ok(0) if inlet.offered > 0 => return Ok(Received::End),
                // It was not the socket that had no more but rustls that had no room.
                Ok(0) => return Ok(self.fail("a message that is too long".to_owned())),
                Err(error) if inlet.offered == 0 => return Ok(self.fail(error.to_string())),
                read => read?,
            };
            let (count, has_more) = (inlet.count, inlet.count == inlet.offered);
            if self.stage == Stage::New {
                // A record of a handshake begins with 22, a request with a method.
                if inlet.first.is_some_and(|first| first.is_ascii_uppercase()) {
                    self.stage = Stage::Plain;
                    return Ok(Received::Plain);
                }
                self.stage = Stage::Handshake;
            }
            let state = match self.tls.process_new_packets() {
                Ok(state) => state,
                Err(error) => return Ok(self.fail(error.to_string())),
            };
            self.hold();
            self.unread = state.plaintext_bytes_to_read();
            self.has_ended = state.peer_has_closed();
            if self.stage == Stage::Handshake && !self.tls.is_handshaking() {
                self.stage = Stage::Open;
                return Ok(Received::Shaken);
            }
            Ok(Received::Bytes { count, has_more })
        }

        /// Takes of the pieces what the socket takes, and at most `AHEAD` bytes more.
        ///
        /// # Errors
        /// What the socket said; `WouldBlock` if nothing was taken.
        pub(crate) fn write(
            &mut self,
            socket: &mut impl Write,
            pieces: &[IoSlice<'_>],
        ) -> io::Result<usize> {
            if self.stage == Stage::Plain {
                return socket.write_vectored(pieces);
            }
            self.flush(socket)?;
            match self.stage {
                Stage::Failed => return Err(ErrorKind::BrokenPipe.into()),
                // rustls would keep it until the handshake is done, and nobody would know of it.
                Stage::New | Stage::Handshake => return Err(ErrorKind::WouldBlock.into()),
                _ => {}
            }
            let offered: usize = pieces.iter().map(|piece| piece.len()).sum();
            let mut copy;
            let mut rest = pieces;
            let mut taken = 0;
            while self.held.is_empty() && taken < offered {
                let count = self.tls.writer().write_vectored(rest)?;
                self.put_out(socket)?;
                taken += count;
                if count == 0 || taken == offered {
                    break;
                }
                copy = pieces.to_vec();
                let mut ahead = copy.as_mut_slice();
                IoSlice::advance_slices(&mut ahead, taken);
                rest = ahead;
            }
            if taken == 0 { Err(ErrorKind::WouldBlock.into()) } else { Ok(taken) }
        }

        /// Writes what is held, as much as the socket takes.
        ///
        /// # Errors
        /// What the socket said, `WouldBlock` and `Interrupted` excepted.
        pub(crate) fn flush(&mut self, socket: &mut impl Write) -> io::Result<()> {
            while let Some(rest @ [_, ..]) = self.held.get(self.sent..) {
                match socket.write(rest) {
                    Ok(0) => return Err(ErrorKind::WriteZero.into()),
                    Ok(count) if count < rest.len() => {
                        self.sent += count;
                        return Ok(());
                    }
                    Ok(count) => self.sent += count,
                    Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                    Err(error) if error.kind() == ErrorKind::Interrupted => {}
                    Err(error) => return Err(error),
                }
            }
            // Not only emptied: an idle client owns no buffer.
            self.held = Vec::new();
            self.sent = 0;
            Ok(())
        }

        /// Says that nothing more will be said, once.
        ///
        /// # Errors
        /// What the socket said.
        pub(crate) fn close(&mut self, socket: &mut impl Write) -> io::Result<()> {
            if self.stage == Stage::Open {
                self.tls.send_close_notify();
                self.put_out(socket)?;
            }
            Ok(())
        }

        #[cfg(test)]
        pub(super) fn unread_bytes(&self) -> usize {
            self.unread
        }

        /// Plaintext that nobody has taken yet, as much of it as there is room for.
        fn hand_out(&mut self, buffer: &mut [u8]) -> usize {
            if self.unread == 0 {
                return 0;
            }
            // It fails only if there is nothing.
            let count = self.tls.reader().read(buffer).unwrap_or(0);
            self.unread -= count;
            count
        }

        fn fail(&mut self, error: String) -> Received {
            self.stage = Stage::Failed;
            self.hold();
            Received::Failed(error)
        }

        /// Takes from rustls what it has to say.
        fn hold(&mut self) {
            // A `Vec` takes everything.
            while self.tls.wants_write() && self.tls.write_tls(&mut self.held).is_ok() {}
        }

        /// The same, with the socket asked first.
        fn put_out(&mut self, socket: &mut impl Write) -> io::Result<()> {
            while self.tls.wants_write() {
                self.tls.write_tls(&mut Outlet { socket, held: &mut self.held })?;
            }
            Ok(())
        }
    }

    impl std::fmt::Debug for Session {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.debug_struct("Session")
                .field("held_bytes", &self.held_bytes())
                .finish_non_exhaustive()
        }
    }

    fn receive_plain(socket: &mut impl Read, buffer: &mut [u8]) -> io::Result<Received> {
        Ok(match socket.read(buffer)? {
            0 => Received::End,
            count => Received::Bytes { count, has_more: count == buffer.len() },
        })
    }

    /// Notes what a read was offered, and what came of it: rustls tells only the latter.
    struct Inlet<'a, S> {
        socket: &'a mut S,
        first: Option<u8>,
        offered: usize,
        count: usize,
    }

    impl<S: Read> Read for Inlet<'_, S> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            self.offered = buffer.len();
            if buffer.is_empty() {
                return Ok(0);
            }
            self.count = self.socket.read(buffer)?;
            self.first = buffer.first().copied();
            Ok(self.count)
        }
    }

    /// Takes everything: what the socket does not take is held.
    struct Outlet<'a, S> {
        socket: &'a mut S,
        held: &'a mut Vec<u8>,
    }

    impl<S: Write> Write for Outlet<'_, S> {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.write_vectored(&[IoSlice::new(bytes)])
        }

        fn write_vectored(&mut self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
            let mut written = 0;
            while self.held.is_empty() {
                match self.socket.write_vectored(pieces) {
                    Ok(count) => written = count,
                    Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                    Err(error) => return Err(error),
                }
                break;
            }
            let mut total = 0;
            for piece in pieces {
                total += piece.len();
                let (_, rest) = piece.split_at(written.min(piece.len()));
                written -= piece.len() - rest.len();
                self.held.extend_from_slice(rest);
            }
            Ok(total)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
}

/// Without the feature `tls` there are no sessions, and the compiler knows it.
#[cfg(not(feature = "tls"))]
mod none {
    use super::{IoSlice, Read, Received, Tls, Write, io};

    #[derive(Debug)]
    pub(crate) enum Session {}

    impl Session {
        pub(crate) fn new(tls: &Tls) -> io::Result<Self> {
            match tls.none {}
        }

        pub(crate) fn is_handshaking(&self) -> bool {
            match *self {}
        }

        pub(crate) fn held_bytes(&self) -> usize {
            match *self {}
        }

        pub(crate) fn receive(&mut self, _: &mut impl Read, _: &mut [u8]) -> io::Result<Received> {
            match *self {}
        }

        pub(crate) fn write(&mut self, _: &mut impl Write, _: &[IoSlice<'_>]) -> io::Result<usize> {
            match *self {}
        }

        pub(crate) fn flush(&mut self, _: &mut impl Write) -> io::Result<()> {
            match *self {}
        }

        pub(crate) fn close(&mut self, _: &mut impl Write) -> io::Result<()> {
            match *self {}
        }
    }
}

#[cfg(test)]
#[cfg(feature = "tls")] // Apart: clippy knows only a bare `cfg(test)` as a test.
mod tests {
    use std::io::{ErrorKind, Read};
    use std::sync::Arc;

    use rustls::pki_types::ServerName;
    use rustls::{ClientConfig, ClientConnection, RootCertStore};

    use super::*;

    /// A socket that takes bytes up to so many in all, and gives what it has, so many a read.
    #[derive(Default)]
    struct Socket {
        takes: usize,
        got: Vec<u8>,
        has: Vec<u8>,
        gives: usize,
        reads: usize,
        /// Behind what it has comes the end.
        has_ended: bool,
    }

    impl Write for Socket {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let taken = bytes.len().min(self.takes);
            if taken == 0 {
                return Err(ErrorKind::WouldBlock.into());
            }
            self.takes -= taken;
            self.got.extend_from_slice(&bytes[..taken]);
            Ok(taken)
        }

        fn write_vectored(&mut self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
            self.write(&pieces.iter().flat_map(|piece| piece.to_vec()).collect::<Vec<_>>())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Read for Socket {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            self.reads += 1;
            let count = buffer.len().min(self.gives).min(self.has.len());
            if count == 0 && !self.has_ended {
                return Err(ErrorKind::WouldBlock.into());
            }
            buffer[..count].copy_from_slice(&self.has[..count]);
            self.has.drain(..count);
            Ok(count)
        }
    }

    /// Both sides, with the handshake done.
    fn pair() -> (Session, ClientConnection, Socket) {
        let made = rcgen::generate_simple_self_signed(["localhost".into()]).unwrap();
        let key = made.signing_key.serialize_pem();
        let tls = Tls::from_pem(made.cert.pem().as_bytes(), key.as_bytes()).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(made.cert.der().clone()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let name = ServerName::try_from("localhost").unwrap();
        let mut client = ClientConnection::new(Arc::new(config), name).unwrap();
        client.set_buffer_limit(None);
        let mut session = Session::new(&tls).unwrap();
        let mut socket = Socket { takes: usize::MAX, gives: usize::MAX, ..Socket::default() };
        while session.is_handshaking() {
            client.write_tls(&mut socket.has).unwrap();
            session.receive(&mut socket, &mut [0]).unwrap();
            session.flush(&mut socket).unwrap();
            hear(&mut client, &mut socket);
        }
        (session, client, socket)
    }

    /// What the client can read of what the socket got.
    fn hear(client: &mut ClientConnection, socket: &mut Socket) -> Vec<u8> {
        let got = std::mem::take(&mut socket.got);
        let mut rest = got.as_slice();
        let mut heard = Vec::new();
        while !rest.is_empty() {
            client.read_tls(&mut rest).unwrap();
            client.process_new_packets().unwrap();
            // Until it would have to wait.
            let _ = client.reader().read_to_end(&mut heard);
        }
        heard
    }

    #[test]
    fn what_is_taken_is_told_and_arrives_however_little_the_socket_takes() {
        let (mut session, mut client, mut socket) = pair();
        let sent: Vec<u8> = (0..300_000u32).map(|at| (at % 251) as u8).collect();
        let (mut taken, mut heard) = (0, Vec::new());
        // From a byte at a time to all at once.
        let mut room = 1;
        while taken < sent.len() || session.held_bytes() > 0 {
            socket.takes = room;
            room = if room < 60_000 { room * 3 / 2 + 1 } else { 1 };
            let held = session.held_bytes();
            let (first, second) = sent[taken..].split_at((sent.len() - taken).min(10));
            let pieces = [IoSlice::new(first), IoSlice::new(second)];
            match session.write(&mut socket, &pieces) {
                Ok(count) => {
                    taken += count;
                    assert!(count > 0);
                    assert!(socket.takes == 0 || session.held_bytes() == 0, "it was asked");
                    assert!(session.held_bytes() <= AHEAD + 200, "{}", session.held_bytes());
                }
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::WouldBlock);
                    assert!(session.held_bytes() <= held, "nothing was taken");
                }
            }
            heard.extend(hear(&mut client, &mut socket));
        }
        assert!(heard == sent);
    }

    #[test]
    fn a_write_goes_on_as_long_as_the_socket_takes_everything() {
        let (mut session, mut client, mut socket) = pair();
        socket.takes = usize::MAX;
        let sent = vec![7; 1_000_000];
        let halves = sent.split_at(1000);
        let pieces = [IoSlice::new(halves.0), IoSlice::new(halves.1)];
        assert_eq!(session.write(&mut socket, &pieces).unwrap(), sent.len());
        assert_eq!(session.held_bytes(), 0);
        assert!(hear(&mut client, &mut socket) == sent);
    }

    /// Has the client say this; what comes of it waits in the socket.
    fn say(client: &mut ClientConnection, socket: &mut Socket, text: &[u8]) {
        client.writer().write_all(text).unwrap();
        while client.wants_write() {
            client.write_tls(&mut socket.has).unwrap();
        }
    }

    #[test]
    fn a_call_reads_nothing_while_plaintext_is_unread_and_says_whether_there_is_more() {
        let (mut session, mut client, mut socket) = pair();
        let sent = vec![7; 60_000];
        say(&mut client, &mut socket, &sent);
        let mut heard = Vec::new();
        let mut buffer = [0; 1000];
        loop {
            let before = socket.reads;
            let had = session.unread_bytes();
            let received = session.receive(&mut socket, &mut buffer);
            let Ok(Received::Bytes { count, has_more }) = received else { break };
            assert!(socket.reads == before || had < buffer.len());
            // Bytes may have come since the socket was asked last, and their event with them.
            let has_asked = socket.reads > before;
            assert!(has_more || has_asked, "only who has asked the socket knows that it is empty");
            heard.extend_from_slice(&buffer[..count]);
            if !has_more {
                break;
            }
        }
        assert!(heard == sent);
        assert_eq!(
            session.receive(&mut socket, &mut buffer).unwrap_err().kind(),
            ErrorKind::WouldBlock
        );
    }

    #[test]
    fn a_call_reads_until_the_socket_has_no_more_or_the_buffer_is_full() {
        let (mut session, mut client, mut socket) = pair();
        let mut buffer = vec![0; 70_000];
        say(&mut client, &mut socket, &[7; 100_000]);
        for told in [(70_000, true), (30_000, false)] {
            let (count, has_more) = told;
            let received = session.receive(&mut socket, &mut buffer).unwrap();
            assert_eq!(received, Received::Bytes { count, has_more });
        }
        // As much as rustls reads at once, so the socket is asked again.
        say(&mut client, &mut socket, &[7; 4096 - 22]);
        assert_eq!(socket.has.len(), 4096);
        socket.has_ended = true;
        let received = session.receive(&mut socket, &mut buffer).unwrap();
        assert_eq!(received, Received::Bytes { count: 4096 - 22, has_more: true });
        let received = session.receive(&mut socket, &mut buffer).unwrap();
        assert_eq!(received, Received::End, "what comes behind the bytes is told next");
    }

    #[test]
    fn of_records_with_next_to_nothing_in_them_a_call_takes_few() {
        let (mut session, mut client, mut socket) = pair();
        (0..5000).for_each(|_| say(&mut client, &mut socket, b"x"));
        let (mut heard, mut buffer) = (0, vec![0; 320 * 1024]);
        while heard < 5000 {
            let received = session.receive(&mut socket, &mut buffer).unwrap();
            let Received::Bytes { count, has_more } = received else { panic!("{received:?}") };
            assert!(count < 2000, "{count}");
            heard += count;
            assert!(has_more || heard == 5000);
        }
    }

    #[test]
    fn a_close_notify_that_finds_no_room_is_held_and_leaves_later() {
        let (mut session, mut client, mut socket) = pair();
        socket.takes = 0;
        session.close(&mut socket).unwrap();
        let held = session.held_bytes();
        assert!(held > 0);
        session.close(&mut socket).unwrap();
        assert_eq!(session.held_bytes(), held, "it is said once");
        socket.takes = usize::MAX;
        session.flush(&mut socket).unwrap();
        assert_eq!(session.held_bytes(), 0);
        client.read_tls(&mut socket.got.as_slice()).unwrap();
        assert!(client.process_new_packets().unwrap().peer_has_closed());
    }
}
