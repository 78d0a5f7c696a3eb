#!/usr/bin/env bash
# Makes README's picture of a photograph: a teacher and a student on 2,000 images of CIFAR-100 with its 20 coarse classes,
# and the patches that the student decides from on a sample photograph of scikit-learn. About 20 minutes on a busy machine.
#
#     docs/pictures.sh CIFAR100 DEIT_TINY WORK
#
# CIFAR100: a folder with train.parquet and test.parquet; DEIT_TINY: facebook/deit-tiny-patch16-224 or a local copy.
set -euo pipefail
data=$1 backbone=$2 work=$3
small=(--config cifar10-small --data "$data" --backbone "$backbone" --set data.train_limit=2000 --set data.eval_limit=400
  --set epochs=3 --set control_epochs=3 --set predictor_epochs=1 --set comparison_control=none)

rekd-edge train --method re "${small[@]}" --layers 6 --generator-layers 2 --output "$work/teacher"
rekd-edge train --method rekd "${small[@]}" --layers 4 --generator-layers 2 --teacher "$work/teacher" \
  --set allow_weak_teacher=true --output "$work/student"
rekd-edge export "$work/student" --output "$work/bundle"

python - "$work/flower.png" <<'PYTHON'
import sys

from PIL import Image
from sklearn.datasets import load_sample_image

Image.fromarray(load_sample_image("flower.jpg")).resize((480, 320)).save(sys.argv[1])
PYTHON

rekd-edge predict "$work/bundle" "$work/flower.png" --png "$(dirname "$0")/images/flower.png"
