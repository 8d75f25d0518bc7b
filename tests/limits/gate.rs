//! Who comes in: limits of one address, of those who have not asked yet, and of all together;
//! denied networks, and proxies.

use std::process::Command;
use std::time::Duration;

use pousse::{
    Access, Config, ConnId, Context, Decision, Denial, Handler, Message, Reason, Request,
};

use crate::peer::{Peer, frame, frame_head, opening};
use crate::running::{Chat, Running};

const HERE: [u8; 4] = [127, 0, 0, 2];
const THERE: [u8; 4] = [127, 0, 0, 3];

fn running(change: impl FnOnce(&mut Config)) -> Running {
    Running::configured(
        |config| {
            config.limit_loopback = true;
            change(config);
        },
        Chat,
    )
}

/// Is told why it may not come in, and that is all.
#[track_caller]
fn is_turned_away(mut peer: Peer, detail: &str) {
    let answer = peer.answer();
    assert_eq!(answer.status, 429, "{}", answer.head);
    assert!(answer.may_be_tried_again() && answer.has("Connection: close"), "{}", answer.head);
    assert!(answer.content.contains(detail), "{}", answer.content);
    assert!(peer.ends().is_empty());
}

#[test]
pub(crate) fn an_address_has_so_many_clients_and_the_next_is_told_429() {
    let running = running(|config| config.limits.max_per_ip = 2);
    let from = |source| Peer::connect_from(source, running.address);
    let mut first = from(HERE);
    let mut second = from(HERE);
    for peer in [&mut first, &mut second] {
        assert_eq!(peer.asks("GET /api/messages").status, 200);
    }
    is_turned_away(from(HERE), "too many connections of one address");
    assert_eq!(from(THERE).asks("GET /api/messages").status, 200, "another one may come");
    running.counts("refused.max-per-ip", |now| now.refused(Reason::MaxPerIp) == 1);
    drop(first);
    running.counts("it has left", |now| now.closed(Reason::Done) + now.closed(Reason::Gone) >= 2);
    assert_eq!(from(HERE).asks("GET /api/messages").status, 200, "there is a place again");
}

#[test]
pub(crate) fn of_one_address_so_many_come_at_once_and_the_next_is_told_429() {
    let running = running(|config| config.limits.max_new_per_ip = 3);
    let from = |source| Peer::connect_from(source, running.address);
    for _ in 0..3 {
        assert_eq!(from(HERE).asks("GET /api/messages").status, 200);
    }
    is_turned_away(from(HERE), "too many new connections of one address");
    assert_eq!(from(THERE).asks("GET /api/messages").status, 200, "another one may come");
    running.counts("refused.max-new-per-ip", |now| now.refused(Reason::MaxNewPerIp) == 1);
}

/// Knows one credential.
struct Doorkeeper;

impl Handler for Doorkeeper {
    fn on_message(&mut self, _: ConnId, _: Message<'_>, _: &mut Context<'_>) {}

    fn authorize(&mut self, request: &Request, _: Access<'_>, _: &mut Context<'_>) -> Decision {
        match request.field("authorization") {
            Some("Bearer right") => Decision::Allow,
            _ => Decision::Refuse(Denial::unauthorized("who are you?", &[])),
        }
    }
}

#[test]
pub(crate) fn after_so_many_wrong_credentials_no_other_is_looked_at() {
    let running = Running::configured(
        |config| {
            config.limit_loopback = true;
            config.limits.auth_failures = 3;
        },
        Doorkeeper,
    );
    let tries = |source, token: &str| {
        let mut peer = Peer::connect_from(source, running.address);
        let field = match token {
            "" => String::new(),
            token => format!("Authorization: Bearer {token}\r\n"),
        };
        peer.says(format!("GET /api/messages HTTP/1.1\r\nHost: localhost\r\n{field}\r\n"));
        peer.answer()
    };
    for _ in 0..10 {
        assert_eq!(tries(HERE, "").status, 401, "who shows none is not wrong");
    }
    assert_eq!(tries(HERE, "right").status, 200);
    for _ in 0..3 {
        assert_eq!(tries(HERE, "wrong").status, 401);
    }
    let answer = tries(HERE, "right");
    assert_eq!(answer.status, 429, "nobody learns whether it was right");
    assert!(answer.may_be_tried_again(), "{}", answer.head);
    assert_eq!(tries(HERE, "").status, 401);
    assert_eq!(tries(THERE, "right").status, 200, "another address is not concerned");
    running.counts("refused.auth-failures", |now| now.refused(Reason::AuthFailures) == 1);
}

#[test]
fn who_comes_from_this_machine_is_not_counted_unless_that_is_wanted() {
    let running = Running::with(
        |limits| {
            limits.max_per_ip = 1;
            limits.max_new_per_ip = 1;
        },
        Chat,
    );
    let mut peers: Vec<Peer> = (0..20).map(|_| Peer::connect(running.address)).collect();
    for peer in &mut peers {
        assert_eq!(peer.asks("GET /api/messages").status, 200);
    }
}

