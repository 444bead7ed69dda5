#!/bin/bash
# Copies data to where this node reads it faster: /raid/scratch. Started on every node by the jobs of
# llama3-70b. What is there already, with the same size and time, is left alone, so that the next segment
# finds it. Written by hpcplan 1.2.3.
set -euo pipefail
((${SLURM_LOCALID:-0} == 0)) || exit 0 # one task a node copies
sources=('/data/web text')
target=$HPCPLAN_STAGED_DATA
streams=4
node=${SLURMD_NODENAME:-$(hostname -s)}
mkdir -p "$target"
# What copies that were killed have left half done.
find "$target" -name '*.hpcplan-part.*' -mmin +60 -delete 2>/dev/null || true

# Every file with its size, the largest first: 'BYTES PATH', ended by NUL, as names may hold anything.
files() { find -L "${sources[@]}" -type f -printf '%s %p\0' | sort -z -k 1,1nr -k 2; }

# Each node takes all.
share() {
  local entry
  while IFS= read -r -d '' entry; do
    printf '%s\0' "${entry#* }"
  done < <(files)
}

# copy PATH: whole or not at all, and only if it is not there already.
copy() {
  local to=$HPCPLAN_STAGED_DATA$1
  if [[ -f $to && $(stat -L -c '%s %Y' "$1") == "$(stat -c '%s %Y' "$to")" ]]; then
    return 0
  fi
  mkdir -p "${to%/*}"
  cp -L --preserve=timestamps "$1" "$to.hpcplan-part.$SLURM_JOB_ID.$$"
  mv -f "$to.hpcplan-part.$SLURM_JOB_ID.$$" "$to"
  echo copied
}
export -f copy
began=$SECONDS
# shellcheck disable=SC2016 # the inner shell expands it
copied=$(share | xargs -0 -r -n 1 -P "$streams" bash -euc 'copy "$1"' copy)
printf 'hpcplan: %s: %d files copied to %s in %d s\n' "$node" "$(grep -c copied <<<"$copied" || true)" "$target" "$((SECONDS - began))"
