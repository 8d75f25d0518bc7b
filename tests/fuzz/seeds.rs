//! Seeds: what the scripts of `tests/scripts/` say, as inputs of the targets. Made anew whenever
//! they are needed, so a new script is a new seed.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use crate::fuzz::connection::{SIZES, frame, squeezed};
use crate::language;
use crate::step::{
    Act, Clause, Data, Frame, Kind, Lasting, OfDisk, OfServer, Part, Request, Squeezed, Step,
};

/// The seeds of each target.
pub(crate) type Seeds = BTreeMap<&'static str, BTreeSet<Vec<u8>>>;

const OPENING: &str = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

/// What one peer has said since it connected.
#[derive(Default)]
struct Peer {
    /// Over HTTP, and from the opening of a WebSocket on.
    http: Vec<u8>,
    frames: Vec<u8>,
}

/// All seeds, from the scripts in this folder.
pub(crate) fn all(folder: &Path) -> Seeds {
    let mut seeds = Seeds::new();
    let mut paths: Vec<_> = fs::read_dir(folder).unwrap().map(|it| it.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|it| it == "txt"));
    paths.sort();
    for path in paths {
        let text = fs::read_to_string(&path).unwrap();
        let script = language::parse(&text).unwrap_or_else(|wrong| panic!("{path:?}: {wrong:?}"));
        let mut peers: BTreeMap<String, Peer> = BTreeMap::new();
        for line in script {
            match line.step {
                Step::Actor(name, Act::Connects | Act::Leaves) => {
                    end(&mut seeds, peers.remove(&name).unwrap_or_default());
                }
                Step::Actor(name, act) => {
                    let is_new = matches!(&act, Act::Opens(..));
                    if is_new && peers.get(&name).is_some_and(|peer| !peer.frames.is_empty()) {
                        end(&mut seeds, peers.remove(&name).unwrap_or_default());
                    }
                    acts(&mut seeds, peers.entry(name).or_default(), &act);
                }
                Step::Server(OfServer::Starts(flags)) => {
                    add(&mut seeds, "settings", flags.join("\n").as_bytes(), &[0]);
                }
                Step::Disk(_, OfDisk::Holds(data)) => {
                    add(&mut seeds, "settings", &bytes(&data), &[2]);
                    add(&mut seeds, "settings", &bytes(&data), &[3]);
                }
                _ => {}
            }
        }
        peers.into_values().for_each(|peer| end(&mut seeds, peer));
    }
    more(&mut seeds);
    seeds
}

/// A seed: what a peer says, then what happens to it, the first of that at the end.
fn add(seeds: &mut Seeds, target: &'static str, said: &[u8], choices: &[u8]) {
    let back = choices.iter().rev();
    seeds.entry(target).or_default().insert(said.iter().chain(back).copied().collect());
}

fn acts(seeds: &mut Seeds, peer: &mut Peer, act: &Act) {
    match act {
        Act::Requests(request) | Act::Repeats(request, ..) => {
            peer.http.extend(head(seeds, request, ""));
        }
        Act::Opens(request, _, lasting) => {
            let v1 = format!("{OPENING}Sec-WebSocket-Protocol: pousse.v1\r\n");
            let fields = match lasting {
                Lasting::WebSocket => OPENING,
                Lasting::V1 => &v1,
                Lasting::Stream => "Accept: text/event-stream\r\n",
            };
            peer.http.extend(head(seeds, request, fields));
        }
        Act::Sends(data) if peer.http.is_empty() || !peer.http.ends_with(b"\r\n\r\n") => {
            peer.http.extend(bytes(data));
        }
        Act::Sends(data) => {
            let is_opened = String::from_utf8_lossy(&peer.http).contains("Sec-WebSocket-Key");
            let to = if is_opened { &mut peer.frames } else { &mut peer.http };
            to.extend(bytes(data));
        }
        Act::Says(said) => {
            let payload = said.data.as_ref().map(bytes).unwrap_or_default();
            add(seeds, "event_stream", &payload, &[255, 0, 4, 1]);
            add(seeds, "event_stream", &payload, &[9, 1, 9, 2, 9, 3]);
            if said.squeezed == Squeezed::As {
                (0..9).for_each(|most| add(seeds, "inflate", &payload, &[1, most]));
            }
            add(seeds, "inflate", &squeezed(&payload), &[1, 8]);
            add(seeds, "inflate", &payload, &[200, 0]);
            add(seeds, "inflate", &payload, &[252, 0]);
            peer.frames.extend(frame_of(said, payload));
        }
        Act::SaysJson(texts) => {
            for text in texts {
                let text = named(text);
                add(seeds, "commands", text.as_bytes(), &[]);
                peer.frames.extend(frame(0x81, text.as_bytes()));
            }
        }
        _ => {}
    }
}

