//! Messages of a node to its master, kept so that they can be sent again.
//!
//! A control session may break at any point while both ends live: a NIC dies, a firewall forgets.
//! Nobody knows then what was still on the way. So each side counts the messages that it has heard;
//! on the session that follows they tell each other, and say again what is behind that. The master
//! makes its messages anew from what it knows; a node keeps what it said, which is two messages in
//! a transfer without incident.

/// One node's side of the session with a master about one transfer.
///
/// Invariant: both counts only grow, and a message keeps its place.
#[derive(Debug, Default)]
pub(crate) struct ReplayBuffer {
    heard: u32,
    said: Vec<Vec<u8>>,
}

impl ReplayBuffer {
    /// A message of the master's came in.
    pub(crate) fn hear(&mut self) {
        self.heard += 1;
    }

    /// Number of the master's messages that have come in.
    pub(crate) fn heard(&self) -> u32 {
        self.heard
    }

    /// Keeps a message to the master.
    pub(crate) fn push(&mut self, message: Vec<u8>) {
        self.said.push(message);
    }

    /// Number of messages that are kept.
    pub(crate) fn count(&self) -> u32 {
        u32::try_from(self.said.len()).expect("an attempt has few counted messages")
    }

    /// The messages that a master has not heard which has heard so many.
    pub(crate) fn unheard(&self, heard: u32) -> &[Vec<u8>] {
        self.said.get(heard as usize..).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_heard_is_not_said_again() {
        let mut replay_buffer = ReplayBuffer::default();
        replay_buffer.hear();
        replay_buffer.push(vec![1]);
        replay_buffer.push(vec![2]);
        assert_eq!(replay_buffer.heard(), 1);
        assert_eq!(replay_buffer.unheard(0), [vec![1], vec![2]]);
        assert_eq!(replay_buffer.unheard(1), [vec![2]]);
        assert_eq!(replay_buffer.unheard(2), [] as [Vec<u8>; 0]);
        assert_eq!(
            replay_buffer.unheard(9),
            [] as [Vec<u8>; 0],
            "a master that heard more than was said is wrong, not dangerous"
        );
    }
}
