//! The words of a script, and how a line of them becomes a [`Step`]. `README.md` beside this file
//! teaches them. A script is read whole before it begins, so a misspelt word in its last line is
//! told first.

use std::time::Duration;

use crate::step::{
    Act, Check, Clause, Coming, Data, Frame, Kind, Lasting, Line, OfDisk, OfServer, Operand,
    Operator, Part, Request, Squeezed, Step, Timing, What,
};

/// Reads a whole script. An error names its line.
pub(crate) fn parse(script: &str) -> Result<Vec<Line>, (usize, String)> {
    let mut blocks: Vec<(usize, &str, Vec<&str>)> = Vec::new();
    for (number, line) in (1..).zip(script.lines()) {
        let trimmed = line.trim();
        if trimmed.is_empty() || trimmed.starts_with('#') {
            continue;
        }
        match (line.starts_with(' '), blocks.last_mut()) {
            (false, _) => blocks.push((number, trimmed, Vec::new())),
            (true, Some((_, _, more))) => more.push(trimmed),
            (true, None) => return Err((number, "an indented line that belongs to none".into())),
        }
    }
    blocks
        .into_iter()
        .map(|(number, head, more)| {
            let step = parse_step(head, &more).map_err(|wrong| (number, wrong))?;
            let text = [&[head], &more[..]].concat().join("\n    ");
            Ok(Line { number, text, step })
        })
        .collect()
}

type Parsed<T> = Result<T, String>;

/// What is left of a line.
struct Words<'a> {
    rest: &'a str,
}

impl<'a> Words<'a> {
    fn new(rest: &'a str) -> Self {
        Words { rest: rest.trim_start() }
    }

    fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    fn peek(&self) -> &'a str {
        self.rest.split_whitespace().next().unwrap_or("")
    }

    fn word(&mut self) -> Parsed<&'a str> {
        let word = self.peek();
        self.rest = self.rest[word.len()..].trim_start();
        if word.is_empty() { Err("the line ends too early".into()) } else { Ok(word) }
    }

    /// Takes the word if it is next.
    fn takes(&mut self, word: &str) -> bool {
        let is_next = self.peek() == word;
        if is_next {
            self.rest = self.rest[word.len()..].trim_start();
        }
        is_next
    }

    fn rest(&mut self) -> &'a str {
        std::mem::take(&mut self.rest)
    }

    fn number<T: std::str::FromStr>(&mut self) -> Parsed<T> {
        let word = self.word()?;
        word.parse().map_err(|_| format!("{word:?} is no number"))
    }

    fn duration(&mut self) -> Parsed<Duration> {
        let word = self.word()?;
        let (digits, unit) = match word.strip_suffix("ms") {
            Some(digits) => (digits, 1),
            None => (word.strip_suffix('s').unwrap_or(""), 1000),
        };
        let number: u64 = digits.parse().map_err(|_| format!("{word:?} is no time like 300ms"))?;
        Ok(Duration::from_millis(number * unit))
    }

    /// Bytes, as far as they go; at least one part of them.
    fn data(&mut self) -> Parsed<Data> {
        let mut data = Vec::new();
        while let Some(part) = self.part()? {
            data.push(part);
        }
        if data.is_empty() { Err(format!("{:?} are no bytes", self.rest)) } else { Ok(data) }
    }

    fn optional_data(&mut self) -> Parsed<Option<Data>> {
        if self.is_empty() || matches!(self.peek(), "after" | "within") {
            return Ok(None);
        }
        self.data().map(Some)
    }

    fn part(&mut self) -> Parsed<Option<Part>> {
        if let Some(rest) = self.rest.strip_prefix('"') {
            let mut escaped = false;
            let end = rest.find(|c| {
                let is_end = c == '"' && !escaped;
                escaped = c == '\\' && !escaped;
                is_end
            });
            let end = end.ok_or("a quotation without its end")?;
            self.rest = rest[end + 1..].trim_start();
            return Ok(Some(Part::Quoted(rest[..end].into())));
        }
        if let Some(rest) = self.rest.strip_prefix('(') {
            self.rest = rest.trim_start();
            let group = self.data()?;
            self.rest = self.rest.strip_prefix(')').ok_or("a group without its end")?.trim_start();
            return Ok(Some(Part::Group(group)));
        }
        let word = self.peek().trim_end_matches(')');
        if self.rest[word.len()..].trim_start().starts_with("x ") {
            let times = self.number()?;
            self.takes("x");
            let part = self.part()?.ok_or("nothing to repeat")?;
            return Ok(Some(Part::Repeated(times, Box::new(part))));
        }
        let pairs = word.as_bytes().chunks(2);
        let bytes: Option<Vec<u8>> = pairs
            .map(|pair| match pair {
                [_, _] => u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok(),
                _ => None,
            })
            .collect();
        Ok(bytes.filter(|bytes| !bytes.is_empty()).map(|bytes| {
            self.rest = self.rest[word.len()..].trim_start();
            Part::Hex(bytes)
        }))
    }

    fn is_json(&self) -> bool {
        self.rest.starts_with('{')
    }

    /// JSON from `{` to its `}`; the names and `…` in it are still to be replaced.
    fn json(&mut self) -> Parsed<String> {
        let (mut depth, mut is_quoted, mut is_escaped) = (0, false, false);
        let end = self.rest.find(|c| {
            match c {
                '"' if !is_escaped => is_quoted = !is_quoted,
                '{' if !is_quoted => depth += 1,
                '}' if !is_quoted => depth -= 1,
                _ => {}
            }
            is_escaped = c == '\\' && !is_escaped;
            depth == 0
        });
        let end = end.ok_or("JSON without its end")?;
        let (json, rest) = self.rest.split_at(end + 1);
        self.rest = rest.trim_start();
        Ok(json.into())
    }

    fn timing(&mut self) -> Parsed<Timing> {
        let mut timing = Timing::default();
        if self.takes("after") {
            timing.after = Some(self.duration()?);
        }
        if self.takes("within") {
            timing.within = Some(self.duration()?);
        }
        Ok(timing)
    }

    fn done<T>(&self, value: T) -> Parsed<T> {
        if self.is_empty() { Ok(value) } else { Err(format!("{:?} is too much", self.rest)) }
    }
}

fn parse_step(head: &str, more: &[&str]) -> Parsed<Step> {
    let mut words = Words::new(head);
    let subject = words.word()?;
    if !subject.bytes().all(|byte| byte.is_ascii_lowercase()) {
        return Err(format!("{subject:?}: a line begins with server, file or a small name"));
    }
    let is_request = matches!(words.peek(), "requests" | "asks" | "opens");
    if is_request && subject != "server" && subject != "file" {
        return parse_request_act(subject, &mut words, more);
    }
    // Other lines go on as if they had not been broken.
    let joined = [&[words.rest()], more].concat().join(" ");
    let mut words = Words::new(&joined);
    let step = match subject {
        "server" => Step::Server(parse_server(&mut words)?),
        "file" => Step::Disk(words.word()?.into(), parse_disk(&mut words)?),
        actor => Step::Actor(actor.into(), parse_act(&mut words)?),
    };
    words.done(step)
}

fn parse_server(words: &mut Words<'_>) -> Parsed<OfServer> {
    if words.is_empty() || words.peek().starts_with("--") {
        return Ok(OfServer::Starts(words.rest().split_whitespace().map(String::from).collect()));
    }
    match words.word()? {
        "restarts" => Ok(OfServer::Restarts),
        "receives" => words.word().map(|name| OfServer::Receives(name.into())),
        "exits" => words.number().map(OfServer::Exits),
        "says" => words.data().map(OfServer::Says),
        word => Err(format!("the server does not {word:?}")),
    }
}

