//! A secured connection: a peer without the key gets no further than the preamble.
//!
//! - `key`, `key_pair`: the two kinds of secrets; `identity`: those of a process; `key_file`: their
//!   files
//! - `allow_file`: public keys of others, and what they may do
//! - `noise`, `suites`, `sealed`: the handshake, and the messages after it, without sockets
//! - `fuzzed`: handshakes with somebody between the two sides
//! - `refusals`: why a handshake ends, in words
//! - `peer_user`: the user at the other end, for connections without a key
//! - `connection`: drives these over a non-blocking socket for the control thread, and hands over
//!   the socket of an authenticated data flow
//! - `reach`: order in which a peer's addresses are dialled
//! - `listener`: accepts connections under all errors
//! - `strangers`: limits connections that have not authenticated yet
//! - `descriptors`: number and limit of descriptors

mod allow_file;
mod connection;
pub(crate) mod descriptors;
mod dial;
#[cfg(any(test, feature = "fuzzing"))]
mod fuzzed;
mod identity;
mod key;
mod key_file;
mod key_pair;
mod listener;
mod noise;
mod peer_user;
mod reach;
mod refusals;
mod sealed;
mod socket;
pub(crate) mod strangers;
mod suites;

pub(crate) use allow_file::SiteAccess;
#[cfg(feature = "stand-ins")]
pub(crate) use connection::at_rest;
pub(crate) use connection::{Connection, FlowStream, IncomingData};
pub(crate) use dial::{dial, dial_over};
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) use fuzzed::handshake as fuzz_handshake;
pub(crate) use identity::{DialKey, Identity, make_key_file, make_pair_files};
pub(crate) use key::Key;
pub(crate) use key_pair::KeyPair;
pub(crate) use listener::{Listener, NotAccepted};
pub(crate) use noise::{ConnectionHello, HelloReply, KeyAuthenticator};
pub(crate) use peer_user::{is_of_this_user, may_ask_owner};
pub(crate) use reach::{DialProgress, PeerDialer};
#[cfg(feature = "stand-ins")]
pub(crate) use sealed::sealed_bytes;
pub(crate) use socket::is_loopback;
