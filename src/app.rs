//! The application: the handler beside everything it acts on, and each call of it.
//!
//! Here bytes become events and events become calls. The handler and the hub are two fields, so a
//! handler is lent the hub without either knowing the other; and whatever it asks for is queued or
//! noted there, so that no call leads to another.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::slice;

use tungstenite::protocol::frame::coding::CloseCode;

use crate::access::{Access, Decision, Denial};
use crate::client::Client;
use crate::config::Publish;
use crate::control::{self, Action};
use crate::error::Error;
use crate::event::{Event, Transport};
use crate::exposition;
use crate::handler::{Context, Handler};
use crate::http::{Peer, Refusal, Request};
use crate::hub::Hub;
use crate::id::ConnId;
use crate::message::Message;
use crate::metrics::Reason;
use crate::perform::handler_failed;
use crate::remote::{self, Commands};
use crate::response::Response;
use crate::routes::{self, Answer};
use crate::rules;
use crate::session::{Command, What};
use crate::topic::is_topic_name;

/// See the head of this file.
pub(crate) struct App<H> {
    pub(crate) handler: H,
    pub(crate) hub: Hub,
}

impl<H: Handler> App<H> {
    /// Bytes into the connection, and its events, one by one, into the handler, until there are no
    /// more (false) or so many bytes wait to be written (true).
    pub(crate) fn feed(&mut self, id: ConnId, input: &mut &mut [u8], enough: usize) -> bool {
        loop {
            let hub = &mut self.hub;
            let Some(client) = hub.clients.get_mut(id) else { return false };
            if client.connection.waiting_bytes() >= enough {
                return true;
            }
            match client.connection.receive(input, &mut hub.turn) {
                None => return false,
                Some(Event::Request(request)) => self.request(id, request),
                Some(Event::Text(text)) => self.message(id, Message::Text(&text)),
                Some(Event::Binary(bytes)) => self.message(id, Message::Binary(&bytes)),
                Some(Event::Long) => self.long_message(id),
                Some(Event::Command(command)) => self.command(id, *command),
                Some(Event::Fault(fault)) => self.fault(id, fault.code, fault.text),
            }
        }
    }

    /// If the handler sends it on, nothing is copied: it leaves from where it is.
    fn long_message(&mut self, id: ConnId) {
        let Some(long) = self.hub.turn.at_hand.clone() else { return };
        self.message(id, long.message());
        self.hub.turn.at_hand = None;
        self.hub.turn.take_memory(long.into_memory());
    }

    fn message(&mut self, id: ConnId, message: Message<'_>) {
        let before = self.hub.turn.counters.published;
        self.call(Some(id), |handler, ctx| handler.on_message(id, message, ctx));
        if self.hub.turn.counters.published != before
            && let Some(client) = self.hub.clients.get_mut(id)
        {
            client.is_publisher = true;
        }
    }

    fn request(&mut self, id: ConnId, mut request: Box<Request>) {
        if self.hub.is_control(id) {
            return self.control(id, request);
        }
        if let Some(code) = self.hub.drain {
            // Its poll was answered before it was told; it is not to ask again and again meanwhile.
            self.hub.tell_the_end(id, code);
        }
        let known = self.hub.attribute(id, &mut request);
        let answer = match known.and_then(|()| self.admit(id, &request)) {
            Ok(()) if !request.is_whole() => return self.hub.read_content(id, request),
            Ok(()) => self.answer(id, &request),
            Err(refusal) => Err(refusal),
        };
        match answer {
            Ok(answer) => self.perform(id, &request, answer),
            Err(refusal) => self.hub.refuse(id, &request, &refusal),
        }
    }

    /// Whether the request may go on, which for what is to be published is asked before the content
    /// is read.
    fn admit(&mut self, id: ConnId, request: &Request) -> Result<(), Refusal> {
        let hub = &mut self.hub;
        routes::admit(request, &hub.rules, hub.is_on_loopback(id))?;
        if !request.content().is_empty() {
            // It was asked when its head had come.
            return Ok(());
        }
        if let Some(client) = hub.clients.get_mut(id) {
            client.set_grant(None);
            client.is_free = false;
        }
        match routes::published_topic(request, &hub.rules) {
            Some(topic) => self.authorize(id, request, Access::Publish(&topic)),
            None => Ok(()),
        }
    }

