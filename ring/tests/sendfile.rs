//! Sends of files from the page cache, and the looks into it, on every kind of ring.
#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

mod common;

use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use common::{
    cancelled, file_with, filled, on_each_ring, pair, pattern, read_exactly, tcp_pair, uring, wait,
    wait_one,
};
use ring::{CachedPages, Errno, FakeRing, RingConfig, RingFaults, RingIo, RingOp, SlotPool, Uring};

/// A socket that takes nothing more, and its other end.
fn full_pair() -> (OwnedFd, UnixStream, usize) {
    let (mut ours, theirs) = UnixStream::pair().unwrap();
    ours.set_nonblocking(true).unwrap();
    let mut filled = 0;
    while let Ok(bytes) = ours.write(&[7; 4096]) {
        filled += bytes;
    }
    ours.set_nonblocking(false).unwrap();
    (ours.into(), theirs, filled)
}

fn hand_over(io: &mut dyn RingIo) {
    io.wait(Some(Duration::ZERO), &mut Vec::new()).unwrap();
}

#[test]
fn bytes_in_front_and_a_part_of_a_file_arrive_in_order() {
    on_each_ring(|kind, io, pool| {
        let (ours, mut theirs) = tcp_pair();
        let file = io.register(ours.into()).unwrap();
        let bytes = pattern(20_000);
        let source = io.register(file_with(&bytes)).unwrap();
        for (token, offset, count) in [(1, 0, 20_000), (2, 4097, 5000), (3, 19_999, 1), (4, 7, 0)] {
            let slot = filled(pool, b"..header");
            io.submit(
                token,
                RingOp::SendFile { file, slot, range: 2..8, source, offset, bytes: count },
            )
            .unwrap();
            let (result, slot) = wait_one(io, token);
            assert_eq!(result, Ok(6 + count), "{kind}");
            assert!(slot.is_some(), "{kind}");
            let arrived = read_exactly(&mut theirs, 6 + count as usize);
            assert_eq!(arrived[..6], *b"header", "{kind}");
            assert_eq!(arrived[6..], bytes[offset as usize..][..count as usize], "{kind}");
        }
    });
}

#[test]
fn a_file_larger_than_the_socket_buffer_is_sent_whole() {
    on_each_ring(|kind, io, pool| {
        let bytes = pattern(8 << 20);
        let (ours, mut theirs) = tcp_pair();
        let file = io.register(ours.into()).unwrap();
        let source = io.register(file_with(&bytes)).unwrap();
        let slot = filled(pool, &[9; 96]);
        io.submit(
            7,
            RingOp::SendFile { file, slot, range: 0..96, source, offset: 0, bytes: 8 << 20 },
        )
        .unwrap();
        // The socket is full before the first byte is read: the rest is sent when there is room.
        hand_over(io);
        assert_eq!(io.in_flight(), 1, "{kind}");
        let reader = std::thread::spawn(move || read_exactly(&mut theirs, 96 + (8 << 20)));
        assert_eq!(wait_one(io, 7).0, Ok(96 + (8 << 20)), "{kind}");
        assert!(reader.join().unwrap()[96..] == bytes, "{kind}");
    });
}

#[test]
fn a_socket_that_sends_a_file_receives_as_before() {
    on_each_ring(receives_as_before);
    if ring::probe(0).is_ok() {
        // Without the kernel's table of files, which notes the mode of a socket when it is
        // registered: more than it takes.
        let pool = SlotPool::new(2, 4096).unwrap();
        let mut io = Uring::new(&RingConfig {
            entries: 16,
            files: (1 << 20) + 1,
            blocking: 0,
            pools: &[&pool],
        })
        .unwrap();
        receives_as_before("without a table", &mut io, &pool);
    }
}

