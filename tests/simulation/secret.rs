//! The peers' side of TLS, over a machine's socket. What is encrypted differs from run to run, how
//! long it is does not: the certificate's key is Ed25519, whose signatures have one length.

use std::io::{Read, Write};
use std::sync::{Arc, OnceLock};

use pousse::Tls;
use rcgen::{CertificateParams, KeyPair, PKCS_ED25519};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, RootCertStore};

/// A session, and ciphertext that the kernel has still to take.
pub struct Secret {
    tls: ClientConnection,
    pub to_send: Vec<u8>,
}

static MADE: OnceLock<(Tls, Arc<ClientConfig>)> = OnceLock::new();

fn made() -> &'static (Tls, Arc<ClientConfig>) {
    MADE.get_or_init(|| {
        let key = KeyPair::generate_for(&PKCS_ED25519).expect("a key");
        let params = CertificateParams::new(vec!["localhost".to_owned()]).expect("a name");
        let certificate = params.self_signed(&key).expect("a certificate");
        let tls = Tls::from_pem(certificate.pem().as_bytes(), key.serialize_pem().as_bytes());
        let mut roots = RootCertStore::empty();
        roots.add(certificate.der().clone()).expect("a root");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let client = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .expect("TLS 1.3")
            .with_root_certificates(roots)
            .with_no_client_auth();
        (tls.expect("it was made just now"), Arc::new(client))
    })
}

/// What the server is to have.
pub fn certificate() -> Tls {
    made().0.clone()
}

impl Secret {
    pub fn new() -> Self {
        let name = ServerName::try_from("localhost").expect("a name");
        let tls = ClientConnection::new(made().1.clone(), name).expect("a session");
        Self { tls, to_send: Vec::new() }
    }

    /// Encrypts what is to be sent.
    pub fn seal(&mut self, plain: &mut Vec<u8>) {
        let count = self.tls.writer().write(plain).expect("memory takes it");
        plain.drain(..count);
        while self.tls.wants_write() {
            self.tls.write_tls(&mut self.to_send).expect("memory takes it");
        }
    }

    /// Decrypts what has come.
    pub fn open(&mut self, mut raw: &[u8], got: &mut Vec<u8>) -> Result<(), String> {
        while !raw.is_empty() {
            self.tls.read_tls(&mut raw).map_err(|error| error.to_string())?;
            let state = self.tls.process_new_packets().map_err(|error| format!("TLS: {error}"))?;
            let mut plain = vec![0; state.plaintext_bytes_to_read()];
            self.tls.reader().read_exact(&mut plain).map_err(|error| error.to_string())?;
            got.extend(plain);
            if state.peer_has_closed() {
                break;
            }
        }
        Ok(())
    }
}
