//! Number of threads that serve each NIC.
//!
//! One thread moves what one core can; a faster NIC needs several, each with a port, a ring and a
//! CPU of its own.

use crate::core::error::{Code, Error, Result};
use crate::core::wire::limits::RAILS_MAX;

/// The choice of the number of threads of each NIC.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum ThreadCount {
    /// As many as its line rate needs.
    Auto,
    /// This many, at least one.
    Each(usize),
}

/// Facts that decide about a NIC.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct NicLine<'a> {
    /// Its line rate in 10^6 bits per second, where it is known.
    pub(crate) speed_mbit: Option<u32>,
    /// The CPUs near it; empty if that is unknown.
    pub(crate) near: &'a [usize],
}

/// Rate that one thread is taken to move, to begin with: `bench --threads` measures it on a
/// machine.
const MBIT_PER_THREAD: u32 = 40_000;

/// The number of threads of each NIC, where the node may use the `allowed` CPUs.
///
/// # Errors
/// `Code::Usage` where more are asked for than a node can have.
pub(crate) fn threads(
    asked: ThreadCount,
    nics: &[NicLine],
    allowed: &[usize],
) -> Result<Vec<usize>> {
    match asked {
        ThreadCount::Auto => Ok(nics.iter().map(|nic| auto(*nic, nics, allowed)).collect()),
        ThreadCount::Each(count) if count.saturating_mul(nics.len()) > RAILS_MAX => {
            let most = (RAILS_MAX / nics.len().max(1)).max(1);
            let what = format!(
                "{count} threads for each of {} NICs are more than {RAILS_MAX}",
                nics.len()
            );
            Err(Error::new(Code::Usage, what)
                .remedy(format!("--threads-per-nic {most}, or fewer NICs with --nic")))
        }
        ThreadCount::Each(count) => Ok(vec![count; nics.len()]),
    }
}

/// As many as the line needs, as far as there are CPUs near it for that beside the other NICs
/// there.
fn auto(nic: NicLine, nics: &[NicLine], allowed: &[usize]) -> usize {
    let usable = |nic: &NicLine| {
        let near: Vec<usize> =
            nic.near.iter().copied().filter(|cpu| allowed.contains(cpu)).collect();
        if near.is_empty() { allowed.to_vec() } else { near }
    };
    let cpus = usable(&nic);
    let sharing =
        nics.iter().filter(|other| usable(other).iter().any(|cpu| cpus.contains(cpu))).count();
    let wanted = nic.speed_mbit.map_or(1, |mbit| mbit.div_ceil(MBIT_PER_THREAD)) as usize;
    let most = (cpus.len() / sharing.max(1)).min(RAILS_MAX / nics.len().max(1));
    wanted.min(most).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn auto_of(nics: &[(Option<u32>, &[usize])], cpus: usize) -> Vec<usize> {
        let nics: Vec<NicLine> =
            nics.iter().map(|&(speed_mbit, near)| NicLine { speed_mbit, near }).collect();
        threads(ThreadCount::Auto, &nics, &(0..cpus).collect::<Vec<_>>())
            .expect("auto always has an answer")
    }

    #[test]
    fn a_thread_for_every_forty_gigabits() {
        let table = [
            (1_000, 1),
            (25_000, 1),
            (40_000, 1),
            (50_000, 2),
            (100_000, 3),
            (200_000, 5),
            (400_000, 10),
        ];
        for (mbit, expected) in table {
            assert_eq!(auto_of(&[(Some(mbit), &[])], 64), [expected], "{mbit} Mbit/s");
        }
        assert_eq!(auto_of(&[(None, &[])], 64), [1], "a speed that nobody knows");
    }

    #[test]
    fn no_more_than_the_cpus_near_it_shared_with_the_nics_there() {
        let fast = Some(400_000);
        let (first, second): (&[usize], &[usize]) = (&[0, 1, 2, 3], &[4, 5, 6, 7]);
        assert_eq!(auto_of(&[(fast, first)], 8), [4]);
        assert_eq!(auto_of(&[(fast, first), (Some(10_000), first), (fast, second)], 8), [2, 1, 4]);
        // The mask leaves two of the second socket, and none of a third: then any CPU will do.
        assert_eq!(auto_of(&[(fast, second)], 6), [2]);
        assert_eq!(auto_of(&[(fast, &[8, 9])], 4), [4]);
        // Those that could be anywhere share with all.
        assert_eq!(auto_of(&[(fast, &[]), (fast, &[])], 8), [4, 4]);
        assert_eq!(auto_of(&[(fast, first); 9], 8), [1; 9], "one at least");
        assert_eq!(auto_of(&[(fast, &[])], 0), [1], "where the mask is not known");
    }

    #[test]
    fn a_node_has_so_many_rails_and_no_more() {
        let (fast, anywhere): (_, &[usize]) = (Some(400_000), &[]);
        assert_eq!(auto_of(&[(fast, anywhere); 16], 1024), [4; 16]);
        let nics = [NicLine { speed_mbit: None, near: &[] }; 3];
        assert_eq!(threads(ThreadCount::Each(21), &nics, &[0]).expect("63"), [21; 3]);
        let error = threads(ThreadCount::Each(22), &nics, &[0]).expect_err("66");
        assert!(
            error.code == Code::Usage && error.to_string().contains("--threads-per-nic 21"),
            "{error}"
        );
    }
}