fn end(seeds: &mut Seeds, Peer { http, frames }: Peer) {
    let all = [&http[..], &frames].concat();
    if all.is_empty() || all.len() > 8000 {
        return;
    }
    add(seeds, "connection", &all, &[0]);
    // In pieces of 30 bytes, with a tick between them.
    add(seeds, "connection", &all, &[9 * 12, 5].repeat(all.len() / 30 + 1));
    // All of it, and no more; then it is published to three topics, nothing is taken while more is
    // published than is kept, it is taken again, and half a minute goes by.
    let publish = [9 + 12 * 12, 9 + 12 * 13, 9 + 12 * 14];
    let (shut, open, later) = (7 + 12, 7, 5 + 12 * 8);
    let mut whole = Vec::new();
    let mut left = all.len();
    while let Some(at) = SIZES.iter().rposition(|size| *size <= left).filter(|_| left > 0) {
        left -= SIZES[at];
        whole.push(at as u8 * 12);
    }
    let slow = [&publish[..], &[shut], &publish.repeat(16), &[open], &publish, &[later]].concat();
    let said = [&all[..], &[b'x'; 3000]].concat();
    add(seeds, "connection", &said, &[&whole[..], &slow].concat());
    add(seeds, "cuts", &all, &[0]);
    add(seeds, "cuts", &all, &[4, 20, 3, 9, 1]);
    if !http.is_empty() {
        add(seeds, "heads", &http, &[0]);
        add(seeds, "heads", &http, &[3]);
    }
    if !frames.is_empty() {
        add(seeds, "oracle", &frames, &[0]);
        add(seeds, "oracle", &frames, &[3]);
    }
}

/// A request, and what of it is a seed of its own.
fn head(seeds: &mut Seeds, request: &Request, more: &str) -> Vec<u8> {
    let target = named(&request.target);
    let (path, query) = target.split_once('?').unwrap_or((&target, ""));
    add(seeds, "paths", path.as_bytes(), &[]);
    add(seeds, "query", query.as_bytes(), &[]);
    let mut fields = format!("Host: a\r\n{more}");
    let mut content = Vec::new();
    for clause in &request.clauses {
        match clause {
            Clause::With(name, value) => {
                let value = named(value);
                if name.eq_ignore_ascii_case("origin") || name.eq_ignore_ascii_case("host") {
                    let lines = format!("{value}\nhttp://localhost\nlocalhost:80");
                    add(seeds, "origins", lines.as_bytes(), &[1]);
                    add(seeds, "origins", format!("{value}\n{value}\na").as_bytes(), &[0]);
                }
                if name.eq_ignore_ascii_case("sec-websocket-extensions") {
                    add(seeds, "offers", value.as_bytes(), &[]);
                    add(seeds, "offers", format!("a; b=c\n{value}").as_bytes(), &[]);
                }
                if name.starts_with("Sec-") || name == "Connection" || name == "Upgrade" {
                    let field = format!("{name}: {value}\r\n");
                    (0..4).for_each(|at| add(seeds, "negotiation", field.as_bytes(), &[at]));
                }
                fields.push_str(&format!("{name}: {value}\r\n"));
            }
            Clause::Without(_) => {}
            Clause::Content(data) => {
                content = bytes(data);
                add(seeds, "event_stream", &content, &[200, 0]);
                fields.push_str(&format!("Content-Length: {}\r\n", content.len()));
            }
        }
    }
    let head = format!("{} {target} HTTP/1.1\r\n{fields}\r\n", request.method);
    if fields.contains("Upgrade") {
        add(seeds, "negotiation", head.trim_end().as_bytes(), &[4]);
    }
    [head.as_bytes(), &content].concat()
}

fn frame_of(said: &Frame, payload: Vec<u8>) -> Vec<u8> {
    let opcode = if said.binary { 2 } else { 1 };
    let (opcode, payload) = match said.squeezed {
        Squeezed::No => (opcode, payload),
        Squeezed::As => (opcode | 0x40, payload),
        Squeezed::To => (opcode | 0x40, squeezed(&payload)),
    };
    match said.kind {
        Kind::Message => frame(0x80 | opcode, &payload),
        Kind::First => frame(opcode, &payload),
        Kind::Middle => frame(0, &payload),
        Kind::Last => frame(0x80, &payload),
        Kind::Ping => frame(0x89, &payload),
        Kind::Pong => frame(0x8a, &payload),
        Kind::Close(None) => frame(0x88, b""),
        Kind::Close(Some(code)) => frame(0x88, &[&code.to_be_bytes()[..], &payload].concat()),
    }
}

