//! Every limit of `limits.rs`: just to it, over it, and who is told what; and peers who mean harm.
//!
//! Most go over real sockets to a server in this process (`running.rs`), with limits made small.
//! What is a time goes, for its exact edge, to a connection by hand (`by_hand.rs`); what is memory
//! or descriptors, to a server in a process of its own (`process.rs`). [`TESTED`] says which test
//! is whose, and a limit without a test is a failure.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "a test that stops is a test that tells"
)]

#[path = "limits/by_hand.rs"]
mod by_hand;
#[path = "limits/clients.rs"]
mod clients;
#[path = "limits/gate.rs"]
mod gate;
#[path = "limits/held.rs"]
mod held;
#[path = "limits/hostile.rs"]
mod hostile;
#[path = "limits/http.rs"]
mod http;
#[path = "limits/log.rs"]
mod log;
#[path = "limits/peer.rs"]
mod peer;
#[path = "limits/process.rs"]
mod process;
#[path = "limits/running.rs"]
mod running;
#[path = "limits/silent.rs"]
mod silent;
#[path = "limits/system.rs"]
mod system;
#[path = "limits/turn.rs"]
mod turn;
#[path = "limits/websocket.rs"]
mod websocket;

use pousse::{Config, Held, LIMITS, Reason};
use silent::SILENT;

/// Which test is whose. A test that is no longer there does not compile.
const TESTED: &[(&str, fn())] = &[
    ("history", log::of_each_topic_so_many_messages_are_kept),
    ("history-bytes", log::of_each_topic_so_many_bytes_are_kept),
    ("history-age", log::a_message_is_kept_for_its_age_and_then_no_longer),
    ("history-total", log::of_all_topics_together_so_many_bytes_are_kept),
    (
        "max-topics",
        clients::the_unread_topic_with_the_oldest_message_makes_room_and_if_all_are_read_it_is_503,
    ),
    ("max-clients", clients::a_client_too_many_waits_in_the_queue_and_is_served_when_one_leaves),
    ("max-per-ip", gate::an_address_has_so_many_clients_and_the_next_is_told_429),
    ("max-new-per-ip", gate::of_one_address_so_many_come_at_once_and_the_next_is_told_429),
    ("auth-failures", gate::after_so_many_wrong_credentials_no_other_is_looked_at),
    ("openings", gate::of_those_who_have_not_asked_yet_the_oldest_makes_room),
    ("memory", gate::over_the_memory_of_all_the_one_who_holds_most_is_dropped_with_1013),
    ("control-clients", clients::a_control_client_too_many_waits_and_max_clients_is_not_for_them),
    ("max-message", http::a_message_over_its_bytes_is_refused_with_413_and_1009_before_it_is_read),
    ("head-bytes", http::a_head_over_its_bytes_is_refused_with_431),
    ("headers", http::a_head_of_too_many_fields_is_refused_with_431),
    ("target-bytes", http::a_target_over_its_bytes_is_refused_with_414),
    ("head-timeout", http::a_head_that_takes_too_long_is_told_408_and_silence_nothing),
    ("body-timeout", http::a_content_that_takes_too_long_is_told_408),
    ("idle-timeout", http::a_connection_that_rests_too_long_is_closed_without_a_word),
    ("requests", http::the_last_request_of_a_connection_is_answered_with_connection_close),
    ("wait-max", http::a_wait_that_is_too_long_is_shortened),
    (
        "poll-bytes",
        http::a_poll_has_so_many_bytes_of_messages_but_at_least_one_and_the_next_one_goes_on,
    ),
    ("subscriptions", http::a_client_reads_so_many_topics_and_no_more),
    ("ping", websocket::pings_come_at_their_interval_give_or_take_a_fifth),
    ("pong-timeout", websocket::a_client_whose_pong_takes_too_long_is_dropped),
    ("fragments", websocket::a_message_of_too_many_fragments_is_closed_with_1008),
    ("message-timeout", websocket::a_message_that_takes_too_long_is_closed_with_1008),
    ("wrong-commands", websocket::commands_that_are_wrong_are_answered_until_they_are_a_flood),
    ("controls", websocket::too_many_control_frames_are_closed_with_1008),
    ("close-timeout", websocket::a_close_frame_is_waited_for_and_then_no_more),
    ("outbox-soft", clients::a_client_for_whom_much_waits_is_not_read),
    ("outbox", clients::a_direct_send_to_a_client_for_whom_too_much_waits_is_refused),
    (
        "outbox-messages",
        clients::a_direct_send_to_a_client_for_whom_too_many_messages_wait_is_refused,
    ),
    (
        "unsent",
        system::the_system_takes_no_more_than_it_can_send_soon_and_a_reader_that_reads_on_gets_all,
    ),
    ("stall", clients::a_client_that_takes_nothing_for_too_long_is_closed_with_1013),
    ("ack-timeout", gate::a_peer_whose_machine_has_gone_is_noticed_by_what_is_written_to_it),
    ("turn-read", turn::in_one_turn_so_many_bytes_are_read_of_one_client),
    ("turn-messages", turn::in_one_turn_so_many_messages_of_one_client_are_handed_on),
    ("turn-write", turn::in_one_turn_so_many_bytes_are_written_to_one_client),
    ("turn-accept", turn::in_one_turn_so_many_clients_are_accepted),
    ("turn-handshakes", turn::in_one_turn_so_many_steps_of_handshakes_are_taken),
    ("turn-readers", turn::in_one_slice_so_many_readers_are_given_a_message),
    ("turn-time", turn::a_step_of_a_turn_goes_on_for_its_time_and_those_not_reached_go_first),
    ("slow-handler", turn::a_handler_that_takes_longer_is_counted),
    ("commands", clients::commands_of_other_threads_that_may_wait_are_so_many),
    ("drain", websocket::an_ending_server_waits_for_its_clients_and_then_no_more),
];

