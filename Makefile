# make setup    .venv with pinned packages, and the ROS 2 interfaces built by colcon
# make demo     setup, then the node over DDS with a recorded patrol and questions
# make test     setup, lint, then the tests; ARGS="-k memory" goes to pytest
# make lint     setup, then scripts/ci_lint.sh: Python, shell scripts, images and workflows
# make train-smoke   setup, then a minute-size training whose answers must turn right
# make clean    removes all that setup made
#
# PYTHON=python3.12 picks the interpreter of .venv.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help setup demo test lint train-smoke clean
# One target after the other: lint and tests need what setup makes.
.NOTPARALLEL:

export PYTHON
ENTER := . ./env.sh
ARGS ?=

help:
	@sed -n 's/^# \(make .*\)/\1/p' Makefile

setup:
	@scripts/setup.sh

demo: setup
	@$(ENTER) && exec python -m fvs_ros.ros_tools.demo $(ARGS)

lint: setup
	@$(ENTER) && exec scripts/ci_lint.sh

test: setup lint
	@$(ENTER) && exec python -m pytest $(ARGS)

train-smoke: setup
	@$(ENTER) && exec python -m pytest test/test_training_smoke.py $(ARGS)

clean:
	rm -rf .venv .setup.lock build install log *.egg-info .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
