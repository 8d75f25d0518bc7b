//! pousse inside somebody else's loop: one descriptor to wait for, one call when it is ready.
//!
//! The loop here has a socket of its own, a UDP port, and publishes each datagram that comes.
//!
//! Run: `cargo run --example own_loop`
//! Try: `curl 'http://127.0.0.1:8080/api/messages?after=now&wait=50'` in one terminal and
//!      `echo -n Bonjour > /dev/udp/127.0.0.1/9999` in another (bash).

use std::os::fd::{AsFd, AsRawFd};
use std::time::Duration;

use mio::net::UdpSocket;
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use pousse::{Config, ConnId, Context, Handler, Message, Server};

const PUSH: Token = Token(0);
const DATAGRAMS: Token = Token(1);

struct Quiet;

impl Handler for Quiet {
    fn on_message(&mut self, _: ConnId, _: Message<'_>, _: &mut Context<'_>) {}
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut server = Server::bind(Config::default(), Quiet)?;
    let mut datagrams = UdpSocket::bind("127.0.0.1:9999".parse()?)?;
    let mut poll = Poll::new()?;
    let push = server.as_fd().as_raw_fd();
    poll.registry().register(&mut SourceFd(&push), PUSH, Interest::READABLE)?;
    poll.registry().register(&mut datagrams, DATAGRAMS, Interest::READABLE)?;
    println!("listening on {} and for datagrams on 127.0.0.1:9999", server.addresses().join(" "));

    let mut events = Events::with_capacity(64);
    let mut buffer = [0; 1500];
    while !server.has_ended() {
        // A turn that does not wait. It says how long we may sleep; and as an edge-triggered loop
        // hears of the inner descriptor once, it is called until it has nothing to do at once.
        let sleep = server.turn(Some(Duration::ZERO))?;
        poll.poll(&mut events, sleep)?;
        if events.iter().any(|event| event.token() == DATAGRAMS) {
            while let Ok(length) = datagrams.recv(&mut buffer) {
                let datagram = buffer.get(..length).unwrap_or_default();
                server.context().broadcast(Message::Binary(datagram))?;
            }
        }
    }
    Ok(())
}