fn receives_as_before(kind: &str, io: &mut dyn RingIo, pool: &SlotPool) {
    let (ours, mut theirs) = tcp_pair();
    let file = io.register(ours.into()).unwrap();
    let source = io.register(file_with(&pattern(1000))).unwrap();
    for token in [1, 3] {
        let receive =
            RingOp::Recv { file, slot: pool.take().unwrap(), range: 0..5, wait_all: true };
        let send = RingOp::SendFile {
            file,
            slot: pool.take().unwrap(),
            range: 0..0,
            source,
            offset: 0,
            bytes: 1000,
        };
        // In either order: a socket left in another mode would end the reception with EAGAIN.
        let (first, second) = if token == 1 { (receive, send) } else { (send, receive) };
        io.submit(token, first).unwrap();
        io.submit(token + 1, second).unwrap();
        let sent = wait(io, 1).pop().unwrap();
        assert_eq!(sent.result, Ok(1000), "{kind}");
        assert_eq!(read_exactly(&mut theirs, 1000), pattern(1000), "{kind}");
        hand_over(io);
        theirs.write_all(b"words").unwrap();
        assert_eq!(wait(io, 1).pop().unwrap().result, Ok(5), "{kind}");
    }
}

#[test]
fn a_full_socket_holds_up_nobody_and_is_sent_to_when_it_has_room() {
    on_each_ring(|kind, io, pool| {
        let (ours, mut theirs, before) = full_pair();
        let file = io.register(ours).unwrap();
        let bytes = pattern(9000);
        let source = io.register(file_with(&bytes)).unwrap();
        let slot = filled(pool, b"head");
        io.submit(1, RingOp::SendFile { file, slot, range: 0..4, source, offset: 0, bytes: 9000 })
            .unwrap();
        // Another operation goes its way meanwhile.
        io.submit(
            2,
            RingOp::Read {
                file: source,
                slot: pool.take().unwrap(),
                range: 0..9000,
                offset: 0,
                nowait: false,
            },
        )
        .unwrap();
        assert_eq!(wait_one(io, 2).0, Ok(9000), "{kind}");
        let reader = std::thread::spawn(move || read_exactly(&mut theirs, before + 4 + 9000));
        assert_eq!(wait_one(io, 1).0, Ok(9004), "{kind}");
        let arrived = reader.join().unwrap();
        assert_eq!(arrived[before..before + 4], *b"head", "{kind}");
        assert_eq!(arrived[before + 4..], bytes, "{kind}");
    });
}

#[test]
fn cancelling_a_send_of_a_file_brings_both_completions_and_the_slot() {
    on_each_ring(|kind, io, pool| {
        let (ours, _theirs, _) = full_pair();
        let file = io.register(ours).unwrap();
        let source = io.register(file_with(&pattern(5000))).unwrap();
        for hands_over in [true, false] {
            let slot = pool.take().unwrap();
            io.submit(
                1,
                RingOp::SendFile { file, slot, range: 0..4, source, offset: 0, bytes: 5000 },
            )
            .unwrap();
            if hands_over {
                hand_over(io);
            }
            io.submit(2, RingOp::Cancel { token: 1 }).unwrap();
            cancelled(kind, io);
            assert_eq!(io.in_flight(), 0, "{kind}");
        }
    });
}

#[test]
fn cancelling_in_the_middle_tells_what_was_sent() {
    on_each_ring(|kind, io, pool| {
        let (ours, mut theirs) = tcp_pair();
        let file = io.register(ours.into()).unwrap();
        let bytes = pattern(8 << 20);
        let source = io.register(file_with(&bytes)).unwrap();
        let slot = pool.take().unwrap();
        io.submit(
            1,
            RingOp::SendFile { file, slot, range: 0..0, source, offset: 0, bytes: 8 << 20 },
        )
        .unwrap();
        hand_over(io);
        io.submit(2, RingOp::Cancel { token: 1 }).unwrap();
        let completions = wait(io, 2);
        let sent =
            completions.iter().find(|completion| completion.token == 1).unwrap().result.unwrap()
                as usize;
        assert!(sent > 0 && sent < 8 << 20, "{kind}: {sent}");
        io.unregister(file).unwrap();
        let mut arrived = Vec::new();
        theirs.read_to_end(&mut arrived).unwrap();
        assert!(arrived == bytes[..sent], "{kind}: {} arrived, {sent} were sent", arrived.len());
    });
}

