//! Buffers as move-only tokens.
//!
//! The kernel writes into a buffer while no thread reads it, so a buffer must be unreachable while
//! it is lent. A [`Slot`] is the only access to its memory and can be neither copied nor cloned.
//! All slots of a [`SlotPool`] lie in one mapping, which the ring registers as one fixed buffer.

use std::fmt;
use std::io;
use std::ptr::NonNull;
use std::sync::{Arc, Mutex, PoisonError};

use memmap2::{MmapMut, MmapRaw};

/// Bytes in a page: the alignment of every slot, which is sufficient for `O_DIRECT` everywhere.
pub const PAGE_BYTES: usize = 4096;

/// Largest size of a pool: the kernel's limit for one registered buffer.
pub const POOL_BYTES_MAX: usize = 1 << 30;

/// A number of equal, page-aligned buffers in one anonymous mapping.
///
/// The memory starts as zeros and is populated when it is first touched, or when the ring registers
/// it.
///
/// ```
/// let pool = ring::SlotPool::new(2, 4096)?;
/// let mut slot = pool.take().expect("two are free");
/// slot.as_mut_slice()[0] = 7;
/// assert_eq!(pool.free(), 1);
/// drop(slot);
/// assert_eq!(pool.free(), 2);
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug)]
pub struct SlotPool {
    mapping: Arc<SlotMapping>,
}

impl SlotPool {
    /// Maps `slot_count` slots of `slot_bytes` each, rounded up to whole pages.
    ///
    /// # Errors
    /// `InvalidInput` if either is 0 or the pool would exceed [`POOL_BYTES_MAX`]; else the error of
    /// `mmap`.
    pub fn new(slot_count: usize, slot_bytes: usize) -> io::Result<Self> {
        let slot_bytes = slot_bytes.checked_next_multiple_of(PAGE_BYTES).unwrap_or(usize::MAX);
        let bytes = slot_count.checked_mul(slot_bytes).filter(|&bytes| bytes <= POOL_BYTES_MAX);
        let Some(bytes) = bytes.filter(|&bytes| bytes > 0) else {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "a pool holds between 1 byte and 1 GiB",
            ));
        };
        Ok(Self { mapping: Arc::new(SlotMapping::new(bytes, slot_bytes)?) })
    }

    /// Takes a free slot: the one returned last, because its memory is likely still in cache.
    /// Returns `None` if none is free.
    ///
    /// The slot contains the bytes of its last use.
    #[must_use]
    pub fn take(&self) -> Option<Slot> {
        let index = self.mapping.free_list().pop()?;
        let base = self.mapping.slot_base(index);
        Some(Slot { base, index, mapping: Arc::clone(&self.mapping) })
    }

    /// Returns a slot. Dropping it does the same; this also checks that it belongs to this pool.
    ///
    /// # Panics
    /// If the slot belongs to another pool.
    pub fn put(&self, slot: Slot) {
        assert!(Arc::ptr_eq(&self.mapping, &slot.mapping), "the slot belongs to another pool");
        drop(slot);
    }

    /// Returns the number of free slots.
    #[must_use]
    pub fn free(&self) -> usize {
        self.mapping.free_list().len()
    }

    /// Returns the number of slots, free or not.
    #[must_use]
    pub fn slot_count(&self) -> usize {
        self.mapping.pages.len() / self.mapping.slot_bytes
    }

    /// Returns the size of each slot in bytes.
    #[must_use]
    pub fn slot_bytes(&self) -> usize {
        self.mapping.slot_bytes
    }

    pub(crate) fn mapping(&self) -> &Arc<SlotMapping> {
        &self.mapping
    }
}

/// Exclusive access to one buffer of a pool.
///
/// A dropped slot returns to its pool, so that an early return cannot shrink a pool. The memory
/// outlives the pool while any slot is taken.
pub struct Slot {
    /// Invariant: the start of slot `index` in `mapping`.
    base: NonNull<u8>,
    index: u32,
    mapping: Arc<SlotMapping>,
}

// SAFETY: a slot is the only access to its bytes, which are plain memory that any thread may use;
// the free list it returns to is behind a lock.
unsafe impl Send for Slot {}
// SAFETY: a shared slot gives out shared slices only.
unsafe impl Sync for Slot {}

impl Slot {
    /// Returns the size of the slot in bytes.
    #[must_use]
    #[allow(clippy::len_without_is_empty, reason = "a slot is never empty")]
    pub fn len(&self) -> usize {
        self.mapping.slot_bytes
    }

    /// Returns the whole slot.
    #[must_use]
    pub fn as_slice(&self) -> &[u8] {
        // SAFETY: `base` starts `slot_bytes` mapped, initialised bytes that live as long as
        // `mapping`, which makes no reference to them; this token is the only way to them, and it
        // is borrowed for as long as the slice.
        unsafe { std::slice::from_raw_parts(self.base.as_ptr(), self.mapping.slot_bytes) }
    }

