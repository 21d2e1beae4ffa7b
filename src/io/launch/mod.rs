//! Start of nodes as child processes on this machine. Daemons are started by their users.

mod local;

pub(crate) use local::{LaunchConfig, LaunchedNodes, here, local};
