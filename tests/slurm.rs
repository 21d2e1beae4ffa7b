//! Transfers in jobs of a real Slurm: a controller and four nodes, each with two NICs and a file
//! system of its own.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
#![allow(clippy::print_stderr, reason = "a skipped test says so")]

mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use netlab::{LabScript, NetworkLab, SlurmCluster};
use support::{PROGRAM, cep_fast, code, folder, random_bytes, run, stderr, wait_for};

const NODES: u32 = 4;
/// Time for a job, on a busy machine.
const JOB_WITHIN: Duration = Duration::from_secs(120);
/// Lines before every script: `refused STATUS WORDS ARGUMENT...` runs the program, which must end
/// so within ten seconds and say these words.
const HEAD: &str = r#"#!/bin/bash
set -uo pipefail
refused() {
    local said status
    said=$(timeout 12 cep-fast "${@:3}" --progress never 2>&1); status=$?
    if [ "$status" != "$1" ] || [[ $said != *"$2"* ]]; then
        echo "status $status instead of $1, or not '$2': ${*:3}: $said"; exit 1
    fi
}
copy() { cep-fast copy --launch slurm --progress never "$@"; }
everywhere() { srun --overlap --ntasks-per-node=1 "$@"; }
"#;

/// A cluster that is removed with the test.
struct Cluster {
    slurm: SlurmCluster,
    network: NetworkLab,
    /// All nodes see it.
    shared: tempfile::TempDir,
}

impl Cluster {
    /// Starts one; `None`, with a note, where that cannot be.
    fn start(rate: &str) -> Option<Cluster> {
        let script = LabScript::of_repository();
        let missing = SlurmCluster::missing_program().map(|name| format!("there is no {name}"));
        if let Some(obstacle) = script.obstacle().unwrap().or(missing) {
            eprintln!("skipped: {obstacle}");
            return None;
        }
        let nodes = NODES.to_string();
        let options = ["--nodes", &nodes, "--nics", "2", "--rate", rate];
        let network = script.up("s", &options).unwrap();
        let shared = folder();
        fs::set_permissions(shared.path(), fs::Permissions::from_mode(0o755)).unwrap();
        // Processes of this cluster are known by the path of their program.
        let programs = shared.path().join("bin");
        fs::create_dir(&programs).unwrap();
        let program = programs.join("cep-fast");
        fs::hard_link(PROGRAM, &program)
            .or_else(|_| fs::copy(PROGRAM, &program).map(drop))
            .unwrap();
        let state = shared.path().join("slurm");
        let slurm = SlurmCluster::start(&network, NODES, &state, &programs, "").unwrap();
        Some(Cluster { slurm, network, shared })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.shared.path().join(name)
    }

    /// Replaces `OWN` by each node's own directory, and `ALL` by the one that all see.
    fn placed(&self, text: &str) -> String {
        let (own, all) = (self.slurm.own(), self.shared.path());
        text.replace("OWN", own.to_str().unwrap()).replace("ALL", all.to_str().unwrap())
    }

    /// Submits a script for some nodes.
    fn submit(&self, nodes: u32, script: &str) -> u32 {
        let file = self.path("script");
        fs::write(&file, self.placed(&format!("{HEAD}{script}"))).unwrap();
        let nodes = format!("--nodes={nodes}");
        self.slurm.submit(&self.network, &[&nodes], &file, &[]).unwrap()
    }

    /// Runs a script, which has to succeed, and returns its output.
    fn done(&self, nodes: u32, script: &str) -> String {
        let job = self.submit(nodes, script);
        self.completed(job)
    }

    fn completed(&self, job: u32) -> String {
        let (state, status) = self.slurm.end_of(&self.network, job, JOB_WITHIN).unwrap();
        let output = self.slurm.output(job);
        assert_eq!((&*state, &*status), ("COMPLETED", "0:0"), "{output}");
        output
    }

    /// Submits one of the examples, which has to succeed.
    fn example(&self, name: &str, arguments: &[&str]) -> String {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/examples/slurm").join(name);
        let arguments: Vec<String> = arguments.iter().map(|word| self.placed(word)).collect();
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let job = self.slurm.submit(&self.network, &[], &script, &arguments).unwrap();
        self.completed(job)
    }

