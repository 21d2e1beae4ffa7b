//! Options that name keys: own ones, and those of others.

use std::path::PathBuf;

/// Files with keys: the own ones, and those of others.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct KeyArgs {
    /// Own key in a file of mode 0600: the site key (keygen FILE) or a private key (keygen --pair
    /// FILE); of two lines the first dials, and both are accepted
    #[arg(long, value_name = "FILE")]
    pub key_file: Option<PathBuf>,
    /// With a private key: the public keys of others, lines of `allow PUBLICKEY RIGHT…`; rights are
    /// master, read=ROOTS, write=ROOTS, node=HOSTS, status, cancel
    #[arg(long, value_name = "FILE", requires = "key_file")]
    pub allow_file: Option<PathBuf>,
}

/// Arguments of `keygen`.
#[derive(Clone, Debug, clap::Args)]
pub struct KeygenArgs {
    /// Create a key pair: FILE gets the private key, FILE.pub and standard output the public key
    #[arg(long)]
    pub pair: bool,
    /// File to create, with mode 0600; an existing file is an error
    pub file: PathBuf,
}
