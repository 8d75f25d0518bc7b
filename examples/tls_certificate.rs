//! Makes a certificate for this machine that signs itself, to try https and wss with.
//!
//! Run: `cargo run --example tls_certificate [FOLDER]`, default `target/tls`; or `make run-tls`,
//!      which serves with it at once.
//! Try: `pousse --tls-cert target/tls/cert.pem --tls-key target/tls/key.pem`. Browsers warn of it,
//!      and curl wants `--cacert target/tls/cert.pem` (or `-k`), as nobody they know vouches for
//!      it; it is for trying, not for the internet.

use std::error::Error;
use std::fs;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

/// Names and addresses by which this machine calls itself.
const NAMES: [&str; 3] = ["localhost", "127.0.0.1", "::1"];

fn main() -> Result<(), Box<dyn Error>> {
    let folder = PathBuf::from(std::env::args_os().nth(1).unwrap_or_else(|| "target/tls".into()));
    fs::create_dir_all(&folder)?;
    let made = rcgen::generate_simple_self_signed(NAMES.map(String::from))?;
    let (certificate, key) = (folder.join("cert.pem"), folder.join("key.pem"));
    fs::write(&certificate, made.cert.pem())?;
    // Nobody else is to read the key, not even for the moment before its mode is changed.
    let _ = fs::remove_file(&key);
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&key)?;
    file.write_all(made.signing_key.serialize_pem().as_bytes())?;
    println!("--tls-cert {} --tls-key {}", certificate.display(), key.display());
    Ok(())
}
