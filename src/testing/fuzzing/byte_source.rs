//! Arbitrary bytes as a series of choices. Where they end, every choice is the first one.

/// The remaining bytes.
pub(super) struct ByteSource<'a>(&'a [u8]);

impl<'a> ByteSource<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> ByteSource<'a> {
        ByteSource(bytes)
    }

    pub(super) fn is_over(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn byte(&mut self) -> u8 {
        let Some((&byte, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        byte
    }

    pub(super) fn coin(&mut self) -> bool {
        self.byte() & 1 == 1
    }

    /// A number below `end`, which is 256 at most.
    pub(super) fn below(&mut self, end: usize) -> usize {
        usize::from(self.byte()) % end
    }

    pub(super) fn number(&mut self) -> u64 {
        (0..8).fold(0, |number, _| number << 8 | u64::from(self.byte()))
    }

    pub(super) fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }

    /// The place of one of `count` things, where there are any.
    pub(super) fn place(&mut self, count: usize) -> Option<usize> {
        (count > 0).then(|| self.below(count.min(256)))
    }
}
