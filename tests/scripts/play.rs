//! Plays a script against the real program: each actor has a connection of their own, each line
//! is done or waited for before the next one begins.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;

use crate::actor::{Actor, Expected, Played, Wanted, Wrong, wrong};
use crate::language::parse;
use crate::step::{
    Act, Check, Clause, Coming, Data, Frame, Kind, Lasting, OfDisk, OfServer, Operand, Part,
    Request, Squeezed, Step, Timing, What,
};
use crate::support::http::Answer;
use crate::support::websocket::{self, Incoming};
use crate::support::{PATIENCE, Server, now, show};
use crate::values::{fits, found, json, unescape};

/// Plays the script of this name in this folder. Panics with its name, the line, what was
/// expected and what came.
pub(crate) fn play(name: &str) {
    let path = format!("{}/tests/scripts/{name}.txt", env!("CARGO_MANIFEST_DIR"));
    let script = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
    let lines = match parse(&script) {
        Ok(lines) => lines,
        Err((number, wrong)) => panic!("tests/scripts/{name}.txt:{number}: {wrong}"),
    };
    let mut stage = Stage::new(name);
    let mut last = 0;
    for line in lines {
        last = line.number;
        if let Err(Wrong(expected, came)) = stage.step(&line.step) {
            let text = &line.text;
            panic!(
                "tests/scripts/{name}.txt:{last}: {text}\n  expected: {expected}\n  \
                 came:     {came}\n{}",
                stage.epilogue()
            );
        }
    }
    if let Err(Wrong(expected, came)) = stage.end() {
        panic!(
            "tests/scripts/{name}.txt, after its last line {last}\n  expected: {expected}\n  \
             came:     {came}\n{}",
            stage.epilogue()
        );
    }
}

/// Everything a script has to do with.
struct Stage {
    folder: PathBuf,
    flags: Vec<String>,
    server: Option<Server>,
    /// How it ended, and what it had said.
    ended: Option<(ExitStatus, String)>,
    actors: BTreeMap<String, Actor>,
    names: BTreeMap<String, String>,
}

