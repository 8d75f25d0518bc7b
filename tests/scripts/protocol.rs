//! `docs/protocol.md`, played: every block of it is a conversation with the real program, and each
//! line of an answer has to come as it stands there.
//!
//! `>` is said, `<` is heard, a name before it says who; `…` is anything. Each section of the page
//! has a server of its own, and so has each `$ pousse FLAGS`. Only the run in the ids and the port
//! are put in place of those that the page has. How to read a block is told at the top of the page.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::support::http::Answer;
use crate::support::websocket::{self, Incoming, Reader};
use crate::support::{Came, PATIENCE, Server, Wire, now, show};

/// The start of the server and its authority, as the page has them.
const RUN: &str = "1795418616305";
const AUTHORITY: &str = "127.0.0.1:8080";

/// The token file that flags of the page call `tokens`. Its line stands on the page.
const TOKENS: &str = "alice  9c1185a5c5e9fc54612808977ee8f548";

const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/protocol.md");

#[test]
fn what_the_page_says_comes_true() {
    let page = std::fs::read_to_string(PAGE).unwrap();
    let sections = sections(&page);
    let blocks: usize = sections.iter().map(Vec::len).sum();
    assert!(blocks >= 20, "the page has {blocks} blocks: it cannot be all of the protocol");
    assert!(page.contains(TOKENS), "the page shows the token file");
    let play = |blocks: &Vec<Block>| Stage::default().play(blocks).err();
    let lies: Vec<String> = sections.iter().filter_map(play).collect();
    assert!(lies.is_empty(), "\n{}\n", lies.join("\n"));
}

/// The lines of a fenced block, with their numbers.
type Block<'p> = Vec<(usize, &'p str)>;

/// The blocks of each section. All fences are blocks to be played: what is not played can lie.
fn sections(page: &str) -> Vec<Vec<Block<'_>>> {
    let mut sections = vec![Vec::new()];
    let mut block: Option<Block> = None;
    for (number, line) in (1..).zip(page.lines()) {
        match (&mut block, line) {
            (None, "```console") => block = Some(Vec::new()),
            (None, _) if line.starts_with("```") => panic!("docs/protocol.md:{number}: {line}"),
            (None, _) if line.starts_with("## ") => sections.push(Vec::new()),
            (None, _) => {}
            (Some(_), "```") => sections.last_mut().unwrap().extend(block.take()),
            (Some(lines), _) => lines.push((number, line)),
        }
    }
    assert!(block.is_none(), "docs/protocol.md: the last block has no end");
    sections
}

/// Someone with a connection.
#[derive(Default)]
struct Client {
    wire: Option<Wire>,
    speaks: Speaks,
    /// The method of the request that waits for its answer.
    asked: Option<String>,
}

#[derive(Default)]
enum Speaks {
    #[default]
    Http,
    EventStream,
    WebSocket(Reader),
}

/// A server and everyone who is connected to it.
#[derive(Default)]
struct Stage {
    server: Option<Server>,
    /// Its start, in place of which the page has [`RUN`].
    run: String,
    clients: BTreeMap<String, Client>,
    /// Whether pings may come that the page does not show.
    pings: bool,
}

type Played<T = ()> = Result<T, String>;

impl Stage {
    fn play(&mut self, blocks: &[Block]) -> Played {
        for block in blocks {
            // Without a name it is someone else in each block.
            self.clients.remove("");
            let mut rest = &block[..];
            while let [(number, line), ..] = *rest {
                let at = |wrong| format!("docs/protocol.md:{number}: {line}\n  {wrong}");
                let count = self.step(rest).map_err(at)?;
                rest = &rest[count..];
            }
            self.all_is_heard()
                .map_err(|came| format!("docs/protocol.md:{}: then {came}", block[0].0))?;
        }
        Ok(())
    }

