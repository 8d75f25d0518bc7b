//! Pushes from another thread: each line typed here goes to everyone who is connected.
//!
//! Run: `cargo run --example remote`
//! Try: `curl 'http://127.0.0.1:8080/api/messages?after=now&wait=50'`, then type a line here.
//!      The end of the input (Ctrl-D) ends the server.

use std::io::BufRead;

use pousse::{CloseCode, Config, ConnId, Context, Error, Handler, Message, RemoteError, Server};

struct Quiet;

impl Handler for Quiet {
    fn on_message(&mut self, _: ConnId, _: Message<'_>, _: &mut Context<'_>) {}
}

fn main() -> Result<(), Error> {
    let mut server = Server::bind(Config::default(), Quiet)?;
    println!("listening on {}; type something", server.addresses().join(" "));
    let remote = server.remote();
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines().map_while(Result::ok) {
            match remote.broadcast(&line) {
                Ok(()) => {}
                // Nothing here waits for the loop: it is for us to say what a full queue means.
                Err(RemoteError::Full) => println!("too fast, this line was not sent"),
                Err(RemoteError::Stopped) => break,
            }
        }
        let _ = remote.drain(CloseCode::Away);
    });
    server.run()
}
