"""Which jobs the commands list, and in what order, as tried on Slurm 22.05."""

from __future__ import annotations

from tests.simulate.commands.conftest import MockSlurm


def test_waiting_jobs_are_listed_as_slurm_lists_them_and_a_released_one_goes_to_the_end(slurm: MockSlurm) -> None:
    full = slurm.submit("-N6", "-t", "60", "sleep 60")
    held = [slurm.submit("-H", "-N6", "-t", "60", "true") for _ in range(3)]
    last = slurm.submit("-N6", "-t", "60", "true")
    assert slurm.out("squeue", "-h", "-t", "PD", "-o", "%i").split() == [last, *reversed(held)]
    assert slurm.out("squeue", "-h", "-S", "i", "-t", "PD", "-o", "%i").split() == [*held, last]
    slurm.out("scontrol", "release", held[1])
    assert slurm.out("squeue", "-h", "-t", "PD", "-o", "%i").split() == [last, held[1], held[2], held[0]]
    array = slurm.submit("-H", "-a", "3-5", "-t", "5", "true")
    assert slurm.out("squeue", "-h", "-r", "-j", array, "-o", "%i").split() == [f"{array}_{task}" for task in (3, 4, 5)]
    assert slurm.out("squeue", "-h", "-j", f"{array}_4", "-o", "%i") == f"{array}_4"
    slurm.out("scancel", f"{','.join(held)},{last}", array, full)


def test_accounting_finds_jobs_by_the_time_at_which_they_could_start(slurm: MockSlurm) -> None:
    """sacct(1), DEFAULT TIME WINDOW; slurmdbd does not find a job by its time that could not start yet."""
    done = slurm.submit("-t", "1", "true")
    slurm.wait_for(done, "COMPLETED")
    held = slurm.submit("-H", "-t", "1", "true")
    later = slurm.submit("-b", "now+1hour", "-t", "1", "true")
    of_today = slurm.out("sacct", "-X", "-n", "-P", "-o", "JobID").split()
    assert done in of_today
    assert not {held, later} & {*of_today}
    assert slurm.out("sacct", "-X", "-n", "-P", "-j", held, "-o", "JobID,State") == f"{held}|PENDING"
    ended = ("sacct", "-X", "-n", "-P", "-o", "JobID", "-s", "CD")
    assert done not in slurm.out(*ended, "-S", "now-1hour").split(), "that is, at that moment"
    assert done in slurm.out(*ended, "-S", "now-1hour", "-E", "now+1minute").split()
    assert slurm.out("sacct", "-X", "-n", "-P", "-o", "JobID", "-j", done, "-s", "R") == done, "it was running once"
    assert slurm.out("sacct", "-B", "-j", done).splitlines()[::2] == [f"Batch Script for {done}", "NONE"]
    slurm.out("scancel", held, later)


def test_steps_are_listed_in_the_form_that_is_asked_for(slurm: MockSlurm) -> None:
    job = slurm.submit("-N1", "-J", "stepper", "-t", "5", "sleep 60")
    listed = slurm.until(lambda: slurm.out("squeue", "-h", "-s", "-j", job, "-o", "%i|%j|%P"))
    assert listed == f"{job}.batch|batch|batch"
    slurm.out("scancel", job)


def test_what_is_no_user_is_refused_and_what_scontrol_may_be_told_in_two_words_is_understood(slurm: MockSlurm) -> None:
    answer = slurm.run("scancel", "-u", "nosuchuser")
    assert (answer.returncode, answer.stderr) == (1, "scancel: error: Invalid user name: nosuchuser\n")
    job = slurm.submit("-H", "-t", "5", "true")
    slurm.out("scontrol", "update", "job", job, "timelimit=20", "name=other")
    assert slurm.out("squeue", "-h", "-j", job, "-o", "%j %l") == "other 20:00"
    wrong = slurm.run("scontrol", "update", f"jobid={job}", "timelimit=rubbish")
    assert (wrong.returncode, wrong.stderr) == (1, "scontrol: error: Invalid TimeLimit value\n")
    assert slurm.out("scontrol", "show", "daemons") == "slurmctld slurmd"
    assert slurm.run("srun", "-n1", "--test-only", "true").stderr.startswith("srun: Job ")
    slurm.out("scancel", job)


def test_accounting_keeps_what_a_job_asked_for_beside_what_it_got(slurm: MockSlurm) -> None:
    """As tried on Slurm 22.05: who names no memory asks for all of a node's, and ends change nothing of it."""
    asked = slurm.submit("-N2", "--mem=500M", "-t", "5", "sleep 60")
    waits = slurm.submit("-H", "-N2", "--mem-per-cpu=10M", "-n8", "-t", "5", "true")
    nothing = slurm.submit("-H", "-N2", "-t", "5", "true")
    slurm.wait_for(asked, "RUNNING")
    ask = ("sacct", "-X", "-n", "-P", "-o", "ReqCPUS,ReqMem,ReqTRES,AllocCPUS,AllocNodes,Flags", "-j")
    memory = int(slurm.out("scontrol", "show", "node", "b1").partition("RealMemory=")[2].split()[0])
    slurm.out("scancel", asked)
    slurm.wait_for(asked, "CANCELLED")
    assert slurm.out(*ask, asked).split("|")[:3] == ["2", "1000M", "billing=2,cpu=2,mem=1000M,node=2"]
    assert slurm.out(*ask, waits) == "8|80M|billing=8,cpu=8,mem=80M,node=2|8|0|StartRecieved"
    assert slurm.out(*ask, nothing).split("|")[1] in {f"{2 * memory}M", f"{2 * memory / 1024:g}G"}
    slurm.out("scancel", waits, nothing)


