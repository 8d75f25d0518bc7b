//! A load for push servers: one thread that does one kind of work against a server, checks what it
//! is given, and says how fast that was and what it cost the server. It has none of pousse's code.
//!
//! Run: `cargo run --release --example load -- echo --address 127.0.0.1:8080 --path /`
//! Try: `--connections 100 --size 20 --in-flight 16 --seconds 2`; another work in place of `echo`:
//!
//! | work | what it does |
//! |---|---|
//! | `echo` | WebSockets send, and wait for what they sent |
//! | `broadcast` | one publishes, all read, over `--transport v1,event-stream,long-poll` |
//! | `longpoll` `slow` `mixed` | `broadcast`: to long polls; `--stalled 10`; all transports |
//! | `idle` | opens `--connections`, tells their memory, publishes once; `--hold S` looks on |
//! | `poll` | asks for one message again and again; `--status 304`: with the validator of it |
//! | `publish` | posts messages, over `--topics N` in turn |
//! | `connect` | opening handshakes, `--connections` at a time |
//!
//! The server's process is found by its port, or given by `--pid`; its processor time is that of
//! the scheduler (`/proc/PID/task/*/schedstat`), parted into user and system as the ticks are.
//! `--json` prints one line of JSON. `--messages N` in place of `--seconds` does just so many: two
//! such runs under callgrind or strace differ by the cost of the messages.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    clippy::cast_possible_truncation,
    reason = "a measurement that stops is one that tells, and it reads the clock"
)]

mod args;
mod broadcast;
mod connect;
mod echo;
mod frame;
mod http;
mod idle;
mod meter;
mod net;
mod requests;
mod server;
mod transport;

use serde_json::Value;

use crate::args::Args;

const USAGE: &str = "\
usage: load WORK [--NAME VALUE]…
work:  echo broadcast longpoll slow mixed idle poll publish connect
whom:  --address 127.0.0.1:8080 --path /websocket --publish-path /websocket --publisher-only
       --tls CERTIFICATE --pid N --sources 1 --raw --deflate --nchan
what:  --connections 100 (or --readers) --size 64 --in-flight 1 --transport websocket
       --stalled 10 --status 200 --topics 1
until: --seconds 1.5 or --messages N; idle: --hold 0
told:  --json
";

/// The command line is wrong (EX_USAGE).
const EXIT_USAGE: i32 = 64;

fn main() {
    if std::env::args().skip(1).any(|word| word == "--help" || word == "-h") {
        return print!("{USAGE}");
    }
    let wrong = |what: String| -> ! {
        eprint!("load: {what}\n{USAGE}");
        std::process::exit(EXIT_USAGE);
    };
    let args = Args::read(std::env::args().skip(1)).unwrap_or_else(|what| wrong(what));
    let report = match args.work.as_str() {
        "echo" => echo::run(&args),
        "broadcast" | "longpoll" | "slow" | "mixed" => broadcast::run(&args),
        "idle" => idle::run(&args),
        "poll" | "publish" => requests::run(&args),
        "connect" => connect::run(&args),
        "" => wrong("which work?".into()),
        other => wrong(format!("there is no work {other:?}")),
    };
    if args.is_json {
        return println!("{report}");
    }
    for (name, value) in report.as_object().unwrap() {
        match value {
            Value::Object(parts) => {
                let parts: Vec<String> =
                    parts.iter().map(|(name, value)| format!("{name} {value}")).collect();
                println!("{name:26} {}", parts.join("  "));
            }
            value => println!("{name:26} {value}"),
        }
    }
}
