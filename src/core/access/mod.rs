//! Public keys, and the allow file that gives them rights.
//!
//! - `public_key`: the name by which a peer with a key pair is known
//! - `allow_list`: the lines of an allow file
//! - `key_rights`: what one line permits

mod allow_list;
mod key_rights;
mod public_key;

pub(crate) use allow_list::{AllowFault, AllowList};
pub(crate) use key_rights::KeyRights;
pub(crate) use public_key::PublicKey;
