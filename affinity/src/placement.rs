//! Assignment of CPUs to the threads of NICs. Pure: the machine is an argument.

use crate::sysfs::SysfsTree;

/// Policy of the assignment.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum PinningPolicy {
    /// No pinning.
    None,
    /// These CPUs of the user, in turn.
    List(Vec<usize>),
    /// [`place`], near the NICs, starting `spread` CPUs further on: it differs between the nodes on
    /// one machine.
    Auto {
        /// Offset of the first CPU. Any number is valid.
        spread: usize,
    },
}

/// Request of one NIC.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NicRequest {
    /// CPUs near it; empty if unknown.
    pub near: Vec<usize>,
    /// Number of its threads.
    pub threads: usize,
}

/// Available CPUs, by core.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FreeCores(Vec<Vec<usize>>);

impl FreeCores {
    /// Creates the cores. Each inner list has the CPUs of one core; a CPU is in one list only.
    #[must_use]
    pub fn new(cores: Vec<Vec<usize>>) -> FreeCores {
        FreeCores(cores.into_iter().filter(|core| !core.is_empty()).collect())
    }

    /// Returns the cores of the `allowed` CPUs, without their other CPUs.
    #[must_use]
    pub fn of(sysfs: &SysfsTree, allowed: &[usize]) -> FreeCores {
        let mut cores: Vec<Vec<usize>> = Vec::new();
        for &cpu in allowed {
            if !cores.iter().any(|core| core.contains(&cpu)) {
                let core =
                    sysfs.siblings(cpu).into_iter().filter(|sibling| allowed.contains(sibling));
                let is_new = |sibling: &usize| !cores.iter().any(|core| core.contains(sibling));
                cores.push(core.filter(is_new).collect());
            }
        }
        FreeCores::new(cores)
    }

    /// Returns the CPUs for a NIC, as positions in `self`: first one of each core, then the second
    /// of each.
    fn near(&self, near: &[usize]) -> Vec<AssignedCpu> {
        let width = self.0.iter().map(Vec::len).max().unwrap_or(0);
        let by_rank = (0..width).flat_map(|rank| (0..self.0.len()).map(move |core| (core, rank)));
        let seats: Vec<AssignedCpu> = by_rank
            .filter_map(|(core, rank)| Some(AssignedCpu { core, cpu: *self.0[core].get(rank)? }))
            .collect();
        let of_nic: Vec<AssignedCpu> =
            seats.iter().filter(|seat| near.contains(&seat.cpu)).copied().collect();
        if of_nic.is_empty() { seats } else { of_nic }
    }
}

/// A CPU, and its core.
#[derive(Clone, Copy, Debug)]
struct AssignedCpu {
    core: usize,
    cpu: usize,
}

/// Returns the CPUs of each thread of each NIC, the best one first, in the order of `wishes`; none
/// for a thread that is not pinned. [`crate::CpuClaims`] chooses among them, beside other
/// processes.
///
/// With `Auto`, the first CPU of each thread is near its NIC, and no two threads have the same one
/// while another one there is free; whole cores come before second threads of a core. NICs of
/// unknown position choose last, among the remaining CPUs. The other CPUs near the NIC follow.
///
/// ```
/// use affinity::{FreeCores, NicRequest, PinningPolicy, place};
///
/// // Two sockets of two cores; two NICs on the second, one of unknown position.
/// let cores = FreeCores::new(vec![vec![0], vec![1], vec![2], vec![3]]);
/// let wish = |near: &[usize]| NicRequest { near: near.into(), threads: 1 };
/// let policy = PinningPolicy::Auto { spread: 0 };
/// let cpus = place(&[wish(&[2, 3]), wish(&[]), wish(&[2, 3])], &cores, &policy);
/// assert_eq!(cpus, [[vec![2, 3]], [vec![0, 1, 2, 3]], [vec![3, 2]]]);
/// ```
#[must_use]
pub fn place(
    wishes: &[NicRequest],
    cores: &FreeCores,
    pinning: &PinningPolicy,
) -> Vec<Vec<Vec<usize>>> {
    match pinning {
        PinningPolicy::None => wishes.iter().map(|wish| vec![Vec::new(); wish.threads]).collect(),
        PinningPolicy::List(cpus) => {
            let mut cpus = cpus.iter().copied().cycle();
            let mut of_thread = || cpus.next().into_iter().collect();
            wishes.iter().map(|wish| (0..wish.threads).map(|_| of_thread()).collect()).collect()
        }
        PinningPolicy::Auto { spread } => spread_out(wishes, cores, *spread),
    }
}