#[test]
pub(crate) fn of_those_who_have_not_asked_yet_the_oldest_makes_room() {
    let running = Running::with(|limits| limits.openings = 2, Chat);
    let mut open = Peer::open(running.address, "/websocket");
    let mut asked = Peer::connect(running.address);
    assert_eq!(asked.asks("GET /api/messages").status, 200);
    let mut oldest = Peer::connect(running.address);
    oldest.says("GET /api/mess");
    let mut second = Peer::connect(running.address);
    let mut third = Peer::connect(running.address);
    assert!(oldest.ends().is_empty(), "half a request is none");
    running.counts("closed.openings", |now| now.closed(Reason::Openings) == 1);
    for peer in [&mut second, &mut third, &mut asked] {
        assert_eq!(peer.asks("GET /api/messages").status, 200, "the others have theirs");
    }
    open.says(frame(0x89, b"?"));
    assert_eq!(open.hears(), (0x8a, b"?".to_vec()));
}

#[test]
pub(crate) fn over_the_memory_of_all_the_one_who_holds_most_is_dropped_with_1013() {
    let running = Running::with(
        |limits| {
            limits.max_message = 1 << 20;
            limits.memory = 1 << 20;
        },
        Chat,
    );
    let mut small = Peer::open(running.address, "/websocket");
    small.says([frame_head(0x81, 200_000), vec![b'a'; 150_000]].concat());
    let mut large = Peer::open(running.address, "/websocket");
    large.says([frame_head(0x81, 1_000_000), vec![b'a'; 999_000]].concat());
    let (first, payload) = large.hears();
    assert_eq!((first, &payload[..2]), (0x88, &1013u16.to_be_bytes()[..]));
    assert_eq!(&payload[2..], b"no memory is left");
    running.counts("closed.memory", |now| now.closed(Reason::Memory) == 1);
    small.says(vec![b'a'; 50_000]);
    assert_eq!(small.hears().1.len(), 200_000, "the other one goes on");
}

#[test]
fn what_waits_for_readers_counts_as_memory_too() {
    let running = Running::with(
        |limits| {
            limits.memory = 50_000;
            limits.stall = Duration::from_secs(60);
        },
        Chat,
    );
    let mut idlers: Vec<Peer> =
        (0..20).map(|_| Peer::open(running.address, "/websocket?topic=t")).collect();
    let mut reader = Peer::open(running.address, "/websocket?topic=t");
    for _ in 0..400 {
        // What the sockets do not take of it waits: a part of one message for each of the idle.
        running.remote.publish("t", vec![7; 60_000].as_slice()).unwrap();
        assert_eq!(reader.hears().1.len(), 60_000, "who reads is not dropped");
    }
    running.counts("closed.memory", |now| now.closed(Reason::Memory) > 0);
    idlers.clear();
}

#[test]
fn a_denied_network_is_not_even_spoken_to() {
    let running = running(|config| config.deny.push("127.0.0.2/31".parse().unwrap()));
    for source in [HERE, THERE] {
        let mut peer = Peer::connect_from(source, running.address);
        assert!(peer.ends().is_empty());
    }
    assert_eq!(Peer::connect(running.address).asks("GET /api/messages").status, 200);
    running.counts("refused.deny", |now| now.refused(Reason::Deny) == 2);
    assert_eq!(running.counters().accepted, 1);
}

#[test]
fn behind_a_trusted_proxy_the_limits_are_those_of_its_clients() {
    let running = running(|config| {
        config.limits.max_per_ip = 1;
        config.trusted_proxies.push("127.0.0.2".parse().unwrap());
        config.deny.push("198.51.100.0/24".parse().unwrap());
    });
    let from = |source| Peer::connect_from(source, running.address);
    let asks = |peer: &mut Peer, client: &str| {
        peer.says(format!(
            "GET /api/messages HTTP/1.1\r\nHost: localhost\r\nX-Forwarded-For: {client}\r\n\r\n"
        ));
        peer.answer().status
    };
    let mut one = from(HERE);
    let mut other = from(HERE);
    let fields = "X-Forwarded-For: 192.0.2.7\r\n\r\n";
    one.says(opening("/websocket").replace("\r\n\r\n", &format!("\r\n{fields}")));
    assert_eq!(one.answer().status, 101);
    assert_eq!(asks(&mut other, "192.0.2.8"), 200);
    assert_eq!(asks(&mut other, "192.0.2.7"), 429, "it is here already, by the first connection");
    assert_eq!(asks(&mut other, "6.6.6.6, 192.0.2.7"), 429, "whatever it claims itself");
    assert_eq!(asks(&mut other, "192.0.2.9"), 200, "the connection of a proxy goes on");
    assert_eq!(asks(&mut from(HERE), "192.0.2.9"), 200, "one that rests is nobody's");
    assert_eq!(asks(&mut other, "198.51.100.9"), 403);
    drop(one);
    running.counts("it has left", |now| now.closed(Reason::Gone) >= 1);
    assert_eq!(asks(&mut other, "192.0.2.7"), 200);
    // Nobody else is believed.
    let mut liar = from(THERE);
    assert_eq!(asks(&mut liar, "198.51.100.9"), 200);
}

