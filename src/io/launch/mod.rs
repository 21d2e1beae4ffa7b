//! How nodes get started: not at all (they run as daemons), or each as a child process on this
//! machine.

mod local;

pub(crate) use local::{LaunchConfig, LaunchedNodes, here, local};
