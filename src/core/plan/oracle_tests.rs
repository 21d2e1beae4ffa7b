//! Random problems: plans are compared with a general solver for linear programs, and with their
//! own demands.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::collections::BTreeMap;

use clarabel::algebra::CscMatrix;
use clarabel::solver::{
    DefaultSettingsBuilder, DefaultSolver, IPSolver, SolverStatus, SupportedConeT,
};
use random::SplitMix;

use super::balance::NodeSide;
use super::*;

/// Number of problems in each test; `CEP_FAST_PLANS=5000` tests more.
fn rounds() -> u64 {
    std::env::var("CEP_FAST_PLANS").ok().and_then(|count| count.parse().ok()).unwrap_or(300)
}

/// Features of random problems besides nodes and rows.
#[derive(Clone, Copy, Default)]
struct With {
    groups: bool,
    pairs: bool,
    stores: bool,
}

const PLAIN: With = With { groups: false, pairs: false, stores: false };
const SPACE: u64 = 1 << 40;

/// Creates a problem of a few nodes whose speeds differ by up to a factor of a hundred. Every byte
/// is offered.
fn problem(seed: u64, with: With) -> PlanProblem {
    let random = &mut SplitMix::new(seed);
    let (senders, receivers) = (1 + random.below(6) as u32, 1 + random.below(6) as u32);
    let mut problem = PlanProblem::default();
    for (count, name) in [(senders, "s"), (receivers, "r")] {
        for at in 0..count {
            let speed =
                |random: &mut SplitMix| 1e9 * 10_f64.powf(random.below(2001) as f64 / 1000.0);
            problem.nodes.push(NodeCapacity {
                name: format!("{name}{at}:1"),
                send_bytes_per_second: speed(random),
                receive_bytes_per_second: speed(random),
                ..NodeCapacity::default()
            });
        }
    }
    let window = |random: &mut SplitMix| {
        let (a, b) = (random.below(SPACE), random.below(SPACE));
        Span::new(a.min(b), a.max(b) + 1)
    };
    for at in 0..senders {
        let whole = at == 0 || random.one_in(4);
        problem.offers.push((NodeIx(at), if whole { Span::new(0, SPACE) } else { window(random) }));
    }
    for at in senders..senders + receivers {
        // Some nodes have part of what they want.
        if random.one_in(5) {
            problem.offers.push((NodeIx(at), window(random)));
        }
        let span = if random.one_in(3) { Span::new(0, SPACE) } else { window(random) };
        if with.groups && random.one_in(2) {
            // No node wants a byte for two groups: the upper half of the space belongs to another
            // pair of groups.
            let half = SPACE / 2;
            let halves =
                [Span::new(0, half), Span::new(half, SPACE)].map(|half| span.intersection(half));
            for (half, span) in (0..).zip(halves).filter_map(|(half, span)| Some((half, span?))) {
                problem.group_wants.push((
                    GroupIx(2 * half + random.below(2) as u32),
                    NodeIx(at),
                    span,
                ));
            }
        } else {
            problem.wants.push((NodeIx(at), span));
        }
        if random.one_in(3) {
            problem.wants.push((NodeIx(at), window(random)));
        }
    }
    if with.groups && random.one_in(2) {
        // Groups whose members all want the same range leave most to decide.
        problem.group_wants.iter_mut().for_each(|row| row.2 = Span::new(0, SPACE / 2));
        problem.group_wants.dedup_by_key(|row| row.1);
    }
    if with.pairs {
        for _ in 0..random.below(6) {
            let count = problem.nodes.len() as u64;
            let (from, to) =
                (NodeIx(random.below(count) as u32), NodeIx(random.below(count) as u32));
            let bytes_per_second = 1e8 * (1 + random.below(100)) as f64;
            if !problem.pairs.iter().any(|pair| (pair.from, pair.to) == (from, to)) {
                problem.pairs.push(PairLimit { from, to, bytes_per_second });
            }
        }
    }
    if with.stores {
        for name in ["lustre", "disk"] {
            problem.stores.push(StoreCapacity {
                name: name.into(),
                bytes_per_second: 1e9 * (1 + random.below(100)) as f64,
            });
        }
        for node in &mut problem.nodes {
            node.reads = random.one_in(2).then(|| StoreIx(random.below(2) as u32));
            node.writes = random.one_in(2).then(|| StoreIx(random.below(2) as u32));
        }
    }
    problem
}

