"""What a job asks of a Ray cluster."""

from __future__ import annotations

from pathlib import Path

import pytest

from dskd.errors import InputError
from harness.costs.resources import GIGABYTE, Resources
from harness.executors import ray
from harness.executors._ray_needs import fitted, missing, room
from harness.scheduling.executor import Settings
from helpers.executor_runs import fake, planned

HEAD = {"CPU": 4.0, "memory": 16.0 * GIGABYTE, "node:10.0.0.1": 1.0}
WORKER = {"CPU": 32.0, "GPU": 8.0, "memory": 256.0 * GIGABYTE, "a100": 8.0}


def test_a_job_asks_for_what_its_step_needs_and_for_the_usual_cores() -> None:
    needs = fitted(Resources(gpus=0.25, memory=2 * GIGABYTE), {"a100": 1}, [HEAD, WORKER], 8)
    assert needs == {"num_cpus": 2.0, "num_gpus": 0.25, "memory": 2 * GIGABYTE, "resources": {"a100": 1}}


def test_estimated_gpus_are_left_out_where_there_are_none_and_what_is_too_large_takes_the_largest_node() -> None:
    wanted = Resources(cpus=64, gpus=2.0, memory=500 * GIGABYTE)
    assert fitted(wanted, {}, [HEAD], 1) == {"num_cpus": 4, "num_gpus": 0, "memory": 16 * GIGABYTE, "resources": {}}
    both = fitted(wanted, {}, [HEAD, WORKER], 1)
    assert (both["num_cpus"], both["num_gpus"], both["memory"]) == (32, 2, 256 * GIGABYTE)
    assert fitted(wanted, {}, [], 1)["num_cpus"] == 64  # of a cluster that grows nothing is known


def test_a_job_fits_one_node_and_not_two_together() -> None:
    needs = fitted(Resources(cpus=40, gpus=8.0), {}, [{"CPU": 64.0, "memory": 1e12}, WORKER], 1)
    assert needs["num_cpus"] == 32


def test_gpus_that_the_matrix_asks_for_and_a_clusters_own_resources_have_to_be_there() -> None:
    asked = Resources(gpus=4.0, gpus_required=True)
    assert missing(asked, {"a100": 4.0}, [HEAD, WORKER]) == ""
    assert missing(asked, {}, [HEAD]) == "no node has 4 GPU (the most is 0)"
    assert missing(Resources(gpus=4.0), {}, [HEAD]) == ""
    assert missing(asked, {"disk": 1.0}, [{**HEAD, "disk": 1.0}, WORKER]) == "no node has all of 4 GPU, 1 disk"


def test_a_cluster_has_room_for_as_many_as_fit_its_nodes() -> None:
    assert room(fitted(Resources(gpus=0.5), {}, [HEAD, WORKER], 1), [HEAD, WORKER]) == 16
    assert room(fitted(Resources(gpus=3.0), {}, [HEAD, WORKER], 1), [HEAD, WORKER]) == 2
    assert room(fitted(Resources(memory=8 * GIGABYTE), {}, [HEAD], 1), [HEAD]) == 2
    assert room(fitted(Resources(gpus=9.0), {}, [], 1), [HEAD, WORKER]) == 0


def test_without_ray_one_line_says_how_to_have_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r'Ray is not installed; fix: pip install "dskd-harness\[ray\]"'):
        ray.Executor(Settings(tmp_path)).check(planned(tmp_path, fake(tmp_path, "one")))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("option", "problem"),
    [
        ({"resources": {"GPU": 1}}, "GPU is what a matrix gives by its key `resources`"),
        ({"resources": {"a100": 0}}, "greater than 0"),
        ({"timeout": -1}, "greater than 0"),
    ],
)
def test_options_that_mean_nothing_are_refused(option: dict[str, object], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        ray.Options.model_validate(option)
