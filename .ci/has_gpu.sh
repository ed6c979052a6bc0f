#!/bin/sh
# Succeeds where this machine has an NVIDIA GPU that its driver shows.
nvidia-smi -L 2>/dev/null | grep -q '^GPU' && exit 0
ls -d /proc/driver/nvidia/gpus/* >/dev/null 2>&1
