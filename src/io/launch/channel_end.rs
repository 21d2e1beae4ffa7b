//! Channel's far end: it dials a node of its host, and passes on what comes between that and its
//! standard streams.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::time::Duration;
use std::{fs::File, thread};

use crate::core::error::{Code, Error, Result};
use crate::core::launch::host_script::dialled;

/// Time for a kernel to answer for a node of its own.
const CONNECT_WITHIN: Duration = Duration::from_secs(5);
/// Bytes that are passed on at once.
pub(super) const CHUNK_BYTES: usize = 256 << 10;

/// Dials a node, says so, and passes bytes on until either side ends.
///
/// # Errors
/// `Code::Unreachable` if the node does not answer, or there are no standard streams.
pub(crate) fn run(node: SocketAddr) -> Result<()> {
    let failed = |error: io::Error| {
        Error::new(Code::Unreachable, format!("no way to the node at {node}: {error}"))
            .remedy("look whether it still runs there")
    };
    let socket = TcpStream::connect_timeout(&node, CONNECT_WITHIN).map_err(failed)?;
    socket.set_nodelay(true).map_err(failed)?;
    // Their buffers would keep bytes back.
    let stdin = File::from(io::stdin().as_fd().try_clone_to_owned().map_err(failed)?);
    let mut stdout = File::from(io::stdout().as_fd().try_clone_to_owned().map_err(failed)?);
    stdout.write_all(format!("{}\n", dialled()).as_bytes()).map_err(failed)?;
    let (from, to) = (socket.try_clone().map_err(failed)?, socket.try_clone().map_err(failed)?);
    let up = move || {
        pass_on(stdin, &to, |_| {});
        let _ = to.shutdown(Shutdown::Both);
    };
    thread::Builder::new().name("channel".into()).spawn(up).map_err(failed)?;
    // The process ends with the node's end, whatever the other thread waits for.
    pass_on(from, stdout, |_| {});
    Ok(())
}

/// Passes bytes on until an end; `count` is told of each part.
pub(super) fn pass_on(mut from: impl Read, mut to: impl Write, mut count: impl FnMut(&[u8])) {
    let mut chunk = vec![0; CHUNK_BYTES];
    loop {
        match from.read(&mut chunk) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Ok(0) | Err(_) => return,
            Ok(filled) => {
                count(&chunk[..filled]);
                if to.write_all(&chunk[..filled]).and_then(|()| to.flush()).is_err() {
                    return;
                }
            }
        }
    }
}
