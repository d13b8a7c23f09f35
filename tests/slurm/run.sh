#!/usr/bin/env bash
# run.sh PYTHON: tests/workflow/test_cluster.py on a real Slurm of one node, which this script starts on 127.0.0.1 and stops again.
# It takes no privileges, keeps its files in one temporary folder, and touches no other Slurm or munge of the machine.
set -euo pipefail
python=$1
PATH=$PATH:/usr/sbin

for program in munged mungekey slurmctld slurmd sbatch srun; do
    command -v "$program" > /dev/null && continue
    echo "$program is missing; on Debian: apt-get install slurm-wlm munge" >&2
    exit 1
done

folder=$(mktemp -d)
chmod 755 "$folder" # munged refuses a socket that others could not reach

started() { # daemons, tests, jobs: every process that was told the folder
    grep --files-with-matches --no-messages --text --fixed-strings "$folder" /proc/[0-9]*/environ | cut -d / -f 3
}

stop() {
    trap '' INT TERM
    exec 2> /dev/null # the shell's notes on whom it killed
    unset SLURM_CONF # grep is none of them
    while pids=$(started || true) && [ -n "$pids" ]; do
        kill -KILL $pids || true
        sleep 0.1
    done
    rm -rf "$folder"
}
trap stop EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

soon() { # whether a command succeeds within 30 s
    for _ in {1..150}; do
        "$@" && return
        sleep 0.2
    done
    return 1
}

idle() { [ "$(sinfo --noheader --format=%t 2> /dev/null)" = idle ]; }

ports=($("$python" -c '
import socket
held = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
print(*(one.getsockname()[1] for one in held))'))

export SLURM_CONF=$folder/slurm.conf
cat > "$SLURM_CONF" << END
ClusterName=one_node
SlurmctldHost=$(hostname -s)(127.0.0.1)
SlurmctldPort=${ports[0]}
SlurmdPort=${ports[1]}
SlurmUser=$(id -un)
SlurmdUser=$(id -un)
AuthType=auth/munge
AuthInfo=socket=$folder/munge.socket
CredType=cred/munge
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
JobCompType=jobcomp/none
MpiDefault=none
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/slurmd.pid
# the node is what the tests expect, whatever this machine has; it has no GPU
SlurmdParameters=config_overrides
NodeName=$(hostname -s) NodeAddr=127.0.0.1 CPUs=2 RealMemory=64000
PartitionName=all Nodes=ALL Default=YES
END
mkdir "$folder/state" "$folder/spool" "$folder/bin"

# Within a job, Snakemake starts srun without SLURM_CONF.
cat > "$folder/bin/srun" << END
#!/bin/sh
SLURM_CONF=$SLURM_CONF exec $(command -v srun) "\$@"
END
chmod +x "$folder/bin/srun"

# Each in a session of its own, so that Ctrl-C reaches this script alone.
mungekey --create --keyfile="$folder/munge.key"
setsid munged --foreground --key-file="$folder/munge.key" --socket="$folder/munge.socket" --pid-file="$folder/munged.pid" \
    --seed-file="$folder/munged.seed" --log-file="$folder/munged.log" &> "$folder/munged.out" &
soon test -S "$folder/munge.socket" || true
setsid slurmctld -D &> "$folder/slurmctld.out" &
setsid slurmd -D &> "$folder/slurmd.out" &
soon idle || {
    tail -n 5 "$folder"/*.out >&2
    echo "Slurm did not come up; above are its last words" >&2
    exit 1
}
echo "Slurm is up after $SECONDS s"

PATH=$folder/bin:$PATH ONE_NODE_SLURM=1 setsid "$python" -m pytest -k slurm "$(dirname "$0")/../workflow/test_cluster.py" &
wait $!