/// The peer is behind a cable that is pulled out: it says nothing any more, not even that it is
/// gone.
#[test]
pub(crate) fn a_peer_whose_machine_has_gone_is_noticed_by_what_is_written_to_it() {
    let Some(cable) = Cable::plug() else { return };
    let running = Running::configured(
        |config| {
            config.listen = vec![format!("{}:0", Cable::NEAR).parse().unwrap()];
            config.publish = Some(pousse::Publish::Anyone);
            config.limits.ack_timeout = Duration::from_secs(1);
        },
        Chat,
    );
    let _reader = cable.far_curl(&format!("http://{}/api/messages", running.address));
    running.counts("it reads", |now| now.streams == 1);
    cable.pull_out();
    running.remote.publish("general", "Is anybody there?").unwrap();
    running.counts("closed.ack-timeout", |now| now.closed(Reason::AckTimeout) == 1);
}

/// It is ended with the test.
struct Curl(std::process::Child);

impl Drop for Curl {
    fn drop(&mut self) {
        // Both fail only if it has ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Two machines and a cable between them: a network namespace, and a pair of virtual devices.
struct Cable;

impl Cable {
    const NAME: &str = "pousse-test";
    const NEAR: &str = "10.213.77.1";
    const FAR: &str = "10.213.77.2";

    /// `None`: this machine cannot do that, which is said.
    fn plug() -> Option<Self> {
        let cable = Self;
        cable.clean();
        let steps = [
            format!("netns add {}", Self::NAME),
            format!("link add pousse-near type veth peer name far netns {}", Self::NAME),
            format!("addr add {}/30 dev pousse-near", Self::NEAR),
            "link set pousse-near up".into(),
            format!("-n {} addr add {}/30 dev far", Self::NAME, Self::FAR),
            format!("-n {} link set far up", Self::NAME),
        ];
        let has_curl = Command::new("curl").arg("--version").output().is_ok();
        if has_curl && steps.iter().all(|step| ip(step)) {
            return Some(cable);
        }
        println!(
            "SKIPPED: a peer whose machine has gone (needs root, iproute2 and curl: \
             apt-get install iproute2 curl)"
        );
        let is_required = std::env::var("POUSSE_TEST_REQUIRE").is_ok_and(|it| it == "all");
        assert!(!is_required, "nothing may be skipped here");
        None
    }

    /// curl on the far machine, which goes on for ever.
    fn far_curl(&self, url: &str) -> Curl {
        let mut curl = Command::new("ip");
        curl.args(["netns", "exec", Self::NAME, "curl", "-sN", "-H", "Accept: text/event-stream"]);
        curl.arg(url).stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
        Curl(curl.spawn().unwrap())
    }

    fn pull_out(&self) {
        assert!(ip(&format!("-n {} link set far down", Self::NAME)));
    }

    fn clean(&self) {
        ip("link del pousse-near");
        ip(&format!("netns del {}", Self::NAME));
    }
}

impl Drop for Cable {
    fn drop(&mut self) {
        self.clean();
    }
}

fn ip(words: &str) -> bool {
    let output = Command::new("ip").args(words.split_whitespace()).output();
    output.is_ok_and(|output| output.status.success())
}

#[test]
fn a_client_that_has_opened_is_no_opening_any_more() {
    let running = Running::with(|limits| limits.openings = 1, Chat);
    let mut slow = Peer::connect(running.address);
    slow.says(opening("/websocket"));
    assert_eq!(slow.answer().status, 101);
    let mut others: Vec<Peer> = (0..3).map(|_| Peer::connect(running.address)).collect();
    running.counts("closed.openings", |now| now.closed(Reason::Openings) == 2);
    slow.says(frame(0x89, b"?"));
    assert_eq!(slow.hears(), (0x8a, b"?".to_vec()));
    assert_eq!(others[2].asks("GET /api/messages").status, 200);
    assert!(others[0].ends().is_empty());
}

#[test]
fn one_who_asks_over_http_and_reads_nothing_is_dropped_once_for_its_memory() {
    let running = Running::with(
        |limits| {
            limits.memory = 200_000;
            limits.stall = Duration::from_secs(60);
        },
        Chat,
    );
    for _ in 0..10 {
        running.remote.publish("t", vec![7; 60_000].as_slice()).unwrap();
    }
    let mut greedy = Peer::connect(running.address);
    greedy.says(
        "GET /api/messages?topic=t&after=earliest HTTP/1.1\r\nHost: localhost\r\n\r\n".repeat(100),
    );
    running.counts("closed.memory", |now| now.closed(Reason::Memory) == 1);
    assert_eq!(running.counters().refused(Reason::Memory), 1);
}
