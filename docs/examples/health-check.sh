#!/bin/sh
# Measures the nodes of a job, or of a list, against each other, and drains those that are slow.
# As PrologSlurmctld (SLURM_JOB_NODELIST is set), or from cron: health-check.sh 'dtn[01-16]'
set -u
nodes=${1:-${SLURM_JOB_NODELIST:?no nodes are named}}
report=$(cep-fast bench "$nodes" --launch ssh --min-efficiency 0.8 --json --progress never)
status=$?
# 5: a node is slow. Whatever else there is, such as a node that is not reached, was printed.
[ "$status" = 5 ] || exit "$status"
echo "$report" | jq -r '.nodes[] | select(.verdict == "slow") | "\(.node) \(.causes[0].cause)"' |
    while read -r node cause; do
        scontrol update "nodename=$node" state=drain "reason=cep-fast: $cause"
    done
exit "$status"