    /// Plays a line, and those behind it that belong to the same request or answer; returns their
    /// number.
    fn step(&mut self, lines: &[(usize, &str)]) -> Played<usize> {
        let first = lines[0].1;
        if let Some(flags) = first.strip_prefix("$ pousse") {
            self.start(&flags.split_whitespace().collect::<Vec<_>>());
            return Ok(1);
        }
        if self.server.is_none() {
            self.start(&[]);
        }
        let (name, arrow, _) = parts(first)?;
        let of_same = |(_, line): &&(usize, &str)| {
            parts(line).is_ok_and(|(whose, way, _)| (whose, way) == (name, arrow))
        };
        let run: Vec<&str> =
            lines.iter().take_while(of_same).map(|(_, line)| parts(line).unwrap().2).collect();
        let mut client = self.clients.remove(name).unwrap_or_default();
        let played = match arrow {
            '>' => self.say(&mut client, &run),
            _ => self.hear(&mut client, &run),
        };
        self.clients.insert(name.into(), client);
        played
    }

    fn start(&mut self, flags: &[&str]) {
        self.clients.clear();
        self.pings = flags.contains(&"--ping");
        let tokens = concat!(env!("CARGO_TARGET_TMPDIR"), "/protocol.tokens");
        std::fs::write(tokens, TOKENS).unwrap();
        let real = |flag: &&str| if *flag == "tokens" { tokens } else { *flag }.to_owned();
        let flags: Vec<String> = flags.iter().map(real).collect();
        let server = Server::start(&flags.iter().map(String::as_str).collect::<Vec<_>>());
        let mut wire = Wire::connect(&server.doors()[0]);
        wire.send(b"GET /api/messages?after=now HTTP/1.0\r\n\r\n").unwrap();
        let answer = Answer::read(&mut wire, false, now() + PATIENCE).unwrap().json().unwrap();
        self.run = answer["last"].as_str().unwrap().split('-').next().unwrap().into();
        assert_eq!(self.run.len(), RUN.len(), "lengths stay as they are");
        self.server = Some(server);
    }

    fn server(&self) -> &Server {
        self.server.as_ref().expect("it is started before the first line")
    }

    /// The page's text as it is sent, and what came as the page would have it.
    fn real(&self, text: &str) -> String {
        text.replace(RUN, &self.run).replace(AUTHORITY, &self.server().authority())
    }

    fn page(&self, text: &str) -> String {
        text.replace(&self.run, RUN).replace(&self.server().authority(), AUTHORITY)
    }

    /// Says a request, or a message over a WebSocket.
    fn say(&self, client: &mut Client, lines: &[&str]) -> Played<usize> {
        let first = lines[0];
        if first == "(the end)" {
            *client = Client::default();
            return Ok(1);
        }
        let count = match first.ends_with(" HTTP/1.1") {
            true => self.ask(client, lines)?,
            false => {
                let bytes = frame(&self.real(first))?;
                client.wire()?.send(&bytes).map_err(|error| error.to_string())?;
                1
            }
        };
        self.wait_until_it_is_read();
        Ok(count)
    }

    fn ask(&self, client: &mut Client, lines: &[&str]) -> Played<usize> {
        let is_next = |line: &&str| line.ends_with(" HTTP/1.1");
        let count = 1 + lines[1..].iter().take_while(|line| !is_next(line)).count();
        let mut parts = lines[..count].splitn(2, |line| line.is_empty());
        let mut head: Vec<String> =
            parts.next().unwrap().iter().map(|line| self.real(line)).collect();
        let content = parts.next().map(|lines| self.real(&lines.join("\n"))).unwrap_or_default();
        let has = |head: &[String], name: &str| {
            head.iter().any(|line| line.to_lowercase().starts_with(&format!("{name}:")))
        };
        if !has(&head, "host") {
            head.push(format!("Host: {}", self.server().authority()));
        }
        if !content.is_empty() {
            head.push(format!("Content-Length: {}", content.len()));
        }
        if has(&head, "upgrade") {
            for (name, value) in websocket::opening_fields() {
                if !has(&head, &name.to_lowercase()) {
                    head.push(format!("{name}: {value}"));
                }
            }
        }
        if client.wire.is_none() || !matches!(client.speaks, Speaks::Http) {
            let wire = Some(Wire::connect(&self.server().doors()[0]));
            *client = Client { wire, ..Client::default() };
        }
        client.asked = lines[0].split(' ').next().map(String::from);
        let bytes = format!("{}\r\n\r\n{content}", head.join("\r\n"));
        client.wire()?.send(bytes.as_bytes()).map_err(|error| error.to_string())?;
        Ok(count)
    }

