#!/bin/bash
# Looks at the node that it runs on and prints one line: 'NODE ok', or 'NODE bad REASON'. Started on every node by the
# jobs of llama3-70b. Written by hpcplan 1.2.3.
set -uo pipefail
node=${SLURMD_NODENAME:-$(hostname -s)}
sys=${HPCPLAN_SYSFS:-/sys}

bad() {
  printf '%s bad %s\n' "$node" "$*"
  exit 0
}

count_gpus() {
  if command -v nvidia-smi >/dev/null; then
    nvidia-smi --list-gpus | grep -c '^GPU '
  elif command -v rocm-smi >/dev/null; then
    rocm-smi --showid | grep -oE 'GPU\[[0-9]+\]' | sort -u | wc -l
  else
    tr ',' '\n' <<<"${CUDA_VISIBLE_DEVICES:-${ROCR_VISIBLE_DEVICES:-}}" | grep -c .
  fi
}
gpus=$(count_gpus)
((gpus >= 8)) || bad "$gpus GPUs, 8 expected"
if command -v nvidia-smi >/dev/null; then
  errors=$(nvidia-smi --query-gpu=ecc.errors.uncorrected.volatile.total --format=csv,noheader,nounits | grep -E '^ *[1-9]' | head -n 1)
  [[ -z $errors ]] || bad "a GPU with ${errors// /} uncorrected memory errors"
  while IFS=', ' read -r index width most; do
    [[ $width =~ ^[0-9]+$ && $most =~ ^[0-9]+$ ]] || continue
    ((width >= most)) || bad "GPU $index on $width of $most PCIe lanes"
  done < <(nvidia-smi --query-gpu=index,pcie.link.width.current,pcie.link.width.max --format=csv,noheader,nounits)
  down=$(nvidia-smi nvlink --status 2>/dev/null | grep -ci inactive)
  ((down == 0)) || bad "$down NVLinks are down"
fi
# Rates of the InfiniBand ports, as the kernel has them: '400 Gb/sec (4X NDR)'.
least_gbps=380
interfaces=(mlx5_0 mlx5_1)
if [[ -d $sys/class/infiniband ]]; then
  for interface in "${interfaces[@]}"; do
    port=$sys/class/infiniband/$interface/ports/1
    [[ -r $port/state ]] || bad "interface $interface is missing"
    read -r _ state <"$port/state"
    [[ $state == ACTIVE ]] || bad "interface $interface is $state"
    read -r rate _ <"$port/rate"
    awk -v rate="$rate" -v least="$least_gbps" 'BEGIN { exit !(rate >= least) }' || bad "interface $interface at $rate Gb/s, at least $least_gbps expected"
  done
else
  printf 'note %s has no InfiniBand interfaces to look at\n' "$node"
fi
printf '%s ok\n' "$node"