/// Returns the least time by the linear program of the papers, solved by an interior point method.
fn optimum(problem: &PlanProblem) -> f64 {
    let mut program = Program::default();
    for segment in segments::cut(problem).unwrap() {
        program.add_segment(problem, &segment);
    }
    program.solve(problem)
}

/// Rows of the program: variable 0 is T in [`UNIT_SECONDS`], the others are bytes in [`UNIT`], so
/// that all are near 1.
#[derive(Default)]
struct Program {
    variables: usize,
    equal: Vec<(Vec<(usize, f64)>, f64)>,
    /// Bytes through each part, and the bytes that pass it in any case.
    parts: BTreeMap<bound::FullPart, (Vec<usize>, f64)>,
}

const UNIT: f64 = SPACE as f64;
const UNIT_SECONDS: f64 = 1000.0;

impl Program {
    fn add_segment(&mut self, problem: &PlanProblem, segment: &Segment) {
        let bytes = segment.span.bytes() as f64 / UNIT;
        for &receiver in &segment.receivers {
            let node = &problem.nodes[receiver.at()];
            if segment.senders.contains(&receiver) {
                node.reads
                    .into_iter()
                    .for_each(|store| self.besides(bound::FullPart::Read(store), bytes));
                node.writes
                    .into_iter()
                    .for_each(|store| self.besides(bound::FullPart::Written(store), bytes));
            } else {
                self.want(problem, &segment.senders, &[receiver], bytes);
            }
        }
        for members in &segment.groups {
            self.want(problem, &segment.senders, members, bytes);
        }
    }

    fn besides(&mut self, part: bound::FullPart, bytes: f64) {
        self.parts.entry(part).or_default().1 += bytes;
    }

    fn want(&mut self, problem: &PlanProblem, senders: &[NodeIx], members: &[NodeIx], bytes: f64) {
        let mut all = Vec::new();
        for &to in members {
            for &from in senders {
                self.variables += 1;
                let x = self.variables;
                all.push((x, 1.0));
                let mut through = |part| self.parts.entry(part).or_default().0.push(x);
                through(bound::FullPart::Sender(from));
                through(bound::FullPart::Receiver(to));
                problem.nodes[from.at()]
                    .reads
                    .into_iter()
                    .for_each(|store| through(bound::FullPart::Read(store)));
                problem.nodes[to.at()]
                    .writes
                    .into_iter()
                    .for_each(|store| through(bound::FullPart::Written(store)));
                if problem.pairs.iter().any(|pair| (pair.from, pair.to) == (from, to)) {
                    through(bound::FullPart::Link(from, to));
                }
            }
        }
        self.equal.push((all, bytes));
    }

    fn solve(self, problem: &PlanProblem) -> f64 {
        let columns = 1 + self.variables;
        let (mut entries, mut right) = (Vec::new(), Vec::new());
        for (terms, bytes) in &self.equal {
            entries.extend(terms.iter().map(|&(x, factor)| (right.len(), x, factor)));
            right.push(*bytes);
        }
        let equal = right.len();
        for (part, (xs, besides)) in &self.parts {
            let rate = rate(problem, *part) * UNIT_SECONDS / UNIT;
            entries.push((right.len(), 0, -rate));
            entries.extend(xs.iter().map(|&x| (right.len(), x, 1.0)));
            right.push(-besides);
        }
        for x in 0..columns {
            entries.push((right.len(), x, -1.0));
            right.push(0.0);
        }
        let rows = right.len();
        let [i, j, v] = [0, 1, 2].map(|which| {
            entries.iter().map(|&(i, j, v)| [i as f64, j as f64, v][which]).collect::<Vec<f64>>()
        });
        let index = |list: Vec<f64>| list.into_iter().map(|index| index as usize).collect();
        let a = CscMatrix::new_from_triplets(rows, columns, index(i), index(j), v);
        let mut cost = vec![0.0; columns];
        cost[0] = 1.0;
        let cones =
            [SupportedConeT::ZeroConeT(equal), SupportedConeT::NonnegativeConeT(rows - equal)];
        let settings = DefaultSettingsBuilder::default().verbose(false).build().unwrap();
        let p = CscMatrix::zeros((columns, columns));
        let mut solver = DefaultSolver::new(&p, &cost, &a, &right, &cones, settings).unwrap();
        solver.solve();
        assert_eq!(solver.solution.status, SolverStatus::Solved);
        solver.solution.x[0] * UNIT_SECONDS
    }
}

