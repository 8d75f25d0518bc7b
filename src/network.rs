//! Addresses of the internet in bulk: `192.0.2.0/24`, `2001:db8::/32`, or one address (RFC 4632,
//! RFC 4291 §2.3).

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;

/// A network: all addresses that begin with the same bits.
///
/// ```
/// use pousse::Network;
/// let network: Network = "192.0.2.0/24".parse().unwrap();
/// assert!(network.contains("192.0.2.7".parse().unwrap()));
/// assert_eq!("::1".parse::<Network>().unwrap().to_string(), "::1/128");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Network {
    address: IpAddr,
    bits: u8,
}

impl Network {
    /// Whether the address is one of it. IPv4 written as IPv6 (`::ffff:192.0.2.7`) is IPv4.
    pub fn contains(&self, address: IpAddr) -> bool {
        masked(address.to_canonical(), self.bits) == self.address
    }
}

impl FromStr for Network {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        const FORM: &str = "is a network such as 192.0.2.0/24 or 2001:db8::/32, or one address";
        let wrong = |_| String::from(FORM);
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| wrong(()))?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let bits = match bits {
            None => most,
            Some(bits) if bits.bytes().all(|byte| byte.is_ascii_digit()) => {
                bits.parse().ok().filter(|bits| *bits <= most).ok_or_else(|| wrong(()))?
            }
            Some(_) => return Err(wrong(())),
        };
        // IPv4 written as IPv6 is IPv4; so is a network of it.
        let (address, bits) = match address.to_canonical() {
            plain @ IpAddr::V4(_) if address.is_ipv6() && bits >= 96 => (plain, bits - 96),
            _ => (address, bits),
        };
        if masked(address, bits) != address {
            // Rather than guess which of the two was meant.
            return Err(format!("has bits set behind the first {bits}; {FORM}"));
        }
        Ok(Self { address, bits })
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.bits)
    }
}

/// The address with all but its first `bits` bits at 0.
fn masked(address: IpAddr, bits: u8) -> IpAddr {
    let mask = |width: u32| u128::MAX.checked_shl(width - u32::from(bits)).unwrap_or(0);
    match address {
        IpAddr::V4(address) if bits <= 32 => {
            let kept = u128::from(address.to_bits()) & mask(32);
            IpAddr::V4(u32::try_from(kept).unwrap_or(0).into())
        }
        IpAddr::V6(address) if bits <= 128 => Ipv6Addr::from(address.to_bits() & mask(128)).into(),
        other => other,
    }
}

/// Whether only this machine can reach the address.
pub(crate) fn is_loopback(address: IpAddr) -> bool {
    address.to_canonical().is_loopback()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_has_those_addresses_and_no_others() {
        for (network, address, is_in) in [
            ("192.0.2.0/24", "192.0.2.255", true),
            ("192.0.2.0/24", "192.0.3.0", false),
            ("192.0.2.0/24", "::ffff:192.0.2.1", true),
            ("192.0.2.0/24", "::c000:201", false),
            ("192.0.2.7", "192.0.2.7", true),
            ("192.0.2.7", "192.0.2.6", false),
            ("0.0.0.0/0", "255.1.2.3", true),
            ("0.0.0.0/0", "::1", false),
            ("2001:db8::/32", "2001:db8:ffff::1", true),
            ("2001:db8::/32", "2001:db9::", false),
            ("::/0", "2001:db9::", true),
            ("::/0", "127.0.0.1", false),
            ("::1", "::1", true),
        ] {
            let parsed: Network = network.parse().unwrap();
            assert_eq!(parsed.contains(address.parse().unwrap()), is_in, "{address} in {network}");
        }
    }

    #[test]
    fn what_is_no_network_is_told_what_one_is() {
        for text in ["", "/8", "10.0.0.0/33", "10.0.0.0/+8", "10.0.0.0/", "::/129", "host", "10/8"]
        {
            assert!(text.parse::<Network>().unwrap_err().contains("such as"), "{text}");
        }
        let error = "192.0.2.1/24".parse::<Network>().unwrap_err();
        assert!(error.contains("behind the first 24"), "{error}");
    }

    #[test]
    fn a_mapped_address_is_the_address() {
        for text in ["::ffff:192.0.2.7", "::ffff:192.0.2.0/120"] {
            if let Ok(network) = text.parse::<Network>() {
                for address in ["192.0.2.7", "::ffff:192.0.2.7"] {
                    assert!(network.contains(address.parse().unwrap()), "{address} in {text}");
                }
            }
        }
    }
}
