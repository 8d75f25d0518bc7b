//! A program that embeds the library and forks. A file of its own, with one test: no other thread
//! of it may hold a lock when the child is made.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use fork::{Fork, fork, waitpid};
use pousse::{Address, Config, ConnId, Context, Error, Handler, Message, Server};

struct Quiet;

impl Handler for Quiet {
    fn on_message(&mut self, _: ConnId, _: Message<'_>, _: &mut Context<'_>) {}
}

#[test]
fn a_fork_cannot_serve_and_takes_nothing_from_who_does() {
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("fork.sock");
    let mut config = Config::default();
    config.listen = vec![Address::Unix(path.clone())];
    let mut server = Server::bind(config, Quiet).unwrap();
    let mut client = UnixStream::connect(&path).unwrap();
    client.write_all(b"GET /api/messages HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    server.turn(Some(Duration::ZERO)).unwrap();
    match fork().unwrap() {
        Fork::Child => {
            let is_refused = matches!(server.turn(None), Err(Error::Forked))
                && matches!(server.run(), Err(Error::Forked));
            drop(server);
            std::process::exit(if is_refused { 0 } else { 1 });
        }
        Fork::Parent(child) => {
            let status = waitpid(child).unwrap();
            assert_eq!(status, 0, "the child's turn is an error");
        }
    }
    // The child has dropped its server: the client is still here, and others still find the way.
    let mut answer = [0; 15];
    client.set_read_timeout(Some(Duration::from_millis(10))).unwrap();
    while client.read_exact(&mut answer).is_err() {
        server.turn(Some(Duration::from_millis(10))).unwrap();
    }
    assert_eq!(&answer, b"HTTP/1.1 200 OK");
    UnixStream::connect(&path).unwrap();
    drop(server);
    assert!(!path.exists());
}
