//! How a reader reads: what it asks, what it is given, what it asks again.

use std::fmt::Write as _;

use crate::args::{Args, Transport};
use crate::frame::{self, Messages};
use crate::http::{self, Answer};

/// A message that is compressed (RFC 7692 §6).
const RSV1: u8 = 0x40;

/// One reader: how many messages it was given, and where it stands if it has to say that itself.
#[derive(Debug)]
pub(crate) struct Reader {
    pub(crate) transport: Transport,
    pub(crate) heard: u32,
    /// It is given what is no message of ours, and passes over it.
    pub(crate) is_deaf: bool,
    place: String,
    is_nchan: bool,
    is_raw: bool,
}

impl Reader {
    pub(crate) fn new(transport: Transport, args: &Args) -> Self {
        let place = String::new();
        let (is_nchan, is_raw) = (args.is_nchan, args.is_raw);
        Self { transport, heard: 0, is_deaf: false, place, is_nchan, is_raw }
    }

    /// What it says first.
    pub(crate) fn first(transport: Transport, args: &Args) -> Vec<u8> {
        let path = &args.path;
        let deflate = match args.deflate {
            true => {
                "Sec-WebSocket-Extensions: permessage-deflate; \
                     server_no_context_takeover; client_no_context_takeover\r\n"
            }
            false => "",
        };
        match transport {
            Transport::Websocket => http::opening(path, deflate),
            Transport::V1 => {
                let fields = format!("Sec-WebSocket-Protocol: pousse.v1\r\n{deflate}");
                http::opening(&format!("{path}?topic=general"), &fields)
            }
            Transport::EventStream => {
                http::request("GET", "/api/messages", "Accept: text/event-stream\r\n", &[])
            }
            // Where it stands is in the answer, from which on it waits.
            Transport::LongPoll if args.is_nchan => http::request("GET", path, "", &[]),
            Transport::LongPoll => http::request("GET", "/api/messages?limit=0", "", &[]),
        }
    }

    /// What it says when everyone is there.
    pub(crate) fn begin(&mut self, answer: &Answer<'_>) {
        self.note_place(answer);
    }

    fn note_place(&mut self, answer: &Answer<'_>) {
        if self.transport != Transport::LongPoll {
            return;
        }
        self.place.clear();
        if self.is_nchan {
            let field = |name| answer.field(name).unwrap_or_default();
            let (etag, modified) = (field("etag"), field("last-modified"));
            let _ = write!(self.place, "If-None-Match: {etag}\r\nIf-Modified-Since: {modified}");
            return;
        }
        let text = str::from_utf8(answer.content).unwrap();
        let last = text.rsplit("\"last\":\"").next().unwrap().split('"').next().unwrap();
        self.place.push_str(last);
    }

    /// The next request, of a reader that has to ask.
    pub(crate) fn ask(&self, path: &str) -> Option<Vec<u8>> {
        let place = &self.place;
        match self.transport {
            Transport::LongPoll if self.is_nchan => {
                Some(http::request("GET", path, &format!("{place}\r\n"), &[]))
            }
            Transport::LongPoll => {
                let target = format!("/api/messages?after={place}&wait=50");
                Some(http::request("GET", &target, "", &[]))
            }
            _ => None,
        }
    }

    /// Takes what is whole; `reply` gets what is to be sent at once. Returns the bytes used.
    pub(crate) fn take(
        &mut self,
        bytes: &[u8],
        messages: &Messages,
        reply: &mut Vec<u8>,
        path: &str,
    ) -> usize {
        match self.transport {
            Transport::Websocket | Transport::V1 => self.take_frame(bytes, messages, reply),
            Transport::EventStream => self.take_block(bytes, messages),
            Transport::LongPoll => {
                let Some((answer, used)) = http::take(bytes) else { return 0 };
                assert_eq!(answer.status, 200, "{answer:?}");
                match self.is_nchan {
                    true => self.check(answer.content, messages),
                    false => self.check_envelopes(answer.content, messages),
                }
                self.note_place(&answer);
                reply.extend(self.ask(path).unwrap());
                used
            }
        }
    }

    fn take_frame(&mut self, bytes: &[u8], messages: &Messages, reply: &mut Vec<u8>) -> usize {
        let Some((first, payload, used)) = frame::take(bytes) else { return 0 };
        match first & 15 {
            frame::PING => reply.extend(frame::frame(frame::PONG, payload, !self.is_raw)),
            frame::CLOSE => panic!("the server closes: {:?}", String::from_utf8_lossy(payload)),
            frame::TEXT if self.is_deaf => {}
            frame::TEXT if first & RSV1 != 0 => {
                messages.check_compressed(payload, self.heard);
                self.heard += 1;
            }
            frame::TEXT if self.transport == Transport::V1 => {
                self.check_envelopes(payload, messages);
            }
            frame::TEXT => self.check(payload, messages),
            _ => {}
        }
        used
    }

    /// A block of an event stream ends with a blank line.
    fn take_block(&mut self, bytes: &[u8], messages: &Messages) -> usize {
        let Some(end) = bytes.windows(2).position(|two| two == b"\n\n") else { return 0 };
        self.check_envelopes(&bytes[..end], messages);
        end + 2
    }

    /// All messages in a text of JSON, in which they stand as they are.
    fn check_envelopes(&mut self, text: &[u8], messages: &Messages) {
        const MARK: &[u8] = b"\"data\":\"";
        let mut at = 0;
        while let Some(found) = text[at..].windows(MARK.len()).position(|it| it == MARK) {
            at += found + MARK.len();
            let end = (at + messages.size()).min(text.len());
            self.check(&text[at..end], messages);
            assert_eq!(text.get(end), Some(&b'"'), "the message is longer than it was");
            at = end;
        }
    }

    fn check(&mut self, text: &[u8], messages: &Messages) {
        messages.check(text, self.heard);
        self.heard += 1;
    }
}
