//! A secured connection: a peer without the key gets no further than the preamble.
//!
//! - `key`, `noise`, `sealed`: the secret, the handshake, and the messages after it, without
//!   sockets
//! - `peer_user`: the user at the other end, for connections without a key
//! - `connection`: drives these over a non-blocking socket for the control thread, and hands over
//!   the socket of an authenticated data flow
//! - `reach`: order in which a peer's addresses are dialled
//! - `listener`: accepts connections under all errors
//! - `strangers`: limits connections that have not authenticated yet
//! - `descriptors`: number and limit of descriptors

mod connection;
pub(crate) mod descriptors;
mod dial;
mod key;
mod listener;
mod noise;
mod peer_user;
mod reach;
mod sealed;
mod socket;
pub(crate) mod strangers;

#[cfg(feature = "stand-ins")]
pub(crate) use connection::at_rest;
pub(crate) use connection::{Connection, FlowStream, IncomingData};
pub(crate) use dial::{dial, dial_over};
pub(crate) use key::Key;
pub(crate) use listener::{AcceptOutcome, Listener};
pub(crate) use noise::{ConnectionHello, HelloReply, KeyAuthenticator};
pub(crate) use reach::{DialProgress, PeerDialer};
#[cfg(feature = "stand-ins")]
pub(crate) use sealed::sealed_bytes;
pub(crate) use socket::is_loopback;
