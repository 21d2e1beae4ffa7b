//! Trials of what this kernel has, with the calls that a node makes: releases of distributions have
//! more than their numbers say, and filters leave less.

use std::fs::File;
use std::io;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;

use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, open, openat2};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, setsockopt, socket, sockopt};
use nix::sys::stat::Mode;
use ring::{PlainRing, RingIo};

use crate::core::doctor::readings::KernelFeature;
use crate::io::node::LOOPBACK;

/// Returns what this kernel lacks, the oldest first. What cannot be tried is not listed.
pub(super) fn lacking() -> Vec<KernelFeature> {
    let trials = [
        (KernelFeature::PacketOrder, packet_order()),
        (KernelFeature::Openat2, beneath()),
        (KernelFeature::BindToNic, bind_to_nic()),
        (KernelFeature::Cachestat, cachestat()),
    ];
    let lacks = |(feature, has): (KernelFeature, io::Result<bool>)| match has {
        Ok(false) => Some(feature),
        _ => None,
    };
    trials.into_iter().filter_map(lacks).collect()
}

/// Both ends of a connection of this machine to itself know its round-trip time at once.
fn packet_order() -> io::Result<bool> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let _ours = TcpStream::connect(listener.local_addr()?)?;
    let (theirs, _) = listener.accept()?;
    let mut ring = PlainRing::new(1, 1)?;
    let file = ring.register(OwnedFd::from(theirs))?;
    has(ring.path(file), libc::ENOTSUP)
}

fn beneath() -> io::Result<bool> {
    let top = open("/", OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty())?;
    let opened = openat2(&top, ".", OpenHow::new().flags(OFlag::O_PATH | OFlag::O_CLOEXEC));
    match opened {
        Err(Errno::ENOSYS | Errno::EPERM) => Ok(false),
        opened => Ok(opened.map(|_| true)?),
    }
}

fn bind_to_nic() -> io::Result<bool> {
    let stream = socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    match setsockopt(&stream, sockopt::BindToDevice, &LOOPBACK.into()) {
        Err(Errno::EPERM) => Ok(false),
        bound => Ok(bound.map(|()| true)?),
    }
}

/// The file is this process's own: of others the kernel may keep it a secret.
fn cachestat() -> io::Result<bool> {
    let file = File::from(memfd_create("trial", MFdFlags::MFD_CLOEXEC)?);
    file.set_len(1)?;
    let mut ring = PlainRing::new(1, 1)?;
    let file = ring.register(file.into())?;
    has(ring.cachestat(file, 0, 1), libc::ENOSYS)
}

/// Returns false for the error of a kernel that does not have what was tried.
fn has<T>(tried: io::Result<T>, lacking: libc::c_int) -> io::Result<bool> {
    match tried {
        Err(error) if error.raw_os_error() == Some(lacking) => Ok(false),
        tried => tried.map(|_| true),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::*;

    /// Newer ones have what older ones have, where nothing is filtered.
    #[test]
    fn what_is_lacking_is_what_the_release_lacks() {
        let release = nix::sys::utsname::uname().unwrap();
        let release = release.release().to_string_lossy().into_owned();
        let mut numbers = release.split(|it: char| !it.is_ascii_digit());
        let mut number = || numbers.next().unwrap().parse::<u32>().unwrap();
        let release = (number(), number());
        let lacks = lacking();
        for (feature, since) in [
            (KernelFeature::PacketOrder, (5, 4)),
            (KernelFeature::Openat2, (5, 6)),
            (KernelFeature::BindToNic, (5, 7)),
            (KernelFeature::Cachestat, (6, 5)),
        ] {
            assert!(release < since || !lacks.contains(&feature), "{feature:?} on {release:?}");
        }
    }
}