    /// Returns the whole slot for writing.
    #[must_use]
    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        // SAFETY: as in `as_slice`, and the token is borrowed exclusively.
        unsafe { std::slice::from_raw_parts_mut(self.base.as_ptr(), self.mapping.slot_bytes) }
    }

    /// Returns the address of the slot, for submission entries. Private to this crate.
    pub(crate) fn base(&self) -> NonNull<u8> {
        self.base
    }

    pub(crate) fn mapping(&self) -> &Arc<SlotMapping> {
        &self.mapping
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.mapping.free_list().push(self.index);
    }
}

impl fmt::Debug for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Slot").field("index", &self.index).field("len", &self.len()).finish()
    }
}

/// The memory of a pool, and its free slots.
///
/// The lock is taken each time a slot is taken or returned, mostly by one thread: nanoseconds
/// against the hundreds of microseconds that a block takes on the wire.
///
/// Invariant: the mapping is whole slots of `slot_bytes`; the list has each free slot once and
/// never reallocates.
#[derive(Debug)]
pub(crate) struct SlotMapping {
    /// An anonymous mapping, of which no reference is ever made: slots are the access to it.
    pages: MmapRaw,
    slot_bytes: usize,
    free: Mutex<Vec<u32>>,
}

impl SlotMapping {
    fn new(bytes: usize, slot_bytes: usize) -> io::Result<Self> {
        let pages = MmapRaw::from(MmapMut::map_anon(bytes)?);
        let slot_count =
            u32::try_from(bytes / slot_bytes).expect("1 GiB has fewer than 2^32 pages");
        let free = Mutex::new((0..slot_count).rev().collect());
        Ok(Self { pages, slot_bytes, free })
    }

    /// Returns the start of a slot.
    fn slot_base(&self, index: u32) -> NonNull<u8> {
        let start = index as usize * self.slot_bytes;
        assert!(start < self.pages.len(), "the pool has a slot {index}");
        NonNull::new(self.pages.as_mut_ptr().wrapping_add(start)).expect("memory is not at 0")
    }

    /// Returns the memory in the form for registering a buffer.
    pub(crate) fn iovec(&self) -> libc::iovec {
        libc::iovec { iov_base: self.pages.as_mut_ptr().cast(), iov_len: self.pages.len() }
    }

    /// Returns the free list. It is a plain vector, valid at every step, so a panic elsewhere does
    /// not corrupt it.
    fn free_list(&self) -> std::sync::MutexGuard<'_, Vec<u32>> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed step is a failed test")]
mod tests {
    use super::{PAGE_BYTES, POOL_BYTES_MAX, SlotPool};

    #[test]
    fn slots_are_disjoint_aligned_and_rounded_up() {
        let pool = SlotPool::new(3, 5000).unwrap();
        assert_eq!((pool.slot_count(), pool.slot_bytes()), (3, 8192));
        let mut slots: Vec<_> = std::iter::from_fn(|| pool.take()).collect();
        assert_eq!(slots.len(), 3);
        for (value, slot) in (1u8..).zip(&mut slots) {
            slot.as_mut_slice().fill(value);
            assert_eq!(slot.base().as_ptr().align_offset(PAGE_BYTES), 0);
        }
        for (value, slot) in (1u8..).zip(&slots) {
            assert!(slot.as_slice().iter().all(|&byte| byte == value));
        }
    }

    #[test]
    fn a_slot_returns_when_put_and_when_dropped() {
        let pool = SlotPool::new(2, 4096).unwrap();
        let (first, second) = (pool.take().unwrap(), pool.take().unwrap());
        assert!(pool.take().is_none());
        pool.put(first);
        assert_eq!(pool.free(), 1);
        std::thread::spawn(move || drop(second)).join().unwrap();
        assert_eq!(pool.free(), 2);
    }

    #[test]
    fn memory_outlives_its_pool() {
        let pool = SlotPool::new(1, 4096).unwrap();
        let mut slot = pool.take().unwrap();
        drop(pool);
        slot.as_mut_slice().fill(9);
        assert_eq!(slot.as_slice()[4095], 9);
    }

    #[test]
    fn sizes_out_of_bounds_are_errors() {
        for (count, bytes) in
            [(0, 1), (1, 0), (1, usize::MAX), (usize::MAX, 4096), (2, POOL_BYTES_MAX)]
        {
            assert!(SlotPool::new(count, bytes).is_err(), "{count} slots of {bytes}");
        }
    }

    #[test]
    #[should_panic(expected = "another pool")]
    fn a_foreign_slot_is_not_taken_in() {
        let (one, other) = (SlotPool::new(1, 1).unwrap(), SlotPool::new(1, 1).unwrap());
        one.put(other.take().unwrap());
    }
}
