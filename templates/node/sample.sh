#!/bin/bash
# Writes what this node uses, every so many seconds, to usage/JOB/NODE.csv in the campaign's directory, until it is
# killed. Started by hpcplan's jobs:   sample.sh SECONDS
#
# A line for each GPU (use in %, memory in MiB, power in W) and one for the node (CPU in %, memory in MiB). GPU figures
# are DCGM's where it answers (then use is the share of time that the multiprocessors were busy), else nvidia-smi's.
set -uo pipefail
every=${1:-30}
node=${SLURMD_NODENAME:-$(hostname -s)}
proc=${HPCPLAN_PROCFS:-/proc}
folder=${HPCPLAN_CAMPAIGN_DIR:-.}/usage/${SLURM_JOB_ID:-0}
mkdir -p "$folder"
out=$folder/$node.csv
[[ -s $out ]] || echo "time,node,gpu,gpu_percent,gpu_memory_mib,gpu_power_w,cpu_percent,memory_mib" >"$out"

# Fields of DCGM: 1002 SM activity, 252 framebuffer used, 155 power.
dcgm() { dcgmi dmon -e 1002,252,155 -c 1 2>/dev/null | awk '$1 == "GPU" && $3 ~ /^[0-9.]+$/ { printf "%s,%.1f,%s,%s\n", $2, 100 * $3, $4, $5 }'; }
smi() { nvidia-smi --query-gpu=index,utilization.gpu,memory.used,power.draw --format=csv,noheader,nounits 2>/dev/null | tr -d ' '; }
gpus() { :; }
if command -v dcgmi >/dev/null && [[ -n $(dcgm) ]]; then
  gpus() { dcgm; }
elif command -v nvidia-smi >/dev/null; then
  gpus() { smi; }
fi

# Time that all CPUs together have spent, and that they were idle or waiting for disks, in ticks.
cpu_times() { awk '$1 == "cpu" { total = 0; for (i = 2; i <= 9; i++) total += $i; print total, $5 + $6 }' "$proc/stat"; }
memory_mib() { awk '$1 == "MemTotal:" { t = $2 } $1 == "MemAvailable:" { a = $2 } END { printf "%d", (t - a) / 1024 }' "$proc/meminfo"; }

read -r total_before idle_before < <(cpu_times)
while true; do
  sleep "$every" &
  wait $! # not 'sleep' alone: bash would be deaf to SIGTERM meanwhile
  read -r total idle < <(cpu_times)
  percent=$(awk -v t="$((total - total_before))" -v i="$((idle - idle_before))" 'BEGIN { printf "%.1f", (t > 0 ? 100 * (t - i) / t : 0) }')
  total_before=$total idle_before=$idle
  now=$(date +%s)
  {
    gpus | sed "s/^/$now,$node,/; s/\$/,,/"
    echo "$now,$node,,,,,$percent,$(memory_mib)"
  } >>"$out"
done