fn rate(problem: &PlanProblem, part: bound::FullPart) -> f64 {
    match part {
        bound::FullPart::Sender(node) => problem.nodes[node.at()].send_bytes_per_second,
        bound::FullPart::Receiver(node) => problem.nodes[node.at()].receive_bytes_per_second,
        bound::FullPart::Read(store) | bound::FullPart::Written(store) => {
            problem.stores[store.0 as usize].bytes_per_second
        }
        bound::FullPart::Link(from, to) => {
            let pair = problem.pairs.iter().find(|pair| (pair.from, pair.to) == (from, to));
            pair.unwrap().bytes_per_second
        }
    }
}

/// Checks that each receiver gets every byte it wants once, from senders that offer it, by weights
/// that sum to one.
fn check_demands(problem: &PlanProblem, plan: &Plan) {
    let mut taken: BTreeMap<NodeIx, Vec<Span>> = BTreeMap::new();
    assert!(plan.planned.is_sorted_by(|a, b| a.segment.span.end <= b.segment.span.start));
    for planned in &plan.planned {
        let segment = &planned.segment;
        assert!(
            segment.groups.is_empty() && !segment.receivers.is_empty() && !segment.span.is_empty()
        );
        for sender in &segment.senders {
            let offers =
                |&(node, span): &(NodeIx, Span)| node == *sender && span.contains(segment.span);
            assert!(
                problem.offers.iter().any(offers),
                "{sender:?} does not offer {}",
                segment.span
            );
        }
        for &receiver in &segment.receivers {
            taken.entry(receiver).or_default().push(segment.span);
            let shares = planned.senders_for(receiver);
            assert!(shares.iter().all(|(_, weight)| *weight >= 0.0));
            assert!(
                (shares.iter().map(|(_, weight)| weight).sum::<f64>() - 1.0).abs() < 1e-9,
                "{shares:?}"
            );
        }
    }
    let taken = |node: NodeIx| union(taken.get(&node).cloned().unwrap_or_default());
    for &(node, span) in &problem.wants {
        assert!(
            taken(node).iter().any(|taken| taken.contains(span)),
            "{node:?} is not given {span}"
        );
    }
    let groups: std::collections::BTreeSet<GroupIx> =
        problem.group_wants.iter().map(|(group, _, _)| *group).collect();
    for group in groups {
        let rows = || problem.group_wants.iter().filter(|row| row.0 == group);
        let wanted = union(rows().map(|row| row.2).collect());
        let parts = rows()
            .flat_map(|row| taken(row.1).into_iter().filter_map(|span| span.intersection(row.2)));
        assert_eq!(union(parts.collect()), wanted, "{group:?}");
    }
}

/// Returns true for equal times, within the accuracy of the solver.
fn near(a: f64, b: f64) -> bool {
    (a - b).abs() <= 1e-6 * a.max(b) + 1e-6
}

fn hold_against_the_oracle(first_seed: u64, with: With) {
    for seed in first_seed..first_seed + rounds() {
        let problem = problem(seed, with);
        let plan = plan(&problem, Scheduler::Lp).unwrap();
        check_demands(&problem, &plan);
        let optimum = optimum(&problem);
        let Plan { predicted_seconds, bound, .. } = &plan;
        assert!(near(bound.seconds, optimum), "seed {seed}: bound {bound:?}, optimum {optimum}");
        assert!(
            near(*predicted_seconds, optimum),
            "seed {seed}: predicted {predicted_seconds}, optimum {optimum}"
        );
        for scheduler in [Scheduler::Greedy, Scheduler::Uniform] {
            let other = super::plan(&problem, scheduler).unwrap();
            check_demands(&problem, &other);
            assert!(
                near(other.bound.seconds, bound.seconds),
                "seed {seed}: one problem, two bounds"
            );
            assert!(
                other.predicted_seconds >= bound.seconds * (1.0 - 1e-9),
                "seed {seed}: {scheduler:?} beats the bound"
            );
        }
    }
}

#[test]
fn plain_plans_are_the_optimum() {
    hold_against_the_oracle(1_000_000, PLAIN);
}

#[test]
fn plans_with_groups_are_the_optimum() {
    hold_against_the_oracle(2_000_000, With { groups: true, ..PLAIN });
}

