//! Certificates: which are refused and with what sentence, and how one is replaced.

use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use pousse::Tls;
use rustix::process::Signal;
use tungstenite::Message;

use crate::common::{Socket, answer, echo, http, request, status};
use crate::rig::{Client, Daemon, Pair, Secure, VERSIONS, client, write};

/// What the client was shown.
fn shown(client: &Client) -> &[u8] {
    &client.conn.peer_certificates().unwrap()[0]
}

#[test]
fn a_certificate_or_key_that_cannot_be_used_is_refused_with_a_sentence() {
    let (pair, other) = (Pair::new(), Pair::new());
    let (certificate, key) = (pair.certificate.as_bytes(), pair.key.as_bytes());
    let cut = &certificate[..certificate.len() - 20];
    let torn = pair.certificate.replacen("M", "*", 2);
    let nonsense = "-----BEGIN CERTIFICATE-----\nTm9uc2Vuc2U=\n-----END CERTIFICATE-----\n";
    for (certificate, key, words) in [
        (&b""[..], key, "the certificate has no certificate in PEM form"),
        (key, key, "the certificate has no certificate in PEM form"),
        (cut, key, "the certificate is not PEM"),
        (torn.as_bytes(), key, "the certificate is not PEM"),
        (nonsense.as_bytes(), key, "cannot be used"),
        (certificate, &b"\xff\x00"[..], "the key has no private key in PEM form"),
        (certificate, certificate, "the key has no private key in PEM form"),
        (certificate, other.key.as_bytes(), "the key does not belong to the certificate"),
    ] {
        let error = Tls::from_pem(certificate, key).unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
    }
    let error = Tls::load("/nowhere/a.pem", "/nowhere/b.pem").unwrap_err().to_string();
    assert!(error.contains("/nowhere/a.pem cannot be read"), "{error}");
    let tls = pair.tls();
    assert!(tls.not_after().unwrap() > 4_000_000_000, "{tls:?}");
    assert!(!format!("{tls:?}").contains("key"), "{tls:?}");
}

#[test]
fn the_program_refuses_with_78_and_names_the_file() {
    let (pair, other) = (Pair::new(), Pair::new());
    let [certificate, key] = write("refused", &pair);
    let [_, wrong] = write("refused-other", &other);
    let run = |flags: &[&str]| {
        let output =
            Command::new(env!("CARGO_BIN_EXE_pousse")).env_clear().args(flags).output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.code().unwrap(), text + &String::from_utf8_lossy(&output.stdout))
    };
    let [certificate, key, wrong] = [&certificate, &key, &wrong].map(|it| it.to_str().unwrap());
    let listen = ["--listen", "127.0.0.1:0"];
    for check in [&["--check"][..], &[]] {
        for (flags, code, words) in [
            (&["--tls-cert", certificate][..], 64, &["tls-cert is given and tls-key is not"][..]),
            (&["--tls-key", key], 64, &["tls-key is given and tls-cert is not"]),
            (&["--tls-cert", "/nowhere", "--tls-key", key], 78, &["/nowhere cannot be read"]),
            (&["--tls-cert", certificate, "--tls-key", "/nowhere"], 78, &["/nowhere"]),
            (&["--tls-cert", certificate, "--tls-key", wrong], 78, &[certificate, wrong]),
            (&["--tls-cert", key, "--tls-key", key], 78, &["no certificate", key]),
        ] {
            let (got, text) = run(&[&listen[..], flags, check].concat());
            assert_eq!(got, code, "{text}");
            assert_eq!(text.lines().count(), 1, "{text}");
            assert!(words.iter().all(|word| text.contains(word)), "{text}");
        }
    }
    let (code, text) = run(&["--tls-cert", certificate, "--tls-key", key, "--check"]);
    assert_eq!(code, 0, "{text}");
    assert!(text.contains("tls-cert ") && text.contains(certificate), "{text}");
}

#[test]
fn a_new_certificate_is_for_those_who_come_and_the_others_go_on() {
    let secure = Secure::start(|_| {}, echo);
    let new = Pair::new();
    let mut old = Socket::over(secure.client(&VERSIONS), "/websocket", &[]).unwrap();
    // Accepted before, so it is met with the old one even if it speaks after.
    let mut waits = crate::common::connect(secure.server.address());
    while secure.server.counters().accepted < 2 {}
    let tls = new.tls();
    secure.server.ask(move |ctx| ctx.set_tls(tls));
    let mut session = secure.pair.trusted(&VERSIONS, &[]);
    session.complete_io(&mut waits).unwrap();
    assert_eq!(session.peer_certificates().unwrap()[0], secure.pair.der());
    for version in VERSIONS {
        let fresh = client(new.trusted(&[version], &[]), secure.server.address());
        assert_eq!(shown(&fresh), &*new.der());
        assert_eq!(status(&http(fresh, "GET", "/", "")), "200");
    }
    assert_eq!(shown(old.0.get_ref()), &*secure.pair.der());
    old.says("still here");
    assert_eq!(old.hears(), "still here");
}

