//! THE GATE: which addresses may come in, and how many clients each of them may have.
//!
//! It knows networks and numbers, no sockets and no clock. An address counts as long as a client of
//! it is here; for IPv6 a whole /64 counts as one, since that is what one customer gets. What is
//! remembered of an address that has left is gone five seconds later. Behind a trusted proxy the
//! address is the one it forwards for, and is known with each request.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};

use crate::bucket::Bucket;
use crate::config::{Config, is_loopback};
use crate::forwarded;
use crate::http::{Peer, Refusal, Request};
use crate::limits::Limits;
use crate::metrics::Reason;
use crate::network::Network;
use crate::tick::Tick;

/// See the head of this file.
#[derive(Debug, Default)]
pub(crate) struct Gate {
    deny: Vec<Network>,
    trusted: Vec<Network>,
    /// Loopback addresses are counted like others.
    counts_loopback: bool,
    sources: HashMap<Network, Source>,
    /// So many are remembered before those that mean nothing any more are looked for.
    sweep_at: usize,
}

/// Who comes from one address.
#[derive(Debug, Default)]
struct Source {
    clients: usize,
    arrivals: Bucket,
    failures: Bucket,
}

/// Addresses remembered before the first sweep.
const SWEEP_MIN: usize = 1024;

impl Gate {
    pub(crate) fn new(config: &Config) -> Self {
        Self {
            deny: config.deny.clone(),
            trusted: config.trusted_proxies.clone(),
            counts_loopback: config.limit_loopback,
            sources: HashMap::new(),
            sweep_at: SWEEP_MIN,
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
        let Some(network) = self.counts(address.ip()).filter(|_| !self.trusts(peer)) else {
            return Ok(false);
        };
        self.count(network, limits, now).map(|()| true)
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
    pub(crate) fn forward(
        &mut self,
        client: IpAddr,
        limits: &Limits,
        now: Tick,
    ) -> Result<bool, Refusal> {
        if self.denies(client) {
            return Err(refusal(Reason::Deny));
        }
        let Some(network) = self.counts(client) else { return Ok(false) };
        self.sweep(limits, now);
        self.occupy(network, limits).map_err(refusal)?;
        Ok(true)
    }

    /// A client leaves, if it was counted under this peer's address; then it is no more.
    pub(crate) fn leave(&mut self, peer: Peer, is_counted: &mut bool) {
        if std::mem::take(is_counted)
            && let Peer::Tcp(address) = peer
            && let Some(source) = self.sources.get_mut(&network_of(address.ip()))
        {
            source.clients = source.clients.saturating_sub(1);
        }
    }

    /// Somebody at this address has shown a credential that is none.
    pub(crate) fn failed(&mut self, peer: Peer, limits: &Limits, now: Tick) {
        if let Peer::Tcp(address) = peer
            && let Some(network) = self.counts(address.ip())
        {
            self.sweep(limits, now);
            self.sources.entry(network).or_default().failures.take(limits.auth_failures, now);
        }
    }

    /// Whether another credential of this address is looked at.
    ///
    /// # Errors
    /// [`Refusal`]: 429, too many have been wrong.
    pub(crate) fn may_try(&self, peer: Peer, limits: &Limits, now: Tick) -> Result<(), Refusal> {
        let Peer::Tcp(address) = peer else { return Ok(()) };
        let source = self.counts(address.ip()).and_then(|network| self.sources.get(&network));
        match source {
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
    fn counts(&self, address: IpAddr) -> Option<Network> {
        let is_counted = self.counts_loopback || !is_loopback(address.to_canonical());
        is_counted.then(|| network_of(address))
    }

    /// Counts a new connection. Those who are turned away do not count: else a crowd that tries
    /// again would never get in.
    fn count(&mut self, network: Network, limits: &Limits, now: Tick) -> Result<(), Reason> {
        self.sweep(limits, now);
        let source = self.sources.entry(network).or_default();
        if !source.arrivals.has_room(limits.max_new_per_ip, now) {
            return Err(Reason::MaxNewPerIp);
        }
        self.occupy(network, limits)?;
        if let Some(source) = self.sources.get_mut(&network) {
            source.arrivals.take(limits.max_new_per_ip, now);
        }
        Ok(())
    }

    fn occupy(&mut self, network: Network, limits: &Limits) -> Result<(), Reason> {
        let source = self.sources.entry(network).or_default();
        if source.clients >= limits.max_per_ip {
            return Err(Reason::MaxPerIp);
        }
        source.clients += 1;
        Ok(())
    }

    /// Forgets addresses of which nothing is to be known any more, now and then: in the long run
    /// each arrival pays for the look at two.
    fn sweep(&mut self, limits: &Limits, now: Tick) {
        if self.sources.len() >= self.sweep_at {
            self.sources.retain(|_, source| {
                source.clients > 0
                    || !source.arrivals.is_empty(limits.max_new_per_ip, now)
                    || !source.failures.is_empty(limits.auth_failures, now)
            });
            self.sources.shrink_to(SWEEP_MIN);
            self.sweep_at = SWEEP_MIN.max(2 * self.sources.len());
        }
    }
}

/// What an address is counted under.
fn network_of(address: IpAddr) -> Network {
    let address = address.to_canonical();
    Network::around(address, if address.is_ipv4() { 32 } else { 64 })
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
            let result = gate.forward(client.parse().unwrap(), &limits, Tick(0));
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
            }
        }
        assert!(gate.sources.len() <= 2 * SWEEP_MIN, "{}", gate.sources.len());
    }

    #[test]
    fn addresses_that_a_proxy_told_of_are_forgotten() {
        let limits = limits();
        let mut gate = gate(|config| config.trusted_proxies.push("10.0.0.0/8".parse().unwrap()));
        for number in 0..20_000u32 {
            let ip = IpAddr::from(std::net::Ipv4Addr::from(0xc000_0000 + number));
            let mut is_counted = gate.forward(ip, &limits, Tick(0)).unwrap();
            gate.leave(Peer::Tcp((ip, 1).into()), &mut is_counted);
        }
        gate.admit(tcp("10.1.1.1"), &limits, Tick(100_000)).unwrap();
        assert!(gate.sources.len() <= 2 * SWEEP_MIN, "{}", gate.sources.len());
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