    /// Someone who connects now is answered after everyone before has been read.
    fn wait_until_it_is_read(&self) {
        let mut wire = Wire::connect(&self.server().doors()[0]);
        wire.send(b"HEAD / HTTP/1.0\r\n\r\n").unwrap();
        Answer::read(&mut wire, true, now() + PATIENCE).unwrap();
    }

    /// Hears an answer, a line of an event stream, or a message over a WebSocket.
    fn hear(&self, client: &mut Client, lines: &[&str]) -> Played<usize> {
        let deadline = now() + PATIENCE;
        let Client { wire, speaks, asked } = client;
        let wire = wire.as_mut().ok_or("there is no connection")?;
        let compare = |came: String| match is_like(&self.page(&came), lines[0]) {
            true => Ok(1),
            false => Err(format!("came: {}", self.page(&came))),
        };
        if lines[0] == "(the end)" {
            return match wire.fill(deadline) {
                Came::End => Ok(1),
                came => Err(format!("came: {came:?} {}", show(&wire.unread))),
            };
        }
        match speaks {
            Speaks::WebSocket(reader) => compare(written(reader.read(wire, deadline)?)),
            Speaks::EventStream => compare(line(wire, deadline)?),
            Speaks::Http => {
                let to_head = asked.take().as_deref() == Some("HEAD");
                let answer = Answer::read(wire, to_head, deadline)?;
                answer.check(to_head)?;
                if answer.status == 101 {
                    *speaks = Speaks::WebSocket(Reader::default());
                } else if answer.is_event_stream() && !to_head {
                    *speaks = Speaks::EventStream;
                }
                let count = self.compare_answer(&answer, lines)?;
                if answer.is_last() && matches!(speaks, Speaks::Http) {
                    *client = Client::default();
                }
                Ok(count)
            }
        }
    }

    /// The status line, the fields that are shown, and the whole content.
    fn compare_answer(&self, answer: &Answer, lines: &[&str]) -> Played<usize> {
        let came = || format!("came: {}", self.page(&answer.to_string()));
        if !lines[0].starts_with(&format!("HTTP/1.1 {} ", answer.status)) {
            return Err(came());
        }
        let head = lines.iter().take_while(|line| !line.is_empty()).count();
        let fields: Vec<&str> = lines[1..head].to_vec();
        for field in fields {
            // What stands there is no field but what follows an answer without content.
            let Some((name, value)) = field.split_once(": ").filter(|_| is_field(field)) else {
                return Err(format!("a line without an answer before it: {field}"));
            };
            let of_answer = answer.field(name).unwrap_or_default();
            if !is_like(&self.page(&of_answer), value) {
                return Err(format!("{field}\n  {}", came()));
            }
        }
        // The blank line belongs to the answer.
        let after_head = (head + 1).min(lines.len());
        if answer.content.is_empty() {
            return Ok(after_head);
        }
        let content = String::from_utf8_lossy(&answer.content).into_owned();
        let content = self.page(content.trim_end_matches('\n'));
        let shown = lines[after_head..].first().copied().unwrap_or_default();
        match is_like(&content, shown) {
            true => Ok(after_head + 1),
            false => Err(format!("came: {content}")),
        }
    }

    fn all_is_heard(&mut self) -> Played {
        for (name, client) in &mut self.clients {
            let Some(wire) = &mut client.wire else { continue };
            wire.fill(now() + Duration::from_millis(1));
            if !wire.unread.is_empty() && !self.pings {
                return Err(format!("{name} has not heard {}", show(&wire.unread)));
            }
        }
        Ok(())
    }
}

impl Client {
    fn wire(&mut self) -> Played<&mut Wire> {
        self.wire.as_mut().ok_or_else(|| "there is no connection".into())
    }
}

/// Whose line it is, which way it goes, and what it says.
fn parts(line: &str) -> Played<(&str, char, &str)> {
    let at = line.find(['<', '>']).ok_or("a line with neither > nor <")?;
    let (name, text) = line.split_at(at);
    let arrow = if text.starts_with('<') { '<' } else { '>' };
    let text = &text[1..];
    let is_name = name.trim_end().bytes().all(|byte| byte.is_ascii_lowercase());
    match text.strip_prefix(' ') {
        _ if !is_name => Err(format!("{name:?} is no name")),
        Some(text) => Ok((name.trim_end(), arrow, text)),
        None if text.is_empty() => Ok((name.trim_end(), arrow, "")),
        None => Err("a blank stands behind > and <".into()),
    }
}