#[test]
fn plans_with_pair_limits_are_the_optimum() {
    hold_against_the_oracle(3_000_000, With { pairs: true, ..PLAIN });
}

#[test]
fn plans_with_stores_are_the_optimum() {
    hold_against_the_oracle(4_000_000, With { stores: true, ..PLAIN });
}

#[test]
fn plans_with_groups_and_stores_and_with_pairs_and_stores_are_the_optimum() {
    hold_against_the_oracle(5_000_000, With { stores: true, groups: true, ..PLAIN });
    hold_against_the_oracle(6_000_000, With { stores: true, pairs: true, ..PLAIN });
}

#[test]
fn where_pair_limits_meet_groups_the_bound_is_one_and_the_prediction_honest() {
    for seed in 7_000_000..7_000_000 + rounds() {
        let problem = problem(seed, With { groups: true, pairs: true, stores: true });
        let plan = plan(&problem, Scheduler::Lp).unwrap();
        check_demands(&problem, &plan);
        let optimum = optimum(&problem);
        assert!(plan.bound.seconds <= optimum * (1.0 + 1e-6), "seed {seed}");
        assert!(
            plan.predicted_seconds.max(optimum) - plan.predicted_seconds <= 1e-6 * optimum + 1e-6,
            "seed {seed}"
        );
    }
}

/// Rounds of balancing never make a plan worse, and their estimated duration is the predicted one.
#[test]
fn balanced_weights_are_never_worse_than_the_papers() {
    let with = |groups, pairs, stores| With { groups, pairs, stores };
    let kinds = [PLAIN, with(true, false, true), with(false, true, true)];
    let mut better = [0; 2];
    for (seed, kind) in
        (8_000_000..).zip(kinds.into_iter().cycle()).take(rounds() as usize * kinds.len())
    {
        let problem = problem(seed, kind);
        let segments = segments::cut(&problem).unwrap();
        let demand = PlanDemand::of(&problem, &segments);
        let floor = bound::floor(&problem, &demand).seconds;
        let (sending, receiving) =
            (NodeSide::sending(&problem, &demand), NodeSide::receiving(&problem, &demand));
        let spare = greedy::spare(&problem, &demand, &receiving, floor);
        let mut seconds: f64 = 0.0;
        for (at, (side, first)) in
            [(&sending, greedy::as_in_the_paper(&problem, &sending)), (&receiving, spare)]
                .into_iter()
                .enumerate()
        {
            let balanced = side.balance(first.clone(), floor * (1.0 + NEAR));
            assert!(
                balanced.iter().all(|price| price.is_finite() && *price >= 0.0),
                "seed {seed}: {balanced:?}"
            );
            assert_eq!(
                balanced,
                side.balance(first.clone(), floor * (1.0 + NEAR)),
                "seed {seed}: the same again"
            );
            let [before, after] = [&first, &balanced].map(|prices| side.seconds(prices));
            assert!(after <= before, "seed {seed}: {before}, then {after}");
            better[at] += u64::from(after < before * 0.999);
            seconds = seconds.max(after);
        }
        let plan = plan(&problem, Scheduler::Greedy).unwrap();
        assert!(
            near(plan.predicted_seconds, seconds),
            "seed {seed}: {seconds}, but {}",
            plan.predicted_seconds
        );
    }
    assert!(better.iter().all(|count| *count > 0), "{better:?}");
}

#[test]
#[allow(
    clippy::print_stdout,
    reason = "what greedy loses is a figure to be read, not only one to be kept"
)]
fn greedy_is_near_the_optimum_on_average() {
    let gap = |scheduler| {
        let of = |seed| {
            let plan = plan(&problem(seed, PLAIN), scheduler).unwrap();
            if plan.bound.seconds > 0.0 { plan.predicted_seconds / plan.bound.seconds } else { 1.0 }
        };
        let gaps: Vec<f64> = (0..1000).map(of).collect();
        (gaps.iter().sum::<f64>() / 1000.0, gaps.iter().copied().fold(0.0, f64::max))
    };
    let [greedy, uniform] = [Scheduler::Greedy, Scheduler::Uniform].map(gap);
    println!(
        "of the optimum, without stealing: greedy {greedy:?}, uniform {uniform:?} (mean, worst)"
    );
    assert!(greedy.0 < 1.001 && greedy.1 < 1.05, "{greedy:?}");
    assert!(greedy.0 < uniform.0 && greedy.1 < uniform.1, "{greedy:?}, {uniform:?}");
}
