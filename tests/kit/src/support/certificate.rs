//! A certificate for `localhost` that signs itself, in files, and clients that trust it and no
//! other.

use std::net::TcpStream;
use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

/// See the head of this file.
pub struct Pair {
    /// The certificate and its key.
    files: [String; 2],
    pub trust: Arc<ClientConfig>,
}

impl Pair {
    /// Makes one. `name` names its files, and has to be another for each test.
    pub fn new(name: &str) -> Self {
        let made = rcgen::generate_simple_self_signed(["localhost".into()]).unwrap();
        Self::of(name, &made.cert.pem(), &made.signing_key.serialize_pem())
    }

    /// One with an RSA key, which costs the server a hundred times as much as another to sign with.
    /// It is always the same: whoever makes the others makes none of this kind.
    pub fn rsa_2048(name: &str) -> Self {
        let certificate = include_str!("../../../tls/rsa/2048-cert.pem");
        Self::of(name, certificate, include_str!("../../../tls/rsa/2048-key.pem"))
    }

    /// The same with a longer one.
    pub fn rsa_4096(name: &str) -> Self {
        let certificate = include_str!("../../../tls/rsa/4096-cert.pem");
        Self::of(name, certificate, include_str!("../../../tls/rsa/4096-key.pem"))
    }

    fn of(name: &str, certificate: &str, key: &str) -> Self {
        let folder = crate::folder();
        let files = ["cert", "key"].map(|kind| folder.join(format!("{name}-{kind}.pem")));
        std::fs::write(&files[0], certificate).unwrap();
        std::fs::write(&files[1], key).unwrap();
        let trust = trust(&files[0]);
        Self { files: files.map(|path| path.to_str().unwrap().into()), trust }
    }

    /// The flags that make the program serve with it.
    pub fn flags(&self) -> [&str; 4] {
        ["--tls-cert", &self.files[0], "--tls-key", &self.files[1]]
    }

    /// The first flight of a client, as bytes.
    pub fn hello(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        connection(&self.trust).write_tls(&mut bytes).unwrap();
        bytes
    }
}

/// Trusts the certificate of this file.
fn trust(file: &Path) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(file).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider);
    let config = config.with_safe_default_protocol_versions().unwrap();
    Arc::new(config.with_root_certificates(roots).with_no_client_auth())
}

/// The client's side of one connection.
pub fn connection(trust: &Arc<ClientConfig>) -> ClientConnection {
    ClientConnection::new(trust.clone(), ServerName::try_from("localhost").unwrap()).unwrap()
}

/// The same over a socket.
pub fn client(
    trust: &Arc<ClientConfig>,
    socket: TcpStream,
) -> Box<StreamOwned<ClientConnection, TcpStream>> {
    Box::new(StreamOwned::new(connection(trust), socket))
}
