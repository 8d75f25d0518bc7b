//! The opening handshake of a WebSocket (RFC 6455 §4.2): whether a request is one, what is agreed
//! on in it, and the head that answers it.
//!
//! Pure: nothing is opened here. Which requests ask for a WebSocket is `routes.rs`' business, what
//! an extension may say is `extensions.rs`', what is spoken afterwards is `live.rs`', and the
//! closing handshake is `websocket.rs`'.

use data_encoding::BASE64;
use tungstenite::handshake::derive_accept_key;

use crate::config::PROTOCOL_V1;
use crate::deflate::Window;
use crate::extensions::{self, Agreed};
use crate::http::{Refusal, Request};
use crate::metrics::Reason;
use crate::response::Response;
use crate::rules::{Rules, check_origin};

/// What a WebSocket is opened with.
#[derive(Clone, Debug)]
pub struct Upgrade {
    /// The value of `Sec-WebSocket-Accept`.
    pub(crate) accept: String,
    /// The subprotocol chosen.
    pub(crate) subprotocol: Option<String>,
    /// How messages are compressed.
    pub(crate) deflate: Option<Agreed>,
}

impl Upgrade {
    /// Whether pousse.v1 is spoken from here on.
    pub(crate) fn is_session(&self) -> bool {
        PROTOCOL_V1.is_some() && self.subprotocol.as_deref() == PROTOCOL_V1
    }

    /// How far back we refer in what we compress, if compression was agreed on.
    pub(crate) fn window(&self) -> Option<Window> {
        self.deflate.map(|agreed| agreed.window)
    }

    /// The head that ends HTTP on this connection (RFC 6455 §4.2.2).
    pub(crate) fn response(self) -> Response {
        let response = Response::new(101)
            .with("Upgrade", "websocket")
            .with("Connection", "Upgrade")
            .with("Sec-WebSocket-Accept", self.accept);
        let response = match self.deflate {
            Some(agreed) => response.with("Sec-WebSocket-Extensions", agreed.answer()),
            None => response,
        };
        match self.subprotocol {
            Some(name) => response.with("Sec-WebSocket-Protocol", name),
            None => response,
        }
    }
}

/// Checks an opening handshake (RFC 6455 §4.2.1) and prepares its answer.
///
/// # Errors
/// [`Refusal`]: 400, 403 for a foreign origin, 426 for another version.
pub fn handshake(request: &Request, rules: &Rules, on_loopback: bool) -> Result<Upgrade, Refusal> {
    check_origin(request, rules, on_loopback)?;
    let bad = |detail: &'static str| Err(Refusal::new(400, Reason::Request, detail));
    if !request.is_upgrade() {
        return bad("a WebSocket is opened by GET with Connection: Upgrade, Upgrade: websocket");
    }
    if request.content_length > 0 {
        return bad("an opening handshake has no content");
    }
    let mut versions = request.raw_fields("sec-websocket-version");
    match (versions.next(), versions.next()) {
        (Some(b"13"), None) => {}
        (Some(_), None) => {
            let detail = "this version is not spoken; ask with Sec-WebSocket-Version: 13";
            return Err(Refusal::new(426, Reason::Request, detail)
                .with(&[("Sec-WebSocket-Version", "13"), ("Upgrade", "websocket")]));
        }
        _ => return bad("an opening handshake has one Sec-WebSocket-Version, which is 13"),
    }
    let mut keys = request.raw_fields("sec-websocket-key");
    let (Some(key), None) = (keys.next(), keys.next()) else {
        return bad("an opening handshake has one Sec-WebSocket-Key");
    };
    if !is_nonce(key) {
        return bad("Sec-WebSocket-Key has to be 16 bytes in base64");
    }
    let mut offered = request.members("sec-websocket-protocol").peekable();
    let offers_some = offered.peek().is_some();
    let is_spoken = |name: &&str| rules.subprotocols.iter().any(|it| it == name);
    let chosen = PROTOCOL_V1.filter(|_| offers_v1(request)).or_else(|| offered.find(is_spoken));
    if offers_some && chosen.is_none() {
        return bad("none of the subprotocols offered is spoken here; offer none, or another");
    }
    let extensions = request.raw_fields("sec-websocket-extensions");
    let Ok(agreed) = extensions::negotiate(extensions) else {
        return bad("Sec-WebSocket-Extensions has to be a list of extensions (RFC 6455 §9.1)");
    };
    Ok(Upgrade {
        accept: derive_accept_key(key),
        subprotocol: chosen.map(str::to_owned),
        deflate: agreed.filter(|_| rules.deflate),
    })
}

/// Whether these are 16 bytes in base64. Decoding also takes what is padded in its middle.
fn is_nonce(key: &[u8]) -> bool {
    key.strip_suffix(b"==").is_some_and(|digits| digits.len() == 22 && !digits.contains(&b'='))
        && BASE64.decode_mut(key, &mut [0; 18]).is_ok()
}

/// Whether pousse.v1 is among the subprotocols that are offered.
pub(crate) fn offers_v1(request: &Request) -> bool {
    let mut offered = request.members("sec-websocket-protocol");
    PROTOCOL_V1.is_some_and(|v1| offered.any(|name| name == v1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, Publish};
    use crate::http::Peer;
    use crate::limits::Limits;
    use crate::parse::parse_head;

    /// What comes of an opening handshake with this offer.
    fn agreed(offer: &str, config: &Config) -> Result<bool, u16> {
        let head = format!(
            "GET /websocket HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\n\
             Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
             Sec-WebSocket-Extensions: {offer}\r\n\r\n"
        );
        let request = parse_head(head.as_bytes(), &Limits::default(), Peer::Unix).unwrap();
        let rules = Rules::new(config, Publish::Anyone);
        let upgrade = handshake(&request, &rules, true).map_err(|refusal| refusal.status)?;
        let is_agreed = upgrade.window().is_some();
        let fields = upgrade.response().fields;
        let is_answered = fields.iter().any(|(name, _)| *name == "Sec-WebSocket-Extensions");
        assert_eq!(is_agreed, is_answered);
        Ok(is_agreed)
    }

    #[test]
    fn compression_is_agreed_on_where_the_build_and_the_settings_have_it() {
        let mut config = Config::default();
        let offer = "permessage-deflate; client_max_window_bits";
        assert_eq!(agreed(offer, &config), Ok(cfg!(feature = "deflate")));
        assert_eq!(agreed("permessage-deflate; a=b", &config), Ok(false));
        assert_eq!(agreed("permessage-deflate; a=", &config), Err(400));
        assert!(config.check().is_ok());
        config.deflate = false;
        assert_eq!(agreed(offer, &config), Ok(false));
        assert_eq!(agreed("permessage-deflate; a=", &config), Err(400));
        config.deflate = true;
        assert_eq!(agreed(offer, &config), Ok(cfg!(feature = "deflate")));
        assert_eq!(config.check().is_ok(), cfg!(feature = "deflate"), "and it is said");
    }
}
