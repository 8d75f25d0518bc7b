//! The lessons of `tests/scripts/`, played against the real program; and a conversation with a
//! second, foreign WebSocket client.
//!
//! Each `.txt` file there is one test of the same name. `tests/scripts/README.md` teaches their
//! language; `cargo test --test scripts chat` plays one.

#![cfg(feature = "daemon")]
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "a test that stops is a test that tells"
)]

#[path = "scripts/actor.rs"]
mod actor;
#[path = "scripts/language.rs"]
mod language;
#[path = "scripts/play.rs"]
mod play;
#[path = "scripts/protocol.rs"]
mod protocol;
#[path = "scripts/step.rs"]
mod step;
use kit::support;
#[path = "scripts/values.rs"]
mod values;

/// One test per script.
macro_rules! scripts {
    ($($name:ident)+) => {
        $(
            #[test]
            fn $name() {
                play::play(stringify!($name));
            }
        )+

        #[test]
        fn every_script_is_played() {
            let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/scripts");
            let files = std::fs::read_dir(folder).unwrap().map(|file| file.unwrap().file_name());
            let mut scripts: Vec<String> = files
                .filter_map(|name| name.to_str()?.strip_suffix(".txt").map(String::from))
                .collect();
            scripts.sort();
            let mut played = vec![$(stringify!($name)),+];
            played.sort();
            assert_eq!(scripts, played);
        }
    };
}

scripts! {
    chat
    chat_of_three_transports
    daemon_bad_flags
    daemon_cannot_listen
    daemon_not_loopback
    daemon_restarts
    daemon_term
    daemon_term_twice
    daemon_term_with_waiting
    daemon_two_listeners
    daemon_unix_socket
    daemon_unix_socket_left_behind
    event_stream
    event_stream_accept
    event_stream_bad_values
    event_stream_drain
    event_stream_gap
    event_stream_half_close
    event_stream_head
    event_stream_heartbeat
    event_stream_http_1_0
    event_stream_no_room
    event_stream_of_several_topics
    event_stream_origin
    event_stream_restart
    event_stream_resume
    event_stream_slow_reader
    event_stream_stalled_reader
    event_stream_text
    files_built_in
    files_not_given
    files_of_a_folder
    files_of_no_folder
    four_ways
    gap_on_all_four
    history_age
    history_bytes
    http_1_0
    http_cors
    http_framing_refused
    http_half_close
    http_head
    http_heads_refused
    http_host
    http_host_listed
    http_limits
    http_methods
    http_origin
    http_origin_listed
    http_persistent
    http_pipelining
    http_problems
    http_refused_with_content
    http_targets
    http_timeouts
    long_poll
    long_poll_gap
    long_poll_of_many
    long_poll_pipelined
    long_poll_prefer
    long_poll_that_is_left
    poll
    poll_bad_values
    poll_bytes
    poll_etag
    poll_gap
    poll_gap_without_history
    poll_in_pages
    poll_last_event_id
    poll_page_sizes
    poll_several_topics
    poll_topic_names
    publish
    publish_expect_continue
    publish_in_pieces
    publish_once
    publish_too_much
    restart
    switching
    token_keys
    token_not_needed
    token_publish
    token_refused
    token_subscribe
    topics_make_room
    v1_catch_up
    v1_daemon_ends
    v1_deflate
    v1_errors
    v1_flood_of_errors
    v1_gap
    v1_heartbeat
    v1_hello
    v1_is_text
    v1_negotiation
    v1_publish
    v1_publishing_not_allowed
    v1_slow_reader
    v1_subscribe
    v1_unsubscribe
    ws_bad_close_frames
    ws_binary_and_long
    ws_bytes_behind_the_handshake
    ws_close_is_not_waited_for_long
    ws_closing_handshake
    ws_deflate
    ws_deflate_off
    ws_deflate_refused
    ws_deflate_too_big
    ws_extensions
    ws_fragments
    ws_gap
    ws_history
    ws_last_words
    ws_leaving_without_a_word
    ws_limits_of_the_url
    ws_no_pong
    ws_opening_handshake
    ws_opening_refused
    ws_origin
    ws_ping_and_pong
    ws_publishing_not_allowed
    ws_resumes_two_topics
    ws_server_pings
    ws_slow_reader
    ws_stalled_reader
    ws_text_is_utf8
    ws_too_big
    ws_too_many_controls
    ws_too_many_fragments
    ws_topics
    ws_violations
}

/// tungstenite's own client: a peer that neither this project nor its tests have written.
mod tungstenite_is_understood {
    use std::net::TcpStream;

    use tungstenite::protocol::CloseFrame;
    use tungstenite::protocol::frame::coding::CloseCode;
    use tungstenite::{Bytes, Message, WebSocket, client};

    use crate::support::{Door, PATIENCE, Server};

    fn open(server: &Server) -> WebSocket<TcpStream> {
        let Door::Tcp(address) = server.doors()[0] else { panic!("it listens on TCP") };
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        client(format!("ws://{address}/websocket"), stream).unwrap().0
    }

    #[test]
    fn in_a_chat() {
        let server = Server::start(&["--publish", "anyone"]);
        let (mut alice, mut bob) = (open(&server), open(&server));
        for message in [
            Message::text("Bonjour serveur!"),
            Message::text(""),
            Message::text("é".repeat(10_000)),
            Message::binary(vec![0, 255, 7]),
            Message::binary(vec![1; 65_536]),
        ] {
            alice.send(message.clone()).unwrap();
            assert_eq!(alice.read().unwrap(), message);
            assert_eq!(bob.read().unwrap(), message);
        }
    }

    #[test]
    fn with_its_pings() {
        let server = Server::start(&[]);
        let mut alice = open(&server);
        let payload = Bytes::from_static(b"are you there?");
        alice.send(Message::Ping(payload.clone())).unwrap();
        assert_eq!(alice.read().unwrap(), Message::Pong(payload));
    }

    #[test]
    fn when_pinged() {
        let server = Server::start(&["--ping", "200ms", "--pong-timeout", "1s"]);
        let mut alice = open(&server);
        // It answers each ping while it reads; who does not is dropped by the second.
        for _ in 0..8 {
            assert!(matches!(alice.read().unwrap(), Message::Ping(_)));
        }
    }

    #[test]
    fn when_it_leaves() {
        let server = Server::start(&[]);
        let mut alice = open(&server);
        let farewell = CloseFrame { code: CloseCode::Normal, reason: "au revoir".into() };
        alice.close(Some(farewell.clone())).unwrap();
        assert_eq!(alice.read().unwrap(), Message::Close(Some(farewell)));
        assert!(matches!(alice.read(), Err(tungstenite::Error::ConnectionClosed)));
    }

    #[test]
    fn when_the_server_ends() {
        let mut server = Server::start(&[]);
        let mut alice = open(&server);
        server.signal(rustix::process::Signal::TERM);
        let Message::Close(Some(farewell)) = alice.read().unwrap() else { panic!("no close") };
        assert_eq!(farewell.code, CloseCode::Away);
        assert!(matches!(alice.read(), Err(tungstenite::Error::ConnectionClosed)));
        assert_eq!(server.wait().unwrap().code(), Some(0));
    }
}
