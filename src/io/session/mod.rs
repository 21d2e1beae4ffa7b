//! One secured connection: whoever does not hold the key gets no further than the preamble.
//!
//! `key` is the secret, `noise` the handshake and `sealed` the messages after it; none of these
//! touches a socket. `peer_user` says whose process is at the other end where there is no key.
//! `connection` drives them over a non-blocking socket for the control thread, and hands the socket
//! of a data flow over once it has proved itself. `reach` says which of a peer's addresses is
//! dialled when.
//!
//! Before that, `listener` takes connections in whatever happens, `strangers` says how many of
//! those that have proved nothing there may be, and `descriptors` how many descriptors there are
//! for all of them.

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
pub(crate) use connection::{Connection, IncomingData};
pub(crate) use dial::{dial, dial_over};
pub(crate) use key::Key;
pub(crate) use listener::{AcceptOutcome, Listener};
pub(crate) use noise::{ConnectionHello, HelloReply, KeyAuthenticator};
pub(crate) use reach::{DialProgress, PeerDialer};
#[cfg(feature = "stand-ins")]
pub(crate) use sealed::sealed_bytes;
