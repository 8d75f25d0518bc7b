//! https and wss, with the client side of rustls as the peer, and plain sockets where the peer is
//! to do what no client does. `rig.rs` has certificates, clients and servers.

#![cfg(all(feature = "tls", feature = "daemon"))]
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "helpers of tests are tests")]

use kit::common;

#[path = "tls/certificate.rs"]
mod certificate;
#[path = "tls/ending.rs"]
mod ending;
#[path = "tls/handshake.rs"]
mod handshake;
#[path = "tls/hostile.rs"]
mod hostile;
#[path = "tls/rig.rs"]
mod rig;
#[path = "tls/transports.rs"]
mod transports;
