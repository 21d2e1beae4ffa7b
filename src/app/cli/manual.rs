//! What the manual says besides commands and options. `--help` has the exit statuses, too.

/// Exit statuses, with what each means.
pub const EXIT_STATUSES: [(u8, &str); 9] = [
    (0, "complete"),
    (1, "internal"),
    (2, "usage or specification"),
    (3, "node unreachable or lost"),
    (4, "refused"),
    (5, "data source or destination"),
    (6, "integrity"),
    (7, "stalled"),
    (130, "cancelled"),
];

/// Environment variables that the program reads, with what each does.
pub const ENVIRONMENT: [(&str, &str); 6] = [
    ("CEP_FAST_SSH", "The command of --launch ssh and auto, with options of its own."),
    ("CEP_FAST_IO", "With the value plain, a node uses plain calls instead of io_uring."),
    ("SLURM_JOB_ID", "The job whose hosts --launch slurm and auto may use."),
    (
        "XDG_CACHE_HOME",
        "Where the program is kept on hosts that it was sent to, instead of ~/.cache.",
    ),
    ("XDG_RUNTIME_DIR", "Where status and cancel find your own transfers, instead of /tmp."),
    ("XDG_STATE_HOME", "Where the key of your journals is, instead of ~/.local/state."),
];

/// Files of the program, with what each is for.
pub const FILES: [(&str, &str); 4] = [
    (
        "/usr/lib/cep-fast/cep-fast-static-MACHINE",
        "The program that is sent to hosts of that machine type (uname -m) that have none.",
    ),
    ("~/.cache/cep-fast/", "The program on hosts that it was sent to."),
    (
        ".NAME.cep-TAG, .NAME.cep-TAG.journal",
        "What has landed of the destination NAME, beside it, until it is complete.",
    ),
    ("/dev/shm/cep-fast.cpus", "Which CPUs the nodes of this machine have taken."),
];

/// Returns the last lines of `--help`.
pub(super) fn exit_status_line() -> String {
    let statuses = EXIT_STATUSES.map(|(status, meaning)| format!("{status} {meaning}"));
    format!("Exit status: {}.", statuses.join(", "))
}