fn spread_out(wishes: &[NicRequest], cores: &FreeCores, spread: usize) -> Vec<Vec<Vec<usize>>> {
    let mut seats: Vec<Vec<AssignedCpu>> =
        wishes.iter().map(|wish| cores.near(&wish.near)).collect();
    for seats in seats.iter_mut().filter(|seats| !seats.is_empty()) {
        let first = spread % seats.len();
        seats.rotate_left(first);
    }
    // Near sets are nodes and sockets, nested or disjoint: if those with less choice go first, no
    // thread shares a CPU while a free one exists for it.
    let mut order: Vec<usize> = (0..wishes.len()).collect();
    order.sort_by_key(|&nic| (seats[nic].len(), wishes[nic].near.is_empty()));
    let mut taken: Vec<AssignedCpu> = Vec::new();
    let mut placed = vec![Vec::new(); wishes.len()];
    for nic in order {
        for _ in 0..wishes[nic].threads {
            let load = |seat: &AssignedCpu| {
                let on_cpu = taken.iter().filter(|other| other.cpu == seat.cpu).count();
                let on_core = taken.iter().filter(|other| other.core == seat.core).count();
                (on_cpu, on_core)
            };
            // The first of the least loaded ones.
            let (at, seat) =
                seats[nic].iter().enumerate().min_by_key(|(_, seat)| load(seat)).unzip();
            taken.extend(seat);
            let mut cpus: Vec<usize> = seats[nic].iter().map(|seat| seat.cpu).collect();
            cpus.rotate_left(at.unwrap_or(0));
            placed[nic].push(cpus);
        }
    }
    placed
}

#[cfg(test)]
mod tests {
    use super::{FreeCores, NicRequest, PinningPolicy, place};

    fn wish(near: &[usize], threads: usize) -> NicRequest {
        NicRequest { near: near.into(), threads }
    }

    /// Cores with one thread each.
    fn plain(cpus: std::ops::Range<usize>) -> FreeCores {
        FreeCores::new(cpus.map(|cpu| vec![cpu]).collect())
    }

    /// Core *k* of `count` has the CPUs *k* and *k* + `count`, as Linux counts them.
    fn twofold(count: usize) -> FreeCores {
        FreeCores::new((0..count).map(|core| vec![core, core + count]).collect())
    }

    fn auto(wishes: &[NicRequest], cores: &FreeCores, spread: usize) -> Vec<Vec<usize>> {
        let placed = place(wishes, cores, &PinningPolicy::Auto { spread });
        let first = |cpus: Vec<Vec<usize>>| cpus.into_iter().filter_map(|it| it.first().copied());
        placed.into_iter().map(|cpus| first(cpus).collect()).collect()
    }

    #[test]
    fn nics_of_one_socket_share_no_cpu_while_it_has_a_free_one() {
        let near = [4, 5, 6, 7];
        for spread in 0..9 {
            let placed =
                auto(&[wish(&near, 1), wish(&near, 2), wish(&near, 1)], &plain(0..8), spread);
            let mut cpus = placed.concat();
            cpus.sort_unstable();
            assert_eq!(cpus, near, "spread {spread}: {placed:?}");
        }
    }

