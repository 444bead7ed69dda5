"""Times a short all-reduce between pairs of nodes, and says which nodes are slow. Written by hpcplan; needs PyTorch.

    python3 all_reduce.py EXPECTED_BYTES_PER_S LEAST_SHARE

One such process a node starts one for each of its accelerators (without any: one, with gloo, for the CPUs). Nodes are
paired; those of a slow pair are paired once more, each with a node of a pair that was not slow, and who is slow again
is the one. The first process prints a line for each node, 'NODE ok' or 'NODE bad REASON'.
"""

import datetime
import os
import subprocess
import sys
import time

REPEATS = 5


def start_workers(count):
    """Run this file once for each accelerator of the node; return the first status that is not 0."""
    hosts = os.environ["HPCPLAN_HOSTS"].split()
    first = hosts.index(os.environ["SLURMD_NODENAME"]) * count
    processes = []
    for local in range(count):
        ranks = {
            "RANK": first + local,
            "LOCAL_RANK": local,
            "WORLD_SIZE": count * len(hosts),
            "LOCAL_WORLD_SIZE": count,
        }
        env = {**os.environ, **{name: str(value) for name, value in ranks.items()}, "HPCPLAN_WORKER": "1"}
        processes.append(subprocess.Popen([sys.executable, *sys.argv], env=env))
    return max(process.wait() for process in processes)


def pairs_of(count):
    """Return pairs of neighbours; the last of an odd number is paired with the first."""
    pairs = [(i, i + 1) for i in range(0, count - 1, 2)]
    return [*pairs, (count - 1, 0)] if count % 2 and count > 1 else pairs


def suspects(pairs, rates, least):
    """Return the nodes of pairs that are slower than ``least``, in order."""
    return sorted({node for index, pair in enumerate(pairs) if rates[index] < least for node in pair})


def second_pairs(slow, count):
    """Return pairs of each node under suspicion with one that is not, in turns; none if all are under suspicion."""
    fast = [node for node in range(count) if node not in slow]
    return [(node, fast[index % len(fast)]) for index, node in enumerate(slow)] if fast else []


def blamed(slow, again, rates, least):
    """Return the nodes that were slow again, with their rates; all under suspicion where nothing told them apart."""
    if not again:
        return dict.fromkeys(slow, 0.0)
    return {pair[0]: rates[index] for index, pair in enumerate(again) if rates[index] < least}


def bus_bandwidth(torch, group, ranks, numbers, device):
    """Return the bus bandwidth of NCCL's tests: 2(n-1)/n of the buffer over the time of an all-reduce, in bytes/s."""
    buffer = torch.ones(numbers, dtype=torch.float32, device=device)
    best = float("inf")
    for _ in range(REPEATS + 1):  # the first sets up connections
        torch.distributed.barrier(group=group)
        began = time.perf_counter()
        torch.distributed.all_reduce(buffer, group=group)
        if device.type == "cuda":
            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - began)
    return 2 * (ranks - 1) / ranks * numbers * 4 / best


def measure(torch, pairs, per_node, numbers, device):
    """Return the bandwidth of each pair; pairs that share a node take turns."""
    dist, rank = torch.distributed, torch.distributed.get_rank()
    mine = torch.zeros(len(pairs), dtype=torch.float64)
    for index, pair in enumerate(pairs):
        members = sorted(node * per_node + local for node in pair for local in range(per_node))
        group = dist.new_group(members)  # every rank has to call it
        if rank in members:
            mine[index] = bus_bandwidth(torch, group, len(members), numbers, device)
    mine = mine.to(device)
    dist.all_reduce(mine, op=dist.ReduceOp.MAX)
    return mine.tolist()


def work(expected, least_share):
    """Take part in the measurement; rank 0 prints what came out."""
    import torch

    local, per_node = int(os.environ["LOCAL_RANK"]), int(os.environ["LOCAL_WORLD_SIZE"])
    cuda = torch.cuda.is_available()
    device = torch.device("cuda", local) if cuda else torch.device("cpu")
    if cuda:
        torch.cuda.set_device(device)
    backend = "nccl" if cuda else "gloo"
    torch.distributed.init_process_group(backend, timeout=datetime.timedelta(minutes=5))
    hosts = os.environ["HPCPLAN_HOSTS"].split()
    numbers = (256 if cuda else 4) * 2**20 // 4
    first = pairs_of(len(hosts))
    rates = measure(torch, first, per_node, numbers, device)
    least = expected * least_share if cuda else 0.0  # what is expected is of the accelerators' network
    slow = suspects(first, rates, least)
    again = second_pairs(slow, len(hosts))
    found = blamed(slow, again, measure(torch, again, per_node, numbers, device) if again else [], least)
    if torch.distributed.get_rank() == 0:
        report(hosts, found, expected, rates)
    torch.distributed.destroy_process_group()


def report(hosts, found, expected, rates):
    """Print a line for each node, and one for all."""
    for index, host in enumerate(hosts):
        if index in found:
            rate = found[index] or min(rates)
            print(f"{host} bad all-reduce at {rate / 1e9:.1f} GB/s, {expected / 1e9:.1f} expected", flush=True)
        else:
            print(f"{host} ok", flush=True)
    print(f"measured all-reduce over pairs of nodes: {min(rates) / 1e9:.1f} to {max(rates) / 1e9:.1f} GB/s", flush=True)


def main():
    """Start the workers, or be one."""
    expected, least_share = float(sys.argv[1]), float(sys.argv[2])
    if os.environ.get("HPCPLAN_WORKER"):
        return work(expected, least_share)
    try:
        import torch
    except ImportError:
        print(os.environ["SLURMD_NODENAME"], "ok")  # nothing to measure with
        return 0
    return start_workers(torch.cuda.device_count() or 1)


if __name__ == "__main__":
    sys.exit(main())
