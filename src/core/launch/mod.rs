//! Start of nodes: what is decided about it.
//!
//! - [`method`]: who starts the nodes of a transfer
//! - [`host_script`]: the command that runs on a host, and its lines
//! - [`orders`]: what a node there is told
//! - [`port_range`]: the ports that it may listen at
//! - [`ssh_words`]: what ssh says when it fails
//! - [`slurm_job`]: the Slurm job that this process is part of, and a step in it
//! - [`slurm_words`]: what srun says when it fails

pub(crate) mod host_script;
pub(crate) mod method;
pub(crate) mod orders;
pub(crate) mod port_range;
pub(crate) mod slurm_job;
pub(crate) mod slurm_words;
pub(crate) mod ssh_words;
