//! File systems of a test's own, whose power can be cut.
#![allow(clippy::print_stderr, reason = "a skipped test says so")]

use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::path::PathBuf;
use std::process::{Command, Output};

use super::{code, run, stderr};

/// An ext4 of its own on a loop device, mounted at a folder.
pub(crate) struct Disk {
    image: PathBuf,
    pub(crate) at: PathBuf,
}

impl Disk {
    /// A disk of `bytes` whose image is made at `image`; `None`, with a word on it, where that is
    /// not permitted.
    pub(crate) fn new(image: PathBuf, at: PathBuf, bytes: u64) -> Option<Disk> {
        fs::create_dir(&at).unwrap();
        File::create(&image).unwrap().set_len(bytes).unwrap();
        let made = run(Command::new("mkfs.ext4").args(["-q", "-F"]).arg(&image));
        assert_eq!(code(&made), 0, "{}", stderr(&made));
        let disk = Disk { image, at };
        let mounted = disk.try_mount();
        if code(&mounted) != 0 {
            eprintln!("skipped: no right to mount a loop device: {}", stderr(&mounted));
            return None;
        }
        Some(disk)
    }

    fn try_mount(&self) -> Output {
        run(Command::new("mount").args(["-o", "loop"]).arg(&self.image).arg(&self.at))
    }

    /// Bytes that were not on the disk will be missing, and until it is mounted again every request
    /// fails.
    pub(crate) fn cut_power(&self) {
        /// `EXT4_IOC_SHUTDOWN`, which is `_IOR('X', 125, u32)`, and its way of writing nothing any
        /// more.
        const SHUTDOWN: libc::c_ulong = 0x8004_587d;
        let without_flush: u32 = 2;
        let root = File::open(&self.at).unwrap();
        // SAFETY: the descriptor is open, and the request reads one u32 behind the pointer, which
        // lives longer.
        let done = unsafe { libc::ioctl(root.as_raw_fd(), SHUTDOWN, &raw const without_flush) };
        assert_eq!(done, 0, "{}", std::io::Error::last_os_error());
    }

    /// Starts it again after its power was cut, with what was on it then. Whoever still has it
    /// open, also in a copy of the table of mounts, keeps the dead one: the new one is a copy.
    pub(crate) fn restart(&mut self) {
        assert_eq!(code(&run(Command::new("umount").arg("-l").arg(&self.at))), 0);
        let image = self.image.with_extension("again");
        assert_eq!(
            code(&run(Command::new("cp").arg("--sparse=always").arg(&self.image).arg(&image))),
            0
        );
        self.image = image;
        let mounted = self.try_mount();
        assert_eq!(code(&mounted), 0, "{}", stderr(&mounted));
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.at).output();
    }
}