#[test]
fn unregistering_the_socket_or_the_file_ends_the_send() {
    on_each_ring(|kind, io, pool| {
        for of_socket in [true, false] {
            let (ours, mut theirs, before) = full_pair();
            let file = io.register(ours).unwrap();
            let source = io.register(file_with(&pattern(5000))).unwrap();
            let slot = pool.take().unwrap();
            io.submit(
                1,
                RingOp::SendFile { file, slot, range: 0..4, source, offset: 0, bytes: 5000 },
            )
            .unwrap();
            io.unregister(if of_socket { file } else { source }).unwrap();
            let (result, slot) = wait_one(io, 1);
            assert_eq!(result, Err(Errno::ECANCELED), "{kind}");
            io.unregister(if of_socket { source } else { file }).unwrap();
            assert_eq!(read_exactly(&mut theirs, before).len(), before, "{kind}");
            assert_eq!(theirs.read(&mut [0; 8]).unwrap(), 0, "{kind}: nothing of it was sent");

            let (other, _other_end) = pair();
            let file = io.register(other).unwrap();
            let op = RingOp::SendFile {
                file,
                slot: slot.unwrap(),
                range: 0..4,
                source,
                offset: 0,
                bytes: 1,
            };
            assert_eq!(io.submit(2, op).unwrap_err().error, Errno::EBADF, "{kind}: a stale name");
            io.unregister(file).unwrap();
        }
    });
}

#[test]
fn a_file_that_became_shorter_is_told_from_a_flow_that_broke() {
    on_each_ring(|kind, io, pool| {
        let (ours, mut theirs) = tcp_pair();
        let file = io.register(ours.into()).unwrap();
        let source = io.register(file_with(&pattern(1000))).unwrap();
        io.submit(
            1,
            RingOp::SendFile {
                file,
                slot: filled(pool, b"head"),
                range: 0..4,
                source,
                offset: 0,
                bytes: 1001,
            },
        )
        .unwrap();
        assert_eq!(wait_one(io, 1).0, Err(Errno::ENODATA), "{kind}");
        assert_eq!(
            read_exactly(&mut theirs, 1004)[4..],
            pattern(1000),
            "{kind}: what there was had gone"
        );

        let (ours, theirs) = pair();
        drop(theirs);
        let file = io.register(ours).unwrap();
        io.submit(
            2,
            RingOp::SendFile {
                file,
                slot: pool.take().unwrap(),
                range: 0..0,
                source,
                offset: 0,
                bytes: 10,
            },
        )
        .unwrap();
        assert_eq!(wait_one(io, 2).0, Err(Errno::EPIPE), "{kind}");
    });
}

#[test]
fn a_dropped_ring_lets_go_of_a_send_that_waits() {
    if ring::probe(0).is_err() {
        return;
    }
    let pool = SlotPool::new(1, 4096).unwrap();
    let (ours, mut theirs, before) = full_pair();
    let mut io = uring(&[&pool]);
    let file = io.register(ours).unwrap();
    let source = io.register(file_with(&pattern(5000))).unwrap();
    let slot = pool.take().unwrap();
    io.submit(1, RingOp::SendFile { file, slot, range: 0..4, source, offset: 0, bytes: 5000 })
        .unwrap();
    hand_over(&mut io);
    drop(io);
    assert_eq!(pool.free(), 1);
    read_exactly(&mut theirs, before);
    assert_eq!(theirs.read(&mut [0; 8]).unwrap(), 0, "the socket is closed");
}

