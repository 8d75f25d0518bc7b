//! A certificate and its key: what a listener needs to speak TLS (RFC 8446, RFC 5246).
//!
//! rustls decides what is secure; what is decided here is what this server does not do. No 0-RTT,
//! as early data can be replayed. No resumption, neither by tickets nor by session ids: a
//! connection lasts for hours, and what every handshake costs is then what a limit can count. ALPN
//! is `http/1.1` and nothing else, so that a client of another protocol is refused rather than
//! answered (ALPACA). How one client's TLS is driven is `tls_session.rs`.
//!
//! Invariant: a [`Tls`] holds a key that belongs to its certificate, so a server that was given
//! one can serve with it.

#[cfg(feature = "tls")]
use std::sync::Arc;
use std::{fmt, fs, io, path::Path};

#[cfg(feature = "tls")]
use rustls::ServerConfig;

use crate::error::Error;

/// A certificate chain and its key. Cloning it is cheap.
///
/// ```no_run
/// use pousse::{Config, Tls};
/// let mut config = Config::default();
/// config.listen = vec![":443".parse()?];
/// config.tls = Some(Tls::load("fullchain.pem", "privkey.pem")?);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct Tls {
    /// What sessions begin with.
    #[cfg(feature = "tls")]
    pub(crate) config: Arc<ServerConfig>,
    /// Without the feature `tls` there is none, and the compiler knows it.
    #[cfg(not(feature = "tls"))]
    pub(crate) none: std::convert::Infallible,
    not_after: Option<u64>,
}

impl Tls {
    /// The most bytes that TLS keeps for one client, beside what waits for it: a handshake message
    /// or a record that is not whole, the plaintext of the last one, and the keys.
    pub const CLIENT_BYTES_MAX: usize = 96 * 1024;

    /// From PEM: the certificate first and then those that lead to a root; the key as PKCS #8,
    /// PKCS #1 or SEC 1, not encrypted.
    ///
    /// # Errors
    /// [`Error::Tls`] says which of the two is wrong and what is wanted.
    pub fn from_pem(certificate: &[u8], key: &[u8]) -> Result<Self, Error> {
        read(certificate, key, "the certificate", "the key").map_err(Error::Tls)
    }

    /// From two files, as [`from_pem`](Self::from_pem).
    ///
    /// # Errors
    /// [`Error::Tls`] says which file is wrong and what is wanted.
    pub fn load(certificate: impl AsRef<Path>, key: impl AsRef<Path>) -> Result<Self, Error> {
        let open = |what: &str, path: &Path| {
            let name = format!("{what} {}", path.display());
            match read_file(path) {
                Ok(bytes) => Ok((bytes, name)),
                Err(error) => Err(Error::Tls(format!("{name} cannot be read: {error}"))),
            }
        };
        let (certificate, certificate_name) = open("the certificate", certificate.as_ref())?;
        let (key, key_name) = open("the key", key.as_ref())?;
        read(&certificate, &key, &certificate_name, &key_name).map_err(Error::Tls)
    }

    /// The end of the certificate's validity as seconds of Unix time, if it can be read.
    pub fn not_after(&self) -> Option<u64> {
        self.not_after
    }
}

/// The bytes of a regular file of no strange size: whoever reloads must not be made to wait by a
/// pipe or a device, nor to take in a disk.
fn read_file(path: &Path) -> io::Result<Vec<u8>> {
    const BYTES_MAX: u64 = 1 << 20;
    let is_fit = |found: fs::Metadata| found.is_file() && found.len() <= BYTES_MAX;
    match fs::metadata(path).map(is_fit)? {
        true => fs::read(path),
        false => Err(io::Error::other("it is no regular file of at most 1 MiB")),
    }
}

/// Says nothing of the key.
impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").field("not_after", &self.not_after).finish_non_exhaustive()
    }
}

#[cfg(feature = "tls")]
fn read(
    certificate: &[u8],
    key: &[u8],
    certificate_name: &str,
    key_name: &str,
) -> Result<Tls, String> {
    use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms};
    use rustls::pki_types::pem::{Error as Pem, PemObject};
    use rustls::pki_types::{CertificateDer, PrivateKeyDer};
    use rustls::server::NoServerSessionStorage;
    use rustls::version::{TLS12, TLS13};

    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(certificate)
        .collect::<Result<_, _>>()
        .map_err(|error| format!("{certificate_name} is not PEM: {error}"))?;
    let Some(first) = chain.first() else {
        return Err(format!(
            "{certificate_name} has no certificate in PEM form: wanted is a text with \
             -----BEGIN CERTIFICATE----- in it"
        ));
    };
    let not_after = not_after(first);
    let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| match error {
        Pem::NoItemsFound => format!(
            "{key_name} has no private key in PEM form: wanted is a text with \
             -----BEGIN PRIVATE KEY----- in it, and not an encrypted one"
        ),
        other => format!("{key_name} is not PEM: {other}"),
    })?;
    // Clients show no certificate here, so nothing of theirs is verified, and the code for it is
    // not in the program.
    let provider = CryptoProvider {
        signature_verification_algorithms: WebPkiSupportedAlgorithms { all: &[], mapping: &[] },
        ..rustls::crypto::ring::default_provider()
    };
    let mut config = ServerConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[&TLS13, &TLS12])
        .map_err(|error| error.to_string())?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(|error| match error {
            rustls::Error::InconsistentKeys(_) => {
                format!(
                    "{key_name} does not belong to {certificate_name}: give the two of one pair"
                )
            }
            // What of the two cannot be used is not told apart by the kind of error.
            other => format!("{certificate_name} and {key_name} cannot be used: {other}"),
        })?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.max_early_data_size = 0;
    Ok(Tls { config: Arc::new(config), not_after })
}

/// Only to be told: a certificate that rustls can use and this cannot read is used all the same.
#[cfg(feature = "tls")]
fn not_after(certificate: &[u8]) -> Option<u64> {
    use x509_cert::der::Decode;
    let certificate = x509_cert::Certificate::from_der(certificate).ok()?;
    Some(certificate.tbs_certificate().validity().not_after.to_unix_duration().as_secs())
}

#[cfg(not(feature = "tls"))]
fn read(_: &[u8], _: &[u8], certificate_name: &str, _: &str) -> Result<Tls, String> {
    Err(format!(
        "{certificate_name} cannot be used: this build speaks no TLS, it lacks the feature `tls`"
    ))
}