    /// What is to be done with a whole request, if that may be done.
    fn answer(&mut self, id: ConnId, request: &Request) -> Result<Answer, Refusal> {
        let asked = self.call(Some(id), |handler, ctx| handler.on_request(request, ctx));
        let answer = match asked {
            None => return Err(handler_failed()),
            Some(Some(answer)) => answer,
            Some(None) => match routes::route(request, &self.hub.rules)? {
                // Whether it may was asked when its head had come.
                answer @ Answer::Publish(_) => return Ok(answer),
                answer => answer,
            },
        };
        let access = match &answer {
            Answer::Response(_) | Answer::File => return Ok(answer),
            Answer::Upgrade(reads) | Answer::EventStream { reads, .. } => {
                Access::Read(&reads.topics)
            }
            Answer::Poll(poll) => Access::Read(&poll.reads.topics),
            Answer::Publish(topic) => {
                let asked = routes::published_topic(request, &self.hub.rules);
                if asked.as_ref().is_some_and(|asked| asked == topic) {
                    return Ok(answer);
                }
                Access::Publish(topic)
            }
        };
        // Messages are not for pages of foreign origins, whatever route led to them.
        rules::check_origin(request, &self.hub.rules, self.hub.is_on_loopback(id))?;
        self.authorize(id, request, access)?;
        Ok(answer)
    }

    fn authorize(
        &mut self,
        id: ConnId,
        request: &Request,
        access: Access<'_>,
    ) -> Result<(), Refusal> {
        let hub = &self.hub;
        let (peer, has_credential) = (request.peer(), routes::has_credential(request));
        if has_credential {
            hub.gate.may_try(peer, &hub.turn.limits, hub.turn.now)?;
        }
        let decision = self.call(Some(id), |handler, ctx| handler.authorize(request, access, ctx));
        self.decided(id, decision.ok_or_else(handler_failed)?).map_err(|denial| {
            let refusal = Refusal::from(denial);
            if has_credential && refusal.status == 401 {
                let hub = &mut self.hub;
                hub.gate.failed(peer, &hub.turn.limits, hub.turn.now);
            }
            refusal
        })
    }

    /// A command of pousse.v1, if that is allowed.
    fn command(&mut self, id: ConnId, command: Command) {
        let access = match &command.what {
            What::Subscribe { topic, .. } => Some((topic, Access::Read(slice::from_ref(topic)))),
            What::Publish { topic, .. } => Some((topic, Access::Publish(topic))),
            What::Unsubscribe { .. } => None,
        };
        // The hub refuses what is wrong whoever says it, and the owner may do everything.
        let is_nobodys = |access| {
            matches!(access, Access::Publish(_)) && self.hub.rules.publish == Publish::Nobody
        };
        let access = access
            .filter(|_| !self.hub.is_control(id) && !self.hub.is_free(id))
            .filter(|(topic, access)| is_topic_name(topic) && !is_nobodys(*access))
            .map(|(_, access)| access);
        let denied = access.and_then(|access| self.authorize_again(id, access).err());
        let carried_out = match denied {
            None => self.hub.command(id, command),
            Some(refusal) => self.hub.refuse_command(id, &refusal, &command.reference),
        };
        if let Err(fault) = carried_out {
            self.fault(id, fault.code, fault.text);
        }
    }

    fn authorize_again(&mut self, id: ConnId, access: Access<'_>) -> Result<(), Refusal> {
        let grant = self.hub.clients.get(id).and_then(|client| client.grant());
        let decision =
            self.call(Some(id), |handler, ctx| handler.authorize_again(id, grant, access, ctx));
        self.decided(id, decision.ok_or_else(handler_failed)?).map_err(Denial::of_command)
    }

