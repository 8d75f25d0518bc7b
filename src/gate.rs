//! THE GATE: which addresses may come in, and how many clients each of them may have.
//!
//! It knows networks and numbers, no sockets and no clock. An address counts as long as a client of
//! it is here; for IPv6 a whole /64 counts as one, since that is what one customer gets. What is
//! remembered of an address that has left is gone ten seconds later. Behind a trusted proxy the
//! address is the one it forwards for, and is known with each request.
//!
//! Of a million clients most are the only one of their address: so those addresses stand in a set,
//! of 9 bytes for each place in it, and only the others have a number.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use crate::bucket::Bucket;
use crate::config::Config;
use crate::forwarded;
use crate::http::{Peer, Refusal, Request};
use crate::limits::Limits;
use crate::metrics::Reason;
use crate::network::{Network, is_loopback};
use crate::tick::Tick;

/// See the head of this file.
#[derive(Debug, Default)]
pub(crate) struct Gate {
    deny: Vec<Network>,
    trusted: Vec<Network>,
    /// Loopback addresses are counted like others.
    counts_loopback: bool,
    /// Addresses that have one client, and those that have several, with how many.
    once: HashSet<Source>,
    several: HashMap<Source, u32>,
    /// Who has come or failed of late.
    recent: HashMap<Source, Recent>,
    /// When those of them are looked for who mean nothing any more.
    sweep_at: Tick,
}

/// What clients are counted under: an address, or a /64 of IPv6.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Source(u64);

/// What is remembered of an address for a while.
#[derive(Debug, Default)]
struct Recent {
    arrivals: Bucket,
    failures: Bucket,
}

/// How often it is looked who means nothing any more.
const SWEEP_EVERY: Duration = Duration::from_secs(5);

/// Places that are never given back.
const PLACES_MIN: usize = 64;

impl Gate {
    pub(crate) fn new(config: &Config) -> Self {
        Self {
            deny: config.deny.clone(),
            trusted: config.trusted_proxies.clone(),
            counts_loopback: config.limit_loopback,
            once: HashSet::new(),
            several: HashMap::new(),
            recent: HashMap::new(),
            sweep_at: Tick(0),
        }
    }

    /// Whether this peer is a proxy whose word on the address of its clients is taken. One that
    /// comes through a unix socket is, as soon as any is: who may connect there is for the file's
    /// mode to say.
    pub(crate) fn trusts(&self, peer: Peer) -> bool {
        match peer {
            Peer::Tcp(address) => self.trusted.iter().any(|it| it.contains(address.ip())),
            Peer::Unix => !self.trusted.is_empty(),
        }
    }

    /// Lets a new connection in, or says why not. True: it is counted under the peer's address.
    ///
    /// # Errors
    /// [`Reason::Deny`], [`Reason::MaxNewPerIp`], [`Reason::MaxPerIp`].
    pub(crate) fn admit(&mut self, peer: Peer, limits: &Limits, now: Tick) -> Result<bool, Reason> {
        let Peer::Tcp(address) = peer else { return Ok(false) };
        if self.denies(address.ip()) {
            return Err(Reason::Deny);
        }
        let Some(source) = self.counts(address.ip()).filter(|_| !self.trusts(peer)) else {
            return Ok(false);
        };
        self.count(source, limits, now).map(|()| true)
    }

    /// The client that a proxy speaks for with this request.
    ///
    /// # Errors
    /// [`Refusal`]: that cannot be told.
    pub(crate) fn client_of(&self, request: &Request) -> Result<Option<SocketAddr>, Refusal> {
        forwarded::client(request, &self.trusted)
    }

    /// Counts a connection of a proxy for the client that it speaks for now. The one before has
    /// left. True: it is counted.
    ///
    /// # Errors
    /// [`Refusal`]: 403, 429. Then nobody is counted for the connection.
    pub(crate) fn forward(&mut self, client: IpAddr, limits: &Limits) -> Result<bool, Refusal> {
        if self.denies(client) {
            return Err(refusal(Reason::Deny));
        }
        let Some(source) = self.counts(client) else { return Ok(false) };
        self.occupy(source, limits).map_err(refusal)?;
        Ok(true)
    }

    /// A client leaves, if it was counted under this peer's address; then it is no more.
    pub(crate) fn leave(&mut self, peer: Peer, is_counted: &mut bool) {
        if std::mem::take(is_counted)
            && let Peer::Tcp(address) = peer
        {
            self.vacate(source_of(address.ip()));
        }
    }

