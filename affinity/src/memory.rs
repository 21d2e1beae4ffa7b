//! NUMA node of the calling thread's memory, and memory kept by the allocator.
//!
//! A page comes from the node of the CPU that touches it first, so a thread pinned near its NIC
//! gets near memory automatically. A thread that is not pinned, or is pinned elsewhere, must ask
//! for it.

/// Asks the kernel to allocate the calling thread's new memory on `node` while it has free memory.
/// Returns true on success.
///
/// It fails if there is no such node, if the kernel was built without NUMA, or if a container's
/// filter forbids the call. Memory then comes from the default node, which only costs speed. Memory
/// that the thread has touched already stays in place.
///
/// ```
/// std::thread::spawn(|| {
///     affinity::prefer_node(0);
///     let near = vec![1_u8; 1 << 20];
///     # drop(near);
/// }).join().unwrap();
/// ```
#[allow(clippy::must_use_candidate, reason = "most callers have nothing else to try")]
pub fn prefer_node(node: u32) -> bool {
    let mut nodes = [0_u64; NODES_MAX / 64];
    let Some(word) = nodes.get_mut(node as usize / 64) else { return false };
    *word = 1 << (node % 64);
    // The kernel reads one bit less than the count.
    let bits = NODES_MAX as libc::c_ulong + 1;
    // SAFETY: set_mempolicy(2) takes a mode, a pointer and a count of bits. `nodes` is alive during
    // the call and holds NODES_MAX bits, which is what the kernel reads for that count; it writes
    // nothing. The call changes where later pages of this thread come from, never what memory
    // holds.
    let answer = unsafe {
        libc::syscall(libc::SYS_set_mempolicy, libc::MPOL_PREFERRED, nodes.as_ptr(), bits)
    };
    answer == 0
}

/// Limits the allocator to `count` arenas for all threads of this process. Returns true on success.
///
/// glibc gives threads arenas of their own, up to eight for each core, and each keeps its peak
/// memory. A process whose threads come and go grows by that for hours, as if it leaked. Other
/// allocators are unchanged.
///
/// ```
/// affinity::share_arenas(2);
/// ```
#[allow(clippy::must_use_candidate, reason = "most callers have nothing else to try")]
pub fn share_arenas(count: u16) -> bool {
    #[cfg(target_env = "gnu")]
    // SAFETY: mallopt(3) takes two numbers and may be called at any time: arenas that are there
    // already stay.
    return unsafe { libc::mallopt(libc::M_ARENA_MAX, count.into()) } == 1;
    #[cfg(not(target_env = "gnu"))]
    return count == 0;
}

/// Limit on nodes of any kernel (`CONFIG_NODES_SHIFT` is at most 10).
const NODES_MAX: usize = 1024;

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed step is a failed test")]
mod tests {
    use std::fs;

    use super::prefer_node;

    /// Returns the kernel's policy of a mapping made after `change`, in a thread of its own, whose
    /// end undoes the policy.
    fn policies(change: fn()) -> String {
        let read = || fs::read_to_string("/proc/thread-self/numa_maps").unwrap_or_default();
        std::thread::spawn(move || {
            change();
            read()
        })
        .join()
        .unwrap()
    }

    #[test]
    #[allow(clippy::print_stderr, reason = "a test that cannot run says so")]
    fn memory_is_wanted_from_the_node_that_was_named() {
        if fs::metadata("/proc/self/numa_maps").is_err()
            || fs::metadata("/sys/devices/system/node/node0").is_err()
        {
            eprintln!("skipped: this kernel has no NUMA");
            return;
        }
        assert!(!policies(|| ()).contains(" prefer"));
        let found = policies(|| assert!(prefer_node(0)));
        assert!(found.contains(" prefer:0 ") || found.contains(" prefer=relative:0 "), "{found}");
    }

    #[test]
    fn a_node_that_is_not_there_changes_nothing() {
        for node in [1023, 1024, u32::MAX] {
            assert!(!prefer_node(node), "{node}");
        }
    }
}