    fn decided(&mut self, id: ConnId, decision: Decision) -> Result<(), Denial> {
        match decision {
            Decision::Allow => {}
            Decision::AllowAll => {
                if let Some(client) = self.hub.clients.get_mut(id) {
                    client.is_free = true;
                }
            }
            Decision::Grant(grant) => {
                if let Some(client) = self.hub.clients.get_mut(id) {
                    client.set_grant(Some(grant));
                }
            }
            Decision::Refuse(denial) => return Err(denial),
        }
        Ok(())
    }

    /// Says in the log that a WebSocket was opened, or an event stream begun, and by whom.
    fn say_opened(&mut self, id: ConnId, is_opened: bool) {
        let Some(client) = self.hub.clients.get(id) else { return };
        let (peer, grant) = (client.connection.peer, client.grant());
        let transport = match client.connection.transport() {
            Transport::EventStream => "event-stream",
            _ if is_opened => "websocket",
            _ => return,
        };
        let name = grant.and_then(|grant| {
            let name = self.call(Some(id), |handler, _| handler.name_of(grant).map(str::to_owned));
            name.flatten().map(|name| format!(" name={}", name.escape_debug()))
        });
        let name = name.unwrap_or_default();
        log::info!("event=opened client={id} peer={peer} transport={transport}{name}");
    }

    fn perform(&mut self, id: ConnId, request: &Request, answer: Answer) {
        let is_opened = self.hub.perform(id, request, answer);
        self.say_opened(id, is_opened);
        if is_opened {
            self.call(Some(id), |handler, ctx| handler.on_open(id, request, ctx));
        }
    }

    /// A request of the control listener, where `on_request` is not asked.
    fn control(&mut self, id: ConnId, request: Box<Request>) {
        if let Some(client) = self.hub.clients.get_mut(id) {
            // A page that may connect elsewhere is refused here, and is to see no more than that.
            client.connection.exchange.origin = None;
        }
        let is_private = request.peer() == Peer::Unix || self.hub.is_on_loopback(id);
        // With its content it comes a second time.
        let is_first = request.content().is_empty();
        let allowed = match !is_private && is_first {
            true => self.authorize(id, &request, Access::Operate),
            false => Ok(()),
        };
        let action = match allowed.and_then(|()| control::route(&request, &self.hub.rules)) {
            Ok(action) => action,
            Err(refusal) => return self.hub.refuse(id, &request, &refusal),
        };
        if !request.is_whole() {
            return self.hub.read_content(id, request);
        }
        match action {
            Action::Answer(answer) => self.perform(id, &request, answer),
            Action::Metrics => {
                let text = self.metrics();
                let response = Response::new(200).with("Content-Type", exposition::CONTENT_TYPE);
                self.hub.respond(id, &control::fresh(response.with_content(text)));
            }
            action => self.hub.operate(id, &request, action),
        }
    }

    /// All metrics, those of the handler last.
    fn metrics(&mut self) -> String {
        let mut text = self.hub.metrics();
        let own = text.len();
        let told = self.call(None, |handler, _| handler.on_metrics(&mut text));
        if told.is_none() {
            // Half a line would spoil the rest.
            text.truncate(own);
        } else if !text.ends_with('\n') {
            text.push('\n');
        }
        text
    }

    pub(crate) fn fault(&mut self, id: ConnId, code: CloseCode, reason: &'static str) {
        if self.hub.clients.get(id).is_some_and(|client| client.is_opened) {
            let error = Error::Peer { code, reason };
            self.call(Some(id), |handler, ctx| handler.on_error(id, &error, ctx));
        }
    }

