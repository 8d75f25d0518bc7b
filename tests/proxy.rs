//! Through a reverse proxy, as `docs/` says how to set it up: nginx, HAProxy and Caddy, each with
//! its snippet word for word but for the ports, in front of the real program.
#![cfg(feature = "daemon")]
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "helpers of tests are tests")]

use kit::support;

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rustix::process::Signal;
use socket2::{Domain, Socket, Type};
use support::http::Answer;
use support::{Came, Door, PATIENCE, Server, Wire, event_stream, now, skip, websocket};
use tungstenite::client::ClientRequestBuilder;
use tungstenite::{Message, WebSocket};

/// The name by which the world calls it.
const NAME: &str = "chat.example.org";

/// A proxy in front of a server.
struct Proxy {
    server: Server,
    address: SocketAddr,
    child: Child,
    /// What ends it at once, and those it has started.
    ends_by: Signal,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let pid = rustix::process::Pid::from_child(&self.child);
        // It fails only if it has ended already.
        let _ = rustix::process::kill_process(pid, self.ends_by);
        let _ = self.child.wait();
    }
}

/// A program of the system's, which users who are not root have not in their path.
fn find(name: &str) -> Option<PathBuf> {
    let folders = std::env::var("PATH").unwrap_or_default() + ":/usr/sbin:/sbin";
    let found =
        folders.split(':').map(|folder| Path::new(folder).join(name)).find(|path| path.is_file());
    if found.is_none() {
        skip(&format!("no {name} here (Debian: apt-get install {name}; nginx: nginx-light)"));
    }
    found
}

/// A folder of its own for a test.
fn folder(name: &str) -> PathBuf {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
    fs::create_dir_all(&folder).unwrap();
    folder
}

/// The snippet of this name, with other ports.
fn snippet(name: &str, ports: &[(&str, &str)]) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs").join(name);
    let mut text = fs::read_to_string(path).unwrap();
    for (there, here) in ports {
        assert_eq!(text.matches(there).count(), 1, "docs/{name} has one {there:?}");
        text = text.replace(there, here);
    }
    text
}

impl Proxy {
    /// `command` is told where the server is and on which port to listen.
    fn start(ends_by: Signal, command: impl FnOnce(&str, u16) -> Command) -> Self {
        let snippets = ["--host", NAME, "--trust-proxy", "127.0.0.1/32", "--publish", "anyone"];
        let server = Server::start(&[&snippets[..], &["--drain", "5s"]].concat());
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let mut command = command(&server.authority(), address.port());
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn().unwrap();
        let mut proxy = Self { server, address, child, ends_by };
        let end = now() + PATIENCE * 4;
        while TcpStream::connect(address).is_err() {
            let ended = proxy.child.try_wait().unwrap();
            assert!(ended.is_none() && now() < end, "{command:?}: {ended:?}");
        }
        proxy
    }

    fn connect(&self) -> Wire {
        Wire::connect(&Door::Tcp(self.address))
    }

    /// Asks on a connection of its own.
    fn asks(&self, line: &str, fields: &str, content: &str) -> Wire {
        let mut wire = self.connect();
        let host = format!("Host: {NAME}:{}", self.address.port());
        wire.send(format!("{line}\r\n{host}\r\n{fields}\r\n{content}").as_bytes()).unwrap();
        wire
    }

    /// Opens a WebSocket from another address than the proxy's, with these fields besides; the
    /// status of what comes, and the socket.
    fn opens_from(&self, source: Ipv4Addr, fields: &str) -> (u16, TcpStream) {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.bind(&SocketAddr::from((source, 0)).into()).unwrap();
        socket.connect(&self.address.into()).unwrap();
        let mut stream = TcpStream::from(socket);
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let port = self.address.port();
        let asked = format!(
            "GET /websocket HTTP/1.1\r\nHost: {NAME}:{port}\r\nUpgrade: websocket\r\n\
             Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {}\r\n{fields}\
             \r\n",
            websocket::KEY
        );
        stream.write_all(asked.as_bytes()).unwrap();
        let mut line = [0; 12];
        stream.read_exact(&mut line).unwrap();
        (str::from_utf8(&line[9..]).unwrap().parse().unwrap(), stream)
    }

    fn gets(&self, target: &str, fields: &str) -> Answer {
        let mut wire = self.asks(&format!("GET {target} HTTP/1.1"), fields, "");
        Answer::read(&mut wire, false, now() + PATIENCE).unwrap()
    }

    #[track_caller]
    fn publishes(&self, content: &str) -> Answer {
        let length = format!("Content-Length: {}\r\n", content.len());
        let mut wire = self.asks("POST /api/messages HTTP/1.1", &length, content);
        Answer::read(&mut wire, false, now() + PATIENCE).unwrap()
    }