fn parse_disk(words: &mut Words<'_>) -> Parsed<OfDisk> {
    match words.word()? {
        "holds" => words.data().map(OfDisk::Holds),
        "is" if words.takes("gone") => Ok(OfDisk::IsGone),
        "has" if words.takes("mode") => {
            let mode = words.word()?;
            let mode = u32::from_str_radix(mode, 8).map_err(|_| format!("{mode:?} is no mode"))?;
            Ok(OfDisk::HasMode(mode))
        }
        "links" if words.takes("to") => words.word().map(|to| OfDisk::LinksTo(to.into())),
        word => Err(format!("a file does not {word:?}")),
    }
}

/// `requests METHOD TARGET`, `asks for ws TARGET`, `opens ws TARGET`, with clauses.
fn parse_request_act(actor: &str, words: &mut Words<'_>, more: &[&str]) -> Parsed<Step> {
    let verb = words.word()?;
    let lasting = match (verb, verb == "asks" && !words.takes("for")) {
        ("requests", _) => None,
        (_, true) => return Err("asks for what?".into()),
        _ => match words.word()? {
            "ws" => Some(Lasting::WebSocket),
            "v1" => Some(Lasting::V1),
            "stream" => Some(Lasting::Stream),
            word => return Err(format!("{word:?} cannot be opened: ws, v1 or stream")),
        },
    };
    let method = match lasting {
        None => words.word()?,
        Some(_) => "GET",
    };
    let mut request =
        Request { method: method.into(), target: words.word()?.into(), clauses: Vec::new() };
    for line in [words.rest()].iter().chain(more).filter(|line| !line.is_empty()) {
        request.clauses.push(parse_clause(line)?);
    }
    let act = match lasting {
        Some(lasting) => Act::Opens(request, verb == "opens", lasting),
        None => Act::Requests(request),
    };
    Ok(Step::Actor(actor.into(), act))
}

fn parse_clause(line: &str) -> Parsed<Clause> {
    let mut words = Words::new(line);
    match words.word()? {
        "with" => {
            let field = words.rest().split_once(':');
            let (name, value) = field.ok_or_else(|| format!("{line:?}: with NAME: VALUE"))?;
            Ok(Clause::With(name.into(), value.trim().into()))
        }
        "without" => {
            let name = words.word()?;
            words.done(Clause::Without(name.into()))
        }
        "content" => {
            let data = words.data()?;
            words.done(Clause::Content(data))
        }
        word => Err(format!("{word:?}: a request goes on by with, without or content")),
    }
}

fn parse_act(words: &mut Words<'_>) -> Parsed<Act> {
    match words.word()? {
        "connects" => Ok(Act::Connects),
        "leaves" => Ok(Act::Leaves),
        "uses" if words.takes("listener") => match words.number()? {
            0 => Err("listeners are counted from 1".into()),
            number => Ok(Act::Uses(number)),
        },
        "sends" => words.data().map(Act::Sends),
        ">" if words.takes("end") => Ok(Act::Finishes),
        ">" if words.is_json() => {
            let mut messages = Vec::new();
            while words.is_json() {
                messages.push(words.json()?);
            }
            Ok(Act::SaysJson(messages))
        }
        ">" => parse_frame(words, true).map(Act::Says),
        "<" => parse_hearing(words),
        "repeats" => {
            let (method, target) = (words.word()?.into(), words.word()?.into());
            let request = Request { method, target, clauses: Vec::new() };
            if !words.takes("until") {
                return Err("repeats METHOD PATH until …".into());
            }
            let (what, check) = parse_meeting(words)?;
            Ok(Act::Repeats(request, what, check))
        }
        "keeps" => {
            let what = parse_what(words)?;
            let before = words.takes("before").then(|| words.word()).transpose()?;
            if !words.takes("as") {
                return Err("keeps … as NAME".into());
            }
            Ok(Act::Keeps(what, before.map(String::from), words.word()?.into()))
        }
        word => Err(format!("nobody knows how to {word:?}")),
    }
}

