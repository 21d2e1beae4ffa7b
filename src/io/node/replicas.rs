//! Replicas at a node: the check values of what it offers and others offer, too. Runs in a worker
//! thread, before the node is prepared.

use std::io;

use super::prepare::OpenedTransfer;
use super::reading::ReadProgress;
use crate::core::check::replica_hash::{PLACE_BYTES, ReplicaHasher, UNREAD, value_count};
use crate::core::error::{Code, Error, Result};
use crate::core::units::Span;
use crate::core::wire::control::{Prepare, ReplicaRange};
use crate::io::rail::transfer_files::SourceRow;

/// Holes of a source that are not read. What is beyond is read as the zeros that it is.
const HOLES_MAX: usize = 4096;

/// Adds to `opened` the check values of what is to be compared. Ends early where the transfer is
/// over: nobody waits for the values then.
///
/// # Errors
/// `Integrity` where two sources of this node differ; `Data` where all is to be compared, and a
/// source cannot be read.
pub(crate) fn compare(
    opened: &mut OpenedTransfer,
    prepare: &Prepare,
    progress: &mut ReadProgress<'_>,
) -> Result<()> {
    if prepare.replicas.is_empty() {
        return Ok(());
    }
    let sources: Vec<ReplicaSource<'_>> =
        opened.transfer_files.offers.iter().map(ReplicaSource::new).collect::<Result<_>>()?;
    let mut reader = ReplicaReader {
        seed: prepare.attempt,
        buffer: vec![0; PLACE_BYTES as usize],
        notes: Vec::new(),
        progress,
    };
    let mut values = Vec::with_capacity(value_count(&prepare.replicas));
    for range in &prepare.replicas {
        let mut own = sources.iter().filter(|source| source.offer.range.contains(range.span));
        let Some(first) = own.next() else {
            let what = format!(
                "the master wants {} compared, which no row of this node offers",
                range.span
            );
            return Err(Error::new(Code::Internal, what));
        };
        let answer = reader.values(first, range)?;
        for other in own {
            let other_answer = reader.values(other, range)?;
            if let Some(part) =
                (0..range.value_count()).find(|&at| differ(&answer, &other_answer, at))
            {
                let extent = range.extent_of(part, &prepare.attempt);
                let what = format!(
                    "two writer rows offer different bytes within {extent}: the replicas differ"
                );
                let error = Error::new(Code::Integrity, what).remedy("compare the writers' files");
                return Err(error.missing(vec![extent]));
            }
        }
        values.extend(answer);
        if reader.progress.is_over() {
            break;
        }
    }
    opened.prepared.replicas = values;
    opened.prepared.notes.append(&mut reader.notes);
    Ok(())
}

fn differ(one: &[u64], other: &[u64], at: usize) -> bool {
    let value = |values: &[u64]| values.get(at).copied().filter(|value| *value != UNREAD);
    value(one).zip(value(other)).is_some_and(|(one, other)| one != other)
}

/// One source, and where it has holes.
struct ReplicaSource<'a> {
    offer: &'a SourceRow,
    /// In the data space: ascending, apart from each other.
    holes: Vec<Span>,
}

impl ReplicaSource<'_> {
    fn new(offer: &SourceRow) -> Result<ReplicaSource<'_>> {
        let start = offer.range.start;
        let holes = offer.source.holes(HOLES_MAX)?;
        let holes =
            holes.into_iter().map(|hole| Span::new(start + hole.start, start + hole.end)).collect();
        Ok(ReplicaSource { offer, holes })
    }

    fn is_hole(&self, span: Span) -> bool {
        crate::core::units::covers(&self.holes, span)
    }
}

struct ReplicaReader<'a, 'b> {
    seed: [u8; 16],
    buffer: Vec<u8>,
    /// Sources that could not be read: a sentence each.
    notes: Vec<String>,
    progress: &'a mut ReadProgress<'b>,
}

impl ReplicaReader<'_, '_> {
    /// The values of one range in one source.
    fn values(&mut self, source: &ReplicaSource<'_>, range: &ReplicaRange) -> Result<Vec<u64>> {
        (0..range.value_count()).map(|part| self.value(source, range, part)).collect()
    }

    fn value(
        &mut self,
        source: &ReplicaSource<'_>,
        range: &ReplicaRange,
        part: usize,
    ) -> Result<u64> {
        let mut hasher = ReplicaHasher::new(&self.seed);
        for place in range.places_of(part, &self.seed) {
            if self.progress.is_over() {
                return Ok(UNREAD);
            }
            if source.is_hole(place) {
                hasher.zeros(place.bytes());
            } else {
                let bytes = &mut self.buffer[..place.bytes() as usize];
                let at = place.start - source.offer.range.start;
                if let Err(error) = source.offer.source.read_at(at, place.start, bytes) {
                    self.cannot_read(range, place, &error)?;
                    return Ok(UNREAD);
                }
                hasher.place(bytes);
            }
            self.progress.count(place.bytes());
        }
        Ok(hasher.finish())
    }

    /// A source that fails in a sample may have a replica that stands in for it.
    fn cannot_read(&mut self, range: &ReplicaRange, place: Span, error: &io::Error) -> Result<()> {
        let what =
            format!("{place} of a source cannot be read to compare it with its replicas: {error}");
        if range.places == 0 {
            let error = Error::new(Code::Data, what).remedy("look at that source and its disk");
            return Err(error.missing(vec![place]));
        }
        if self.notes.is_empty() {
            self.notes.push(what);
        }
        Ok(())
    }
}