    /// Returns the ids of this cluster's processes of the program.
    fn processes(&self) -> Vec<u32> {
        let program = self.path("bin/cep-fast");
        let is_ours =
            |id: &u32| fs::read_link(format!("/proc/{id}/exe")).is_ok_and(|path| path == program);
        let entries = fs::read_dir("/proc").unwrap();
        let ids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
        ids.filter(is_ours).collect()
    }

    fn nothing_is_left(&self) {
        wait_for("the end of all nodes", || self.processes().is_empty());
    }

    /// Waits until a part of the transfer whose events are in the shared folder has arrived.
    fn wait_for_part(&self) {
        wait_for("a part of the file", || {
            let events = fs::read_to_string(self.path("events")).unwrap_or_default();
            let landed = events.lines().filter_map(|line| {
                let event: serde_json::Value = serde_json::from_str(line).ok()?;
                (event["event"] == "progress").then(|| event["bytes"].as_u64()).flatten()
            });
            landed.max() > Some(8_000_000)
        });
    }
}

#[test]
fn every_host_of_a_job_gets_a_copy_on_its_own_disk() {
    let Some(cluster) = Cluster::start("500mbit") else { return };
    fs::write(cluster.path("source"), random_bytes(5, 20_000_003)).unwrap();
    cluster.done(
        NODES,
        r#"
        set -e
        cp ALL/source OWN/in
        copy node1:OWN/in '*:OWN/out'
        everywhere cmp OWN/out ALL/source
        # Hosts of the job are found without being told.
        cep-fast copy --progress never OWN/in 'node[2-3]:OWN/auto'
        srun --overlap -w 'node[2-3]' -N2 -n2 cmp OWN/auto ALL/source
        # What the script asks for its own steps is not for that of the nodes.
        SLURM_NTASKS=9 SLURM_NTASKS_PER_NODE=3 SLURM_MEM_PER_CPU=100 SLURM_CPU_BIND=verbose \
            SSH_CONNECTION='10.9.9.9 1 10.9.9.8 22' copy node4:OWN/out node1:OWN/back
        cmp OWN/back ALL/source
        printf '%s\n' 'id a' 'writer node1:7 file://OWN/in 0 0-9999999' \
            'reader node2:7 null: 0 0-9999999' >ALL/spec
        cep-fast run --launch slurm --progress never ALL/spec
        "#,
    );
    cluster.nothing_is_left();
}

#[test]
fn what_cannot_be_done_in_a_job_is_refused_by_name() {
    let Some(cluster) = Cluster::start("500mbit") else { return };
    fs::write(cluster.path("source"), random_bytes(5, 1000)).unwrap();
    cluster.done(
        2,
        r#"
        refused 2 'node3: it is no host of job' copy --launch slurm ALL/source node3:OWN/x
        refused 2 'root@node2: --launch slurm logs in nowhere' \
            copy --launch slurm ALL/source root@node2:OWN/x
        refused 5 'node2:OWN/missing: ' copy --launch slurm node2:OWN/missing OWN/x
        refused 2 ': --root /nosuch: ' copy --launch slurm --root /nosuch node1:/x node2:/x
        mkdir OWN/few && ln -s "$(command -v timeout)" "$(command -v cep-fast)" OWN/few
        PATH=OWN/few refused 2 'srun cannot be started' copy --launch slurm ALL/source node2:OWN/x
        SLURM_JOB_ID=9999 refused 3 'is over' copy --launch slurm ALL/source node2:OWN/x
        SLURM_JOB_ID=x refused 2 'SLURM_JOB_ID=x' copy --launch slurm ALL/source node2:OWN/x
        env -u SLURM_JOB_ID -u SLURM_JOBID bash -c "$(declare -f refused);
            refused 2 'this process is in none' copy --launch slurm ALL/source node2:OWN/x &&
            refused 2 'every host of a Slurm job' copy ALL/source '*:OWN/x'" || exit 1
        # One CPU is said where it is one of several.
        said=$(taskset -c 0 cep-fast launched </dev/null 2>&1)
        [ "$(nproc --all)" = 1 ] || [[ $said == *"one of"*"CPUs"* ]] || { echo "$said"; exit 1; }
        "#,
    );
    // A host whose daemon has stopped answers nothing.
    cluster.done(
        2,
        r#"
        daemons=$(srun --overlap -N1 -n1 -w node2 sh -c 'ip netns pids $(ip netns identify $$)')
        stop() { for id in $daemons; do
            if [ "$(cat /proc/$id/comm 2>/dev/null)" = slurmd ]; then kill -$1 $id; fi; done; }
        stop STOP
        refused 3 node2: copy --launch slurm ALL/source node2:OWN/x
        stop CONT
        "#,
    );
    cluster.nothing_is_left();
}

