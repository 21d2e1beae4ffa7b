//! Messages on an established connection, without its socket: they are sealed, cut into chunks, and
//! reassembled.
//!
//! A chunk is a length (two bytes, little endian) followed by ciphertext of that length; Noise
//! limits it to 65,535 bytes. The first byte of its plaintext marks the last chunk of a message.
//! The memory for a message only grows with chunks whose seal is correct, up to the limit of a
//! message. Between two messages no memory is held.

use snow::TransportState;
use zeroize::Zeroizing;

use crate::core::error::{Code, Error, Result};
use crate::core::wire::limits::MESSAGE_BYTES_MAX;

/// Both directions of an established connection.
///
/// Call [`SealedStream::wants`], read exactly that number of bytes, pass them to
/// [`SealedStream::open`]; repeat.
pub(super) struct SealedStream {
    transport: TransportState,
    /// Size of the chunk whose length was read.
    chunk: Option<u16>,
    /// The message so far. Invariant: at most [`MESSAGE_BYTES_MAX`].
    message: Vec<u8>,
    /// True once the peer has sent its good-bye.
    over: bool,
}

impl SealedStream {
    /// Continues after the handshake.
    pub(super) fn new(transport: TransportState) -> SealedStream {
        SealedStream { transport, chunk: None, message: Vec::new(), over: false }
    }

    /// Appends the sealed form of `message` to `out`.
    ///
    /// # Panics
    /// If the message is larger than [`MESSAGE_BYTES_MAX`].
    pub(super) fn seal(&mut self, message: &[u8], out: &mut Vec<u8>) {
        assert!(message.len() <= MESSAGE_BYTES_MAX, "a message of {} bytes", message.len());
        out.reserve(sealed_bytes(message.len()));
        let mut rest = message;
        loop {
            let (part, behind) = rest.split_at(rest.len().min(PART_BYTES_MAX));
            rest = behind;
            self.seal_chunk(if rest.is_empty() { LAST } else { MORE }, part, out);
            if rest.is_empty() {
                return;
            }
        }
    }

    /// Appends a good-bye to `out`. It proves that the peer, not only the network, has ended the
    /// connection.
    pub(super) fn bye(&mut self, out: &mut Vec<u8>) {
        self.seal_chunk(BYE, &[], out);
    }

    /// Returns true once the peer has sent its good-bye.
    pub(super) fn is_over(&self) -> bool {
        self.over
    }

    fn seal_chunk(&mut self, flag: u8, part: &[u8], out: &mut Vec<u8>) {
        let plain = Zeroizing::new([&[flag], part].concat());
        let bytes = plain.len() + TAG_BYTES;
        out.extend(u16::try_from(bytes).expect("parts are cut to fit").to_le_bytes());
        let start = out.len();
        out.resize(start + bytes, 0);
        self.transport
            .write_message(&plain, &mut out[start..])
            .expect("the room fits, and 2⁶⁴ chunks are never sent");
    }

    /// Returns the number of bytes that [`SealedStream::open`] needs next.
    pub(super) fn wants(&self) -> usize {
        self.chunk.map_or(LENGTH_BYTES, usize::from)
    }

    /// Returns true between two messages: a connection may close here.
    pub(super) fn is_between_messages(&self) -> bool {
        self.chunk.is_none() && self.message.is_empty()
    }

    /// Handles exactly the requested bytes. Returns a message once it is complete.
    pub(super) fn open(&mut self, bytes: &[u8]) -> Result<Option<Vec<u8>>> {
        assert_eq!(bytes.len(), self.wants(), "a connection takes what it asked for");
        match self.chunk.take() {
            None => self.open_length(bytes).map(|()| None),
            Some(_) => self.open_chunk(bytes),
        }
    }

    fn open_length(&mut self, bytes: &[u8]) -> Result<()> {
        let length = u16::from_le_bytes(bytes.try_into().expect("two bytes were asked for"));
        if usize::from(length) < 1 + TAG_BYTES {
            return Err(changed());
        }
        self.chunk = Some(length);
        Ok(())
    }

    fn open_chunk(&mut self, bytes: &[u8]) -> Result<Option<Vec<u8>>> {
        let mut plain = Zeroizing::new(vec![0; bytes.len() - TAG_BYTES]);
        self.transport.read_message(bytes, &mut plain).map_err(|_| changed())?;
        let (flag, part) = plain.split_first().expect("a chunk holds a flag");
        if self.message.len() + part.len() > MESSAGE_BYTES_MAX {
            return Err(Error::new(
                Code::Internal,
                "the peer sent a control message that is too large",
            ));
        }
        self.message.extend_from_slice(part);
        match *flag {
            LAST => Ok(Some(std::mem::take(&mut self.message))),
            // Empty parts other than the last would let a peer keep this side busy.
            MORE if !part.is_empty() => Ok(None),
            BYE if part.is_empty() && self.message.is_empty() => {
                self.over = true;
                Ok(None)
            }
            _ => Err(Error::new(Code::Internal, "the peer sent a chunk without a meaning")),
        }
    }
}

/// Returns the size of a message once it is sealed.
pub(crate) fn sealed_bytes(message_bytes: usize) -> usize {
    let chunks = message_bytes.div_ceil(PART_BYTES_MAX).max(1);
    message_bytes + chunks * (LENGTH_BYTES + 1 + TAG_BYTES)
}

fn changed() -> Error {
    Error::new(Code::Integrity, "a control message was corrupted in transit")
}

const LENGTH_BYTES: usize = size_of::<u16>();
const TAG_BYTES: usize = 16;
const PART_BYTES_MAX: usize = u16::MAX as usize - TAG_BYTES - 1;
const MORE: u8 = 0;
const LAST: u8 = 1;
const BYE: u8 = 2;

#[cfg(test)]
mod tests;