/// Whether a line can be `Name: value`.
fn is_field(line: &str) -> bool {
    let name = line.split(": ").next().unwrap_or_default();
    !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}

/// A text in which `…` stands for any piece of it.
fn is_like(came: &str, shown: &str) -> bool {
    let Some((before, after)) = shown.split_once('…') else { return came == shown };
    let Some(rest) = came.strip_prefix(before) else { return false };
    let mut ends = rest.char_indices().map(|(at, _)| at).chain([rest.len()]);
    ends.any(|at| is_like(&rest[at..], after))
}

/// A line of an event stream.
fn line(wire: &mut Wire, deadline: std::time::Instant) -> Played<String> {
    let end = loop {
        match wire.unread.iter().position(|byte| *byte == b'\n') {
            Some(end) => break end,
            None => wire.need(wire.unread.len() + 1, deadline)?,
        }
    };
    let line = wire.take(end);
    wire.take(1);
    String::from_utf8(line).map_err(|error| error.to_string())
}

/// What a client sends over a WebSocket: a text, or what stands in brackets.
fn frame(text: &str) -> Played<Vec<u8>> {
    let Some(inside) = text.strip_prefix('(').and_then(|text| text.strip_suffix(')')) else {
        return Ok(websocket::frame(true, websocket::TEXT, text.as_bytes()));
    };
    let (word, rest) = inside.split_once(' ').unwrap_or((inside, ""));
    let (opcode, payload) = match word {
        "pong" => (websocket::PONG, Vec::new()),
        "binary" => {
            let byte = |pair| u8::from_str_radix(pair, 16).map_err(|error| error.to_string());
            (websocket::BINARY, rest.split(' ').map(byte).collect::<Played<_>>()?)
        }
        "close" => {
            let (code, reason) = rest.split_once(' ').unwrap_or((rest, ""));
            let code = code.parse().map_err(|_| format!("{code:?} is no close code"))?;
            (websocket::CLOSE, websocket::close_payload(code, reason.trim_matches('"').as_bytes()))
        }
        _ => return Err(format!("({inside}) cannot be sent")),
    };
    Ok(websocket::frame(true, opcode, &payload))
}

/// What came over a WebSocket, as the page writes it.
fn written(came: Incoming) -> String {
    match came {
        Incoming::Text(text) => text,
        Incoming::Ping(_) => "(ping)".into(),
        Incoming::Pong(_) => "(pong)".into(),
        Incoming::Deflated(message) => format!("(deflated {})", written(*message)),
        Incoming::Close(None) => "(close)".into(),
        Incoming::Close(Some((code, reason))) => format!("(close {code} {reason:?})"),
        Incoming::Binary(bytes) => {
            let bytes: Vec<String> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            format!("(binary {})", bytes.join(" "))
        }
    }
}

#[test]
fn a_page_that_lies_is_found_out() {
    let told = |text: &str| {
        let page = format!("## A section\n\n```console\n{text}\n```\n");
        let sections = sections(&page);
        sections.iter().find_map(|blocks| Stage::default().play(blocks).err()).unwrap_or_default()
    };
    let request = "> GET /api/messages HTTP/1.1\n";
    let answer = "{\"messages\":[],\"last\":\"1795418616305-0\",\"gap\":false,\"readers\":0}";
    assert_eq!(told(&format!("{request}< HTTP/1.1 200 OK\n<\n< {answer}")), "");
    for (text, wrong) in [
        (format!("{request}< HTTP/1.1 201 Created\n<\n< {answer}"), "docs/protocol.md:5: "),
        (format!("{request}< HTTP/1.1 200 OK\n< ETag: W/\"7\"\n<\n< {answer}"), "ETag"),
        (format!("{request}< HTTP/1.1 200 OK\n<\n< {{}}"), answer),
        (format!("{request}< HTTP/1.1 200 OK"), answer),
        (request.trim_end().into(), "then  has not heard"),
        ("GET / HTTP/1.1".into(), "neither > nor <"),
    ] {
        let told = told(&text);
        assert!(told.contains(wrong), "{text}\n{told}");
    }
}
