//! Every operation, on every kind of ring, with real files and sockets.
#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

mod common;

use std::io::{Read, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::time::Duration;

use common::{
    ENTRIES, FILES, SLOT_BYTES, cancelled, file_with, filled, on_each_ring, pair, pattern,
    read_exactly, tcp_pair, wait, wait_one,
};
use ring::{CompletionStage, Errno, PAGE_BYTES, RingIo, RingOp, SlotPool};

#[test]
fn recv_waits_for_the_whole_range_only_if_asked() {
    on_each_ring(|kind, io, pool| {
        let (ours, mut theirs) = pair();
        let file = io.register(ours).unwrap();
        let bytes = pattern(8000);

        theirs.write_all(&bytes[..3000]).unwrap();
        let slot = pool.take().unwrap();
        io.submit(1, RingOp::Recv { file, slot, range: 100..8100, wait_all: true }).unwrap();
        io.wait(Some(Duration::ZERO), &mut Vec::new()).unwrap();
        theirs.write_all(&bytes[3000..]).unwrap();
        let (result, slot) = wait_one(io, 1);
        assert_eq!(result, Ok(8000), "{kind}");
        let slot = slot.unwrap();
        assert_eq!(slot.as_slice()[100..8100], bytes, "{kind}");

        theirs.write_all(&bytes[..50]).unwrap();
        io.submit(2, RingOp::Recv { file, slot, range: 0..8000, wait_all: false }).unwrap();
        let (result, slot) = wait_one(io, 2);
        assert_eq!(result, Ok(50), "{kind}");

        drop(theirs);
        io.submit(3, RingOp::Recv { file, slot: slot.unwrap(), range: 0..8000, wait_all: true })
            .unwrap();
        assert_eq!(wait_one(io, 3).0, Ok(0), "{kind}: the end of the stream");
    });
}

#[test]
fn a_send_larger_than_the_socket_buffer_is_sent_whole() {
    on_each_ring(|kind, io, _| {
        let pool = SlotPool::new(1, 4 << 20).unwrap();
        let bytes = pattern(pool.slot_bytes());
        let (ours, mut theirs) = tcp_pair();
        let file = io.register(ours.into()).unwrap();
        let reader = std::thread::spawn(move || read_exactly(&mut theirs, 4 << 20));
        io.submit(
            7,
            RingOp::Send { file, slot: filled(&pool, &bytes), range: 0..bytes.len(), more: false },
        )
        .unwrap();
        assert_eq!(wait_one(io, 7).0, Ok(4 << 20), "{kind}");
        assert!(reader.join().unwrap() == bytes, "{kind}");
    });
}

#[test]
fn more_and_its_successor_arrive_in_order() {
    on_each_ring(|kind, io, pool| {
        let (ours, mut theirs) = tcp_pair();
        let file = io.register(ours.into()).unwrap();
        for (token, more) in [(1, true), (2, false)] {
            let slot = filled(pool, &[u8::try_from(token).unwrap(); 10]);
            io.submit(token, RingOp::Send { file, slot, range: 0..10, more }).unwrap();
            assert_eq!(wait_one(io, token).0, Ok(10), "{kind}");
        }
        assert_eq!(read_exactly(&mut theirs, 20), [[1; 10], [2; 10]].concat(), "{kind}");
    });
}

#[test]
fn a_send_to_a_closed_flow_is_an_error_not_a_signal() {
    on_each_ring(|kind, io, pool| {
        let (ours, theirs) = pair();
        drop(theirs);
        let file = io.register(ours).unwrap();
        io.submit(1, RingOp::Send { file, slot: pool.take().unwrap(), range: 0..10, more: false })
            .unwrap();
        let (result, slot) = wait_one(io, 1);
        assert_eq!(result, Err(Errno::EPIPE), "{kind}");
        assert!(slot.is_some(), "{kind}: the slot comes back with an error too");
    });
}

#[test]
fn a_zero_copy_send_gives_its_slot_with_the_notice() {
    on_each_ring(|kind, io, pool| {
        let (ours, mut theirs) = tcp_pair();
        let file = io.register(ours.into()).unwrap();
        let bytes = pattern(SLOT_BYTES);
        io.submit(5, RingOp::SendZc { file, slot: filled(pool, &bytes), range: 0..bytes.len() })
            .unwrap();
        let reader = std::thread::spawn(move || read_exactly(&mut theirs, SLOT_BYTES));
        let completions = wait(io, 2);
        let [sent, notice] = &completions[..] else { panic!("{completions:?}") };
        assert_eq!(
            (sent.token, sent.stage, sent.result),
            (5, CompletionStage::NoticeFollows, Ok(65536)),
            "{kind}"
        );
        assert!(sent.slot.is_none(), "{kind}");
        assert_eq!(notice.token, 5, "{kind}");
        assert_eq!(
            notice.stage,
            CompletionStage::Notice { copied: true },
            "{kind}: loopback always copies"
        );
        assert!(notice.slot.is_some(), "{kind}");
        assert_eq!(io.in_flight(), 0, "{kind}");
        assert_eq!(reader.join().unwrap(), bytes, "{kind}");
    });
}

#[test]
fn reads_and_writes_meet_their_offsets() {
    on_each_ring(|kind, io, pool| {
        let bytes = pattern(20_000);
        let source = io.register(file_with(&bytes)).unwrap();
        let target = tempfile::tempfile().unwrap();
        let written = io.register(target.try_clone().unwrap().into()).unwrap();

        let slot = pool.take().unwrap();
        io.submit(
            1,
            RingOp::Read { file: source, slot, range: 11..5011, offset: 777, nowait: false },
        )
        .unwrap();
        let (result, slot) = wait_one(io, 1);
        assert_eq!(result, Ok(5000), "{kind}");
        let slot = slot.unwrap();
        assert_eq!(slot.as_slice()[11..5011], bytes[777..5777], "{kind}");

        io.submit(2, RingOp::Write { file: written, slot, range: 11..5011, offset: 333 }).unwrap();
        assert_eq!(wait_one(io, 2).0, Ok(5000), "{kind}");
        io.submit(3, RingOp::Sync { file: written }).unwrap();
        assert_eq!(wait_one(io, 3).0, Ok(0), "{kind}");
        let mut read = vec![0; 5000];
        target.read_exact_at(&mut read, 333).unwrap();
        assert_eq!(read, bytes[777..5777], "{kind}");
        assert_eq!(
            target.metadata().unwrap().len(),
            5333,
            "{kind}: not a byte more than was asked"
        );

        let slot = pool.take().unwrap();
        io.submit(
            4,
            RingOp::Read { file: source, slot, range: 0..100, offset: 19_990, nowait: false },
        )
        .unwrap();
        let (result, slot) = wait_one(io, 4);
        assert_eq!(result, Ok(10), "{kind}: as far as the file goes");
        io.submit(
            5,
            RingOp::Read {
                file: source,
                slot: slot.unwrap(),
                range: 0..100,
                offset: 20_000,
                nowait: false,
            },
        )
        .unwrap();
        assert_eq!(wait_one(io, 5).0, Ok(0), "{kind}: the end of the file");
    });
}

#[test]
fn direct_writes_and_reads_of_a_real_file() {
    on_each_ring(|kind, io, pool| {
        let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let path = directory.path().join("direct");
        let mut options = std::fs::OpenOptions::new();
        options.read(true).write(true).create(true).truncate(true).custom_flags(libc::O_DIRECT);
        // A file system without O_DIRECT says so here.
        let Ok(direct) = options.open(&path) else { return };
        let file = io.register(direct.into()).unwrap();
        let bytes = pattern(4 * PAGE_BYTES);
        let slot = filled(pool, &bytes);

        io.submit(1, RingOp::Write { file, slot, range: PAGE_BYTES..3 * PAGE_BYTES, offset: 8192 })
            .unwrap();
        let (result, slot) = wait_one(io, 1);
        assert_eq!(result, Ok(8192), "{kind}");
        let mut slot = slot.unwrap();
        slot.as_mut_slice().fill(0);
        io.submit(
            2,
            RingOp::Read { file, slot, range: 0..2 * PAGE_BYTES, offset: 8192, nowait: false },
        )
        .unwrap();
        let (result, slot) = wait_one(io, 2);
        assert_eq!(result, Ok(8192), "{kind}");
        assert_eq!(slot.unwrap().as_slice()[..8192], bytes[PAGE_BYTES..3 * PAGE_BYTES], "{kind}");
        assert_eq!(
            std::fs::read(&path).unwrap()[8192..],
            bytes[PAGE_BYTES..3 * PAGE_BYTES],
            "{kind}"
        );
    });
}

#[test]
fn nowait_gives_what_is_cached() {
    on_each_ring(|kind, io, pool| {
        let bytes = pattern(4096);
        let file = io.register(file_with(&bytes)).unwrap();
        let op = RingOp::Read {
            file,
            slot: pool.take().unwrap(),
            range: 0..4096,
            offset: 0,
            nowait: true,
        };
        io.submit(1, op).unwrap();
        let (result, slot) = wait_one(io, 1);
        match result {
            Ok(4096) => assert_eq!(slot.unwrap().as_slice()[..4096], bytes, "{kind}"),
            // tmpfs and others may not know the flag.
            other => assert!(
                matches!(other, Err(Errno::EOPNOTSUPP | Errno::EAGAIN)),
                "{kind}: {other:?}"
            ),
        }
    });
}

#[test]
fn cancelling_a_recv_brings_both_completions_and_the_slot() {
    on_each_ring(|kind, io, pool| {
        let (ours, _theirs) = pair();
        let file = io.register(ours).unwrap();
        io.submit(
            1,
            RingOp::Recv { file, slot: pool.take().unwrap(), range: 0..10, wait_all: true },
        )
        .unwrap();
        io.wait(Some(Duration::ZERO), &mut Vec::new()).unwrap();
        io.submit(2, RingOp::Cancel { token: 1 }).unwrap();
        cancelled(kind, io);

        io.submit(3, RingOp::Cancel { token: 99 }).unwrap();
        assert_eq!(wait_one(io, 3).0, Err(Errno::ENOENT), "{kind}");
    });
}

#[test]
fn a_waker_ends_the_wait_also_when_it_comes_first() {
    on_each_ring(|kind, io, _| {
        let mut completions = Vec::new();
        io.waker().wake();
        io.waker().wake();
        io.wait(None, &mut completions).unwrap();

        let waker = io.waker();
        let other = std::thread::spawn(move || waker.wake());
        io.wait(None, &mut completions).unwrap();
        other.join().unwrap();
        assert!(completions.is_empty(), "{kind}: a wake is not a completion");
    });
}

#[test]
fn unregistering_closes_the_file_and_returns_what_is_in_flight() {
    on_each_ring(|kind, io, pool| {
        let (ours, mut theirs) = pair();
        let file = io.register(ours).unwrap();
        io.submit(
            1,
            RingOp::Recv { file, slot: pool.take().unwrap(), range: 0..10, wait_all: true },
        )
        .unwrap();
        io.unregister(file).unwrap();
        let (result, slot) = wait_one(io, 1);
        assert_eq!(result, Err(Errno::ECANCELED), "{kind}");
        assert_eq!(io.unregister(file).unwrap_err().raw_os_error(), Some(libc::EBADF), "{kind}");

        // Another file in the same place is not reached by the old name.
        let (other, mut other_end) = pair();
        let new = io.register(other).unwrap();
        let refused = io
            .submit(2, RingOp::Send { file, slot: slot.unwrap(), range: 0..3, more: false })
            .unwrap_err();
        assert_eq!(refused.error, Errno::EBADF, "{kind}");
        let RingOp::Send { slot, .. } = refused.op else {
            panic!("{kind}: the operation comes back as it was")
        };
        io.submit(3, RingOp::Send { file: new, slot, range: 0..3, more: false }).unwrap();
        assert_eq!(wait_one(io, 3).0, Ok(3), "{kind}");
        assert_eq!(read_exactly(&mut other_end, 3).len(), 3, "{kind}");
        assert_eq!(theirs.read(&mut [0; 8]).unwrap(), 0, "{kind}: the first socket is closed");
    });
}

#[test]
fn a_full_ring_gives_the_operation_back() {
    on_each_ring(|kind, io, _| {
        let pool = SlotPool::new(300, 1).unwrap();
        let (ours, mut theirs) = pair();
        let file = io.register(ours).unwrap();
        let mut submitted = 0;
        let refused = loop {
            let op =
                RingOp::Recv { file, slot: pool.take().unwrap(), range: 0..1, wait_all: false };
            match io.submit(submitted, op) {
                Ok(()) => submitted += 1,
                Err(refused) => break refused,
            }
        };
        assert_eq!(refused.error, Errno::EBUSY, "{kind}");
        assert!(submitted >= u64::from(ENTRIES), "{kind}: {submitted}");
        assert!(refused.op.into_slot().is_some(), "{kind}");

        let count = usize::try_from(submitted).unwrap();
        assert_eq!(io.in_flight(), count, "{kind}");
        theirs.write_all(&vec![1; count]).unwrap();
        let completions = wait(io, count);
        assert!(completions.iter().all(|completion| completion.result == Ok(1)), "{kind}");
        assert_eq!(io.in_flight(), 0, "{kind}");
    });
}

#[test]
fn files_beyond_the_kernels_table_are_used_like_the_others() {
    on_each_ring(|kind, io, pool| {
        let count = if kind == "fake" { 260 } else { FILES as usize + 4 };
        let files: Vec<_> =
            (0..count).map(|at| io.register(file_with(&[at as u8; 4])).unwrap()).collect();
        let read = |io: &mut dyn RingIo, file, expected: u8| {
            let slot = pool.take().unwrap();
            io.submit(1, RingOp::Read { file, slot, range: 0..4, offset: 0, nowait: false })
                .unwrap();
            let (result, slot) = wait_one(io, 1);
            assert_eq!(
                (result, &slot.unwrap().as_slice()[..4]),
                (Ok(4), &[expected; 4][..]),
                "{kind}"
            );
        };
        for at in [0, count - 1, count - 2] {
            read(io, files[at], at as u8);
        }
        io.unregister(files[count - 2]).unwrap();
        io.unregister(files[1]).unwrap();
        let again =
            [io.register(file_with(&[7; 4])).unwrap(), io.register(file_with(&[9; 4])).unwrap()];
        read(io, again[0], 7);
        read(io, again[1], 9);
        read(io, files[count - 1], (count - 1) as u8);
    });
}

#[test]
fn a_shared_file_is_closed_when_nobody_has_it() {
    on_each_ring(|kind, io, _| {
        let (ours, mut theirs) = pair();
        let shared = std::sync::Arc::new(ours);
        let file = io.register_shared(std::sync::Arc::clone(&shared)).unwrap();
        io.unregister(file).unwrap();
        theirs.set_nonblocking(true).unwrap();
        assert_eq!(
            theirs.read(&mut [0; 1]).unwrap_err().kind(),
            std::io::ErrorKind::WouldBlock,
            "{kind}"
        );
        drop(shared);
        theirs.set_nonblocking(false).unwrap();
        assert_eq!(theirs.read(&mut [0; 1]).unwrap(), 0, "{kind}");
    });
}

#[test]
fn a_range_beyond_the_slot_is_a_bug_of_the_caller() {
    let mut io = ring::PlainRing::new(1, 1).unwrap();
    let file = io.register(file_with(b"x")).unwrap();
    let slot = SlotPool::new(1, 4096).unwrap().take().unwrap();
    let submit = std::panic::AssertUnwindSafe(|| {
        io.submit(1, RingOp::Read { file, slot, range: 0..4097, offset: 0, nowait: false })
    });
    assert!(std::panic::catch_unwind(submit).is_err());
}
