//! The service manager: the sockets it opened for us, and what it is told.
//!
//! systemd's protocol, which others speak too: listeners come as descriptors from 3 on, counted in
//! `LISTEN_FDS` (`sd_listen_fds(3)`); words go to the datagram socket `NOTIFY_SOCKET`
//! (`sd_notify(3)`). Without these variables everything here does nothing. Nothing here
//! waits for the service manager: a word that its queue has no room for is logged and lost.

use std::ffi::OsStr;
use std::io;
use std::net::TcpListener;
use std::os::fd::{AsRawFd, OwnedFd};
#[cfg(target_os = "linux")]
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
#[cfg(target_os = "linux")]
use std::os::unix::net::SocketAddr;
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::time::Duration;

use pousse::Inherited;
use rustix::net::sockopt::socket_type;
use rustix::net::{AddressFamily, SocketType, getsockname};
use sd_notify::NotifyState;

use crate::refusal::Refusal;

/// The sockets that listen already. To be asked once: each is handed over.
///
/// # Errors
/// One of them is something else, or the variables are not of their form.
pub(crate) fn sockets() -> Result<Vec<Inherited>, Refusal> {
    let given = sd_listen_fds::get()
        .map_err(|_| Refusal::config("LISTEN_FDS and LISTEN_PID are numbers".into()))?;
    given.into_iter().map(|(name, socket)| inherited(name, socket.into_std())).collect()
}

fn inherited(name: Option<String>, socket: OwnedFd) -> Result<Inherited, Refusal> {
    // Apple has the question and no answer, but no systemd either.
    #[cfg(not(target_vendor = "apple"))]
    let is_listening = rustix::net::sockopt::socket_acceptconn(&socket).unwrap_or(false);
    #[cfg(target_vendor = "apple")]
    let is_listening = true;
    let is_listening = is_listening && matches!(socket_type(&socket), Ok(SocketType::STREAM));
    match getsockname(&socket).map(|address| address.address_family()) {
        Ok(AddressFamily::INET | AddressFamily::INET6) if is_listening => {
            Ok(TcpListener::from(socket).into())
        }
        Ok(AddressFamily::UNIX) if is_listening => Ok(UnixListener::from(socket).into()),
        _ => Err(Refusal::config(format!(
            "descriptor {} of LISTEN_FDS ({:?}) does not listen on TCP or a unix stream socket; \
             the socket unit has Accept=no and ListenStream=",
            socket.as_raw_fd(),
            name.unwrap_or_default(),
        ))),
    }
}

/// It serves, or does so again with what it has read anew.
pub(crate) fn ready(status: &str) {
    notify(&[NotifyState::Ready, NotifyState::Status(status)]);
}

/// It reads its settings anew; [`ready`] follows.
pub(crate) fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => notify(&[NotifyState::Reloading, now]),
        Err(error) => log::warn!("event=notify_failed error={:?}", error.to_string()),
    }
}

/// It ends, within this time.
pub(crate) fn stopping(within: Duration) {
    let within = within.saturating_add(GRACE).as_micros();
    let usec = u32::try_from(within).unwrap_or(u32::MAX);
    let status = NotifyState::Status("clients are told to leave");
    notify(&[NotifyState::Stopping, status, NotifyState::ExtendTimeoutUsec(usec)]);
}

/// What ending takes beside the clients' time.
const GRACE: Duration = Duration::from_secs(5);

/// How often [`alive`] is to be said: twice in the time after which it would be restarted.
pub(crate) fn heartbeat() -> Option<Duration> {
    sd_notify::watchdog_enabled().map(|limit| (limit / 2).max(HEARTBEAT_MIN))
}

/// More often would be work for its own sake.
const HEARTBEAT_MIN: Duration = Duration::from_millis(50);

/// The loop goes round.
pub(crate) fn alive() {
    notify(&[NotifyState::Watchdog]);
}

fn notify(words: &[NotifyState<'_>]) {
    let Some(name) = std::env::var_os("NOTIFY_SOCKET") else { return };
    let text: String = words.iter().map(|word| format!("{word}\n")).collect();
    if let Err(error) = send(&name, text.as_bytes()) {
        log::warn!("event=notify_failed error={:?}", error.to_string());
    }
}

/// Sends a datagram if that can be done at once: the loop waits for nobody, also not for a service
/// manager that has stopped reading.
fn send(name: &OsStr, text: &[u8]) -> io::Result<()> {
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    #[cfg(target_os = "linux")]
    if let Some(name) = name.as_bytes().strip_prefix(b"@") {
        let address = SocketAddr::from_abstract_name(name)?;
        return socket.send_to_addr(text, &address).map(drop);
    }
    socket.send_to(text, name).map(drop)
}