def test_every_code_of_a_listing_can_be_asked_for_at_once(slurm: MockSlurm) -> None:
    for command, first, last in (("squeue", "ACCOUNT|", "|WORK_DIR"), ("sinfo", "AVAIL|", "|THREADS ")):
        header = slurm.out(command, "-o", "%all").splitlines()[0]
        assert (header.startswith(first), header.endswith(last)) == (True, True)


def test_scancel_ends_what_waits_first_so_that_nothing_takes_a_free_place(slurm: MockSlurm) -> None:
    array = slurm.submit("-a", "1-3%1", "-N6", "-t", "5", "sleep 60")
    slurm.until(lambda: slurm.out("squeue", "-h", "-j", f"{array}_1", "-t", "R"))
    slurm.out("scancel", "--me")
    slurm.until(lambda: str(not slurm.out("squeue", "-h")))
    starts = slurm.out("sacct", "-X", "-n", "-P", "-j", array, "-o", "Start").split()
    assert sum(start != "None" for start in starts) == 1


def test_sinfo_puts_nodes_of_several_sizes_in_one_line_and_shows_the_least(slurm: MockSlurm) -> None:
    """As tried on Slurm 22.05: without --exact sizes tell no lines apart, but names, GRES and states do."""
    ask = ("sinfo", "-h", "-p", "debug", "-o")
    assert slurm.out(*ask, "%P|%c|%m|%N") == "debug|16+|65536+|b[1-6],s[1-2]"
    assert slurm.out("sinfo", "-e", *ask[1:], "%P|%c|%N").split() == ["debug|64|b[1-6]", "debug|16|s[1-2]"]
    assert slurm.out(*ask, "%P|%G").split() == ["debug|gpu:h100:8", "debug|(null)"]
    assert slurm.out(*ask, "%n").split() == [*(f"b{node}" for node in range(1, 7)), "s1", "s2"]
    assert slurm.out("sinfo", "-h", "-o", "%D") == "8", "each node once, in however many partitions it is"


def test_of_an_array_the_waiting_tasks_are_one_row_and_share_its_job_id(slurm: MockSlurm) -> None:
    array = int(slurm.submit("-H", "-a", "1-4%2", "-t", "5", "true"))
    assert slurm.out("squeue", "-h", "-j", f"{array}_1,{array}_3", "-o", "%i %A") == f"{array}_[1,3] {array}"
    slurm.out("scontrol", "update", f"jobid={array}_2", "timelimit=7")
    following = int(slurm.submit("-H", "true"))
    assert slurm.out("squeue", "-h", "-r", "-n", "wrap", "-j", f"{array}_2", "-o", "%A %l") == f"{array + 1} 7:00"
    assert following == array + 2
    listed = ("sacct", "-n", "-P", "-X", "-j", f"{array}", "-o", "JobID,JobIDRaw")
    assert slurm.out(*listed).split() == [f"{array}_2|{array + 1}", f"{array}_[1,3-4%2]|{array}"]
    slurm.out("scancel", f"{array}", f"{following}")
    assert slurm.out(*listed).split() == [f"{array}_2|{array + 1}", f"{array}_[1,3-4%2]|{array}"]


def test_a_job_is_shown_with_its_default_account_and_its_file_as_given(slurm: MockSlurm) -> None:
    job = slurm.submit("-H", "-o", "out.%j", "true")
    shown = slurm.out("squeue", "-h", "-j", job, "-O", "account:20,stdout:200").split()
    assert shown == ["root", str(slurm.folder / "out.%j")]
    slurm.out("scancel", job)


def test_a_signal_to_a_job_that_is_not_there_is_an_error_and_its_cancellation_is_none(slurm: MockSlurm) -> None:
    assert slurm.run("scancel", "999999").returncode == 0
    answer = slurm.run("scancel", "-s", "USR1", "999999")
    assert (answer.returncode, answer.stderr.strip()) == (
        1, "scancel: error: Kill job error on job id 999999: Invalid job id specified",
    )  # fmt: skip


def test_a_job_without_an_account_is_on_the_default_one_wherever_one_asks(slurm: MockSlurm) -> None:
    job = slurm.submit(script="#!/bin/bash\necho $SLURM_JOB_ACCOUNT\n")
    slurm.wait_for(job, "COMPLETED")
    assert slurm.read(f"slurm-{job}.out") == "root\n"
    held, other = slurm.submit("-H", "true"), slurm.submit("-H", "-A", "other", "true")
    slurm.out("scancel", "-A", "root")
    assert slurm.out("squeue", "-h", "-o", "%i").split() == [other]
    assert slurm.state(held).startswith("CANCELLED")
    slurm.out("scancel", other)


def test_a_job_that_runs_can_be_held_and_goes_on(slurm: MockSlurm) -> None:
    job = slurm.submit("sleep 30")
    slurm.wait_for(job, "RUNNING")
    assert slurm.run("scontrol", "hold", job).returncode == 0
    assert slurm.out("squeue", "-h", "-j", job, "-o", "%t %r %Q").split() == ["R", "JobHeldUser", "0"]
    slurm.out("scontrol", "release", job)
    assert slurm.out("squeue", "-h", "-j", job, "-o", "%t %r").split() == ["R", "None"]
    slurm.out("scancel", job)