#[test]
fn a_program_that_one_node_has_is_sent_to_the_others() {
    let Some(cluster) = Cluster::start("500mbit") else { return };
    fs::write(cluster.path("source"), random_bytes(5, 3_000_001)).unwrap();
    cluster.done(
        NODES,
        r#"
        set -e
        cp ALL/bin/cep-fast OWN/cep-fast
        export HOME=OWN/home PATH=/usr/bin:/bin
        ! OWN/cep-fast copy --deploy never ALL/source '*:OWN/x' 2>OWN/said
        grep -q 'node[1-4]: there is no cep-fast' OWN/said
        OWN/cep-fast copy --progress never ALL/source '*:OWN/x'
        everywhere cmp OWN/x ALL/source
        # Now they have it.
        OWN/cep-fast copy --progress never --deploy never ALL/source '*:OWN/y'
        everywhere cmp OWN/y ALL/source
        "#,
    );
}

#[test]
fn a_job_that_is_cancelled_leaves_nothing_and_goes_on_where_it_was() {
    let Some(cluster) = Cluster::start("100mbit") else { return };
    fs::write(cluster.path("source"), random_bytes(5, 60_000_000)).unwrap();
    let script = "copy --json --events ALL/events node1:ALL/source node2:ALL/copy";
    let job = cluster.submit(2, script);
    cluster.wait_for_part();
    let mut cancel = cluster.slurm.command(&cluster.network, 0, "scancel");
    assert!(cancel.arg(job.to_string()).status().unwrap().success());
    let (state, _) = cluster.slurm.end_of(&cluster.network, job, JOB_WITHIN).unwrap();
    assert_eq!(state, "CANCELLED");
    cluster.nothing_is_left();
    let output = cluster.done(2, script);
    let report = output.lines().last().unwrap();
    let report: serde_json::Value = serde_json::from_str(report).unwrap();
    assert!(report["resumed_bytes"].as_u64() > Some(0), "{report}");
    assert_eq!(fs::read(cluster.path("copy")).unwrap(), fs::read(cluster.path("source")).unwrap());
    assert_eq!(support::beside(cluster.shared.path(), "copy"), Vec::<PathBuf>::new());
    cluster.nothing_is_left();
}