    #[test]
    fn where_cpus_are_too_few_they_are_shared_evenly() {
        let placed = auto(&[wish(&[0, 1], 3), wish(&[0, 1], 3)], &plain(0..4), 1);
        let on = |cpu: usize| placed.concat().iter().filter(|placed| **placed == cpu).count();
        assert_eq!((on(0), on(1), on(2), on(3)), (3, 3, 0, 0), "{placed:?}");
    }

    #[test]
    fn whole_cores_come_before_second_threads() {
        assert_eq!(auto(&[wish(&[], 5)], &twofold(4), 0), [[0, 1, 2, 3, 4]]);
        // Another numbering: the two threads of a core are adjacent.
        let cores = FreeCores::new(vec![vec![0, 1], vec![2, 3]]);
        assert_eq!(auto(&[wish(&[], 3)], &cores, 0), [[0, 2, 1]]);
        assert_eq!(auto(&[wish(&[], 1), wish(&[], 1)], &cores, 1), [[2], [1]]);
        // The second thread of a core used by another NIC is not a whole core.
        assert_eq!(
            auto(&[wish(&[0, 1], 1), wish(&[1, 2, 3], 2)], &cores, 0),
            [vec![0], vec![2, 1]]
        );
    }

    #[test]
    fn nodes_on_one_machine_start_at_different_cpus() {
        let first = |spread| auto(&[wish(&[], 1)], &twofold(4), spread)[0][0];
        assert_eq!([0, 1, 2, 3, 4, 7, 8].map(first), [0, 1, 2, 3, 4, 7, 0]);
        let near = |spread| auto(&[wish(&[2, 3], 1)], &plain(0..4), spread)[0][0];
        assert_eq!([0, 1, 2].map(near), [2, 3, 2]);
    }

    #[test]
    fn a_nic_without_a_place_gets_what_the_others_left() {
        for spread in 0..5 {
            let placed =
                auto(&[wish(&[], 1), wish(&[0, 1], 2), wish(&[2, 3], 1)], &plain(0..4), spread);
            let mut cpus = placed.concat();
            cpus.sort_unstable();
            assert_eq!(cpus, [0, 1, 2, 3], "spread {spread}: {placed:?}");
        }
    }

    #[test]
    fn a_node_within_a_socket_chooses_first() {
        // The second could use CPU 0 as well, and must leave it to the first.
        for spread in 0..4 {
            let placed = auto(&[wish(&[0, 1, 2, 3], 2), wish(&[0, 1], 2)], &plain(0..8), spread);
            let mut cpus = placed.concat();
            cpus.sort_unstable();
            assert_eq!(cpus, [0, 1, 2, 3], "spread {spread}: {placed:?}");
        }
    }

    #[test]
    fn the_inherited_mask_is_kept() {
        // A launcher left CPUs 2 and 3 of the near socket, or none of it.
        assert_eq!(auto(&[wish(&[0, 1, 2, 3], 2)], &plain(2..6), 0), [[2, 3]]);
        assert_eq!(auto(&[wish(&[0, 1], 2)], &plain(4..6), 0), [[4, 5]]);
    }

    #[test]
    fn a_list_is_taken_in_turn_and_none_is_none() {
        let wishes = [wish(&[], 2), wish(&[5], 1), wish(&[], 1)];
        let listed = place(&wishes, &plain(0..8), &PinningPolicy::List(vec![7, 3, 1]));
        assert_eq!(listed, [vec![vec![7], vec![3]], vec![vec![1]], vec![vec![7]]]);
        let unpinned = place(&wishes, &plain(0..8), &PinningPolicy::None);
        assert_eq!(unpinned, [vec![vec![]; 2], vec![vec![]], vec![Vec::<usize>::new()]]);
        // Without a known mask, nothing is pinned.
        assert_eq!(
            place(&wishes[..1], &FreeCores::new(Vec::new()), &PinningPolicy::Auto { spread: 3 }),
            [[Vec::<usize>::new(), Vec::new()]]
        );
    }
}
