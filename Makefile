# make env     the environment in .env/ (repeat it freely: it goes on where it stopped, and does nothing when done)
# make demo    the main job through real ROS 2 nodes; results in out/demo/
#                make demo INPUT=video.mp4         make demo INPUT=bag IMAGE=/topic INFO=/topic
# make demo-multi   four cameras, their fusion, one that dies and returns; results in out/demo_multi/
#                   make demo-multi SHARED=1        one reconstructor for all cameras
# make test    all tests, two at a time            make test PYTEST_ARGS="test/geometry -x" WORKERS=0
# make lint    ruff and mypy
# make bench   milliseconds per stage of the pipeline
# make numbers renders and evaluates the synthetic test set, writes its table into README.md and a page
# make clean   removes results and build products; `make distclean` also the environment
#
# Variables of `make env`: PYTHON=python3.11, TORCH=torch==2.13.0 (any pip requirement or wheel path; the default
# takes the build that this machine's pip offers), TRAIN=1 (renderer for training), PEERS=1 (packages that tests
# compare with; read requirements/peers.txt first: non-commercial licence).
# With an apt ROS 2 sourced, everything uses that ROS instead of the wheels.

SHELL := /bin/bash
PYTHON ?= python3
TORCH ?= torch==2.13.0
OUT ?= out/demo
WORKERS ?= 2
export PYTHON TORCH PEERS TRAIN

.PHONY: help env demo demo-multi test lint bench numbers clean distclean

help:
	@sed -n '/^#/!q; s/^# \{0,1\}//p' Makefile

env:
	@bash scripts/make_env

demo: env
	@./env.sh human-scene demo $(if $(INPUT),"$(INPUT)") $(if $(IMAGE),--image "$(IMAGE)") $(if $(INFO),--info "$(INFO)") --out "$(OUT)"

demo-multi: env
	@./env.sh human-scene demo-multi $(if $(INPUT),"$(INPUT)") $(if $(SHARED),--shared) --out "$(if $(filter file,$(origin OUT)),out/demo_multi,$(OUT))"

# Checks of message fields are off by default in ROS; tests run with them. A file is run by one worker, and files in
# the order of their folders, so that no long one is left for the end. WORKERS=0: one process, for debuggers.
test: env
	@ROS_PYTHON_CHECK_FIELDS=1 ./env.sh python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder $(PYTEST_ARGS)

lint: env
	@./env.sh ruff check .
	@./env.sh env -u PYTHONPATH mypy

bench: env
	@./env.sh human-scene bench pipeline --json

# The test set is rendered once; sequences are run again only if weights, code or options changed.
numbers: env
	@./env.sh human-scene synthesize out/testset --suite all --workers 2
	@./env.sh human-scene evaluate bag out/testset/* --out out/numbers --workers 2
	@./env.sh human-scene evaluate bag out/testset/multicamera --rig given --out out/numbers_rig
	@./env.sh human-scene report out/numbers rig=out/numbers_rig --out out/numbers/report.html --title "Synthetic test set" --readme README.md

clean:
	rm -rf out .env/build .env/install .env/stamps/build .env/pytest_cache .env/mypy_cache .ruff_cache
	find human_scene_ros test -name __pycache__ -type d -prune -exec rm -rf {} +

distclean: clean
	rm -rf .env