fn parse_frame(words: &mut Words<'_>, to_say: bool) -> Parsed<Frame> {
    let squeezed = match words.peek() {
        "rsv1" if to_say => Squeezed::As,
        "deflated" => Squeezed::To,
        _ => Squeezed::No,
    };
    if squeezed != Squeezed::No {
        words.word()?;
    }
    let kind = match words.peek() {
        "ping" => Kind::Ping,
        "pong" => Kind::Pong,
        "close" => Kind::Close(None),
        "first" if to_say => Kind::First,
        "middle" if to_say => Kind::Middle,
        "last" if to_say => Kind::Last,
        _ => Kind::Message,
    };
    if kind != Kind::Message {
        words.word()?;
    }
    let binary = words.takes("binary");
    match kind {
        Kind::Ping | Kind::Pong => {}
        Kind::Close(_) if words.peek().bytes().all(|byte| byte.is_ascii_digit()) => {
            let code = (!words.is_empty()).then(|| words.number()).transpose()?;
            let data = words.optional_data()?;
            return Ok(Frame { kind: Kind::Close(code), squeezed, binary, data });
        }
        Kind::Close(_) => return Ok(Frame { kind, squeezed, binary, data: None }),
        _ => return Ok(Frame { kind, squeezed, binary, data: Some(words.data()?) }),
    }
    Ok(Frame { kind, squeezed, binary, data: words.optional_data()? })
}

fn parse_hearing(words: &mut Words<'_>) -> Parsed<Act> {
    let first = words.peek();
    if matches!(first, "field" | "content" | "json" | "no") {
        let (what, check) = parse_meeting(words)?;
        return Ok(Act::Meets(what, check));
    }
    if words.takes("nothing") {
        return match words.takes("within") {
            true => words.duration().map(Act::Nothing),
            false => Err("nothing within how long?".into()),
        };
    }
    if words.takes("end") {
        return words.timing().map(Act::End);
    }
    if words.takes("anything") {
        return match words.takes("until") {
            true => parse_coming(words).map(Act::HearsOnUntil),
            false => Err("anything until what?".into()),
        };
    }
    let is_status = first.len() == 3 && first.bytes().all(|byte| byte.is_ascii_digit());
    if is_status && !words.rest[3..].trim_start().starts_with("x ") {
        let status = words.number()?;
        return Ok(Act::Status(status, words.timing()?));
    }
    let coming = parse_coming(words)?;
    Ok(Act::Hears(coming, words.timing()?))
}

fn parse_coming(words: &mut Words<'_>) -> Parsed<Coming> {
    if words.is_json() {
        return words.json().map(|json| Coming::Json(json, Squeezed::No));
    }
    let mut after = Words::new(words.rest);
    if after.takes("deflated") && after.is_json() {
        words.rest = after.rest;
        return words.json().map(|json| Coming::Json(json, Squeezed::To));
    }
    let mut block = Vec::new();
    while let name @ ("id" | "event" | "data" | "retry") = words.peek() {
        words.word()?;
        let value = match name {
            "data" if words.is_json() => Operand::Json(words.json()?),
            "data" => Operand::Data(words.data()?),
            _ => Operand::Text(words.word()?.into()),
        };
        block.push((name.into(), value));
    }
    match block.is_empty() {
        true => parse_frame(words, false).map(Coming::Frame),
        false => Ok(Coming::Block(block)),
    }
}

fn parse_what(words: &mut Words<'_>) -> Parsed<What> {
    match words.word()? {
        "field" => Ok(What::Field(words.word()?.into())),
        "json" => Ok(What::Json(words.word()?.into())),
        "content" => Ok(What::Content),
        word => Err(format!("{word:?} is no part of an answer: field, json or content")),
    }
}