    /// Calls the handler. One that panics costs the connection it was called for, no more.
    pub(crate) fn call<T>(
        &mut self,
        id: Option<ConnId>,
        work: impl FnOnce(&mut H, &mut Context<'_>) -> T,
    ) -> Option<T> {
        let (handler, hub) = (&mut self.handler, &mut self.hub);
        hub.called_for = id;
        match catch_unwind(AssertUnwindSafe(|| work(handler, &mut Context { hub }))) {
            Ok(value) => Some(value),
            Err(panic) => {
                self.panicked(id, panic.as_ref());
                None
            }
        }
    }

    fn panicked(&mut self, id: Option<ConnId>, panic: &(dyn std::any::Any + Send)) {
        let what = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
        let what = what.or_else(|| panic.downcast_ref::<String>().cloned());
        let what = what.unwrap_or_else(|| "no text".to_owned());
        self.hub.turn.counters.panics += 1;
        let Some(id) = id else {
            return log::error!("event=panic text={what:?}");
        };
        log::error!("event=panic client={id} text={what:?}");
        self.hub.close(id, CloseCode::Error, "the handler failed", Reason::Panic);
        let (handler, hub) = (&mut self.handler, &mut self.hub);
        let error = Error::Panicked(what);
        let told = catch_unwind(AssertUnwindSafe(|| {
            handler.on_error(id, &error, &mut Context { hub });
        }));
        if told.is_err() {
            log::error!("event=panic client={id} text=\"on_error panicked too\"");
        }
    }

    /// Does what other threads want. True: some of it is left in the queue.
    pub(crate) fn obey(&mut self, commands: &Commands) -> bool {
        let refused = commands.listen();
        self.hub.turn.counters.add_refused(Reason::Commands, refused);
        if refused > 0 {
            log::info!("event=refused client=- count={refused} reason=commands");
        }
        // At most as many as the queue holds: whoever fills it faster waits for the next turn.
        for _ in 0..self.hub.turn.limits.commands {
            // While readers are behind, what is not taken makes the queue full.
            if self.hub.log.is_behind() {
                break;
            }
            let Some(command) = commands.next() else { return false };
            self.carry_out(command);
        }
        true
    }

    fn carry_out(&mut self, command: remote::Command) {
        let hub = &mut self.hub;
        match command {
            remote::Command::Publish { topic, payload, kind } => {
                if let Err(error) = hub.publish(&topic, Message::of(kind, &payload), None) {
                    let error = error.to_string();
                    log::warn!("event=remote_failed topic={topic:?} error={error:?}");
                }
            }
            remote::Command::Send { to, payload, kind } => {
                if let Err(error) = hub.send(to, Message::of(kind, &payload)) {
                    let error = error.to_string();
                    log::debug!("event=remote_failed client={to} error={error:?}");
                }
            }
            remote::Command::Close { conn, code, reason } => {
                hub.close(conn, code, &reason, Reason::Handler);
            }
            remote::Command::Drain(code) => {
                hub.drain.get_or_insert(code);
            }
            remote::Command::Stop => hub.is_stopped = true,
        }
    }

    /// Says that a client has left, to the counters, the log, and the handler if it was told that
    /// the client came. `otherwise` is why, if the connection does not know.
    pub(crate) fn farewell(&mut self, client: &Client, otherwise: Reason) {
        let connection = &client.connection;
        let (id, ending) = (connection.id, connection.ending(otherwise));
        if !client.is_control {
            self.hub.turn.counters.count_closed(ending.why);
        }
        let is_stream = connection.transport() == Transport::EventStream;
        // Those who ask and go are nothing new, those who are made to go are.
        let level = match client.is_opened || is_stream || ending.why.is_of_peer() {
            true => log::Level::Info,
            false => log::Level::Debug,
        };
        let (peer, transport) = (connection.peer, connection.transport());
        let (why, text) = (ending.why, &ending.reason);
        // Over HTTP nobody is told a close code.
        let code = Some(ending.code).filter(|_| transport == Transport::WebSocket);
        let code = code.map_or(String::new(), |code| format!(" code={code}"));
        log::log!(
            level,
            "event=closed client={id} peer={peer} transport={transport}{code} reason={why} \
             text={text:?}"
        );
        if client.is_opened {
            self.call(Some(id), |handler, ctx| {
                handler.on_close(id, ending.code, &ending.reason, ctx);
            });
        }
    }
}
