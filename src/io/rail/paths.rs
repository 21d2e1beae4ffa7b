//! Data-path statistics of one rail and transfer, with the reason for each fallback.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use crate::core::rail::{FallbackReason, KernelRoute};

/// Bytes by kernel route, of one rail and transfer. The rail adds, the control thread reads.
#[derive(Debug, Default)]
pub(crate) struct PathStats {
    bytes: [AtomicU64; ROUTES.len()],
    reasons: AtomicU32,
    driver: OnceLock<String>,
}

impl PathStats {
    pub(super) fn took(&self, route: KernelRoute, bytes: u64) {
        self.bytes[route as usize].fetch_add(bytes, Ordering::Relaxed);
    }

    pub(super) fn because(&self, reason: FallbackReason) {
        self.reasons.fetch_or(reason as u32, Ordering::Relaxed);
    }

    /// Says what carries out this rail's operations.
    pub(super) fn driven_by(&self, driver: &str) {
        // A rail that joins a transfer a second time is driven as before.
        let _ = self.driver.set(driver.into());
    }

    /// Returns the driver of the rail's operations; empty before it joined.
    pub(crate) fn driver(&self) -> String {
        self.driver.get().cloned().unwrap_or_default()
    }
}

/// The ways that the rails of one NIC took, the one of most bytes first, and why: `splice` alone,
/// or `direct+send 97.0 %, splice 3.0 %; what is not in the page cache is read into buffers`. Empty
/// where nothing moved.
pub(crate) fn describe(rails: &[&PathStats]) -> String {
    let bytes = |route: KernelRoute| {
        rails.iter().map(|paths| paths.bytes[route as usize].load(Ordering::Relaxed)).sum()
    };
    let mut taken: Vec<(u64, &str)> =
        ROUTES.iter().map(|&(route, name)| (bytes(route), name)).collect();
    taken.retain(|(bytes, _)| *bytes > 0);
    taken.sort_by_key(|(bytes, _)| std::cmp::Reverse(*bytes));
    let whole: u64 = taken.iter().map(|(bytes, _)| bytes).sum();
    let mut text = match taken.as_slice() {
        [] => return String::new(),
        [(_, only)] => (*only).into(),
        several => {
            let shares =
                several.iter().map(|(bytes, name)| format!("{name} {:.1} %", share(*bytes, whole)));
            shares.collect::<Vec<_>>().join(", ")
        }
    };
    let reasons =
        rails.iter().fold(0, |reasons, paths| reasons | paths.reasons.load(Ordering::Relaxed));
    for (_, why) in REASONS.iter().filter(|(reason, _)| reasons & *reason as u32 != 0) {
        text += "; ";
        text += why;
    }
    text
}

fn share(bytes: u64, whole: u64) -> f64 {
    bytes as f64 * 100.0 / whole as f64
}

const ROUTES: [(KernelRoute, &str); 8] = [
    (KernelRoute::Splice, "splice"),
    (KernelRoute::ReadSend, "read+send"),
    (KernelRoute::DirectSend, "direct+send"),
    (KernelRoute::PatternSend, "pattern+send"),
    (KernelRoute::Zerocopy, "zerocopy"),
    (KernelRoute::ReceiveDirect, "recv+direct"),
    (KernelRoute::ReceiveWrite, "recv+write"),
    (KernelRoute::Receive, "recv"),
];

const REASONS: [(FallbackReason, &str); 8] = [
    (FallbackReason::NoFile, "a pattern has no file"),
    (FallbackReason::NotCached, "what is not in the page cache is read into buffers"),
    (FallbackReason::NotSpliced, "the file gave less than it should to a splice"),
    (FallbackReason::NoDirect, "the file system has no O_DIRECT"),
    (FallbackReason::Copied, "zero copies stopped: the kernel copies what is sent here"),
    (FallbackReason::Late, "zero copies paused while acknowledgements were late"),
    (FallbackReason::NoZerocopy, "the kernel refused a zero copy"),
    (FallbackReason::NotClear, "a splice needs --wire clear"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_way_is_its_name_and_several_have_shares() {
        let paths = PathStats::default();
        assert_eq!(describe(&[&paths]), "");
        paths.took(KernelRoute::Splice, 300);
        assert_eq!(describe(&[&paths]), "splice");
        paths.took(KernelRoute::DirectSend, 700);
        paths.because(FallbackReason::NotCached);
        paths.because(FallbackReason::NotCached);
        let text =
            "direct+send 70.0 %, splice 30.0 %; what is not in the page cache is read into buffers";
        assert_eq!(describe(&[&paths]), text);
    }

    #[test]
    fn every_way_has_its_place() {
        for (at, (route, _)) in ROUTES.iter().enumerate() {
            assert_eq!(*route as usize, at);
        }
    }

    #[test]
    fn the_driver_is_said_once() {
        let paths = PathStats::default();
        assert_eq!(paths.driver(), "");
        paths.driven_by("io_uring");
        paths.driven_by("io_uring");
        assert_eq!(paths.driver(), "io_uring");
    }
}
