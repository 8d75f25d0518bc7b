//! Heads that are no heads, never end, come too slowly or too often; and what an opening handshake
//! may be stuffed with.

use crate::peer::{PATIENCE, Peer, ms, opening};
use crate::support::{Came, now};
use crate::target::Target;

const BEHIND: &str = "GET /behind HTTP/1.1\r\nHost: localhost\r\n\r\n";

/// What stands in the place of a head. One answer, 400, and nothing behind it is heard.
const NO_HEADS: &[&[u8]] = &[
    // Ends of lines.
    b"GET / HTTP/1.1\nHost: localhost\n\n",
    b"GET / HTTP/1.1\nHost: localhost\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: localhost\n\r\n",
    b"GET / HTTP/1.1\r\nHost: localhost\r\n\n",
    b"GET / HTTP/1.1\n\rHost: localhost\n\r\n\r",
    b"GET / HTTP/1.1\rHost: localhost\r\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: localhost\r\r\n\r\n",
    b"GET / HTTP/1.1\r\r\nHost: localhost\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: localhost\r\nX: a\rGET /b HTTP/1.1\r\n\r\n",
    b"\n\nGET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"\r\n\nGET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    // The request line.
    b"GET\t/\tHTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"GET /  HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b" GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"GET / HTTP/1.1 \r\nHost: localhost\r\n\r\n",
    b"GET / HTTP/1.1 HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"GET / http/1.1\r\nHost: localhost\r\n\r\n",
    b"GET / HTTP/1.10\r\nHost: localhost\r\n\r\n",
    b"GET / HTTP/01.1\r\nHost: localhost\r\n\r\n",
    b"GET / HTTP/1,1\r\nHost: localhost\r\n\r\n",
    b"GET / HTTP/9.9\r\nHost: localhost\r\n\r\n",
    b"GET / HTTP/-1.1\r\nHost: localhost\r\n\r\n",
    b"GET / ICAP/1.1\r\nHost: localhost\r\n\r\n",
    b"GET /\r\n\r\n",
    b"GET\r\n\r\n",
    b"/ HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"G(T / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"G\0T / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"\xef\xbb\xbfGET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"GET /\0 HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"GET /\x7f HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"GET /\xc3\xa9 HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"GET /\xc0\xae HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"GET /#x HTTP/1.1\r\nHost: localhost\r\n\r\n",
    // Fields.
    b"GET / HTTP/1.1\r\nHost: localhost\r\nX y: z\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: localhost\r\nX\0: z\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: localhost\r\nX\xe9: z\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: localhost\r\n\"X\": z\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: localhost\r\n   \r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: localhost\r\n=\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: localhost\r\nX: a\x01b\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: localhost\r\nX: a\x7fb\r\n\r\n",
    b"GET / HTTP/1.1\r\n\tHost: localhost\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: local\r\n host\r\n\r\n",
    // Hosts.
    b"GET / HTTP/1.1\r\nHost: localhost\r\nhost: localhost\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: localhost, localhost\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: localhost evil.example\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: evil.example@localhost\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: localhost#@evil.example\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: [::1\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: localhost:80:80\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: \"localhost\"\r\n\r\n",
    // Targets.
    b"CONNECT localhost:443 HTTP/1.1\r\nHost: localhost:443\r\n\r\n",
    b"CONNECT evil.example:443 HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"GET localhost HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"GET localhost:80/ HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"GET http://evil.example/ HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"GET http://localhost/ HTTP/1.1\r\nHost: evil.example\r\n\r\n",
    b"GET http://evil.example@localhost/ HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"GET http://localhost@evil.example/ HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"GET http://localhost\\@evil.example/ HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"GET http://localhost:80/ HTTP/1.1\r\nHost: localhost:81\r\n\r\n",
    b"GET http:///api/messages HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"GET http: HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"GET ws://localhost/websocket HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"GET file:///etc/passwd HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"GET ?topic=general HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"GET \\api\\messages HTTP/1.1\r\nHost: localhost\r\n\r\n",
    // Other protocols at the wrong door.
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"PROXY TCP4 10.0.0.1 10.0.0.2 1 2\r\nGET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x0c",
    b"SSH-2.0-OpenSSH_9.6\r\n\r\n",
    b"EHLO localhost\r\n\r\n",
    b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00\r\n\r\n",
    b"*1\r\n$4\r\nPING\r\n\r\n",
];

#[test]
fn what_is_no_head_is_answered_once_with_400_and_nothing_behind_it_is_heard() {
    let mut target = Target::start(&[]);
    target.survives(|target| {
        for head in NO_HEADS {
            let mut peer = Peer::connect(&target.door);
            peer.says([head, BEHIND.as_bytes()].concat());
            let _ = peer.wire.finish();
            assert_eq!(peer.statuses(), [400], "{}", head.escape_ascii());
        }
    });
}

#[test]
fn blank_lines_without_end_disturb_nobody() {
    let mut target = Target::start(&[]);
    target.withstands("blank lines", |target| {
        target.flood(4, |door, flood| {
            while flood.goes_on() {
                let mut peer = Peer::connect(door);
                // In pieces, so that they are there before they can be refused.
                for _ in 0..3 {
                    peer.says("\r\n".repeat(1000));
                }
                peer.says("\r\n".repeat(50_000));
                let statuses = peer.statuses_if_any();
                assert!(matches!(statuses[..], [] | [431]), "{statuses:?}");
            }
        });
    });
    assert!(target.counter("refused.head-bytes") > 0);
}

#[test]
fn heads_without_end_disturb_nobody() {
    let mut target = Target::start(&[]);
    let kinds: [(&str, String); 5] = [
        ("a method", "A".into()),
        ("a target", "GET /a".into()),
        ("a name", "GET / HTTP/1.1\r\nX-".into()),
        ("a value", "GET / HTTP/1.1\r\nX: ".into()),
        ("fields", "GET / HTTP/1.1\r\n".into()),
    ];
    target.withstands("endless heads", |target| {
        target.flood(4, |door, flood| {
            for (what, begin) in kinds.iter().cycle().take_while(|_| flood.goes_on()) {
                let piece = if *what == "fields" { "X: y\r\n" } else { "aaaaaa" };
                let mut peer = Peer::connect(door);
                peer.says(begin);
                peer.says(piece.repeat(20_000));
                let statuses = peer.statuses_if_any();
                assert!(matches!(statuses[..], [] | [414] | [431]), "{what}: {statuses:?}");
            }
        });
    });
    assert!(target.counter("refused.head-bytes") > 0 && target.counter("refused.target-bytes") > 0);
}

#[test]
fn requests_in_segments_of_one_byte_are_answered_and_disturb_nobody() {
    let mut target = Target::start(&[]);
    let head = format!(
        "GET /api/messages?limit=0 HTTP/1.1\r\nHost: localhost\r\nX: {}\r\n\
         Connection: close\r\n\r\n",
        "a".repeat(1000)
    );
    target.withstands("segments of one byte", |target| {
        target.flood(4, |door, flood| {
            while flood.goes_on() {
                let mut peers = [(); 8].map(|()| Peer::connect(door));
                for byte in head.bytes() {
                    peers.iter_mut().for_each(|peer| peer.says([byte]));
                }
                peers.iter_mut().for_each(|peer| assert_eq!(peer.statuses(), [200]));
            }
        });
    });
}

#[test]
fn requests_without_number_whose_answers_nobody_reads_take_no_memory_and_disturb_nobody() {
    let mut target = Target::start(&["--limit", "requests=100000000"]);
    let heavy = "GET /lab.js HTTP/1.1\r\nHost: localhost\r\n\r\n".repeat(100);
    let light = "GET /api/messages?limit=0 HTTP/1.1\r\nHost: localhost\r\n\r\n".repeat(100);
    target.withstands("pipelined requests that nobody reads", |target| {
        let grown = std::sync::atomic::AtomicU64::new(0);
        target.flood(6, |door, flood| {
            let mut peers = [&heavy, &light].map(|requests| (requests, Peer::connect(door)));
            while flood.goes_on() {
                for (requests, peer) in &mut peers {
                    // Where only a part was taken the rest is no request; what of it.
                    let _ = peer.wire.send_some(requests.as_bytes());
                }
                grown.fetch_max(target.heap_grown(), std::sync::atomic::Ordering::SeqCst);
            }
        });
        let grown = grown.into_inner();
        println!("12 of them: {} KiB of heap more at the most", grown >> 10);
        // `outbox-soft` and one answer for each, and `head-bytes`.
        assert!(grown < 12 * (256 + 64 + 8) * 1024, "{grown} bytes");
    });
}

#[test]
fn hundreds_who_send_their_heads_and_contents_drop_by_drop_are_cut_off_in_time() {
    let mut target = Target::start(&["--head-timeout", "700ms", "--limit", "body-timeout=700ms"]);
    target.margin = 4 << 20;
    target.withstands("slow heads and contents", |target| {
        let mut peers: Vec<Peer> = (0..600).map(|_| Peer::connect(&target.door)).collect();
        for (at, peer) in peers.iter_mut().enumerate() {
            peer.says(match at % 3 {
                0 => "GET /",
                1 => {
                    "POST /api/messages HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9999\r\n\r\n"
                }
                // Not a byte.
                _ => "",
            });
        }
        target.until("they are here", |target| target.descriptors() > 300);
        // They go on while the server has them.
        target.until("all are cut off", |target| {
            for (at, peer) in peers.iter_mut().enumerate() {
                if at % 3 < 2 {
                    let _ = peer.wire.send_some(b"a");
                }
            }
            target.descriptors() < 40
        });
        for (at, peer) in peers.iter_mut().enumerate() {
            let statuses = peer.statuses_if_any();
            assert!(
                matches!((at % 3, &statuses[..]), (0 | 1, [] | [408]) | (2, [])),
                "{statuses:?}"
            );
        }
    });
    assert!(target.counter("closed.head-timeout") > 0);
    assert!(target.counter("closed.body-timeout") > 0);
}

#[test]
fn thousands_of_connections_that_say_nothing_keep_nobody_out() {
    let mut target = Target::start(&["--head-timeout", "2s"]);
    target.margin = 8 << 20;
    target.withstands("3000 idle connections", |target| {
        let peers: Vec<Peer> = (0..3000).map(|_| Peer::connect(&target.door)).collect();
        for _ in 0..5 {
            assert_eq!(target.gets("/api/messages?limit=0").status, 200);
        }
        drop(peers);
    });
}

#[test]
fn an_opening_handshake_stuffed_with_anything_is_answered_at_once() {
    let mut target = Target::start(&[]);
    let spaces = " ".repeat(3000);
    let key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    let many = |member: &str| vec![member; 3000 / (member.len() + 1)].join(",");
    let field = |name: &str, value: &str| format!("Sec-WebSocket-{name}: {value}\r\n");
    let cases: Vec<(String, u16)> = vec![
        // CVE-2021-32640: spaces, for a regular expression that looks at them again and again.
        (field("Protocol", &format!("a{spaces}b")), 400),
        (field("Protocol", &format!("a,{spaces},b")), 400),
        (field("Protocol", &format!("pousse.v1{spaces}x")), 400),
        (field("Extensions", &format!("a{spaces}b")), 400),
        (field("Extensions", &format!("a;{spaces}b={spaces}")), 400),
        (field("Extensions", &format!("a;b=\"{spaces}")), 400),
        // CVE-2020-7662: a quoted string that does not end.
        (field("Extensions", &format!("a;b=\"{}", "\\c".repeat(1500))), 400),
        // npm advisory 550: names that every object has.
        (field("Extensions", "constructor"), 101),
        (field("Extensions", "__proto__; hasOwnProperty=toString"), 101),
        (field("Protocol", "constructor"), 400),
        (field("Protocol", "__proto__, pousse.v1"), 101),
        (field("Protocol", ""), 101),
        (field("Protocol", ",,,,"), 101),
        (field("Protocol", &many("a")), 400),
        (field("Protocol", &many("pousse.v1")), 101),
        (field("Protocol", "pousse.v1\u{0}"), 400),
        (field("Protocol", "POUSSE.V1"), 400),
        (field("Protocol", "pousse.v1; x=\r\n y"), 400),
        (field("Extensions", &many("permessage-deflate")), 101),
        (field("Extensions", &many("permessage-deflate; client_max_window_bits=8")), 101),
        (field("Extensions", "permessage-deflate; client_max_window_bits=999999999999"), 101),
        (field("Extensions", "permessage-deflate; server_max_window_bits=-1"), 101),
        (field("Extensions", "permessage-deflate; a; a; a"), 101),
        (field("Extensions", ";;;==,,,\"\""), 400),
        (field("Extensions", "\u{e9}\u{1f600}"), 400),
        // Twice the same.
        (key.into(), 400),
        (field("Version", "13"), 400),
        (field("Version", "13, 8, 7"), 400),
        (field("Accept", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="), 101),
        ("Upgrade: h2c\r\n".into(), 101),
        ("Connection: close\r\n".into(), 101),
        ("Connection: Upgrade, Upgrade, keep-alive\r\n".into(), 101),
        ("Content-Length: 0\r\n".into(), 101),
        ("Content-Length: 6\r\n".into(), 400),
        ("Transfer-Encoding: chunked\r\n".into(), 411),
        // CVE-2024-37890: more fields than are looked at, and one of the first is dropped.
        ("X: y\r\n".repeat(100), 431),
        ("X: y\r\n".repeat(57), 101),
    ];
    target.withstands("stuffed opening handshakes", |target| {
        let before = now();
        while now() - before < ms(500) {
            for (fields, expected) in &cases {
                let mut peer = Peer::connect(&target.door);
                // Frames of what may be no WebSocket.
                peer.says(opening("/websocket", fields) + "\u{81}\u{80}\0\0\0\0");
                let status = peer.answer().status;
                let shown = fields.get(..fields.len().min(100)).unwrap_or_default();
                assert_eq!(status, *expected, "{shown:?}");
            }
        }
    });
}

#[test]
fn keys_that_are_not_sixteen_bytes_of_base64_open_nothing() {
    let mut target = Target::start(&[]);
    target.survives(|target| {
        for key in [
            "",
            "=",
            "========================",
            "dGhlIHNhbXBsZSBub25jZQ",
            "dGhlIHNhbXBsZSBub25jZQ===",
            "dGhlIHNhbXBsZSBub25jZQ==dGhlIHNhbXBsZSBub25jZQ==",
            "dGhlIHNhbXBsZSBub25jZSE=",
            "dGhlIHNhbXBsZSBub25j",
            "dGhlIHNhbXBs ZSBub25jZQ==",
            "dGhlIHNhbXBsZSBub25jZQ==, x",
            "\"dGhlIHNhbXBsZSBub25jZQ==\"",
            "dGhlIHNhbXBsZSBub25jZ-_=",
            "\u{e9}\u{e9}\u{e9}\u{e9}\u{e9}\u{e9}\u{e9}\u{e9}\u{e9}\u{e9}\u{e9}\u{e9}",
            &"A".repeat(4000),
        ] {
            let mut peer = Peer::connect(&target.door);
            let whole = opening("/websocket", "").replace("dGhlIHNhbXBsZSBub25jZQ==", key);
            peer.says(whole);
            assert_eq!(peer.answer().status, 400, "{key}");
        }
    });
}

impl Peer {
    /// The statuses of the answers up to the end; none if a reset has overtaken them, which it may
    /// where the server closes while bytes still come.
    pub(crate) fn statuses_if_any(&mut self) -> Vec<u16> {
        let deadline = now() + PATIENCE;
        while self.wire.fill(deadline) == Came::More {}
        if self.wire.unread.starts_with(b"HTTP/1.1 ") { self.statuses() } else { Vec::new() }
    }
}