#[test]
fn hup_reads_the_certificate_again_and_drops_nobody() {
    let daemon = Daemon::start("reload", &[]);
    let mut socket = Socket::over(daemon.client(), "/websocket", &[]).unwrap();
    let mut rests = daemon.client();
    let is_alive = |socket: &mut Socket<Client>, rests: &mut Client| {
        socket.says("alive");
        assert_eq!(socket.next(), Message::text("alive"));
        rests.write_all(request("GET", "/api/messages?limit=0", "", "").as_bytes()).unwrap();
        assert_eq!(status(&answer(rests)), "200");
    };
    is_alive(&mut socket, &mut rests);

    // Each of the two is broken in its turn, and the old pair stays.
    let new = Pair::new();
    for (at, text, words) in [
        (0, "no certificate", "has no certificate in PEM form"),
        (1, "no key", "has no private key in PEM form"),
        (1, &new.key, "does not belong to"),
    ] {
        write("reload", &daemon.pair);
        std::fs::write(&daemon.files[at], text).unwrap();
        daemon.signal(Signal::HUP);
        let line = daemon.line_with("what=certificate");
        assert!(line.contains("event=reload_failed what=certificate error="), "{line}");
        assert!(
            line.contains(words) && line.contains(daemon.files[at].to_str().unwrap()),
            "{line}"
        );
        assert!(daemon.serves(), "with the old one");
    }
    is_alive(&mut socket, &mut rests);

    write("reload", &new);
    daemon.signal(Signal::HUP);
    assert!(daemon.line_with("what=certificate").contains("event=reload what=certificate"));
    let fresh = client(new.trusted(&VERSIONS, &[]), daemon.address);
    assert_eq!(shown(&fresh), &*new.der());
    is_alive(&mut socket, &mut rests);
    assert_eq!(shown(socket.0.get_ref()), &*daemon.pair.der());
}

#[test]
fn what_an_idle_client_over_tls_costs_is_within_its_bound() {
    const CLIENTS: usize = 400;
    let daemon = Daemon::start("memory", &["--max-clients", "900"]);
    let open = || Socket::over(daemon.client(), "/websocket", &[]).unwrap();
    let _warm: Vec<_> = (0..50).map(|_| open()).collect();
    let before = daemon.resident_bytes();
    let _idle: Vec<_> = (0..CLIENTS).map(|_| open()).collect();
    let each = (daemon.resident_bytes() - before) / CLIENTS;
    println!("an idle wss client: {each} bytes of resident memory");
    assert!(each <= 16 * 1024, "{each} bytes");
}

#[test]
fn the_certificate_that_the_example_makes_is_served_with() {
    // `make test` has built it, and cargo puts it beside the program.
    let beside = Path::new(env!("CARGO_BIN_EXE_pousse")).parent().unwrap();
    let example = beside.join("examples").join("tls_certificate");
    if !example.is_file() {
        let mut build = Command::new(env!("CARGO"));
        build.args(["build", "--quiet", "--example", "tls_certificate", "--target-dir"]);
        build.arg(beside.parent().unwrap()).current_dir(env!("CARGO_MANIFEST_DIR"));
        if beside.ends_with("release") {
            build.arg("--release");
        }
        assert!(build.status().unwrap().success());
    }
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("tls-example");
    let _ = std::fs::remove_dir_all(&folder);
    // Twice: what is there is replaced.
    for _ in 0..2 {
        let said = Command::new(&example).arg(&folder).output().unwrap();
        let text = String::from_utf8(said.stdout).unwrap();
        assert!(said.status.success() && text.starts_with("--tls-cert "), "{text}");
        let files = [folder.join("cert.pem"), folder.join("key.pem")];
        let mode = std::fs::metadata(&files[1]).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "a key is for its owner");
        let pair = Pair {
            certificate: std::fs::read_to_string(&files[0]).unwrap(),
            key: std::fs::read_to_string(&files[1]).unwrap(),
        };
        let daemon = Daemon::start_with(pair, files, &[]);
        assert!(daemon.serves());
    }
}
