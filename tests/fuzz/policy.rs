//! The application that is fuzzed: it does a little of everything, and the same for the same bytes.

use pousse::{
    Access, Answer, CloseCode, ConnId, Context, Decision, Denial, Grant, Handler, Message, Request,
    Response,
};

/// See the head of this file.
#[derive(Default)]
pub struct Policy {
    /// What it was called for, in order.
    pub calls: Vec<String>,
    /// WebSockets that were opened and have not ended.
    pub open: Vec<ConnId>,
    /// Nothing is published: each text comes back to who sent it, behind this sign.
    pub echo: Option<char>,
}

const DENIED: Denial = Denial::forbidden("this topic is nobody's");
const UNKNOWN: Denial = Denial::unauthorized("say who you are", &[("WWW-Authenticate", "Bearer")]);

impl Handler for Policy {
    fn on_open(&mut self, conn: ConnId, request: &Request, _: &mut Context<'_>) {
        self.calls.push(format!("open {}", request.target()));
        self.open.push(conn);
    }

    fn on_message(&mut self, conn: ConnId, message: Message<'_>, ctx: &mut Context<'_>) {
        self.calls.push(format!("message {message:?}"));
        let text = match message {
            Message::Text(text) => text,
            Message::Binary(bytes) => {
                let _ = ctx.send(conn, bytes);
                return;
            }
        };
        if let Some(sign) = self.echo.filter(|_| !text.starts_with('c')) {
            let _ = ctx.send(conn, &format!("{sign}{text}"));
            return;
        }
        let rest = text.get(1..).unwrap_or_default();
        let _ = match text.as_bytes().first() {
            Some(b'e') => ctx.send(conn, rest).is_ok(),
            Some(b'c') => {
                ctx.close(conn, CloseCode::from(1000 + rest.len() as u16 % 20), rest);
                true
            }
            Some(b's') => ctx.subscribe(conn, rest, pousse::After::Earliest).is_ok(),
            Some(b'u') => ctx.unsubscribe(conn, rest),
            Some(b'x') => ctx.publish_except(conn, "general", rest).is_ok(),
            _ => ctx.publish("general", text).is_ok(),
        };
    }

    fn on_close(&mut self, conn: ConnId, code: CloseCode, reason: &str, _: &mut Context<'_>) {
        self.calls.push(format!("close {code} {reason:?}"));
        let at = self.open.iter().position(|it| *it == conn);
        self.open.remove(at.expect("whoever ends was opened, and ends once"));
    }

    fn on_request(&mut self, request: &Request, _: &mut Context<'_>) -> Option<Answer> {
        let content = String::from_utf8_lossy(request.content());
        self.calls.push(format!("{} {} {content:?}", request.method(), request.target()));
        match request.path() {
            "/hello" => Some(Response::text(200, "hello").into()),
            "/echo" => Some(Response::new(200).with_content(request.content().to_vec()).into()),
            "/publish" => Some(Answer::Publish("b".into())),
            _ => None,
        }
    }

    fn authorize(&mut self, _: &Request, access: Access<'_>, _: &mut Context<'_>) -> Decision {
        match access {
            Access::Read(topics) if topics.iter().any(|topic| topic.starts_with("no")) => {
                Decision::Refuse(UNKNOWN)
            }
            Access::Publish(topic) if topic.starts_with("no") => Decision::Refuse(DENIED),
            Access::Read([]) => Decision::Grant(Grant(1)),
            _ => Decision::Allow,
        }
    }

    fn authorize_again(
        &mut self,
        _: ConnId,
        _: Option<Grant>,
        access: Access<'_>,
        _: &mut Context<'_>,
    ) -> Decision {
        match access {
            Access::Publish(topic) if topic.starts_with("no") => Decision::Refuse(DENIED),
            _ => Decision::Allow,
        }
    }
}
