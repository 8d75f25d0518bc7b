//! One HTTP exchange: what of a request is needed to write its answer, and the writing.
//!
//! It outlives the request, which is gone by the time a long poll is answered, so it holds a few
//! bytes and no text of the peer's.

use crate::files::Found;
use crate::http::Request;
use crate::log::Log;
use crate::metrics::Held;
use crate::outbox::Outbox;
use crate::poll::{self, Poll};
use crate::response::{Response, put_field, put_number, put_status};
use crate::turn::Turn;

/// Room for a head; a longer one finds more.
const HEAD_BYTES: usize = 400;

/// See the head of this file.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Exchange {
    /// The request was `HEAD`: the answer has no content.
    pub(crate) is_head: bool,
    /// The connection ends with the answer.
    pub(crate) is_last: bool,
    /// Which of the listed origins the page that asks is of: it gets CORS fields.
    pub(crate) origin: Option<u16>,
}

impl Exchange {
    /// The exchange that `request` begins.
    pub(crate) fn of(request: &Request, turn: &Turn) -> Self {
        Self {
            is_head: request.method() == "HEAD",
            is_last: request.wants_close() || request.refusal.is_some(),
            origin: request.field("origin").and_then(|origin| turn.origins.find(origin)),
        }
    }

    /// The exchange of what is no request, sent by a page of this origin.
    pub(crate) fn of_none(origin: Option<&str>, turn: &Turn) -> Self {
        Self { origin: origin.and_then(|origin| turn.origins.find(origin)), ..Self::default() }
    }

    /// Writes the whole answer.
    pub(crate) fn put(&self, response: &Response, outbox: &mut Outbox, turn: &mut Turn) {
        let length = match response.status {
            100..200 | 204 | 304 => None,
            _ => Some(response.content.len() as u64),
        };
        self.put_head(response, length, outbox, turn);
        if !self.is_head && length.is_some() {
            outbox.push(response.content.clone());
        }
    }

    /// Writes the answer of a poll: 304 if the client says that it has what there is.
    pub(crate) fn put_poll(
        &self,
        poll: &Poll<'_>,
        response: Response,
        is_known: impl FnOnce(&str) -> bool,
        log: &Log,
        outbox: &mut Outbox,
        turn: &mut Turn,
    ) {
        let mut content = std::mem::take(&mut turn.content);
        content.clear();
        let (last, count, is_cut) = poll::put_answer(&mut content, poll, log, &turn.limits);
        let tag = poll::tag(last, poll.is_gap);
        let is_known = is_known(&tag);
        let mut response = response.with("ETag", tag);
        if is_known {
            response.status = 304;
            self.put_head(&response, None, outbox, turn);
        } else {
            let response = response.with("Content-Type", "application/json");
            self.put_head(&response, Some(content.len() as u64), outbox, turn);
            if !self.is_head {
                outbox.extend(&content);
                turn.counters.count_delivered(poll.way, count);
                turn.counters.count_held(Held::PollBytes, is_cut);
            }
        }
        turn.content = content;
    }

    /// Writes the head of a file.
    pub(crate) fn put_file_head(&self, file: &Found, outbox: &mut Outbox, turn: &mut Turn) {
        let response = Response::new(200)
            .with("Content-Type", file.content_type)
            .with("ETag", String::from(file.etag.clone()))
            .with("Cache-Control", "no-cache");
        self.put_head(&response, Some(file.length), outbox, turn);
    }

    /// Writes the head of an answer whose content of `length` bytes follows.
    pub(crate) fn put_head(
        &self,
        response: &Response,
        length: Option<u64>,
        outbox: &mut Outbox,
        turn: &mut Turn,
    ) {
        let date = turn.date();
        outbox.write_with(|out| {
            // One that grew step by step would be moved four times.
            out.reserve(HEAD_BYTES);
            put_status(out, response.status, &date);
            for (name, value) in &response.fields {
                put_field(out, name, value.as_bytes());
            }
            if let Some(length) = length {
                out.extend_from_slice(b"Content-Length: ");
                put_number(out, length);
                out.extend_from_slice(b"\r\n");
            }
            out.extend_from_slice(
                b"Vary: Accept, Origin\r\n\
                  X-Content-Type-Options: nosniff\r\nReferrer-Policy: no-referrer\r\n",
            );
            if let Some(origin) = self.origin.and_then(|it| turn.origins.text(it)) {
                // The configured text, never the peer's.
                put_field(out, "Access-Control-Allow-Origin", origin.as_bytes());
                out.extend_from_slice(
                    b"Access-Control-Allow-Credentials: true\r\n\
                      Access-Control-Expose-Headers: ETag, Retry-After\r\n",
                );
            }
            if self.is_last && response.status != 101 {
                out.extend_from_slice(b"Connection: close\r\n");
            }
            out.extend_from_slice(b"\r\n");
        });
        if response.status == 101 {
            // Frames begin a chunk of their own, so that `Outbox::cut` finds where they begin.
            outbox.seal();
        }
        turn.counters.requests += 1;
    }
}