impl Stage {
    fn new(name: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("pousse-{}-{name}", std::process::id()));
        fs::create_dir_all(&folder).expect("the temporary folder can be written to");
        let dir = folder.display().to_string();
        Stage {
            folder,
            flags: Vec::new(),
            server: None,
            ended: None,
            actors: BTreeMap::new(),
            names: BTreeMap::from([("DIR".into(), dir)]),
        }
    }

    fn step(&mut self, step: &Step) -> Played {
        match step {
            Step::Server(OfServer::Starts(flags)) => {
                self.flags = flags.iter().map(|flag| self.named(flag)).collect::<Played<_>>()?;
                self.start()
            }
            Step::Server(of_server) => self.of_server(of_server),
            Step::Disk(name, of_disk) => self.of_disk(name, of_disk),
            Step::Actor(name, act) => {
                // Taken out for the time of the step, so that it can use the stage.
                let mut actor = self.actors.remove(name).unwrap_or_else(Actor::new);
                let played = self.act(&mut actor, act);
                self.actors.insert(name.clone(), actor);
                played
            }
        }
    }

    /// What is true at the end of every script.
    fn end(&mut self) -> Played {
        for (name, actor) in &mut self.actors {
            if let Some(wire) = &mut actor.wire {
                wire.fill(now());
                if !wire.unread.is_empty() {
                    return wrong(format!("{name} has heard everything"), show(&wire.unread));
                }
            }
        }
        let Some(server) = &mut self.server else { return Ok(()) };
        if !server.is_running() {
            return wrong("the server still runs", "it has ended");
        }
        match server.stderr().contains("panicked") {
            true => wrong("no panic in the server", "one"),
            false => Ok(()),
        }
    }

    /// What helps to understand a failure.
    fn epilogue(&self) -> String {
        let said = match (&self.server, &self.ended) {
            (Some(server), _) => server.stderr(),
            (None, Some((_, said))) => said.clone(),
            (None, None) => return "  there was no server".into(),
        };
        let lines: Vec<&str> = said.lines().collect();
        let shown = &lines[lines.len().saturating_sub(20)..];
        format!("  the server, flags {:?}, said:\n    {}", self.flags, shown.join("\n    "))
    }

    fn start(&mut self) -> Played {
        let flags: Vec<&str> = self.flags.iter().map(String::as_str).collect();
        match Server::try_start(&flags) {
            Ok(server) => {
                let authority = server.authority();
                let port = authority.rsplit_once(':').map_or("", |(_, port)| port).to_owned();
                self.names.insert("PORT".into(), port);
                self.names.insert("HOST".into(), authority);
                self.server = Some(server);
            }
            Err(ended) => self.ended = Some(ended),
        }
        Ok(())
    }

    fn server(&self) -> Played<&Server> {
        match (&self.server, &self.ended) {
            (Some(server), _) => Ok(server),
            (None, Some((status, _))) => wrong("the server runs", format!("it ended, {status}")),
            (None, None) => wrong("the server runs", "it was never started"),
        }
    }

    fn of_server(&mut self, of_server: &OfServer) -> Played {
        match of_server {
            OfServer::Starts(_) => self.start(),
            OfServer::Restarts => {
                self.server()?;
                self.server = None;
                self.actors.clear();
                self.start()
            }
            OfServer::Receives(name) => {
                let signal = match name.as_str() {
                    "TERM" => Signal::TERM,
                    "INT" => Signal::INT,
                    "HUP" => Signal::HUP,
                    "USR1" => Signal::USR1,
                    "USR2" => Signal::USR2,
                    _ => return wrong("the name of a signal", name.as_str()),
                };
                self.server()?.signal(signal);
                Ok(())
            }
            OfServer::Exits(code) => {
                if let Some(mut server) = self.server.take() {
                    match server.wait() {
                        None => return wrong("the server ends", "it still runs"),
                        Some(status) => self.ended = Some((status, server.stderr())),
                    }
                }
                let came = self.ended.as_ref().map(|(status, _)| *status);
                match came.and_then(|status| status.code()) == Some(*code) {
                    true => Ok(()),
                    false => wrong(format!("exit {code}"), format!("{came:?}")),
                }
            }
            OfServer::Says(data) => {
                let text = String::from_utf8_lossy(&self.bytes(data)?).into_owned();
                let found = match (&self.server, &self.ended) {
                    (Some(server), _) => server.says(&text),
                    (None, ended) => ended.as_ref().is_some_and(|(_, said)| said.contains(&text)),
                };
                found.then_some(()).ok_or_else(|| Wrong(format!("{text:?}"), "other words".into()))
            }
        }
    }

    fn of_disk(&self, name: &str, of_disk: &OfDisk) -> Played {
        let path = self.folder.join(name);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).expect("it is within our own folder");
        }
        match of_disk {
            OfDisk::Holds(data) => fs::write(&path, self.bytes(data)?).expect("the folder is ours"),
            OfDisk::LinksTo(to) => {
                let to = self.named(to)?;
                std::os::unix::fs::symlink(to, &path).expect("the folder is ours");
            }
            OfDisk::IsGone if path.symlink_metadata().is_ok() => return wrong("no file", "one"),
            OfDisk::IsGone => {}
            OfDisk::HasMode(mode) => {
                let came = path.symlink_metadata().map(|data| data.permissions().mode() & 0o777);
                if came.as_ref().ok() != Some(mode) {
                    return wrong(format!("mode {mode:o}"), format!("{came:?}"));
                }
            }
        }
        Ok(())
    }

    /// The text with the kept values in the places of their names: `$LAST`.
    fn named(&self, text: &str) -> Played<String> {
        let mut pieces = text.split('$');
        let mut named = pieces.next().unwrap_or_default().to_owned();
        for piece in pieces {
            let is_name = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_';
            let (name, rest) = piece.split_at(piece.find(|c| !is_name(c)).unwrap_or(piece.len()));
            match self.names.get(name) {
                Some(value) => named += value,
                None => return wrong(format!("something kept as {name}"), "nothing"),
            }
            named += rest;
        }
        Ok(named)
    }

    fn bytes(&self, data: &Data) -> Played<Vec<u8>> {
        let parts = data.iter().map(|part| self.part(part)).collect::<Played<Vec<_>>>()?;
        Ok(parts.concat())
    }

    fn part(&self, part: &Part) -> Played<Vec<u8>> {
        match part {
            Part::Hex(bytes) => Ok(bytes.clone()),
            Part::Group(parts) => self.bytes(parts),
            Part::Repeated(times, part) => Ok(self.part(part)?.repeat(*times)),
            Part::Quoted(text) => unescape(&self.named(text)?)
                .ok_or_else(|| Wrong("\\r \\n \\t \\\" \\\\ or \\xHH".into(), text.clone())),
        }
    }

    fn act(&mut self, actor: &mut Actor, act: &Act) -> Played {
        match act {
            Act::Connects => actor.connect(self.server()?),
            Act::Leaves => *actor = Actor { listener: actor.listener, ..Actor::new() },
            Act::Uses(listener) => actor.listener = *listener,
            Act::Sends(data) => {
                let bytes = self.bytes(data)?;
                if actor.wire.is_none() {
                    actor.connect(self.server()?);
                }
                actor.send(&bytes)?;
            }
            Act::Finishes => {
                actor.sent_at = now();
                if let Err(error) = actor.wire()?.finish() {
                    return wrong("a connection", error.to_string());
                }
            }
            Act::Requests(request) => self.request(actor, request, &[])?,
            Act::Opens(request, opens, lasting) => {
                let fields = match lasting {
                    Lasting::Stream => vec![("Accept", "text/event-stream")],
                    Lasting::WebSocket => websocket::opening_fields().to_vec(),
                    Lasting::V1 => {
                        let protocol = [("Sec-WebSocket-Protocol", "pousse.v1")];
                        [&websocket::opening_fields()[..], &protocol].concat()
                    }
                };
                self.request(actor, request, &fields)?;
                if *opens {
                    actor.open(*lasting)?;
                }
            }
            Act::Repeats(request, what, check) => self.repeat(actor, request, what, check)?,
            Act::Says(frame) => {
                let bytes = self.frame_bytes(actor, frame)?;
                actor.send(&bytes)?;
            }
            Act::SaysJson(messages) => {
                let texts =
                    messages.iter().map(|text| self.named(text)).collect::<Played<Vec<_>>>()?;
                let frame =
                    |text: &String| websocket::frame(true, websocket::TEXT, text.as_bytes());
                actor.send(&texts.iter().map(frame).collect::<Vec<_>>().concat())?;
            }
            Act::Hears(coming, timing) => actor.hear(&self.expected(coming)?, *timing)?,
            Act::HearsOnUntil(coming) => actor.hear_on_until(&self.expected(coming)?)?,
            Act::Status(status, timing) => actor.hear_answer(*status, *timing)?,
            Act::Meets(what, check) => self.meet(actor.answer()?, what, check)?,
            Act::Nothing(within) => actor.hear_nothing(*within)?,
            Act::End(timing) => actor.hear_end(*timing)?,
            Act::Keeps(what, before, name) => {
                let value = match found(actor.answer()?, what)? {
                    Some(Value::String(text)) => text,
                    Some(value) => value.to_string(),
                    None => return wrong("a value to keep", "none"),
                };
                let kept = match before {
                    None => Some(value.as_str()),
                    Some(end) => value.split_once(end.as_str()).map(|(head, _)| head),
                };
                let kept = kept.ok_or_else(|| Wrong(format!("{before:?} in it"), value.clone()))?;
                self.names.insert(name.clone(), kept.into());
            }
        }
        Ok(())
    }

    fn request(
        &self,
        actor: &mut Actor,
        request: &Request,
        more: &[(&'static str, &'static str)],
    ) -> Played {
        let server = self.server()?;
        let mut fields = vec![("Host".to_owned(), self.named("$HOST")?)];
        fields.extend(more.iter().map(|(name, value)| ((*name).into(), (*value).into())));
        let mut content = Vec::new();
        for clause in &request.clauses {
            match clause {
                Clause::With(name, value) => {
                    let value = self.named(value)?;
                    match fields.iter_mut().find(|(field, _)| field.eq_ignore_ascii_case(name)) {
                        Some(field) => field.1 = value,
                        None => fields.push((name.clone(), value)),
                    }
                }
                Clause::Without(name) => {
                    fields.retain(|(field, _)| !field.eq_ignore_ascii_case(name));
                }
                Clause::Content(data) => {
                    content = self.bytes(data)?;
                    fields.push(("Content-Length".into(), content.len().to_string()));
                }
            }
        }
        let head = format!("{} {} HTTP/1.1\r\n", request.method, self.named(&request.target)?);
        let mut bytes = head.into_bytes();
        for (name, value) in fields {
            bytes.extend(format!("{name}: {value}\r\n").into_bytes());
        }
        bytes.extend(b"\r\n");
        bytes.extend(content);
        actor.speaks_http()?;
        let was_last = actor.asked.is_empty() && actor.answer.as_ref().is_some_and(Answer::is_last);
        if actor.wire.is_none() || was_last {
            actor.connect(server);
        }
        actor.asked.push_back(request.method == "HEAD");
        actor.send(&bytes)
    }

    /// Asks again and again until the answer is as it should be.
    fn repeat(&self, actor: &mut Actor, request: &Request, what: &What, check: &Check) -> Played {
        let deadline = now() + PATIENCE;
        loop {
            self.request(actor, request, &[])?;
            actor.hear_answer(200, Timing::default())?;
            match self.meet(actor.answer()?, what, check) {
                Err(_) if now() < deadline => actor.hear_nothing(Duration::from_millis(10))?,
                played => return played,
            }
        }
    }

    fn frame_bytes(&self, actor: &Actor, frame: &Frame) -> Played<Vec<u8>> {
        let data = frame.data.as_ref().map(|data| self.bytes(data)).transpose()?;
        let opcode = if frame.binary { websocket::BINARY } else { websocket::TEXT };
        let (fin, opcode, payload) = match frame.kind {
            Kind::Message => (true, opcode, data.unwrap_or_default()),
            Kind::First => (false, opcode, data.unwrap_or_default()),
            Kind::Middle => (false, 0, data.unwrap_or_default()),
            Kind::Last => (true, 0, data.unwrap_or_default()),
            Kind::Ping => (true, websocket::PING, data.unwrap_or_default()),
            Kind::Pong => (true, websocket::PONG, data.unwrap_or(actor.last_ping.clone())),
            Kind::Close(None) => (true, websocket::CLOSE, Vec::new()),
            Kind::Close(Some(code)) => {
                let reason = data.unwrap_or_default();
                (true, websocket::CLOSE, websocket::close_payload(code, &reason))
            }
        };
        Ok(match frame.squeezed {
            Squeezed::No => websocket::frame(fin, opcode, &payload),
            Squeezed::As => websocket::frame(fin, websocket::RSV1 | opcode, &payload),
            Squeezed::To => {
                websocket::frame(fin, websocket::RSV1 | opcode, &websocket::deflate(&payload))
            }
        })
    }

    fn expected(&self, coming: &Coming) -> Played<Expected> {
        match coming {
            Coming::Frame(frame) => self.expected_frame(frame),
            Coming::Json(text, squeezed) => {
                Ok(Expected::Json(json(&self.named(text)?)?, *squeezed == Squeezed::To))
            }
            Coming::Block(lines) => {
                let wanted = |(name, operand): &(String, Operand)| {
                    let wanted = match operand {
                        Operand::Text(text) => Wanted::Text(self.named(text)?),
                        Operand::Json(text) => Wanted::Json(json(&self.named(text)?)?),
                        Operand::Data(data) => {
                            Wanted::Text(String::from_utf8_lossy(&self.bytes(data)?).into_owned())
                        }
                    };
                    Ok((name.clone(), wanted))
                };
                lines.iter().map(wanted).collect::<Played<_>>().map(Expected::Block)
            }
        }
    }

    fn expected_frame(&self, frame: &Frame) -> Played<Expected> {
        let data = frame.data.as_ref().map(|data| self.bytes(data)).transpose()?;
        let any_payload = data.is_none();
        let payload = data.unwrap_or_default();
        let text = String::from_utf8_lossy(&payload).into_owned();
        let incoming = match frame.kind {
            Kind::Ping => Incoming::Ping(payload),
            Kind::Pong => Incoming::Pong(payload),
            Kind::Close(code) => Incoming::Close(code.map(|code| (code, text))),
            _ if frame.binary => Incoming::Binary(payload),
            _ => Incoming::Text(text),
        };
        let incoming = match frame.squeezed {
            Squeezed::No => incoming,
            _ => Incoming::Deflated(Box::new(incoming)),
        };
        Ok(Expected::Frame(incoming, any_payload))
    }

    fn meet(&self, answer: &Answer, what: &What, check: &Check) -> Played {
        let came = found(answer, what)?;
        let (operator, operand) = match (check, came.is_some()) {
            (Check::Absent, false) => return Ok(()),
            (Check::Absent, true) => return wrong(format!("no {what:?}"), answer.to_string()),
            (Check::Is(..), false) => return wrong(format!("{what:?}"), answer.to_string()),
            (Check::Is(operator, operand), true) => (*operator, operand),
        };
        let came = came.unwrap_or_default();
        let operand = match operand {
            Operand::Data(data) => {
                Value::String(String::from_utf8_lossy(&self.bytes(data)?).into_owned())
            }
            Operand::Json(text) => json(&self.named(text)?)?,
            Operand::Text(text) => Value::String(self.named(text)?),
        };
        match fits(&came, operator, &operand) {
            true => Ok(()),
            false => wrong(
                format!("{operator:?} {operand}"),
                format!("{}\n  in {answer}", show(came.to_string().as_bytes())),
            ),
        }
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        self.server = None;
        let _ = fs::remove_dir_all(&self.folder);
    }
}
