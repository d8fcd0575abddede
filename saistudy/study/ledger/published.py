"""Facts that only a web page or another repository shows, each with its source, as inputs of the ledger.

The original repository is github.com/AlterMundi/sai-net-detector; the first seed is its file
docs/hybrid_sacred_configuration.md at commit 56ebfad. Nothing of its code is copied.
"""

from datetime import datetime

# docs/h200_workers_optimization_validation.md, "Date", of the same commit 56ebfad as the first seed: it
# reports the 2.33 it/s and 56.6 GB that the seed quotes (L172)
COMPANION_DATE = "2025-08-24"
# configs/yolo/fasdd_stage1_shm.yaml at commit 307a8b7: where each split is read from
SPLIT_FOLDERS = {
    "train": "/dev/shm/sai_cache/images/train",
    "val": "/dev/shm/sai_cache/images/val",
    "test": "/workspace/sai-net-detector/data/yolo/images/test",
}
# scripts/setup_shm_training.sh at commit 307a8b7: where it copies images and labels of train to
COPIED_TO = {"images": "/dev/shm/sai_cache/train", "labels": "/dev/shm/sai_cache/labels/train"}
# benchmark_results/benchmark_results.json and benchmark_results_sacred_896/benchmark_results.json at commit
# 3a0a2b2, keys validation_metrics.mAP50, under the resolution that each file states
BENCHMARKS = {"1440x808": 0.7594760536048201, "896x896": 0.7594760536048201}
# commit times of that repository (UTC): stage 1 started, stage 2 done
STARTED = datetime(2025, 8, 24, 15, 29)
ENDED = datetime(2025, 8, 24, 21, 12)
# NVIDIA H100 Tensor Core GPU Architecture (white paper) and data sheet, H100 SXM5: TFLOPS of FP16 with
# sparsity (989.4 without; 3,957.8 is FP8 with sparsity), TB/s of HBM3, 132 SMs of 128 FP32 cores each
H100 = {"fp16_tflops": 1978.9, "bandwidth_tb_s": 3.35, "cuda_cores": 132 * 128}
# What a feature needs at least: torch.cuda.amp came with PyTorch 1.6 (catalyst-team.github.io, FAQ, mixed
# precision: before it, NVIDIA Apex); the tutorial "Channels Last Memory Format in PyTorch" asks for 1.5.0;
# torch/_inductor/exc.py, GPUTooOldForTriton, names the compute capability
REQUIREMENTS = {
    "mixed precision": ("1.6 or later", "PyTorch 1.6, the first with torch.cuda.amp"),
    "channels-last": ("1.5", "PyTorch's tutorial on the channels-last format, prerequisites"),
    "compile": ("CUDA capability 7.0 or more", "torch/_inductor/exc.py, GPUTooOldForTriton"),
}
# docs/h200_workers_optimization_validation.md at commit 56ebfad, "Training Time Reduction": the estimate that
# its 12 hours, called 75 % less, are compared with
ESTIMATE_H = 21.0
# Goyal et al. 2017, arXiv 1706.02677, section 2.1: k times the minibatch, k times the learning rate
LINEAR_RULE = (8.0, 8.0)  # factor of the batch, factor of the learning rate
