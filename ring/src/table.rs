//! Operations in flight, whose memory the kernel may access.
//!
//! The table is allocated once and limits the ring. Its keys travel through the kernel and back. A
//! key has a generation, so that a late completion of a finished operation finds nothing.

use io_uring::cqueue;
use nix::errno::Errno;

use crate::entry::notice_says_copied;
use crate::files::FileId;
use crate::op::{Completion, CompletionStage};
use crate::sendfile::SendfileProgress;
use crate::slots::Slot;

/// One operation in flight.
#[derive(Debug)]
pub(crate) struct InFlight {
    pub(crate) token: u64,
    pub(crate) file: Option<FileId>,
    pub(crate) slot: Option<Slot>,
    /// Work of the thread itself when the socket has room.
    pub(crate) sending: Option<SendfileProgress>,
}

impl InFlight {
    pub(crate) fn works_on(&self, id: FileId) -> bool {
        self.file == Some(id) || self.sending.as_ref().is_some_and(|sending| sending.source == id)
    }
}

/// The operations in flight, by key.
///
/// Invariant: an index is on the free list exactly if its entry is empty.
#[derive(Debug)]
pub(crate) struct InFlightTable {
    entries: Vec<InFlightEntry>,
    free: Vec<u32>,
}

#[derive(Debug)]
struct InFlightEntry {
    generation: u32,
    operation: Option<InFlight>,
}

/// Size of the largest table: keys above it are reserved for the ring.
pub(crate) const CAPACITY_MAX: u32 = 1 << 20;

impl InFlightTable {
    pub(crate) fn new(capacity: u32) -> Self {
        assert!(capacity <= CAPACITY_MAX, "{capacity} operations in flight");
        let entries =
            (0..capacity).map(|_| InFlightEntry { generation: 0, operation: None }).collect();
        Self { entries, free: (0..capacity).rev().collect() }
    }

    pub(crate) fn is_full(&self) -> bool {
        self.free.is_empty()
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len() - self.free.len()
    }

    /// Adds an operation and returns its key. The table must not be full.
    pub(crate) fn insert(&mut self, operation: InFlight) -> u64 {
        let index = self.free.pop().expect("the caller has asked whether the table is full");
        let entry = &mut self.entries[index as usize];
        entry.operation = Some(operation);
        key(index, entry.generation)
    }

    pub(crate) fn token(&self, key: u64) -> Option<u64> {
        let (index, generation) = parts(key);
        let entry =
            self.entries.get(index as usize).filter(|entry| entry.generation == generation)?;
        entry.operation.as_ref().map(|operation| operation.token)
    }

    /// Returns true if the thread itself does the operation, and the kernel only polls its socket.
    pub(crate) fn is_sending(&self, key: u64) -> bool {
        let (index, generation) = parts(key);
        let entry = self.entries.get(index as usize).filter(|entry| entry.generation == generation);
        entry
            .and_then(|entry| entry.operation.as_ref())
            .is_some_and(|operation| operation.sending.is_some())
    }

    pub(crate) fn get_mut(&mut self, key: u64) -> Option<&mut InFlight> {
        let (index, generation) = parts(key);
        let entry =
            self.entries.get_mut(index as usize).filter(|entry| entry.generation == generation)?;
        entry.operation.as_mut()
    }

    pub(crate) fn remove(&mut self, key: u64) -> Option<InFlight> {
        let (index, generation) = parts(key);
        let entry =
            self.entries.get_mut(index as usize).filter(|entry| entry.generation == generation)?;
        let operation = entry.operation.take()?;
        entry.generation = entry.generation.wrapping_add(1);
        self.free.push(index);
        Some(operation)
    }

    /// Returns the key of the first operation that `wanted` accepts, at or after `start` in the
    /// table, and the position to continue at.
    pub(crate) fn find(
        &self,
        start: usize,
        wanted: impl Fn(&InFlight) -> bool,
    ) -> Option<(u64, usize)> {
        (start..self.entries.len()).find_map(|index| {
            let entry = &self.entries[index];
            let found = entry.operation.as_ref().is_some_and(&wanted);
            let index_u32 = u32::try_from(index).expect("the capacity is far below 2^32");
            found.then(|| (key(index_u32, entry.generation), index + 1))
        })
    }

    /// Converts one answer of the kernel into a completion; `None` for an operation that is not in
    /// the table.
    pub(crate) fn complete(&mut self, event: &cqueue::Entry) -> Option<Completion> {
        let (key, flags) = (event.user_data(), event.flags());
        if cqueue::notif(flags) {
            let InFlight { token, slot, .. } = self.remove(key)?;
            let stage = CompletionStage::Notice { copied: notice_says_copied(event.result()) };
            return Some(Completion { token, result: Ok(0), stage, slot });
        }
        let result = u32::try_from(event.result()).map_err(|_| Errno::from_raw(-event.result()));
        if cqueue::more(flags) {
            let token = self.token(key)?;
            return Some(Completion {
                token,
                result,
                stage: CompletionStage::NoticeFollows,
                slot: None,
            });
        }
        let InFlight { token, slot, .. } = self.remove(key)?;
        Some(Completion { token, result, stage: CompletionStage::Done, slot })
    }

    /// Ends the send of a file with the bytes moved so far, or with `error`.
    pub(crate) fn end_sending(&mut self, key: u64, error: Errno) -> Option<Completion> {
        let InFlight { token, slot, sending, .. } = self.remove(key)?;
        let moved = sending.map_or(Err(error), |sending| sending.end(error));
        let result =
            moved.map(|bytes| u32::try_from(bytes).expect("checked when it was submitted"));
        Some(Completion { token, result, stage: CompletionStage::Done, slot })
    }

    /// Takes all operations out, for memory that must never be touched again.
    pub(crate) fn into_in_flight(self) -> Vec<InFlight> {
        self.entries.into_iter().filter_map(|entry| entry.operation).collect()
    }
}

fn key(index: u32, generation: u32) -> u64 {
    u64::from(generation) << 32 | u64::from(index)
}

#[allow(clippy::cast_possible_truncation, reason = "the two halves of a key")]
fn parts(key: u64) -> (u32, u32) {
    (key as u32, (key >> 32) as u32)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed step is a failed test")]
mod tests {
    use super::{InFlight, InFlightTable};

    fn operation(token: u64) -> InFlight {
        InFlight { token, file: None, slot: None, sending: None }
    }

    #[test]
    fn a_key_names_one_operation_once() {
        let mut table = InFlightTable::new(2);
        let (a, b) = (table.insert(operation(10)), table.insert(operation(11)));
        assert!(table.is_full());
        assert_eq!((table.token(a), table.token(b)), (Some(10), Some(11)));
        assert_eq!(table.remove(a).unwrap().token, 10);
        assert!(table.remove(a).is_none());
        let c = table.insert(operation(12));
        assert_ne!(a, c, "the entry is reused, the key is not");
        assert_eq!(table.token(a), None);
        assert_eq!(table.len(), 2);
    }

    #[test]
    fn find_visits_every_match() {
        let mut table = InFlightTable::new(4);
        let keys: Vec<u64> = (0..4).map(|token| table.insert(operation(token % 2))).collect();
        let mut found = Vec::new();
        let mut start = 0;
        while let Some((key, next)) = table.find(start, |operation| operation.token == 1) {
            found.push(key);
            start = next;
        }
        assert_eq!(found, [keys[1], keys[3]]);
    }
}