    /// Somebody at this address has shown a credential that is none.
    pub(crate) fn failed(&mut self, peer: Peer, limits: &Limits, now: Tick) {
        if let Peer::Tcp(address) = peer
            && let Some(source) = self.counts(address.ip())
        {
            self.recent.entry(source).or_default().failures.take(limits.auth_failures, now);
        }
    }

    /// Whether another credential of this address is looked at.
    ///
    /// # Errors
    /// [`Refusal`]: 429, too many have been wrong.
    pub(crate) fn may_try(&self, peer: Peer, limits: &Limits, now: Tick) -> Result<(), Refusal> {
        let Peer::Tcp(address) = peer else { return Ok(()) };
        let recent = self.counts(address.ip()).and_then(|source| self.recent.get(&source));
        match recent {
            Some(it) if !it.failures.has_room(limits.auth_failures, now) => {
                Err(refusal(Reason::AuthFailures))
            }
            _ => Ok(()),
        }
    }

    fn denies(&self, address: IpAddr) -> bool {
        self.deny.iter().any(|network| network.contains(address))
    }

    /// What the address is counted under, if it is counted.
    fn counts(&self, address: IpAddr) -> Option<Source> {
        let is_counted = self.counts_loopback || !is_loopback(address.to_canonical());
        is_counted.then(|| source_of(address))
    }

    /// Counts a new connection. Those who are turned away do not count: else a crowd that tries
    /// again would never get in.
    fn count(&mut self, source: Source, limits: &Limits, now: Tick) -> Result<(), Reason> {
        let has_room = |it: &Recent| it.arrivals.has_room(limits.max_new_per_ip, now);
        if !self.recent.get(&source).is_none_or(has_room) {
            return Err(Reason::MaxNewPerIp);
        }
        self.occupy(source, limits)?;
        self.recent.entry(source).or_default().arrivals.take(limits.max_new_per_ip, now);
        Ok(())
    }

    fn occupy(&mut self, source: Source, limits: &Limits) -> Result<(), Reason> {
        let several = self.several.get(&source).map(|clients| *clients as usize);
        let clients = several.unwrap_or_else(|| usize::from(self.once.contains(&source)));
        if clients >= limits.max_per_ip {
            return Err(Reason::MaxPerIp);
        }
        match self.several.get_mut(&source) {
            Some(clients) => *clients += 1,
            None if clients == 0 => _ = self.once.insert(source),
            None => {
                self.once.remove(&source);
                self.several.insert(source, 2);
            }
        }
        Ok(())
    }

    fn vacate(&mut self, source: Source) {
        match self.several.get_mut(&source) {
            Some(clients) if *clients > 2 => *clients -= 1,
            Some(_) => {
                self.several.remove(&source);
                self.once.insert(source);
            }
            None => _ = self.once.remove(&source),
        }
        // What a crowd needed is given back once three quarters of it have gone.
        if self.once.capacity() > 4 * self.once.len() + PLACES_MIN {
            self.once.shrink_to(2 * self.once.len());
        }
        if self.several.capacity() > 4 * self.several.len() + PLACES_MIN {
            self.several.shrink_to(2 * self.several.len());
        }
    }

    /// Forgets addresses of which nothing is to be known any more, now and then; to be called in
    /// every turn.
    ///
    /// Work: a look at each that came in the last ten seconds, every five.
    pub(crate) fn sweep(&mut self, limits: &Limits, now: Tick) {
        if now < self.sweep_at {
            return;
        }
        self.recent.retain(|_, recent| {
            !recent.arrivals.is_empty(limits.max_new_per_ip, now)
                || !recent.failures.is_empty(limits.auth_failures, now)
        });
        if self.recent.capacity() > 4 * self.recent.len() + PLACES_MIN {
            self.recent.shrink_to(2 * self.recent.len());
        }
        self.sweep_at = now.after(SWEEP_EVERY);
    }
}

/// What an address is counted under. The first 32 bits of an address of the internet are never all
/// 0 (RFC 4291 §2.4), so there is room for those of IPv4.
fn source_of(address: IpAddr) -> Source {
    match address.to_canonical() {
        IpAddr::V4(address) => Source(address.to_bits().into()),
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            Source([a, b, c, d].into_iter().fold(0, |all, it| all << 16 | u64::from(it)))
        }
    }
}