#[test]
fn faults_shorten_and_fail_sends_of_files() {
    let pool = SlotPool::new(1, 4096).unwrap();
    let faults =
        RingFaults { short_writes_per_mille: 500, errors_per_mille: 100, ..RingFaults::default() };
    let mut io = FakeRing::new(3, faults).unwrap();
    let (ours, mut theirs) = tcp_pair();
    let file = io.register(ours.into()).unwrap();
    let source = io.register(file_with(&pattern(100))).unwrap();
    let mut results = Vec::new();
    for token in 0..100 {
        let slot = pool.take().unwrap();
        io.submit(
            token,
            RingOp::SendFile { file, slot, range: 0..4, source, offset: 0, bytes: 100 },
        )
        .unwrap();
        let (result, _) = wait_one(&mut io, token);
        let sent = result.unwrap_or(0) as usize;
        let arrived = read_exactly(&mut theirs, sent);
        assert!(sent == 0 || arrived[4..] == pattern(100)[..sent - 4]);
        results.push(result);
    }
    assert!(results.contains(&Ok(104)) && results.contains(&Err(Errno::EIO)));
    assert!(results.iter().any(|result| result.is_ok_and(|sent| sent < 104)));
}

#[test]
fn a_look_into_the_page_cache_gives_what_is_there_and_waits_for_nothing() {
    on_each_ring(|kind, io, _| {
        let bytes = pattern(300_000);
        let mut on_disk = tempfile::tempfile_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        on_disk.write_all(&bytes).unwrap();
        on_disk.sync_all().unwrap();
        let file = io.register(on_disk.try_clone().unwrap().into()).unwrap();
        let mut read = vec![0; 5000];
        assert_eq!(io.read_cached(file, 777, &mut read).unwrap(), 5000, "{kind}");
        assert_eq!(read, bytes[777..5777], "{kind}");
        assert_eq!(
            io.read_cached(file, 299_990, &mut read).unwrap(),
            10,
            "{kind}: as far as the file goes"
        );
        assert_eq!(
            io.read_cached(file, 300_000, &mut read).unwrap(),
            0,
            "{kind}: the end of the file"
        );
        if let Ok(cachestat) = io.cachestat(file, 777, 5000) {
            assert_eq!(cachestat, CachedPages::Whole, "{kind}");
        }

        nix::fcntl::posix_fadvise(
            &on_disk,
            0,
            0,
            nix::fcntl::PosixFadviseAdvice::POSIX_FADV_DONTNEED,
        )
        .unwrap();
        match io.cachestat(file, 0, 300_000) {
            // A file system that keeps it all the same is memory itself.
            Ok(CachedPages::Whole) => {}
            Ok(cachestat) => {
                assert_eq!(cachestat, CachedPages::Clean, "{kind}");
                // Some of it may have stayed, and the look itself makes the kernel read ahead,
                // which a fast disk may finish meanwhile.
                let mut to = vec![0; 300_000];
                match io.read_cached(file, 0, &mut to) {
                    Ok(read) => assert_eq!(to[..read], bytes[..read], "{kind}"),
                    Err(error) => assert_eq!(error.raw_os_error(), Some(libc::EAGAIN), "{kind}"),
                }
            }
            Err(error) => assert!(
                matches!(error.raw_os_error(), Some(libc::ENOSYS | libc::EPERM)),
                "{kind}: {error}"
            ),
        }
        // A page that is written to is there, and not on the disk.
        on_disk.write_all_at(b"new", 8192).unwrap();
        if let Ok(cachestat) = io.cachestat(file, 0, 300_000) {
            assert_ne!(cachestat, CachedPages::Clean, "{kind}");
        }
        io.unregister(file).unwrap();
    });
}

#[test]
fn a_look_into_shared_memory_finds_it() {
    on_each_ring(|kind, io, _| {
        let memory =
            nix::sys::memfd::memfd_create("look", nix::sys::memfd::MFdFlags::MFD_CLOEXEC).unwrap();
        let mut memory = std::fs::File::from(memory);
        memory.write_all(&pattern(10_000)).unwrap();
        let file = io.register(memory.into()).unwrap();
        let mut read = vec![0; 4000];
        assert_eq!(io.read_cached(file, 5001, &mut read).unwrap(), 4000, "{kind}");
        assert_eq!(read, pattern(10_000)[5001..9001], "{kind}");
    });
}