    fn opens(&self, origin: &str) -> Result<WebSocket<TcpStream>, tungstenite::Error> {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let uri = format!("ws://{NAME}:{}/websocket", self.address.port()).parse().unwrap();
        let request = ClientRequestBuilder::new(uri).with_header("Origin", origin);
        match tungstenite::client(request, stream) {
            Ok((socket, _)) => Ok(socket),
            Err(tungstenite::HandshakeError::Failure(error)) => Err(error),
            Err(tungstenite::HandshakeError::Interrupted(_)) => panic!("no answer in time"),
        }
    }

    /// A stream of events. Of HTTP/1.0, so that no proxy puts chunks around them.
    fn streams(&self) -> Wire {
        let mut wire = self.asks("GET /api/messages HTTP/1.0", "Accept: text/event-stream\r\n", "");
        while !wire.unread.windows(4).any(|four| four == b"\r\n\r\n") {
            assert_eq!(wire.fill(now() + PATIENCE), Came::More);
        }
        let end = wire.unread.windows(4).position(|four| four == b"\r\n\r\n").unwrap();
        let head = String::from_utf8(wire.take(end + 4)).unwrap().to_ascii_lowercase();
        assert!(head.contains(" 200 ") && head.contains("text/event-stream"), "{head}");
        wire
    }
}

/// The data of the next block that has some.
fn hears(wire: &mut Wire) -> String {
    loop {
        let block = event_stream::read(wire, now() + PATIENCE).unwrap();
        if let Some((_, data)) = block.into_iter().find(|(name, _)| name == "data") {
            return data;
        }
    }
}

fn json(answer: &Answer) -> serde_json::Value {
    answer.json().unwrap()
}

/// What holds through every proxy.
fn everything_goes_through(mut proxy: Proxy) {
    let own = format!("http://{NAME}:{}", proxy.address.port());

    // Publishing and polling.
    assert_eq!(proxy.publishes("first").status, 201);
    let poll = proxy.gets("/api/messages", "");
    assert_eq!(json(&poll)["messages"][0]["data"], "first");
    let tag = format!("If-None-Match: {}\r\n", poll.field("etag").unwrap());
    assert_eq!(proxy.gets("/api/messages", &tag).status, 304);

    // A WebSocket both ways, of its own page and of no other.
    let mut socket = proxy.opens(&own).unwrap();
    socket.send("Bonjour".into()).unwrap();
    assert_eq!(socket.read().unwrap(), "Bonjour".into());
    let foreign = proxy.opens("https://elsewhere.example").unwrap_err();
    assert!(matches!(&foreign, tungstenite::Error::Http(answer) if answer.status() == 403));

    // A stream and a long poll are told of a message when it is there and not later.
    let mut stream = proxy.streams();
    let last = json(&proxy.gets("/api/messages", ""))["last"].as_str().unwrap().to_owned();
    let wait = format!("GET /api/messages?after={last}&wait=55 HTTP/1.1");
    let mut waiter = proxy.asks(&wait, "", "");
    assert_eq!(waiter.fill(now() + std::time::Duration::from_millis(200)), Came::Nothing);
    assert_eq!(proxy.publishes("news").status, 201);
    assert!(hears(&mut stream).contains("\"news\""));
    let answer = Answer::read(&mut waiter, false, now() + PATIENCE).unwrap();
    assert_eq!(json(&answer)["messages"][0]["data"], "news");
    assert_eq!(socket.read().unwrap(), "news".into());

    tells_who_the_client_is(&proxy);

    // What is too long is refused by pousse, in words.
    let refused = proxy.publishes(&"x".repeat(1 << 20));
    assert_eq!(refused.status, 413);
    assert!(json(&refused)["detail"].is_string(), "{:?}", refused.fields);

    // And the end.
    let mut waiter = proxy.asks("GET /api/messages?after=now&wait=55 HTTP/1.1", "", "");
    assert_eq!(waiter.fill(now() + std::time::Duration::from_millis(200)), Came::Nothing);
    proxy.server.signal(Signal::TERM);
    let Message::Close(Some(frame)) = socket.read().unwrap() else { panic!("no close frame") };
    assert_eq!(u16::from(frame.code), 1001);
    while socket.read().is_ok() {}
    drop(socket);
    while stream.fill(now() + PATIENCE) == Came::More {}
    assert_eq!(stream.fill(now() + PATIENCE), Came::End);
    let answer = Answer::read(&mut waiter, false, now() + PATIENCE).unwrap();
    assert_eq!(json(&answer)["messages"], serde_json::json!([]));
    assert_eq!(proxy.server.wait().unwrap().code(), Some(0));
}

