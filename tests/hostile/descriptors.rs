//! No descriptor left: for the next client, for a file, for anything.

use std::fs;

use crate::files::Folder;
use crate::peer::{Peer, ms, opening};
use crate::support::Came;
use crate::support::now;
use crate::target::{Target, descriptor_flags};

#[test]
fn with_every_place_taken_the_process_rests_and_the_next_clients_are_served_later() {
    // 80 descriptors, of which the program keeps 64 for itself.
    let mut target = Target::start_with_descriptors(80, &["--head-timeout", "60s"]);
    target.withstands("more clients than places", |target| {
        let crowd: Vec<Peer> = (0..100).map(|_| Peer::connect(&target.door)).collect();
        target.logs("event=full");
        let mut late = Peer::connect(&target.door);
        late.says(opening("/websocket", ""));
        let before = target.cpu();
        target.waits(ms(2000));
        let spent = target.cpu() - before;
        // The bystander's pings are in it.
        println!("full for 2 s: {spent:?} of CPU");
        assert!(spent <= ms(100), "{spent:?} of CPU in 2 s");
        assert_eq!(late.wire.fill(now()), Came::Nothing);
        drop(crowd);
        assert_eq!(late.answer().status, 101);
    });
}

#[test]
fn without_a_descriptor_left_the_process_rests_and_recovers() {
    // So few are kept back for files that files can take those of clients too.
    let folder = Folder::new();
    fs::write(folder.path("large.bin"), vec![b'a'; 8 << 20]).unwrap();
    let root = folder.path("");
    let flags = ["--root", root.to_str().unwrap(), "--max-clients", "110"];
    let mut target = Target::start_with_descriptors(174, &flags);
    target.withstands("no descriptors", |target| {
        let accepted = target.counter("accepted");
        // Each holds two: the connection, and the file that it does not fetch.
        let mut fetching: Vec<Peer> = (0..100).map(|_| Peer::connect(&target.door)).collect();
        target.until("all are here", |target| target.counter("accepted") >= accepted + 100);
        for peer in &mut fetching {
            peer.says("GET /large.bin HTTP/1.1\r\nHost: localhost\r\n\r\n");
        }
        let statuses: Vec<u16> = fetching.iter_mut().map(Peer::status).collect();
        assert!(statuses.iter().all(|status| matches!(status, 200 | 503)), "{statuses:?}");
        assert!(statuses.contains(&503), "{statuses:?}");
        // And nobody can be accepted.
        let late: Vec<Peer> = (0..20).map(|_| Peer::connect(&target.door)).collect();
        target.waits(ms(300));
        let before = target.cpu();
        target.waits(ms(2000));
        let spent = target.cpu() - before;
        println!("without descriptors for 2 s: {spent:?} of CPU");
        assert!(spent <= ms(100), "{spent:?} of CPU in 2 s");
        drop(late);
    });
}

#[test]
fn no_descriptor_would_be_inherited_by_a_child() {
    let folder = Folder::new();
    fs::write(folder.path("large.bin"), vec![b'a'; 8 << 20]).unwrap();
    let root = folder.path("");
    let mut target = Target::start(&["--root", root.to_str().unwrap()]);
    target.survives(|target| {
        let mut peer = Peer::connect(&target.door);
        peer.says("GET /large.bin HTTP/1.1\r\nHost: localhost\r\n\r\n");
        assert_eq!(peer.status(), 200);
        let flags = target.descriptor_flags();
        // Listener, poll, waker, signals, folder, the file, the connection, the witness.
        assert!(flags.len() >= 8, "{flags:?}");
        const CLOEXEC: u32 = 0o2_000_000;
        // What this program was itself given by a shell, the other one was given too.
        let is_given = |number| {
            let own = descriptor_flags("self").into_iter().find(|(own, _)| *own == number);
            own.is_some_and(|(_, flags)| flags & CLOEXEC == 0)
        };
        for (number, flags) in flags {
            let is_closed = flags & CLOEXEC != 0;
            assert!(is_closed || is_given(number), "descriptor {number}: {flags:o}");
        }
    });
}

impl Peer {
    /// Waits for the beginning of an answer.
    fn status(&mut self) -> u16 {
        assert!(self.wire.fill_or_has());
        String::from_utf8_lossy(&self.wire.unread[9..12]).parse().unwrap()
    }
}
