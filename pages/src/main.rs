//! Writes completions and manual pages into a directory: `cep-pages DIR`.

use std::path::PathBuf;

use anyhow::{Context, bail};

fn main() -> anyhow::Result<()> {
    let mut words = std::env::args_os().skip(1);
    let (Some(directory), None) = (words.next().map(PathBuf::from), words.next()) else {
        bail!("usage: cep-pages DIR");
    };
    pages::write(&directory).with_context(|| format!("cannot write into {}", directory.display()))
}