fn parse_meeting(words: &mut Words<'_>) -> Parsed<(What, Check)> {
    if words.takes("no") {
        return Ok((parse_what(words)?, Check::Absent));
    }
    let what = parse_what(words)?;
    let operator = match words.word()? {
        "=" => Operator::Equals,
        "!=" => Operator::Differs,
        "~" => Operator::Contains,
        "lacks" => Operator::Lacks,
        "begins" => Operator::Begins,
        "ends" => Operator::Ends,
        "has" => Operator::Has,
        word => return Err(format!("{word:?} is no way to compare")),
    };
    let operand = match what {
        _ if operator == Operator::Has => Operand::Json(words.number::<usize>()?.to_string()),
        What::Content => Operand::Data(words.data()?),
        _ if words.is_empty() => return Err("compared with what?".into()),
        What::Json(_) => Operand::Json(words.rest().into()),
        What::Field(_) => Operand::Text(words.rest().into()),
    };
    Ok((what, Check::Is(operator, operand)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_that_is_not_understood_is_refused_with_its_number() {
        for line in [
            "Alice > \"x\"",
            "alice",
            "alice shouts \"x\"",
            "alice > \"x",
            "alice > \"x\" y",
            "alice < 200 soon",
            "alice < nothing",
            "alice < nothing within 3",
            "alice < field Date",
            "alice < field Date is now",
            "alice requests GET",
            "alice requests GET / quickly",
            "alice opens /websocket",
            "alice opens stream",
            "alice asks ws /",
            "alice > {\"a\": {}",
            "alice < {} {}",
            "alice < id",
            "alice < id 7-1 data",
            "alice < data x",
            "alice sends 8",
            "alice > close 1000 bye",
            "alice < first \"x\"",
            "alice keeps json last",
            "server sings",
            "file x",
            "file x is old",
        ] {
            let wrong = parse(&format!("# Head.\n\n{line}\n")).map(|_| ()).unwrap_err();
            assert_eq!(wrong.0, 3, "{line}");
        }
    }

    #[test]
    fn an_indented_line_belongs_to_the_one_above() {
        let script =
            "a requests POST / with X: 1 2\n  # why\n  content \"x\"\na sends 81\n  3 x 00";
        let lines = parse(script).unwrap();
        let Step::Actor(_, Act::Requests(request)) = &lines[0].step else { panic!("{lines:?}") };
        assert!(matches!(&request.clauses[0], Clause::With(_, value) if value == "1 2"));
        assert!(matches!(&request.clauses[1], Clause::Content(_)));
        let Step::Actor(_, Act::Sends(data)) = &lines[1].step else { panic!("{lines:?}") };
        assert!(matches!(&data[..], [Part::Hex(_), Part::Repeated(3, _)]));
    }

    #[test]
    fn three_digits_are_a_status_unless_they_repeat() {
        let act = |line: &str| match parse(line).unwrap().remove(0).step {
            Step::Actor(_, act) => act,
            step => panic!("{step:?}"),
        };
        assert!(matches!(act("a < 200 within 300ms"), Act::Status(200, _)));
        assert!(matches!(act("a < 200 x \"y\""), Act::Hears(..)));
        assert!(matches!(
            act("a < close 1000 after 1s"),
            Act::Hears(Coming::Frame(Frame { kind: Kind::Close(Some(1000)), data: None, .. }), _)
        ));
    }

    #[test]
    fn json_ends_where_its_brace_is_closed_and_a_block_with_its_last_line() {
        let coming = |line: &str| match parse(line).unwrap().remove(0).step {
            Step::Actor(_, Act::Hears(coming, timing)) => (coming, timing),
            step => panic!("{step:?}"),
        };
        let (it, timing) = coming(r#"a < {"a": {"b": "}\"{"}, "c": …} after 1s"#);
        assert!(matches!(it, Coming::Json(text, _) if text == r#"{"a": {"b": "}\"{"}, "c": …}"#));
        assert!(timing.after.is_some());
        let (it, timing) = coming(r#"a < id … event x data "1" data {} within 2s"#);
        let Coming::Block(lines) = it else { panic!("{it:?}") };
        let names: Vec<&str> = lines.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["id", "event", "data", "data"]);
        assert!(matches!(lines[3].1, Operand::Json(_)));
        assert!(timing.within.is_some());
    }
}
