//! Judges of random transfers: every byte is there and right, and nothing else is.

use std::fs;
use std::path::PathBuf;

use super::files::{Data, is_journal, listed};
use super::trial::Trial;
use crate::core::spec::Row;

impl Trial {
    /// A file that has its name is complete, and of one generation of the sources.
    pub(super) fn check_named(&self) {
        for (row, path) in self.files().filter(|(row, _)| row.group.is_none()) {
            let Ok(bytes) = fs::read(&path) else { continue };
            let offset = row.offset_bytes as usize;
            let bytes = &bytes[offset..offset + row.range.bytes() as usize];
            let is_of = |generation: &u64| {
                Data { generation: *generation, ..self.data }.bytes(row.range) == bytes
            };
            // Files that a power cut has struck and that nobody has called complete yet are left
            // to the next attempt.
            let is_cut =
                !self.transfer_options.fsync && self.tally.troubles.contains_key("a power cut");
            assert!(
                is_cut || (1..=self.data.generation).any(|it| is_of(&it)),
                "{} is wrong",
                path.display()
            );
        }
    }

    /// Every byte is there and right, and nothing else is.
    pub(super) fn check_all(&self) {
        let mut named = Vec::new();
        for (row, path) in self.files() {
            let bytes =
                fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            if row.group.is_none() {
                let offset = row.offset_bytes as usize;
                let expected = self.data.bytes(row.range);
                let found = &bytes[offset..offset + expected.len()];
                let wrong =
                    found.iter().zip(&expected).position(|(found, expected)| found != expected);
                assert_eq!(
                    wrong,
                    None,
                    "{}: the first wrong byte of {} in the row",
                    path.display(),
                    row.range
                );
            }
            named.push(path);
        }
        self.check_group();
        for index in self.receivers() {
            // A node that died or was out of reach at the end does not know that its
            // journal is of no use.
            let folder = self.folder(index);
            let is_deaf = self.deaf.iter().any(|deaf| self.folder(*deaf) == folder);
            let may_stay = |path: &PathBuf| is_deaf && is_journal(path);
            let left =
                listed(&folder).into_iter().filter(|path| !named.contains(path) && !may_stay(path));
            let left: Vec<PathBuf> = left.collect();
            assert!(left.is_empty(), "{left:?} are left over");
        }
    }

    /// The participants of a group have, between them, all of it.
    pub(super) fn check_group(&self) {
        let participants = self.files().filter(|(row, _)| row.group.is_some());
        let parts: Vec<(&Row, Vec<u8>)> =
            participants.map(|(row, path)| (row, fs::read(path).expect("it is there"))).collect();
        let Some((first, _)) = parts.first() else { return };
        // A participant may keep nothing.
        let all = self.spec.rows.iter().filter(|row| row.group.is_some()).count();
        let expected = self.data.bytes(first.range);
        for (at, byte) in expected.iter().enumerate().filter(|_| all == parts.len()) {
            let has = parts
                .iter()
                .any(|(row, bytes)| bytes.get(row.offset_bytes as usize + at) == Some(byte));
            assert!(has, "byte {at} of the group's range is nowhere");
        }
    }
}
