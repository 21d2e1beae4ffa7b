//! Names of hosts to addresses, several at a time.

use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use crate::core::error::{Code, Error, Result};
use crate::core::spec::NodeAddress;
use crate::io::clock;

/// Deadline for resolving the names of nodes.
const RESOLVE_WITHIN: Duration = Duration::from_secs(10);
/// Names that are resolved at once: on many machines a process may not have ten thousand threads.
const RESOLVERS_MAX: usize = 64;

/// The addresses of each name, or the error of resolving it.
pub(super) type ResolvedAddresses = Vec<Result<Vec<SocketAddr>>>;

/// Resolves names, several at a time. A name that takes too long is an error and delays few others.
pub(crate) fn resolve(hosts: &[NodeAddress]) -> ResolvedAddresses {
    let deadline = clock::awake() + RESOLVE_WITHIN;
    let mut resolved: ResolvedAddresses = Vec::with_capacity(hosts.len());
    let mut names: Vec<(usize, NodeAddress)> = Vec::new();
    for (index, host) in hosts.iter().enumerate() {
        if let Ok(ip) = host.host.parse() {
            resolved.push(Ok(vec![SocketAddr::new(ip, host.port)]));
            continue;
        }
        let what = format!("the name {} was not resolved in time", host.host);
        resolved.push(Err(Error::new(Code::Unreachable, what)
            .remedy("check the name and this machine's resolver")));
        names.push((index, host.clone()));
    }
    let (answers, inbox) = channel();
    let asked = names.len();
    let asked_for: Vec<usize> = names.iter().map(|(index, _)| *index).collect();
    let names = Arc::new(Mutex::new(names.into_iter()));
    for made in 0..asked.min(RESOLVERS_MAX) {
        let (answers, names) = (answers.clone(), Arc::clone(&names));
        let next = move || names.lock().unwrap_or_else(PoisonError::into_inner).next();
        // The system's resolver has no deadline; a thread that hangs in it is abandoned.
        let resolver = thread::Builder::new().name("resolver".into()).spawn(move || {
            while let Some((index, host)) = next() {
                if answers.send((index, look_up(&host))).is_err() {
                    return;
                }
            }
        });
        match resolver {
            Ok(_) => {}
            Err(error) if made == 0 => {
                let what = format!("no thread can be made to resolve names: {error}");
                let error = Error::new(Code::Internal, what)
                    .remedy("raise the limit of threads: ulimit -u");
                asked_for.iter().for_each(|&index| resolved[index] = Err(error.clone()));
                return resolved;
            }
            // The threads that were created resolve all names, one after the other.
            Err(_) => break,
        }
    }
    for _ in 0..asked {
        let Some((index, answer)) =
            clock::wait_until(deadline, |wait| inbox.recv_timeout(wait).ok())
        else {
            break;
        };
        resolved[index] = answer;
    }
    resolved
}

/// Resolves one name to all its addresses.
pub(crate) fn resolve_one(host: &NodeAddress) -> Result<Vec<SocketAddr>> {
    resolve(std::slice::from_ref(host)).pop().expect("one name gives one answer")
}

/// Resolves one name to an address to listen on.
pub(crate) fn resolve_first(host: &NodeAddress) -> Result<SocketAddr> {
    Ok(resolve_one(host)?[0])
}

fn look_up(host: &NodeAddress) -> Result<Vec<SocketAddr>> {
    let found = (host.host.as_str(), host.port).to_socket_addrs().map(Iterator::collect::<Vec<_>>);
    let why = match found {
        Ok(addresses) if addresses.is_empty() => "it has no address".to_string(),
        Ok(addresses) => return Ok(in_turn(addresses)),
        Err(error) => error.to_string(),
    };
    Err(Error::new(Code::Unreachable, format!("the name {} cannot be resolved: {why}", host.host))
        .remedy("check the name; --launch local needs none"))
}

/// Returns addresses in dialling order: both families in turn, IPv4 first, because daemons listen
/// on IPv4 by default. Within a family the resolver's order stays.
fn in_turn(addresses: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let mut each: Vec<SocketAddr> = Vec::with_capacity(addresses.len());
    for address in addresses {
        if !each.contains(&address) {
            each.push(address);
        }
    }
    let (v4, v6): (Vec<_>, Vec<_>) = each.into_iter().partition(SocketAddr::is_ipv4);
    let (mut v4, mut v6) = (v4.into_iter(), v6.into_iter());
    let pairs =
        std::iter::from_fn(|| Some([v4.next(), v6.next()]).filter(|pair| *pair != [None, None]));
    pairs.flatten().flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_both_families_take_turns_and_none_comes_twice() {
        let parse = |all: &[&str]| {
            all.iter().map(|it| it.parse().expect("an address")).collect::<Vec<SocketAddr>>()
        };
        let found =
            parse(&["[::1]:7", "[::2]:7", "10.0.0.1:7", "10.0.0.1:7", "10.0.0.2:7", "10.0.0.3:7"]);
        let ordered = parse(&["10.0.0.1:7", "[::1]:7", "10.0.0.2:7", "[::2]:7", "10.0.0.3:7"]);
        assert_eq!(in_turn(found), ordered.clone());
        assert_eq!(in_turn(ordered.clone()), ordered);
    }
}