/// What somebody is told who does not get in.
pub(crate) fn refusal(reason: Reason) -> Refusal {
    let (status, detail) = match reason {
        Reason::Deny => (403, "this address may not connect here"),
        Reason::Descriptors => {
            (503, "the server has no descriptor left; try again in a few seconds")
        }
        Reason::MaxPerIp => {
            (429, "too many connections of one address; close some, or raise max-per-ip")
        }
        Reason::AuthFailures => {
            (429, "too many wrong credentials of this address; try again in a few seconds")
        }
        _ => (429, "too many new connections of one address; try again in a few seconds"),
    };
    Refusal::new(status, reason, detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tcp(address: &str) -> Peer {
        Peer::Tcp((address.parse::<IpAddr>().unwrap(), 4711).into())
    }

    fn limits() -> Limits {
        Limits { max_per_ip: 2, max_new_per_ip: 5, auth_failures: 3, ..Limits::default() }
    }

    fn gate(change: impl FnOnce(&mut Config)) -> Gate {
        let mut config = Config::default();
        change(&mut config);
        Gate::new(&config)
    }

    #[test]
    fn an_address_has_so_many_clients_and_the_next_when_one_has_left() {
        let (mut gate, limits) = (gate(|_| {}), limits());
        let admit = |gate: &mut Gate, at| gate.admit(tcp(at), &limits, Tick(0));
        let mut first = admit(&mut gate, "192.0.2.7").unwrap();
        admit(&mut gate, "192.0.2.7").unwrap();
        assert_eq!(admit(&mut gate, "192.0.2.7"), Err(Reason::MaxPerIp));
        admit(&mut gate, "192.0.2.8").unwrap();
        gate.leave(tcp("192.0.2.7"), &mut first);
        gate.leave(tcp("192.0.2.7"), &mut first);
        admit(&mut gate, "192.0.2.7").unwrap();
        assert_eq!(admit(&mut gate, "::ffff:192.0.2.7"), Err(Reason::MaxPerIp), "it is the same");
    }

    #[test]
    fn a_64_of_ipv6_counts_as_one_address() {
        let (mut gate, limits) = (gate(|_| {}), limits());
        for host in ["2001:db8:1:2::1", "2001:db8:1:2:ffff::1"] {
            gate.admit(tcp(host), &limits, Tick(0)).unwrap();
        }
        let third = gate.admit(tcp("2001:db8:1:2::3"), &limits, Tick(0));
        assert_eq!(third, Err(Reason::MaxPerIp));
        gate.admit(tcp("2001:db8:1:3::1"), &limits, Tick(0)).unwrap();
    }

    #[test]
    fn of_one_address_so_many_come_at_once_and_as_many_in_the_next_five_seconds() {
        let (mut gate, limits) = (gate(|_| {}), limits());
        let mut comes = |now| {
            let peer = tcp("192.0.2.7");
            let mut is_counted = gate.admit(peer, &limits, Tick(now))?;
            gate.leave(peer, &mut is_counted);
            Ok(())
        };
        for _ in 0..5 {
            comes(0).unwrap();
        }
        assert_eq!(comes(0), Err(Reason::MaxNewPerIp));
        comes(60).unwrap();
    }

    #[test]
    fn loopback_and_unix_peers_are_counted_only_if_that_is_wanted() {
        let limits = limits();
        let mut usual = gate(|_| {});
        let mut strict = gate(|config| config.limit_loopback = true);
        for _ in 0..100 {
            for peer in [tcp("127.0.0.1"), tcp("::1"), tcp("::ffff:127.0.0.1"), Peer::Unix] {
                assert_eq!(usual.admit(peer, &limits, Tick(0)), Ok(false));
            }
        }
        for _ in 0..2 {
            strict.admit(tcp("127.0.0.1"), &limits, Tick(0)).unwrap();
        }
        assert_eq!(strict.admit(tcp("127.0.0.1"), &limits, Tick(0)), Err(Reason::MaxPerIp));
        assert_eq!(strict.admit(Peer::Unix, &limits, Tick(0)), Ok(false));
    }

    #[test]
    fn denied_networks_do_not_get_in_and_a_trusted_proxy_is_not_counted() {
        let limits = limits();
        let mut gate = gate(|config| {
            config.deny.push("198.51.100.0/24".parse().unwrap());
            config.trusted_proxies.push("10.0.0.0/8".parse().unwrap());
        });
        assert_eq!(gate.admit(tcp("198.51.100.9"), &limits, Tick(0)), Err(Reason::Deny));
        for _ in 0..100 {
            assert_eq!(gate.admit(tcp("10.1.1.1"), &limits, Tick(0)), Ok(false));
        }
        let forward = |gate: &mut Gate, client: &str| {
            let result = gate.forward(client.parse().unwrap(), &limits);
            result.map_err(|refusal| refusal.status)
        };
        let mut is_counted = false;
        for expected in [Ok(true), Ok(true), Err(429)] {
            let result = forward(&mut gate, "192.0.2.7");
            assert_eq!(result, expected);
            is_counted |= result == Ok(true);
        }
        // The same connection goes on with the request of somebody else: a place is free.
        gate.leave(tcp("192.0.2.7"), &mut is_counted);
        assert_eq!((forward(&mut gate, "192.0.2.8"), is_counted), (Ok(true), false));
        assert_eq!(forward(&mut gate, "192.0.2.7"), Ok(true));
        assert_eq!(forward(&mut gate, "198.51.100.9"), Err(403));
        assert_eq!(forward(&mut gate, "127.0.0.1"), Ok(false));
    }

    #[test]
    fn after_some_wrong_credentials_no_more_are_looked_at_for_a_while() {
        let (mut gate, limits) = (gate(|_| {}), limits());
        let peer = tcp("192.0.2.7");
        for _ in 0..3 {
            gate.may_try(peer, &limits, Tick(0)).unwrap();
            gate.failed(peer, &limits, Tick(0));
        }
        assert_eq!(gate.may_try(peer, &limits, Tick(0)).unwrap_err().status, 429);
        gate.may_try(tcp("192.0.2.8"), &limits, Tick(0)).unwrap();
        gate.may_try(peer, &limits, Tick(20)).unwrap();
    }

    #[test]
    fn addresses_that_have_left_are_forgotten() {
        let (mut gate, limits) = (gate(|_| {}), limits());
        for round in 0..100u32 {
            for host in 0..256u32 {
                let peer = Peer::Tcp((IpAddr::from((round * 256 + host).to_be_bytes()), 1).into());
                // Half of the addresses are 0.x and 127.x no less than others: all are counted.
                let mut is_counted = gate.admit(peer, &limits, Tick(round * 60)).unwrap();
                gate.leave(peer, &mut is_counted);
                gate.sweep(&limits, Tick(round * 60));
            }
        }
        assert!(gate.recent.len() <= 512 && gate.recent.capacity() < 2048, "{gate:?}");
        assert!(gate.once.is_empty() && gate.several.is_empty());
    }

    #[test]
    fn what_a_crowd_needed_is_given_back_when_it_has_gone() {
        let (mut gate, limits) = (gate(|_| {}), limits());
        // Every address has one client, and the even ones have two.
        let crowd = (0..20_000u32).flat_map(|at| (at % 2..2).map(move |_| at));
        let crowd = crowd.map(|at| Peer::Tcp((IpAddr::from(at.to_be_bytes()), 1).into()));
        let crowd: Vec<Peer> = crowd.collect();
        for peer in &crowd {
            assert_eq!(gate.admit(*peer, &limits, Tick(0)), Ok(true));
        }
        assert_eq!((gate.once.len(), gate.several.len()), (10_000, 10_000));
        assert_eq!(gate.admit(tcp("0.0.0.2"), &limits, Tick(0)), Err(Reason::MaxPerIp));
        for peer in &crowd {
            gate.leave(*peer, &mut true);
        }
        assert!(gate.once.capacity() <= 2 * PLACES_MIN, "{}", gate.once.capacity());
        assert!(gate.several.capacity() <= 2 * PLACES_MIN, "{}", gate.several.capacity());
        gate.sweep(&limits, Tick(100));
        assert!(gate.recent.capacity() <= 2 * PLACES_MIN, "{}", gate.recent.capacity());
    }

    #[test]
    fn addresses_that_a_proxy_told_of_are_forgotten() {
        let limits = limits();
        let mut gate = gate(|config| config.trusted_proxies.push("10.0.0.0/8".parse().unwrap()));
        for number in 0..20_000u32 {
            let ip = IpAddr::from(std::net::Ipv4Addr::from(0xc000_0000 + number));
            let mut is_counted = gate.forward(ip, &limits).unwrap();
            gate.leave(Peer::Tcp((ip, 1).into()), &mut is_counted);
        }
        assert!(gate.once.capacity() <= 2 * PLACES_MIN, "{}", gate.once.capacity());
    }

    #[test]
    fn who_is_turned_away_does_not_count() {
        let (mut gate, limits) = (gate(|_| {}), limits());
        let mut first = gate.admit(tcp("192.0.2.7"), &limits, Tick(0)).unwrap();
        gate.admit(tcp("192.0.2.7"), &limits, Tick(0)).unwrap();
        for _ in 0..3 {
            assert_eq!(gate.admit(tcp("192.0.2.7"), &limits, Tick(0)), Err(Reason::MaxPerIp));
        }
        gate.leave(tcp("192.0.2.7"), &mut first);
        assert!(gate.admit(tcp("192.0.2.7"), &limits, Tick(0)).is_ok());
    }
}