/// The client is the one who has connected to the proxy, whatever it claims. Each has an address of
/// its own, so that the log tells them apart.
fn tells_who_the_client_is(proxy: &Proxy) {
    let clients = (2..).map(|last| Ipv4Addr::new(127, 0, 0, last));
    for (client, claim) in clients.zip([
        "",
        "X-Forwarded-For: 203.0.113.9\r\n",
        "X-Forwarded-For: 203.0.113.9, 127.0.0.1\r\nX-Real-IP: 203.0.113.9\r\n",
        "Forwarded: for=203.0.113.9\r\n",
        "Forwarded: for=203.0.113.9\r\nX-Forwarded-For: 203.0.113.9\r\n",
    ]) {
        let (status, _socket) = proxy.opens_from(client, claim);
        // A proxy that hands Forwarded on lets two fields contradict each other: refused.
        let told = match status {
            400 if claim.starts_with("Forwarded") => "Forwarded tell different clients".into(),
            _ => format!("peer={client}:"),
        };
        assert!(proxy.server.says(&told), "no {told} for {claim:?}:\n{}", proxy.server.stderr());
        let log = proxy.server.stderr();
        assert!(!log.contains("peer=203.0.113.9"), "{claim:?} is believed:\n{log}");
    }
}

#[test]
fn everything_goes_through_nginx_as_documented() {
    let Some(nginx) = find("nginx") else { return };
    let proxy = Proxy::start(Signal::TERM, |server, port| {
        let folder = folder("nginx");
        let listen = format!("listen {port};");
        let own = snippet("nginx.conf", &[("127.0.0.1:8080", server), ("listen 80;", &listen)]);
        fs::write(folder.join("pousse.conf"), own).unwrap();
        let user = if rustix::process::geteuid().is_root() { "user root;" } else { "" };
        let paths = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|name| format!("{name}_temp_path {name};"))
            .concat();
        let main = format!(
            "{user} daemon off; pid nginx.pid; error_log stderr; worker_processes 1;\n\
             events {{}} http {{ access_log off; {paths} include pousse.conf; }}\n"
        );
        fs::write(folder.join("nginx.conf"), main).unwrap();
        let mut command = Command::new(nginx);
        command.arg("-p").arg(&folder).args(["-e", "stderr", "-c", "nginx.conf"]);
        command
    });
    everything_goes_through(proxy);
}

#[test]
fn everything_goes_through_haproxy_as_documented() {
    let Some(haproxy) = find("haproxy") else { return };
    let proxy = Proxy::start(Signal::KILL, |server, port| {
        let bind = format!("bind :{port}\n");
        let text = snippet("haproxy.cfg", &[("127.0.0.1:8080", server), ("bind :80\n", &bind)]);
        let file = folder("haproxy").join("haproxy.cfg");
        fs::write(&file, text).unwrap();
        let mut command = Command::new(haproxy);
        command.arg("-db").arg("-f").arg(file);
        command
    });
    everything_goes_through(proxy);
}

#[test]
fn everything_goes_through_caddy_as_documented() {
    let Some(caddy) = find("caddy") else { return };
    let proxy = Proxy::start(Signal::KILL, |server, port| {
        // Without a certificate, which nobody would sign, and without its own control port.
        let site = format!("{{\n\tadmin off\n}}\nhttp://{NAME}:{port} {{\n");
        let ports = [("127.0.0.1:8080", server), ("chat.example.org {\n", &site)];
        let text = snippet("Caddyfile", &ports);
        let folder = folder("caddy");
        let file = folder.join("Caddyfile");
        fs::write(&file, text).unwrap();
        let mut command = Command::new(caddy);
        command.env("HOME", &folder).args(["run", "--adapter", "caddyfile", "--config"]).arg(file);
        command
    });
    everything_goes_through(proxy);
}

#[test]
fn the_snippets_are_valid_as_they_stand() {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs");
    let mut checks = Vec::new();
    if let Some(haproxy) = find("haproxy") {
        let mut command = Command::new(haproxy);
        command.arg("-c").arg("-f").arg(docs.join("haproxy.cfg"));
        checks.push(command);
    }
    if let Some(caddy) = find("caddy") {
        let mut command = Command::new(caddy);
        command.env("HOME", folder("caddy-validate"));
        command
            .args(["validate", "--adapter", "caddyfile", "--config"])
            .arg(docs.join("Caddyfile"));
        checks.push(command);
    }
    for mut check in checks {
        let said = check.output().unwrap();
        let text = String::from_utf8_lossy(&said.stderr).into_owned();
        assert!(said.status.success(), "{check:?}: {text}");
        // haproxy counts its warnings, Caddy writes them as JSON.
        assert!(!text.contains("[WARNING]") && !text.contains("\"level\":\"warn\""), "{text}");
    }
}