/// Names stand for something like what they stand for in a script.
fn named(text: &str) -> String {
    let text = text.replace("$HOST", "a").replace("$PORT", "80").replace("$DIR", "d");
    text.replace('$', "7-1").replace('…', "1")
}

fn bytes(data: &Data) -> Vec<u8> {
    data.iter().flat_map(part).collect()
}

fn part(part: &Part) -> Vec<u8> {
    match part {
        Part::Hex(bytes) => bytes.clone(),
        Part::Group(parts) => bytes(parts),
        // As much as a target looks at.
        Part::Repeated(times, inner) => self::part(inner).repeat(*times.min(&600)),
        Part::Quoted(text) => unescape(&named(text)),
    }
}

fn unescape(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = text.chars();
    while let Some(c) = rest.next() {
        let c = match (c, if c == '\\' { rest.next() } else { None }) {
            ('\\', Some('r')) => '\r',
            ('\\', Some('n')) => '\n',
            ('\\', Some('t')) => '\t',
            ('\\', Some('x')) => {
                let digits: String = rest.by_ref().take(2).collect();
                bytes.push(u8::from_str_radix(&digits, 16).unwrap_or(0));
                continue;
            }
            ('\\', Some(other)) => other,
            (c, _) => c,
        };
        bytes.extend(c.encode_utf8(&mut [0; 4]).as_bytes());
    }
    bytes
}

/// What no script says.
fn more(seeds: &mut Seeds) {
    for text in ["7-1", "1763856000000-17", "18446744073709551615-0", "now", "earliest", "+1-1"] {
        add(seeds, "ids", text.as_bytes(), &[0]);
    }
    for history in [0, 1, 5] {
        let acts = [0, 12, 4, 9, 22, 7, 18, 5, 24, 47, 30, 7, 13, 62, 7].repeat(4);
        add(seeds, "ids", &[b'x'; 200], &[&[1, history], &acts[..]].concat());
    }
    for (at, text) in
        ["6.6.6.6", "for=6.6.6.6", "\"[::1]:80", "for=\"_x\";by=y, for=::1"].into_iter().enumerate()
    {
        for own_line in 0..2 {
            let more = "Forwarded: for=6.6.6.6\r\nX-Forwarded-For: 10.0.0.9, 1.2.3.4:5\r\n";
            let said = [text, more].concat();
            add(seeds, "forwarded", said.as_bytes(), &[at as u8, own_line, text.len() as u8]);
        }
    }
    for size in [126, 127, 128, 129] {
        let long = "k".repeat(size);
        for command in [
            format!(r#"{{"publish":"a","data":"x","key":"{long}"}}"#),
            format!(r#"{{"subscribe":"a","after":"7-1","ref":"{long}"}}"#),
            format!(r#"{{"unsubscribe":"{long}","ref":-1.50e+1}}"#),
        ] {
            add(seeds, "commands", command.as_bytes(), &[]);
        }
    }
    for line in ["http://EXAMPLE.org.:80", "https://[::1]:443", "null", "file://", "http://a:"] {
        add(seeds, "origins", [line, "\n", line, "\nexample.org"].concat().as_bytes(), &[1]);
    }
    let file = "listen = 127.0.0.1:0 # here\nmax_clients = 10\nping = 25s\norigin = null, \
        https://example.org\nlimit = outbox=1MiB, stall=500ms\nlog = warn\n";
    add(seeds, "settings", file.as_bytes(), &[2]);
    add(seeds, "settings", b"POUSSE_PING=500ms\nPOUSSE_HOST=a,b\nPOUSSE_LIMIT=drain=1s", &[1]);
    add(seeds, "settings", b"alice ptok_3f0c9a2b71d84e6f\nbackup iX2c5sMkr0Gq7Tz1VbNw # x", &[3]);
    for path in [
        "/%2e%2e/secret.txt",
        "/link.txt",
        "/up/secret.txt",
        "/caf%C3%A9.txt",
        "/sub/",
        "/%252e",
        "/%2e%2e%2fsecret.txt",
        "/%252e%252e%252fsecret.txt",
        "/a%20b+c",
        "/C:",
        "/sub/top/etc/passwd",
    ] {
        add(seeds, "paths", path.as_bytes(), &[]);
    }
}