#[test]
fn every_limit_has_a_test_and_every_test_a_limit() {
    let limits: Vec<&str> = LIMITS.iter().map(|limit| limit.name).collect();
    let tested: Vec<&str> = TESTED.iter().map(|(name, _)| *name).collect();
    assert_eq!(tested, limits, "TESTED follows the table of limits.rs");
}

#[test]
fn a_limit_that_ends_or_refuses_something_is_the_word_of_a_reason_and_any_other_is_counted_as_held()
{
    let reasons: Vec<&str> = Reason::ALL.iter().map(|reason| reason.word()).collect();
    let held: Vec<&str> = Held::ALL.iter().map(|limit| limit.word()).collect();
    let silent: Vec<&str> = SILENT.iter().map(|(name, _)| *name).collect();
    for limit in LIMITS {
        let is_reason = reasons.contains(&limit.name);
        let kinds = [is_reason, held.contains(&limit.name), silent.contains(&limit.name)];
        assert_eq!(kinds.iter().filter(|is| **is).count(), 1, "{}", limit.name);
        let ends = [" 4", " 503", "Close code", "close code", "Closed", "dropped", "refused"];
        let promises = ends.iter().find(|it| limit.meaning.contains(**it));
        assert!(promises.is_none() || is_reason, "{}: {}", limit.name, limit.meaning);
    }
    for name in held.iter().chain(&silent) {
        assert!(LIMITS.iter().any(|limit| limit.name == *name), "{name} is no limit any more");
    }
}

#[test]
fn a_limit_of_zero_is_refused_by_its_name_where_it_makes_no_sense() {
    let allowed = ["history", "history-bytes", "wait-max", "unsent", "drain"];
    for limit in LIMITS {
        let mut config = Config::default();
        let zero =
            ["0", "0s"].into_iter().find(|zero| (limit.set)(&mut config.limits, zero).is_ok());
        assert!(zero.is_some(), "{}", limit.name);
        let checked = config.check();
        assert_eq!(checked.is_ok(), allowed.contains(&limit.name), "{}", limit.name);
        if let Err(error) = checked {
            assert!(error.to_string().contains(&format!("limit {} ", limit.name)), "{error}");
        }
    }
}
