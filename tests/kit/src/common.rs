//! A server in a thread of its own, and peers that know nothing of pousse: tungstenite's client and
//! plain sockets.
//!
//! Nothing here sleeps. Whoever waits, waits for something that happens, and gives up after
//! [`PATIENCE`].

#![expect(clippy::unwrap_used, reason = "a test may end where it is wrong")]

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use pousse::{
    Access, Answer, CloseCode, Config, ConnId, Context, Counters, Decision, Error, Grant, Handler,
    Message, Remote, Request, Server,
};
use tungstenite::client::ClientRequestBuilder;

/// How long anything is waited for.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// What a handler was told.
#[derive(Clone, Debug, PartialEq)]
pub enum Said {
    Open(ConnId),
    Text(ConnId, String),
    Binary(ConnId, Vec<u8>),
    Close(ConnId, u16, String),
    Error(ConnId, String),
    Wake(u64, Instant),
    Ready(usize),
}

type Job = Box<dyn FnOnce(&mut Context<'_>) + Send>;

/// How a test's handler acts: on what it is told, and on requests.
pub trait Act: Send + 'static {
    fn act(&mut self, said: &Said, ctx: &mut Context<'_>);

    fn route(&mut self, _: &Request, _: &mut Context<'_>) -> Option<Answer> {
        None
    }

    fn allows(&mut self, _: &Request, _: Access<'_>) -> Decision {
        Decision::AllowAll
    }

    /// `None`: whatever a handler says that does not write it.
    fn allows_again(&mut self, _: ConnId, _: Option<Grant>, _: Access<'_>) -> Option<Decision> {
        None
    }
}

impl<F: FnMut(&Said, &mut Context<'_>) + Send + 'static> Act for F {
    fn act(&mut self, said: &Said, ctx: &mut Context<'_>) {
        self(said, ctx);
    }
}

/// Acts on requests only.
pub struct Route<F>(pub F);

impl<F> Act for Route<F>
where
    F: FnMut(&Request, &mut Context<'_>) -> Option<Answer> + Send + 'static,
{
    fn act(&mut self, _: &Said, _: &mut Context<'_>) {}

    fn route(&mut self, request: &Request, ctx: &mut Context<'_>) -> Option<Answer> {
        self.0(request, ctx)
    }
}

/// Does nothing.
pub fn quiet(_: &Said, _: &mut Context<'_>) {}

/// Sends every message back.
pub fn echo(said: &Said, ctx: &mut Context<'_>) {
    match said {
        Said::Text(conn, text) => ctx.send(*conn, text).unwrap(),
        Said::Binary(conn, bytes) => ctx.send(*conn, bytes).unwrap(),
        _ => {}
    }
}

/// Tells a test what happens, and does on the loop's thread what the test asks for.
pub struct Probe {
    said: Sender<Said>,
    act: Box<dyn Act>,
    jobs: Receiver<Job>,
    bell: UnixStream,
}

/// The source that [`Running::ask`] rings with.
const BELL: usize = 65_535;

impl Probe {
    fn told(&mut self, said: Said, ctx: &mut Context<'_>) {
        // Told first: what happens next may be a panic. The test may have ended.
        let _ = self.said.send(said.clone());
        self.act.act(&said, ctx);
    }
}

impl Handler for Probe {
    fn on_open(&mut self, conn: ConnId, _: &Request, ctx: &mut Context<'_>) {
        self.told(Said::Open(conn), ctx);
    }

    fn on_message(&mut self, conn: ConnId, message: Message<'_>, ctx: &mut Context<'_>) {
        let said = match message {
            Message::Text(text) => Said::Text(conn, text.into()),
            Message::Binary(bytes) => Said::Binary(conn, bytes.into()),
        };
        self.told(said, ctx);
    }

    fn on_close(&mut self, conn: ConnId, code: CloseCode, reason: &str, ctx: &mut Context<'_>) {
        self.told(Said::Close(conn, code.into(), reason.into()), ctx);
    }

    fn on_error(&mut self, conn: ConnId, error: &Error, ctx: &mut Context<'_>) {
        self.told(Said::Error(conn, error.to_string()), ctx);
    }

    fn on_request(&mut self, request: &Request, ctx: &mut Context<'_>) -> Option<Answer> {
        self.act.route(request, ctx)
    }

    fn authorize(
        &mut self,
        request: &Request,
        access: Access<'_>,
        _: &mut Context<'_>,
    ) -> Decision {
        self.act.allows(request, access)
    }

    fn authorize_again(
        &mut self,
        conn: ConnId,
        grant: Option<Grant>,
        access: Access<'_>,
        ctx: &mut Context<'_>,
    ) -> Decision {
        let decision = self.act.allows_again(conn, grant, access);
        decision.unwrap_or_else(|| Silent.authorize_again(conn, grant, access, ctx))
    }

    fn on_wake(&mut self, token: u64, ctx: &mut Context<'_>) {
        self.told(Said::Wake(token, ctx.now()), ctx);
    }

    fn on_ready(&mut self, token: usize, ctx: &mut Context<'_>) {
        if token != BELL {
            return self.told(Said::Ready(token), ctx);
        }
        let mut rings = [0; 64];
        while matches!(self.bell.read(&mut rings), Ok(1..)) {}
        // What is asked for after one of these is answered comes in another turn.
        let jobs: Vec<_> = self.jobs.try_iter().collect();
        for job in jobs {
            job(ctx);
        }
    }
}

/// A handler that has only what every handler must have.
struct Silent;

impl Handler for Silent {
    fn on_message(&mut self, _: ConnId, _: Message<'_>, _: &mut Context<'_>) {}
}

/// A server in its own thread.
pub struct Running {
    pub remote: Remote,
    pub addresses: Vec<String>,
    /// Where the control listener is, if one was asked for.
    pub control: Option<String>,
    thread: Option<JoinHandle<Result<Server<Probe>, Error>>>,
    said: Receiver<Said>,
    jobs: Sender<Job>,
    bell: UnixStream,
}

impl Running {
    /// Starts one on a free port of the loopback address, unless `change` says otherwise.
    pub fn start(change: impl FnOnce(&mut Config), act: impl Act) -> Self {
        let mut config = config();
        change(&mut config);
        let (said, hears) = channel();
        let (jobs, to_do) = channel();
        let (bell, ringing) = UnixStream::pair().unwrap();
        ringing.set_nonblocking(true).unwrap();
        let mut source = mio::net::UnixStream::from_std(ringing.try_clone().unwrap());
        let probe = Probe { said, act: Box::new(act), jobs: to_do, bell: ringing };
        let mut server = Server::bind(config, probe).unwrap();
        server.watch(&mut source, u16::try_from(BELL).unwrap()).unwrap();
        let (remote, addresses) = (server.remote(), server.addresses());
        let control = server.control_address();
        let thread = std::thread::spawn(move || {
            let result = server.run();
            drop(source);
            result.map(|()| server)
        });
        Self { remote, addresses, control, thread: Some(thread), said: hears, jobs, bell }
    }

    /// One with every default.
    pub fn new(act: impl Act) -> Self {
        Self::start(|_| {}, act)
    }

    /// Has `job` done on the loop's thread, some time.
    pub fn post(&self, job: impl FnOnce(&mut Context<'_>) + Send + 'static) {
        self.jobs.send(Box::new(job)).unwrap();
        (&self.bell).write_all(b"!").unwrap();
    }

    /// Has `job` done within one call of the handler, and waits for what comes of it.
    pub fn ask<T: Send + 'static>(
        &self,
        job: impl FnOnce(&mut Context<'_>) -> T + Send + 'static,
    ) -> T {
        let (answer, answered) = channel();
        self.post(move |ctx| {
            let _ = answer.send(job(ctx));
        });
        answered.recv_timeout(PATIENCE).expect("the loop goes round")
    }

    pub fn counters(&self) -> Counters {
        self.ask(|ctx| ctx.counters().clone())
    }

    /// What the handler was told next.
    pub fn said(&self) -> Said {
        self.said.recv_timeout(PATIENCE).expect("the handler is told something")
    }

    /// The id of the next client to be opened.
    pub fn opened(&self) -> ConnId {
        match self.said() {
            Said::Open(id) => id,
            other => panic!("{other:?} and not an opening"),
        }
    }

    /// What the handler was told and nobody asked for yet. Whole once the server has ended.
    pub fn rest(&self) -> Vec<Said> {
        self.said.try_iter().collect()
    }

    pub fn address(&self) -> SocketAddr {
        address(&self.addresses)
    }

    /// A WebSocket that is open, as this path and query ask.
    pub fn open(&self, path: &str) -> Socket {
        Socket::open(self.address(), path)
    }

    /// A WebSocket that is open, and the id that the handler was told for it.
    pub fn open_with_id(&self, path: &str) -> (Socket, ConnId) {
        let socket = self.open(path);
        (socket, self.opened())
    }

    pub fn connect(&self) -> TcpStream {
        connect(self.address())
    }

    /// One request on its own connection, and all of the answer.
    pub fn http(&self, method: &str, target: &str, content: &str) -> String {
        http(self.connect(), method, target, content)
    }

    /// Waits until the server has ended by itself.
    pub fn join(&mut self) -> Server<Probe> {
        self.thread.take().unwrap().join().expect("the loop does not panic").unwrap()
    }

    /// Ends it, whoever is connected; what is left can be looked at.
    pub fn stop(&mut self) -> Server<Probe> {
        self.remote.stop().unwrap();
        self.join()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.remote.stop();
    }
}

/// tungstenite's client over a blocking socket.
pub struct Socket<S: Read + Write = TcpStream>(pub tungstenite::WebSocket<S>);

impl Socket {
    pub fn open(address: SocketAddr, path: &str) -> Self {
        Self::offering(address, path, &[]).unwrap()
    }

    /// Offers subprotocols.
    pub fn offering(
        address: SocketAddr,
        path: &str,
        subprotocols: &[&str],
    ) -> Result<Self, tungstenite::Error> {
        Self::over(connect(address), path, subprotocols)
    }
}

impl<S: Read + Write> Socket<S> {
    pub fn over(stream: S, path: &str, subprotocols: &[&str]) -> Result<Self, tungstenite::Error> {
        let uri = format!("ws://localhost{path}").parse().unwrap();
        let mut request = ClientRequestBuilder::new(uri);
        for name in subprotocols {
            request = request.with_sub_protocol(*name);
        }
        match tungstenite::client(request, stream) {
            Ok((socket, _)) => Ok(Self(socket)),
            Err(tungstenite::HandshakeError::Failure(error)) => Err(error),
            Err(tungstenite::HandshakeError::Interrupted(_)) => panic!("no answer in time"),
        }
    }

    pub fn says(&mut self, text: &str) {
        self.0.send(text.into()).unwrap();
    }

    /// The next message, control frames passed over.
    #[expect(clippy::should_implement_trait, reason = "it does not end")]
    pub fn next(&mut self) -> tungstenite::Message {
        loop {
            let message = self.0.read().expect("a message comes in time");
            if !message.is_ping() && !message.is_pong() {
                return message;
            }
        }
    }

    /// The next message, which is text.
    pub fn hears(&mut self) -> String {
        match self.next() {
            tungstenite::Message::Text(text) => text.as_str().into(),
            other => panic!("{other:?} and not text"),
        }
    }

    /// The close frame that comes next, and then the end of the connection.
    pub fn hears_close(&mut self) -> (u16, String) {
        let tungstenite::Message::Close(Some(frame)) = self.next() else {
            panic!("something else than a close frame with a code");
        };
        while self.0.read().is_ok() {}
        (frame.code.into(), frame.reason.as_str().into())
    }

    /// Closes, and goes on until the connection has ended.
    pub fn closes(&mut self, code: u16, reason: &'static str) {
        let frame = tungstenite::protocol::CloseFrame { code: code.into(), reason: reason.into() };
        self.0.close(Some(frame)).unwrap();
        while self.0.read().is_ok() {}
    }
}

/// The first address of a server, which is TCP.
pub fn address(addresses: &[String]) -> SocketAddr {
    let (_, authority) = addresses.first().unwrap().split_once("://").unwrap();
    authority.parse().unwrap()
}

pub fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

/// The defaults, on a free port of the loopback address.
pub fn config() -> Config {
    let mut config = Config::default();
    config.listen = vec!["127.0.0.1:0".parse().unwrap()];
    config
}

/// A request as text.
pub fn request(method: &str, target: &str, fields: &str, content: &str) -> String {
    let length = content.len();
    format!(
        "{method} {target} HTTP/1.1\r\nHost: localhost\r\n{fields}Content-Length: {length}\r\n\r\n\
         {content}"
    )
}

/// One request on its own connection, and all of the answer.
pub fn http(mut stream: impl Read + Write, method: &str, to: &str, content: &str) -> String {
    stream.write_all(request(method, to, "Connection: close\r\n", content).as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

/// The head of an answer, and nothing of what stands behind it.
pub fn head(stream: &mut impl Read) -> String {
    let mut bytes = Vec::new();
    let mut byte = [0];
    while !bytes.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte).unwrap();
        bytes.push(byte[0]);
    }
    String::from_utf8(bytes).unwrap()
}

/// One answer with a `Content-Length`, from a connection that goes on.
pub fn answer(stream: &mut impl Read) -> String {
    let head = head(stream);
    let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: "));
    let mut content = vec![0; length.map_or(0, |length| length.parse().unwrap())];
    stream.read_exact(&mut content).unwrap();
    head + &String::from_utf8(content).unwrap()
}

/// The answer's status.
pub fn status(answer: &str) -> &str {
    answer.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)).unwrap_or(answer)
}

/// The answer's content.
pub fn content(answer: &str) -> &str {
    answer.split_once("\r\n\r\n").map_or("", |(_, content)| content)
}

/// An opening handshake as bytes.
pub fn opening(path: &str) -> String {
    format!(
        "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
}

/// A short frame from a client, masked with a key of zeros.
pub fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    assert!(payload.len() < 126, "short frames are enough here");
    let length = u8::try_from(payload.len()).unwrap();
    [&[first, 0x80 | length, 0, 0, 0, 0], payload].concat()
}

/// Whether the peer has ended its bytes, without or with a reset.
pub fn has_ended(stream: &mut impl Read) -> bool {
    match stream.read(&mut [0; 4096]) {
        Ok(count) => count == 0,
        Err(error) => error.kind() == ErrorKind::ConnectionReset,
    }
}
