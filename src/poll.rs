//! Several entries as the one answer of a poll, or of a long poll (RFC 6202 §2).
//!
//! ```text
//! {"messages":[ENVELOPE,…],"last":"RUN-SEQ","gap":false,"readers":2}
//! ```

use crate::forms::{form, put_id};
use crate::id::EntryId;
use crate::limits::Limits;
use crate::log::Log;
use crate::metrics::Way;
use crate::response::put_number;
use crate::topic::{Form, TopicNumber};

/// What a poll asks for, and what is known of it.
pub(crate) struct Poll<'p> {
    /// The topics that exist, and the reader's place in each.
    pub places: &'p [(TopicNumber, u64)],
    /// Most messages wanted.
    pub limit: usize,
    /// Whether its cursor had a gap.
    pub is_gap: bool,
    /// As which kind of poll its answer counts.
    pub way: Way,
}

/// Writes the answer; returns its `last`, the number of messages in it, and whether `poll_bytes`
/// ended it.
///
/// Bounds: `limit` messages, and `poll_bytes` unless a single message is longer.
pub(crate) fn put_answer(
    out: &mut Vec<u8>,
    poll: &Poll<'_>,
    log: &Log,
    limits: &Limits,
) -> (EntryId, usize, bool) {
    out.extend_from_slice(b"{\"messages\":[");
    let start = out.len();
    let (mut count, mut is_cut) = (0, false);
    let mut given = None;
    let mut last = log.newest();
    for (topic, entry) in log.merge(poll.places.iter().copied()) {
        let envelope = form(log, topic, entry, Form::Envelope);
        let is_over = out.len() - start + envelope.len() > limits.poll_bytes;
        if count == poll.limit || (count > 0 && is_over) {
            // With `limit=0` none is given: then it is the place before the first held back.
            last = log.id(given.unwrap_or(entry.seq - 1));
            is_cut = count < poll.limit;
            break;
        }
        given = Some(entry.seq);
        if count > 0 {
            out.push(b',');
        }
        out.extend_from_slice(&envelope);
        count += 1;
    }
    out.extend_from_slice(b"],\"last\":\"");
    put_id(out, last);
    out.extend_from_slice(match poll.is_gap {
        true => b"\",\"gap\":true,\"readers\":",
        false => b"\",\"gap\":false,\"readers\":",
    });
    let readers = |(number, _): &(TopicNumber, u64)| u64::from(log.topic(*number).readers());
    put_number(out, poll.places.iter().map(readers).sum());
    out.extend_from_slice(b"}\n");
    (last, count, is_cut)
}

/// What an answer is known by: `W/"RUN-SEQ"`. One with a gap is another.
pub(crate) fn tag(last: EntryId, is_gap: bool) -> String {
    let mut tag = Vec::with_capacity(64);
    tag.extend_from_slice(b"W/\"");
    put_id(&mut tag, last);
    tag.extend_from_slice(if is_gap { b"-gap\"" } else { b"\"" });
    // It is ASCII.
    String::from_utf8(tag).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::Message;
    use crate::tick::Tick;

    fn answer(log: &Log, places: &[(TopicNumber, u64)], limit: usize) -> String {
        let mut out = Vec::new();
        let poll = Poll { places, limit, is_gap: false, way: Way::Poll };
        put_answer(&mut out, &poll, log, &Limits::default());
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn topics_are_merged_by_id_and_last_is_the_place_to_go_on_from() {
        let mut log = Log::new(7, Limits::default());
        let (a, _) = log.append("a", "un".into(), None, Tick(0)).unwrap();
        let (b, _) = log.append("b", Message::Binary(b"\xff\0"), None, Tick(0)).unwrap();
        log.append("a", "trois".into(), None, Tick(0)).unwrap();
        log.append("c", "not asked for".into(), None, Tick(0)).unwrap();
        let (one, two, three) = (
            r#"{"id":"7-1","topic":"a","data":"un"}"#,
            r#"{"id":"7-2","topic":"b","base64":"/wA="}"#,
            r#"{"id":"7-3","topic":"a","data":"trois"}"#,
        );
        for (places, limit, messages, last) in [
            (&[(a, 0), (b, 0)][..], 100, format!("{one},{two},{three}"), "7-4"),
            (&[(a, 0), (b, 0)], 2, format!("{one},{two}"), "7-2"),
            (&[(a, 1), (b, 1)], 1, two.into(), "7-2"),
            (&[(a, 0)], 1, one.into(), "7-1"),
            (&[(a, 1)], 0, String::new(), "7-2"),
            (&[(a, 3)], 0, String::new(), "7-4"),
            (&[], 100, String::new(), "7-4"),
        ] {
            let expected = format!(
                "{{\"messages\":[{messages}],\"last\":\"{last}\",\"gap\":false,\"readers\":0}}\n"
            );
            assert_eq!(answer(&log, places, limit), expected);
        }
        assert_eq!(log.encodings(), 3, "each entry is encoded once, however often it is given");
    }
}