/// The daemon of a step has the standard input of its tasks: its end is theirs.
#[test]
fn a_step_whose_daemon_is_killed_leaves_nothing() {
    let Some(cluster) = Cluster::start("100mbit") else { return };
    fs::write(cluster.path("source"), random_bytes(5, 60_000_000)).unwrap();
    let script = "copy --events ALL/events node1:ALL/source node2:ALL/copy && exit 9
                  copy node1:ALL/source node2:ALL/copy || exit 8
                  cmp ALL/source ALL/copy";
    let job = cluster.submit(2, script);
    cluster.wait_for_part();
    let kill = "for id in $(ip netns pids $(ip netns identify $$)); do
                    if [ \"$(cat /proc/$id/comm)\" = slurmstepd ]; then kill -KILL $id; fi
                done";
    cluster.network.shell(2, kill).unwrap();
    cluster.completed(job);
    cluster.nothing_is_left();
}

#[test]
fn the_job_scripts_of_the_documents_work() {
    let Some(cluster) = Cluster::start("500mbit") else { return };
    let bytes = random_bytes(5, 12_000_001);
    fs::write(cluster.path("source"), &bytes).unwrap();
    cluster.example("stage-in.sbatch", &["ALL/source", "OWN/in"]);
    let write = "cp /proc/cpuinfo OWN/results/out.$SLURMD_NODENAME";
    cluster.example("stage-out.sbatch", &["OWN/results", "ALL/results", "sh", "-c", write]);
    for node in 1..=NODES {
        let result = fs::read_to_string(cluster.path(&format!("results/out.node{node}"))).unwrap();
        assert!(result.contains("processor"), "{result}");
    }
    // Links to one file come and go with other tests, and each changes it.
    fs::copy(PROGRAM, cluster.path("program")).unwrap();
    let said = cluster.example("broadcast.sbatch", &["ALL/program", "OWN/program"]);
    assert_eq!(said.matches(&format!("cep-fast {}", env!("CARGO_PKG_VERSION"))).count(), 4);
    cluster.done(
        NODES,
        "everywhere cmp OWN/in ALL/source || exit 1
         head -c 7000001 OWN/in >OWN/old
         srun --overlap -N1 -n1 -w node2 sh -c 'tail -c +7000002 OWN/in >OWN/old'",
    );
    cluster.example("redistribute.sbatch", &["2", "OWN/old", "OWN/new"]);
    cluster.done(
        NODES,
        "everywhere sh -c 'cp OWN/new ALL/new.$SLURMD_NODENAME' || exit 1
         cat ALL/new.node1 ALL/new.node2 ALL/new.node3 ALL/new.node4 | cmp - ALL/source",
    );
    cluster.example("continue.sbatch", &["node1:OWN/in", "*:OWN/again"]);
    cluster.done(NODES, "everywhere cmp OWN/again ALL/source");
    cluster.nothing_is_left();
}

#[test]
fn every_node_of_a_job_is_measured_and_examined() {
    let Some(cluster) = Cluster::start("50mbit") else { return };
    cluster.network.fault(3, 1, &["rate", "5mbit"]).unwrap();
    cluster.done(
        NODES,
        r#"
        cep-fast bench --launch slurm --wire clear --check none --progress never \
            --min-efficiency 0.6 --json >ALL/bench
        status=$?; [ $status = 5 ] || { echo "bench ends with $status"; exit 1; }
        cep-fast doctor --launch slurm --json >ALL/doctor
        status=$?; [ $status = 0 ] || [ $status = 5 ] || { echo "doctor: $status"; exit 1; }
        cep-fast doctor 'node[1-2]' --launch slurm >ALL/two
        grep -q '^2 hosts examined' ALL/two || exit 1
        env -u SLURM_JOB_ID -u SLURM_JOBID bash -c "$(declare -f refused);
            refused 2 'this process is in none' bench --launch slurm" || exit 1
        "#,
    );
    let said = |name: &str| -> serde_json::Value {
        serde_json::from_str(&fs::read_to_string(cluster.path(name)).unwrap()).unwrap()
    };
    let (figures, found) = (said("bench"), said("doctor"));
    let nodes = figures["nodes"].as_array().unwrap();
    assert_eq!((nodes.len(), found["hosts"].as_array().unwrap().len()), (4, 4));
    let slow: Vec<&str> = nodes
        .iter()
        .filter(|node| node["verdict"] == "slow")
        .map(|node| node["node"].as_str().unwrap())
        .collect();
    assert_eq!(slow, ["node3"], "{figures}");
    let cause = nodes[0]["causes"][0]["cause"].as_str().unwrap();
    assert!(cause.starts_with("eth1 sends "), "{cause}");
    cluster.nothing_is_left();
}

/// Open MPI hands its standard input to the first of the processes that it starts.
#[test]
fn mpirun_starts_nodes_as_other_commands_do() {
    let version = std::process::Command::new("mpirun").arg("--version").output();
    if !version.is_ok_and(|output| output.status.success()) {
        eprintln!("skipped: there is no mpirun");
        return;
    }
    let home = folder();
    let (hosts, source, copy) =
        (home.path().join("hosts"), home.path().join("source"), home.path().join("copy"));
    fs::write(&hosts, "localhost\nlocalhost\n").unwrap();
    fs::write(&source, random_bytes(6, 3_000_001)).unwrap();
    let how = "mpirun --allow-run-as-root --oversubscribe -n 1 --host {host} {command}";
    let mut command = cep_fast(&["copy", "--progress", "never", "--launch", how]);
    command.arg(&source).arg(format!("@{}:{}", hosts.display(), copy.display()));
    // Each of its sessions has a directory below this one, and a home without a program.
    let output = run(command.env("TMPDIR", home.path()).env("HOME", home.path()));
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    assert!(fs::read(&copy).unwrap() == fs::read(&source).unwrap());
}
