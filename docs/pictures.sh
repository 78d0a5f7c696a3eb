#!/usr/bin/env bash
# Makes README's picture of a photograph: an image teacher and student on CIFAR-100's 20 coarse classes, and the patches that
# the student selects on a photograph of scikit-learn (by vultilion, CC BY 2.0). About ten minutes on one core.
#
#     docs/pictures.sh CIFAR100 DEIT_TINY WORK
#
# CIFAR100: a folder of train.parquet and test.parquet; DEIT_TINY: facebook/deit-tiny-patch16-224 or a local copy.
set -euo pipefail
